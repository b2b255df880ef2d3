/*
 * The event bus against a real Redis: delivery in order, confirmation, removal, gaps after a lost connection, and what
 * the queue publishes on it.
 */
#include "tests/unit/support/cmocka_all.h"

#include <cjson/cJSON.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue_fixture.h"

enum { MAX_SEEN = 20000 };

static struct {
    pthread_mutex_t lock;
    int count, gaps;
    char *texts[MAX_SEEN];
    char gap_channel[80];
} seen = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void on_event(void *arg, const char *channel, const char *message, size_t len) {
    (void)arg;
    (void)pthread_mutex_lock(&seen.lock);
    if (!message) {
        seen.gaps++;
        (void)snprintf(seen.gap_channel, sizeof seen.gap_channel, "%s", channel);
    } else if (seen.count < MAX_SEEN) {
        seen.texts[seen.count++] = strndup(message, len);
    }
    (void)pthread_mutex_unlock(&seen.lock);
}

static void forget(void) {
    (void)pthread_mutex_lock(&seen.lock);
    for (int i = 0; i < seen.count; i++) {
        free(seen.texts[i]);
    }
    seen.count = seen.gaps = 0;
    (void)pthread_mutex_unlock(&seen.lock);
}

static int seen_count(void) {
    (void)pthread_mutex_lock(&seen.lock);
    int n = seen.count;
    (void)pthread_mutex_unlock(&seen.lock);
    return n;
}

static int seen_gaps(void) {
    (void)pthread_mutex_lock(&seen.lock);
    int n = seen.gaps;
    (void)pthread_mutex_unlock(&seen.lock);
    return n;
}

static void wait_until(int (*what)(void), int n) {
    for (int i = 0; i < 800 && what() < n; i++) {
        time_sleep_ms(10);
    }
    assert_true(what() >= n);
}

static events_sub_t *subscribe(const char *channel) {
    events_sub_t *s = NULL;
    err_t err;
    forget();
    assert_int_equal(events_sub_create(qf.rds, on_event, NULL, &s, &err), ERR_OK);
    assert_true(events_sub_add(s, channel, 3000));
    return s;
}

static void test_messages_arrive_in_order(void **state) {
    (void)state;
    events_sub_t *s = subscribe("sg:events:p1");
    char text[32];
    for (int i = 0; i < 1000; i++) {
        (void)snprintf(text, sizeof text, "{\"n\":%d}", i);
        events_publish(qf.rds, "p1", text);
        events_publish(qf.rds, "p2", "{\"other\":1}");
    }
    wait_until(seen_count, 1000);
    time_sleep_ms(50);
    assert_int_equal(seen_count(), 1000);
    for (int i = 0; i < 1000; i++) {
        (void)snprintf(text, sizeof text, "{\"n\":%d}", i);
        assert_string_equal(seen.texts[i], text);
    }
    assert_int_equal(seen_gaps(), 0);
    events_sub_destroy(s);
}

static void test_what_follows_add_is_never_missed(void **state) {
    (void)state;
    events_sub_t *s = subscribe("sg:events:first");
    for (int i = 0; i < 50; i++) {
        char channel[64], project[32];
        (void)snprintf(project, sizeof project, "q%d", i);
        (void)snprintf(channel, sizeof channel, "sg:events:%s", project);
        assert_true(events_sub_add(s, channel, 3000));
        events_publish(qf.rds, project, "{}");
        wait_until(seen_count, i + 1);
    }
    events_sub_destroy(s);
}

static void test_removed_channels_are_silent(void **state) {
    (void)state;
    events_sub_t *s = subscribe("sg:events:a");
    assert_true(events_sub_add(s, "sg:events:b", 3000));
    assert_true(events_sub_add(s, "sg:events:b", 3000)); /* twice is once */
    events_sub_remove(s, "sg:events:a");
    events_publish(qf.rds, "a", "{\"a\":1}");
    events_publish(qf.rds, "b", "{\"b\":1}");
    wait_until(seen_count, 1);
    time_sleep_ms(50);
    assert_int_equal(seen_count(), 1);
    assert_string_equal(seen.texts[0], "{\"b\":1}");
    assert_true(events_sub_add(s, "sg:events:a", 3000)); /* and back */
    events_publish(qf.rds, "a", "{\"a\":2}");
    wait_until(seen_count, 2);
    events_sub_destroy(s);
}

