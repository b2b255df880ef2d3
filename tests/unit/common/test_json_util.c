/* JSON: what is accepted and refused, bounds, typed access, escaping. */
#include "common/json_util.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/support/cmocka_all.h"

static cJSON *parse(const char *text) {
    cJSON *o;
    err_t err = {0};
    if (json_parse(text, strlen(text), 1 << 20, 16, &o, &err) != ERR_OK) {
        fail_msg("%s: %s", text, err.message);
    }
    return o;
}

static void test_accepts_what_the_rfc_allows(void **state) {
    (void)state;
    static const char *const texts[] = {"{}",
                                        "[]",
                                        " [ ] ",
                                        "{ \"a\" : [ ] , \"b\" : { } }",
                                        "0",
                                        "-0",
                                        "-0.5e-10",
                                        "1E+3",
                                        "\"\"",
                                        "\"\\u00e9\\ud83d\\ude00\\n\\/\"",
                                        "\"\xC3\xA9\"",
                                        "true",
                                        "false",
                                        "null",
                                        "[1,[2,[3,{\"x\":[null]}]]]",
                                        "\t\r\n 1 \n",
                                        "[{},{},[],[[]]]"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        cJSON_Delete(parse(texts[i]));
    }
}

static void test_refuses_everything_else(void **state) {
    (void)state;
    static const char *const texts[] = {"",
                                        " ",
                                        "{",
                                        "}",
                                        "[",
                                        "]",
                                        "[1",
                                        "[1,",
                                        "[1,]",
                                        "[,1]",
                                        "[1 2]",
                                        "[1}",
                                        "{1:2}",
                                        "{\"a\"}",
                                        "{\"a\":}",
                                        "{\"a\":1,}",
                                        "{\"a\" 1}",
                                        "{\"a\":1 \"b\":2}",
                                        "{,}",
                                        "01",
                                        "-",
                                        "+1",
                                        "1.",
                                        ".5",
                                        "1e",
                                        "1e+",
                                        "0x10",
                                        "NaN",
                                        "Infinity",
                                        "tru",
                                        "truex",
                                        "nul",
                                        "'a'",
                                        "\"a",
                                        "\"\\x\"",
                                        "\"\\u12\"",
                                        "\"\\u12g4\"",
                                        "\"\\ud800\"",
                                        "\"\\udc00\"",
                                        "\"\\ud800\\u0041\"",
                                        "\"\\u0000\"",
                                        "\"\t\"",
                                        "\"\xFF\"",
                                        "\"\xC3\"",
                                        "\"\xC0\x80\"",
                                        "\"\xED\xA0\x80\"",
                                        "1 2",
                                        "{}{}",
                                        "[] x",
                                        "// c\n1",
                                        "\xEF\xBB\xBF{}",
                                        "{\"a\":1,\"a\":2}",
                                        "[{\"x\":{\"b\":1,\"c\":2,\"b\":3}}]"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        cJSON *o;
        err_t err;
        if (json_parse(texts[i], strlen(texts[i]), 1 << 20, 16, &o, &err) != ERR_INVALID) {
            fail_msg("accepted: %s", texts[i]);
        }
        assert_null(o);
        assert_string_equal(err.code, "invalid_json");
    }
    cJSON *o;
    err_t err;
    assert_int_equal(json_parse("[1]\0", 4, 100, 16, &o, &err), ERR_INVALID); /* a zero byte is no white space */
    assert_int_equal(json_parse("{\"a\": }", 7, 100, 16, &o, &err), ERR_INVALID);
    assert_non_null(strstr(err.message, "byte 6"));
}

