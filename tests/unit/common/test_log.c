/* Logs: each line is one JSON object, whatever is logged and by however many threads; times are RFC 3339 UTC. */
#include "common/log.h"

#include <cjson/cJSON.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/timeutil.h"
#include "common/utf8.h"
#include "tests/unit/support/cmocka_all.h"

static int capture_fd = -1;
static int saved_stderr = -1;

static void capture_begin(void) {
    char path[] = "/tmp/sgtest-log-XXXXXX";
    capture_fd = mkstemp(path);
    assert_true(capture_fd >= 0);
    unlink(path);
    saved_stderr = dup(STDERR_FILENO);
    dup2(capture_fd, STDERR_FILENO);
}

/* Ends the capture; the caller frees the text. */
static char *capture_end(void) {
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    off_t n = lseek(capture_fd, 0, SEEK_END);
    char *text = calloc(1, (size_t)n + 1);
    assert_int_equal(pread(capture_fd, text, (size_t)n, 0), n);
    close(capture_fd);
    return text;
}

static cJSON *parse_only_line(const char *text) {
    size_t n = strlen(text);
    assert_true(n > 0 && text[n - 1] == '\n');
    assert_ptr_equal(strchr(text, '\n'), text + n - 1);
    assert_true(utf8_is_valid(text, n));
    const char *end = NULL;
    cJSON *o = cJSON_ParseWithOpts(text, &end, 0);
    assert_non_null(o);
    assert_ptr_equal(end, text + n - 1);
    return o;
}

static const char *member(const cJSON *o, const char *key) {
    const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, key));
    return s ? s : "(absent)";
}

static void test_fields(void **state) {
    (void)state;
    log_init("gateway", LOG_INFO);
    capture_begin();
    int64_t before = time_wall_ms();
    log_event(LOG_WARN, "a \"quoted\"\nmessage", "jobId", "42\t\\", "bad", "x\xFFy\xC3", "empty", "", "none", NULL,
              NULL);
    int64_t after = time_wall_ms();
    char *text = capture_end();
    cJSON *o = parse_only_line(text);
    assert_string_equal(member(o, "level"), "warn");
    assert_string_equal(member(o, "component"), "gateway");
    assert_string_equal(member(o, "msg"), "a \"quoted\"\nmessage");
    assert_string_equal(member(o, "jobId"), "42\t\\");
    assert_string_equal(member(o, "bad"), "x\xEF\xBF\xBDy\xEF\xBF\xBD");
    assert_string_equal(member(o, "empty"), "");
    assert_string_equal(member(o, "none"), "");
    int64_t when;
    assert_true(time_parse_rfc3339(member(o, "time"), &when));
    assert_true(when >= before && when <= after);
    cJSON_Delete(o);
    free(text);
}

static void test_levels(void **state) {
    (void)state;
    log_init("x", LOG_WARN);
    capture_begin();
    log_msgf(LOG_INFO, "not wanted %d", 1);
    log_msgf(LOG_DEBUG, "not wanted");
    log_msgf(LOG_ERROR, "wanted %d", 2);
    log_set_level(LOG_DEBUG);
    log_msgf(LOG_DEBUG, "wanted too");
    char *text = capture_end();
    assert_null(strstr(text, "not wanted"));
    assert_non_null(strstr(text, "wanted 2"));
    assert_non_null(strstr(text, "wanted too"));
    free(text);
    assert_int_equal(log_get_level(), LOG_DEBUG);
    log_level_t level;
    assert_true(log_parse_level("Info", &level));
    assert_int_equal(level, LOG_INFO);
    assert_false(log_parse_level("verbose", &level));
    assert_false(log_parse_level("", &level));
}

static void test_huge_values_still_give_one_valid_line(void **state) {
    (void)state;
    log_init("x", LOG_INFO);
    enum { HUGE = 100000 };
    char *huge = malloc(HUGE + 1);
    for (int fill = 1; fill < 256; fill += 63) { /* escapes, plain text, broken UTF-8 */
        memset(huge, fill, HUGE);
        huge[HUGE] = '\0';
        capture_begin();
        log_event(LOG_INFO, huge, "a", huge, "b", huge, "c", huge, "d", huge, "e", huge, "f", huge, huge, "g", NULL);
        char *text = capture_end();
        assert_true(strlen(text) <= 16384);
        cJSON *o = parse_only_line(text);
        assert_string_not_equal(member(o, "msg"), "(absent)");
        assert_string_not_equal(member(o, "msg"), "");
        assert_true(strlen(member(o, "msg")) <= 3 * 2048 + 3);
        cJSON_Delete(o);
        free(text);
    }
    free(huge);
}

