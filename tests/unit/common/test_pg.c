/* The PostgreSQL pool against a real private server: bounds, time-outs, broken connections, transactions. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/metrics.h"
#include "common/timeutil.h"
#include "tests/unit/common/pg_fixture.h"

/* Backends that the server itself counts for our application name. */
static int64_t server_side_count(void) {
    PGconn *raw = PQconnectdb(server.url);
    PGresult *res = PQexec(raw, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'test_pg'");
    int64_t n = strtoll(PQgetvalue(res, 0, 0), NULL, 10);
    PQclear(res);
    PQfinish(raw);
    return n;
}

static void test_settings_hold_from_the_start(void **state) {
    (void)state;
    config_t cfg = make_config();
    cfg.db_statement_ms = 1234;
    pg_pool_t *pool = make_pool(&cfg);
    pg_conn_t *c = acquire(pool);
    assert_int_equal(number(c, "SELECT setting FROM pg_settings WHERE name = 'statement_timeout'"), 1234);
    assert_int_equal(number(c, "SELECT (current_setting('TimeZone') = 'UTC')::int"), 1);
    assert_int_equal(server_side_count(), 1);
    pg_release(c);
    pg_pool_destroy(pool);
}

static void test_bound_and_timeout(void **state) {
    (void)state;
    config_t cfg = make_config();
    cfg.db_pool_max = 2;
    cfg.db_acquire_ms = 200;
    pg_pool_t *pool = make_pool(&cfg);
    pg_conn_t *a = acquire(pool);
    pg_conn_t *b = acquire(pool);
    err_t err;
    pg_conn_t *third = a;
    int64_t began = time_mono_ms();
    assert_int_equal(pg_acquire(pool, &third, &err), ERR_UNAVAILABLE);
    int64_t took = time_mono_ms() - began;
    assert_null(third);
    assert_string_equal(err.code, "database_unavailable");
    assert_true(took >= 190 && took < 3000);
    pg_pool_stats_t s;
    pg_pool_stats(pool, &s);
    assert_int_equal(s.max, 2);
    assert_int_equal(s.total, 2);
    assert_int_equal(s.in_use, 2);
    assert_int_equal(s.idle, 0);
    assert_int_equal(s.waiting, 0);
    assert_int_equal(s.timeouts_total, 1);
    pg_release(b);
    third = acquire(pool);
    pg_release(third);
    pg_release(a);
    pg_pool_stats(pool, &s);
    assert_int_equal(s.idle, 2);
    assert_int_equal(s.in_use, 0);
    pg_pool_destroy(pool);
}

typedef struct {
    pg_pool_t *pool;
    atomic_int in_use, greatest, failures, done;
} crowd_t;

static void *crowd_member(void *arg) {
    crowd_t *crowd = arg;
    for (int i = 0; i < 40; i++) {
        pg_conn_t *c;
        err_t err;
        if (pg_acquire(crowd->pool, &c, &err) != ERR_OK) {
            atomic_fetch_add(&crowd->failures, 1);
            continue;
        }
        int now = atomic_fetch_add(&crowd->in_use, 1) + 1;
        int seen = atomic_load(&crowd->greatest);
        while (now > seen && !atomic_compare_exchange_weak(&crowd->greatest, &seen, now)) {
        }
        if (pg_exec(c, "SELECT 1", 0, NULL, NULL, &err) != ERR_OK) {
            atomic_fetch_add(&crowd->failures, 1);
        }
        atomic_fetch_sub(&crowd->in_use, 1);
        pg_release(c);
        atomic_fetch_add(&crowd->done, 1);
    }
    return NULL;
}

static void test_many_threads_share_few_connections(void **state) {
    (void)state;
    config_t cfg = make_config();
    cfg.db_pool_max = 3;
    cfg.db_acquire_ms = 60000;
    cfg.db_max_uses = 7; /* recycling goes on meanwhile */
    crowd_t crowd = {.pool = make_pool(&cfg)};
    pthread_t threads[16];
    for (int i = 0; i < 16; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, crowd_member, &crowd), 0);
    }
    for (int i = 0; i < 16; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(crowd.failures, 0);
    assert_int_equal(crowd.done, 16 * 40);
    assert_true(crowd.greatest <= 3);
    pg_pool_stats_t s;
    pg_pool_stats(crowd.pool, &s);
    assert_int_equal(s.acquired_total, 16 * 40);
    /* at the end each of the three may have served up to six times since it was made */
    assert_in_range(s.recycled_total, (16 * 40 - 3 * 6 + 6) / 7, 16 * 40 / 7);
    assert_int_equal(s.in_use, 0);
    pg_pool_destroy(crowd.pool);
}

