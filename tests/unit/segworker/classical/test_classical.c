/* Segmentation without a network: thresholds against their definitions, distances against brute force, and objects
 * that must be found, parted, filled or dropped. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "segworker/classical/classical.h"
#include "segworker/classical/distance.h"
#include "segworker/classical/local.h"
#include "segworker/classical/split.h"
#include "segworker/pipeline/label.h"

enum { W = 61, H = 47 };

static const classical_params_t PLAIN = {.method = CLASSICAL_SAUVOLA, .window = 41, .k = 0.1};

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525U + 1013904223U;
    return *state >> 8;
}

static void noise_u16(uint16_t *v, size_t n, uint32_t seed) {
    for (size_t i = 0; i < n; i++) {
        v[i] = (uint16_t)next_random(&seed);
    }
}

/* ---- thresholds ---- */

static double window_value(const uint16_t *v, int x, int y, const classical_params_t *p) {
    double s = 0, q = 0, n = 0;
    int r = p->window / 2;
    for (int j = y - r; j <= y + r; j++) {
        for (int i = x - r; i <= x + r; i++) {
            if (i >= 0 && j >= 0 && i < W && j < H) {
                double a = v[j * W + i] / 65535.0;
                s += a;
                q += a * a;
                n++;
            }
        }
    }
    double m = s / n, sd = sqrt(fmax(q / n - m * m, 0));
    double t = p->method == CLASSICAL_SAUVOLA ? m * (1 + p->k * (sd / 0.5 - 1)) : m - p->k * sd;
    return t - p->offset - v[y * W + x] / 65535.0;
}

static void check_moments(const classical_params_t *p) {
    uint16_t v[W * H];
    float excess[W * H];
    err_t err;
    noise_u16(v, W * H, 7);
    assert_int_equal(local_threshold(v, W, H, p, NULL, excess, &err), ERR_OK);
    for (int y = 0; y < H; y++) {
        for (int x = 0; x < W; x++) {
            assert_float_equal(excess[y * W + x], window_value(v, x, y, p), 1e-6);
        }
    }
}

static void test_moments(void **state) {
    (void)state;
    const int windows[] = {3, 11, 45, 4001}; /* smaller than the plane, as large, and far larger */
    for (size_t i = 0; i < 4; i++) {
        check_moments(&(classical_params_t){.method = CLASSICAL_SAUVOLA, .window = windows[i], .k = 0.2});
        check_moments(
            &(classical_params_t){.method = CLASSICAL_NIBLACK, .window = windows[i], .k = 0.3, .offset = 0.02});
    }
}

/* Three boxes against the Gaussian itself, for a step and for noise. */
static void test_gaussian(void **state) {
    (void)state;
    const classical_params_t p = {.method = CLASSICAL_GAUSSIAN, .window = 25};
    const double sigma = 4;
    uint16_t v[W * H];
    float excess[W * H];
    err_t err;
    noise_u16(v, W * H, 3);
    for (int i = 0; i < W * H; i++) {
        v[i] = (uint16_t)(v[i] / 4 + (i % W < W / 2 ? 0 : 40000));
    }
    assert_int_equal(local_threshold(v, W, H, &p, NULL, excess, &err), ERR_OK);
    for (int y = 20; y < H - 20; y++) {
        for (int x = 20; x < W - 20; x++) {
            double s = 0, n = 0;
            for (int j = -19; j <= 19; j++) {
                for (int i = -19; i <= 19; i++) {
                    double w = exp(-0.5 * (i * i + j * j) / (sigma * sigma));
                    s += w * v[(y + j) * W + x + i];
                    n += w;
                }
            }
            assert_float_equal(excess[y * W + x], (s / n - v[y * W + x]) / 65535,
                               0.02); /* the boxes make up sigma to within some percent */
        }
    }
}

/* ---- distances ---- */

