/*
 * Jobs that a worker claims ahead, with real servers: how many, and that every rule holds for those which have not
 * begun.
 */
#include "tests/unit/support/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/queue_ahead.h"
#include "common/queue_quick.h"
#include "queue_fixture.h"

/* LONG: nothing goes back by itself while a test runs; a run of a few ms is quick beside it. */
enum { LONG_MS = 100000, SHORT_MS = 200, PATIENCE_MS = 30000 };

static const char *const NUCLEI[] = {"nuclei"};
static const char *const BOTH[] = {"nuclei", "spheroid"};
static queue_ahead_t *make(int slots, int64_t work_ms) {
    queue_ahead_t *a = NULL;
    const queue_ahead_setup_t setup = {.queue = qf.q, .worker_id = "w1", .slots = slots, .work_ms = work_ms};
    assert_int_equal(queue_ahead_create(&setup, &a, NULL), ERR_OK);
    return a;
}

static void jobs(int n) {
    char batch[JOB_ID_LEN];
    int count = 0;
    qf_batch(n, batch);
    assert_int_equal(queue_enqueue_batch(qf.q, batch, &count, NULL), ERR_OK);
    assert_int_equal(count, n);
}

static bool next_of(queue_ahead_t *a, int slot, const char *const *models, int nmodels, queue_claim_t *c) {
    bool got = false, lost = false;
    err_t err = {0};
    if (queue_ahead_next(a, slot, models, nmodels, 0, c, &got, &lost, &err) != ERR_OK) {
        fail_msg("next: %s %s", err.message, err.detail);
    }
    assert_false(lost);
    return got;
}

static bool next(queue_ahead_t *a, int slot, queue_claim_t *c) {
    return next_of(a, slot, NUCLEI, 1, c);
}

static void commit(queue_claim_t *c) {
    pg_conn_t *conn = NULL;
    assert_int_equal(pg_acquire(qf.pg, &conn, NULL), ERR_OK);
    assert_int_equal(pg_begin(conn, NULL), ERR_OK);
    assert_int_equal(queue_complete_in_tx(qf.q, conn, c, 3, "{}", NULL), ERR_OK);
    assert_int_equal(pg_commit(conn, NULL), ERR_OK);
    pg_release(conn);
}

static void run(queue_ahead_t *a, int slot, queue_claim_t *c) {
    commit(c);
    queue_ahead_done(a, slot, c, 3);
}

/* As many quick jobs as it takes. */
static void teach(queue_ahead_t *a, const char *model) {
    const char *const models[] = {model};
    for (int i = 0; i < QUEUE_QUICK_RUNS; i++) {
        char id[JOB_ID_LEN];
        int position;
        queue_claim_t c;
        qf_job(0, model, 10, id);
        assert_int_equal(queue_enqueue(qf.q, id, model, 10, &position, NULL), ERR_OK);
        assert_true(next_of(a, 0, models, 1, &c));
        assert_string_equal(c.id, id);
        run(a, 0, &c);
    }
}

static int64_t active(void) {
    return qf_sql_int("SELECT count(*) FROM jobs WHERE state = 'active'");
}

static int64_t unbegun(queue_ahead_t *a) {
    queue_ahead_claim_t claims[64];
    return queue_ahead_claims(a, claims, 64);
}

static void wait_sql(const char *sql, int64_t want) {
    int64_t until = time_mono_ms() + PATIENCE_MS, found;
    while ((found = qf_sql_int(sql)) != want && time_mono_ms() < until) {
        time_sleep_ms(5);
    }
    if (found != want) {
        fail_msg("%s: %lld", sql, (long long)found);
    }
}

static void end(queue_ahead_t *a, int slots) {
    for (int i = 0; i < slots; i++) {
        queue_ahead_leave(a, i);
    }
    queue_ahead_destroy(a);
}

/* ---- how many ---- */

