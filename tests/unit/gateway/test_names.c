/*
 * File names from browsers: what is dangerous or ugly in them never gets through, what people wrote stays.
 */
#include <string.h>

#include "common/utf8.h"
#include "gateway/names.h"
#include "tests/unit/support/cmocka_all.h"

static void check(const char *in, const char *wanted) {
    char out[NAMES_ROOM];
    names_sanitise(in, strlen(in), out);
    assert_string_equal(out, wanted);
}

static void keeps_ordinary_names(void **state) {
    (void)state;
    check("a.tif", "a.tif");
    check("Plate 3, well B7 (day 4).ome.tif", "Plate 3, well B7 (day 4).ome.tif");
    check("Sféroid č. 1 — 腫瘍.png", "Sféroid č. 1 — 腫瘍.png");
    check(".hidden", ".hidden");
}

static void drops_paths(void **state) {
    (void)state;
    check("/etc/passwd", "passwd");
    check("../../x.png", "x.png");
    check("C:\\Users\\me\\b.jpg", "b.jpg");
    check("dir/", "image");
    check("..", "image");
    check(".", "image");
    check("a/..", "image");
}

static void drops_controls(void **state) {
    (void)state;
    check("a\r\nb\t.png", "ab.png");
    check("a\x7f.png", "a.png");
    check("x\xE2\x80\xAEgnp.exe", "xgnp.exe"); /* right-to-left override */
    check("\xEF\xBB\xBFname.tif", "name.tif"); /* byte-order mark */
    check("a\xC2\x85z.png", "az.png");         /* C1 control */
    char out[NAMES_ROOM];
    names_sanitise("a\0b.png", 7, out);
    assert_string_equal(out, "ab.png");
}

static void drops_invalid_utf8(void **state) {
    (void)state;
    check("a\xFF\xC3.png", "a.png");
    check("a\xC0\xAF.png", "a.png"); /* an overlong slash is no slash */
    check("\xED\xA0\x80", "image");  /* surrogate */
}

static void trims(void **state) {
    (void)state;
    check("  a.png  ", "a.png");
    check("a.png...", "a.png");
    check("   ", "image");
    check("", "image");
    char in[301];
    char out[NAMES_ROOM];
    memset(in, 'x', sizeof in);
    memset(in + 250, ' ', 10); /* the name is cut among the blanks */
    names_sanitise(in, 300, out);
    assert_int_equal(strlen(out), 250);
    memset(in, '.', 280);
    names_sanitise(in, 300, out); /* nothing but dots is left */
    assert_string_equal(out, "image");
}

static void cuts_between_characters_and_keeps_the_extension(void **state) {
    (void)state;
    for (size_t lead = 0; lead < 4; lead++) {
        char in[2048], out[NAMES_ROOM];
        size_t n = 0;
        memset(in, 'x', lead);
        n += lead;
        while (n < 900) {
            memcpy(in + n, "\xE8\x85\xAB", 3);
            n += 3;
        }
        memcpy(in + n, ".ome.tiff", 9);
        n += 9;
        names_sanitise(in, n, out);
        const size_t len = strlen(out);
        assert_true(len <= 255 && len > 255 - 3);
        assert_true(utf8_is_valid(out, len));
        assert_string_equal(out + len - 5, ".tiff");
    }
}

static void survives_absurd_lengths(void **state) {
    (void)state;
    static char in[100000];
    char out[NAMES_ROOM];
    memset(in, 'a', sizeof in);
    names_sanitise(in, sizeof in, out);
    assert_int_equal(strlen(out), 255);
    memset(in, '\n', sizeof in);
    names_sanitise(in, sizeof in, out);
    assert_string_equal(out, "image");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_ordinary_names),
        cmocka_unit_test(drops_paths),
        cmocka_unit_test(drops_controls),
        cmocka_unit_test(drops_invalid_utf8),
        cmocka_unit_test(trims),
        cmocka_unit_test(cuts_between_characters_and_keeps_the_extension),
        cmocka_unit_test(survives_absurd_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
