/*
 * Outlines: topology on small pictures, figures for shapes of known size, and properties on random blobs.
 *
 * Ideal shapes are digitised by their pixel centres. That leaves the extent of a shape open by up to half a pixel on
 * each side: the bulge of a disk may fall between two rows of centres (its pixels are then almost 1 px too narrow), or
 * just reach one more row (a nub of one pixel). Where the pixels' own caliper width is within half a pixel of the true
 * one, the outline's must be too; elsewhere it must not be farther from the truth than the pixels' own.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/geometry/measure.h"
#include "common/geometry/raster.h"
#include "segworker/pipeline/contour.h"

#define PI 3.14159265358979323846

/* ---------------------------------------------------------------- pictures */

static geom_t *trace_text(const char *const *rows, int h, uint32_t count, const contour_params_t *p) {
    int w = (int)strlen(rows[0]);
    int32_t *labels = calloc((size_t)(w * h), sizeof *labels);
    geom_t *g = calloc(count, sizeof *g);
    err_t err;
    for (int i = 0; i < w * h; i++) {
        char c = rows[i / w][i % w];
        labels[i] = c == '.' ? 0 : c - 'a' + 1;
    }
    assert_int_equal(contour_trace(labels, w, h, count, p, NULL, g, &err), ERR_OK);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(g[i].count == 0 || geom_is_valid(&g[i]));
    }
    free(labels);
    return g;
}

static void free_geoms(geom_t *g, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        geom_free(&g[i]);
    }
    free(g);
}

static void expect_json(const geom_t *g, const char *json) {
    buf_t buf;
    buf_init(&buf, 1 << 20);
    geom_write_geojson(g, &buf);
    assert_string_equal(buf.data, json);
    buf_free(&buf);
}

static void rectangles_are_exact(void **state) {
    (void)state;
    const char *rows[] = {"a.bbbb.", "..bbbb.", "d.bbbb.", "d......", "d.ccccc", "d......", "......."};
    geom_t *g = trace_text(rows, 7, 4, NULL);
    expect_json(&g[0], "{\"type\":\"Polygon\",\"coordinates\":[[[0,0],[1,0],[1,1],[0,1],[0,0]]]}");
    for (int i = 1; i < 4; i++) {
        assert_int_equal(g[i].polygons[0].rings[0].count, 4);
    }
    assert_int_equal(geom_ring_area2(&g[1].polygons[0].rings[0]), 2 * 400 * 300);
    assert_int_equal(geom_ring_area2(&g[2].polygons[0].rings[0]), 2 * 500 * 100);
    assert_int_equal(geom_ring_area2(&g[3].polygons[0].rings[0]), 2 * 100 * 400);
    free_geoms(g, 4);
}

static void holes_and_islands(void **state) {
    (void)state;
    const char *rows[] = {"aaaaaaaaaaa", "aaaaaaaaaaa", "aa.......aa", "aa.......aa", "aa..aaa..aa", "aa..aaa..aa",
                          "aa..aaa..aa", "aa.......aa", "aa.......aa", "aaaaaaaaaaa", "aaaaaaaaaaa"};
    geom_t *g = trace_text(rows, 11, 1, NULL);
    assert_int_equal(g[0].count, 2);
    assert_int_equal(g[0].polygons[0].count, 2);
    assert_int_equal(g[0].polygons[1].count, 1);
    assert_int_equal(geom_ring_area2(&g[0].polygons[0].rings[0]), 2 * 1100 * 1100);
    assert_int_equal(geom_ring_area2(&g[0].polygons[0].rings[1]), -2 * 700 * 700);
    assert_int_equal(geom_ring_area2(&g[0].polygons[1].rings[0]), 2 * 300 * 300);
    free_geoms(g, 1);
}

