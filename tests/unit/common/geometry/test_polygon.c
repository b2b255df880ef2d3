/* Polygons: binary form, GeoJSON, bounds, areas, validity. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/geometry/polygon.h"

/* A geometry from "x,y x,y x,y; hole | next polygon", in px. */
static geom_t parse(const char *text) {
    geom_t g = {calloc(8, sizeof(geom_polygon_t)), 1};
    g.polygons[0].rings = calloc(8, sizeof(geom_ring_t));
    g.polygons[0].count = 1;
    geom_ring_t *r = &g.polygons[0].rings[0];
    r->points = calloc(64, sizeof(geom_point_t));
    while (*text != '\0') {
        if (*text == '|') {
            geom_polygon_t *p = &g.polygons[g.count++];
            p->rings = calloc(8, sizeof(geom_ring_t));
            p->count = 1;
            r = &p->rings[0];
            r->points = calloc(64, sizeof(geom_point_t));
            text++;
        } else if (*text == ';') {
            geom_polygon_t *p = &g.polygons[g.count - 1];
            r = &p->rings[p->count++];
            r->points = calloc(64, sizeof(geom_point_t));
            text++;
        } else if (*text == ' ') {
            text++;
        } else {
            char *end = NULL;
            double x = strtod(text, &end), y = strtod(end + 1, &end);
            r->points[r->count++] = (geom_point_t){(int32_t)(x * 100), (int32_t)(y * 100)};
            text = end;
        }
    }
    return g;
}

static int valid(const char *text) {
    geom_t g = parse(text);
    int ok = geom_is_valid(&g);
    geom_free(&g);
    return ok;
}

static void bytes_come_back_unchanged(void **state) {
    (void)state;
    geom_t g = parse("0,0 10,0 10,10 0,10; 2,2 2,4 4,4 4,2 | 20.25,-3.5 30,0 25,7.01"), back;
    buf_t buf, again;
    err_t err;
    buf_init(&buf, 1 << 20);
    buf_init(&again, 1 << 20);
    geom_encode(&g, &buf);
    assert_false(buf.failed);
    assert_int_equal(buf.len, 4 + 2 + 4 + 32 + 4 + 32 + 2 + 4 + 24);
    assert_memory_equal(buf.data, "\x01\x00\x02\x00\x02\x00\x04\x00\x00\x00", 10);
    assert_int_equal(geom_decode((const uint8_t *)buf.data, buf.len, &back, &err), ERR_OK);
    assert_int_equal(back.count, 2);
    assert_int_equal(back.polygons[1].rings[0].points[0].y, -350);
    geom_encode(&back, &again);
    assert_int_equal(again.len, buf.len);
    assert_memory_equal(again.data, buf.data, buf.len);
    geom_free(&back);
    geom_free(&g);
    buf_free(&buf);
    buf_free(&again);
}

static void damaged_bytes_are_refused(void **state) {
    (void)state;
    geom_t g = parse("0,0 10,0 10,10 0,10; 2,2 2,4 4,4 4,2"), back;
    buf_t buf;
    err_t err;
    buf_init(&buf, 1 << 20);
    geom_encode(&g, &buf);
    uint8_t *copy = malloc(buf.len + 1);
    for (size_t n = 0; n < buf.len; n++) { /* cut anywhere */
        memcpy(copy, buf.data, n);
        assert_int_equal(geom_decode(copy, n, &back, &err), ERR_INVALID);
        assert_string_equal(err.code, "geometry_corrupt");
        assert_int_equal(back.count, 0);
        assert_null(back.polygons);
    }
    static const struct {
        size_t at;
        uint8_t value;
    } wrong[] = {{0, 2}, {1, 1}, {2, 2}, {3, 0x80}, {4, 0}, {4, 3}, {6, 2}, {6, 5}, {9, 0xFF}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        memcpy(copy, buf.data, buf.len);
        copy[wrong[i].at] = wrong[i].value;
        assert_int_equal(geom_decode(copy, buf.len, &back, &err), ERR_INVALID);
    }
    memcpy(copy, buf.data, buf.len); /* one byte too many */
    copy[buf.len] = 0;
    assert_int_equal(geom_decode(copy, buf.len + 1, &back, &err), ERR_INVALID);
    assert_int_equal(geom_decode((const uint8_t *)"\x01\0\0\0", 4, &back, NULL), ERR_OK); /* empty is fine */
    free(copy);
    geom_free(&g);
    buf_free(&buf);
}

