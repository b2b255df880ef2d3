/*
 * Storing a result: everything or nothing, under the claim's fence, and the bytes that go in come out.
 */
#include "tests/unit/support/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "segworker/pipeline/store.h"
#include "tests/unit/common/queue_fixture.h"

/* n squares of 10 px with a hole each, side by side; geometry on the heap because result_free releases it. */
static result_t make_result(uint32_t n) {
    result_t r = {.width = 100, .height = 50, .count = n, .threshold = 0.4, .detect_holes = true};
    (void)snprintf(r.model, sizeof r.model, "nuclei");
    (void)snprintf(r.model_version, sizeof r.model_version, "1.0.0");
    (void)snprintf(r.model_sha256, sizeof r.model_sha256, "abc");
    (void)snprintf(r.note, sizeof r.note, "It's a note.");
    r.objects = calloc(n ? n : 1, sizeof *r.objects);
    for (uint32_t i = 0; i < n; i++) {
        result_object_t *o = &r.objects[i];
        int32_t x = (int32_t)(i % 1000) * 1100;
        o->idx = i + 1;
        o->confidence = 0.75F;
        o->geom.count = 1;
        o->geom.polygons = calloc(1, sizeof *o->geom.polygons);
        o->geom.polygons[0].count = 2;
        o->geom.polygons[0].rings = calloc(2, sizeof *o->geom.polygons[0].rings);
        const geom_point_t outer[] = {{x, 0}, {x + 1000, 0}, {x + 1000, 1000}, {x, 1000}};
        const geom_point_t hole[] = {{x + 200, 200}, {x + 200, 400}, {x + 400, 400}, {x + 400, 200}};
        for (int k = 0; k < 2; k++) {
            o->geom.polygons[0].rings[k].count = 4;
            o->geom.polygons[0].rings[k].points = malloc(sizeof outer);
            memcpy(o->geom.polygons[0].rings[k].points, k ? hole : outer, sizeof outer);
        }
        assert_int_equal(measure_object(&o->geom, NULL, 0, 0, &o->m, NULL), ERR_OK);
    }
    return r;
}

static void claim_new(char *id, queue_claim_t *c) {
    qf_job(0, "nuclei", 5, id);
    (void)qf_enqueue(id);
    assert_true(qf_claim("w1", c));
}

static void test_a_result_is_stored(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    queue_claim_t c;
    claim_new(id, &c);
    result_t r = make_result(3);
    err_t err;
    assert_int_equal(store_commit(qf.q, qf.pg, "w1", &c, &r, "{\"infer\":1.5}", &err), ERR_OK);
    qf_assert_job(id, "completed", 1);
    assert_int_equal(
        qf_sql_int("SELECT count(*) FROM images i JOIN segmentations s ON s.id = i.current_segmentation_id "
                   "AND i.latest_job_id = s.job_id WHERE s.object_count = 3 AND s.note = 'It''s a note.' "
                   "AND s.threshold = 0.4 AND s.attempt = 1 AND s.width = 100 AND s.height = 50"),
        1);
    assert_int_equal(
        qf_sql_int("SELECT count(*) FROM objects WHERE area = 96 AND confidence = 0.75 "
                   "AND (measurements->>'areaFilled')::float8 = 100 AND (measurements->>'holes')::int = 1"),
        3);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM objects WHERE bbox && box '(12,1),(13,2)' AND idx = 2"), 1);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM objects WHERE bbox && box '(12,1),(13,2)'"), 1);
    assert_int_equal(qf_sql_int("SELECT object_count FROM jobs"), 3);
    assert_int_equal(qf_sql_int("SELECT (timings->>'infer')::float8 * 10 FROM jobs"), 15);

    PGresult *res = NULL;
    assert_int_equal(pg_query(qf.pg, "SELECT encode(geometry, 'hex') FROM objects WHERE idx = 2", 0, NULL, &res, &err),
                     ERR_OK);
    buf_t bytes, hex;
    buf_init(&bytes, 4096);
    buf_init(&hex, 8192);
    geom_encode(&r.objects[1].geom, &bytes);
    for (size_t i = 0; i < bytes.len; i++) {
        buf_printf(&hex, "%02x", (unsigned)(unsigned char)bytes.data[i]);
    }
    assert_string_equal(PQgetvalue(res, 0, 0), hex.data);
    PQclear(res);
    buf_free(&bytes);
    buf_free(&hex);
    result_free(&r);
}

