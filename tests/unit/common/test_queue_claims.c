/*
 * Claims by name: what is said late to one claim of a job does not befall the next. Turns: the end of a job and the
 * next one together, several threads together, several failures together. And that waiting workers are woken when
 * something becomes possible, not a poll later.
 */
#include "tests/unit/support/cmocka_all.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/queue_finish.h"
#include "queue_fixture.h"

static const char *const NUCLEI[] = {"nuclei"};

static void add_job(char *id) {
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
}

/* A job that "w1" claimed, failed and claimed again. */
static void claim_twice(queue_claim_t *first, queue_claim_t *second) {
    char id[JOB_ID_LEN];
    add_job(id);
    assert_true(qf_claim("w1", first));
    queue_claim_t ended = *first;
    err_t why = {.kind = ERR_IO, .code = "io"};
    assert_int_equal(queue_fail(qf.q, "w1", &ended, &why, NULL), ERR_OK);
    qf_wait_claim("w1", second);
    assert_string_equal(second->id, first->id);
}

/* ---- one claim is not the next ---- */

static int lose(const queue_claim_t *c) {
    char tag[QUEUE_TAG_SIZE];
    (void)snprintf(tag, sizeof tag, "%.16s", c->token);
    const queue_lost_t lost = {c->id, "w1", tag};
    pg_conn_t *conn = NULL;
    PGresult *rows = NULL;
    assert_int_equal(pg_acquire(qf.pg, &conn, NULL), ERR_OK);
    assert_int_equal(queue_lose_claims(qf.q, conn, &lost, 1, &rows, NULL), ERR_OK);
    int n = PQntuples(rows);
    PQclear(rows);
    pg_release(conn);
    return n;
}

static void test_late_recovery_spares_a_younger_claim_of_the_same_worker(void **state) {
    (void)state;
    qf_reset();
    queue_claim_t first, second;
    claim_twice(&first, &second);
    assert_int_equal(lose(&first), 0);
    qf_assert_job(second.id, "active", 2);
    const queue_lost_t unknown = {second.id, "w1", ""};
    pg_conn_t *conn = NULL;
    PGresult *rows = NULL;
    assert_int_equal(pg_acquire(qf.pg, &conn, NULL), ERR_OK);
    assert_int_equal(queue_lose_claims(qf.q, conn, &unknown, 1, &rows, NULL), ERR_OK);
    assert_int_equal(PQntuples(rows), 0); /* a claim without a name is nobody's */
    PQclear(rows);
    pg_release(conn);
    assert_int_equal(lose(&second), 1);
    qf_assert_waits_again(second.id, 2);
}

static void test_a_late_end_spares_a_younger_claim_of_the_same_worker(void **state) {
    (void)state;
    qf_reset();
    queue_claim_t first, second;
    claim_twice(&first, &second);
    queue_complete_done(qf.q, "w1", &first, 1);
    assert_int_equal(qf_redis_int("ZCARD", "sg:lease"), 1);
    assert_int_equal(qf_redis_int("HLEN", "sg:held"), 1);
    bool lost[2] = {false, true};
    const char *ids[] = {first.id, second.id}, *tokens[] = {first.token, second.token};
    assert_int_equal(queue_renew_claims(qf.q, "w1", "{}", ids, tokens, 2, lost, NULL), ERR_OK);
    assert_false(lost[1]);
    assert_int_equal(qf_complete(qf.q, "w1", &second), ERR_OK);
    assert_int_equal(qf_redis_int("EXISTS", "sg:held"), 0);
}

static void tell_to_cancel(const queue_claim_t *c) {
    char tag[QUEUE_TAG_SIZE];
    (void)snprintf(tag, sizeof tag, "%.16s", c->token);
    const char *argv[] = {c->id, tag};
    redisReply *r = NULL;
    for (int i = 0; i < 200; i++) { /* until the subscription is there */
        assert_int_equal(queue_eval(qf.q, &qf.q->lua.cancel, 0, 2, argv, &r, NULL), ERR_OK);
        bool heard = r->integer > 0;
        freeReplyObject(r);
        if (heard) {
            return;
        }
        time_sleep_ms(10);
    }
    fail_msg("nobody listens");
}