static void diagonal_pieces_are_apart_and_diagonal_holes_are_one(void **state) {
    (void)state;
    const char *pieces[] = {"aa..", "aa..", "..aa", "..aa"};
    geom_t *g = trace_text(pieces, 4, 1, NULL);
    assert_int_equal(g[0].count, 2);
    free_geoms(g, 1);
    const char *holes[] = {"aaaaaa", "a..aaa", "a..aaa", "aaa..a", "aaa..a", "aaaaaa"};
    g = trace_text(holes, 6, 1, NULL);
    assert_int_equal(g[0].count, 1);
    assert_int_equal(g[0].polygons[0].count, 2);
    free_geoms(g, 1);
    const char *leak[] = {"aaaa", "a..a", "a..a", "aaa."}; /* open at a corner: no hole */
    g = trace_text(leak, 4, 1, NULL);
    assert_int_equal(g[0].polygons[0].count, 1);
    free_geoms(g, 1);
    const contour_params_t raw = {0};
    g = trace_text(holes, 6, 1, &raw);
    assert_int_equal(g[0].polygons[0].count, 2);
    free_geoms(g, 1);
}

static void every_label_gets_its_own_outline(void **state) {
    (void)state;
    const char *rows[] = {"aab", "acb", "ddb"};
    geom_t *g = trace_text(rows, 3, 5, NULL);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(g[i].count, 1);
    }
    assert_int_equal(g[4].count, 0); /* no pixel carries it */
    assert_null(g[4].polygons);
    free_geoms(g, 5);
}

static void tolerance_zero_gives_the_cracks(void **state) {
    (void)state;
    const char *rows[] = {"a..", "aa.", "aaa"};
    const contour_params_t raw = {0};
    geom_t *g = trace_text(rows, 3, 1, &raw);
    expect_json(&g[0],
                "{\"type\":\"Polygon\",\"coordinates\":[[[0,0],[1,0],[1,1],[2,1],[2,2],[3,2],[3,3],[0,3],[0,0]]]}");
    free_geoms(g, 1);
}

/* ---------------------------------------------------------------- shapes */

typedef struct {
    double cx, cy, a, b, turn; /* half axes or half sides */
} shape_t;

typedef int (*inside_fn)(double x, double y, const shape_t *s);

static void local(double *x, double *y, const shape_t *s) {
    double dx = *x - s->cx, dy = *y - s->cy, c = cos(s->turn), n = sin(s->turn);
    *x = dx * c + dy * n;
    *y = dy * c - dx * n;
}

static int in_ellipse(double x, double y, const shape_t *s) {
    local(&x, &y, s);
    return x * x / (s->a * s->a) + y * y / (s->b * s->b) <= 1;
}

static int in_rectangle(double x, double y, const shape_t *s) {
    local(&x, &y, s);
    return fabs(x) <= s->a && fabs(y) <= s->b;
}

typedef struct {
    measurements_t m;
    double pixels, iou;
    double own_max, own_min; /* caliper widths of the pixels themselves */
    size_t points;
} figure_t;

typedef struct {
    int32_t *labels;
    int width;
    int64_t both, polygon;
} overlap_t;

static void count_span(void *ctx, int y, int x0, int x1) {
    overlap_t *o = ctx;
    o->polygon += x1 - x0;
    for (int x = x0; x < x1; x++) {
        o->both += o->labels[(size_t)y * (size_t)o->width + (size_t)x] != 0;
    }
}

