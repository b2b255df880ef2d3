/* Windows to whole objects: each object of an image once and pixel for pixel, however the image is divided. */
#include "tests/unit/support/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "segworker/pipeline/stitch.h"

enum { W = 413, H = 377, MAX_OBJECTS = 400 };

typedef struct {
    int32_t truth[H * W]; /* as it should come out */
    int32_t got[H * W];
    int32_t emitted; /* objects so far */
    int from_runs;
} scene_t;

static void put_disk(scene_t *s, int cx, int cy, int r, int inner, int32_t label) {
    for (int y = cy - r; y <= cy + r; y++) {
        for (int x = cx - r; x <= cx + r; x++) {
            int d2 = (x - cx) * (x - cx) + (y - cy) * (y - cy);
            if (x >= 0 && y >= 0 && x < W && y < H && d2 <= r * r && d2 >= inner * inner && s->truth[y * W + x] == 0) {
                s->truth[y * W + x] = label;
            }
        }
    }
}

static err_kind_t take(void *ctx, const stitch_object_t *o, err_t *err) {
    scene_t *s = ctx;
    int64_t area = 0;
    (void)err;
    s->emitted++;
    s->from_runs++;
    for (size_t k = 0; k < o->nruns; k++) {
        assert_true(o->runs[k].x0 >= o->x0 && o->runs[k].x1 <= o->x1 && o->runs[k].y >= o->y0 && o->runs[k].y < o->y1);
        for (int x = o->runs[k].x0; x < o->runs[k].x1; x++, area++) {
            assert_int_equal(s->got[o->runs[k].y * W + x], 0);
            s->got[o->runs[k].y * W + x] = s->emitted;
        }
    }
    assert_int_equal(area, o->area);
    assert_true(o->confidence > 0.45F && o->confidence < 0.55F);
    return ERR_OK;
}

static int32_t number_in_window(int32_t *map, int32_t *n, int32_t label) {
    if (map[label] == 0) {
        map[label] = ++*n;
    }
    return map[label];
}

/* What a window shows of the truth, its objects numbered from 1 on. */
static void run_window(stitch_t *st, scene_t *s, int cx0, int cy0, int cx1, int cy1, int halo) {
    int x0 = cx0 - halo > 0 ? cx0 - halo : 0, y0 = cy0 - halo > 0 ? cy0 - halo : 0;
    int x1 = cx1 + halo < W ? cx1 + halo : W, y1 = cy1 + halo < H ? cy1 + halo : H, w = x1 - x0, h = y1 - y0;
    int32_t *labels = calloc((size_t)w * (size_t)h, sizeof *labels), map[MAX_OBJECTS + 1] = {0}, n = 0;
    float confidence[MAX_OBJECTS];
    for (int i = 0; i < MAX_OBJECTS; i++) {
        confidence[i] = 0.5F;
    }
    for (int y = 0; y < h; y++) {
        for (int x = 0; x < w; x++) {
            int32_t t = s->truth[(y0 + y) * W + x0 + x];
            labels[y * w + x] = t ? number_in_window(map, &n, t) : 0;
        }
    }
    stitch_window_t win = {.x = x0,
                           .y = y0,
                           .w = w,
                           .h = h,
                           .cx0 = cx0,
                           .cy0 = cy0,
                           .cx1 = cx1,
                           .cy1 = cy1,
                           .labels = labels,
                           .count = (uint32_t)n,
                           .confidence = confidence};
    const stitch_sink_t sink = {.fn = take, .ctx = s};
    assert_int_equal(stitch_add(st, &win, &sink, NULL), ERR_OK);
    int32_t base = s->emitted;
    for (int y = 0; y < h; y++) {
        for (int x = 0; x < w; x++) {
            int32_t v = win.labels[y * w + x];
            assert_in_range(v, 0, win.count);
            if (v) {
                assert_int_equal(s->got[(y0 + y) * W + x0 + x], 0);
                s->got[(y0 + y) * W + x0 + x] = base + v;
            }
        }
    }
    s->emitted += (int32_t)win.count;
    free(labels);
}

static void run(scene_t *s, int core, int halo, const stitch_params_t *base) {
    stitch_params_t p = *base;
    stitch_t *st = NULL;
    memset(s->got, 0, sizeof s->got);
    s->emitted = s->from_runs = 0;
    p.width = W;
    p.height = H;
    p.max_core_height = core;
    p.max_halo = halo;
    assert_int_equal(stitch_create(&p, &st, NULL), ERR_OK);
    for (int y = 0; y < H; y += core) {
        for (int x = 0; x < W; x += core) {
            run_window(st, s, x, y, x + core < W ? x + core : W, y + core < H ? y + core : H, halo);
        }
    }
    const stitch_sink_t sink = {.fn = take, .ctx = s};
    assert_int_equal(stitch_finish(st, &sink, NULL), ERR_OK);
    stitch_free(st);
}

/* Same partition of the pixels into objects; numbers may differ. Objects whose label is in `missing` are not there. */
static void expect_same(const scene_t *s, const bool *missing) {
    int32_t there[MAX_OBJECTS + 1] = {0}, back[MAX_OBJECTS + 1] = {0};
    for (int i = 0; i < W * H; i++) {
        int32_t t = s->truth[i], g = s->got[i];
        if (t == 0 || (missing && missing[t])) {
            assert_int_equal(g, 0);
            continue;
        }
        if (g == 0) {
            fail_msg("pixel %d,%d of object %d is missing", i % W, i / W, t);
        }
        there[t] = there[t] ? there[t] : g;
        back[g] = back[g] ? back[g] : t;
        if (there[t] != g || back[g] != t) {
            fail_msg("pixel %d,%d: object %d came out as %d and %d", i % W, i / W, t, there[t], g);
        }
    }
}

