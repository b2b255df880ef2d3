/* Label images: splitting, seeds, holes, numbering, limits, against a slow but simple reference. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "segworker/pipeline/label.h"

static const label_params_t BASE = {.threshold = 0.5F,
                                    .seed_threshold = 0.5F,
                                    .seed_min_area = 1,
                                    .min_area = 1,
                                    .max_hole_area = 0,
                                    .detect_holes = true,
                                    .max_objects = 1000000};

/* Maps from rows of characters: '.' background, '#' foreground, digits foreground with distance 0.0 .. 0.9. */
static int32_t *label_text(const char *const *rows, int h, const label_params_t *p, uint32_t *count) {
    int w = (int)strlen(rows[0]);
    float *fg = calloc((size_t)(w * h), sizeof *fg), *dist = calloc((size_t)(w * h), sizeof *dist);
    int32_t *labels = NULL;
    err_t err;
    for (int i = 0; i < w * h; i++) {
        char c = rows[i / w][i % w];
        fg[i] = c == '.' ? 0.1F : 0.9F;
        dist[i] = c >= '0' && c <= '9' ? (float)(c - '0') / 10 : 0;
    }
    assert_int_equal(label_from_maps(fg, dist, w, h, p, NULL, &labels, count, &err), ERR_OK);
    free(fg);
    free(dist);
    return labels;
}

/* '.' = 0, 'a' = 1, … */
static void expect(const char *const *rows, int h, const label_params_t *p, const char *const *want,
                   uint32_t want_count) {
    uint32_t count = 0;
    int w = (int)strlen(rows[0]);
    int32_t *labels = label_text(rows, h, p, &count);
    for (int y = 0; y < h; y++) {
        char line[64] = {0};
        for (int x = 0; x < w; x++) {
            int32_t v = labels[y * w + x];
            line[x] = v == 0 ? '.' : (char)('a' + v - 1);
        }
        assert_string_equal(line, want[y]);
    }
    assert_int_equal(count, want_count);
    free(labels);
}

static void touching_objects_are_split_at_the_valley(void **state) {
    (void)state;
    const char *in[] = {".........", ".2431342.", ".3952583.", ".2431342.", "........."};
    const char *out[] = {".........", ".aaaabbb.", ".aaaabbb.", ".aaaabbb.", "........."};
    label_params_t p = BASE;
    expect(in, 5, &p, out, 2);
}

static void diagonal_contact_does_not_join(void **state) {
    (void)state;
    const char *in[] = {"##...", "##...", "..##.", "..##."}, *out[] = {"aa...", "aa...", "..bb.", "..bb."};
    label_params_t p = BASE;
    expect(in, 4, &p, out, 2);
}

static void objects_without_seed_are_kept_when_large_enough(void **state) {
    (void)state;
    const char *in[] = {"111.1", "111..", "....."}, *out[] = {"aaa..", "aaa..", "....."};
    label_params_t p = BASE;
    p.min_area = 3;
    expect(in, 3, &p, out, 1);
}

static void small_seeds_do_not_split(void **state) {
    (void)state;
    const char *in[] = {"99118", "99111"}, *one[] = {"aaaaa", "aaaaa"};
    label_params_t p = BASE;
    uint32_t n = 0;
    p.seed_min_area = 2;
    expect(in, 2, &p, one, 1);
    p.seed_min_area = 1;
    free(label_text(in, 2, &p, &n));
    assert_int_equal(n, 2);
}

static void holes_follow_the_parameters(void **state) {
    (void)state;
    const char *in[] = {"#########", "#.##...##", "####...##", "##.######", "#########", "...#.#...", "...###..."};
    const char *open[] = {"aaaaaaaaa", "a.aa...aa", "aaaa...aa", "aa.aaaaaa", "aaaaaaaaa", "...a.a...", "...aaa..."};
    const char *small[] = {"aaaaaaaaa", "aaaa...aa", "aaaa...aa", "aaaaaaaaa", "aaaaaaaaa", "...aaa...", "...aaa..."};
    const char *full[] = {"aaaaaaaaa", "aaaaaaaaa", "aaaaaaaaa", "aaaaaaaaa", "aaaaaaaaa", "...aaa...", "...aaa..."};
    label_params_t p = BASE;
    expect(in, 7, &p, open, 1);
    p.max_hole_area = 5;
    expect(in, 7, &p, small, 1);
    p.max_hole_area = 6;
    expect(in, 7, &p, full, 1);
    p.max_hole_area = 0;
    p.detect_holes = false;
    expect(in, 7, &p, full, 1);
}

