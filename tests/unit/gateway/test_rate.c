/*
 * Counting failures: the limit holds for its key alone, ends with its window, and memory has a bound.
 */
#include <pthread.h>
#include <stdio.h>

#include "gateway/auth/rate.h"
#include "tests/unit/support/cmocka_all.h"

static void limit_holds_for_its_key_alone(void **state) {
    rate_t *r = rate_create(1024);
    int retry = 0;
    (void)state;
    for (int i = 0; i < 20; i++) {
        assert_false(rate_is_over(r, "address", "10.0.0.1", 20, 1000 + i, &retry));
        rate_count(r, "address", "10.0.0.1", 1000 + i);
    }
    assert_true(rate_is_over(r, "address", "10.0.0.1", 20, 2000, &retry));
    assert_in_range(retry, 890, 900);
    assert_false(rate_is_over(r, "address", "10.0.0.2", 20, 2000, &retry));
    assert_false(rate_is_over(r, "account", "10.0.0.1", 20, 2000, &retry));
    rate_forget(r, "address", "10.0.0.1");
    assert_false(rate_is_over(r, "address", "10.0.0.1", 20, 2000, &retry));
    rate_destroy(r);
}

static void window_ends(void **state) {
    rate_t *r = rate_create(1024);
    int retry = 0;
    (void)state;
    rate_count(r, "a", "k", 5000);
    rate_count(r, "a", "k", 6000);
    assert_true(rate_is_over(r, "a", "k", 2, 5000 + RATE_WINDOW_MS - 1, &retry));
    assert_int_equal(retry, 1);
    assert_false(rate_is_over(r, "a", "k", 2, 5000 + RATE_WINDOW_MS, &retry));
    rate_count(r, "a", "k", 5000 + RATE_WINDOW_MS);
    assert_false(rate_is_over(r, "a", "k", 2, 5000 + RATE_WINDOW_MS + 1, &retry));
    rate_destroy(r);
}

/* An attacker with very many addresses makes the table forget the quiet ones, not the busy one. */
static void busy_keys_outlive_a_flood(void **state) {
    rate_t *r = rate_create(256);
    char key[32];
    int retry = 0;
    (void)state;
    for (int i = 0; i < 100000; i++) {
        (void)snprintf(key, sizeof key, "flood-%d", i);
        rate_count(r, "address", key, i);
        rate_count(r, "account", "victim", i);
    }
    assert_true(rate_is_over(r, "account", "victim", 50, 100000, &retry));
    rate_destroy(r);
}

static void *count_many(void *arg) {
    for (int i = 0; i < 1000; i++) {
        rate_count(arg, "a", "k", 1);
    }
    return NULL;
}

static void threads_lose_no_count(void **state) {
    rate_t *r = rate_create(64);
    pthread_t t[4];
    int retry = 0;
    (void)state;
    for (int i = 0; i < 4; i++) {
        pthread_create(&t[i], NULL, count_many, r);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
    }
    assert_true(rate_is_over(r, "a", "k", 4000, 2, &retry));
    assert_false(rate_is_over(r, "a", "k", 4001, 2, &retry));
    rate_destroy(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limit_holds_for_its_key_alone),
        cmocka_unit_test(window_ends),
        cmocka_unit_test(busy_keys_outlive_a_flood),
        cmocka_unit_test(threads_lose_no_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
