/*
 * The queue's work on whole models and on many jobs: pause and resume, cancel and retry all, claim several at once.
 */
#include "tests/unit/support/cmocka_all.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue_fixture.h"

/* ---- pausing a model ---- */

static void add_models(void) {
    qf_sql("INSERT INTO models (name, version, title, description, sha256, manifest) VALUES "
           "('nuclei', '1', 't', 'd', 's', '{}'), ('spheroid', '1', 't', 'd', 's', '{}')");
}

static void test_nobody_claims_from_a_paused_model(void **state) {
    (void)state;
    qf_reset();
    add_models();
    char a[JOB_ID_LEN], b[JOB_ID_LEN];
    qf_job(0, "nuclei", 10, a);
    qf_job(0, "spheroid", 1, b);
    (void)qf_enqueue(a);
    (void)qf_enqueue(b);
    assert_int_equal(queue_pause_model(qf.other, "nuclei", true, NULL), ERR_OK);
    const char *both[] = {"nuclei", "spheroid"};
    queue_claim_t c;
    assert_true(qf_claim_of(qf.q, "w1", both, 2, 0, &c));
    assert_string_equal(c.id, b);
    assert_false(qf_claim_of(qf.q, "w1", both, 2, 0, &c));
    assert_int_equal(queue_position(qf.q, a, "nuclei", 10), 0); /* it keeps its place */
    char *json = NULL;
    assert_int_equal(queue_status_json(qf.q, &json, NULL), ERR_OK);
    assert_non_null(strstr(json, "\"model\":\"nuclei\",\"waiting\":1,\"active\":0,\"delayed\":0,\"paused\":true"));
    assert_non_null(strstr(json, "\"model\":\"spheroid\",\"waiting\":0,\"active\":1,\"delayed\":0,\"paused\":false"));
    free(json);
    assert_int_equal(queue_pause_model(qf.other, "nuclei", false, NULL), ERR_OK);
    assert_true(qf_claim_of(qf.q, "w1", both, 2, 0, &c));
    assert_string_equal(c.id, a);
    assert_int_equal(queue_pause_model(qf.q, "nothing", true, NULL), ERR_NOT_FOUND);
}

static void *resume_later(void *arg) {
    (void)arg;
    time_sleep_ms(300);
    assert_int_equal(queue_pause_model(qf.other, "nuclei", false, NULL), ERR_OK);
    return NULL;
}

static void test_resuming_wakes_the_workers(void **state) {
    (void)state;
    qf_reset();
    add_models();
    char id[JOB_ID_LEN];
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    assert_int_equal(queue_pause_model(qf.q, "nuclei", true, NULL), ERR_OK);
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, resume_later, NULL), 0);
    const char *models[] = {"nuclei"};
    int64_t before = time_mono_ms();
    queue_claim_t c;
    assert_true(qf_claim_of(qf.q, "w1", models, 1, 5000, &c));
    assert_in_range(time_mono_ms() - before, 250, 1500);
    assert_int_equal(pthread_join(t, NULL), 0);
}

static void test_a_redis_that_forgets_is_told_what_is_paused(void **state) {
    (void)state;
    qf_reset();
    add_models();
    char id[JOB_ID_LEN];
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    assert_int_equal(queue_pause_model(qf.no_redis, "nuclei", true, NULL), ERR_OK); /* kept, though Redis is away */
    qf_flush();
    qf_sweep(qf.q);
    queue_claim_t c;
    assert_int_equal(qf_sql_int("SELECT count(*) FROM jobs WHERE state = 'queued'"), 1);
    assert_false(qf_claim("w1", &c));
    qf_sql("UPDATE models SET paused = false");
    qf_sweep(qf.q);
    assert_true(qf_claim("w1", &c));
}

/* ---- cancel and retry many ---- */