static void test_a_late_cancellation_does_not_stop_what_was_started_again(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    add_job(id);
    queue_claim_t first, second;
    assert_true(qf_claim("w1", &first));
    queue_claim_t ended = first;
    err_t why = {.kind = ERR_CANCELLED, .code = "cancelled"};
    assert_int_equal(queue_fail(qf.q, "w1", &ended, &why, NULL), ERR_OK);
    assert_int_equal(queue_retry(qf.q, id, NULL), ERR_OK);
    assert_true(qf_claim("w1", &second));
    assert_int_equal(second.attempt, first.attempt); /* a retry counts anew: the attempt does not tell them apart */

    tell_to_cancel(&first);
    time_sleep_ms(100);
    bool lost = true;
    const char *ids[] = {id};
    assert_int_equal(queue_renew(qf.q, "w1", "{}", ids, 1, &lost, NULL), ERR_OK);
    assert_false(lost);
    assert_false(queue_claim_is_cancelled(qf.q, &second));
    assert_false(queue_is_cancelled(qf.q, id));

    tell_to_cancel(&second);
    for (int i = 0; i < 200 && !queue_claim_is_cancelled(qf.q, &second); i++) {
        time_sleep_ms(10);
    }
    assert_true(queue_claim_is_cancelled(qf.q, &second));
}

/* ---- parts of Redis's memory ---- */

static void test_a_claim_that_redis_forgot_is_made_again_and_not_by_its_worker(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    add_job(id);
    queue_claim_t c;
    assert_true(qf_claim("w1", &c));
    assert_int_equal(qf_redis_int("DEL", "sg:held"), 1); /* its lease stays */
    bool lost = true;
    const char *ids[] = {id};
    assert_int_equal(queue_renew(qf.q, "w1", "{}", ids, 1, &lost, NULL), ERR_OK);
    assert_false(lost); /* it goes on */
    assert_int_equal(qf_redis_int("EXISTS", "sg:held"), 0);
    qf_age_rows();
    qf_sweep(qf.q);
    assert_int_equal(qf_redis_int("HLEN", "sg:held"), 1);
    qf_assert_job(id, "active", 1);
    qf_expire_leases();
    assert_int_equal(queue_renew(qf.q, "w1", "{}", ids, 1, &lost, NULL), ERR_OK);
    assert_false(lost);
    qf_sweep(qf.q);
    assert_int_equal(qf_complete(qf.q, "w1", &c), ERR_OK);
}

static void test_a_lost_place_in_line_is_found(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    add_job(id);
    qf_sweep(qf.q); /* notes the epoch */
    assert_int_equal(qf_redis_int("DEL", "sg:turns:nuclei"), 1);
    queue_claim_t c;
    assert_false(qf_claim("w1", &c));
    (void)qf_redis_int("DEL", "sg:audit");
    qf_sweep(qf.q);
    assert_true(qf_claim("w1", &c));
}

static void test_an_end_that_nobody_told_is_told_by_recovery(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN], channel[80];
    add_job(id);
    queue_claim_t c;
    assert_true(qf_claim("w1", &c));
    qf_sql("UPDATE jobs SET state = 'completed', token = NULL, object_count = 7, finished_at = now(), seq = seq + 1");
    rds_conn_t *listener = NULL; /* the worker died right after its commit */
    (void)snprintf(channel, sizeof channel, "sg:events:%s", qf.users[0]);
    const char *subscribe[] = {"SUBSCRIBE", channel};
    assert_int_equal(rds_connect(qf.rds, 3000, &listener, NULL), ERR_OK);
    assert_int_equal(rds_command(listener, 2, subscribe, NULL, NULL, NULL), ERR_OK);
    qf_expire_leases();
    qf_sweep(qf.q);
    void *reply = NULL;
    assert_int_equal(redisGetReply(rds_raw(listener), &reply), REDIS_OK);
    const redisReply *r = reply;
    assert_non_null(strstr(r->element[2]->str, "\"state\":\"completed\""));
    assert_non_null(strstr(r->element[2]->str, "\"objectCount\":7"));
    freeReplyObject(reply);
    rds_fail(listener);
    rds_release(listener);
    assert_int_equal(qf_redis_int("EXISTS", "sg:held"), 0);
}

/* ---- many ends ---- */

