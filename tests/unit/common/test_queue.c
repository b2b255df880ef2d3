/*
 * The job queue against a real PostgreSQL and a real Redis: order, fairness, the life of a job, failures,
 * cancellation, figures. What happens after crashes and losses is in test_queue_recovery.c.
 */
#include "tests/unit/support/cmocka_all.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue_fixture.h"

/* ---- order ---- */

static void test_greater_priority_goes_first(void **state) {
    (void)state;
    qf_reset();
    char ids[5][JOB_ID_LEN];
    const int priorities[5] = {1, 10, 5, 9, 2};
    const int order[5] = {1, 3, 2, 4, 0};
    for (int i = 0; i < 5; i++) {
        qf_job(0, "nuclei", priorities[i], ids[i]);
        assert_int_equal(qf_enqueue(ids[i]), 0 + (i == 0 ? 0 : i == 1 ? 0 : i == 2 ? 1 : i == 3 ? 1 : 3));
    }
    for (int i = 0; i < 5; i++) {
        queue_claim_t c;
        assert_true(qf_claim("w1", &c));
        assert_string_equal(c.id, ids[order[i]]);
        assert_int_equal(c.priority, priorities[order[i]]);
    }
    queue_claim_t c;
    assert_false(qf_claim("w1", &c));
}

static void test_equal_priority_is_first_in_first_out(void **state) {
    (void)state;
    qf_reset();
    char ids[6][JOB_ID_LEN];
    for (int i = 0; i < 6; i++) {
        qf_job(0, "nuclei", 5, ids[i]);
        assert_int_equal(qf_enqueue(ids[i]), i);
    }
    for (int i = 0; i < 6; i++) {
        queue_claim_t c;
        assert_true(qf_claim("w1", &c));
        assert_string_equal(c.id, ids[i]);
        if (i < 5) {
            assert_int_equal(queue_position(qf.q, ids[5], "nuclei", 5), 4 - i);
        }
    }
    assert_int_equal(queue_position(qf.q, ids[5], "nuclei", 5), -1);
}

static void test_a_flood_of_one_user_does_not_starve_another(void **state) {
    (void)state;
    qf_reset();
    char flood[200][JOB_ID_LEN], mine[3][JOB_ID_LEN];
    for (int i = 0; i < 200; i++) {
        qf_job(0, "nuclei", 5, flood[i]);
        (void)qf_enqueue(flood[i]);
    }
    for (int i = 0; i < 3; i++) {
        qf_job(1, "nuclei", 5, mine[i]);
        int position = qf_enqueue(mine[i]);
        assert_in_range(position, 2 * i, 2 * i + 1);
    }
    int found = 0;
    for (int i = 0; i < 6; i++) {
        queue_claim_t c;
        assert_true(qf_claim("w1", &c));
        for (int k = 0; k < 3; k++) {
            found += strcmp(c.id, mine[k]) == 0;
        }
    }
    assert_int_equal(found, 3);
}

static void test_a_low_priority_job_does_not_starve(void **state) {
    (void)state;
    qf_reset();
    qf.q->tune.age_ms = 50;
    char low[JOB_ID_LEN], id[JOB_ID_LEN];
    qf_job(0, "nuclei", 1, low);
    (void)qf_enqueue(low);
    time_sleep_ms(60);
    int claims = 0;
    bool served = false;
    /* there is always newer work of the greatest priority */
    for (; claims < 20 && !served; claims++) {
        qf_job(1, "nuclei", 10, id);
        (void)qf_enqueue(id);
        queue_claim_t c;
        assert_true(qf_claim("w1", &c));
        served = strcmp(c.id, low) == 0;
        if (claims == 0) {
            assert_false(served); /* priority still counts */
        }
    }
    assert_true(served);
    assert_true(claims <= 8);
}

static void test_a_worker_gets_only_its_models(void **state) {
    (void)state;
    qf_reset();
    char a[JOB_ID_LEN], b[JOB_ID_LEN];
    qf_job(0, "spheroid", 10, a);
    qf_job(0, "nuclei", 1, b);
    (void)qf_enqueue(a);
    (void)qf_enqueue(b);
    queue_claim_t c;
    assert_true(qf_claim("w1", &c));
    assert_string_equal(c.id, b);
    assert_false(qf_claim("w1", &c));
    const char *both[] = {"nuclei", "spheroid"};
    assert_true(qf_claim_of(qf.q, "w1", both, 2, 0, &c));
    assert_string_equal(c.id, a);
}

/* ---- waking up ---- */

static void *enqueue_later(void *arg) {
    time_sleep_ms(300);
    (void)qf_enqueue(arg);
    return NULL;
}