static figure_t figure(inside_fn fn, const shape_t *s, int size) {
    figure_t f = {0};
    geom_t g;
    err_t err;
    overlap_t o = {calloc((size_t)size * (size_t)size, sizeof(int32_t)), size, 0, 0};
    for (int y = 0; y < size; y++) {
        for (int x = 0; x < size; x++) {
            int on = fn(x + 0.5, y + 0.5, s);
            o.labels[y * size + x] = on;
            f.pixels += on;
        }
    }
    assert_int_equal(contour_trace(o.labels, size, size, 1, NULL, NULL, &g, &err), ERR_OK);
    assert_true(geom_is_valid(&g));
    assert_int_equal(measure_object(&g, NULL, 0, 0, &f.m, &err), ERR_OK);
    assert_int_equal(raster_spans(&g, size, size, count_span, &o, &err), ERR_OK);
    f.iou = (double)o.both / (f.pixels + (double)(o.polygon - o.both));
    f.points = g.polygons[0].rings[0].count;
    const contour_params_t raw = {0};
    measurements_t own;
    geom_free(&g);
    assert_int_equal(contour_trace(o.labels, size, size, 1, &raw, NULL, &g, &err), ERR_OK);
    assert_int_equal(measure_object(&g, NULL, 0, 0, &own, &err), ERR_OK);
    f.own_max = own.feret_max;
    f.own_min = own.feret_min;
    geom_free(&g);
    free(o.labels);
    return f;
}

static double worse(double worst, double v) {
    return fmax(worst, fabs(v));
}

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            print_error("%s:%d: %s\n", __FILE__, __LINE__, #cond);                                                     \
            fail();                                                                                                    \
        }                                                                                                              \
    } while (0)

static double random_offset(void) {
    return rand() / (double)RAND_MAX;
}

static void disks(void **state) {
    (void)state;
    const double radii[] = {5, 10, 20, 50, 200};
    srand(1);
    for (size_t k = 0; k < sizeof radii / sizeof *radii; k++) {
        double r = radii[k], area = 0, fmax_ = 0, fmin_ = 0, perimeter = 0, low = 1, high = 0, iou = 1;
        int trials = r > 100 ? 5 : 80, narrow = 0;
        for (int t = 0; t < trials; t++) {
            double base = ceil(r) + 3;
            shape_t s = {base + (t == 0   ? 0.5
                                 : t == 1 ? 0
                                          : random_offset()),
                         base + (t == 0   ? 0.5
                                 : t == 1 ? 0
                                          : random_offset()),
                         r, r, 0};
            figure_t f = figure(in_ellipse, &s, (int)(2 * base + 2));
            area = worse(area, f.m.area / f.pixels - 1);
            perimeter = worse(perimeter, f.m.perimeter / (2 * PI * r) - 1);
            low = fmin(low, f.m.circularity);
            high = fmax(high, f.m.circularity);
            iou = fmin(iou, f.iou);
            CHECK(fabs(f.m.feret_max - 2 * r) <= fmax(0.5, fabs(f.own_max - 2 * r) + 0.05));
            CHECK(fabs(f.m.feret_min - 2 * r) <= fmax(0.5, fabs(f.own_min - 2 * r) + 0.05));
            fmax_ = worse(fmax_, f.m.feret_max - 2 * r);
            fmin_ = worse(fmin_, f.m.feret_min - 2 * r);
            narrow += fabs(f.own_min - 2 * r) > 0.5;
        }
        print_message(
            "disk r=%-3g  area %.3f %%  feret max %.2f min %.2f px  perimeter %.2f %%  circularity %.3f-%.3f  "
            "IoU %.4f  (pixels themselves off by over 0.5 px: %d of %d)\n",
            r, 100 * area, fmax_, fmin_, 100 * perimeter, low, high, iou, narrow, trials);
        CHECK(area <= 0.005);
        CHECK(perimeter <= (r < 10 ? 0.05 : 0.02));
        CHECK(low >= 0.97 && high <= 1);
        CHECK(iou >= 0.98);
        CHECK(fmax_ <= 0.6 && fmin_ <= 1);
    }
}

static void squares(void **state) {
    (void)state;
    for (int side = 1; side <= 100; side += side < 12 ? 1 : 22) {
        shape_t s = {side / 2.0 + 3, side / 2.0 + 3, side / 2.0, side / 2.0, 0};
        figure_t f = figure(in_rectangle, &s, side + 6);
        CHECK(f.points == 4);
        CHECK(f.m.area == side * side);
        CHECK(fabs(f.m.feret_max - side * sqrt(2)) < 1e-9 && fabs(f.m.feret_min - side) < 1e-9);
        CHECK(f.m.perimeter == 4.0 * side && f.m.extent == 1 && f.iou == 1);
    }
}

