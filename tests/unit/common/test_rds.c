/* The Redis client against a real private server: URLs, sign-in, time-outs, restart, scripts, the pool. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/metrics.h"
#include "common/rds.h"
#include "common/redis_url.h"
#include "common/timeutil.h"
#include "tests/unit/support/cmocka_all.h"
#include "tests/unit/support/private_servers.h"

static private_server_t server;

static config_t make_config(void) {
    return (config_t){.redis_url = server.url, .redis_timeout_ms = 3000, .redis_pool_max = 4};
}

static rds_pool_t *make_pool(const config_t *cfg) {
    rds_pool_t *pool;
    err_t err;
    assert_int_equal(rds_pool_create(cfg, &pool, &err), ERR_OK);
    return pool;
}

static rds_conn_t *acquire(rds_pool_t *pool) {
    rds_conn_t *c;
    err_t err = {0};
    if (rds_acquire(pool, &c, &err) != ERR_OK) {
        fail_msg("%s; %s", err.message, err.detail);
    }
    return c;
}

static void test_urls(void **state) {
    (void)state;
    redis_url_t u;
    err_t err;
    assert_int_equal(redis_url_parse("redis://example.org", &u, &err), ERR_OK);
    assert_string_equal(u.host, "example.org");
    assert_int_equal(u.port, 6379);
    assert_int_equal(u.db, 0);
    assert_int_equal(redis_url_parse("redis://us%65r:p%40ss%2Fw%3Ard@[::1]:1234/7", &u, &err), ERR_OK);
    assert_string_equal(u.user, "user");
    assert_string_equal(u.password, "p@ss/w:rd");
    assert_string_equal(u.host, "::1");
    assert_int_equal(u.port, 1234);
    assert_int_equal(u.db, 7);
    assert_int_equal(redis_url_parse("redis://:a@b@host/", &u, &err), ERR_OK);
    assert_string_equal(u.password, "a@b");
    assert_string_equal(u.user, "");
    assert_int_equal(redis_url_parse("unix://:pw@/run/redis%20x.sock?db=3", &u, &err), ERR_OK);
    assert_true(u.is_unix);
    assert_string_equal(u.host, "/run/redis x.sock");
    assert_string_equal(u.password, "pw");
    assert_int_equal(u.db, 3);

    assert_int_equal(u.sentinel_count, 0);
    assert_int_equal(redis_url_parse("redis-sentinel://us:p%2Cw@one,[::2]:1,three:65535/my%2Fname/3", &u, &err),
                     ERR_OK);
    assert_int_equal(u.sentinel_count, 3);
    assert_string_equal(u.sentinels[0].host, "one");
    assert_int_equal(u.sentinels[0].port, 26379);
    assert_string_equal(u.sentinels[1].host, "::2");
    assert_int_equal(u.sentinels[1].port, 1);
    assert_string_equal(u.sentinels[2].host, "three");
    assert_int_equal(u.sentinels[2].port, 65535);
    assert_string_equal(u.master, "my/name");
    assert_int_equal(u.db, 3);
    assert_string_equal(u.user, "us");
    assert_string_equal(u.password, "p,w");
    assert_int_equal(redis_url_parse("redis-sentinel://one/name", &u, &err), ERR_OK);
    assert_int_equal(u.sentinel_count, 1);
    assert_int_equal(u.db, 0);

    static const char *const wrong[] = {"",
                                        "redis-sentinel://",
                                        "redis-sentinel://host",
                                        "redis-sentinel://host/",
                                        "redis-sentinel://host//0",
                                        "redis-sentinel://host,/name",
                                        "redis-sentinel://,host/name",
                                        "redis-sentinel://host:0/name",
                                        "redis-sentinel://host:1;host:2/name",
                                        "redis-sentinel://[::1,host/name",
                                        "redis-sentinel://host/name/x",
                                        "redis-sentinel://host/name/0/1",
                                        "redis-sentinel://host/name?db=1",
                                        "redis-sentinel://secret-value@host/name",
                                        "redis-sentinel://1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17/name",
                                        "redis://one,two:1:2",
                                        "redis:",
                                        "http://host",
                                        "rediss://host",
                                        "redis://",
                                        "redis://:secret-value@",
                                        "redis://secret-value@host",
                                        "redis://user:@host",
                                        "redis://host:0",
                                        "redis://host:65536",
                                        "redis://host:12x",
                                        "redis://host:",
                                        "redis://host/x",
                                        "redis://host/1/2",
                                        "redis://host/-1",
                                        "redis://host/9999",
                                        "redis://host?db=1",
                                        "redis://[::1",
                                        "redis://[::1]x",
                                        "redis://ho%zzst",
                                        "redis://ho%2",
                                        "redis://ho%",
                                        "redis://ho%00st",
                                        "unix://relative",
                                        "unix:///",
                                        "unix:///sock?db=",
                                        "unix:///sock?x=1"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        if (redis_url_parse(wrong[i], &u, &err) != ERR_INVALID) {
            fail_msg("accepted: %s", wrong[i]);
        }
        assert_null(strstr(err.message, "secret-value"));
    }
}

static void test_password_and_database(void **state) {
    (void)state;
    char url[300];
    (void)snprintf(url, sizeof url, "%s?db=5", server.url);
    config_t cfg = make_config();
    cfg.redis_url = url;
    rds_pool_t *pool = make_pool(&cfg);
    err_t err;
    static const char *const set[] = {"SET", "where", "five"};
    static const char *const get[] = {"GET", "where"};
    assert_int_equal(rds_run(pool, 3, set, NULL, &err), ERR_OK);
    redisReply *r;
    assert_int_equal(rds_run(pool, 2, get, &r, &err), ERR_OK);
    assert_string_equal(r->str, "five");
    freeReplyObject(r);
    cfg.redis_url = server.url;
    rds_pool_t *zero = make_pool(&cfg);
    assert_int_equal(rds_run(zero, 2, get, &r, &err), ERR_OK);
    assert_int_equal(r->type, REDIS_REPLY_NIL);
    freeReplyObject(r);
    rds_pool_destroy(zero);
    rds_pool_destroy(pool);

    (void)snprintf(url, sizeof url, "unix://:secret-value@%s/redis.sock", server.dir);
    cfg.redis_url = url;
    pool = make_pool(&cfg);
    assert_int_equal(rds_run(pool, 2, get, &r, &err), ERR_UNAVAILABLE);
    assert_string_equal(err.code, "redis_unavailable");
    assert_non_null(strstr(err.detail, "AUTH"));
    assert_null(strstr(err.detail, "secret-value"));
    rds_pool_destroy(pool);
}

static void test_error_replies(void **state) {
    (void)state;
    config_t cfg = make_config();
    rds_pool_t *pool = make_pool(&cfg);
    err_t err;
    static const char *const nonsense[] = {"NONSENSE", "secret"};
    redisReply *r;
    rds_conn_t *c = acquire(pool);
    assert_int_equal(rds_command(c, 2, nonsense, NULL, &r, &err), ERR_INTERNAL);
    assert_null(r);
    assert_string_equal(err.code, "redis_error");
    /* the connection is still good */
    static const char *const ping[] = {"PING"};
    assert_int_equal(rds_command(c, 1, ping, NULL, NULL, &err), ERR_OK);
    /* binary arguments */
    static const char *const set[] = {"SET", "bin", "a\0b"};
    static const size_t lens[] = {3, 3, 3};
    static const char *const len[] = {"STRLEN", "bin"};
    assert_int_equal(rds_command(c, 3, set, lens, NULL, &err), ERR_OK);
    assert_int_equal(rds_command(c, 2, len, NULL, &r, &err), ERR_OK);
    assert_int_equal(r->integer, 3);
    freeReplyObject(r);
    rds_release(c);
    rds_pool_destroy(pool);
}