static void test_quick_jobs_are_claimed_together_and_run_one_by_one(void **state) {
    (void)state;
    qf_reset();
    queue_ahead_t *a = make(1, LONG_MS);
    queue_claim_t c;
    jobs(40);
    assert_true(next(a, 0, &c)); /* nothing is known of the model */
    assert_int_equal(active(), 1);
    run(a, 0, &c);
    for (int i = 1; i < QUEUE_QUICK_RUNS; i++) {
        assert_true(next(a, 0, &c));
        assert_int_equal(unbegun(a), 0);
        run(a, 0, &c);
    }
    assert_true(next(a, 0, &c)); /* 32 wait: 1, and 15 ahead */
    assert_int_equal(active(), QUEUE_AHEAD_MOST);
    assert_int_equal(unbegun(a), QUEUE_AHEAD_MOST - 1);
    assert_int_equal(qf_redis_int("HLEN", "sg:held"), QUEUE_AHEAD_MOST);
    run(a, 0, &c);
    for (int i = 1; i < QUEUE_AHEAD_MOST; i++) {
        assert_true(next(a, 0, &c));
        run(a, 0, &c);
    }
    assert_int_equal(qf_redis_int("HLEN", "sg:held"), QUEUE_AHEAD_MOST); /* committed, and not yet ended */
    assert_true(next(a, 0, &c));                                         /* 16 wait: 1, and of the others half */
    assert_int_equal(unbegun(a), 7);
    assert_int_equal(qf_redis_int("HLEN", "sg:held"), 8);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM jobs WHERE state = 'completed'"), 24);
    run(a, 0, &c);
    while (next(a, 0, &c)) {
        run(a, 0, &c);
    }
    assert_int_equal(qf_sql_int("SELECT count(*) FROM jobs WHERE state = 'completed' AND attempt = 1"), 40);
    assert_int_equal(qf_redis_int("HLEN", "sg:held"), 0);
    assert_int_equal(qf_redis_int("ZCARD", "sg:lease"), 0);
    end(a, 1);
}

static void test_switched_off_it_claims_one_at_a_time(void **state) {
    (void)state;
    qf_reset();
    queue_ahead_t *a = make(1, 0);
    queue_claim_t c;
    jobs(30);
    while (next(a, 0, &c)) {
        assert_int_equal(active(), 1);
        run(a, 0, &c);
    }
    assert_int_equal(qf_sql_int("SELECT count(*) FROM jobs WHERE state = 'completed'"), 30);
    end(a, 1);
}

static void test_slow_jobs_are_claimed_one_at_a_time(void **state) {
    (void)state;
    qf_reset();
    queue_ahead_t *a = make(1, SHORT_MS);
    queue_claim_t c;
    teach(a, "nuclei");
    jobs(30);
    assert_true(next(a, 0, &c));
    time_sleep_ms(SHORT_MS); /* much more than all the others */
    run(a, 0, &c);
    queue_ahead_leave(a, 0);
    for (int i = 0; i < QUEUE_QUICK_RUNS - 1; i++) {
        assert_true(next(a, 0, &c));
        assert_int_equal(unbegun(a), 0);
        run(a, 0, &c);
    }
    end(a, 1);
}

static void test_an_unknown_model_ends_what_is_claimed(void **state) {
    (void)state;
    qf_reset();
    queue_ahead_t *a = make(1, LONG_MS);
    queue_claim_t c;
    teach(a, "nuclei");
    for (int i = 0; i < 30; i++) { /* one of the unknown model in the middle; by age, as they have one priority */
        char id[JOB_ID_LEN];
        int position;
        const char *model = i == 3 ? "spheroid" : "nuclei";
        qf_job(0, model, 5, id);
        assert_int_equal(queue_enqueue(qf.q, id, model, 5, &position, NULL), ERR_OK);
        time_sleep_ms(2);
    }
    for (int i = 0; i < 3; i++) {
        assert_true(next_of(a, 0, BOTH, 2, &c));
        assert_string_equal(c.model, "nuclei");
        assert_int_equal(unbegun(a), 2 - i);
        run(a, 0, &c);
    }
    assert_true(next_of(a, 0, BOTH, 2, &c));
    assert_string_equal(c.model, "spheroid");
    assert_int_equal(unbegun(a), 0);
    run(a, 0, &c);
    assert_true(next_of(a, 0, BOTH, 2, &c));
    assert_int_equal(unbegun(a), 12); /* of the other 25 */
    end(a, 1);
}