static void test_cancel_and_retry_many(void **state) {
    (void)state;
    qf_reset();
    char batch[JOB_ID_LEN], other[JOB_ID_LEN], delayed[JOB_ID_LEN];
    qf_batch(1234, batch);
    int n = 0;
    assert_int_equal(queue_enqueue_batch(qf.q, batch, &n, NULL), ERR_OK);
    qf_job(1, "nuclei", 5, other); /* another project */
    (void)qf_enqueue(other);
    queue_claim_t active, c;
    assert_true(qf_claim("w1", &active)); /* the flood's owner is first in the ring */
    assert_string_equal(active.project_id, qf.users[0]);
    qf_job(0, "nuclei", 10, delayed);
    (void)qf_enqueue(delayed);
    assert_true(qf_claim("w1", &c));
    assert_string_equal(c.id, delayed);
    qf.q->backoff_ms = 600000;
    err_t why = {.kind = ERR_IO, .code = "io"};
    assert_int_equal(queue_fail(qf.q, "w1", &c, &why, NULL), ERR_OK);

    assert_int_equal(queue_cancel_many(qf.other, QUEUE_OF_PROJECT, qf.users[0], &n, NULL), ERR_OK);
    assert_int_equal(n, 1235);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM jobs WHERE state = 'cancelled'"), 1234);
    qf_assert_job(active.id, "active", 1);
    for (int i = 0; i < 100 && !queue_is_cancelled(qf.q, active.id); i++) {
        time_sleep_ms(10);
    }
    assert_true(queue_is_cancelled(qf.q, active.id));
    char key[160];
    (void)snprintf(key, sizeof key, "sg:q:nuclei:5:%s", qf.users[0]);
    assert_int_equal(qf_redis_int("EXISTS", key), 0);
    assert_int_equal(queue_position(qf.q, other, "nuclei", 5), 0);
    assert_int_equal(queue_cancel_many(qf.other, QUEUE_OF_PROJECT, qf.users[0], &n, NULL), ERR_OK);
    assert_int_equal(n, 0); /* the running one was asked already */

    qf_sql("UPDATE jobs SET state = 'failed', error_code = 'x' WHERE state = 'cancelled'");
    qf_sql("UPDATE images i SET latest_job_id = j.id FROM jobs j WHERE j.image_id = i.id");
    qf_job(0, "nuclei", 5, delayed);
    qf_sql("UPDATE jobs SET image_id = (SELECT image_id FROM jobs WHERE state = 'failed' LIMIT 1) WHERE seq = 1 AND "
           "enqueued_at IS NULL AND state = 'queued'"); /* an image that was triggered again this moment */
    assert_int_equal(queue_retry_failed(qf.q, qf.users[0], &n, NULL), ERR_OK);
    assert_int_equal(n, 1233);
    assert_in_range(qf_redis_int("LLEN", key), 1232, 1233); /* one had another priority */
    assert_int_equal(qf_sql_int("SELECT count(*) FROM jobs WHERE state = 'failed'"), 1);
    assert_int_equal(queue_cancel_many(qf.no_redis, QUEUE_OF_PROJECT, qf.users[0], &n, NULL), ERR_OK);
    assert_int_equal(n, 1234);
    assert_true(qf_claim("w1", &c)); /* what Redis still holds is dropped when it is claimed */
    assert_string_equal(c.id, other);
}

static void test_cancel_the_jobs_of_an_image(void **state) {
    (void)state;
    qf_reset();
    char a[JOB_ID_LEN], b[JOB_ID_LEN];
    qf_job(0, "nuclei", 5, a);
    qf_job(0, "nuclei", 5, b);
    (void)qf_enqueue(a);
    (void)qf_enqueue(b);
    PGresult *res = NULL;
    assert_int_equal(
        pg_query(qf.pg, "SELECT image_id FROM jobs WHERE id = $1", 1, (const char *const[]){a}, &res, NULL), ERR_OK);
    int n = 0;
    assert_int_equal(queue_cancel_many(qf.q, QUEUE_OF_IMAGE, pg_get(res, 0, "image_id"), &n, NULL), ERR_OK);
    PQclear(res);
    assert_int_equal(n, 1);
    qf_assert_job(a, "cancelled", 0);
    qf_assert_job(b, "queued", 0);
}