/* Small disks everywhere, a ring around one, large ones that touch each other across borders, one at the edge. */
static scene_t *make_scene(void) {
    scene_t *s = calloc(1, sizeof *s);
    unsigned seed = 5;
    int32_t label = 0;
    put_disk(s, 130, 140, 90, 75, ++label);
    put_disk(s, 300, 120, 70, 0, ++label);
    put_disk(s, 300, 255, 68, 0, ++label);
    put_disk(s, 60, 330, 55, 0, ++label);
    for (int i = 0; i < 150; i++) {
        seed = seed * 1664525U + 1013904223U;
        put_disk(s, (int)(seed >> 8) % W, (int)(seed >> 4) % H, 3 + (int)(seed >> 20) % 9, 0, ++label);
    }
    return s;
}

static const stitch_params_t ALL = {.min_area = 0};

static void objects_are_whole_and_once_whatever_the_division(void **state) {
    (void)state;
    scene_t *s = make_scene();
    static const int divisions[][2] = {{W, 0}, {200, 24}, {128, 24}, {100, 30}, {64, 24}, {37, 23}, {31, 2}};
    for (size_t i = 0; i < sizeof divisions / sizeof divisions[0]; i++) {
        run(s, divisions[i][0], divisions[i][1], &ALL);
        expect_same(s, NULL);
        assert_true(divisions[i][0] > 64 || s->from_runs >= 3);
    }
    free(s);
}

static void small_and_cut_objects_go_once_they_are_whole(void **state) {
    (void)state;
    scene_t *s = make_scene();
    bool missing[MAX_OBJECTS + 1] = {false};
    int area[MAX_OBJECTS + 1] = {0};
    for (int i = 0; i < W * H; i++) {
        int x = i % W, y = i / W;
        area[s->truth[i]]++;
        missing[s->truth[i]] = missing[s->truth[i]] || x == 0 || y == 0 || x == W - 1 || y == H - 1;
    }
    for (int k = 1; k <= MAX_OBJECTS; k++) {
        missing[k] = missing[k] || area[k] < 150;
    }
    const stitch_params_t p = {.min_area = 150, .drop_border = true};
    static const int divisions[][2] = {{W, 0}, {128, 24}, {37, 23}};
    for (size_t i = 0; i < 3; i++) {
        run(s, divisions[i][0], divisions[i][1], &p);
        expect_same(s, missing);
    }
    free(s);
}

/* All objects of the scene have a confidence of 0.5. */
static void faint_objects_are_left_out_whole_or_in_fragments(void **state) {
    (void)state;
    scene_t *s = make_scene();
    bool missing[MAX_OBJECTS + 1];
    memset(missing, true, sizeof missing);
    static const int divisions[][2] = {{W, 0}, {128, 24}, {37, 23}};
    for (size_t i = 0; i < 3; i++) {
        run(s, divisions[i][0], divisions[i][1], &(stitch_params_t){.min_confidence = 0.5});
        expect_same(s, NULL);
        run(s, divisions[i][0], divisions[i][1], &(stitch_params_t){.min_confidence = 0.51});
        expect_same(s, missing);
    }
    free(s);
}

/* Windows that see an object a little differently must not give it twice, nor leave overlapping pixels. */
static void windows_that_disagree_give_an_object_once(void **state) {
    (void)state;
    stitch_params_t p = {.width = 60, .height = 30, .max_core_height = 30, .max_halo = 15};
    stitch_t *st = NULL;
    assert_int_equal(stitch_create(&p, &st, NULL), ERR_OK);
    static uint8_t cover[30 * 60];
    memset(cover, 0, sizeof cover);
    const stitch_sink_t sink = {.fn = take, .ctx = NULL};
    uint32_t objects = 0;
    for (int k = 0; k < 2; k++) {
        int x0 = k == 0 ? 0 : 15, w = 45;
        int32_t labels[45 * 30] = {0};
        float confidence[1] = {0.5F};
        for (int y = 10; y < 20; y++) {
            for (int x = 25 + k * 2; x < 36 + k * 2; x++) { /* two px further right in the second */
                labels[y * w + x - x0] = 1;
            }
        }
        stitch_window_t win = {.x = x0,
                               .y = 0,
                               .w = w,
                               .h = 30,
                               .cx0 = k * 30,
                               .cy0 = 0,
                               .cx1 = k * 30 + 30,
                               .cy1 = 30,
                               .labels = labels,
                               .count = 1,
                               .confidence = confidence};
        assert_int_equal(stitch_add(st, &win, &sink, NULL), ERR_OK);
        objects += win.count;
        for (int i = 0; i < w * 30; i++) {
            cover[i / w * 60 + x0 + i % w] = (uint8_t)(cover[i / w * 60 + x0 + i % w] + (labels[i] != 0));
        }
    }
    assert_int_equal(stitch_finish(st, &sink, NULL), ERR_OK);
    assert_int_equal(objects, 1);
    for (int i = 0; i < 30 * 60; i++) {
        assert_in_range(cover[i], 0, 1);
    }
    stitch_free(st);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_are_whole_and_once_whatever_the_division),
        cmocka_unit_test(small_and_cut_objects_go_once_they_are_whole),
        cmocka_unit_test(faint_objects_are_left_out_whole_or_in_fragments),
        cmocka_unit_test(windows_that_disagree_give_an_object_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
