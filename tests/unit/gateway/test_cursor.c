/*
 * Cursors (what comes back is what went in, and nothing else gets through), ETag lists, ranges, and statuses of
 * problems.
 */
#include <string.h>

#include "gateway/http_internal.h"
#include "tests/unit/support/cmocka_all.h"

#define ID "6ba7b810-9dad-41d1-80b4-00c04fd430c8"

static http_request_t req;

static void round_trip(void **state) {
    char at[64];
    char id[37];
    (void)state;
    char *cursor = http_cursor_make(&req, "2031-05-06T07:08:09.123456Z", ID);
    assert_non_null(cursor);
    assert_true(strspn(cursor, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == strlen(cursor));
    assert_int_equal(http_cursor_parse(&req, cursor, at, id, NULL), ERR_OK);
    assert_string_equal(at, "2031-05-06T07:08:09.123456Z");
    assert_string_equal(id, ID);
    cursor = http_cursor_make(&req, "2031-05-06 07:08:09.1+00", ID);
    assert_int_equal(http_cursor_parse(&req, cursor, at, id, NULL), ERR_OK);
    assert_string_equal(at, "2031-05-06 07:08:09.1+00");
}

static void nothing_else_gets_through(void **state) {
    static const char *const made[][2] = {{"2031-05-06'; DROP TABLE users; --", ID},
                                          {"now()", ID},
                                          {"", ID},
                                          {"2031-05-06T07:08:09Z", "6ba7b810-9dad-41d1-80b4-00c04fd430cz"},
                                          {"2031-05-06T07:08:09Z", ""}};
    static const char *const text[] = {"", "!", "AAAA", "====", "a b", "../../..", "\xff\xfe"};
    char at[64];
    char id[37];
    char big[400];
    (void)state;
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++) {
        char *cursor = http_cursor_make(&req, made[i][0], made[i][1]);
        assert_int_equal(http_cursor_parse(&req, cursor, at, id, NULL), ERR_INVALID);
    }
    for (size_t i = 0; i < sizeof text / sizeof text[0]; i++) {
        assert_int_equal(http_cursor_parse(&req, text[i], at, id, NULL), ERR_INVALID);
    }
    memset(big, 'A', sizeof big - 1);
    for (size_t n = 0; n < sizeof big; n++) {
        big[n] = '\0';
        assert_int_equal(http_cursor_parse(&req, big, at, id, NULL), ERR_INVALID);
        big[n] = 'A';
    }
    char *cursor = http_cursor_make(&req, "2031-05-06T07:08:09.123456Z", ID);
    for (size_t n = strlen(cursor) - 1; n > 0; n--) {
        cursor[n] = '\0';
        assert_int_equal(http_cursor_parse(&req, cursor, at, id, NULL), ERR_INVALID);
    }
}

static void etag_lists(void **state) {
    (void)state;
    assert_true(http_etag_listed("\"7\"", "7", true));
    assert_true(http_etag_listed("W/\"7\"", "7", true));
    assert_false(http_etag_listed("W/\"7\"", "7", false));
    assert_true(http_etag_listed("\"1\", \"7\"", "7", true));
    assert_true(http_etag_listed("\"a,b\",\"7\"", "7", false));
    assert_true(http_etag_listed("*", "7", true));
    assert_true(http_etag_listed("7", "7", true));
    assert_false(http_etag_listed("\"77\"", "7", true));
    assert_false(http_etag_listed("\"7", "77", true));
    assert_false(http_etag_listed("\"", "7", true));
    assert_false(http_etag_listed("", "7", true));
    assert_false(http_etag_listed("W/", "7", true));
}

static void check_range(const char *header, http_range_t wanted, int64_t first, int64_t last) {
    int64_t a = -1;
    int64_t b = -1;
    assert_int_equal(http_range_parse(header, 100, &a, &b), wanted);
    if (wanted == HTTP_RANGE_OK) {
        assert_int_equal(a, first);
        assert_int_equal(b, last);
    }
}

static void ranges(void **state) {
    int64_t a;
    int64_t b;
    (void)state;
    check_range("bytes=0-0", HTTP_RANGE_OK, 0, 0);
    check_range("bytes=10-19", HTTP_RANGE_OK, 10, 19);
    check_range("bytes=90-", HTTP_RANGE_OK, 90, 99);
    check_range("bytes=90-1000", HTTP_RANGE_OK, 90, 99);
    check_range("bytes=-10", HTTP_RANGE_OK, 90, 99);
    check_range("bytes=-1000", HTTP_RANGE_OK, 0, 99);
    check_range("bytes=100-", HTTP_RANGE_BAD, 0, 0);
    check_range("bytes=200-300", HTTP_RANGE_BAD, 0, 0);
    check_range("bytes=-0", HTTP_RANGE_BAD, 0, 0);
    check_range("bytes=5-4", HTTP_RANGE_NONE, 0, 0);
    check_range("bytes=0-1,5-6", HTTP_RANGE_NONE, 0, 0);
    check_range("bytes=", HTTP_RANGE_NONE, 0, 0);
    check_range("bytes=-", HTTP_RANGE_NONE, 0, 0);
    check_range("bytes=a-b", HTTP_RANGE_NONE, 0, 0);
    check_range("bytes=1-2x", HTTP_RANGE_NONE, 0, 0);
    check_range("bytes=99999999999999999999-", HTTP_RANGE_NONE, 0, 0);
    check_range("items=0-1", HTTP_RANGE_NONE, 0, 0);
    assert_int_equal(http_range_parse("bytes=0-", 0, &a, &b), HTTP_RANGE_BAD);
    assert_int_equal(http_range_parse("bytes=-5", 0, &a, &b), HTTP_RANGE_BAD);
}

static void statuses_of_problems(void **state) {
    err_t err;
    (void)state;
    err_set(&err, ERR_INVALID, "field_invalid", "x", NULL);
    assert_int_equal(http_problem_status(&err), 400);
    err_set(&err, ERR_INVALID, "image_corrupt", "x", NULL);
    assert_int_equal(http_problem_status(&err), 422);
    err_set(&err, ERR_INVALID, "model_unknown", "x", NULL);
    assert_int_equal(http_problem_status(&err), 422);
    err_set(&err, ERR_PRECONDITION, "if_match_required", "x", NULL);
    assert_int_equal(http_problem_status(&err), 428);
    err_set(&err, ERR_PRECONDITION, "version_mismatch", "x", NULL);
    assert_int_equal(http_problem_status(&err), 412);
    err_set(&err, ERR_INVALID, "range_invalid", "x", NULL);
    assert_int_equal(http_problem_status(&err), 416);
    err_set(&err, ERR_UNAVAILABLE, "x", "x", NULL);
    assert_int_equal(http_problem_status(&err), 503);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip), cmocka_unit_test(nothing_else_gets_through), cmocka_unit_test(etag_lists),
        cmocka_unit_test(ranges),     cmocka_unit_test(statuses_of_problems),
    };
    req.arena = arena_create((size_t)1 << 20);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    arena_destroy(req.arena);
    return failed;
}
