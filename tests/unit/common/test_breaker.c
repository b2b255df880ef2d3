/* The circuit breaker: when it opens, its single probe, what does not count. Time is an argument, so nothing waits. */
#include "tests/unit/support/cmocka_all.h"

#include "common/breaker.h"

static breaker_t make(bool enabled) {
    const breaker_settings_t set = {
        .enabled = enabled, .threshold = 50, .min_calls = 4, .window_ms = 1000, .open_ms = 500};
    breaker_t b;
    breaker_init(&b, &set);
    return b;
}

static void call(breaker_t *b, int64_t now, bool ok) {
    assert_true(breaker_begin(b, now));
    breaker_end(b, now, ok);
}

static void test_opens_at_the_threshold(void **state) {
    (void)state;
    breaker_t b = make(true);
    double rate = 0;
    call(&b, 0, true);
    call(&b, 1, true);
    call(&b, 2, false);
    assert_true(breaker_allows(&b, 3)); /* one of three */
    call(&b, 3, false);                 /* two of four: 50 % */
    assert_int_equal(breaker_state(&b, 4, &rate, NULL), BREAKER_OPEN);
    assert_float_equal(rate, 50, 1e-9);
    assert_false(breaker_allows(&b, 4));
    assert_false(breaker_begin(&b, 502));
    breaker_destroy(&b);
}

static void test_few_calls_do_not_open(void **state) {
    (void)state;
    breaker_t b = make(true);
    for (int i = 0; i < 3; i++) {
        call(&b, i, false);
    }
    assert_true(breaker_allows(&b, 3));
    breaker_destroy(&b);
}

static void test_old_results_do_not_count(void **state) {
    (void)state;
    breaker_t b = make(true);
    for (int i = 0; i < 3; i++) {
        call(&b, i, false);
    }
    call(&b, 2000, false); /* the only one in its window */
    assert_true(breaker_allows(&b, 2000));
    breaker_destroy(&b);
}

static void open_it(breaker_t *b) {
    for (int i = 0; i < 4; i++) {
        call(b, 0, false);
    }
    assert_int_equal(breaker_state(b, 0, NULL, NULL), BREAKER_OPEN);
}

static void test_one_probe_closes_it(void **state) {
    (void)state;
    breaker_t b = make(true);
    open_it(&b);
    assert_true(breaker_allows(&b, 500));
    assert_int_equal(breaker_state(&b, 500, NULL, NULL), BREAKER_HALF_OPEN);
    assert_true(breaker_begin(&b, 500));
    assert_false(breaker_allows(&b, 501)); /* only one */
    assert_false(breaker_begin(&b, 501));
    breaker_end(&b, 502, true);
    assert_int_equal(breaker_state(&b, 502, NULL, NULL), BREAKER_CLOSED);
    call(&b, 503, false); /* the window began anew */
    assert_true(breaker_allows(&b, 504));
    breaker_destroy(&b);
}

static void test_a_failed_probe_opens_it_again(void **state) {
    (void)state;
    breaker_t b = make(true);
    uint64_t opened = 0;
    open_it(&b);
    assert_true(breaker_begin(&b, 600));
    breaker_end(&b, 601, false);
    assert_false(breaker_allows(&b, 1100));
    assert_true(breaker_allows(&b, 1101));
    (void)breaker_state(&b, 1101, NULL, &opened);
    assert_int_equal(opened, 2);
    breaker_destroy(&b);
}

static void test_an_abandoned_probe_leaves_room_for_another(void **state) {
    (void)state;
    breaker_t b = make(true);
    open_it(&b);
    assert_true(breaker_begin(&b, 600));
    breaker_abandon(&b);
    assert_int_equal(breaker_state(&b, 600, NULL, NULL), BREAKER_HALF_OPEN);
    assert_true(breaker_begin(&b, 601));
    breaker_destroy(&b);
}

static void test_disabled(void **state) {
    (void)state;
    breaker_t b = make(false);
    for (int i = 0; i < 20; i++) {
        call(&b, i, false);
    }
    assert_int_equal(breaker_state(&b, 20, NULL, NULL), BREAKER_CLOSED);
    breaker_destroy(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opens_at_the_threshold),
        cmocka_unit_test(test_few_calls_do_not_open),
        cmocka_unit_test(test_old_results_do_not_count),
        cmocka_unit_test(test_one_probe_closes_it),
        cmocka_unit_test(test_a_failed_probe_opens_it_again),
        cmocka_unit_test(test_an_abandoned_probe_leaves_room_for_another),
        cmocka_unit_test(test_disabled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