static void gaps_between_objects_and_bays_are_no_holes(void **state) {
    (void)state;
    const char *in[] = {"9911188", "99...88", "9911188", ".......", "9999...", "9..9...", "9..9..."};
    label_params_t p = BASE;
    uint32_t n = 0;
    p.detect_holes = false;
    p.max_hole_area = 100;
    int32_t *labels = label_text(in, 7, &p, &n);
    assert_int_equal(n, 3);
    assert_int_equal(labels[7 + 3], 0);
    assert_int_equal(labels[5 * 7 + 1], 0);
    free(labels);
}

static void numbers_follow_the_first_pixel(void **state) {
    (void)state;
    const char *in[] = {"....9", "9...9", "9.9..", "..9.9"}, *out[] = {"....a", "b...a", "b.c..", "..c.."};
    label_params_t p = BASE;
    p.min_area = 2;
    p.seed_min_area = 2;
    expect(in, 4, &p, out, 3);
}

static void too_many_objects_is_said_in_plain_words(void **state) {
    (void)state;
    enum { W = 64 };
    float fg[W * W];
    int32_t *labels = NULL;
    uint32_t n = 0;
    err_t err;
    for (int i = 0; i < W * W; i++) {
        fg[i] = (i / W + i % W) % 2 ? 1 : 0;
    }
    label_params_t p = BASE;
    p.max_objects = W * W / 2 - 1;
    assert_int_equal(label_from_maps(fg, fg, W, W, &p, NULL, &labels, &n, &err), ERR_INVALID);
    assert_string_equal(err.code, "too_many_objects");
    assert_non_null(strstr(err.message, "noisy"));
    assert_null(labels);
    p.max_objects++;
    assert_int_equal(label_from_maps(fg, fg, W, W, &p, NULL, &labels, &n, &err), ERR_OK);
    assert_int_equal(n, W * W / 2);
    free(labels);
}

static bool count_down(void *ctx) {
    return --*(int *)ctx < 0;
}

static void cancelling_stops_at_any_stage(void **state) {
    (void)state;
    enum { W = 300 };
    float *fg = malloc(W * W * sizeof *fg), *dist = malloc(W * W * sizeof *dist);
    label_params_t p = BASE;
    p.dist_sigma = 1;
    p.detect_holes = false;
    p.seed_threshold = 0.55F;
    for (int i = 0; i < W * W; i++) {
        fg[i] = 1;
        dist[i] = (float)(0.5 + 0.5 * sin(i % W * 0.1) * cos((double)(i / W) * 0.1));
    }
    int stops = 0;
    for (int allowed = 0;; allowed++) {
        int left = allowed;
        cancel_t c = {count_down, &left};
        int32_t *labels = NULL;
        uint32_t n = 0;
        err_t err;
        err_kind_t kind = label_from_maps(fg, dist, W, W, &p, &c, &labels, &n, &err);
        if (kind == ERR_OK) {
            free(labels);
            break;
        }
        assert_int_equal(kind, ERR_CANCELLED);
        assert_null(labels);
        stops++;
    }
    assert_true(stops > 20); /* asked regularly, in every stage */
    free(fg);
    free(dist);
}

static void bad_sizes_are_refused(void **state) {
    (void)state;
    int32_t *labels = NULL;
    uint32_t n = 0;
    float v = 1;
    err_t err;
    assert_int_equal(label_from_maps(&v, &v, 0, 1, &BASE, NULL, &labels, &n, &err), ERR_INVALID);
    assert_int_equal(label_from_maps(&v, &v, 40000, 40000, &BASE, NULL, &labels, &n, &err), ERR_TOO_LARGE);
    assert_int_equal(label_from_foreground(&v, 1, 1, &BASE, NULL, &labels, &n, &err), ERR_OK);
    assert_int_equal(n, 1);
    free(labels);
    v = NAN;
    assert_int_equal(label_from_maps(&v, &v, 1, 1, &BASE, NULL, &labels, &n, &err), ERR_OK);
    assert_int_equal(n, 0);
    free(labels);
}

/* ---------------------------------------------------------------- against a plain reference */

enum { RW = 48, RH = 40, RN = RW * RH };

static int around(int i, int out[4]) {
    int n = 0, x = i % RW, y = i / RW;
    if (y > 0) {
        out[n++] = i - RW;
    }
    if (x > 0) {
        out[n++] = i - 1;
    }
    if (x + 1 < RW) {
        out[n++] = i + 1;
    }
    if (y + 1 < RH) {
        out[n++] = i + RW;
    }
    return n;
}

/* Flood by looking through all reached pixels for the best one, again and again. */
static void slow_flood(const float *dist, const unsigned char *mask, int *lab) {
    int done[RN] = {0}, near[4];
    for (;;) {
        int best = -1;
        for (int i = 0; i < RN; i++) {
            if (lab[i] > 0 && !done[i] && (best < 0 || dist[i] > dist[best])) {
                best = i;
            }
        }
        if (best < 0) {
            return;
        }
        done[best] = 1;
        for (int k = around(best, near); k-- > 0;) {
            if (mask[near[k]] && lab[near[k]] == 0) {
                lab[near[k]] = lab[best];
            }
        }
    }
}