static void a_full_buffer_is_seen(void **state) {
    (void)state;
    geom_t g = parse("0,0 10,0 10,10 0,10");
    buf_t buf;
    buf_init(&buf, 20);
    geom_encode(&g, &buf);
    assert_true(buf.failed);
    geom_free(&g);
    buf_free(&buf);
}

static void geojson_has_closed_rings_and_two_decimals(void **state) {
    (void)state;
    geom_t one = parse("0,0 1,0 1,1 0,1"), two = parse("0,0 4,0.5 4,4; 1,1 1,2 2,2 | -10.07,10 12,10 12,12.3");
    geom_t none = {NULL, 0};
    buf_t buf;
    buf_init(&buf, 1 << 20);
    geom_write_geojson(&one, &buf);
    assert_string_equal(buf.data, "{\"type\":\"Polygon\",\"coordinates\":[[[0,0],[1,0],[1,1],[0,1],[0,0]]]}");
    buf_reset(&buf);
    geom_write_geojson(&two, &buf);
    assert_string_equal(buf.data, "{\"type\":\"MultiPolygon\",\"coordinates\":[[[[0,0],[4,0.5],[4,4],[0,0]],"
                                  "[[1,1],[1,2],[2,2],[1,1]]],[[[-10.07,10],[12,10],[12,12.3],[-10.07,10]]]]}");
    buf_reset(&buf);
    geom_write_geojson(&none, &buf);
    assert_string_equal(buf.data, "{\"type\":\"MultiPolygon\",\"coordinates\":[]}");
    geom_free(&one);
    geom_free(&two);
    buf_free(&buf);
}

