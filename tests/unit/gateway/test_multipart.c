/*
 * The form parser: every body gives the same parts no matter how it is cut into pieces, and what is malformed is
 * refused.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "gateway/multipart.h"
#include "tests/unit/support/cmocka_all.h"

#define TYPE "multipart/form-data; boundary=XyZ"

/* Everything the parser says, as text: "[name|file]content;" */
static err_kind_t on_begin(void *arg, const multipart_part_t *part, err_t *err) {
    (void)err;
    buf_printf(arg, "[%s|%s]", part->name, part->file_name ? part->file_name : "-");
    if (part->file_name) {
        assert_int_equal(strlen(part->file_name), part->file_name_len);
    }
    return ERR_OK;
}

static err_kind_t on_data(void *arg, const char *bytes, size_t n, err_t *err) {
    (void)err;
    buf_append(arg, bytes, n);
    return ERR_OK;
}

static err_kind_t on_end(void *arg, err_t *err) {
    (void)err;
    buf_puts(arg, ";");
    return ERR_OK;
}

static err_kind_t parse(const char *type, const char *body, size_t n, size_t piece, buf_t *out, err_t *err) {
    static multipart_t m;
    const multipart_handler_t on = {on_begin, on_data, on_end, out};
    buf_init(out, 1U << 24);
    err_kind_t kind = multipart_init(&m, type, &on, err);
    for (size_t i = 0; i < n && kind == ERR_OK; i += piece) {
        /* A copy of exactly this size, so that a read past the end is caught. */
        const size_t k = n - i < piece ? n - i : piece;
        char *copy = malloc(k);
        assert_non_null(copy);
        memcpy(copy, body + i, k);
        kind = multipart_feed(&m, copy, k, err);
        free(copy);
    }
    return kind == ERR_OK ? multipart_finish(&m, err) : kind;
}

static void accept_n(const char *type, const char *body, size_t n, const char *wanted, size_t wanted_n) {
    for (size_t piece = 1; piece <= n + 1; piece++) {
        buf_t out;
        err_t err = {0};
        assert_int_equal(parse(type, body, n, piece, &out, &err), ERR_OK);
        assert_int_equal(out.len, wanted_n);
        assert_memory_equal(out.data, wanted, wanted_n);
        buf_free(&out);
    }
}

static void accept(const char *body, const char *wanted) {
    accept_n(TYPE, body, strlen(body), wanted, strlen(wanted));
}

static void refuse_n(const char *type, const char *body, size_t n) {
    for (size_t piece = 1; piece <= n + 1; piece += piece < 64 ? 1 : 1021) {
        buf_t out;
        err_t err = {0};
        assert_int_equal(parse(type, body, n, piece, &out, &err), ERR_INVALID);
        assert_string_equal(err.code, "multipart_invalid");
        buf_free(&out);
    }
}

static void refuse(const char *body) {
    refuse_n(TYPE, body, strlen(body));
}

#define PART "Content-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n"

static void reads_a_file(void **state) {
    (void)state;
    accept("--XyZ\r\n" PART "hello\r\n--XyZ--\r\n", "[file|a.png]hello;");
    accept("\r\n--XyZ\r\n" PART "hello\r\n--XyZ--", "[file|a.png]hello;");
    accept("--XyZ\r\n" PART "\r\n--XyZ--", "[file|a.png];");
    accept("--XyZ \t\r\n" PART "x\r\n--XyZ--epilogue\r\n--XyZ", "[file|a.png]x;");
}

static void reads_fields_beside_it(void **state) {
    (void)state;
    accept("--XyZ\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhi\r\n--XyZ\r\n" PART "data\r\n--XyZ--\r\n",
           "[note|-]hi;[file|a.png]data;");
}

static void content_may_look_like_a_boundary(void **state) {
    (void)state;
    accept("--XyZ\r\n" PART "\r\n--XyY\r\n--Xy\r\r\n\r\n-\r\n--X\r\n--XyZ--",
           "[file|a.png]\r\n--XyY\r\n--Xy\r\r\n\r\n-\r\n--X;");
    accept("--XyZ\r\n" PART "--XyZ\r\n--XyZ--", "[file|a.png]--XyZ;");
    static const char body[] = "--XyZ\r\n" PART "\0\r\0\n\xff\r\n--XyZ--";
    static const char wanted[] = "[file|a.png]\0\r\0\n\xff;";
    accept_n(TYPE, body, sizeof body - 1, wanted, sizeof wanted - 1);
}

static void unquotes_names(void **state) {
    (void)state;
    accept("--XyZ\r\ncontent-disposition:form-data;name=\"f\" ; filename=\"a\\\"b\\\\c.png\"\r\n\r\nx\r\n--XyZ--",
           "[f|a\"b\\c.png]x;");
    accept("--XyZ\r\nContent-Disposition: form-data; filename=\"x; name=evil\"; name=\"f\"\r\n\r\nx\r\n--XyZ--",
           "[f|x; name=evil]x;");
    accept("--XyZ\r\nContent-Disposition: form-data; name=\"f\"; filename=\"C:\\dir\\a.png\"\r\n\r\nx\r\n--XyZ--",
           "[f|C:\\dir\\a.png]x;");
    accept("--XyZ\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a %22b%22.png\"\r\n\r\nx\r\n--XyZ--",
           "[f|a \"b\".png]x;");
}

