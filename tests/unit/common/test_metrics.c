/* Metrics: the text format, labels, folding, collectors, threads, misuse. */
#include "common/metrics.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/support/cmocka_all.h"

static char *render(void) {
    buf_t out;
    buf_init(&out, 1 << 20);
    metrics_render(&out);
    assert_false(out.failed);
    return buf_take(&out, NULL);
}

static void expect_line(const char *text, const char *line) {
    size_t n = strlen(line);
    for (const char *p = text; (p = strstr(p, line)) != NULL; p += n) {
        if ((p == text || p[-1] == '\n') && p[n] == '\n') {
            return;
        }
    }
    fail_msg("no line \"%s\" in:\n%s", line, text);
}

/* The value of a line without labels. */
static double value_of(const char *text, const char *name) {
    char start[128];
    (void)snprintf(start, sizeof start, "\n%s ", name);
    const char *p = strstr(text, start);
    if (!p) {
        fail_msg("no %s", name);
        return 0;
    }
    return strtod(p + strlen(start), NULL);
}

static void test_counter_and_gauge(void **state) {
    (void)state;
    metric_t *c = metrics_counter("t_things_total", "Things with a \\ and\na new line.", NULL);
    metric_t *g = metrics_gauge("t_level", "Level.", "place,kind");
    char *text = render();
    expect_line(text, "# HELP t_things_total Things with a \\\\ and\\na new line.");
    expect_line(text, "# TYPE t_things_total counter");
    expect_line(text, "t_things_total 0"); /* there from the start, so that rate() works */
    free(text);
    metrics_add(c, NULL, 1);
    metrics_add(c, NULL, 2.5);
    metrics_add(c, NULL, -1); /* ignored */
    metrics_add(c, NULL, NAN);
    assert_true(metrics_get(c, NULL) == 3.5);
    metrics_set(g, (const char *const[]){"a\"b\\c\nd", "x"}, 0.1);
    metrics_set(g, (const char *const[]){"a\"b\\c\nd", "y"}, -7);
    metrics_add(g, (const char *const[]){"a\"b\\c\nd", "y"}, 2);
    metrics_set(g, (const char *const[]){"z", "x"}, INFINITY);
    text = render();
    expect_line(text, "t_things_total 3.5");
    expect_line(text, "# TYPE t_level gauge");
    expect_line(text, "t_level{place=\"a\\\"b\\\\c\\nd\",kind=\"x\"} 0.1");
    expect_line(text, "t_level{place=\"a\\\"b\\\\c\\nd\",kind=\"y\"} -5");
    expect_line(text, "t_level{place=\"z\",kind=\"x\"} +Inf");
    free(text);
    assert_ptr_equal(metrics_counter("t_things_total", "Other words.", NULL), c);
}

static void test_histogram(void **state) {
    (void)state;
    static const double bounds[] = {0.1, 1, 10};
    metric_t *h = metrics_histogram("t_time_seconds", "Time.", "stage", bounds, 3);
    static const double values[] = {0.05, 0.1, 0.5, 1, 5, 10, 11, 1000};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        metrics_observe(h, (const char *const[]){"decode"}, values[i]);
    }
    metrics_observe(h, (const char *const[]){"decode"}, NAN);
    char *text = render();
    expect_line(text, "t_time_seconds_bucket{stage=\"decode\",le=\"0.1\"} 2"); /* a bound belongs to its bucket */
    expect_line(text, "t_time_seconds_bucket{stage=\"decode\",le=\"1\"} 4");
    expect_line(text, "t_time_seconds_bucket{stage=\"decode\",le=\"10\"} 6");
    expect_line(text, "t_time_seconds_bucket{stage=\"decode\",le=\"+Inf\"} 8");
    expect_line(text, "t_time_seconds_count{stage=\"decode\"} 8");
    expect_line(text, "t_time_seconds_sum{stage=\"decode\"} 1027.65");
    free(text);
}

static void test_too_many_series_are_folded(void **state) {
    (void)state;
    metric_t *c = metrics_counter("t_many_total", "Many.", "id");
    char id[32];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 1000; i++) {
            (void)snprintf(id, sizeof id, "id%d", i);
            metrics_add(c, (const char *const[]){id}, 1);
        }
    }
    assert_true(metrics_get(c, (const char *const[]){"id0"}) == 2);
    assert_true(metrics_get(c, (const char *const[]){"id255"}) == 2);
    assert_true(metrics_get(c, (const char *const[]){"other"}) == 2 * (1000 - 256));
    char *text = render();
    int lines = 0;
    for (const char *p = text; (p = strstr(p, "t_many_total{")) != NULL; p++) {
        lines++;
    }
    assert_int_equal(lines, 257);
    expect_line(text, "t_many_total{id=\"other\"} 1488");
    free(text);
}

typedef struct {
    metric_t *m;
    int calls;
} collected_t;

static void collect(void *arg) {
    collected_t *c = arg;
    c->calls++;
    metrics_set(c->m, NULL, c->calls);
}

static void test_collectors(void **state) {
    (void)state;
    collected_t c = {.m = metrics_gauge("t_collected", "Collected.", NULL)};
    metrics_on_collect(collect, &c);
    free(render());
    char *text = render();
    expect_line(text, "t_collected 2");
    free(text);
    metrics_off_collect(collect, &c);
    free(render());
    assert_int_equal(c.calls, 2);
}

