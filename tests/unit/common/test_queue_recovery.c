/*
 * The job queue after crashes and losses: stale workers, expired leases, a Redis that forgets or is away, dead
 * sweepers, and many workers that misbehave at once. Several queue_t stand for several processes.
 */
#include "tests/unit/support/cmocka_all.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue_fixture.h"

/* ---- stale workers and lost leases ---- */

static void test_a_stale_worker_changes_nothing(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    queue_claim_t old, now;
    assert_true(qf_claim("dead", &old));
    qf_expire_leases();
    qf_sweep(qf.q);
    qf_assert_waits_again(id, 1);
    qf_wait_claim("alive", &now);
    assert_string_equal(now.id, id);
    assert_int_equal(now.attempt, 2);
    assert_string_not_equal(now.token, old.token);
    assert_true(now.seq > old.seq);

    bool lost = false;
    const char *ids[] = {id};
    assert_int_equal(queue_renew(qf.q, "dead", "{}", ids, 1, &lost, NULL), ERR_OK);
    assert_true(lost);
    assert_int_equal(qf_complete(qf.q, "dead", &old), ERR_CONFLICT);
    err_t why = {.kind = ERR_INTERNAL, .code = "x"};
    assert_int_equal(queue_fail(qf.q, "dead", &old, &why, NULL), ERR_CONFLICT);
    assert_int_equal(queue_hand_back(qf.q, "dead", &old, NULL), ERR_CONFLICT);
    qf_assert_job(id, "active", 2);
    assert_int_equal(qf_redis_int("ZCARD", "sg:lease"), 1); /* the living worker's */

    assert_int_equal(qf_complete(qf.q, "alive", &now), ERR_OK);
    qf_assert_job(id, "completed", 2);
    assert_int_equal(qf_complete(qf.q, "dead", &old), ERR_CONFLICT);
}

static void test_a_heartbeat_keeps_the_lease(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    queue_claim_t c;
    assert_true(qf_claim("w1", &c));
    qf_expire_leases();
    bool lost = true;
    const char *ids[] = {id};
    assert_int_equal(queue_renew(qf.q, "w1", "{\"host\":\"h\"}", ids, 1, &lost, NULL), ERR_OK);
    assert_false(lost);
    qf_sweep(qf.q);
    qf_assert_job(id, "active", 1);
}

static void test_claims_are_read_without_the_lease_index(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    queue_claim_t c;
    assert_true(qf_claim("w1", &c));
    (void)qf_redis_int("DEL", "sg:lease");
    qf_sweep(qf.q);
    qf_assert_waits_again(id, 1);
    assert_int_equal(qf_redis_int("EXISTS", "sg:held"), 0);
}

static void test_a_claim_that_never_reached_the_row_counts_no_attempt(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    queue_claim_t c;
    assert_true(qf_claim("w1", &c));
    /* as if the worker had died between claim.lua and its UPDATE */
    qf_sql("UPDATE jobs SET state = 'queued', attempt = 0, token = NULL, worker_id = NULL");
    qf_expire_leases();
    qf_sweep(qf.q);
    qf_assert_job(id, "queued", 0);
    assert_true(qf_claim("w2", &c));
    assert_int_equal(c.attempt, 1);
}

static void test_a_sweeper_that_dies_loses_nothing(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    queue_claim_t c;
    assert_true(qf_claim("w1", &c));
    qf_expire_leases();
    qf_dead_sweeper("1");
    assert_int_equal(qf_redis_int("HLEN", "sg:held"), 1);
    time_sleep_ms(20);
    qf_sweep(qf.q);
    qf_assert_waits_again(id, 1);
    assert_int_equal(qf_redis_int("HLEN", "sg:held"), 0);
}

