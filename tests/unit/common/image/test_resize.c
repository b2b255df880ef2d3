/* Resampling: constants stay, means stay, known weights, both sample types agree. */
#include "image_fixture.h"

#include <math.h>

static void constant_stays_constant(void **state) {
    (void)state;
    static const int sizes[][4] = {{7, 5, 3, 2}, {3, 2, 17, 11}, {100, 1, 1, 1}, {1, 1, 5, 5}, {8, 8, 8, 3}};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        int sw = sizes[k][0], sh = sizes[k][1], dw = sizes[k][2], dh = sizes[k][3];
        float *s = malloc(sizeof *s * (size_t)(sw * sh)), *d = malloc(sizeof *d * (size_t)(dw * dh));
        for (int i = 0; i < sw * sh; i++) {
            s[i] = 42.5f;
        }
        assert_int_equal(image_resize_f32(s, sw, sh, d, dw, dh, NULL), ERR_OK);
        for (int i = 0; i < dw * dh; i++) {
            assert_float_equal(d[i], 42.5, 1e-5);
        }
        free(s);
        free(d);
    }
}

static void same_size_is_a_copy(void **state) {
    (void)state;
    const float s[4] = {1, -2, 3.5f, 1e9f};
    float d[4];
    assert_int_equal(image_resize_f32(s, 2, 2, d, 2, 2, NULL), ERR_OK);
    assert_memory_equal(s, d, sizeof s);
}

/* Doubling: half-pixel centres put targets a quarter pixel beside the sources. */
static void growing_is_bilinear(void **state) {
    (void)state;
    const float s[2] = {0, 4}, want[4] = {0, 1, 3, 4};
    float d[4];
    assert_int_equal(image_resize_f32(s, 2, 1, d, 4, 1, NULL), ERR_OK);
    for (int i = 0; i < 4; i++) {
        assert_float_equal(d[i], want[i], 1e-6);
    }
}

/* Halving: the triangle spans four sources with weights 1 3 3 1, cut off and renormalised at the edge. */
static void shrinking_weighs_all_sources(void **state) {
    (void)state;
    const float s[8] = {0, 0, 0, 8, 0, 0, 0, 0};
    float d[4];
    assert_int_equal(image_resize_f32(s, 1, 8, d, 1, 4, NULL), ERR_OK);
    assert_float_equal(d[0], 0, 1e-6);
    assert_float_equal(d[1], 3, 1e-6);
    assert_float_equal(d[2], 1, 1e-6);
    assert_float_equal(d[3], 0, 1e-6);
}

static void bytes_agree_with_floats(void **state) {
    (void)state;
    enum { SW = 23, SH = 19 };
    static const int targets[][2] = {{9, 7}, {40, 31}, {23, 5}};
    uint8_t s[SW * SH * 3], d[40 * 31 * 3];
    float plane[SW * SH], out[40 * 31];
    for (size_t i = 0; i < sizeof s; i++) {
        s[i] = (uint8_t)(i * 2654435761u >> 24);
    }
    for (int t = 0; t < 3; t++) {
        int dw = targets[t][0], dh = targets[t][1];
        assert_int_equal(image_resize_u8(s, SW, SH, 3, d, dw, dh, NULL), ERR_OK);
        for (int c = 0; c < 3; c++) {
            for (int i = 0; i < SW * SH; i++) {
                plane[i] = s[i * 3 + c];
            }
            assert_int_equal(image_resize_f32(plane, SW, SH, out, dw, dh, NULL), ERR_OK);
            for (int i = 0; i < dw * dh; i++) {
                assert_true(fabsf(out[i] - (float)d[i * 3 + c]) <= 0.501f);
            }
        }
    }
}

static void nothing_is_no_size(void **state) {
    (void)state;
    float p[1] = {0};
    assert_int_not_equal(image_resize_f32(p, 1, 1, p, 0, 1, NULL), ERR_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(constant_stays_constant), cmocka_unit_test(same_size_is_a_copy),
        cmocka_unit_test(growing_is_bilinear),     cmocka_unit_test(shrinking_weighs_all_sources),
        cmocka_unit_test(bytes_agree_with_floats), cmocka_unit_test(nothing_is_no_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
