/*
 * The circuit breaker that workers share through Redis: when it opens, that nobody gets a job then, its single probe,
 * what does not count. qf.q and qf.other stand for two workers' processes.
 */
#include "tests/unit/support/cmocka_all.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue_fixture.h"

enum { WINDOW_MS = 3000, OPEN_MS = 400 };

static void begin(void) {
    qf_reset();
    qf.q->breaker = qf.other->breaker = (breaker_settings_t){
        .enabled = true, .threshold = 50, .min_calls = 4, .window_ms = WINDOW_MS, .open_ms = OPEN_MS};
    qf_sql("INSERT INTO models (name, version, title, description, sha256, manifest) "
           "VALUES ('nuclei', '1', 't', 'd', 's', '{}')");
}

static breaker_info_t info(void) {
    breaker_info_t i;
    const char *models[] = {"nuclei"};
    assert_int_equal(breaker_read(qf.rds, &qf.q->breaker, 1, models, &i, NULL), ERR_OK);
    return i;
}

static void add_jobs(int n) {
    for (int i = 0; i < n; i++) {
        char id[JOB_ID_LEN];
        qf_job(i % QF_USERS, "nuclei", 5, id);
        (void)qf_enqueue(id);
    }
}

static bool claim(queue_t *q, const char *worker, queue_claim_t *c) {
    static const char *const models[] = {"nuclei"};
    return qf_claim_of(q, worker, models, 1, 0, c);
}

/* Claims a job and reports how its run ended, as the worker does; the claim is handed back. */
static void run(queue_t *q, const char *worker, bool ok) {
    queue_claim_t c;
    assert_true(claim(q, worker, &c));
    queue_report_run(q, &c, ok);
    assert_int_equal(queue_hand_back(q, worker, &c, NULL), ERR_OK);
}

static void open_it(void) {
    for (int i = 0; i < 4; i++) {
        run(i % 2 ? qf.q : qf.other, i % 2 ? "w1" : "w2", false);
    }
    assert_int_equal(info().state, BREAKER_OPEN);
}

static void test_two_workers_share_it(void **state) {
    (void)state;
    begin();
    add_jobs(3);
    queue_claim_t c;
    run(qf.q, "w1", true);
    run(qf.other, "w2", true);
    run(qf.q, "w1", false);
    assert_int_equal(info().state, BREAKER_CLOSED); /* one of three */
    run(qf.other, "w2", false);                     /* two of four: 50 % */
    breaker_info_t i = info();
    assert_int_equal(i.state, BREAKER_OPEN);
    assert_float_equal(i.error_rate, 50, 1e-9);
    assert_int_equal(i.opened_total, 1);
    assert_int_equal(i.succeeded_total, 2);
    assert_in_range(i.open_left_ms, 1, OPEN_MS);
    assert_false(claim(qf.q, "w1", &c));
    assert_false(claim(qf.other, "w2", &c));
    assert_int_equal(qf_sql_int("SELECT count(*) FROM jobs WHERE state = 'queued'"), 3);
}

static void test_other_models_go_on(void **state) {
    (void)state;
    begin();
    add_jobs(1);
    open_it();
    char id[JOB_ID_LEN];
    qf_job(0, "spheroid", 1, id);
    (void)qf_enqueue(id);
    const char *both[] = {"nuclei", "spheroid"};
    queue_claim_t c;
    assert_true(qf_claim_of(qf.q, "w1", both, 2, 0, &c));
    assert_string_equal(c.id, id);
    /* the place in line of what must wait is still known */
    assert_int_equal(qf_redis_int("ZCARD", "sg:turns:nuclei"), 1);
}

static void test_few_and_old_outcomes_do_not_open_it(void **state) {
    (void)state;
    begin();
    add_jobs(1);
    qf.q->breaker.window_ms = qf.other->breaker.window_ms = 100;
    for (int i = 0; i < 3; i++) {
        run(qf.q, "w1", false);
    }
    assert_int_equal(info().state, BREAKER_CLOSED);
    time_sleep_ms(150);
    run(qf.q, "w1", false); /* the only one in its window */
    assert_int_equal(info().state, BREAKER_CLOSED);
}

static void test_one_probe_closes_it(void **state) {
    (void)state;
    begin();
    add_jobs(3);
    open_it();
    queue_claim_t probe, c;
    time_sleep_ms(OPEN_MS + 20);
    assert_int_equal(info().state, BREAKER_HALF_OPEN);
    assert_true(claim(qf.q, "w1", &probe));
    assert_true(info().probing);
    assert_false(claim(qf.other, "w2", &c)); /* only one, whoever asks */
    assert_false(claim(qf.q, "w1", &c));
    queue_report_run(qf.q, &probe, true);
    assert_int_equal(qf_complete(qf.q, "w1", &probe), ERR_OK);
    assert_int_equal(info().state, BREAKER_CLOSED);
    assert_int_equal(info().runs, 0); /* the window began anew */
    run(qf.other, "w2", false);
    assert_int_equal(info().state, BREAKER_CLOSED);
}

static void test_a_failed_probe_opens_it_again(void **state) {
    (void)state;
    begin();
    add_jobs(2);
    open_it();
    time_sleep_ms(OPEN_MS + 20);
    queue_claim_t c;
    run(qf.other, "w2", false);
    assert_int_equal(info().state, BREAKER_OPEN);
    assert_int_equal(info().opened_total, 2);
    assert_false(claim(qf.q, "w1", &c));
}