typedef struct {
    pg_pool_t *pool;
    int number;
    atomic_int *order;
    int place;
} queued_t;

static void *queued_member(void *arg) {
    queued_t *q = arg;
    pg_conn_t *c = NULL;
    err_t err;
    if (pg_acquire(q->pool, &c, &err) == ERR_OK) {
        q->place = atomic_fetch_add(q->order, 1);
        pg_release(c);
    }
    return NULL;
}

static void test_first_come_first_served(void **state) {
    (void)state;
    config_t cfg = make_config();
    cfg.db_pool_max = 1;
    cfg.db_acquire_ms = 30000;
    pg_pool_t *pool = make_pool(&cfg);
    pg_conn_t *c = acquire(pool);
    atomic_int order = 0;
    queued_t members[6];
    pthread_t threads[6];
    for (int i = 0; i < 6; i++) {
        members[i] = (queued_t){.pool = pool, .number = i, .order = &order, .place = -1};
        assert_int_equal(pthread_create(&threads[i], NULL, queued_member, &members[i]), 0);
        pg_pool_stats_t s;
        do { /* the next one may only come when this one stands in line */
            time_sleep_ms(2);
            pg_pool_stats(pool, &s);
        } while (s.waiting != i + 1);
    }
    pg_release(c);
    for (int i = 0; i < 6; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(members[i].place, i);
    }
    pg_pool_destroy(pool);
}

static void test_rollback_at_release(void **state) {
    (void)state;
    config_t cfg = make_config();
    cfg.db_pool_max = 1;
    pg_pool_t *pool = make_pool(&cfg);
    pg_conn_t *c = acquire(pool);
    run(c, "CREATE TABLE t_rollback (x int)");
    err_t err;
    assert_int_equal(pg_begin(c, &err), ERR_OK);
    run(c, "INSERT INTO t_rollback VALUES (1)");
    int64_t pid = number(c, "SELECT pg_backend_pid()");
    pg_release(c); /* forgot to commit */
    c = acquire(pool);
    assert_int_equal(number(c, "SELECT pg_backend_pid()"), pid); /* the same connection, cleaned */
    assert_int_equal(PQtransactionStatus(pg_raw(c)), PQTRANS_IDLE);
    assert_int_equal(number(c, "SELECT count(*) FROM t_rollback"), 0);
    assert_int_equal(pg_begin(c, &err), ERR_OK);
    run(c, "INSERT INTO t_rollback VALUES (2)");
    assert_int_equal(pg_commit(c, &err), ERR_OK);
    assert_int_equal(number(c, "SELECT count(*) FROM t_rollback"), 1);
    run(c, "DROP TABLE t_rollback");
    pg_release(c);
    pg_pool_destroy(pool);
}

static void test_commit_after_a_failed_statement_is_an_error(void **state) {
    (void)state;
    config_t cfg = make_config();
    pg_pool_t *pool = make_pool(&cfg);
    pg_conn_t *c = acquire(pool);
    err_t err;
    assert_int_equal(pg_begin(c, &err), ERR_OK);
    assert_int_equal(pg_exec(c, "SELECT * FROM no_such_table", 0, NULL, NULL, &err), ERR_INTERNAL);
    assert_int_equal(pg_commit(c, &err), ERR_INTERNAL);
    assert_string_equal(err.code, "transaction_aborted");
    pg_release(c);
    pg_pool_destroy(pool);
}