static void test_distance(void **state) {
    (void)state;
    uint32_t seed = 11;
    for (int round = 0; round < 20; round++) {
        uint8_t mask[W * H];
        int32_t out[W * H];
        err_t err;
        for (int i = 0; i < W * H; i++) {
            mask[i] = next_random(&seed) % (uint32_t)(round < 10 ? 5 : 700) == 0;
        }
        mask[W + 2] = 1;
        assert_int_equal(distance_to(mask, W, H, NULL, out, &err), ERR_OK);
        for (int i = 0; i < W * H; i++) {
            int best = INT32_MAX;
            for (int k = 0; k < W * H; k++) {
                int dx = i % W - k % W, dy = i / W - k / W;
                best = mask[k] && dx * dx + dy * dy < best ? dx * dx + dy * dy : best;
            }
            assert_int_equal(out[i], best);
        }
    }
}

static void test_distance_to_nothing(void **state) {
    (void)state;
    uint8_t mask[12] = {0};
    int32_t out[12];
    err_t err;
    assert_int_equal(distance_to(mask, 4, 3, NULL, out, &err), ERR_OK);
    assert_int_equal(out[5], DISTANCE_NONE);
}

static void put_disc(uint8_t *mask, double cx, double cy, double r, uint8_t value) {
    for (int i = 0; i < W * H; i++) {
        double dx = i % W + 0.5 - cx, dy = i / W + 0.5 - cy;
        if (dx * dx + dy * dy <= r * r) {
            mask[i] = value;
        }
    }
}

static void test_open_close(void **state) {
    (void)state;
    uint8_t mask[W * H] = {0};
    int32_t work[W * H];
    err_t err;
    put_disc(mask, 20, 20, 9, 1);
    for (int x = 30; x < 50; x++) {
        mask[20 * W + x] = 1; /* a hair */
    }
    mask[20 * W + 20] = 0; /* a pinhole */
    assert_int_equal(distance_open_close(mask, W, H, 2, 0, NULL, work, &err), ERR_OK);
    assert_true(mask[20 * W + 20]);
    assert_true(mask[20 * W + 40]);
    assert_int_equal(distance_open_close(mask, W, H, 2, 1, NULL, work, &err), ERR_OK);
    assert_true(mask[20 * W + 20]);
    assert_false(mask[20 * W + 40]);
    assert_true(mask[20 * W + 13]);
}

static int seeds_of(uint8_t *mask, double neck) {
    int32_t d2[W * H];
    uint8_t seed[W * H];
    int n = 0;
    err_t err;
    for (int i = 0; i < W * H; i++) {
        mask[i] = !mask[i];
    }
    assert_int_equal(distance_to(mask, W, H, NULL, d2, &err), ERR_OK);
    assert_int_equal(split_find_seeds(d2, W, H, neck, seed, &err), ERR_OK);
    for (int i = 0; i < W * H; i++) {
        assert_true(!seed[i] || d2[i] > 0);
        n += seed[i];
    }
    return n;
}

static void test_split_at_necks(void **state) {
    (void)state;
    uint8_t narrow[W * H] = {0}, wide[W * H] = {0}, apart[W * H] = {0};
    put_disc(narrow, 20, 23, 11, 1);
    put_disc(narrow, 40, 23, 11, 1);
    assert_int_equal(seeds_of(narrow, 0.7), 2);
    put_disc(wide, 25, 23, 11, 1);
    put_disc(wide, 33, 23, 11, 1);
    assert_int_equal(seeds_of(wide, 0.7), 1);
    put_disc(apart, 14, 14, 8, 1);
    put_disc(apart, 44, 32, 5, 1);
    assert_int_equal(seeds_of(apart, 0.01), 2);
}

/* ---- whole runs ---- */

typedef struct {
    float plane[W * H], fg[W * H], dist[W * H];
    int32_t *labels;
    uint32_t count;
} scene_t;

static void grey(scene_t *s, float background) {
    for (int i = 0; i < W * H; i++) {
        s->plane[i] = background + 0.02f * (float)((i * 7919) % 13) / 13;
    }
}