static void test_passing_errors_are_unavailable(void **state) {
    (void)state;
    config_t cfg = make_config();
    rds_pool_t *pool = make_pool(&cfg);
    err_t err;
    static const char *const small[] = {"CONFIG", "SET", "maxmemory", "1"};
    static const char *const off[] = {"CONFIG", "SET", "maxmemory", "0"};
    static const char *const set[] = {"SET", "k", "v"};
    assert_int_equal(rds_run(pool, 4, small, NULL, &err), ERR_OK);
    assert_int_equal(rds_run(pool, 3, set, NULL, &err), ERR_UNAVAILABLE);
    assert_string_equal(err.code, "redis_unavailable");
    assert_int_equal(rds_run(pool, 4, off, NULL, &err), ERR_OK);
    assert_int_equal(rds_run(pool, 3, set, NULL, &err), ERR_OK);
    rds_pool_destroy(pool);
}

static void test_timeout_and_no_stale_answer(void **state) {
    (void)state;
    config_t cfg = make_config();
    cfg.redis_timeout_ms = 200;
    cfg.redis_pool_max = 1;
    rds_pool_t *pool = make_pool(&cfg);
    err_t err;
    static const char *const echo1[] = {"ECHO", "first"};
    static const char *const echo2[] = {"ECHO", "second"};
    redisReply *r;
    assert_int_equal(rds_run(pool, 2, echo1, NULL, &err), ERR_OK);
    private_server_freeze(&server, true);
    int64_t began = time_mono_ms();
    err_kind_t kind = rds_run(pool, 2, echo1, &r, &err);
    int64_t took = time_mono_ms() - began;
    private_server_freeze(&server, false);
    assert_int_equal(kind, ERR_UNAVAILABLE);
    assert_null(r);
    assert_true(took >= 150 && took < 3000);
    /* the late answer to the first command must not be taken for the answer to the second */
    err_t last = {0};
    for (int i = 0; i < 50; i++) {
        kind = rds_run(pool, 2, echo2, &r, &last);
        if (kind == ERR_OK) {
            break;
        }
        time_sleep_ms(20);
    }
    assert_int_equal(kind, ERR_OK);
    assert_string_equal(r->str, "second");
    freeReplyObject(r);
    rds_pool_destroy(pool);
}