static void test_failures_and_hand_backs_go_together(void **state) {
    (void)state;
    qf_reset();
    char ids[6][JOB_ID_LEN];
    queue_claim_t c[6];
    int n = 0;
    for (int i = 0; i < 6; i++) {
        add_job(ids[i]);
    }
    assert_int_equal(queue_claim_many(qf.q, "w1", NUCLEI, 1, 6, 0, c, &n, NULL), ERR_OK);
    assert_int_equal(n, 6);
    const err_t broken = {.kind = ERR_INVALID, .code = "image_corrupt", .message = "It says \"no\"."};
    const err_t away = {.kind = ERR_UNAVAILABLE, .code = "device_busy", .message = "Busy."};
    queue_claim_t stale = c[2];
    memset(stale.token, '0', 64);
    queue_claim_t *bad[] = {&c[0], &c[1], &stale};
    const err_t *const whys[] = {&broken, &away, &away};
    err_kind_t results[3];
    qf.q->backoff_ms = 600000;
    assert_int_equal(queue_fail_many(qf.q, "w1", bad, whys, 3, results, NULL), ERR_OK);
    assert_int_equal(results[0], ERR_OK);
    assert_int_equal(results[1], ERR_OK);
    assert_int_equal(results[2], ERR_CONFLICT);
    qf_assert_job(ids[0], "failed", 1);
    qf_assert_job(ids[1], "delayed", 1);
    qf_assert_job(ids[2], "active", 1);
    assert_int_equal(
        qf_sql_int("SELECT count(*) FROM jobs WHERE state = 'failed' AND error_message = 'It says \"no\".'"), 1);
    assert_int_equal(qf_redis_int("HLEN", "sg:held"), 4);

    job_state_t s;
    assert_int_equal(queue_cancel(qf.q, ids[4], &s, NULL), ERR_OK);
    queue_claim_t *back[] = {&c[2], &c[3], &c[4], &c[5]};
    err_kind_t back_results[4];
    assert_int_equal(queue_hand_back_many(qf.q, "w1", back, 4, back_results, NULL), ERR_OK);
    assert_int_equal(qf_redis_int("EXISTS", "sg:held"), 0);
    qf_assert_job(ids[4], "cancelled", 0);
    const int order[] = {2, 3, 5};
    for (int i = 0; i < 3; i++) {
        queue_claim_t again;
        assert_true(qf_claim("w2", &again));
        assert_string_equal(again.id, ids[order[i]]);
        assert_int_equal(again.attempt, 1);
    }
}

/* ---- turns ---- */

static void test_a_turn_ends_and_claims(void **state) {
    (void)state;
    qf_reset();
    char ids[2][JOB_ID_LEN];
    add_job(ids[0]);
    add_job(ids[1]);
    queue_claim_t c, next;
    assert_true(qf_claim("w1", &c));
    qf_sql("UPDATE jobs SET state = 'completed', token = NULL, finished_at = now() WHERE state = 'active'");
    const int objects = 1;
    int n = 0;
    assert_int_equal(queue_turn(qf.q, "w1", &c, &objects, 1, NUCLEI, 1, 1, 0, &next, &n, NULL), ERR_OK);
    assert_int_equal(n, 1);
    assert_string_equal(next.id, ids[1]);
    assert_int_equal(qf_redis_int("HLEN", "sg:held"), 1);
    qf_sql("UPDATE jobs SET state = 'completed', token = NULL, finished_at = now() WHERE state = 'active'");
    assert_int_equal(queue_turn(qf.q, "w1", &next, &objects, 1, NUCLEI, 1, 1, 0, &c, &n, NULL), ERR_OK);
    assert_int_equal(n, 0);
    assert_int_equal(qf_redis_int("EXISTS", "sg:held"), 0);
    assert_int_equal(qf_redis_int("EXISTS", "sg:lease"), 0);
}

enum { SLOTS = 8, SLOT_JOBS = 400 };
static _Atomic int slots_done;

static void *slot(void *arg) {
    const char *worker = arg;
    queue_claim_t c, done;
    const int objects = 3;
    int held = 0;
    do {
        int n = 0;
        err_t err = {0};
        if (queue_turn(qf.q, worker, &done, &objects, held, NUCLEI, 1, 1, 0, &c, &n, &err) != ERR_OK) {
            break;
        }
        slots_done += held;
        held = n;
        done = c;
        pg_conn_t *conn = NULL;
        const char *params[] = {c.id};
        if (n == 1 && (pg_acquire(qf.pg, &conn, &err) != ERR_OK || pg_begin(conn, &err) != ERR_OK ||
                       queue_complete_in_tx(qf.q, conn, &done, 3, "{}", &err) != ERR_OK ||
                       pg_exec(conn, "INSERT INTO completions VALUES ($1)", 1, params, NULL, &err) != ERR_OK ||
                       pg_commit(conn, &err) != ERR_OK)) {
            held = 0;
        }
        pg_release(conn);
    } while (held > 0);
    return NULL;
}