static void disc(scene_t *s, double cx, double cy, double r, float value) {
    for (int i = 0; i < W * H; i++) {
        double dx = i % W + 0.5 - cx, dy = i / W + 0.5 - cy;
        if (dx * dx + dy * dy <= r * r) {
            s->plane[i] = value;
        }
    }
}

static uint32_t find(scene_t *s, const classical_params_t *p, bool drop_border) {
    const label_params_t lp = {.threshold = 0.5f,
                               .seed_threshold = 0.5f,
                               .seed_min_area = 1,
                               .min_area = 10,
                               .detect_holes = true,
                               .drop_border = drop_border,
                               .max_objects = 1000};
    err_t err;
    bool bright = classical_is_bright(s->plane, W, H, p->polarity);
    free(s->labels);
    assert_int_equal(classical_run(s->plane, W, H, bright, p, NULL, s->fg, s->dist, &err), ERR_OK);
    assert_int_equal(label_from_maps(s->fg, s->dist, W, H, &lp, NULL, &s->labels, &s->count, &err), ERR_OK);
    return s->count;
}

static void test_dark_and_bright(void **state) {
    (void)state;
    scene_t s = {.labels = NULL};
    for (int bright = 0; bright < 2; bright++) {
        grey(&s, bright ? 0.1f : 0.8f);
        disc(&s, 15, 15, 8, bright ? 0.9f : 0.2f);
        disc(&s, 45, 30, 10, bright ? 0.8f : 0.3f);
        for (size_t m = 0; m < 3; m++) {
            classical_params_t p = PLAIN;
            p.method = (classical_method_t)m;
            p.offset = m == CLASSICAL_SAUVOLA ? 0 : 0.05;
            assert_int_equal(find(&s, &p, false), 2);
            assert_int_equal(s.labels[15 * W + 15], 1);
            assert_int_equal(s.labels[30 * W + 45], 2);
            assert_int_equal(s.labels[2 * W + 2], 0);
        }
        classical_params_t wrong = PLAIN;
        wrong.polarity = bright ? CLASSICAL_DARK : CLASSICAL_BRIGHT;
        (void)find(&s, &wrong, false);
        assert_int_equal(s.labels[15 * W + 15], 0);
    }
    free(s.labels);
}

static void test_uneven_light(void **state) {
    (void)state;
    scene_t s = {.labels = NULL};
    for (int i = 0; i < W * H; i++) { /* brighter on the left than any threshold for the right */
        s.plane[i] = 0.9f - 0.7f * (float)(i % W) / W;
    }
    for (int i = 0; i < W * H; i++) {
        double dx = i % W + 0.5 - 12, dy = i / W + 0.5 - 23, ex = i % W + 0.5 - 48;
        s.plane[i] -= dx * dx + dy * dy <= 36 || ex * ex + dy * dy <= 36 ? 0.15f : 0;
    }
    const classical_params_t p = {
        .method = CLASSICAL_GAUSSIAN, .polarity = CLASSICAL_DARK, .window = 31, .offset = 0.06};
    assert_int_equal(find(&s, &p, false), 2);
    assert_int_not_equal(s.labels[23 * W + 12], 0);
    assert_int_not_equal(s.labels[23 * W + 48], 0);
    free(s.labels);
}

static void test_edge_filter(void **state) {
    (void)state;
    scene_t s = {.labels = NULL};
    classical_params_t p = PLAIN;
    grey(&s, 0.8f);
    disc(&s, 15, 23, 8, 0.2f);
    for (int i = 0; i < W * H; i++) { /* a dark place without a border */
        double dx = i % W + 0.5 - 45, dy = i / W + 0.5 - 23, d = sqrt(dx * dx + dy * dy);
        s.plane[i] -= d < 16 ? 0.4f * (float)((16 - d) / 16) : 0;
    }
    p.polarity = CLASSICAL_DARK;
    assert_int_equal(find(&s, &p, false), 2);
    p.edge_contrast = 0.25;
    assert_int_equal(find(&s, &p, false), 1);
    assert_int_equal(s.labels[23 * W + 15], 1);
    free(s.labels);
}