static void test_nothing_found_is_a_result(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    queue_claim_t c;
    claim_new(id, &c);
    result_t r = make_result(0);
    assert_int_equal(store_commit(qf.q, qf.pg, "w1", &c, &r, "{}", NULL), ERR_OK);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM images WHERE current_segmentation_id IS NOT NULL"), 1);
    result_free(&r);
}

static void test_many_objects(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    queue_claim_t c;
    claim_new(id, &c);
    result_t r = make_result(20000);
    assert_int_equal(store_commit(qf.q, qf.pg, "w1", &c, &r, "{}", NULL), ERR_OK);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM objects"), 20000);
    assert_int_equal(qf_sql_int("SELECT max(idx) FROM objects"), 20000);
    result_free(&r);
}

static void assert_nothing_stored(void) {
    assert_int_equal(qf_sql_int("SELECT count(*) FROM segmentations"), 0);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM objects"), 0);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM images WHERE current_segmentation_id IS NOT NULL"), 0);
}

static void test_a_stale_worker_stores_nothing(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    queue_claim_t c;
    claim_new(id, &c);
    qf_expire_leases();
    qf_sweep(qf.q);
    result_t r = make_result(3);
    err_t err;
    assert_int_equal(store_commit(qf.q, qf.pg, "w1", &c, &r, "{}", &err), ERR_CONFLICT);
    assert_string_equal(err.code, "claim_lost");
    assert_nothing_stored();
    result_free(&r);
}

static void test_a_cancelled_job_stores_nothing(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    queue_claim_t c;
    claim_new(id, &c);
    job_state_t s;
    assert_int_equal(queue_cancel(qf.q, id, &s, NULL), ERR_OK);
    result_t r = make_result(3);
    assert_int_equal(store_commit(qf.q, qf.pg, "w1", &c, &r, "{}", NULL), ERR_CANCELLED);
    assert_nothing_stored();
    result_free(&r);
}

static void test_a_deleted_image_stores_nothing(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    queue_claim_t c;
    claim_new(id, &c);
    qf_sql("DELETE FROM images");
    result_t r = make_result(3);
    assert_int_equal(store_commit(qf.q, qf.pg, "w1", &c, &r, "{}", NULL), ERR_CONFLICT);
    assert_nothing_stored();
    err_t why = {.kind = ERR_UNAVAILABLE, .code = "claim_lost"};
    assert_int_equal(queue_fail(qf.q, "w1", &c, &why, NULL), ERR_CONFLICT);
    assert_int_equal(qf_redis_int("ZCARD", "sg:lease"), 0);
    result_free(&r);
}

/* An object that the database refuses (a number twice) must take the whole result with it. */
static void test_all_or_nothing(void **state) {
    (void)state;
    qf_reset();
    char id[JOB_ID_LEN];
    queue_claim_t c;
    claim_new(id, &c);
    int64_t seq = c.seq;
    result_t r = make_result(3);
    r.objects[2].idx = 1;
    assert_true(store_commit(qf.q, qf.pg, "w1", &c, &r, "{}", NULL) != ERR_OK);
    assert_nothing_stored();
    qf_assert_job(id, "active", 1);
    assert_int_equal(c.seq, seq);
    r.objects[2].idx = 3;
    assert_int_equal(store_commit(qf.q, qf.pg, "w1", &c, &r, "{}", NULL), ERR_OK);
    result_free(&r);
}

/* ---- an earlier result of the same bytes ---- */

static void store_one(const char *recipe, uint32_t objects) {
    char id[JOB_ID_LEN];
    queue_claim_t c;
    claim_new(id, &c);
    result_t r = make_result(objects);
    (void)snprintf(r.recipe, sizeof r.recipe, "%s", recipe);
    assert_int_equal(store_commit(qf.q, qf.pg, "w1", &c, &r, "{}", NULL), ERR_OK);
    result_free(&r);
}