static int slow_components(const unsigned char *on, int *lab) {
    int n = 0, stack[RN], near[4];
    memset(lab, 0, RN * sizeof *lab);
    for (int s = 0; s < RN; s++) {
        int depth = 0;
        if (!on[s] || lab[s]) {
            continue;
        }
        lab[s] = ++n;
        stack[depth++] = s;
        while (depth > 0) {
            for (int i = stack[--depth], k = around(i, near); k-- > 0;) {
                if (on[near[k]] && !lab[near[k]]) {
                    lab[near[k]] = n;
                    stack[depth++] = near[k];
                }
            }
        }
    }
    return n;
}

/* Random smooth maps whose values are all different, so that the order of flooding is fully determined. */
static void random_maps(float *fg, float *dist) {
    double a[6], b[6], c[6];
    for (int k = 0; k < 6; k++) {
        a[k] = rand() / (double)RAND_MAX * 0.6;
        b[k] = rand() / (double)RAND_MAX * 0.6;
        c[k] = rand() / (double)RAND_MAX * 6.28;
    }
    for (int i = 0; i < RN; i++) {
        double s = 0, t = 0, x = i % RW, y = (double)(i / RW);
        for (int k = 0; k < 6; k++) {
            s += sin(a[k] * x + b[k] * y + c[k]);
            t += sin(b[k] * x - a[k] * y + 2 * c[k]);
        }
        fg[i] = (float)(0.5 + s / 6);
        dist[i] = (float)(0.4 + t / 6) + (float)(rand() % 1000) * 1e-6F;
    }
}

static void agrees_with_the_slow_reference(void **state) {
    (void)state;
    srand(5);
    for (int trial = 0; trial < 60; trial++) {
        static float fg[RN], dist[RN];
        static unsigned char mask[RN], seed[RN];
        static int parts[RN], want[RN];
        random_maps(fg, dist);
        for (int i = 0; i < RN; i++) {
            mask[i] = fg[i] >= 0.5F;
            seed[i] = mask[i] && dist[i] >= 0.5F;
        }
        int n = slow_components(seed, want), np = slow_components(mask, parts);
        for (int p = 1; p <= np; p++) {
            int seeded = 0;
            for (int i = 0; i < RN; i++) {
                seeded |= parts[i] == p && want[i] > 0;
            }
            n += !seeded;
            for (int i = 0; i < RN && !seeded; i++) {
                want[i] = parts[i] == p ? n : want[i];
            }
        }
        slow_flood(dist, mask, want);
        int32_t *got = NULL;
        uint32_t count = 0;
        err_t err;
        assert_int_equal(label_from_maps(fg, dist, RW, RH, &BASE, NULL, &got, &count, &err), ERR_OK);
        assert_int_equal(count, n);
        int number[RN] = {0}, next = 0;
        for (int i = 0; i < RN; i++) {
            if (want[i] > 0 && number[want[i]] == 0) {
                number[want[i]] = ++next;
            }
            assert_int_equal(got[i], want[i] > 0 ? number[want[i]] : 0);
        }
        free(got);
    }
}

static void smoothing_is_a_gaussian_with_reflected_borders(void **state) {
    (void)state;
    /* a single bright pixel in the corner: its smoothed value there is (2·g(0,1 taps))² of the reflected kernel */
    enum { W = 9 };
    float fg[W * W], dist[W * W] = {0};
    double k[5], sum = 0;
    for (int i = 0; i < 5; i++) {
        k[i] = exp(-0.5 * i * i);
        sum += i ? 2 * k[i] : k[i];
    }
    for (int i = 0; i < W * W; i++) {
        fg[i] = 1;
    }
    dist[0] = 1;
    double corner = pow((k[0] + k[1]) / sum, 2), next = (k[0] + k[1]) * (k[1] + k[2]) / (sum * sum);
    label_params_t p = BASE;
    p.dist_sigma = 1;
    const struct {
        double threshold;
        int seeds; /* pixels that reach it */
    } cases[] = {{corner + 1e-5, 0}, {corner - 1e-5, 1}, {next - 1e-5, 3}};
    for (int c = 0; c < 3; c++) {
        int32_t *labels = NULL;
        uint32_t n = 0;
        err_t err;
        p.seed_threshold = (float)cases[c].threshold;
        p.seed_min_area = cases[c].seeds;
        p.min_area = W * W + 1; /* a seedless part is not taken, and neither is the final object … */
        assert_int_equal(label_from_maps(fg, dist, W, W, &p, NULL, &labels, &n, &err), ERR_OK);
        assert_int_equal(n, 0);
        free(labels);
        p.min_area = W * W; /* … here the object is taken either way */
        assert_int_equal(label_from_maps(fg, dist, W, W, &p, NULL, &labels, &n, &err), ERR_OK);
        assert_int_equal(n, 1);
        free(labels);
    }
    /* two bright pixels, three apart: one seed region or two, as the threshold says */
    memset(dist, 0, sizeof dist);
    dist[4 * W + 2] = dist[4 * W + 6] = 1;
    p = BASE;
    p.dist_sigma = 1;
    double peak = (k[0] * k[0] + k[0] * k[4]) / (sum * sum), saddle = 2 * k[0] * k[2] / (sum * sum);
    for (int c = 0; c < 2; c++) {
        int32_t *labels = NULL;
        uint32_t n = 0;
        err_t err;
        p.seed_threshold = (float)(c ? saddle - 1e-5 : peak - 1e-4);
        assert_int_equal(label_from_maps(fg, dist, W, W, &p, NULL, &labels, &n, &err), ERR_OK);
        assert_int_equal(n, c ? 1 : 2);
        free(labels);
    }
}

