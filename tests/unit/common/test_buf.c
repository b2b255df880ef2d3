/* Buffers: growth, the cap, failing writes, byte order. */
#include "common/buf.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/support/cmocka_all.h"

static void test_grows_and_stays_terminated(void **state) {
    (void)state;
    buf_t b;
    buf_init(&b, 1 << 20);
    assert_null(b.data);
    for (int i = 0; i < 10000; i++) {
        buf_append(&b, "ab", 2);
        assert_int_equal(b.data[b.len], '\0');
    }
    assert_int_equal(b.len, 20000);
    assert_int_equal(strlen(b.data), 20000);
    buf_reset(&b);
    assert_int_equal(b.len, 0);
    assert_string_equal(b.data, "");
    buf_printf(&b, "%d %s", 5, "x");
    buf_puts(&b, "!");
    assert_string_equal(b.data, "5 x!");
    buf_free(&b);
    assert_null(b.data);
}

static void test_cap_is_exact_and_failure_sticks(void **state) {
    (void)state;
    buf_t b;
    buf_init(&b, 10);
    buf_puts(&b, "0123456789");
    assert_false(b.failed);
    assert_int_equal(b.len, 10);
    buf_append(&b, "", 0);
    assert_false(b.failed);
    buf_puts(&b, "x");
    assert_true(b.failed);
    assert_string_equal(b.data, "0123456789"); /* what was there is kept */
    buf_puts(&b, "");
    assert_true(b.failed);
    buf_reset(&b);
    assert_false(b.failed);
    buf_puts(&b, "abc");
    buf_append(&b, "x", SIZE_MAX); /* no overflow in the sum */
    assert_true(b.failed);
    assert_string_equal(b.data, "abc");
    buf_reset(&b);
    buf_printf(&b, "%s", "0123456789");
    assert_false(b.failed);
    buf_printf(&b, "%s", "too long");
    assert_true(b.failed);
    assert_string_equal(b.data, "0123456789");
    buf_free(&b);
    buf_init(&b, 0);
    buf_printf(&b, "%s", "");
    assert_false(b.failed);
    buf_put_u8(&b, 1);
    assert_true(b.failed);
    buf_free(&b);
}

static void test_printf_across_growth(void **state) {
    (void)state;
    for (size_t before = 0; before < 200; before++) {
        buf_t b;
        buf_init(&b, 100000);
        for (size_t i = 0; i < before; i++) {
            buf_put_u8(&b, '.');
        }
        buf_printf(&b, "%s", "0123456789012345678901234567890123456789");
        assert_int_equal(b.len, before + 40);
        assert_string_equal(b.data + before, "0123456789012345678901234567890123456789");
        buf_free(&b);
    }
}

static void test_little_endian(void **state) {
    (void)state;
    buf_t b;
    buf_init(&b, 100);
    buf_put_u8(&b, 0x12);
    buf_put_u16le(&b, 0x3456);
    buf_put_u32le(&b, 0x789ABCDE);
    buf_put_f32le(&b, 1.0F);
    static const unsigned char want[] = {0x12, 0x56, 0x34, 0xDE, 0xBC, 0x9A, 0x78, 0, 0, 0x80, 0x3F};
    assert_int_equal(b.len, sizeof want);
    assert_memory_equal(b.data, want, sizeof want);
    buf_free(&b);
}

static void test_take(void **state) {
    (void)state;
    buf_t b;
    buf_init(&b, 100);
    buf_puts(&b, "mine");
    size_t n;
    char *p = buf_take(&b, &n);
    assert_string_equal(p, "mine");
    assert_int_equal(n, 4);
    assert_null(b.data);
    buf_puts(&b, "again"); /* still usable, with the same cap */
    assert_string_equal(b.data, "again");
    free(p);
    buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grows_and_stays_terminated),
        cmocka_unit_test(test_cap_is_exact_and_failure_sticks),
        cmocka_unit_test(test_printf_across_growth),
        cmocka_unit_test(test_little_endian),
        cmocka_unit_test(test_take),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