/* Whether or not the thread has unsubscribed in between: once add has returned, nothing is missed. */
static void test_a_channel_that_comes_and_goes(void **state) {
    (void)state;
    events_sub_t *s = subscribe("sg:events:a");
    enum { TIMES = 300 };
    for (int i = 0; i < TIMES; i++) {
        events_sub_remove(s, "sg:events:a");
        if (i % 3 == 0) {
            time_sleep_ms(1);
        }
        if (i % 2 == 0) { /* one more turn, not waited for */
            (void)events_sub_add(s, "sg:events:a", 0);
            events_sub_remove(s, "sg:events:a");
        }
        assert_true(events_sub_add(s, "sg:events:a", 10000));
        events_publish(qf.rds, "a", "{}");
        wait_until(seen_count, i + 1);
    }
    events_sub_destroy(s);
}

static void test_a_lost_connection_is_told(void **state) {
    (void)state;
    events_sub_t *s = subscribe("sg:events:p1");
    const char *argv[] = {"CLIENT", "KILL", "TYPE", "pubsub"};
    assert_int_equal(rds_run(qf.rds, 4, argv, NULL, NULL), ERR_OK);
    wait_until(seen_gaps, 1);
    assert_string_equal(seen.gap_channel, "sg:events:p1");
    events_publish(qf.rds, "p1", "{}");
    wait_until(seen_count, 1);
    events_sub_destroy(s);
}

static void test_a_restart_of_redis(void **state) {
    (void)state;
    events_sub_t *s = subscribe("sg:events:p1");
    private_server_kill(&qf.redis_server);
    int64_t before = time_mono_ms();
    assert_false(events_sub_add(s, "sg:events:p2", 200)); /* Redis is away: added later */
    assert_in_range(time_mono_ms() - before, 190, 2000);
    events_publish(qf.rds, "p1", "{}"); /* is lost, and must not hang */
    private_server_restart(&qf.redis_server);
    qf_make_user();
    wait_until(seen_gaps, 2); /* both channels hear that something may be missing */
    events_publish(qf.rds, "p2", "{\"x\":2}");
    wait_until(seen_count, 1);
    assert_string_equal(seen.texts[0], "{\"x\":2}");
    events_sub_destroy(s);
}

static void test_destroy_while_redis_is_away(void **state) {
    (void)state;
    events_sub_t *s = NULL;
    err_t err;
    assert_int_equal(events_sub_create(qf.rds_away, on_event, NULL, &s, &err), ERR_OK);
    assert_false(events_sub_add(s, "sg:events:p1", 100));
    int64_t before = time_mono_ms();
    events_sub_destroy(s);
    assert_true(time_mono_ms() - before < 2500);
}

/* ---- what the queue tells ---- */

typedef struct {
    double seq, progress;
    char state[16], error[32];
} told_t;

static told_t told(int i) {
    told_t t = {0};
    (void)pthread_mutex_lock(&seen.lock);
    cJSON *o = cJSON_Parse(seen.texts[i]);
    (void)pthread_mutex_unlock(&seen.lock);
    assert_non_null(o);
    assert_string_equal(cJSON_GetObjectItem(o, "type")->valuestring, "job");
    assert_string_equal(cJSON_GetObjectItem(o, "projectId")->valuestring, qf.users[0]);
    t.seq = cJSON_GetObjectItem(o, "seq")->valuedouble;
    t.progress = cJSON_GetObjectItem(o, "progress")->valuedouble;
    (void)snprintf(t.state, sizeof t.state, "%s", cJSON_GetObjectItem(o, "state")->valuestring);
    cJSON *e = cJSON_GetObjectItem(o, "error");
    if (e) {
        (void)snprintf(t.error, sizeof t.error, "%s", cJSON_GetObjectItem(e, "code")->valuestring);
    }
    cJSON_Delete(o);
    return t;
}