static void rotated_rectangle(void **state) {
    (void)state;
    double area = 0, longest = 0, shortest = 0, axes = 0, perimeter = 0, turn = 0, iou = 1;
    srand(2);
    for (int t = 0; t < 60; t++) {
        shape_t s = {75 + random_offset(), 75 + random_offset(), 50, 25, 30 * PI / 180};
        figure_t f = figure(in_rectangle, &s, 150);
        area = worse(area, f.m.area / f.pixels - 1);
        longest = worse(longest, f.m.feret_max - hypot(100, 50));
        shortest = worse(shortest, f.m.feret_min - 50);
        perimeter = worse(perimeter, f.m.perimeter / 300 - 1);
        axes = worse(axes, f.m.major_axis / (400 / sqrt(12)) - 1);
        axes = worse(axes, f.m.minor_axis / (200 / sqrt(12)) - 1);
        turn = worse(turn, f.m.orientation + 30);
        iou = fmin(iou, f.iou);
    }
    print_message(
        "rectangle 100x50 at 30 deg  area %.3f %%  feret max %.2f min %.2f px  perimeter %.2f %%  axes %.2f %%  "
        "orientation %.2f deg  IoU %.4f\n",
        100 * area, longest, shortest, 100 * perimeter, 100 * axes, turn, iou);
    CHECK(area <= 0.005 && longest <= 0.5 && shortest <= 0.6 && perimeter <= 0.01 && axes <= 0.005 && turn <= 0.2);
    CHECK(iou >= 0.99);
}

static void ellipse(void **state) {
    (void)state;
    double h = 0.25, exact = PI * 400 * (1 + 3 * h / (10 + sqrt(4 - 3 * h)));
    srand(3);
    for (int deg = 0; deg < 180; deg += 15) {
        shape_t s = {310 + random_offset(), 310 + random_offset(), 300, 100, deg * PI / 180};
        figure_t f = figure(in_ellipse, &s, 621);
        if (deg % 45 == 0) {
            print_message("ellipse 600x200 at %d deg  axes %.2f %.2f  feret %.2f %.2f  perimeter %.2f %%  %zu points\n",
                          deg, f.m.major_axis, f.m.minor_axis, f.m.feret_max, f.m.feret_min,
                          100 * (f.m.perimeter / exact - 1), f.points);
        }
        CHECK(fabs(f.m.major_axis / 600 - 1) <= 0.005 && fabs(f.m.minor_axis / 200 - 1) <= 0.005);
        CHECK(fabs(f.m.feret_max - 600) <= 0.5 && fabs(f.m.feret_min - 200) <= 0.5);
        CHECK(fabs(f.m.area / f.pixels - 1) <= 0.005 && fabs(f.m.perimeter / exact - 1) <= 0.005);
        CHECK(f.iou >= 0.995);
    }
}

static int in_ring_with_island(double x, double y, const shape_t *s) {
    double d = hypot(x - s->cx, y - s->cy);
    return d <= 100 && (d > 60 || d <= 30);
}

static void ring_with_island_is_exact(void **state) {
    (void)state;
    srand(4);
    for (int t = 0; t < 10; t++) {
        shape_t s = {110 + random_offset(), 110 + random_offset(), 0, 0, 0};
        figure_t f = figure(in_ring_with_island, &s, 221);
        CHECK(f.m.holes == 1);
        CHECK(fabs(f.m.area / f.pixels - 1) <= 0.0005);
        CHECK(fabs(f.m.area - PI * (10000 - 3600 + 900)) <= 150);
        CHECK(fabs(f.m.perimeter_with_holes / (2 * PI * 190) - 1) <= 0.01);
        CHECK(f.iou >= 0.98);
    }
}

/* ---------------------------------------------------------------- random blobs */