static void test_copy_left_open_is_closed(void **state) {
    (void)state;
    config_t cfg = make_config();
    cfg.db_pool_max = 1;
    pg_pool_t *pool = make_pool(&cfg);
    pg_conn_t *c = acquire(pool);
    run(c, "CREATE TEMP TABLE t_copy (x int)");
    run(c, "COPY t_copy FROM STDIN");
    pg_release(c);
    c = acquire(pool);
    assert_int_equal(number(c, "SELECT 41 + 1"), 42);
    pg_release(c);
    pg_pool_destroy(pool);
}

static void test_broken_connection_is_replaced(void **state) {
    (void)state;
    config_t cfg = make_config();
    cfg.db_pool_max = 1;
    pg_pool_t *pool = make_pool(&cfg);
    pg_conn_t *c = acquire(pool);
    int64_t pid = number(c, "SELECT pg_backend_pid()");
    /* broken in use */
    err_t err;
    assert_int_equal(pg_exec(c, "SELECT pg_terminate_backend(pg_backend_pid())", 0, NULL, NULL, &err), ERR_UNAVAILABLE);
    assert_string_equal(err.code, "database_unavailable");
    pg_release(c);
    c = acquire(pool);
    int64_t second = number(c, "SELECT pg_backend_pid()");
    assert_int_not_equal(pid, second);
    pg_release(c);
    /* broken while idle: the next user does not notice */
    private_server_restart(&server);
    c = acquire(pool);
    assert_int_equal(number(c, "SELECT 1"), 1);
    pg_release(c);
    pg_pool_stats_t s;
    pg_pool_stats(pool, &s);
    assert_int_equal(s.total, 1);
    pg_pool_destroy(pool);
}

static void test_server_away_and_back(void **state) {
    (void)state;
    config_t cfg = make_config();
    cfg.db_pool_max = 2;
    cfg.db_acquire_ms = 300;
    pg_pool_t *pool = make_pool(&cfg);
    private_server_kill(&server);
    pg_conn_t *c;
    err_t err;
    for (int i = 0; i < 5; i++) { /* more often than there are slots: a failed attempt must give its slot back */
        assert_int_equal(pg_acquire(pool, &c, &err), ERR_UNAVAILABLE);
    }
    assert_int_equal(pg_wait_ready(pool, 1, &err), ERR_UNAVAILABLE);
    pg_pool_stats_t s;
    pg_pool_stats(pool, &s);
    assert_int_equal(s.total, 0);
    assert_true(s.errors_total >= 5);
    private_server_restart(&server);
    assert_int_equal(pg_wait_ready(pool, 30, &err), ERR_OK);
    pg_pool_destroy(pool);
}

static void test_idle_connections_are_closed(void **state) {
    (void)state;
    config_t cfg = make_config();
    cfg.db_pool_idle_ms = 200;
    pg_pool_t *pool = make_pool(&cfg);
    pg_conn_t *c[3];
    for (int i = 0; i < 3; i++) {
        c[i] = acquire(pool);
    }
    for (int i = 0; i < 3; i++) {
        pg_release(c[i]);
    }
    assert_int_equal(server_side_count(), 3);
    pg_pool_stats_t s;
    for (int i = 0; i < 100; i++) { /* nobody touches the pool meanwhile */
        time_sleep_ms(50);
        pg_pool_stats(pool, &s);
        if (s.total == 0) {
            break;
        }
    }
    assert_int_equal(s.total, 0);
    for (int i = 0; i < 100 && server_side_count() > 0; i++) {
        time_sleep_ms(20);
    }
    assert_int_equal(server_side_count(), 0);
    pg_pool_destroy(pool);
}

static void test_recycled_after_max_uses(void **state) {
    (void)state;
    config_t cfg = make_config();
    cfg.db_pool_max = 1;
    cfg.db_max_uses = 3;
    pg_pool_t *pool = make_pool(&cfg);
    int64_t pids[7];
    for (int i = 0; i < 7; i++) {
        pg_conn_t *c = acquire(pool);
        pids[i] = number(c, "SELECT pg_backend_pid()");
        pg_release(c);
    }
    assert_true(pids[0] == pids[1] && pids[1] == pids[2]);
    assert_true(pids[3] == pids[4] && pids[4] == pids[5]);
    assert_true(pids[2] != pids[3] && pids[5] != pids[6]);
    pg_pool_stats_t s;
    pg_pool_stats(pool, &s);
    assert_int_equal(s.recycled_total, 2);
    pg_pool_destroy(pool);
}

