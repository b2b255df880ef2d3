/* Errors: what is kept, how texts are cut, statuses, what may be retried. */
#include "common/err.h"

#include <string.h>

#include "common/utf8.h"
#include "tests/unit/support/cmocka_all.h"

static void test_set_fills_every_part(void **state) {
    (void)state;
    err_t err;
    assert_int_equal(err_set(&err, ERR_IO, "disk", "The disk is full.", "errno %d", 28), ERR_IO);
    assert_int_equal(err.kind, ERR_IO);
    assert_string_equal(err.code, "disk");
    assert_string_equal(err.message, "The disk is full.");
    assert_string_equal(err.detail, "errno 28");
    assert_int_equal(err_setf(&err, ERR_INVALID, "field", "%s is %d", "x", 3), ERR_INVALID);
    assert_string_equal(err.message, "x is 3");
    assert_string_equal(err.detail, ""); /* nothing of the earlier error is left */
    err_clear(&err);
    assert_int_equal(err.kind, ERR_OK);
    assert_string_equal(err.code, "");
}

static void test_null_is_allowed(void **state) {
    (void)state;
    assert_int_equal(err_set(NULL, ERR_TIMEOUT, "t", "m", "d %d", 1), ERR_TIMEOUT);
    assert_int_equal(err_setf(NULL, ERR_LIMIT, "t", "m %d", 1), ERR_LIMIT);
    err_clear(NULL);
}

static void test_long_texts_are_cut_between_characters(void **state) {
    (void)state;
    char text[1001];
    for (int shift = 0; shift < 3; shift++) {
        memset(text, 'a', sizeof text);
        for (int i = shift; i + 2 < 1000; i += 3) {
            memcpy(text + i, "\xE2\x82\xAC", 3); /* the euro sign */
        }
        text[900] = '\0';
        err_t err;
        err_setf(&err, ERR_INVALID, text, "%s", text);
        assert_true(strlen(err.message) >= sizeof err.message - 4);
        assert_true(strlen(err.code) >= sizeof err.code - 4);
        assert_true(utf8_is_valid(err.message, strlen(err.message)));
        assert_true(utf8_is_valid(err.code, strlen(err.code)));
    }
}

static void test_arguments_may_come_from_the_error_itself(void **state) {
    (void)state;
    err_t err;
    err_setf(&err, ERR_IO, "inner", "inner words");
    err_set(&err, ERR_INTERNAL, err.code, err.message, "caused by %s (%s)", err.message, err.code);
    assert_string_equal(err.code, "inner");
    assert_string_equal(err.message, "inner words");
    assert_string_equal(err.detail, "caused by inner words (inner)");
}

static void test_statuses_and_retries(void **state) {
    (void)state;
    static const struct {
        err_kind_t kind;
        int status, retryable;
    } rows[] = {{ERR_OK, 200, 0},           {ERR_INVALID, 400, 0},     {ERR_UNAUTHENTICATED, 401, 0},
                {ERR_FORBIDDEN, 403, 0},    {ERR_NOT_FOUND, 404, 0},   {ERR_CONFLICT, 409, 0},
                {ERR_PRECONDITION, 412, 0}, {ERR_TOO_LARGE, 413, 0},   {ERR_UNSUPPORTED, 415, 0},
                {ERR_LIMIT, 429, 1},        {ERR_UNAVAILABLE, 503, 1}, {ERR_TIMEOUT, 504, 1},
                {ERR_CANCELLED, 409, 0},    {ERR_NO_MEMORY, 500, 1},   {ERR_IO, 500, 1},
                {ERR_INTERNAL, 500, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(rows[i].kind, i); /* no kind is forgotten here */
        assert_int_equal(err_http_status(rows[i].kind), rows[i].status);
        assert_int_equal(err_is_retryable(rows[i].kind) != 0, rows[i].retryable);
        assert_true(strlen(err_kind_name(rows[i].kind)) > 0);
        assert_string_not_equal(err_kind_name(rows[i].kind), "unknown");
    }
    assert_string_equal(err_kind_name((err_kind_t)99), "unknown");
    assert_int_equal(err_http_status((err_kind_t)99), 500);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_fills_every_part),
        cmocka_unit_test(test_null_is_allowed),
        cmocka_unit_test(test_long_texts_are_cut_between_characters),
        cmocka_unit_test(test_arguments_may_come_from_the_error_itself),
        cmocka_unit_test(test_statuses_and_retries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
