/*
 * Jobs that are put into Redis together, and what becomes of a push that did not come to its end.
 */
#include "tests/unit/support/cmocka_all.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue_fixture.h"

enum { MANY = QUEUE_GROUP_MAX };

static char ids[MANY][JOB_ID_LEN];
static queue_inserted_t jobs[MANY];

/* n committed rows marked as pushed, that are not: users, models and priorities in turn. */
static void commit_rows(int n) {
    static const char *const models[] = {"nuclei", "spheroid"};
    for (int i = 0; i < n; i++) {
        const int user = i % QF_USERS, priority = i % 3 == 0 ? 5 : 7;
        qf_job(user, models[i % 2], priority, ids[i]);
        jobs[i] = (queue_inserted_t){.id = ids[i],
                                     .project_id = qf.users[user],
                                     .image_id = qf.users[user],
                                     .user_id = qf.users[user],
                                     .model = models[i % 2],
                                     .priority = priority};
    }
    qf_sql("UPDATE jobs SET enqueued_at = now()");
}

static void note_push(const char *age) {
    char sql[256];
    (void)snprintf(sql, sizeof sql,
                   "INSERT INTO pushes (gateway, lane, at, ids) SELECT 'g', 0, now() - interval '%s', array_agg(id) "
                   "FROM jobs",
                   age);
    qf_sql(sql);
}

static void test_a_group_waits_as_if_pushed_one_by_one(void **state) {
    (void)state;
    for (int n = 1; n <= MANY; n = n * 4 - 1) {
        int positions[MANY];
        qf_reset();
        commit_rows(n);
        assert_true(queue_enqueue_group(qf.q, jobs, n, positions));
        for (int i = 0; i < n; i++) {
            /* position.lua looks for the job in its list: the same answer by another way */
            assert_int_equal(positions[i], queue_position(qf.q, ids[i], jobs[i].model, jobs[i].priority));
        }
        queue_announce_group(qf.q, jobs, n, positions);
        /* once more: each waits already, so nothing is doubled, and no place is claimed for it */
        assert_true(queue_enqueue_group(qf.other, jobs, n, positions));
        assert_int_equal(positions[0], -1);
        static const char *const both[] = {"nuclei", "spheroid"};
        queue_claim_t c;
        for (int i = 0; i < n; i++) {
            assert_true(qf_claim_of(qf.q, "w1", both, 2, 0, &c));
        }
        assert_false(qf_claim_of(qf.q, "w1", both, 2, 0, &c));
        assert_int_equal(qf_sql_int("SELECT count(*) FROM jobs WHERE state = 'active' AND attempt = 1"), n);
    }
}

static void test_a_full_group_and_a_Redis_that_forgot_its_scripts(void **state) {
    (void)state;
    int positions[MANY];
    const char *forget[] = {"SCRIPT", "FLUSH"};
    qf_reset();
    commit_rows(MANY);
    assert_int_equal(rds_run(qf.rds, 2, forget, NULL, NULL), ERR_OK);
    assert_true(queue_enqueue_group(qf.q, jobs, MANY, positions));
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(positions[i], queue_position(qf.q, ids[i], jobs[i].model, jobs[i].priority));
    }
    assert_true(queue_enqueue_group(qf.q, jobs, 0, positions));
}

static void test_without_Redis_a_group_becomes_outbox(void **state) {
    (void)state;
    int positions[MANY];
    qf_reset();
    commit_rows(5);
    assert_false(queue_enqueue_group(qf.no_redis, jobs, 5, positions));
    assert_int_equal(positions[4], -1);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM jobs WHERE enqueued_at IS NULL"), 5);
    qf_sweep(qf.q);
    for (int i = 0; i < 5; i++) {
        assert_true(queue_position(qf.q, ids[i], jobs[i].model, jobs[i].priority) >= 0);
    }
}

static void test_a_push_that_died_is_ended_by_the_sweeper(void **state) {
    (void)state;
    int positions[MANY];
    queue_claim_t c;
    qf_reset();
    qf_sweep(qf.q); /* the audit that a new Redis gets is over: it does not help below */
    commit_rows(6);
    /* two had reached Redis */
    assert_true(queue_enqueue_group(qf.q, jobs, 2, positions));
    note_push("1 second");
    qf_sweep(qf.q);
    assert_int_equal(queue_position(qf.q, ids[5], jobs[5].model, jobs[5].priority), -1); /* it may still be at it */
    qf_sql("UPDATE pushes SET at = now() - interval '3 seconds'");
    qf_sweep(qf.q);
    for (int i = 0; i < 6; i++) {
        assert_true(queue_position(qf.q, ids[i], jobs[i].model, jobs[i].priority) >= 0);
    }
    assert_int_equal(qf_sql_int("SELECT count(*) FROM pushes"), 0);
    static const char *const both[] = {"nuclei", "spheroid"};
    for (int i = 0; i < 6; i++) {
        assert_true(qf_claim_of(qf.q, "w1", both, 2, 0, &c));
    }
    assert_false(qf_claim_of(qf.q, "w1", both, 2, 0, &c));
}

static void test_an_idle_lane_is_forgotten_and_nothing_is_pushed_again(void **state) {
    (void)state;
    int positions[MANY];
    qf_reset();
    commit_rows(4);
    assert_true(queue_enqueue_group(qf.q, jobs, 4, positions));
    qf_sweep(qf.q);
    qf_sql("UPDATE jobs SET enqueued_at = '2020-01-01'");
    note_push("1 minute");
    qf_sweep(qf.q);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM pushes"), 0);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM jobs WHERE enqueued_at = '2020-01-01'"), 4);
}

static void test_a_push_stays_noted_while_Redis_is_away(void **state) {
    (void)state;
    pg_conn_t *conn = NULL;
    int lost = 0;
    qf_reset();
    commit_rows(3);
    note_push("1 minute");
    assert_int_equal(pg_acquire(qf.pg, &conn, NULL), ERR_OK);
    assert_int_equal(queue_pushes_run(qf.no_redis, conn, 1000, &lost, NULL), ERR_UNAVAILABLE);
    pg_release(conn);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM pushes"), 1);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM jobs WHERE enqueued_at IS NULL"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_group_waits_as_if_pushed_one_by_one),
        cmocka_unit_test(test_a_full_group_and_a_Redis_that_forgot_its_scripts),
        cmocka_unit_test(test_without_Redis_a_group_becomes_outbox),
        cmocka_unit_test(test_a_push_that_died_is_ended_by_the_sweeper),
        cmocka_unit_test(test_an_idle_lane_is_forgotten_and_nothing_is_pushed_again),
        cmocka_unit_test(test_a_push_stays_noted_while_Redis_is_away),
    };
    return cmocka_run_group_tests(tests, qf_setup, qf_teardown);
}
