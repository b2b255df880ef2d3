/* Percentiles are exact order statistics with linear interpolation; normalising clips and notices missing contrast. */
#include "tests/unit/support/cmocka_all.h"

#include <math.h>
#include <stdlib.h>

#include "segworker/pipeline/normalise.h"

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double by_sorting(const float *v, size_t n, double q) {
    float *s = malloc(n * sizeof *s);
    for (size_t i = 0; i < n; i++) {
        s[i] = v[i];
    }
    qsort(s, n, sizeof *s, ascending);
    double at = (double)(n - 1) * (q / 100.0);
    size_t k = (size_t)floor(at), next = k + 1 < n ? k + 1 : k;
    double t = at - floor(at), d = s[next] - s[k];
    double r = t >= 0.5 ? s[next] - d * (1 - t) : s[k] + d * t;
    free(s);
    return r;
}

static void agrees_with_sorting(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 2, 3, 10, 1000, 4097};
    static const double qs[][2] = {{0, 100}, {1, 99.8}, {50, 50}, {0.1, 33.3}, {99, 99.9}};
    unsigned seed = 7;
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        size_t n = sizes[k];
        float *v = malloc(n * sizeof *v);
        for (int kind = 0; kind < 3; kind++) {
            for (size_t i = 0; i < n; i++) {
                seed = seed * 1664525u + 1013904223u;
                float u = (float)(seed >> 8) / 16777216.0f;
                v[i] = kind == 0   ? (float)(int)(u * 9) - 4
                       : kind == 1 ? (u - 0.5f) * 1e-3f
                                   : ldexpf(u - 0.5f, (int)(seed % 200) - 100);
            }
            for (size_t q = 0; q < sizeof qs / sizeof qs[0]; q++) {
                double lo = 0, hi = 0;
                assert_int_equal(normalise_percentiles(v, n, qs[q][0], qs[q][1], &lo, &hi, NULL), ERR_OK);
                assert_true(lo == by_sorting(v, n, qs[q][0]));
                assert_true(hi == by_sorting(v, n, qs[q][1]));
            }
        }
        free(v);
    }
}

static void parts_give_the_same_as_the_whole(void **state) {
    (void)state;
    enum { N = 10007 };
    float *v = malloc(N * sizeof *v);
    unsigned seed = 9;
    for (int kind = 0; kind < 3; kind++) {
        for (int i = 0; i < N; i++) {
            seed = seed * 1664525u + 1013904223u;
            v[i] = kind == 0 ? (float)(seed >> 16) : kind == 1 ? (float)(seed >> 14) : (float)seed * 1e-9f - 1;
        }
        double lo = 0, hi = 0;
        int passes = 0;
        percentile_scan_t *s = NULL;
        assert_int_equal(percentile_scan_begin(1, 99.8, &s, NULL), ERR_OK);
        do {
            for (int from = 0, n = 0; from < N; from += n) {
                n = from + 777 < N ? 777 : N - from;
                percentile_scan_feed(s, v + from, (size_t)n);
            }
            passes++;
        } while (percentile_scan_again(s));
        percentile_scan_result(s, &lo, &hi);
        percentile_scan_free(s);
        assert_int_equal(passes, kind == 0 ? 1 : 2);
        assert_true(lo == by_sorting(v, N, 1));
        assert_true(hi == by_sorting(v, N, 99.8));
    }
    free(v);
}

static void known_values(void **state) {
    (void)state;
    const float v[5] = {5, 1, 4, 2, 3};
    double lo = 0, hi = 0;
    assert_int_equal(normalise_percentiles(v, 5, 25, 90, &lo, &hi, NULL), ERR_OK);
    assert_float_equal(lo, 2, 0);
    assert_float_equal(hi, 4.6, 1e-12);
}

static const normalise_params_t WHOLE = {.low = 0, .high = 100, .clip_min = 0, .clip_max = 1};

static void scales_and_clips(void **state) {
    (void)state;
    float v[5] = {10, 20, 30, 40, 50};
    normalise_params_t p = {.low = 25, .high = 75, .clip_min = -0.25, .clip_max = 1};
    bool contrast = false;
    assert_int_equal(normalise_plane(v, 5, &p, &contrast, NULL), ERR_OK);
    assert_true(contrast);
    const float want[5] = {-0.25f, 0, 0.5f, 1, 1};
    for (int i = 0; i < 5; i++) {
        assert_float_equal(v[i], want[i], 1e-6);
    }
}

static void one_grey_value_has_no_contrast(void **state) {
    (void)state;
    float v[4] = {7, 7, 7, 7};
    bool contrast = true;
    assert_int_equal(normalise_plane(v, 4, &WHOLE, &contrast, NULL), ERR_OK);
    assert_false(contrast);
    assert_true(v[0] == 7);
    float faint[2] = {7, 7.5f};
    normalise_params_t p = WHOLE;
    p.min_range = 0.5;
    assert_int_equal(normalise_plane(faint, 2, &p, &contrast, NULL), ERR_OK);
    assert_false(contrast);
}

static void the_largest_floats_do_not_overflow(void **state) {
    (void)state;
    float v[3] = {-3e38f, 0, 3e38f};
    bool contrast = false;
    assert_int_equal(normalise_plane(v, 3, &WHOLE, &contrast, NULL), ERR_OK);
    assert_true(contrast);
    assert_float_equal(v[0], 0, 0);
    assert_float_equal(v[1], 0.5, 1e-6);
    assert_float_equal(v[2], 1, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_sorting),
        cmocka_unit_test(parts_give_the_same_as_the_whole),
        cmocka_unit_test(known_values),
        cmocka_unit_test(scales_and_clips),
        cmocka_unit_test(one_grey_value_has_no_contrast),
        cmocka_unit_test(the_largest_floats_do_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