/* The promise is that a lost job is claimed again within its lease and 5 s, also when its sweeper is killed at work. */
static void test_a_sweeper_that_dies_delays_others_for_less_than_five_seconds(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN], lease[24], turn[24];
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    queue_claim_t c;
    assert_true(qf_claim("w1", &c));
    qf_expire_leases();
    /* with the settings of production: it began its turn, took the job over, and died */
    (void)snprintf(lease, sizeof lease, "%lld", (long long)qf.q->tune.sweeper_lease_ms);
    (void)snprintf(turn, sizeof turn, "%lld", (long long)qf.q->tune.turn_ms);
    const char *begin[] = {"SET", "sg:sweep", "sweeper-dead", "NX", "PX", turn};
    assert_int_equal(rds_run(qf.rds, 6, begin, NULL, NULL), ERR_OK);
    qf_dead_sweeper(lease);
    int64_t before = time_mono_ms();
    do {
        assert_in_range(time_mono_ms() - before, 0, 4500);
        time_sleep_ms(50);
        qf_sweep(qf.other);
    } while (qf_sql_int("SELECT count(*) FROM jobs WHERE state = 'active'") > 0);
    qf_assert_waits_again(id, 1);
}

static void test_a_crash_counts_as_an_attempt(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    for (int i = 1; i <= 3; i++) {
        queue_claim_t c;
        qf_wait_claim("w1", &c);
        qf_expire_leases();
        qf_sweep(qf.q);
        if (i < 3) {
            qf_assert_waits_again(id, i);
        } else {
            qf_assert_job(id, "failed", i);
        }
    }
    assert_int_equal(
        qf_sql_int("SELECT count(*) FROM jobs WHERE error_code = 'worker_lost' AND length(error_message) > 20"), 1);
}

/* ---- Redis forgets, or is away ---- */

static void test_a_flush_in_the_middle(void **state) {
    (void)state;
    qf_reset();
    char ids[20][JOB_ID_LEN];
    for (int i = 0; i < 20; i++) {
        qf_job(i % 2, "nuclei", 1 + i % 10, ids[i]);
        (void)qf_enqueue(ids[i]);
    }
    queue_claim_t running, dead;
    assert_true(qf_claim("w1", &running));
    assert_true(qf_claim("dead", &dead));
    qf_flush();
    qf_sql("UPDATE jobs SET started_at = started_at - interval '1 minute'"); /* past the grace for young claims */
    qf_sweep(qf.q);
    /* the worker that lives keeps its job, by its heartbeat */
    bool lost = true;
    const char *held[] = {running.id};
    assert_int_equal(queue_renew(qf.q, "w1", "{}", held, 1, &lost, NULL), ERR_OK);
    assert_false(lost);
    int done = 0;
    for (int round = 0; round < 200 && done < 19; round++) {
        queue_claim_t c;
        while (qf_claim("w2", &c)) {
            assert_string_not_equal(c.id, running.id);
            assert_int_equal(qf_complete(qf.q, "w2", &c), ERR_OK);
            done++;
        }
        if (round == 2) { /* nobody renews the dead worker's lease */
            assert_int_equal(qf_redis_int("ZCARD", "sg:lease"), 2);
            qf_expire_leases();
            assert_int_equal(queue_renew(qf.q, "w1", "{}", held, 1, &lost, NULL), ERR_OK);
        }
        qf_sweep(qf.q);
        time_sleep_ms(5);
    }
    assert_int_equal(done, 19);
    assert_int_equal(qf_complete(qf.q, "w1", &running), ERR_OK);
    assert_int_equal(qf_complete(qf.q, "dead", &dead), ERR_CONFLICT);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM jobs WHERE state = 'completed'"), 20);
}

static void test_a_lost_list_is_noticed(void **state) {
    (void)state;
    qf_reset();
    char ids[3][JOB_ID_LEN];
    for (int i = 0; i < 3; i++) {
        qf_job(0, "nuclei", 5, ids[i]);
        (void)qf_enqueue(ids[i]);
    }
    qf_sweep(qf.q); /* notes the epoch */
    char key[160];
    (void)snprintf(key, sizeof key, "sg:q:nuclei:5:%s", qf.users[0]);
    (void)qf_redis_int("DEL", key);
    qf_age_rows();
    qf.q->tune.audit_ms = 1;
    time_sleep_ms(5);
    (void)qf_redis_int("DEL", "sg:audit");
    qf_sweep(qf.q);
    for (int i = 0; i < 3; i++) {
        queue_claim_t c;
        assert_true(qf_claim("w1", &c));
        assert_string_equal(c.id, ids[i]);
    }
}

