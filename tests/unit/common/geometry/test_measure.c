/* Measurements against closed formulas, for polygons whose true values are known. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/geometry/measure.h"
#include "common/geometry/raster.h"

#define PI 3.14159265358979323846

static void near(double got, double want, double tolerance) {
    if (!(fabs(got - want) <= tolerance)) {
        print_error("got %.9g, want %.9g within %g\n", got, want, tolerance);
        fail();
    }
}

static geom_ring_t ring_of(const double *xy, uint32_t n) {
    geom_ring_t r = {calloc(n, sizeof(geom_point_t)), n};
    for (uint32_t i = 0; i < n; i++) {
        r.points[i] = (geom_point_t){(int32_t)lround(xy[2 * i] * 100), (int32_t)lround(xy[2 * i + 1] * 100)};
    }
    return r;
}

static geom_ring_t ellipse_ring(double cx, double cy, double a, double b, double turn, int negative) {
    enum { N = 720 };
    geom_ring_t r = {calloc(N, sizeof(geom_point_t)), N};
    for (int i = 0; i < N; i++) {
        double t = 2 * PI * (negative ? N - i : i) / N, x = a * cos(t), y = b * sin(t);
        r.points[i] = (geom_point_t){(int32_t)lround(100 * (cx + x * cos(turn) - y * sin(turn))),
                                     (int32_t)lround(100 * (cy + x * sin(turn) + y * cos(turn)))};
    }
    return r;
}

static geom_t single(geom_ring_t r) {
    geom_t g = {calloc(1, sizeof(geom_polygon_t)), 1};
    g.polygons[0].rings = calloc(1, sizeof r);
    g.polygons[0].rings[0] = r;
    g.polygons[0].count = 1;
    return g;
}

static measurements_t measure_and_free(geom_t *g) {
    measurements_t m;
    err_t err;
    assert_int_equal(measure_object(g, NULL, 0, 0, &m, &err), ERR_OK);
    geom_free(g);
    return m;
}

static void square(void **state) {
    (void)state;
    const double xy[] = {10, 20, 110, 20, 110, 120, 10, 120};
    geom_t g = single(ring_of(xy, 4));
    measurements_t m = measure_and_free(&g);
    near(m.area, 10000, 1e-9);
    near(m.area_filled, 10000, 1e-9);
    near(m.perimeter, 400, 1e-9);
    near(m.equivalent_diameter, 2 * sqrt(10000 / PI), 1e-9);
    near(m.circularity, PI / 4, 1e-9);
    near(m.compactness, 4 / PI, 1e-9);
    near(m.feret_max, 100 * sqrt(2), 1e-9);
    near(m.feret_min, 100, 1e-9);
    near(m.feret_orthogonal, 100 * sqrt(2), 1e-9);
    near(m.feret_aspect_ratio, sqrt(2), 1e-9);
    near(m.major_axis, 4 * 100 / sqrt(12), 1e-9);
    near(m.minor_axis, 4 * 100 / sqrt(12), 1e-9);
    near(m.bbox_x, 10, 0);
    near(m.bbox_y, 20, 0);
    near(m.bbox_width, 100, 0);
    near(m.bbox_height, 100, 0);
    near(m.extent, 1, 1e-12);
    near(m.convexity, 1, 1e-12);
    near(m.solidity, 1, 1e-12);
    near(m.sphericity, 1 / sqrt(2), 0.002);
    near(m.centroid_x, 60, 1e-9);
    near(m.centroid_y, 70, 1e-9);
    assert_int_equal(m.holes, 0);
    assert_true(isnan(m.mean_intensity) && isnan(m.integrated_intensity));
}

static void rotated_rectangle(void **state) {
    (void)state;
    for (int deg = -85; deg <= 90; deg += 5) { /* screen angle, counter-clockwise */
        double c = cos(deg * PI / 180), s = -sin(deg * PI / 180);
        double xy[8];
        const double u[] = {-50, 50, 50, -50}, v[] = {-25, -25, 25, 25};
        for (int i = 0; i < 4; i++) {
            xy[2 * i] = 300 + u[i] * c - v[i] * s;
            xy[2 * i + 1] = 200 + u[i] * s + v[i] * c;
        }
        geom_t g = single(ring_of(xy, 4));
        measurements_t m = measure_and_free(&g);
        near(m.area, 5000, 1);
        near(m.feret_max, hypot(100, 50), 0.02);
        near(m.feret_min, 50, 0.02);
        near(m.feret_orthogonal, 2 * 100 * 50 / hypot(100, 50), 0.03);
        near(m.major_axis, 4 * 100 / sqrt(12), 0.03);
        near(m.minor_axis, 4 * 50 / sqrt(12), 0.03);
        near(m.orientation, deg, 0.02);
    }
}