static void test_bounds(void **state) {
    (void)state;
    char deep[200001];
    cJSON *o;
    err_t err;
    memset(deep, '[', 16);
    memset(deep + 16, ']', 16);
    assert_int_equal(json_parse(deep, 32, 1000, 16, &o, &err), ERR_OK);
    cJSON_Delete(o);
    assert_int_equal(json_parse(deep, 32, 1000, 15, &o, &err), ERR_INVALID);
    assert_int_equal(json_parse(deep, 32, 31, 16, &o, &err), ERR_TOO_LARGE);
    assert_string_equal(err.code, "json_too_large");
    memset(deep, '[', sizeof deep); /* must neither crash nor take long */
    assert_int_equal(json_parse(deep, sizeof deep, sizeof deep, JSON_DEPTH_MAX, &o, &err), ERR_INVALID);
    assert_int_equal(json_parse(deep, sizeof deep, sizeof deep, 1000000, &o, &err), ERR_INVALID);
    /* not terminated by a zero byte: nothing behind the end is read */
    char *exact = malloc(5);
    memcpy(exact, "[123]", 5);
    assert_int_equal(json_parse(exact, 5, 5, 4, &o, &err), ERR_OK);
    cJSON_Delete(o);
    assert_int_equal(json_parse(exact, 4, 5, 4, &o, &err), ERR_INVALID);
    free(exact);
}

static void test_many_members(void **state) {
    (void)state;
    buf_t b;
    buf_init(&b, 1 << 22);
    buf_puts(&b, "{");
    for (int i = 0; i < 20000; i++) {
        buf_printf(&b, "%s\"k%d\":%d", i ? "," : "", i, i);
    }
    buf_puts(&b, "}");
    cJSON *o;
    err_t err;
    assert_int_equal(json_parse(b.data, b.len, 1 << 22, 2, &o, &err), ERR_OK);
    cJSON_Delete(o);
    b.len--;
    buf_puts(&b, ",\"k7\":1}");
    assert_int_equal(json_parse(b.data, b.len, 1 << 22, 2, &o, &err), ERR_INVALID);
    buf_free(&b);
}

static void test_typed_members(void **state) {
    (void)state;
    cJSON *o = parse(
        "{\"s\":\"h\\u00e9llo\",\"i\":9007199254740992,\"f\":1.5,\"t\":true,\"n\":null,\"a\":[1,2],\"big\":1e300}");
    err_t err;
    const char *s = "default";
    int64_t i = -1;
    double f = -1;
    bool t = false;
    const cJSON *a = NULL;
    assert_int_equal(json_get_string(o, "s", JSON_REQUIRED, 5, 5, &s, &err), ERR_OK); /* five characters, six bytes */
    assert_string_equal(s, "h\xC3\xA9llo");
    assert_int_equal(json_get_string(o, "s", JSON_REQUIRED, 6, 10, &s, &err), ERR_INVALID);
    assert_string_equal(err.code, "invalid_field");
    assert_non_null(strstr(err.message, "\"s\""));
    assert_int_equal(json_get_string(o, "i", JSON_OPTIONAL, 0, 10, &s, &err), ERR_INVALID);
    assert_int_equal(json_get_int(o, "i", JSON_REQUIRED, 0, INT64_MAX, &i, &err), ERR_OK);
    assert_int_equal(i, 9007199254740992LL);
    assert_int_equal(json_get_int(o, "f", JSON_REQUIRED, 0, 10, &i, &err), ERR_INVALID);
    assert_int_equal(json_get_int(o, "big", JSON_REQUIRED, INT64_MIN, INT64_MAX, &i, &err), ERR_INVALID);
    assert_int_equal(json_get_int(o, "i", JSON_REQUIRED, 0, 10, &i, &err), ERR_INVALID);
    assert_int_equal(json_get_real(o, "f", JSON_REQUIRED, 1.5, 1.5, &f, &err), ERR_OK);
    assert_true(f == 1.5);
    assert_int_equal(json_get_real(o, "f", JSON_REQUIRED, 1.6, 2, &f, &err), ERR_INVALID);
    assert_int_equal(json_get_real(o, "t", JSON_REQUIRED, 0, 2, &f, &err), ERR_INVALID);
    assert_int_equal(json_get_bool(o, "t", JSON_REQUIRED, &t, &err), ERR_OK);
    assert_true(t);
    assert_int_equal(json_get_bool(o, "i", JSON_REQUIRED, &t, &err), ERR_INVALID);
    assert_int_equal(json_get_array(o, "a", JSON_REQUIRED, 1, 2, &a, &err), ERR_OK);
    assert_int_equal(cJSON_GetArraySize(a), 2);
    assert_int_equal(json_get_array(o, "a", JSON_REQUIRED, 3, 9, &a, &err), ERR_INVALID);
    assert_int_equal(json_get_array(o, "s", JSON_REQUIRED, 0, 9, &a, &err), ERR_INVALID);
    /* absent and null */
    i = 42;
    assert_int_equal(json_get_int(o, "none", JSON_OPTIONAL, 0, 1, &i, &err), ERR_OK);
    assert_int_equal(json_get_int(o, "n", JSON_OPTIONAL, 0, 1, &i, &err), ERR_OK);
    assert_int_equal(i, 42);
    assert_int_equal(json_get_int(o, "none", JSON_REQUIRED, 0, 1, &i, &err), ERR_INVALID);
    assert_int_equal(json_get_int(o, "n", JSON_REQUIRED, 0, 1, &i, &err), ERR_INVALID);
    assert_int_equal(json_get_int(o, "I", JSON_REQUIRED, 0, 1, &i, &err), ERR_INVALID); /* case counts */
    assert_int_equal(json_get_int(a, "x", JSON_REQUIRED, 0, 1, &i, &err), ERR_INVALID); /* no object */
    cJSON_Delete(o);
}