static void test_users_take_turns_and_priorities_come_first(void **state) {
    (void)state;
    qf_reset();
    queue_ahead_t *a = make(1, LONG_MS);
    queue_claim_t c;
    int position;
    char id[JOB_ID_LEN], urgent[JOB_ID_LEN];
    teach(a, "nuclei");
    jobs(40); /* of the first user */
    for (int i = 0; i < 10; i++) {
        qf_job(1, "nuclei", 5, id);
        assert_int_equal(queue_enqueue(qf.q, id, "nuclei", 5, &position, NULL), ERR_OK);
    }
    qf_job(2, "nuclei", 9, urgent);
    assert_int_equal(queue_enqueue(qf.q, urgent, "nuclei", 9, &position, NULL), ERR_OK);
    assert_true(next(a, 0, &c));
    assert_string_equal(c.id, urgent);
    run(a, 0, &c);
    while (unbegun(a) == 0) { /* what is more urgent is claimed alone: nothing of its kind stays behind */
        assert_true(next(a, 0, &c));
        run(a, 0, &c);
    }
    char first[JOB_ID_LEN] = "";
    while (unbegun(a) > 0) {
        assert_true(next(a, 0, &c));
        assert_string_not_equal(c.user_id, first);
        (void)snprintf(first, sizeof first, "%s", c.user_id);
        run(a, 0, &c);
    }
    end(a, 1);
}

static void test_slots_share_what_they_claim_together(void **state) {
    (void)state;
    qf_reset();
    queue_ahead_t *a = make(2, LONG_MS);
    queue_claim_t c[2];
    teach(a, "nuclei");
    jobs(9);
    assert_true(next(a, 0, &c[0])); /* 1 and 4 of 9: the other slot, which comes later, finds half */
    assert_true(next(a, 1, &c[1]));
    assert_int_equal(active(), 5 + 2);
    end(a, 2);
}

/* ---- what has not begun ---- */

static void test_what_waits_behind_a_slow_job_goes_back(void **state) {
    (void)state;
    qf_reset();
    queue_ahead_t *a = make(1, SHORT_MS);
    queue_claim_t c, other;
    teach(a, "nuclei");
    jobs(20);
    assert_true(next(a, 0, &c));
    int64_t ahead = unbegun(a);
    if (ahead == 0) {
        skip(); /* on a machine this slow nothing is quick */
    }
    run(a, 0, &c); /* ends at once, and the next one takes its time */
    assert_true(next(a, 0, &c));
    wait_sql("SELECT count(*) FROM jobs WHERE state = 'active'", 1);
    qf_assert_job(c.id, "active", 1);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM jobs WHERE state = 'queued' AND attempt = 0"), 18);
    assert_int_equal(unbegun(a), 0);
    for (int i = 0; qf_redis_int("HLEN", "sg:held") != 1 && i < 1000; i++) {
        time_sleep_ms(5); /* the committed one is told of, too */
    }
    assert_int_equal(qf_redis_int("HLEN", "sg:held"), 1);
    for (int i = 0; i < 18; i++) { /* another worker gets them all */
        assert_true(qf_claim("w2", &other));
        assert_int_equal(other.attempt, 1);
    }
    run(a, 0, &c);
    end(a, 1);
}

static void test_after_a_failure_the_rest_goes_back_and_singles_follow(void **state) {
    (void)state;
    qf_reset();
    queue_ahead_t *a = make(1, LONG_MS);
    queue_claim_t c, again;
    err_t why = {0};
    teach(a, "nuclei");
    jobs(20);
    assert_true(next(a, 0, &c));
    assert_int_equal(unbegun(a), 9);
    (void)err_set(&why, ERR_INTERNAL, "model_failed", "The model failed.", NULL);
    qf.q->backoff_ms = 600000;
    assert_int_equal(queue_fail(qf.q, "w1", &c, &why, NULL), ERR_OK);
    queue_ahead_broke(a, 0, c.model, true);
    assert_int_equal(active(), 0);
    assert_int_equal(qf_redis_int("HLEN", "sg:held"), 0);
    assert_true(next(a, 0, &again));
    assert_int_equal(again.attempt, 1); /* none was counted */
    assert_int_equal(active(), 1);
    end(a, 1);
}