static void test_fill_and_split(void **state) {
    (void)state;
    scene_t s = {.labels = NULL};
    classical_params_t p = PLAIN;
    grey(&s, 0.8f);
    disc(&s, 20, 23, 11, 0.2f);
    disc(&s, 40, 23, 11, 0.2f);
    disc(&s, 20, 23, 3, 0.8f);
    p.polarity = CLASSICAL_DARK;
    assert_int_equal(find(&s, &p, false), 1);
    assert_int_equal(s.labels[23 * W + 20], 0);
    p.fill = 20; /* the hole is larger */
    (void)find(&s, &p, false);
    assert_int_equal(s.labels[23 * W + 20], 0);
    p.fill = 60;
    p.split = true;
    p.neck = 0.7;
    assert_int_equal(find(&s, &p, false), 2);
    assert_int_not_equal(s.labels[23 * W + 20], 0);
    assert_int_not_equal(s.labels[23 * W + 20], s.labels[23 * W + 40]);
    free(s.labels);
}

static void test_objects_at_the_edge(void **state) {
    (void)state;
    scene_t s = {.labels = NULL};
    classical_params_t p = PLAIN;
    p.polarity = CLASSICAL_DARK;
    grey(&s, 0.8f);
    disc(&s, 20, 23, 8, 0.2f);
    disc(&s, 60, 23, 8, 0.2f);
    assert_int_equal(find(&s, &p, false), 2);
    assert_int_equal(find(&s, &p, true), 1);
    assert_int_equal(s.labels[23 * W + 20], 1);
    free(s.labels);
}

/* A part of the plane with its surroundings gives the same maps as the whole, bit for bit. */
static void test_parts_equal_whole(void **state) {
    (void)state;
    enum { BW = 300, BH = 200, X0 = 80, PW = 140 };
    float *plane = malloc(sizeof(float) * BW * BH), *fg = malloc(sizeof(float) * BW * BH),
          *dist = malloc(sizeof(float) * BW * BH), *part = malloc(sizeof(float) * PW * BH * 3);
    uint32_t seed = 5;
    err_t err;
    for (int i = 0; i < BW * BH; i++) {
        plane[i] =
            (float)(0.5 + 0.4 * sin(i % BW * 0.11) * cos(i / BW * 0.13)) + (float)(next_random(&seed) % 100) / 1e3f;
    }
    for (int m = 0; m < 3; m++) {
        const classical_params_t p = {.method = (classical_method_t)m,
                                      .window = 31,
                                      .k = 0.1,
                                      .offset = 0.01,
                                      .smooth = 1.3,
                                      .open = 1,
                                      .close = 2};
        int reach = classical_reach(&p);
        assert_true(reach >= 15 && reach < PW / 2);
        assert_int_equal(classical_run(plane, BW, BH, false, &p, NULL, fg, dist, &err), ERR_OK);
        for (int y = 0; y < BH; y++) {
            memcpy(part + y * PW, plane + y * BW + X0, PW * sizeof *part);
        }
        float *pf = part + PW * BH, *pd = pf + PW * BH;
        assert_int_equal(classical_run(part, PW, BH, false, &p, NULL, pf, pd, &err), ERR_OK);
        for (int y = 0; y < BH; y++) {
            size_t n = (size_t)(PW - 2 * reach) * sizeof(float);
            assert_memory_equal(pf + y * PW + reach, fg + y * BW + X0 + reach, n);
            assert_memory_equal(pd + y * PW + reach, dist + y * BW + X0 + reach, n);
        }
    }
    free(plane);
    free(fg);
    free(dist);
    free(part);
}