/* fail once, crash once, be handed back once, complete: every change is told, and the numbers rise. */
static void test_sequence_numbers_rise(void **state) {
    (void)state;
    qf_reset();
    char channel[80], id[JOB_ID_LEN];
    (void)snprintf(channel, sizeof channel, "sg:events:%s", qf.users[0]);
    events_sub_t *s = subscribe(channel);
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    queue_claim_t c;
    err_t why;
    (void)err_set(&why, ERR_IO, "disk", "The disk did not answer.", NULL);
    assert_true(qf_claim("w1", &c));
    queue_publish_progress(qf.q, &c, "decode", 0.1);
    queue_publish_progress(qf.q, &c, "infer", 0.4);
    assert_int_equal(queue_fail(qf.q, "w1", &c, &why, NULL), ERR_OK);
    qf_wait_claim("w1", &c);
    for (int i = 0; i < 5; i++) {
        char stage[16];
        (void)snprintf(stage, sizeof stage, "s%d", i);
        queue_publish_progress(qf.q, &c, stage, 0.2 + i / 10.0);
    }
    qf_expire_leases();
    qf_wait_claim("w2", &c);
    queue_publish_progress(qf.q, &c, "infer", 0.4);
    assert_int_equal(queue_hand_back(qf.q, "w2", &c, NULL), ERR_OK);
    assert_true(qf_claim("w3", &c));
    queue_publish_progress(qf.q, &c, "infer", 0.4);
    assert_int_equal(qf_complete(qf.q, "w3", &c), ERR_OK);

    static const char *const expected[] = {"queued", "active", "active", "active", "delayed", "queued",   "active",
                                           "active", "active", "active", "active", "active",  "delayed",  "queued",
                                           "active", "active", "queued", "active", "active",  "completed"};
    int n = (int)(sizeof expected / sizeof expected[0]);
    wait_until(seen_count, n);
    time_sleep_ms(50);
    assert_int_equal(seen_count(), n);
    double last = 0;
    for (int i = 0; i < n; i++) {
        told_t t = told(i);
        assert_string_equal(t.state, expected[i]);
        assert_true(t.seq > last);
        last = t.seq;
        if (i == 4) {
            assert_string_equal(t.error, "disk");
        } else if (i == 12) {
            assert_string_equal(t.error, "worker_lost");
        }
    }
    assert_true(last == (double)qf_sql_int("SELECT seq FROM jobs"));
    events_sub_destroy(s);
}

static void test_progress_is_limited_and_never_falls(void **state) {
    (void)state;
    qf_reset();
    char channel[80], id[JOB_ID_LEN];
    (void)snprintf(channel, sizeof channel, "sg:events:%s", qf.users[0]);
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    queue_claim_t c;
    assert_true(qf_claim("w1", &c));
    events_sub_t *s = subscribe(channel);
    int64_t until = time_mono_ms() + 1000;
    int calls = 0;
    for (; time_mono_ms() < until; calls++) {
        queue_publish_progress(qf.q, &c, "infer", calls % 2 ? 0.2 : 0.6);
        time_sleep_ms(2);
    }
    time_sleep_ms(100);
    assert_true(calls > 50);
    assert_in_range(seen_count(), 3, 6);
    double last = 0;
    for (int i = 0; i < seen_count(); i++) {
        told_t t = told(i);
        assert_true(t.progress >= last);
        last = t.progress;
    }
    events_sub_destroy(s);
}

static void test_a_stale_worker_tells_nothing(void **state) {
    (void)state;
    qf_reset();
    char channel[80], id[JOB_ID_LEN];
    (void)snprintf(channel, sizeof channel, "sg:events:%s", qf.users[0]);
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    queue_claim_t old, now;
    assert_true(qf_claim("old", &old));
    qf_expire_leases();
    qf_sweep(qf.q);
    for (int i = 0; i < 500; i++) { /* claimed by another process */
        static const char *const models[] = {"nuclei"};
        if (qf_claim_of(qf.other, "new", models, 1, 0, &now)) {
            break;
        }
        qf_sweep(qf.q);
        time_sleep_ms(5);
    }
    events_sub_t *s = subscribe(channel);
    queue_publish_progress(qf.q, &old, "infer", 0.9);
    queue_publish_progress(qf.other, &now, "infer", 0.1);
    wait_until(seen_count, 1);
    time_sleep_ms(50);
    assert_int_equal(seen_count(), 1);
    assert_true(told(0).progress < 0.5);
    events_sub_destroy(s);
}