static void test_redis_away_at_enqueue(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    qf_job(0, "nuclei", 5, id);
    int position = 7;
    err_t err;
    assert_int_equal(queue_enqueue(qf.no_redis, id, "nuclei", 5, &position, &err), ERR_OK);
    assert_int_equal(position, -1);
    qf_assert_job(id, "queued", 0);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM jobs WHERE enqueued_at IS NULL"), 1);
    assert_int_equal(queue_sweep(qf.no_redis, &err), ERR_UNAVAILABLE);
    queue_claim_t c;
    assert_false(qf_claim("w1", &c));
    qf_sweep(qf.q); /* Redis is back */
    assert_true(qf_claim("w1", &c));
    assert_string_equal(c.id, id);
}

/* ---- clean-up ---- */

static void test_retention(void **state) {
    (void)state;
    qf_reset();
    char kept[JOB_ID_LEN], old[JOB_ID_LEN], result[JOB_ID_LEN];
    qf_job(0, "nuclei", 5, kept);
    qf_job(0, "nuclei", 5, old);
    qf_job(0, "nuclei", 5, result);
    qf_sql("UPDATE jobs SET state = 'failed', finished_at = now() - interval '8 days'");
    char sql[512];
    (void)snprintf(sql, sizeof sql,
                   "UPDATE images SET latest_job_id = '%s' WHERE id = (SELECT image_id FROM jobs WHERE id = "
                   "'%s')",
                   kept, kept);
    qf_sql(sql);
    (void)snprintf(
        sql, sizeof sql,
        "INSERT INTO segmentations (image_id, job_id, attempt, model, model_version, model_sha256, threshold, "
        "detect_holes, width, height, object_count) SELECT image_id, id, 1, 'nuclei', '1', 'x', 0.5, true, 1, 1, 0 "
        "FROM jobs WHERE id = '%s'",
        result);
    qf_sql(sql);
    qf_sql("INSERT INTO refresh_tokens (family_id, user_id, token_hash, expires_at) SELECT gen_random_uuid(), id, "
           "decode(md5(id::text), 'hex'), now() + interval '1 day' * (CASE WHEN random() < 2 THEN -1 END) FROM users");
    qf_sql(
        "INSERT INTO idempotency_keys (user_id, key, method_path, status, body, created_at) "
        "SELECT id, k, 'POST /', 202, '', now() - k::int * interval '13 hours' FROM users, (VALUES ('1'), ('2')) v(k)");
    qf_sweep(qf.q);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM jobs"), 2);
    (void)snprintf(sql, sizeof sql, "SELECT count(*) FROM jobs WHERE id = '%s'", old);
    assert_int_equal(qf_sql_int(sql), 0);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM refresh_tokens"), 0);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM idempotency_keys WHERE key = '2'"), 0);
    assert_true(qf_sql_int("SELECT count(*) FROM idempotency_keys WHERE key = '1'") > 0);
}

/* Only what the present claim of an active job wrote stays. */
static void test_previews_of_ended_claims_go(void **state) {
    (void)state;
    qf_reset();
    char waiting[JOB_ID_LEN], running[JOB_ID_LEN];
    queue_claim_t c;
    qf_job(0, "nuclei", 5, running);
    (void)qf_enqueue(running);
    assert_true(qf_claim("w1", &c));
    qf_job(0, "nuclei", 5, waiting);
    qf_sql("INSERT INTO previews (job_id, claim, part, objects, data) "
           "SELECT id, COALESCE(left(token, 16), 'x'), 1, 1, 'x' FROM jobs");
    qf_sql("INSERT INTO previews (job_id, claim, part, objects, data) SELECT id, 'earlier', 1, 1, 'x' FROM jobs");
    qf_sweep(qf.q);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM previews"), 1);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM previews p JOIN jobs j ON j.id = p.job_id AND "
                                "left(j.token, 16) = p.claim WHERE j.state = 'active'"),
                     1);
}

/* ---- many at once ---- */

enum { STRESS_JOBS = 300, STRESS_THREADS = 4 };
static _Atomic int stress_done;