static void test_an_idle_worker_wakes_up_at_once(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    qf_job(0, "spheroid", 5, id);
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, enqueue_later, id), 0);
    const char *both[] = {"nuclei", "spheroid"};
    int64_t before = time_mono_ms();
    queue_claim_t c;
    assert_true(qf_claim_of(qf.q, "w1", both, 2, 5000, &c));
    int64_t waited = time_mono_ms() - before;
    assert_int_equal(pthread_join(t, NULL), 0);
    assert_string_equal(c.id, id);
    assert_in_range(waited, 250, 1500);
    before = time_mono_ms();
    assert_false(qf_claim_of(qf.q, "w1", both, 2, 400, &c));
    assert_in_range(time_mono_ms() - before, 390, 1500);
}

static void test_wake_tokens_are_bounded(void **state) {
    (void)state;
    qf_reset();
    char batch[JOB_ID_LEN], id[JOB_ID_LEN];
    int n = 0;
    for (int i = 0; i < 3; i++) {
        qf_job(0, "nuclei", 5, id);
        (void)qf_enqueue(id);
        assert_int_equal(qf_redis_int("LLEN", "sg:wake:nuclei"), 1); /* who takes it leaves one for the next */
    }
    qf_batch(100, batch);
    assert_int_equal(queue_enqueue_batch(qf.q, batch, &n, NULL), ERR_OK);
    assert_int_equal(qf_redis_int("LLEN", "sg:wake:nuclei"), 64);
    queue_claim_t c;
    while (qf_claim("w1", &c)) {
    }
    assert_int_equal(qf_redis_int("LLEN", "sg:wake:nuclei"), 0);
}

/* ---- the life of a job ---- */

static void test_complete(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    queue_claim_t c;
    assert_true(qf_claim("w1", &c));
    assert_string_equal(c.storage_key, "images/x/original");
    assert_true(isnan(c.threshold));
    assert_true(c.detect_holes);
    assert_int_equal(c.attempt, 1);
    assert_int_equal(c.seq, (1LL << 32) + 1);
    qf_assert_job(id, "active", 1);
    queue_publish_progress(qf.q, &c, "infer", 0.5);
    double progress = 0;
    char stage[24];
    int64_t seq = 0;
    assert_true(queue_progress(qf.q, id, &progress, stage, &seq));
    assert_float_equal(progress, 0.5, 1e-6);
    assert_string_equal(stage, "infer");
    assert_int_equal(seq, (1LL << 32) + 2);
    assert_int_equal(qf_complete(qf.q, "w1", &c), ERR_OK);
    qf_assert_job(id, "completed", 1);
    assert_int_equal(qf_sql_int("SELECT seq FROM jobs"), (1LL << 32) + 3);
    assert_int_equal(qf_redis_int("ZCARD", "sg:lease"), 0);
    assert_int_equal(qf_redis_int("EXISTS", "sg:held"), 0);
}

static void test_latest_job_follows(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM images i JOIN jobs j ON i.latest_job_id = j.id"), 1);
}

/* ---- failures ---- */

static void test_attempts_are_capped(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    err_t why;
    (void)err_set(&why, ERR_UNAVAILABLE, "device_busy", "The graphics card is busy.", "oom");
    queue_claim_t c;
    for (int i = 1; i <= 3; i++) {
        qf_wait_claim("w1", &c);
        assert_int_equal(c.attempt, i);
        assert_int_equal(queue_fail(qf.q, "w1", &c, &why, NULL), ERR_OK);
        qf_assert_job(id, i < 3 ? "delayed" : "failed", i);
    }
    assert_int_equal(
        qf_sql_int("SELECT count(*) FROM jobs WHERE error_code = 'device_busy' AND finished_at IS NOT NULL "
                   "AND error_message = 'The graphics card is busy.'"),
        1);
}

static void test_a_permanent_error_is_not_tried_again(void **state) {
    (void)state;
    static const err_kind_t permanent[] = {ERR_INVALID, ERR_UNSUPPORTED, ERR_TOO_LARGE};
    for (size_t i = 0; i < 3; i++) {
        qf_reset();
        char id[JOB_ID_LEN];
        qf_job(0, "nuclei", 5, id);
        (void)qf_enqueue(id);
        queue_claim_t c;
        assert_true(qf_claim("w1", &c));
        err_t why;
        (void)err_set(&why, permanent[i], "image_corrupt", "The file is damaged.", NULL);
        assert_int_equal(queue_fail(qf.q, "w1", &c, &why, NULL), ERR_OK);
        qf_assert_job(id, "failed", 1);
    }
}

