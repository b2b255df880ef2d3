/*
 * The cache of answers against a real Redis: what is put is got, the bound holds, and without Redis there are only
 * misses.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cache.h"
#include "common/log.h"
#include "common/timeutil.h"
#include "tests/unit/support/cmocka_all.h"
#include "tests/unit/support/private_servers.h"

static private_server_t server;
static config_t cfg;
static rds_pool_t *pool;

static int set_up(void **state) {
    (void)state;
    private_redis_start(&server, "");
    cfg = (config_t){.redis_url = server.url,
                     .redis_timeout_ms = 3000,
                     .redis_pool_max = 4,
                     .cache_enabled = true,
                     .cache_ttl_s = 600,
                     .cache_max_size = 10000};
    return rds_pool_create(&cfg, &pool, NULL) == ERR_OK ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    rds_pool_destroy(pool);
    private_server_stop(&server);
    return 0;
}

static bool has(const char *name, const void *want, size_t n) {
    buf_t out;
    buf_init(&out, CACHE_ENTRY_MAX);
    const bool found = cache_get(&cfg, pool, "test", name, &out);
    if (found) {
        assert_int_equal(out.len, n);
        assert_memory_equal(out.data, want, n);
    }
    buf_free(&out);
    return found;
}

static int64_t number(int argc, const char *const *argv) {
    redisReply *r = NULL;
    assert_int_equal(rds_run(pool, argc, argv, &r, NULL), ERR_OK);
    const int64_t v = r->type == REDIS_REPLY_INTEGER ? r->integer : r->str ? strtoll(r->str, NULL, 10) : 0;
    freeReplyObject(r);
    return v;
}

static void test_put_and_get(void **state) {
    (void)state;
    static const char bytes[] = "a\0b\n\xff";
    assert_false(has("one", bytes, sizeof bytes));
    cache_put(&cfg, pool, "one", bytes, sizeof bytes);
    assert_true(has("one", bytes, sizeof bytes));
    assert_false(has("two", bytes, sizeof bytes));
    cache_put(&cfg, pool, "one", "new", 3);
    assert_true(has("one", "new", 3));
    assert_int_equal(number(3, (const char *const[]){"HGET", "sg:cache:sizes", ""}), 3);
    const int64_t left = number(2, (const char *const[]){"PTTL", "sg:cache:one"});
    assert_true(left > 0 && left <= 600000);
}

static void test_the_bound_holds(void **state) {
    (void)state;
    char *big = calloc(1, CACHE_ENTRY_MAX + 1), name[16];
    for (int i = 0; i < 20; i++) {
        (void)snprintf(name, sizeof name, "n%d", i);
        cache_put(&cfg, pool, name, big, 3000);
    }
    assert_true(has("n19", big, 3000) && has("n17", big, 3000));
    assert_false(has("n16", big, 3000) || has("one", "new", 3));
    assert_int_equal(number(3, (const char *const[]){"HGET", "sg:cache:sizes", ""}), 9000);
    assert_int_equal(number(2, (const char *const[]){"ZCARD", "sg:cache"}), 3);
    cache_put(&cfg, pool, "n18", big, 10001); /* more than all may be: it goes, the others stay */
    assert_false(has("n18", big, 3000));
    assert_true(has("n19", big, 3000));
    cfg.cache_max_size = 1 << 30;
    cache_put(&cfg, pool, "huge", big, CACHE_ENTRY_MAX + 1);
    assert_false(has("huge", big, CACHE_ENTRY_MAX + 1));
    cache_put(&cfg, pool, "large", big, CACHE_ENTRY_MAX);
    assert_true(has("large", big, CACHE_ENTRY_MAX));
    free(big);
}

static void test_what_ended_leaves_the_books(void **state) {
    (void)state;
    cfg.cache_max_size = 10000;
    assert_true(number(1, (const char *const[]){"FLUSHALL"}) == 0);
    cfg.cache_ttl_s = 1;
    cache_put(&cfg, pool, "short", "x", 1);
    for (int i = 0; i < 3000 && has("short", "x", 1); i++) {
        time_sleep_ms(10);
    }
    assert_false(has("short", "x", 1));
    cfg.cache_ttl_s = 600;
    time_sleep_ms(20);
    cache_put(&cfg, pool, "next", "yy", 2);
    assert_int_equal(number(3, (const char *const[]){"HGET", "sg:cache:sizes", ""}), 2);
    assert_int_equal(number(2, (const char *const[]){"ZCARD", "sg:cache"}), 1);
}

static void test_off(void **state) {
    (void)state;
    cfg.cache_enabled = false;
    assert_false(cache_is_on(&cfg) || has("next", "yy", 2));
    cfg.cache_enabled = true;
    assert_true(has("next", "yy", 2));
}

/* Last: the cache then leaves Redis alone for a while. */
static void test_without_redis_there_are_misses(void **state) {
    (void)state;
    private_server_stop(&server);
    assert_false(has("next", "yy", 2));
    const int64_t before = time_mono_ms();
    for (int i = 0; i < 1000; i++) {
        assert_false(has("next", "yy", 2));
        cache_put(&cfg, pool, "next", "yy", 2);
    }
    assert_true(time_mono_ms() - before < 5000); /* nobody waits for Redis a thousand times */
}

int main(void) {
    log_init("test", LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_and_get),
        cmocka_unit_test(test_the_bound_holds),
        cmocka_unit_test(test_what_ended_leaves_the_books),
        cmocka_unit_test(test_off),
        cmocka_unit_test(test_without_redis_there_are_misses),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