static void accepts_quoted_boundaries(void **state) {
    (void)state;
    static const char body[] = "--a b=c\r\n" PART "x\r\n--a b=c--";
    accept_n("Multipart/Form-Data; charset=utf-8; Boundary=\"a b=c\"", body, sizeof body - 1, "[file|a.png]x;", 14);
}

static void refuses_wrong_types(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"x",
        "multipart/form-data; boundary=a\x01"
        "b",
        "multipart/form-data; boundary=0123456789012345678901234567890123456789012345678901234567890123456789x",
        "multipart/form-data; boundary=\"x \""};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        refuse_n(wrong[i], "", 0);
    }
    buf_t out;
    err_t err = {0};
    assert_int_equal(parse("text/plain", "", 0, 1, &out, &err), ERR_UNSUPPORTED);
    assert_int_equal(parse(NULL, "", 0, 1, &out, &err), ERR_UNSUPPORTED);
}

static void refuses_malformed_bodies(void **state) {
    (void)state;
    refuse("");
    refuse("hello");
    refuse("--XyZ\r\n" PART "cut off");
    refuse("--XyZ\r\n" PART "cut off\r\n--XyZ");
    refuse("--XyZ\r\n" PART "cut off\r\n--XyZ-");
    refuse("--XyZ\n" PART "x\r\n--XyZ--");
    refuse("--XyZ\rx" PART "x\r\n--XyZ--");
    refuse("--XyZx\r\n" PART "x\r\n--XyZ--");
    refuse("--XyZ\r\n" PART "x\r\n--XyZ-x");
    refuse("--XyZ\r\n\r\nno headers\r\n--XyZ--");
    refuse("--XyZ\r\nContent-Type: a/b\r\n\r\nx\r\n--XyZ--");
    refuse("--XyZ\r\nContent-Disposition: form-data\r\n\r\nx\r\n--XyZ--");
    refuse("--XyZ\r\nContent-Disposition: form-data; name=\"open\r\n\r\nx\r\n--XyZ--");
    refuse("--XyZ\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\nx\r\n--XyZ--");
}

static void bounds_headers_and_parts(void **state) {
    (void)state;
    static char big[MULTIPART_MAX_HEADERS + 200];
    int n = snprintf(big, sizeof big, "--XyZ\r\nContent-Disposition: form-data; name=\"");
    memset(big + n, 'a', sizeof big - (size_t)n);
    refuse_n(TYPE, big, sizeof big);

    buf_t many;
    buf_init(&many, 65536);
    for (int i = 0; i < MULTIPART_MAX_PARTS + 1; i++) {
        buf_printf(&many, "--XyZ\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\nx\r\n");
    }
    buf_puts(&many, "--XyZ--");
    refuse_n(TYPE, many.data, many.len);
    buf_free(&many);
}

static err_kind_t stop_at_data(void *arg, const char *bytes, size_t n, err_t *err) {
    (void)bytes;
    (void)n;
    ++*(int *)arg;
    return err_set(err, ERR_TOO_LARGE, "upload_too_large", "Too large.", NULL);
}

static err_kind_t ignore_begin(void *arg, const multipart_part_t *part, err_t *err) {
    (void)arg;
    (void)part;
    (void)err;
    return ERR_OK;
}

static err_kind_t ignore_end(void *arg, err_t *err) {
    (void)arg;
    (void)err;
    return ERR_OK;
}

static void a_callback_can_stop_it(void **state) {
    (void)state;
    static multipart_t m;
    int calls = 0;
    err_t err = {0};
    static const char body[] = "--XyZ\r\n" PART "hello\r\n--XyZ--";
    const multipart_handler_t on = {ignore_begin, stop_at_data, ignore_end, &calls};
    assert_int_equal(multipart_init(&m, TYPE, &on, &err), ERR_OK);
    assert_int_equal(multipart_feed(&m, body, sizeof body - 1, &err), ERR_TOO_LARGE);
    assert_string_equal(err.code, "upload_too_large");
    assert_int_equal(calls, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_file),
        cmocka_unit_test(reads_fields_beside_it),
        cmocka_unit_test(content_may_look_like_a_boundary),
        cmocka_unit_test(unquotes_names),
        cmocka_unit_test(accepts_quoted_boundaries),
        cmocka_unit_test(refuses_wrong_types),
        cmocka_unit_test(refuses_malformed_bodies),
        cmocka_unit_test(bounds_headers_and_parts),
        cmocka_unit_test(a_callback_can_stop_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