static void test_slow_queries_are_counted_and_logged_without_values(void **state) {
    (void)state;
    config_t cfg = make_config();
    cfg.db_slow_ms = 50;
    pg_pool_t *pool = make_pool(&cfg);
    char path[] = "/tmp/sgtest-log-XXXXXX";
    int fd = mkstemp(path);
    int saved = dup(STDERR_FILENO);
    assert_true(fd >= 0 && saved >= 0);
    dup2(fd, STDERR_FILENO);
    err_t err;
    static const char *const params[] = {"secret-value"};
    err_kind_t slow = pg_query(pool, "SELECT pg_sleep(0.1),\n   $1::text", 1, params, NULL, &err);
    err_kind_t quick = pg_query(pool, "SELECT $1::text", 1, params, NULL, &err);
    dup2(saved, STDERR_FILENO);
    close(saved);
    char text[4096];
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    close(fd);
    unlink(path);
    assert_int_equal(slow, ERR_OK);
    assert_int_equal(quick, ERR_OK);
    assert_true(n > 0);
    text[n] = '\0';
    assert_non_null(strstr(text, "\"msg\":\"slow query\""));
    assert_non_null(strstr(text, "SELECT pg_sleep(0.1), $1::text"));
    assert_null(strstr(text, "secret-value"));
    pg_pool_stats_t s;
    pg_pool_stats(pool, &s);
    assert_int_equal(s.slow_total, 1);
    pg_pool_destroy(pool);
}

static void test_metrics_are_exported(void **state) {
    (void)state;
    config_t cfg = make_config();
    pg_pool_t *pool = make_pool(&cfg);
    pg_conn_t *c = acquire(pool);
    buf_t out;
    buf_init(&out, 1 << 20);
    metrics_render(&out);
    assert_non_null(strstr(out.data, "spheroseg_db_pool_connections{state=\"in_use\"} 1\n"));
    assert_non_null(strstr(out.data, "spheroseg_db_pool_connections{state=\"idle\"} 0\n"));
    assert_non_null(strstr(out.data, "spheroseg_db_pool_max_connections 4\n"));
    assert_non_null(strstr(out.data, "spheroseg_db_up 1\n"));
    buf_free(&out);
    pg_release(c);
    pg_pool_destroy(pool);
}

static void test_wrong_urls_do_not_leak_the_password(void **state) {
    (void)state;
    static const char *const urls[] = {"", "postgres//u:secret-value@h/d",
                                       "postgresql://u:secret-value@h/d?nonsense=1"};
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        config_t cfg = make_config();
        cfg.database_url = urls[i];
        pg_pool_t *pool;
        err_t err;
        assert_int_equal(pg_pool_create(&cfg, "x", &pool, &err), ERR_INVALID);
        assert_null(pool);
        assert_null(strstr(err.message, "secret-value"));
        assert_null(strstr(err.detail, "secret-value"));
    }
}

int main(void) {
    if (!private_pg_available()) {
        return 0;
    }
    log_init("test", LOG_ERROR);
    log_set_level(LOG_WARN);
    private_pg_start(&server);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_settings_hold_from_the_start),
        cmocka_unit_test(test_bound_and_timeout),
        cmocka_unit_test(test_many_threads_share_few_connections),
        cmocka_unit_test(test_first_come_first_served),
        cmocka_unit_test(test_rollback_at_release),
        cmocka_unit_test(test_commit_after_a_failed_statement_is_an_error),
        cmocka_unit_test(test_copy_left_open_is_closed),
        cmocka_unit_test(test_broken_connection_is_replaced),
        cmocka_unit_test(test_server_away_and_back),
        cmocka_unit_test(test_idle_connections_are_closed),
        cmocka_unit_test(test_recycled_after_max_uses),
        cmocka_unit_test(test_slow_queries_are_counted_and_logged_without_values),
        cmocka_unit_test(test_metrics_are_exported),
        cmocka_unit_test(test_wrong_urls_do_not_leak_the_password),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    private_server_stop(&server);
    return failed;
}