/* ---- several at once ---- */

static void test_claim_many_follows_the_order_of_single_claims(void **state) {
    (void)state;
    qf_reset();
    char ids[6][JOB_ID_LEN], gone[JOB_ID_LEN];
    const int users[6] = {0, 0, 0, 1, 1, 2}, priorities[6] = {5, 5, 5, 5, 5, 9};
    for (int i = 0; i < 6; i++) {
        qf_job(users[i], "nuclei", priorities[i], ids[i]);
        (void)qf_enqueue(ids[i]);
    }
    qf_job(2, "nuclei", 10, gone);
    (void)qf_enqueue(gone);
    char sql[120];
    (void)snprintf(sql, sizeof sql, "DELETE FROM jobs WHERE id = '%s'", gone); /* Redis does not know */
    qf_sql(sql);
    const char *models[] = {"nuclei"};
    queue_claim_t c[8];
    int n = 0;
    assert_int_equal(queue_claim_many(qf.q, "w1", models, 1, 5, 0, c, &n, NULL), ERR_OK);
    assert_int_equal(n, 4); /* the fifth was the deleted one */
    const int order[4] = {5, 0, 3, 1};
    for (int i = 0; i < n; i++) {
        assert_string_equal(c[i].id, ids[order[i]]);
        assert_int_equal(strlen(c[i].token), 64);
        qf_assert_job(c[i].id, "active", 1);
    }
    assert_string_not_equal(c[0].token, c[1].token);
    assert_int_equal(qf_redis_int("ZCARD", "sg:lease"), 4);
    const int counts[4] = {1, 2, 3, 4};
    for (int i = 0; i < n; i++) {
        const char *params[] = {c[i].id};
        assert_int_equal(pg_query(qf.pg, "UPDATE jobs SET state = 'completed' WHERE id = $1", 1, params, NULL, NULL),
                         ERR_OK);
    }
    queue_complete_done_many(qf.q, "w1", c, counts, n);
    assert_int_equal(qf_redis_int("ZCARD", "sg:lease"), 0);
    assert_int_equal(qf_redis_int("EXISTS", "sg:held"), 0);
    assert_int_equal(queue_claim_many(qf.q, "w1", models, 1, 8, 0, c, &n, NULL), ERR_OK);
    assert_int_equal(n, 2);
    assert_int_equal(queue_claim_many(qf.q, "w1", models, 1, 8, 0, c, &n, NULL), ERR_OK);
    assert_int_equal(n, 0);
    assert_int_equal(queue_claim_many(qf.q, "w1", models, 1, 65, 0, c, &n, NULL), ERR_INVALID);
}

static void test_claims_go_back_in_order_when_the_database_is_away(void **state) {
    (void)state;
    qf_reset();
    char ids[4][JOB_ID_LEN];
    for (int i = 0; i < 4; i++) {
        qf_job(0, "nuclei", 5, ids[i]);
        (void)qf_enqueue(ids[i]);
    }
    const char *models[] = {"nuclei"};
    queue_claim_t c[4];
    int n = 0;
    qf_sql("ALTER TABLE jobs RENAME COLUMN stage TO stage_away");
    assert_int_not_equal(queue_claim_many(qf.q, "w1", models, 1, 3, 0, c, &n, NULL), ERR_OK);
    qf_sql("ALTER TABLE jobs RENAME COLUMN stage_away TO stage");
    assert_int_equal(n, 0);
    assert_int_equal(qf_redis_int("ZCARD", "sg:lease"), 0);
    assert_int_equal(queue_claim_many(qf.q, "w1", models, 1, 4, 0, c, &n, NULL), ERR_OK);
    assert_int_equal(n, 4);
    for (int i = 0; i < 4; i++) {
        assert_string_equal(c[i].id, ids[i]);
    }
}