static void test_back_off_is_random_and_bounded(void **state) {
    (void)state;
    qf_reset();
    qf.q->backoff_ms = 60000;
    double least = 1e9, most = 0;
    for (int i = 0; i < 30; i++) {
        char id[JOB_ID_LEN];
        qf_job(0, "nuclei", 5, id);
        (void)qf_enqueue(id);
        queue_claim_t c;
        assert_true(qf_claim("w1", &c));
        err_t why = {.kind = ERR_IO, .code = "io"};
        assert_int_equal(queue_fail(qf.q, "w1", &c, &why, NULL), ERR_OK);
    }
    least = (double)qf_sql_int("SELECT round(min(extract(epoch FROM run_after - now()))) FROM jobs");
    most = (double)qf_sql_int("SELECT round(max(extract(epoch FROM run_after - now()))) FROM jobs");
    assert_true(least >= -2 && most <= 60);
    assert_true(most - least > 15); /* thirty draws all within a quarter: less than one in 10^14 */
}

static void test_hand_back_does_not_count(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN], other[JOB_ID_LEN];
    qf_job(0, "nuclei", 5, id);
    qf_job(0, "nuclei", 5, other);
    (void)qf_enqueue(id);
    (void)qf_enqueue(other);
    queue_claim_t c, again;
    assert_true(qf_claim("w1", &c));
    queue_publish_progress(qf.q, &c, "infer", 0.5);
    int64_t seq = c.seq;
    assert_int_equal(queue_hand_back(qf.q, "w1", &c, NULL), ERR_OK);
    qf_assert_job(id, "queued", 0);
    assert_true(qf_claim("w2", &again));
    assert_string_equal(again.id, id); /* it keeps its place at the head */
    assert_int_equal(again.attempt, 1);
    assert_true(again.seq > seq + 1);
}

/* ---- cancel and retry ---- */

static void test_cancel_queued(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    job_state_t s;
    assert_int_equal(queue_cancel(qf.q, id, &s, NULL), ERR_OK);
    assert_int_equal(s, JOB_CANCELLED);
    qf_assert_job(id, "cancelled", 0);
    queue_claim_t c;
    assert_false(qf_claim("w1", &c));
    err_t err;
    assert_int_equal(queue_cancel(qf.q, id, &s, &err), ERR_CONFLICT);
    assert_string_equal(err.code, "job_finished");
    assert_int_equal(queue_cancel(qf.q, "00000000-0000-4000-8000-000000000000", &s, &err), ERR_NOT_FOUND);
}

static void test_cancel_active(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    queue_claim_t c;
    assert_true(qf_claim("w1", &c));
    assert_false(queue_is_cancelled(qf.q, id));
    job_state_t s;
    assert_int_equal(queue_cancel(qf.other, id, &s, NULL), ERR_OK); /* another process */
    assert_int_equal(s, JOB_ACTIVE);
    for (int i = 0; i < 100 && !queue_is_cancelled(qf.q, id); i++) {
        time_sleep_ms(10);
    }
    assert_true(queue_is_cancelled(qf.q, id));
    assert_int_equal(qf_complete(qf.q, "w1", &c), ERR_CANCELLED);
    err_t why = {.kind = ERR_CANCELLED, .code = "cancelled"};
    assert_int_equal(queue_fail(qf.q, "w1", &c, &why, NULL), ERR_OK);
    qf_assert_job(id, "cancelled", 1);
    assert_false(queue_is_cancelled(qf.q, id));
}

static void test_cancel_reaches_a_worker_that_missed_the_message(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    queue_claim_t c;
    assert_true(qf_claim("w1", &c));
    qf_mark_cancelled(&c);
    bool lost;
    const char *ids[] = {id};
    assert_int_equal(queue_renew(qf.q, "w1", "{}", ids, 1, &lost, NULL), ERR_OK);
    assert_true(queue_is_cancelled(qf.q, id));
}

static void test_cancel_delayed_and_lost(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    qf.q->backoff_ms = 60000;
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    queue_claim_t c;
    assert_true(qf_claim("w1", &c));
    err_t why = {.kind = ERR_IO, .code = "io"};
    assert_int_equal(queue_fail(qf.q, "w1", &c, &why, NULL), ERR_OK);
    job_state_t s;
    assert_int_equal(queue_cancel(qf.q, id, &s, NULL), ERR_OK);
    assert_int_equal(s, JOB_CANCELLED);

    qf_reset();
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    assert_true(qf_claim("w1", &c));
    assert_int_equal(queue_cancel(qf.other, id, &s, NULL), ERR_OK);
    qf_expire_leases(); /* the worker died before it could obey */
    qf_sweep(qf.q);
    qf_assert_job(id, "cancelled", 1);
}