/* A new connection has the time-out again (what hiredis' own reconnect forgets). */
static void test_timeout_holds_after_restart(void **state) {
    (void)state;
    config_t cfg = make_config();
    cfg.redis_timeout_ms = 300;
    cfg.redis_pool_max = 1;
    rds_pool_t *pool = make_pool(&cfg);
    err_t err;
    static const char *const ping[] = {"PING"};
    assert_int_equal(rds_run(pool, 1, ping, NULL, &err), ERR_OK);
    private_server_restart(&server);
    assert_int_equal(rds_wait_ready(pool, 10, &err), ERR_OK);
    private_server_freeze(&server, true);
    int64_t began = time_mono_ms();
    err_kind_t kind = rds_run(pool, 1, ping, NULL, &err);
    int64_t took = time_mono_ms() - began;
    private_server_freeze(&server, false);
    assert_int_equal(kind, ERR_UNAVAILABLE);
    assert_true(took < 3000);
    assert_int_equal(rds_wait_ready(pool, 10, &err), ERR_OK);
    rds_pool_destroy(pool);
}

static void test_scripts_survive_a_restart(void **state) {
    (void)state;
    config_t cfg = make_config();
    rds_pool_t *pool = make_pool(&cfg);
    rds_script_t s;
    rds_script_init(&s, "sum", "return redis.call('INCRBY', KEYS[1], ARGV[1])");
    assert_int_equal(strlen(s.sha), 40);
    static const char *const argv[] = {"counter", "5"};
    err_t err = {0};
    redisReply *r;
    static const char *const flush[] = {"SCRIPT", "FLUSH"};
    for (int round = 0; round < 3; round++) { /* not loaded, loaded, lost */
        rds_conn_t *c = acquire(pool);
        if (rds_eval(c, &s, 1, 2, argv, &r, &err) != ERR_OK) {
            fail_msg("%s; %s", err.message, err.detail);
        }
        assert_int_equal(r->type, REDIS_REPLY_INTEGER);
        assert_int_equal(r->integer, 5 * (round + 1)); /* each call ran exactly once */
        freeReplyObject(r);
        if (round == 1) {
            assert_int_equal(rds_command(c, 2, flush, NULL, NULL, &err), ERR_OK);
        }
        rds_release(c);
    }
    private_server_restart(&server); /* the idle connection is dead and the script is gone */
    rds_conn_t *c = acquire(pool);
    assert_int_equal(rds_eval(c, &s, 1, 2, argv, &r, &err), ERR_OK);
    assert_int_equal(r->integer, 5);
    freeReplyObject(r);
    rds_script_t bad;
    rds_script_init(&bad, "broken", "return nothing.at.all");
    assert_int_equal(rds_eval(c, &bad, 0, 0, NULL, &r, &err), ERR_INTERNAL);
    assert_null(r);
    assert_non_null(strstr(err.detail, "broken"));
    rds_release(c);
    rds_pool_destroy(pool);
}