static void test_unknown_members(void **state) {
    (void)state;
    static const char *const known[] = {"a", "b"};
    cJSON *o = parse("{\"b\":1}");
    err_t err;
    assert_int_equal(json_check_members(o, known, 2, &err), ERR_OK);
    assert_int_equal(json_check_members(o, known, 1, &err), ERR_INVALID);
    assert_string_equal(err.code, "unknown_field");
    cJSON_Delete(o);
    o = parse("[1]");
    assert_int_equal(json_check_members(o, known, 2, &err), ERR_INVALID);
    cJSON_Delete(o);
}

static void test_writing(void **state) {
    (void)state;
    buf_t b;
    buf_init(&b, 1 << 16);
    json_put_string(&b, "a\"b\\c\n\x01\x7F\xC3\xA9\xFF/");
    assert_string_equal(b.data, "\"a\\\"b\\\\c\\u000a\\u0001\\u007f\xC3\xA9\xEF\xBF\xBD/\"");
    buf_reset(&b);
    json_put_string(&b, NULL);
    buf_puts(&b, ",");
    json_put_string(&b, "");
    assert_string_equal(b.data, "null,\"\"");
    buf_reset(&b);
    json_put_real(&b, 0.1, 17);
    assert_true(strtod(b.data, NULL) == 0.1);
    buf_reset(&b);
    json_put_real(&b, 1234.5678, 6);
    buf_puts(&b, ",");
    json_put_real(&b, (double)NAN, 6);
    buf_puts(&b, ",");
    json_put_real(&b, -(double)INFINITY, 6);
    assert_string_equal(b.data, "1234.57,null,null");
    /* every byte, there and back */
    for (int c = 1; c < 128; c++) {
        char text[4] = {'x', (char)c, 'y', '\0'};
        buf_reset(&b);
        json_put_string(&b, text);
        cJSON *o = parse(b.data);
        assert_string_equal(cJSON_GetStringValue(o), text);
        cJSON_Delete(o);
    }
    buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts_what_the_rfc_allows),
        cmocka_unit_test(test_refuses_everything_else),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_many_members),
        cmocka_unit_test(test_typed_members),
        cmocka_unit_test(test_unknown_members),
        cmocka_unit_test(test_writing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