static void test_a_stop_hands_back_at_once(void **state) {
    (void)state;
    qf_reset();
    queue_ahead_t *a = make(1, LONG_MS);
    queue_claim_t c;
    char order[2][JOB_ID_LEN];
    teach(a, "nuclei");
    jobs(20);
    assert_true(next(a, 0, &c));
    assert_int_equal(active(), 10);
    queue_ahead_claim_t waiting[16];
    assert_int_equal(queue_ahead_claims(a, waiting, 16), 9);
    (void)snprintf(order[0], JOB_ID_LEN, "%s", waiting[0].id);
    (void)snprintf(order[1], JOB_ID_LEN, "%s", waiting[1].id);
    queue_ahead_stop(a); /* while the slot runs its job */
    wait_sql("SELECT count(*) FROM jobs WHERE state = 'queued' AND attempt = 0", 19);
    qf_assert_job(c.id, "active", 1);
    run(a, 0, &c);
    end(a, 1);
    assert_int_equal(active(), 0);
    for (int i = 0; i < 2; i++) { /* they have their places again */
        assert_true(qf_claim("w2", &c));
        assert_string_equal(c.id, order[i]);
    }
}

static void test_a_person_cancels_what_has_not_begun(void **state) {
    (void)state;
    qf_reset();
    queue_ahead_t *a = make(1, LONG_MS);
    queue_claim_t c;
    teach(a, "nuclei");
    jobs(20);
    assert_true(next(a, 0, &c));
    queue_ahead_claim_t waiting[16];
    assert_int_equal(queue_ahead_claims(a, waiting, 16), 9);
    job_state_t now;
    assert_int_equal(queue_cancel(qf.other, waiting[0].id, &now, NULL), ERR_OK);
    assert_int_equal(queue_cancel(qf.other, waiting[8].id, &now, NULL), ERR_OK);
    run(a, 0, &c);
    assert_true(next(a, 0, &c)); /* it gets its turn, and its first question tells it */
    assert_string_equal(c.id, waiting[0].id);
    for (int i = 0; !queue_claim_is_cancelled(qf.q, &c) && i < 6000; i++) {
        time_sleep_ms(5);
    }
    assert_true(queue_claim_is_cancelled(qf.q, &c));
    err_t why = {0};
    (void)err_set(&why, ERR_CANCELLED, "cancelled", "The job was cancelled.", NULL);
    assert_int_equal(queue_fail(qf.q, "w1", &c, &why, NULL), ERR_OK);
    queue_ahead_broke(a, 0, c.model, false);
    qf_assert_job(waiting[0].id, "cancelled", 1);
    qf_assert_job(waiting[8].id, "cancelled", 0); /* handed back, and thereby cancelled */
    assert_int_equal(active(), 0);
    assert_true(next(a, 0, &c));
    assert_true(unbegun(a) > 0); /* a cancellation says nothing about the model */
    end(a, 1);
}

static void test_the_heartbeat_renews_and_tells_of_lost_claims(void **state) {
    (void)state;
    qf_reset();
    queue_ahead_t *a = make(1, LONG_MS);
    queue_claim_t c;
    teach(a, "nuclei");
    jobs(20);
    assert_true(next(a, 0, &c));
    queue_ahead_claim_t waiting[16];
    int n = queue_ahead_claims(a, waiting, 16);
    assert_int_equal(n, 9);
    const char *ids[16], *tokens[16];
    bool lost[16];
    for (int i = 0; i < n; i++) {
        ids[i] = waiting[i].id;
        tokens[i] = waiting[i].token;
    }
    qf_expire_leases();
    assert_int_equal(queue_renew_claims(qf.q, "w1", "{}", ids, tokens, n, lost, NULL), ERR_OK);
    const char *count[] = {"ZCOUNT", "sg:lease", "2", "+inf"};
    redisReply *r = NULL;
    assert_int_equal(rds_run(qf.rds, 4, count, &r, NULL), ERR_OK);
    assert_int_equal(r->integer, n);
    freeReplyObject(r);
    queue_ahead_lost(a, waiting[0].token);
    queue_ahead_lost(a, "another");
    run(a, 0, &c);
    bool got = false, taken = false;
    assert_int_equal(queue_ahead_next(a, 0, NUCLEI, 1, 0, &c, &got, &taken, NULL), ERR_OK);
    assert_true(got && taken);
    assert_string_equal(c.id, waiting[0].id);
    queue_ahead_broke(a, 0, c.model, false);
    end(a, 1);
}