static void test_broken_connection_is_replaced(void **state) {
    (void)state;
    config_t cfg = make_config();
    cfg.redis_pool_max = 1;
    rds_pool_t *pool = make_pool(&cfg);
    err_t err;
    static const char *const ping[] = {"PING"};
    rds_conn_t *c = acquire(pool);
    assert_int_equal(rds_command(c, 1, ping, NULL, NULL, &err), ERR_OK);
    private_server_restart(&server);
    assert_int_equal(rds_command(c, 1, ping, NULL, NULL, &err), ERR_UNAVAILABLE);
    assert_int_equal(rds_command(c, 1, ping, NULL, NULL, &err), ERR_UNAVAILABLE); /* never silently reconnected */
    rds_release(c);
    c = acquire(pool);
    assert_int_equal(rds_command(c, 1, ping, NULL, NULL, &err), ERR_OK);
    rds_fail(c);
    rds_release(c);
    assert_int_equal(rds_run(pool, 1, ping, NULL, &err), ERR_OK);
    private_server_kill(&server);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(rds_run(pool, 1, ping, NULL, &err), ERR_UNAVAILABLE);
    }
    assert_int_equal(rds_wait_ready(pool, 1, &err), ERR_UNAVAILABLE);
    private_server_restart(&server);
    assert_int_equal(rds_wait_ready(pool, 10, &err), ERR_OK);
    rds_pool_destroy(pool);
}

static void test_pipeline_of_scripts(void **state) {
    (void)state;
    config_t cfg = make_config();
    rds_pool_t *pool = make_pool(&cfg);
    rds_conn_t *c = acquire(pool);
    rds_script_t set, get, bad;
    rds_script_init(&set, "set", "redis.call('SET', KEYS[1], ARGV[1]) return 1");
    rds_script_init(&get, "get", "return redis.call('GET', KEYS[1])");
    rds_script_init(&bad, "bad", "return redis.error_reply('NO such luck')");
    static const char *const set_argv[] = {"pipe", "seven"}, *const get_argv[] = {"pipe"};
    err_t err;
    for (int round = 0; round < 3; round++) { /* unknown, known, forgotten by the server */
        rds_call_t calls[] = {{.script = &set, .nkeys = 1, .argc = 2, .argv = set_argv},
                              {.script = &get, .nkeys = 1, .argc = 1, .argv = get_argv}};
        assert_int_equal(rds_eval_many(c, calls, 2, &err), ERR_OK);
        assert_int_equal(calls[0].reply->integer, 1);
        assert_string_equal(calls[1].reply->str, "seven");
        freeReplyObject(calls[0].reply);
        freeReplyObject(calls[1].reply);
        static const char *const forget[] = {"SCRIPT", "FLUSH"};
        if (round == 1) {
            assert_int_equal(rds_command(c, 2, forget, NULL, NULL, &err), ERR_OK);
        }
    }
    for (int round = 0; round < 2; round++) {
        rds_call_t calls[] = {{.script = &bad, .nkeys = 0, .argc = 0, .argv = NULL},
                              {.script = &get, .nkeys = 1, .argc = 1, .argv = get_argv}};
        assert_int_equal(rds_eval_many(c, calls, 2, &err), ERR_INTERNAL);
        assert_null(calls[0].reply);
        assert_null(calls[1].reply);
    }
    static const char *const ping[] = {"PING"};
    redisReply *r;
    assert_int_equal(rds_command(c, 1, ping, NULL, &r, &err), ERR_OK); /* no answer was left in the pipe */
    assert_string_equal(r->str, "PONG");
    freeReplyObject(r);
    rds_release(c);
    rds_pool_destroy(pool);
}