static void ellipse_axes_are_not_swapped(void **state) {
    (void)state;
    for (int deg = 0; deg < 180; deg += 15) {
        geom_t g = single(ellipse_ring(400, 400, 300, 100, deg * PI / 180, 0));
        measurements_t m = measure_and_free(&g);
        near(m.major_axis, 600, 0.05);
        near(m.minor_axis, 200, 0.05);
        near(m.feret_max, 600, 0.05);
        near(m.feret_min, 200, 0.05);
        near(m.area, PI * 300 * 100, 3);
        double want = deg <= 90 ? -deg : 180 - deg; /* turning towards +y is clockwise on the screen */
        near(m.orientation == 90 ? -90 : m.orientation, want, 0.02);
    }
}

static void circle(void **state) {
    (void)state;
    geom_t g = single(ellipse_ring(50, 50, 40, 40, 0, 0));
    measurements_t m = measure_and_free(&g);
    near(m.area, PI * 1600, 0.3);
    near(m.perimeter, 2 * PI * 40, 0.05); /* 720 points on the grid */
    near(m.circularity, 1, 5e-4);
    assert_true(m.circularity <= 1 && m.compactness >= 1);
    near(m.sphericity, 1, 0.002);
    near(m.feret_max, 80, 0.02);
    near(m.feret_min, 80, 0.02);
}

/* A disk of 100 with a hole of 60 and in it an island of 30: the island counts, the hole does not. */
static void ring_with_island(void **state) {
    (void)state;
    geom_t g = {calloc(2, sizeof(geom_polygon_t)), 2};
    g.polygons[0] = (geom_polygon_t){calloc(2, sizeof(geom_ring_t)), 2};
    g.polygons[0].rings[0] = ellipse_ring(150, 150, 100, 100, 0, 0);
    g.polygons[0].rings[1] = ellipse_ring(150, 150, 60, 60, 0, 1);
    g.polygons[1] = (geom_polygon_t){calloc(1, sizeof(geom_ring_t)), 1};
    g.polygons[1].rings[0] = ellipse_ring(150, 150, 30, 30, 0, 0);
    measurements_t m = measure_and_free(&g);
    near(m.area, PI * (10000 - 3600 + 900), 1);
    near(m.area_filled, PI * (10000 + 900), 1);
    near(m.perimeter, 2 * PI * 130, 0.05);
    near(m.perimeter_with_holes, 2 * PI * 190, 0.05);
    near(m.solidity, 0.73, 1e-3);
    near(m.sphericity, 0.3, 0.002); /* the island is wider than the ring around it */
    near(m.centroid_x, 150, 1e-3);
    assert_int_equal(m.holes, 1);
    double second = (pow(100, 4) - pow(60, 4) + pow(30, 4)) / (4 * (10000 - 3600 + 900));
    near(m.major_axis, 4 * sqrt(second), 0.02);
}

static void widest_place_beats_the_box_centre(void **state) {
    (void)state;
    /* a thin bar with a square of 40 at its end: the circle sits in the square */
    const double xy[] = {0, 18, 160, 18, 160, 0, 200, 0, 200, 40, 160, 40, 160, 22, 0, 22};
    geom_t g = single(ring_of(xy, 8));
    measurements_t m = measure_and_free(&g);
    double a = 200, radius = hypot(a, 22) / 2; /* enclosing circle is at least this large */
    assert_true(m.sphericity * radius <= 20.5 && m.sphericity * radius >= 19.0);
    near(m.area, 160 * 4 + 1600, 1e-9);
    assert_true(m.convexity < 1 && m.solidity < 0.5);
}

/* Brute force over all corner pairs and all hull edges for random polygons. */
static void feret_agrees_with_brute_force(void **state) {
    (void)state;
    srand(11);
    for (int trial = 0; trial < 300; trial++) {
        enum { N = 24 };
        double xy[2 * N], longest = 0, narrowest = INFINITY;
        for (int i = 0; i < N; i++) {
            double t = 2 * PI * i / N, r = 20 + rand() % 3000 / 100.0;
            xy[2 * i] = round((100 + r * cos(t) * 2) * 100) / 100;
            xy[2 * i + 1] = round((100 + r * sin(t)) * 100) / 100;
        }
        for (int i = 0; i < N; i++) {
            for (int k = 0; k < i; k++) {
                longest = fmax(longest, hypot(xy[2 * i] - xy[2 * k], xy[2 * i + 1] - xy[2 * k + 1]));
                double dx = xy[2 * i] - xy[2 * k], dy = xy[2 * i + 1] - xy[2 * k + 1], low = 0, high = 0;
                for (int j = 0; j < N; j++) {
                    double d = ((xy[2 * j] - xy[2 * k]) * dy - (xy[2 * j + 1] - xy[2 * k + 1]) * dx) / hypot(dx, dy);
                    low = fmin(low, d);
                    high = fmax(high, d);
                }
                narrowest = fmin(narrowest, high - low);
            }
        }
        geom_t g = single(ring_of(xy, N));
        measurements_t m = measure_and_free(&g);
        near(m.feret_max, longest, 1e-6);
        near(m.feret_min, narrowest, 1e-6);
        assert_true(m.circularity > 0 && m.circularity <= 1 && m.solidity <= 1 + 1e-12 && m.sphericity <= 1);
    }
}

