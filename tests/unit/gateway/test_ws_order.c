/* No browser is shown a step back: the table of sequence numbers behind the WebSocket hub. */
#include <stdio.h>

#include "../support/cmocka_all.h"
#include "gateway/ws_order.h"

static const char *job(unsigned n) {
    static char id[37];
    (void)snprintf(id, sizeof id, "00000000-0000-4000-8000-%012x", n);
    return id;
}

static bool stale(ws_order_t *o, unsigned n, int64_t seq) {
    return ws_order_event(o, job(n), seq).stale;
}

static void an_overtaken_event_is_stale(void **state) {
    ws_order_t *o = ws_order_create(64);
    (void)state;
    assert_false(stale(o, 1, 5));
    assert_true(stale(o, 1, 4));
    assert_true(stale(o, 1, 5)); /* the same once more */
    assert_false(stale(o, 1, 6));
    assert_false(stale(o, 2, 1)); /* each job for itself */
    assert_false(stale(o, 1, ((int64_t)1 << 53) - 1));
    ws_order_destroy(o);
}

/* A snapshot goes to one client: what it showed is old for that client only. */
static void a_snapshot_counts_for_those_who_had_it(void **state) {
    ws_order_t *o = ws_order_create(64);
    (void)state;
    assert_false(stale(o, 1, 3));
    ws_order_snapshot(o, job(1), 7, 41);
    ws_order_verdict_t v = ws_order_event(o, job(1), 6);
    assert_false(v.stale);
    assert_int_equal(v.snapshot, 41); /* those with snapshot 41 or later leave it out */
    ws_order_snapshot(o, job(1), 7, 42);
    v = ws_order_event(o, job(1), 7);
    assert_false(v.stale);
    assert_int_equal(v.snapshot, 41); /* the first that showed it */
    v = ws_order_event(o, job(1), 8);
    assert_false(v.stale);
    assert_int_equal(v.snapshot, 0); /* new for everybody */
    assert_true(stale(o, 1, 7));
    ws_order_destroy(o);
}

/* Two snapshots are made side by side: the one that is sent last, with the greater number, was read first and is older.
 */
static void only_a_snapshot_begun_after_another_is_newer(void **state) {
    ws_order_t *o = ws_order_create(64);
    (void)state;
    uint64_t old_begun = 1, new_begun = 2, new_end = 3, old_end = 4, later_begun = 5, later_end = 6;
    ws_order_snapshot(o, job(1), 7, new_end);
    ws_order_snapshot(o, job(1), 6, old_end);
    ws_order_verdict_t v = ws_order_event(o, job(1), 7);
    assert_true(ws_order_is_known(v, new_end, new_begun));
    assert_false(ws_order_is_known(v, old_end, old_begun));
    assert_true(ws_order_is_known(v, later_end, later_begun));
    assert_false(ws_order_is_known(v, 0, 0)); /* has had none yet */
    ws_order_destroy(o);
}

static void an_older_snapshot_changes_nothing(void **state) {
    ws_order_t *o = ws_order_create(64);
    (void)state;
    ws_order_snapshot(o, job(1), 9, 1);
    ws_order_snapshot(o, job(1), 4, 2);
    assert_int_equal(ws_order_event(o, job(1), 8).snapshot, 1);
    ws_order_destroy(o);
}

/* Full, it forgets who was quiet longest, never who is heard now, and never calls something stale that is not. */
static void a_full_table_forgets_the_quiet(void **state) {
    enum { JOBS = 1000 };
    ws_order_t *o = ws_order_create(64);
    (void)state;
    for (unsigned round = 1; round <= 3; round++) {
        for (unsigned n = 10; n < JOBS; n++) {
            assert_false(stale(o, n, round * 10));
            assert_true(stale(o, n, round * 10)); /* still known at once */
            (void)stale(o, 1, 1 + (int64_t)round * JOBS + n);
            assert_true(stale(o, 1, 2)); /* the busy one stays */
        }
    }
    ws_order_destroy(o);
}

static void what_is_no_uuid_always_passes(void **state) {
    static const char *const odd[] = {"",
                                      "x",
                                      "00000000-0000-4000-8000-00000000000",
                                      "00000000-0000-4000-8000-00000000000g",
                                      "000000000000-4000-8000-000000000000-0",
                                      "00000000-0000-0000-0000-000000000000"};
    ws_order_t *o = ws_order_create(1);
    (void)state;
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        assert_false(ws_order_event(o, odd[i], 2).stale);
        assert_false(ws_order_event(o, odd[i], 1).stale);
        ws_order_snapshot(o, odd[i], 9, 1);
        assert_int_equal(ws_order_event(o, odd[i], 1).snapshot, 0);
    }
    ws_order_destroy(o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_overtaken_event_is_stale),
        cmocka_unit_test(a_snapshot_counts_for_those_who_had_it),
        cmocka_unit_test(only_a_snapshot_begun_after_another_is_newer),
        cmocka_unit_test(an_older_snapshot_changes_nothing),
        cmocka_unit_test(a_full_table_forgets_the_quiet),
        cmocka_unit_test(what_is_no_uuid_always_passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
