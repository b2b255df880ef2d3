/*
 * When a worker claims several jobs at once: how quick its last runs were.
 */
#include "tests/unit/support/cmocka_all.h"

#include <stdio.h>

#include "common/queue_quick.h"

enum { UNKNOWN = 20001 };

static int64_t cost(const queue_quick_t *k, const char *model, int64_t now_ms) {
    return queue_quick_cost_us(k, model, now_ms, UNKNOWN);
}

static void note_many(queue_quick_t *k, const char *model, int64_t us, int n) {
    for (int i = 0; i < n; i++) {
        queue_quick_note(k, model, us, 1000);
    }
}

static void test_a_model_is_unknown_until_enough_runs_are_known(void **state) {
    (void)state;
    queue_quick_t k = {0};
    assert_int_equal(cost(&k, "nuclei", 1000), UNKNOWN);
    note_many(&k, "nuclei", 500, QUEUE_QUICK_RUNS - 1);
    assert_int_equal(cost(&k, "nuclei", 1000), UNKNOWN);
    note_many(&k, "nuclei", 500, 1);
    assert_int_equal(cost(&k, "nuclei", 1000), 500);
    assert_int_equal(cost(&k, "spheroid", 1000), UNKNOWN);
}

static void test_one_slow_run_counts_until_as_many_quick_ones_followed(void **state) {
    (void)state;
    queue_quick_t k = {0};
    note_many(&k, "nuclei", 500, 20);
    note_many(&k, "nuclei", 3000000, 1);
    assert_int_equal(cost(&k, "nuclei", 1000), 3000000);
    note_many(&k, "nuclei", 500, QUEUE_QUICK_RUNS - 1);
    assert_int_equal(cost(&k, "nuclei", 1000), 3000000);
    note_many(&k, "nuclei", 500, 1);
    assert_int_equal(cost(&k, "nuclei", 1000), 500);
}

static void test_models_are_measured_apart(void **state) {
    (void)state;
    queue_quick_t k = {0};
    note_many(&k, "quick", 0, QUEUE_QUICK_RUNS);
    note_many(&k, "slow", 900000, QUEUE_QUICK_RUNS);
    assert_int_equal(cost(&k, "quick", 1000), 1); /* nothing costs nothing */
    assert_int_equal(cost(&k, "slow", 1000), 900000);
    queue_quick_forget(&k, "quick");
    queue_quick_forget(&k, "absent");
    assert_int_equal(cost(&k, "quick", 1000), UNKNOWN);
    assert_int_equal(cost(&k, "slow", 1000), 900000);
}

static void test_what_was_measured_long_ago_does_not_count(void **state) {
    (void)state;
    queue_quick_t k = {0};
    note_many(&k, "nuclei", 500, QUEUE_QUICK_RUNS);
    assert_int_equal(cost(&k, "nuclei", 1000 + QUEUE_QUICK_MS), 500);
    assert_int_equal(cost(&k, "nuclei", 1001 + QUEUE_QUICK_MS), UNKNOWN);
}

static void test_more_models_than_there_is_room_for_stay_unknown(void **state) {
    (void)state;
    static queue_quick_t k;
    for (int i = 0; i <= QUEUE_QUICK_MODELS; i++) {
        char model[24];
        (void)snprintf(model, sizeof model, "model-%d", i);
        note_many(&k, model, 500, QUEUE_QUICK_RUNS);
        assert_int_equal(cost(&k, model, 1000), i < QUEUE_QUICK_MODELS ? 500 : UNKNOWN);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_model_is_unknown_until_enough_runs_are_known),
        cmocka_unit_test(test_one_slow_run_counts_until_as_many_quick_ones_followed),
        cmocka_unit_test(test_models_are_measured_apart),
        cmocka_unit_test(test_what_was_measured_long_ago_does_not_count),
        cmocka_unit_test(test_more_models_than_there_is_room_for_stay_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
