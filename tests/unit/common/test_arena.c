/* Arenas: alignment, zeroing, the cap, reset. */
#include "common/arena.h"

#include <string.h>

#include "tests/unit/support/cmocka_all.h"

static void test_aligned_zeroed_and_apart(void **state) {
    (void)state;
    arena_t *a = arena_create(1 << 20);
    unsigned char *parts[200];
    for (int i = 0; i < 200; i++) {
        size_t n = (size_t)i * 7;
        parts[i] = arena_alloc(a, n);
        assert_non_null(parts[i]);
        assert_int_equal((uintptr_t)parts[i] % 16, 0);
        for (size_t k = 0; k < n; k++) {
            assert_int_equal(parts[i][k], 0);
        }
        memset(parts[i], i + 1, n);
    }
    for (int i = 0; i < 200; i++) { /* nothing overlaps */
        for (size_t k = 0; k < (size_t)i * 7; k++) {
            assert_int_equal(parts[i][k], (unsigned char)(i + 1));
        }
    }
    arena_destroy(a);
}

static void test_cap_is_exact(void **state) {
    (void)state;
    arena_t *a = arena_create(1024);
    assert_non_null(arena_alloc(a, 1000));
    assert_int_equal(arena_used(a), 1008);
    assert_null(arena_alloc(a, 17));
    assert_non_null(arena_alloc(a, 16));
    assert_null(arena_alloc(a, 1));
    assert_null(arena_alloc(a, SIZE_MAX));
    assert_null(arena_alloc(a, SIZE_MAX - 15));
    assert_null(arena_strdup(a, "x"));
    assert_null(arena_printf(a, "%d", 5));
    arena_reset(a);
    assert_int_equal(arena_used(a), 0);
    unsigned char *p = arena_alloc(a, 1024);
    assert_non_null(p);
    for (int i = 0; i < 1024; i++) { /* zeroed again, though the block is reused */
        assert_int_equal(p[i], 0);
        p[i] = 0xFF;
    }
    arena_reset(a);
    p = arena_alloc(a, 64);
    assert_int_equal(p[63], 0);
    arena_destroy(a);
    arena_destroy(NULL);
}

static void test_large_requests_and_reset(void **state) {
    (void)state;
    arena_t *a = arena_create((size_t)64 << 20);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++) {
            char *p = arena_alloc(a, (size_t)5 << 20);
            assert_non_null(p);
            p[((size_t)5 << 20) - 1] = 1;
            assert_non_null(arena_alloc(a, 3));
        }
        arena_reset(a);
    }
    arena_destroy(a);
}

static void test_text(void **state) {
    (void)state;
    arena_t *a = arena_create(100000);
    assert_string_equal(arena_strdup(a, "hello"), "hello");
    assert_string_equal(arena_strdup(a, ""), "");
    assert_string_equal(arena_strndup(a, "hello", 3), "hel");
    static const char raw[3] = {'a', 'b', 'c'}; /* not terminated */
    assert_string_equal(arena_strndup(a, raw, 3), "abc");
    assert_string_equal(arena_printf(a, "%s-%04d", "id", 7), "id-0007");
    assert_int_equal(strlen(arena_printf(a, "%5000s", "x")), 5000);
    arena_destroy(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_aligned_zeroed_and_apart),
        cmocka_unit_test(test_cap_is_exact),
        cmocka_unit_test(test_large_requests_and_reset),
        cmocka_unit_test(test_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