static void test_a_batch_is_told(void **state) {
    (void)state;
    qf_reset();
    char channel[80], batch[JOB_ID_LEN];
    (void)snprintf(channel, sizeof channel, "sg:events:%s", qf.users[0]);
    events_sub_t *s = subscribe(channel);
    qf_batch(1100, batch);
    assert_int_equal(queue_enqueue_batch(qf.q, batch, NULL, NULL), ERR_OK);
    wait_until(seen_count, 1100);
    events_sub_destroy(s);
    forget();
}

/* A committed end whose claim Redis forgot, and whose worker died before it could tell: no lease leads to it. */
static void test_an_end_that_redis_forgot_is_told(void **state) {
    (void)state;
    qf_reset();
    char channel[80], id[JOB_ID_LEN];
    (void)snprintf(channel, sizeof channel, "sg:events:%s", qf.users[0]);
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    qf_sweep(qf.q); /* a look that Redis remembers */
    queue_claim_t c;
    assert_true(qf_claim("w1", &c));
    qf_flush();
    qf_sql("UPDATE jobs SET state = 'completed', finished_at = now(), token = NULL, seq = seq + 1, object_count = 7");
    events_sub_t *s = subscribe(channel);
    qf_sweep(qf.other);
    wait_until(seen_count, 1);
    assert_string_equal(told(0).state, "completed");
    assert_true(told(0).seq == (double)qf_sql_int("SELECT seq FROM jobs"));
    events_sub_destroy(s);
}

/* A waiting job was cancelled by a gateway that died before it told. Ends with a lease are left to their lease: while
 * Redis remembers, nothing else is told twice. */
static void test_a_cancellation_that_nobody_told_of_is_told(void **state) {
    (void)state;
    qf_reset();
    char channel[80], done[JOB_ID_LEN], cancelled[JOB_ID_LEN];
    (void)snprintf(channel, sizeof channel, "sg:events:%s", qf.users[0]);
    qf.q->tune.restore_grace_ms = -1000; /* no time after a wipe in which all is told */
    qf_sweep(qf.q);
    qf_job(0, "nuclei", 5, done);
    qf_sql("UPDATE jobs SET state = 'completed', finished_at = now()");
    qf_job(0, "nuclei", 5, cancelled);
    qf_sql("UPDATE jobs SET state = 'cancelled', finished_at = now(), seq = 5 WHERE state = 'queued'");
    events_sub_t *s = subscribe(channel);
    qf_sweep(qf.q);
    wait_until(seen_count, 1);
    time_sleep_ms(50);
    assert_int_equal(seen_count(), 1);
    assert_string_equal(told(0).state, "cancelled");
    assert_true(told(0).seq == 5);
    events_sub_destroy(s);
}

int main(void) {
    if (!private_pg_available() || !private_redis_available()) {
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_arrive_in_order),
        cmocka_unit_test(test_what_follows_add_is_never_missed),
        cmocka_unit_test(test_removed_channels_are_silent),
        cmocka_unit_test(test_a_channel_that_comes_and_goes),
        cmocka_unit_test(test_a_lost_connection_is_told),
        cmocka_unit_test(test_a_restart_of_redis),
        cmocka_unit_test(test_destroy_while_redis_is_away),
        cmocka_unit_test(test_sequence_numbers_rise),
        cmocka_unit_test(test_progress_is_limited_and_never_falls),
        cmocka_unit_test(test_a_stale_worker_tells_nothing),
        cmocka_unit_test(test_a_batch_is_told),
        cmocka_unit_test(test_an_end_that_redis_forgot_is_told),
        cmocka_unit_test(test_a_cancellation_that_nobody_told_of_is_told),
    };
    return cmocka_run_group_tests(tests, qf_setup, qf_teardown);
}