static void test_retry(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    err_t err;
    assert_int_equal(queue_retry(qf.q, id, &err), ERR_CONFLICT);
    assert_string_equal(err.code, "job_not_retryable");
    queue_claim_t c;
    assert_true(qf_claim("w1", &c));
    err_t why = {.kind = ERR_INVALID, .code = "image_corrupt", .message = "Damaged."};
    assert_int_equal(queue_fail(qf.q, "w1", &c, &why, NULL), ERR_OK);
    int64_t seq = qf_sql_int("SELECT seq FROM jobs");
    assert_int_equal(queue_retry(qf.q, id, &err), ERR_OK);
    qf_assert_job(id, "queued", 0);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM jobs WHERE error_code IS NULL AND finished_at IS NULL"), 1);
    assert_true(qf_claim("w1", &c));
    assert_int_equal(c.attempt, 1);
    assert_true(c.seq > seq + 1);
    assert_int_equal(qf_complete(qf.q, "w1", &c), ERR_OK);
    assert_int_equal(queue_retry(qf.q, id, &err), ERR_CONFLICT);
}

/* ---- batches ---- */

static void test_batch(void **state) {
    (void)state;
    qf_reset();
    char batch[JOB_ID_LEN];
    qf_batch(1234, batch);
    int n = 0;
    assert_int_equal(queue_enqueue_batch(qf.q, batch, &n, NULL), ERR_OK);
    assert_int_equal(n, 1234);
    char key[160];
    (void)snprintf(key, sizeof key, "sg:q:nuclei:5:%s", qf.users[0]);
    assert_int_equal(qf_redis_int("LLEN", key), 1234);
    assert_int_equal(queue_enqueue_batch(qf.q, batch, &n, NULL), ERR_OK);
    assert_int_equal(n, 0);
    qf_sweep(qf.q);
    assert_int_equal(qf_redis_int("LLEN", key), 1234);
}

/* ---- figures ---- */

static void test_status(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    for (int i = 0; i < 3; i++) {
        qf_job(0, "nuclei", i == 0 ? 9 : 5, id);
        (void)qf_enqueue(id);
    }
    queue_claim_t c;
    assert_true(qf_claim("w1", &c));
    assert_int_equal(queue_renew(qf.q, "w1",
                                 "{\"host\":\"h\",\"device\":\"cpu\",\"models\":[\"nuclei\"],\"slots\":2,\"active\":1}",
                                 NULL, 0, NULL, NULL),
                     ERR_OK);
    queue_counts_t n;
    assert_int_equal(queue_counts(qf.q, &n, NULL), ERR_OK);
    assert_int_equal(n.waiting, 2);
    assert_int_equal(n.active, 1);
    char *json = NULL;
    assert_int_equal(queue_status_json(qf.q, &json, NULL), ERR_OK);
    assert_non_null(strstr(json, "\"waiting\":2"));
    assert_non_null(strstr(json, "\"byPriority\":{\"5\":2}"));
    assert_non_null(strstr(json, "\"id\":\"w1\""));
    assert_non_null(strstr(json, "\"breaker\":[{\"model\":\"nuclei\",\"state\":\"closed\","));
    free(json);
    queue_unregister(qf.q, "w1");
    assert_int_equal(qf_redis_int("HLEN", "sg:workers"), 0);
}

int main(void) {
    if (!private_pg_available() || !private_redis_available()) {
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greater_priority_goes_first),
        cmocka_unit_test(test_equal_priority_is_first_in_first_out),
        cmocka_unit_test(test_a_flood_of_one_user_does_not_starve_another),
        cmocka_unit_test(test_a_low_priority_job_does_not_starve),
        cmocka_unit_test(test_a_worker_gets_only_its_models),
        cmocka_unit_test(test_an_idle_worker_wakes_up_at_once),
        cmocka_unit_test(test_wake_tokens_are_bounded),
        cmocka_unit_test(test_complete),
        cmocka_unit_test(test_latest_job_follows),
        cmocka_unit_test(test_attempts_are_capped),
        cmocka_unit_test(test_a_permanent_error_is_not_tried_again),
        cmocka_unit_test(test_back_off_is_random_and_bounded),
        cmocka_unit_test(test_hand_back_does_not_count),
        cmocka_unit_test(test_cancel_queued),
        cmocka_unit_test(test_cancel_active),
        cmocka_unit_test(test_cancel_reaches_a_worker_that_missed_the_message),
        cmocka_unit_test(test_cancel_delayed_and_lost),
        cmocka_unit_test(test_retry),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_status),
    };
    return cmocka_run_group_tests(tests, qf_setup, qf_teardown);
}