static void test_errors(void **state) {
    (void)state;
    log_init("x", LOG_INFO);
    err_t err;
    err_set(&err, ERR_UNAVAILABLE, "database_unavailable", "Away.", "SQLSTATE 57P01");
    capture_begin();
    log_error(LOG_ERROR, "saving the result", &err);
    char *text = capture_end();
    cJSON *o = parse_only_line(text);
    assert_string_equal(member(o, "msg"), "saving the result");
    assert_string_equal(member(o, "kind"), "unavailable");
    assert_string_equal(member(o, "code"), "database_unavailable");
    assert_string_equal(member(o, "error"), "Away.");
    assert_string_equal(member(o, "detail"), "SQLSTATE 57P01");
    cJSON_Delete(o);
    free(text);
}

static void *chatter(void *arg) {
    for (int i = 0; i < 200; i++) {
        log_event(LOG_INFO, "line", "who", arg, "text", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                  NULL);
    }
    return NULL;
}

static void test_lines_of_threads_do_not_mix(void **state) {
    (void)state;
    log_init("x", LOG_INFO);
    capture_begin();
    pthread_t threads[8];
    static char names[8][2] = {"0", "1", "2", "3", "4", "5", "6", "7"};
    for (int i = 0; i < 8; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, chatter, names[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
    }
    char *text = capture_end();
    int lines = 0;
    for (char *p = text, *end; (end = strchr(p, '\n')) != NULL; p = end + 1) {
        *end = '\0';
        cJSON *o = cJSON_Parse(p);
        assert_non_null(o);
        assert_string_equal(member(o, "msg"), "line");
        cJSON_Delete(o);
        lines++;
    }
    assert_int_equal(lines, 8 * 200);
    free(text);
}

static void test_times(void **state) {
    (void)state;
    static const struct {
        int64_t ms;
        const char *text;
    } rows[] = {{0, "1970-01-01T00:00:00.000Z"},
                {951782399999LL, "2000-02-28T23:59:59.999Z"},
                {951782400000LL, "2000-02-29T00:00:00.000Z"},
                {1709164800123LL, "2024-02-29T00:00:00.123Z"},
                {4107542399000LL, "2100-02-28T23:59:59.000Z"},
                {4107542400000LL, "2100-03-01T00:00:00.000Z"},
                {-1, "1969-12-31T23:59:59.999Z"},
                {253402300799999LL, "9999-12-31T23:59:59.999Z"},
                {-62167219200000LL, "0000-01-01T00:00:00.000Z"}};
    char out[TIME_RFC3339_SIZE];
    int64_t back;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        time_format_rfc3339(rows[i].ms, out);
        assert_string_equal(out, rows[i].text);
        assert_true(time_parse_rfc3339(out, &back));
        assert_int_equal(back, rows[i].ms);
    }
    for (int64_t day = -20000; day < 60000; day += 13) { /* there and back over two centuries */
        int64_t ms = day * 86400000 + day % 86400000;
        time_format_rfc3339(ms, out);
        assert_true(time_parse_rfc3339(out, &back));
        assert_int_equal(back, ms);
    }
    time_format_rfc3339(INT64_MAX, out);
    assert_string_equal(out, "9999-12-31T23:59:59.999Z");
    time_format_rfc3339(INT64_MIN, out);
    assert_string_equal(out, "0000-01-01T00:00:00.000Z");
    assert_true(time_parse_rfc3339("2024-05-06T07:08:09.5+02:00", &back));
    time_format_rfc3339(back, out);
    assert_string_equal(out, "2024-05-06T05:08:09.500Z");
    static const char *const wrong[] = {"",
                                        "2024",
                                        "2024-02-30T00:00:00Z",
                                        "2023-02-29T00:00:00Z",
                                        "2024-13-01T00:00:00Z",
                                        "2024-01-01T24:00:00Z",
                                        "2024-01-01T00:00:00",
                                        "2024-01-01T00:00:00.Z",
                                        "2024-01-01T00:00:00Zx",
                                        "2024-01-01T00:00:00+0200"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_false(time_parse_rfc3339(wrong[i], &back));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_huge_values_still_give_one_valid_line),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_lines_of_threads_do_not_mix),
        cmocka_unit_test(test_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