/* Labels from a sum of random waves cut at several heights: blobs with holes, necks, islands, shared borders. */
static void random_labels(int32_t *labels, int w, int h, double finest, int nlabels) {
    double a[8], b[8], c[8];
    for (int k = 0; k < 8; k++) {
        double f = finest * (0.2 + 0.8 * random_offset()), d = 2 * PI * random_offset();
        a[k] = f * cos(d);
        b[k] = f * sin(d);
        c[k] = 2 * PI * random_offset();
    }
    for (int i = 0; i < w * h; i++) {
        double s = 0;
        for (int k = 0; k < 8; k++) {
            s += sin(a[k] * (i % w) + b[k] * (i / w) + c[k]);
        }
        int v = (int)floor((s / 8 + 0.5) * nlabels);
        labels[i] = v < 0 ? 0 : v > nlabels ? nlabels : v;
    }
}

typedef struct {
    const int32_t *labels;
    uint8_t *claims;
    int width;
    int32_t label;
    int64_t both, polygon;
} claim_t;

static void claim_span(void *ctx, int y, int x0, int x1) {
    claim_t *c = ctx;
    c->polygon += x1 - x0;
    for (int x = x0; x < x1; x++) {
        size_t i = (size_t)y * (size_t)c->width + (size_t)x;
        c->both += c->labels[i] == c->label;
        c->claims[i]++;
    }
}

static void random_blobs_keep_their_pixels(void **state) {
    (void)state;
    enum { W = 160, H = 120, MOST = 6 };
    static int32_t labels[W * H];
    static uint8_t claims[W * H];
    double worst_iou = 1, worst_area = 0;
    int64_t objects = 0, twice = 0, labelled = 0;
    srand(7);
    for (int t = 0; t < 100; t++) {
        geom_t g[MOST];
        int64_t pixels[MOST + 1] = {0};
        err_t err;
        uint32_t n = 1 + (uint32_t)(t % MOST);
        random_labels(labels, W, H, 0.1 + 0.02 * (t % 50), (int)n);
        memset(claims, 0, sizeof claims);
        for (int i = 0; i < W * H; i++) {
            pixels[labels[i]]++;
            labelled += labels[i] != 0;
        }
        assert_int_equal(contour_trace(labels, W, H, n, NULL, NULL, g, &err), ERR_OK);
        for (uint32_t k = 0; k < n; k++) {
            claim_t c = {labels, claims, W, (int32_t)k + 1, 0, 0};
            measurements_t m;
            if (pixels[k + 1] == 0) {
                continue;
            }
            CHECK(geom_is_valid(&g[k]));
            geom_bbox_t box = geom_bbox(&g[k]);
            CHECK(box.x0 >= 0 && box.y0 >= 0 && box.x1 <= W * 100 && box.y1 <= H * 100);
            assert_int_equal(raster_spans(&g[k], W, H, claim_span, &c, &err), ERR_OK);
            assert_int_equal(measure_object(&g[k], NULL, 0, 0, &m, &err), ERR_OK);
            if (pixels[k + 1] > 50) {
                double iou = (double)c.both / (double)(pixels[k + 1] + c.polygon - c.both);
                worst_iou = fmin(worst_iou, iou);
                worst_area = worse(worst_area, m.area / (double)pixels[k + 1] - 1);
                objects++;
            }
            geom_free(&g[k]);
        }
        for (int i = 0; i < W * H; i++) {
            twice += claims[i] > 1;
        }
    }
    print_message("%lld random objects: IoU >= %.4f, area within %.3f %%, pixels claimed twice %.4f %%\n",
                  (long long)objects, worst_iou, 100 * worst_area, 100.0 * (double)twice / (double)labelled);
    CHECK(objects > 250);
    CHECK(worst_iou >= 0.98);
    CHECK(worst_area <= 0.005);
    CHECK(twice <= labelled / 500);
}