static void single_map_gives_components(void **state) {
    (void)state;
    const float fg[] = {1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1};
    const int32_t want[] = {1, 1, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    int32_t *labels = NULL;
    uint32_t n = 0;
    err_t err;
    label_params_t p = BASE;
    p.min_area = 2; /* the two single pixels, one of them touching by a corner, go */
    assert_int_equal(label_from_foreground(fg, 5, 3, &p, NULL, &labels, &n, &err), ERR_OK);
    assert_int_equal(n, 2);
    assert_memory_equal(labels, want, sizeof want);
    float means[2];
    const float plane[] = {1, 2, 9, 4, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    assert_int_equal(label_mean_of(labels, 5, 3, 2, plane, means, &err), ERR_OK);
    assert_true(means[0] == 1.5F && means[1] == 5.0F);
    free(labels);
}

static void votes_split_what_touches_and_every_pixel_is_given_away(void **state) {
    (void)state;
    enum { VW = 12, VH = 5 };
    const char *rows[VH] = {"............", ".aaaaabbbbb.", ".aaaaabbbbb.", ".aaaaabbbbb.", "............"};
    float fg[VW * VH], down[VW * VH], right[VW * VH];
    label_params_t p = BASE;
    int32_t *labels = NULL;
    uint32_t n = 0;
    err_t err;
    p.seed_min_area = 4;
    for (int i = 0; i < VW * VH; i++) {
        char c = rows[i / VW][i % VW];
        fg[i] = c == '.' ? 0 : 1;
        down[i] = (float)(2 - i / VW);
        right[i] = (float)((c == 'a' ? 3 : 8) - i % VW);
    }
    down[1 * VW + 1] = 2;
    right[1 * VW + 1] = 8; /* one pixel of the left object says it is of the right one */
    right[2 * VW + 5] = 40;
    assert_int_equal(label_from_votes(fg, down, right, VW, VH, &p, NULL, &labels, &n, &err), ERR_OK);
    assert_int_equal(n, 2);
    for (int i = 0; i < VW * VH; i++) {
        char c = rows[i / VW][i % VW];
        assert_int_equal(labels[i], c == '.' ? 0 : c == 'a' ? 1 : 2);
    }
    free(labels);
    p.max_objects = 1;
    assert_int_equal(label_from_votes(fg, down, right, VW, VH, &p, NULL, &labels, &n, &err), ERR_INVALID);
    assert_string_equal(err.code, "too_many_objects");
    assert_int_equal(label_from_votes(fg, down, right, 0, VH, &p, NULL, &labels, &n, &err), ERR_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(touching_objects_are_split_at_the_valley),
        cmocka_unit_test(diagonal_contact_does_not_join),
        cmocka_unit_test(objects_without_seed_are_kept_when_large_enough),
        cmocka_unit_test(small_seeds_do_not_split),
        cmocka_unit_test(holes_follow_the_parameters),
        cmocka_unit_test(gaps_between_objects_and_bays_are_no_holes),
        cmocka_unit_test(numbers_follow_the_first_pixel),
        cmocka_unit_test(too_many_objects_is_said_in_plain_words),
        cmocka_unit_test(cancelling_stops_at_any_stage),
        cmocka_unit_test(bad_sizes_are_refused),
        cmocka_unit_test(agrees_with_the_slow_reference),
        cmocka_unit_test(smoothing_is_a_gaussian_with_reflected_borders),
        cmocka_unit_test(single_map_gives_components),
        cmocka_unit_test(votes_split_what_touches_and_every_pixel_is_given_away),
    };
    return cmocka_run_group_tests_name("label", tests, NULL, NULL);
}