static void *stress_worker(void *arg) {
    const char *name = arg;
    queue_t *q = name[0] == 'a' ? qf.q : qf.other;
    unsigned dice = (unsigned)name[1];
    static const char *const models[] = {"nuclei", "spheroid"};
    while (stress_done < STRESS_JOBS) {
        queue_claim_t c;
        if (!qf_claim_of(q, name, models, 2, 50, &c)) {
            continue;
        }
        dice = dice * 1103515245U + 12345U;
        err_t why = {.kind = ERR_IO, .code = "io"};
        queue_publish_progress(q, &c, "infer", 0.5);
        switch (dice >> 28) {
        case 0:
            (void)!queue_hand_back(q, name, &c, NULL);
            break;
        case 1: /* dies */
            break;
        case 2:
            if (c.attempt < 3) {
                (void)!queue_fail(q, name, &c, &why, NULL);
                break;
            }
            /* fall through */
        default:
            if (qf_complete(q, name, &c) == ERR_OK) {
                stress_done++;
            }
        }
    }
    return NULL;
}

static void *stress_sweeper(void *arg) {
    queue_t *q = arg;
    while (stress_done < STRESS_JOBS) {
        err_t err;
        (void)!queue_sweep(q, &err);
        time_sleep_ms(10);
    }
    return NULL;
}

static void test_many_workers_and_two_sweepers(void **state) {
    (void)state;
    qf_reset();
    qf.q->lease_ms = qf.other->lease_ms = 700;
    qf.q->tune.restore_grace_ms = qf.other->tune.restore_grace_ms = 100;
    qf_sql("ALTER TABLE jobs ALTER max_attempts SET DEFAULT 20");
    char id[JOB_ID_LEN];
    stress_done = 0;
    static char names[STRESS_THREADS][3] = {"a1", "a2", "b3", "b4"};
    pthread_t workers[STRESS_THREADS], sweepers[2];
    for (int i = 0; i < STRESS_THREADS; i++) {
        assert_int_equal(pthread_create(&workers[i], NULL, stress_worker, names[i]), 0);
    }
    assert_int_equal(pthread_create(&sweepers[0], NULL, stress_sweeper, qf.q), 0);
    assert_int_equal(pthread_create(&sweepers[1], NULL, stress_sweeper, qf.other), 0);
    for (int i = 0; i < STRESS_JOBS; i++) {
        qf_job(i % 3, i % 5 ? "nuclei" : "spheroid", 1 + i % 10, id);
        (void)qf_enqueue(id);
        if (i == STRESS_JOBS / 2) {
            qf_flush();
        }
    }
    for (int i = 0; i < STRESS_THREADS; i++) {
        (void)pthread_join(workers[i], NULL);
    }
    (void)pthread_join(sweepers[0], NULL);
    (void)pthread_join(sweepers[1], NULL);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM jobs WHERE state = 'completed'"), STRESS_JOBS);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM completions"), STRESS_JOBS);
    qf_sql("ALTER TABLE jobs ALTER max_attempts SET DEFAULT 3");
}

int main(void) {
    if (!private_pg_available() || !private_redis_available()) {
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stale_worker_changes_nothing),
        cmocka_unit_test(test_a_heartbeat_keeps_the_lease),
        cmocka_unit_test(test_claims_are_read_without_the_lease_index),
        cmocka_unit_test(test_a_claim_that_never_reached_the_row_counts_no_attempt),
        cmocka_unit_test(test_a_sweeper_that_dies_loses_nothing),
        cmocka_unit_test(test_a_sweeper_that_dies_delays_others_for_less_than_five_seconds),
        cmocka_unit_test(test_a_crash_counts_as_an_attempt),
        cmocka_unit_test(test_a_flush_in_the_middle),
        cmocka_unit_test(test_a_lost_list_is_noticed),
        cmocka_unit_test(test_redis_away_at_enqueue),
        cmocka_unit_test(test_retention),
        cmocka_unit_test(test_previews_of_ended_claims_go),
        cmocka_unit_test(test_many_workers_and_two_sweepers),
    };
    return cmocka_run_group_tests(tests, qf_setup, qf_teardown);
}