static void noise_is_traced_without_crossings(void **state) {
    (void)state;
    enum { W = 64, H = 64 };
    static int32_t labels[W * H];
    srand(9);
    for (int t = 0; t < 60; t++) {
        geom_t g[3];
        err_t err;
        int64_t pixels[4] = {0};
        for (int i = 0; i < W * H; i++) {
            labels[i] = rand() % 100 < 30 + t ? 1 + rand() % (1 + t % 3) : 0;
            pixels[labels[i]]++;
        }
        uint32_t n = 1 + (uint32_t)(t % 3);
        const contour_params_t raw = {0};
        for (int pass = 0; pass < 2; pass++) {
            assert_int_equal(contour_trace(labels, W, H, n, pass ? &raw : NULL, NULL, g, &err), ERR_OK);
            for (uint32_t k = 0; k < n; k++) {
                int64_t area2 = 0;
                CHECK(geom_is_valid(&g[k]));
                for (uint32_t i = 0; i < g[k].count; i++) {
                    CHECK(geom_ring_area2(&g[k].polygons[i].rings[0]) > 0);
                    for (uint32_t j = 0; j < g[k].polygons[i].count; j++) {
                        CHECK(j == 0 || geom_ring_area2(&g[k].polygons[i].rings[j]) < 0);
                        area2 += geom_ring_area2(&g[k].polygons[i].rings[j]);
                    }
                }
                CHECK(fabs((double)area2 / 20000 / (double)pixels[k + 1] - 1) <= 0.02);
                geom_free(&g[k]);
            }
        }
    }
}

/* ---------------------------------------------------------------- behaviour */

static bool stop_after(void *ctx) {
    return --*(int *)ctx < 0;
}

static void cancelling_leaves_nothing_behind(void **state) {
    (void)state;
    enum { W = 200 };
    static int32_t labels[W * W];
    geom_t g[3];
    err_t err;
    random_labels(labels, W, W, 0.3, 3);
    for (int allowed = 0; allowed < 7; allowed++) {
        int left = allowed;
        cancel_t c = {stop_after, &left};
        err_kind_t kind = contour_trace(labels, W, W, 3, NULL, &c, g, &err);
        assert_int_equal(kind, allowed < 4 + 3 ? ERR_CANCELLED : ERR_OK);
        for (int k = 0; k < 3; k++) {
            assert_null(g[k].polygons);
        }
    }
}

static void equal_input_gives_equal_bytes(void **state) {
    (void)state;
    enum { W = 120 };
    static int32_t labels[W * W];
    random_labels(labels, W, W, 0.4, 4);
    buf_t a, b;
    buf_init(&a, 1 << 24);
    buf_init(&b, 1 << 24);
    for (int pass = 0; pass < 2; pass++) {
        geom_t g[4];
        err_t err;
        assert_int_equal(contour_trace(labels, W, W, 4, NULL, NULL, g, &err), ERR_OK);
        for (int k = 0; k < 4; k++) {
            geom_encode(&g[k], pass ? &b : &a);
            geom_free(&g[k]);
        }
    }
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.data, b.data, a.len);
    buf_free(&a);
    buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rectangles_are_exact),
        cmocka_unit_test(holes_and_islands),
        cmocka_unit_test(diagonal_pieces_are_apart_and_diagonal_holes_are_one),
        cmocka_unit_test(every_label_gets_its_own_outline),
        cmocka_unit_test(tolerance_zero_gives_the_cracks),
        cmocka_unit_test(disks),
        cmocka_unit_test(squares),
        cmocka_unit_test(rotated_rectangle),
        cmocka_unit_test(ellipse),
        cmocka_unit_test(ring_with_island_is_exact),
        cmocka_unit_test(random_blobs_keep_their_pixels),
        cmocka_unit_test(noise_is_traced_without_crossings),
        cmocka_unit_test(cancelling_leaves_nothing_behind),
        cmocka_unit_test(equal_input_gives_equal_bytes),
    };
    return cmocka_run_group_tests_name("contour", tests, NULL, NULL);
}