static void test_bound(void **state) {
    (void)state;
    config_t cfg = make_config();
    cfg.redis_pool_max = 2;
    cfg.redis_timeout_ms = 200;
    rds_pool_t *pool = make_pool(&cfg);
    rds_conn_t *a = acquire(pool);
    rds_conn_t *b = acquire(pool);
    rds_conn_t *c;
    err_t err;
    assert_int_equal(rds_acquire(pool, &c, &err), ERR_UNAVAILABLE);
    assert_null(c);
    rds_release(a);
    c = acquire(pool);
    rds_release(c);
    rds_release(b);
    rds_pool_destroy(pool);
}

static void test_connection_outside_the_pool_may_block_longer(void **state) {
    (void)state;
    config_t cfg = make_config();
    cfg.redis_timeout_ms = 100;
    cfg.redis_pool_max = 1;
    rds_pool_t *pool = make_pool(&cfg);
    rds_conn_t *c;
    err_t err;
    assert_int_equal(rds_connect(pool, 0, &c, &err), ERR_OK);
    static const char *const wait[] = {"BLPOP", "nothing-here", "0.4"};
    redisReply *r;
    int64_t began = time_mono_ms();
    assert_int_equal(rds_command(c, 3, wait, NULL, &r, &err), ERR_OK);
    assert_true(time_mono_ms() - began >= 350);
    assert_int_equal(r->type, REDIS_REPLY_NIL);
    freeReplyObject(r);
    static const char *const ping[] = {"PING"};
    assert_int_equal(rds_run(pool, 1, ping, NULL, &err), ERR_OK); /* it takes no place of the pool */
    rds_release(c);
    rds_pool_destroy(pool);
}

typedef struct {
    rds_pool_t *pool;
    atomic_int failures;
} crowd_t;

static void *crowd_member(void *arg) {
    crowd_t *crowd = arg;
    static const char *const incr[] = {"INCR", "crowd"};
    for (int i = 0; i < 200; i++) {
        err_t err;
        if (rds_run(crowd->pool, 2, incr, NULL, &err) != ERR_OK) {
            atomic_fetch_add(&crowd->failures, 1);
        }
    }
    return NULL;
}

static void test_many_threads(void **state) {
    (void)state;
    config_t cfg = make_config();
    cfg.redis_pool_max = 3;
    cfg.redis_timeout_ms = 30000;
    crowd_t crowd = {.pool = make_pool(&cfg)};
    pthread_t threads[12];
    for (int i = 0; i < 12; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, crowd_member, &crowd), 0);
    }
    for (int i = 0; i < 12; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(crowd.failures, 0);
    static const char *const get[] = {"GET", "crowd"};
    redisReply *r;
    err_t err;
    assert_int_equal(rds_run(crowd.pool, 2, get, &r, &err), ERR_OK);
    assert_string_equal(r->str, "2400");
    freeReplyObject(r);
    rds_pool_destroy(crowd.pool);
}

int main(void) {
    if (!private_redis_available()) {
        return 0;
    }
    log_init("test", LOG_ERROR);
    private_redis_start(&server, "sesame");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_urls),
        cmocka_unit_test(test_password_and_database),
        cmocka_unit_test(test_error_replies),
        cmocka_unit_test(test_passing_errors_are_unavailable),
        cmocka_unit_test(test_timeout_and_no_stale_answer),
        cmocka_unit_test(test_timeout_holds_after_restart),
        cmocka_unit_test(test_scripts_survive_a_restart),
        cmocka_unit_test(test_broken_connection_is_replaced),
        cmocka_unit_test(test_pipeline_of_scripts),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_connection_outside_the_pool_may_block_longer),
        cmocka_unit_test(test_many_threads),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    private_server_stop(&server);
    return failed;
}