static void units_are_formatted_exactly(void **state) {
    (void)state;
    static const struct {
        int32_t v;
        const char *text;
    } cases[] = {{0, "0"},
                 {1, "0.01"},
                 {-5, "-0.05"},
                 {10, "0.1"},
                 {100, "1"},
                 {-1250, "-12.5"},
                 {123456, "1234.56"},
                 {INT32_MAX, "21474836.47"},
                 {-99, "-0.99"},
                 {5000, "50"},
                 {INT32_MIN, "-21474836.48"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[17] = {0};
        size_t n = geom_format_units(cases[i].v, text);
        assert_int_equal(n, strlen(cases[i].text));
        assert_string_equal(text, cases[i].text);
    }
}

static void bounds_and_areas(void **state) {
    (void)state;
    geom_t g = parse("0,0 10,0 10,5 0,5; 2,2 2,4 4,4 4,2 | -20,7 -10,7 -10,9"), none = {NULL, 0};
    geom_bbox_t b = geom_bbox(&g);
    assert_true(b.x0 == -2000 && b.y0 == 0 && b.x1 == 1000 && b.y1 == 900);
    assert_int_equal(geom_ring_area2(&g.polygons[0].rings[0]), 2 * 1000 * 500);
    assert_int_equal(geom_ring_area2(&g.polygons[0].rings[1]), -2 * 200 * 200);
    b = geom_bbox(&none);
    assert_true(b.x0 == 0 && b.y0 == 0 && b.x1 == 0 && b.y1 == 0);
    geom_point_t far[] = {
        {INT32_MIN, INT32_MIN}, {INT32_MAX, INT32_MIN}, {INT32_MAX, INT32_MAX}, {INT32_MIN, INT32_MAX}};
    geom_ring_t r = {far, 4};
    assert_true(geom_ring_area2(&r) == INT64_MAX); /* held at the limit, no overflow */
    geom_point_t tri[] = {{-1000000000, 0}, {1000000000, 0}, {0, 1000000001}};
    r = (geom_ring_t){tri, 3};
    assert_true(geom_ring_area2(&r) == 2000000002000000000);
    geom_free(&g);
}

static void validity(void **state) {
    (void)state;
    assert_true(valid("0,0 10,0 10,10 0,10"));
    assert_true(valid("0,0 0,10 10,10 10,0")); /* the other way round crosses nothing either */
    assert_true(valid("0,0 10,0 10,10 0,10; 2,2 2,4 4,4 4,2"));
    assert_true(valid("0,0 10,0 10,10 5,5 0,10"));
    assert_false(valid("0,0 10,10 10,0 0,10"));                                   /* bow tie */
    assert_false(valid("0,0 10,0 10,10 0,10; 8,2 12,2 12,4 8,4"));                /* hole over the edge */
    assert_false(valid("0,0 10,0 10,10 0,10; 20,2 20,4 24,4 24,2"));              /* hole outside */
    assert_false(valid("0,0 10,0 10,10 0,10; 2,2 2,6 6,6 6,2; 4,4 4,8 8,8 8,4")); /* crossing holes */
    assert_false(valid("0,0 10,0 5,0 5,5"));                                      /* folds back */
    assert_false(valid("0,0 5,0 10,0"));                                          /* no area */
    assert_false(valid("0,0 0,0 10,0 10,10"));                                    /* repeated point */
    assert_false(valid("0,0 10,0 10,10 5,0 0,10"));                               /* touches its own edge */
    assert_false(valid("0,0 4,0 4,4 8,4 8,8 4,8 4,4 0,4"));                       /* touches its own corner */
    assert_true(valid("0,0 10,0 10,10 0,10; 0,5 3,6 3,4"));    /* hole touches the outline in a point */
    assert_true(valid("0,0 4,0 4,4 0,4 | 4,4 8,4 8,8 4,8"));   /* two pieces touch in a corner */
    assert_false(valid("0,0 4,0 4,4 0,4 | 2,-2 6,2 2,6"));     /* two pieces cross */
    assert_false(valid("0,0 4,0 4,4 0,4 | 4,1 8,1 8,3 4,3"));  /* two pieces share part of an edge */
    assert_false(valid("0,0 8,0 8,8 0,8 | 4,4 8,0 12,4 8,8")); /* cross exactly at corners */
    geom_t none = {NULL, 0};
    assert_false(geom_is_valid(&none));
}

/* A comb of many teeth is valid; moving one point across a tooth is found wherever it happens. */
static void a_crossing_is_found_anywhere(void **state) {
    (void)state;
    enum { TEETH = 200 };
    geom_point_t pts[2 * TEETH + 2];
    geom_ring_t ring = {pts, 2 * TEETH + 2};
    geom_polygon_t poly = {&ring, 1};
    geom_t g = {&poly, 1};
    for (int t = 0; t < TEETH; t++) {
        pts[2 * t] = (geom_point_t){t * 200, 0};
        pts[2 * t + 1] = (geom_point_t){t * 200 + 100, 1000 + t % 7};
    }
    pts[2 * TEETH] = (geom_point_t){TEETH * 200, 0};
    pts[2 * TEETH + 1] = (geom_point_t){TEETH * 100, -1000};
    assert_true(geom_is_valid(&g));
    for (int t = 0; t + 1 < TEETH; t++) {
        geom_point_t keep = pts[2 * t + 1];
        pts[2 * t + 1].x += 230;
        assert_false(geom_is_valid(&g));
        pts[2 * t + 1] = keep;
    }
    assert_true(geom_is_valid(&g));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_come_back_unchanged),
        cmocka_unit_test(damaged_bytes_are_refused),
        cmocka_unit_test(a_full_buffer_is_seen),
        cmocka_unit_test(geojson_has_closed_rings_and_two_decimals),
        cmocka_unit_test(units_are_formatted_exactly),
        cmocka_unit_test(bounds_and_areas),
        cmocka_unit_test(validity),
        cmocka_unit_test(a_crossing_is_found_anywhere),
    };
    return cmocka_run_group_tests_name("polygon", tests, NULL, NULL);
}