/* A new job of a user, asked about an earlier result; finished either way. */
static bool reuses(int user, const char *recipe, double threshold, const char *change) {
    char id[JOB_ID_LEN];
    queue_claim_t c;
    const store_key_t key = {.recipe = recipe, .threshold = threshold};
    bool found = false;
    int count = -1;
    err_t err;
    qf_job(user, "nuclei", 5, id);
    if (change) {
        qf_sql(change);
    }
    (void)qf_enqueue(id);
    assert_true(qf_claim("w1", &c));
    int64_t seq = c.seq;
    assert_int_equal(store_cached(qf.q, qf.pg, &c, &key, &count, &found, &err), ERR_OK);
    if (found) {
        qf_assert_job(id, "completed", 1);
        assert_int_equal(count, 3);
        queue_complete_done(qf.q, "w1", &c, count);
    } else {
        qf_assert_job(id, "active", 1);
        assert_int_equal(c.seq, seq);
        const err_t why = {.kind = ERR_INVALID, .code = "x"};
        assert_int_equal(queue_fail(qf.q, "w1", &c, &why, NULL), ERR_OK);
    }
    return found;
}

static void test_an_earlier_result_is_taken_over(void **state) {
    (void)state;
    qf_reset();
    store_one("program settings", 3);
    assert_true(reuses(0, "program settings", 0.4, NULL));
    assert_int_equal(
        qf_sql_int("SELECT count(*) FROM segmentations s JOIN images i ON i.current_segmentation_id = s.id "
                   "AND i.latest_job_id = s.job_id JOIN segmentations e ON e.id = s.cached_from "
                   "WHERE s.id <> e.id AND s.image_id <> e.image_id AND s.object_count = 3 AND s.note = e.note "
                   "AND s.model_sha256 = e.model_sha256 AND s.recipe = e.recipe AND s.width = e.width"),
        1);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM objects a JOIN objects b USING (idx, geometry, area, confidence, "
                                "measurements) JOIN segmentations s ON s.id = a.segmentation_id AND "
                                "b.segmentation_id = s.cached_from WHERE a.bbox ~= b.bbox"),
                     3);
    qf_sql("DELETE FROM segmentations WHERE cached_from IS NULL"); /* the copy stands on its own, and serves as well */
    assert_int_equal(qf_sql_int("SELECT count(*) FROM objects"), 3);
    assert_true(reuses(0, "program settings", 0.4, NULL));
}

static void test_another_result_is_not_taken_over(void **state) {
    (void)state;
    qf_reset();
    store_one("program settings", 3);
    store_one("", 3);
    assert_false(reuses(0, "program other", 0.4, NULL));
    assert_false(reuses(0, "", 0.4, NULL));
    assert_false(reuses(0, "program settings", 0.41, NULL));
    assert_false(reuses(0, "program settings", 0.4, "UPDATE jobs SET detect_holes = false WHERE state = 'queued'"));
    assert_false(reuses(
        0, "program settings", 0.4,
        "UPDATE images SET sha256 = sha256('y') WHERE id IN (SELECT image_id FROM jobs WHERE state = 'queued')"));
    assert_false(reuses(1, "program settings", 0.4, NULL)); /* another person's result is theirs */
    assert_int_equal(qf_sql_int("SELECT count(*) FROM segmentations"), 2);
    assert_true(reuses(0, "program settings", 0.4, NULL));
}

static void test_a_stale_worker_takes_nothing_over(void **state) {
    (void)state;
    qf_reset();
    store_one("r", 3);
    char id[JOB_ID_LEN];
    queue_claim_t c;
    const store_key_t key = {.recipe = "r", .threshold = 0.4};
    bool found = true;
    int count = -1;
    claim_new(id, &c);
    (void)snprintf(c.token, sizeof c.token, "another");
    assert_int_equal(store_cached(qf.q, qf.pg, &c, &key, &count, &found, NULL), ERR_CONFLICT);
    assert_false(found);
    assert_int_equal(qf_sql_int("SELECT count(*) FROM segmentations"), 1);
    qf_assert_job(id, "active", 1);
}

int main(void) {
    if (!private_pg_available() || !private_redis_available()) {
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_result_is_stored),
        cmocka_unit_test(test_nothing_found_is_a_result),
        cmocka_unit_test(test_many_objects),
        cmocka_unit_test(test_a_stale_worker_stores_nothing),
        cmocka_unit_test(test_a_cancelled_job_stores_nothing),
        cmocka_unit_test(test_a_deleted_image_stores_nothing),
        cmocka_unit_test(test_all_or_nothing),
        cmocka_unit_test(test_an_earlier_result_is_taken_over),
        cmocka_unit_test(test_another_result_is_not_taken_over),
        cmocka_unit_test(test_a_stale_worker_takes_nothing_over),
    };
    return cmocka_run_group_tests(tests, qf_setup, qf_teardown);
}