/* ---- a crash ---- */

static void test_a_crash_counts_for_the_job_that_had_begun_and_for_no_other(void **state) {
    (void)state;
    qf_reset();
    queue_ahead_t *a = make(2, LONG_MS);
    queue_claim_t c[2], last;
    teach(a, "nuclei");
    jobs(40);
    assert_true(next(a, 0, &c[0]));
    assert_true(next(a, 1, &c[1]));
    run(a, 0, &c[0]); /* one slot is at its second job, the other at its first */
    assert_true(next(a, 0, &c[0]));
    int64_t held = active();
    assert_true(held > 10);
    qf.q->backoff_ms = qf.other->backoff_ms = 600000;
    qf_expire_leases();
    qf_sweep(qf.other);
    assert_int_equal(active(), 0);
    for (int i = 0; i < 2; i++) {
        char sql[2048];
        (void)snprintf(sql, sizeof sql,
                       "SELECT count(*) FROM jobs WHERE id = '%s' AND state = 'delayed' AND attempt = 1 "
                       "AND error_code = 'worker_lost'",
                       c[i].id);
        assert_int_equal(qf_sql_int(sql), 1);
    }
    assert_int_equal(qf_sql_int("SELECT count(*) FROM jobs WHERE attempt = 0 AND state = 'queued' "
                                "AND error_code IS NULL AND finished_at IS NULL AND token IS NULL"),
                     40 - 1 - 2);
    assert_int_equal(qf_redis_int("HLEN", "sg:held"), 0);
    int again = 0;
    while (qf_claim("w2", &last)) { /* without a delay */
        again++;
        assert_int_equal(last.attempt, 1);
    }
    assert_int_equal(again, 40 - 1 - 2);
    /* the worker lives after all, and finds that nothing is its own any more */
    queue_ahead_claim_t waiting[64];
    int n = queue_ahead_claims(a, waiting, 64);
    assert_true(n > 8);
    end(a, 2);
    assert_int_equal(active(), again);
}

static void test_claims_without_an_order_all_count(void **state) {
    (void)state;
    qf_reset();
    queue_claim_t c[8];
    int got = 0;
    jobs(8);
    assert_int_equal(queue_claim_many(qf.q, "w1", NUCLEI, 1, 8, 0, c, &got, NULL), ERR_OK);
    assert_int_equal(got, 8);
    qf.q->backoff_ms = qf.other->backoff_ms = 600000;
    qf_expire_leases();
    qf_sweep(qf.other);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM jobs WHERE attempt = 1 AND state = 'delayed'"), 8);
}

int main(void) {
    if (!private_pg_available() || !private_redis_available()) {
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quick_jobs_are_claimed_together_and_run_one_by_one),
        cmocka_unit_test(test_switched_off_it_claims_one_at_a_time),
        cmocka_unit_test(test_slow_jobs_are_claimed_one_at_a_time),
        cmocka_unit_test(test_an_unknown_model_ends_what_is_claimed),
        cmocka_unit_test(test_users_take_turns_and_priorities_come_first),
        cmocka_unit_test(test_slots_share_what_they_claim_together),
        cmocka_unit_test(test_what_waits_behind_a_slow_job_goes_back),
        cmocka_unit_test(test_after_a_failure_the_rest_goes_back_and_singles_follow),
        cmocka_unit_test(test_a_stop_hands_back_at_once),
        cmocka_unit_test(test_a_person_cancels_what_has_not_begun),
        cmocka_unit_test(test_the_heartbeat_renews_and_tells_of_lost_claims),
        cmocka_unit_test(test_a_crash_counts_for_the_job_that_had_begun_and_for_no_other),
        cmocka_unit_test(test_claims_without_an_order_all_count),
    };
    return cmocka_run_group_tests(tests, qf_setup, qf_teardown);
}