/* ---- estimates ---- */

static void test_estimates_follow_what_was_measured(void **state) {
    (void)state;
    qf_reset();
    qf.q->paces.valid_until_ms = 0;
    assert_true(isnan(queue_eta_waiting(qf.q, "nuclei", 0)));
    for (int i = 0; i < 40; i++) {
        queue_note_seconds(qf.q, "nuclei", i < 10 ? 100 : 4); /* it became faster */
    }
    qf.q->paces.valid_until_ms = 0;
    assert_true(isnan(queue_eta_waiting(qf.q, "nuclei", 0))); /* no worker */
    double mean = queue_eta_active(qf.q, "nuclei", 0);
    assert_true(mean > 4 && mean < 12);
    assert_float_equal(queue_eta_active(qf.q, "nuclei", 0.75), mean / 4, 1e-6);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(queue_renew(qf.q, i ? "w1" : "w2",
                                     "{\"models\":[\"nuclei\",\"spheroid\"],\"slots\":2,\"active\":1}", NULL, 0, NULL,
                                     NULL),
                         ERR_OK);
    }
    qf.q->paces.valid_until_ms = 0;
    assert_float_equal(queue_eta_waiting(qf.q, "nuclei", 0), mean * 1.25, 1e-6);
    assert_float_equal(queue_eta_waiting(qf.q, "nuclei", 7), mean * 3, 1e-6);
    assert_true(isnan(queue_eta_waiting(qf.q, "spheroid", 0))); /* not measured */
    assert_true(isnan(queue_eta_waiting(qf.q, "nuclei", -1)));  /* its place is not known */
    add_models();
    assert_int_equal(queue_pause_model(qf.q, "nuclei", true, NULL), ERR_OK);
    qf.q->paces.valid_until_ms = 0;
    assert_true(isnan(queue_eta_waiting(qf.q, "nuclei", 0)));
}

/* ---- least rights ---- */

/* The other tests show that the user may do what the queue needs; this one, that it may do no more. */
static void test_the_daemons_user_may_do_no_more_than_it_needs(void **state) {
    (void)state;
    static const char *const forbidden[][4] = {
        {"FLUSHALL"},
        {"CONFIG", "GET", "*"},
        {"KEYS", "*"},
        {"SHUTDOWN", "NOSAVE"},
        {"GET", "sg:epoch"},
        {"HSET", "x", "y", "z"},
        {"PUBLISH", "other", "x"},
        {"ACL", "LIST"},
        {"SET", "other", "x"},
        {"MONITOR"},
    };
    for (size_t i = 0; i < sizeof forbidden / sizeof forbidden[0]; i++) {
        int argc = 0;
        while (argc < 4 && forbidden[i][argc]) {
            argc++;
        }
        err_t err = {0};
        assert_int_not_equal(rds_run(qf.rds_daemon, argc, forbidden[i], NULL, &err), ERR_OK);
        if (!strstr(err.detail, "NOPERM")) {
            fail_msg("%s: %s", forbidden[i][0], err.detail);
        }
    }
}

int main(void) {
    if (!private_pg_available() || !private_redis_available()) {
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_claims_from_a_paused_model),
        cmocka_unit_test(test_resuming_wakes_the_workers),
        cmocka_unit_test(test_a_redis_that_forgets_is_told_what_is_paused),
        cmocka_unit_test(test_cancel_and_retry_many),
        cmocka_unit_test(test_cancel_the_jobs_of_an_image),
        cmocka_unit_test(test_claim_many_follows_the_order_of_single_claims),
        cmocka_unit_test(test_claims_go_back_in_order_when_the_database_is_away),
        cmocka_unit_test(test_estimates_follow_what_was_measured),
        cmocka_unit_test(test_the_daemons_user_may_do_no_more_than_it_needs),
    };
    return cmocka_run_group_tests(tests, qf_setup, qf_teardown);
}