static void test_process_and_build(void **state) {
    (void)state;
    char *block = malloc(32 << 20);
    for (volatile char *page = block; page < block + (32 << 20); page += 4096) {
        *page = 1; /* volatile: the compiler may not drop it */
    }
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    char *text = render();
    assert_true(value_of(text, "process_resident_memory_bytes") > 32 << 20);
    assert_true(value_of(text, "process_virtual_memory_bytes") >= value_of(text, "process_resident_memory_bytes"));
    double fds = value_of(text, "process_open_fds");
    double start = value_of(text, "process_start_time_seconds");
    double cpu = value_of(text, "process_cpu_seconds_total");
    free(text);
    free(block);
    close(fd[0]);
    close(fd[1]);
    double now = (double)time(NULL);
    assert_true(start > now - 600 && start <= now + 2);
    assert_true(cpu >= 0 && cpu < 600);
    text = render();
    assert_true(value_of(text, "process_open_fds") == fds - 2);
    assert_non_null(strstr(text, "spheroseg_build_info{version=\""));
    assert_true(value_of(text, "process_threads") >= 1);
    /* counters of CPU time grow */
    clock_t until = clock() + CLOCKS_PER_SEC / 10;
    volatile unsigned x = 0;
    while (clock() < until) {
        x++;
    }
    free(text);
    text = render();
    assert_true(value_of(text, "process_cpu_seconds_total") > cpu);
    free(text);
}

/* No line may be malformed, and HELP and TYPE stand once before the samples of their metric. */
static void test_whole_text_is_well_formed(void **state) {
    (void)state;
    char *text = render();
    char seen[200][80];
    int nseen = 0;
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = '\0';
        if (strncmp(line, "# TYPE ", 7) == 0) {
            char name[80];
            (void)snprintf(name, sizeof name, "%.*s", (int)strcspn(line + 7, " "), line + 7);
            for (int i = 0; i < nseen; i++) {
                assert_string_not_equal(seen[i], name);
            }
            assert_true(nseen < 200);
            (void)snprintf(seen[nseen++], sizeof seen[0], "%s", name);
            continue;
        }
        if (line[0] == '#') {
            assert_int_equal(strncmp(line, "# HELP ", 7), 0);
            continue;
        }
        assert_true(nseen > 0);
        assert_int_equal(strncmp(line, seen[nseen - 1], strlen(seen[nseen - 1])), 0);
        const char *space = strrchr(line, ' ');
        assert_non_null(space);
        char *stop = NULL;
        (void)strtod(space + 1, &stop);
        assert_true(stop != space + 1 && *stop == '\0');
    }
    free(text);
}

typedef struct {
    metric_t *plain, *labelled, *histogram;
} shared_t;

static void *hammer(void *arg) {
    shared_t *s = arg;
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    for (int i = 0; i < 4000; i++) {
        metrics_add(s->plain, NULL, 1);
        metrics_add(s->labelled, &names[i % 8], 1);
        metrics_observe(s->histogram, NULL, i % 3);
        if (i % 1000 == 0) {
            free(render());
        }
    }
    return NULL;
}

static void test_threads_lose_nothing(void **state) {
    (void)state;
    shared_t s = {.plain = metrics_counter("t_hammer_total", "x", NULL),
                  .labelled = metrics_counter("t_hammer_labelled_total", "x", "name"),
                  .histogram = metrics_histogram("t_hammer_seconds", "x", NULL, NULL, 0)};
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, &s), 0);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_true(metrics_get(s.plain, NULL) == 32000);
    assert_true(metrics_get(s.labelled, (const char *const[]){"h"}) == 4000);
    char *text = render();
    expect_line(text, "t_hammer_seconds_count 32000");
    expect_line(text, "t_hammer_seconds_sum 31992");
    free(text);
}

/* A wrong definition is a bug and must be seen at start. */
static void expect_abort(void (*fn)(void)) {
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        (void)signal(SIGABRT, SIG_DFL);
        (void)close(STDERR_FILENO);
        fn();
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void bad_name(void) {
    (void)metrics_gauge("1st", "x", NULL);
}
static void bad_counter(void) {
    (void)metrics_counter("t_no_suffix", "x", NULL);
}
static void bad_label(void) {
    (void)metrics_gauge("t_bad", "x", "a,b-c");
}
static void bad_buckets(void) {
    (void)metrics_histogram("t_bad", "x", NULL, (const double[]){1, 1}, 2);
}
static void bad_twin(void) {
    (void)metrics_gauge("t_twin", "x", NULL);
    (void)metrics_gauge("t_twin", "x", "label");
}

static void test_malformed_definitions_abort(void **state) {
    (void)state;
    expect_abort(bad_name);
    expect_abort(bad_counter);
    expect_abort(bad_label);
    expect_abort(bad_buckets);
    expect_abort(bad_twin);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counter_and_gauge),           cmocka_unit_test(test_histogram),
        cmocka_unit_test(test_too_many_series_are_folded),  cmocka_unit_test(test_collectors),
        cmocka_unit_test(test_process_and_build),           cmocka_unit_test(test_whole_text_is_well_formed),
        cmocka_unit_test(test_malformed_definitions_abort), /* forks: before there are threads */
        cmocka_unit_test(test_threads_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