static void test_slots_that_ask_together_get_different_jobs(void **state) {
    (void)state;
    qf_reset();
    char batch[JOB_ID_LEN];
    int n = 0;
    qf_batch(SLOT_JOBS, batch);
    assert_int_equal(queue_enqueue_batch(qf.q, batch, &n, NULL), ERR_OK);
    pthread_t t[SLOTS];
    slots_done = 0;
    for (int i = 0; i < SLOTS; i++) { /* two workers of one process: neither waits for the other's turns */
        assert_int_equal(pthread_create(&t[i], NULL, slot, i % 4 == 0 ? "w2" : "w1"), 0);
    }
    for (int i = 0; i < SLOTS; i++) {
        assert_int_equal(pthread_join(t[i], NULL), 0);
    }
    assert_int_equal(slots_done, SLOT_JOBS);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM completions"), SLOT_JOBS);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM jobs WHERE state = 'completed' AND attempt = 1"), SLOT_JOBS);
    assert_int_equal(qf_redis_int("EXISTS", "sg:held"), 0);
    assert_null(qf.q->turns);
    assert_null(qf.q->parties);
}

/* ---- waking up ---- */

static void open_breaker(int64_t open_ms) {
    qf.q->breaker = qf.other->breaker =
        (breaker_settings_t){.enabled = true, .threshold = 50, .min_calls = 1, .window_ms = 60000, .open_ms = open_ms};
    queue_claim_t c;
    assert_true(qf_claim("w1", &c));
    queue_report_run(qf.q, &c, false);
    assert_int_equal(queue_hand_back(qf.q, "w1", &c, NULL), ERR_OK);
}

static void test_a_breaker_that_is_half_open_by_the_clock_wakes_a_worker(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    add_job(id);
    open_breaker(300);
    queue_claim_t c;
    int64_t before = time_mono_ms();
    assert_true(qf_claim_of(qf.other, "w2", NUCLEI, 1, 10000, &c));
    assert_in_range(time_mono_ms() - before, 200, 1000); /* an idle worker's own look comes after 2 s */
}

static void *hand_back_later(void *arg) {
    time_sleep_ms(300);
    assert_int_equal(queue_hand_back(qf.q, "w1", arg, NULL), ERR_OK);
    return NULL;
}

static void test_a_probe_without_an_outcome_wakes_the_next(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    add_job(id);
    add_job(id);
    open_breaker(10);
    time_sleep_ms(30);
    queue_claim_t probe, c;
    assert_true(qf_claim("w1", &probe));
    assert_false(qf_claim("w2", &c));
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, hand_back_later, &probe), 0);
    int64_t before = time_mono_ms();
    assert_true(qf_claim_of(qf.other, "w2", NUCLEI, 1, 10000, &c));
    assert_in_range(time_mono_ms() - before, 250, 1000);
    assert_int_equal(pthread_join(t, NULL), 0);
}

int main(void) {
    if (!private_pg_available() || !private_redis_available()) {
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_late_recovery_spares_a_younger_claim_of_the_same_worker),
        cmocka_unit_test(test_a_late_end_spares_a_younger_claim_of_the_same_worker),
        cmocka_unit_test(test_a_late_cancellation_does_not_stop_what_was_started_again),
        cmocka_unit_test(test_a_claim_that_redis_forgot_is_made_again_and_not_by_its_worker),
        cmocka_unit_test(test_a_lost_place_in_line_is_found),
        cmocka_unit_test(test_an_end_that_nobody_told_is_told_by_recovery),
        cmocka_unit_test(test_failures_and_hand_backs_go_together),
        cmocka_unit_test(test_a_turn_ends_and_claims),
        cmocka_unit_test(test_slots_that_ask_together_get_different_jobs),
        cmocka_unit_test(test_a_breaker_that_is_half_open_by_the_clock_wakes_a_worker),
        cmocka_unit_test(test_a_probe_without_an_outcome_wakes_the_next),
    };
    return cmocka_run_group_tests(tests, qf_setup, qf_teardown);
}