static void intensities_are_of_the_pixels_inside(void **state) {
    (void)state;
    enum { W = 20, H = 10 };
    float plane[W * H];
    for (int i = 0; i < W * H; i++) {
        plane[i] = (float)i;
    }
    const double xy[] = {2, 3, 5, 3, 5, 5, 2, 5};
    geom_t g = single(ring_of(xy, 4));
    measurements_t m;
    err_t err;
    assert_int_equal(measure_object(&g, plane, W, H, &m, &err), ERR_OK);
    near(m.integrated_intensity, 62 + 63 + 64 + 82 + 83 + 84, 1e-9);
    near(m.mean_intensity, 73, 1e-9);
    geom_free(&g);
    const double outside[] = {-50, -50, -40, -50, -40, -40};
    g = single(ring_of(outside, 3));
    assert_int_equal(measure_object(&g, plane, W, H, &m, &err), ERR_OK);
    assert_true(isnan(m.mean_intensity));
    geom_free(&g);
    const double partly[] = {-1000, -1000, 1000, -1000, 1000, 1000, -1000, 1000};
    g = single(ring_of(partly, 4));
    assert_int_equal(measure_object(&g, plane, W, H, &m, &err), ERR_OK);
    near(m.integrated_intensity, W * H * (W * H - 1) / 2.0, 1e-6);
    geom_free(&g);
}

typedef struct {
    int hits[100];
} canvas_t;

static void paint(void *ctx, int y, int x0, int x1) {
    canvas_t *c = ctx;
    for (int x = x0; x < x1; x++) {
        c->hits[y * 10 + x]++;
    }
}

static void neighbours_never_share_a_pixel(void **state) {
    (void)state;
    canvas_t c = {{0}};
    err_t err;
    /* a 10×10 image cut in two along a line through pixel centres */
    const double left[] = {0, 0, 4.5, 0, 6.5, 10, 0, 10}, right[] = {4.5, 0, 10, 0, 10, 10, 6.5, 10};
    geom_t a = single(ring_of(left, 4)), b = single(ring_of(right, 4));
    assert_int_equal(raster_spans(&a, 10, 10, paint, &c, &err), ERR_OK);
    assert_int_equal(raster_spans(&b, 10, 10, paint, &c, &err), ERR_OK);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(c.hits[i], 1);
    }
    geom_free(&a);
    geom_free(&b);
}

static void no_area_is_an_error(void **state) {
    (void)state;
    const double line[] = {0, 0, 5, 5, 10, 10};
    geom_t g = single(ring_of(line, 3)), none = {NULL, 0};
    measurements_t m;
    err_t err;
    assert_int_equal(measure_object(&g, NULL, 0, 0, &m, &err), ERR_INVALID);
    assert_string_equal(err.code, "geometry_degenerate");
    assert_int_equal(measure_object(&none, NULL, 0, 0, &m, &err), ERR_INVALID);
    geom_free(&g);
}

static void json_is_stable_and_fine_enough(void **state) {
    (void)state;
    measurements_t m = {0};
    buf_t buf;
    buf_init(&buf, 4096);
    m.area = 123456.789012;
    m.circularity = 0.00123456789;
    m.perimeter = 2.5;
    m.orientation = -0.00000000000000001;
    m.holes = 3;
    m.mean_intensity = m.integrated_intensity = NAN;
    measure_write_json(&m, &buf);
    assert_non_null(strstr(buf.data, "{\"area\":123456.789,\"areaFilled\":0,\"perimeter\":2.5,"));
    assert_non_null(strstr(buf.data, "\"circularity\":0.00123457,"));
    assert_non_null(strstr(buf.data, "\"orientation\":0,"));
    assert_non_null(strstr(buf.data, "\"holes\":3}"));
    assert_null(strstr(buf.data, "ntensity"));
    buf_reset(&buf);
    m.mean_intensity = 7;
    measure_write_json(&m, &buf);
    assert_non_null(strstr(buf.data, "\"holes\":3,\"meanIntensity\":7}"));
    buf_free(&buf);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(square),
        cmocka_unit_test(rotated_rectangle),
        cmocka_unit_test(ellipse_axes_are_not_swapped),
        cmocka_unit_test(circle),
        cmocka_unit_test(ring_with_island),
        cmocka_unit_test(widest_place_beats_the_box_centre),
        cmocka_unit_test(feret_agrees_with_brute_force),
        cmocka_unit_test(intensities_are_of_the_pixels_inside),
        cmocka_unit_test(neighbours_never_share_a_pixel),
        cmocka_unit_test(no_area_is_an_error),
        cmocka_unit_test(json_is_stable_and_fine_enough),
    };
    return cmocka_run_group_tests_name("measure", tests, NULL, NULL);
}