static void test_tiny_planes(void **state) {
    (void)state;
    const int sizes[][2] = {{1, 1}, {1, 9}, {9, 1}, {2, 2}};
    const classical_params_t p = {.method = CLASSICAL_GAUSSIAN,
                                  .window = 61,
                                  .smooth = 2,
                                  .open = 2,
                                  .close = 2,
                                  .fill = 5,
                                  .edge_contrast = 0.1,
                                  .split = true,
                                  .neck = 0.5};
    for (size_t i = 0; i < 4; i++) {
        float plane[16] = {0.1f, 0.9f, 0.5f}, fg[16], dist[16];
        err_t err;
        int w = sizes[i][0], h = sizes[i][1];
        bool bright = classical_is_bright(plane, w, h, CLASSICAL_AUTO);
        assert_int_equal(classical_run(plane, w, h, bright, &p, NULL, fg, dist, &err), ERR_OK);
        for (int k = 0; k < w * h; k++) {
            assert_true(fg[k] >= 0 && fg[k] <= 1 && dist[k] >= 0 && dist[k] <= 1);
        }
    }
}

static bool always(void *ctx) {
    (void)ctx;
    return true;
}

static void test_cancel(void **state) {
    (void)state;
    const cancel_t stop = {.fn = always};
    scene_t s = {.labels = NULL};
    err_t err;
    grey(&s, 0.5f);
    assert_int_equal(classical_run(s.plane, W, H, false, &PLAIN, &stop, s.fg, s.dist, &err), ERR_CANCELLED);
    assert_string_equal(err.code, "cancelled");
}

/* ---- model.json ---- */

static const char *parse(const char *json, classical_params_t *p) {
    const char *what = NULL;
    cJSON *root = cJSON_Parse(json);
    assert_non_null(root);
    const char *field = classical_parse(root, p, &what);
    assert_true(field == NULL || what != NULL);
    cJSON_Delete(root);
    return field;
}

static void test_parse(void **state) {
    (void)state;
    classical_params_t p;
    const char *good =
        "{\"classical\":{\"method\":\"niblack\",\"polarity\":\"bright\",\"window\":15,\"k\":-0.2,\"offset\":0.01,"
        "\"smooth\":0.5,\"open\":1,\"close\":2,\"fill\":30,\"edgeContrast\":0.1,\"neck\":0.5}}";
    assert_null(parse(good, &p));
    assert_int_equal(p.method, CLASSICAL_NIBLACK);
    assert_int_equal(p.polarity, CLASSICAL_BRIGHT);
    assert_int_equal(p.window, 15);
    assert_true(p.split && p.fill == 30 && p.open == 1 && p.close == 2);
    static const char *const bad[][3] = {{"\"niblack\"", "\"otsu\"", "method"},
                                         {"\"bright\"", "1", "polarity"},
                                         {"15", "16", "window"},
                                         {"15", "4003", "window"},
                                         {"-0.2", "\"x\"", "k"},
                                         {"0.01", "2", "offset"},
                                         {"0.5,\"open\"", "-1,\"open\"", "smooth"},
                                         {"\"open\":1", "\"open\":1.5", "open"},
                                         {"\"close\":2", "\"close\":101", "close"},
                                         {"30", "-1", "fill"},
                                         {"\"edgeContrast\":0.1", "\"edgeContrast\":7", "edgeContrast"},
                                         {"\"neck\":0.5", "\"nack\":0.5", "neck"},
                                         {"\"classical\"", "\"classic\"", "classical"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[512];
        const char *at = strstr(good, bad[i][0]);
        assert_non_null(at);
        int n = snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, bad[i][1], at + strlen(bad[i][0]));
        assert_true(n > 0 && (size_t)n < sizeof text);
        assert_string_equal(parse(text, &p), bad[i][2]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moments),
        cmocka_unit_test(test_gaussian),
        cmocka_unit_test(test_distance),
        cmocka_unit_test(test_distance_to_nothing),
        cmocka_unit_test(test_open_close),
        cmocka_unit_test(test_split_at_necks),
        cmocka_unit_test(test_dark_and_bright),
        cmocka_unit_test(test_uneven_light),
        cmocka_unit_test(test_edge_filter),
        cmocka_unit_test(test_fill_and_split),
        cmocka_unit_test(test_objects_at_the_edge),
        cmocka_unit_test(test_parts_equal_whole),
        cmocka_unit_test(test_tiny_planes),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_parse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