static void test_a_late_outcome_is_not_the_probe(void **state) {
    (void)state;
    begin();
    add_jobs(6);
    queue_claim_t late, probe;
    assert_true(claim(qf.q, "w1", &late)); /* began while it was closed */
    open_it();
    queue_report_run(qf.q, &late, true);
    assert_int_equal(info().state, BREAKER_OPEN);
    time_sleep_ms(OPEN_MS + 20);
    assert_true(claim(qf.other, "w2", &probe));
    queue_report_run(qf.q, &late, true);
    assert_int_equal(info().state, BREAKER_HALF_OPEN);
    queue_report_run(qf.other, &probe, true);
    assert_int_equal(info().state, BREAKER_CLOSED);
}

static void test_a_probe_that_says_nothing_leaves_room_for_another(void **state) {
    (void)state;
    begin();
    add_jobs(2);
    open_it();
    time_sleep_ms(OPEN_MS + 20);
    queue_claim_t c;
    assert_true(claim(qf.q, "w1", &c));
    err_t why;
    (void)err_set(&why, ERR_INVALID, "image_corrupt", "The file is damaged.", NULL);
    assert_int_equal(queue_fail(qf.q, "w1", &c, &why, NULL), ERR_OK); /* the image's fault, not the model's */
    assert_int_equal(info().state, BREAKER_HALF_OPEN);
    assert_false(info().probing);
    assert_true(claim(qf.other, "w2", &c));
}

static void test_a_lost_probe_is_replaced(void **state) {
    (void)state;
    begin();
    add_jobs(2);
    open_it();
    time_sleep_ms(OPEN_MS + 20);
    queue_claim_t probe, c;
    assert_true(claim(qf.q, "w1", &probe));
    assert_false(claim(qf.other, "w2", &c));
    qf_expire_leases(); /* the worker died */
    qf_sweep(qf.other);
    assert_true(claim(qf.other, "w2", &c));
    assert_string_not_equal(c.id, probe.id);
}

static void test_it_starts_closed_when_redis_forgets(void **state) {
    (void)state;
    begin();
    add_jobs(1);
    open_it();
    qf_flush();
    assert_int_equal(info().state, BREAKER_CLOSED);
    qf_sweep(qf.q);
    queue_claim_t c;
    assert_true(claim(qf.q, "w1", &c));
}

static void *wait_for_job(void *arg) {
    static const char *const models[] = {"nuclei"};
    *(bool *)arg = qf_claim_of(qf.other, "w2", models, 1, 8000, &(queue_claim_t){0});
    return NULL;
}

static void test_waiting_workers_go_on_when_it_closes(void **state) {
    (void)state;
    begin();
    add_jobs(4);
    open_it();
    time_sleep_ms(OPEN_MS + 20);
    queue_claim_t probe;
    assert_true(claim(qf.q, "w1", &probe));
    bool got = false;
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, wait_for_job, &got), 0);
    time_sleep_ms(300); /* it waits now, although jobs wait too */
    int64_t before = time_mono_ms();
    queue_report_run(qf.q, &probe, true);
    assert_int_equal(pthread_join(t, NULL), 0);
    assert_true(got);
    assert_true(time_mono_ms() - before < 1000);
}

static void test_disabled(void **state) {
    (void)state;
    begin();
    add_jobs(1);
    qf.q->breaker.enabled = qf.other->breaker.enabled = false;
    for (int i = 0; i < 20; i++) {
        run(qf.q, "w1", false);
    }
    assert_int_equal(info().state, BREAKER_CLOSED);
    assert_int_equal(qf_redis_int("EXISTS", "sg:breaker:nuclei"), 0);
}

static void test_forget(void **state) {
    (void)state;
    begin();
    add_jobs(1);
    open_it();
    assert_int_equal(breaker_forget(qf.rds, "nuclei", NULL), ERR_OK);
    assert_int_equal(info().state, BREAKER_CLOSED);
    queue_claim_t c;
    assert_true(claim(qf.q, "w1", &c));
}

static void test_the_status_shows_it(void **state) {
    (void)state;
    begin();
    add_jobs(1);
    open_it();
    char *json = NULL;
    assert_int_equal(queue_status_json(qf.q, &json, NULL), ERR_OK);
    assert_non_null(strstr(json, "\"breaker\":[{\"model\":\"nuclei\",\"state\":\"open\",\"errorRate\":100,\"runs\":4,"
                                 "\"failures\":4,\"opened\":1,"));
    free(json);
}

int main(void) {
    if (!private_pg_available() || !private_redis_available()) {
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_workers_share_it),
        cmocka_unit_test(test_other_models_go_on),
        cmocka_unit_test(test_few_and_old_outcomes_do_not_open_it),
        cmocka_unit_test(test_one_probe_closes_it),
        cmocka_unit_test(test_a_failed_probe_opens_it_again),
        cmocka_unit_test(test_a_late_outcome_is_not_the_probe),
        cmocka_unit_test(test_a_probe_that_says_nothing_leaves_room_for_another),
        cmocka_unit_test(test_a_lost_probe_is_replaced),
        cmocka_unit_test(test_it_starts_closed_when_redis_forgets),
        cmocka_unit_test(test_waiting_workers_go_on_when_it_closes),
        cmocka_unit_test(test_disabled),
        cmocka_unit_test(test_forget),
        cmocka_unit_test(test_the_status_shows_it),
    };
    return cmocka_run_group_tests(tests, qf_setup, qf_teardown);
}
