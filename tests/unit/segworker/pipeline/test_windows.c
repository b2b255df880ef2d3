/* An image in windows gives the same objects as the image in one piece: with models that need no network, so that every
 * difference is the windows'. */
#include "tests/unit/support/cmocka_all.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "segworker/pipeline/options.h"
#include "segworker/pipeline/pipeline.h"

enum { W = 900, H = 700 };

static const image_limits_t LIMITS = {.max_pixels = 4000000, .max_decoded_bytes = 64 << 20, .max_pages = 10};

typedef struct {
    char path[64];
    uint16_t px[H * W];
} scene_t;

/* Adds a disk whose grey value falls from the centre, so that touching ones have a valley between them. */
static void put_disk(scene_t *s, double cx, double cy, double r, double inner) {
    for (int y = 0; y < H; y++) {
        for (int x = 0; x < W; x++) {
            double d = hypot(x - cx, y - cy);
            if (d < r && d >= inner) {
                double v = 20000 + 40000 * (1 - d / r);
                s->px[y * W + x] = v > s->px[y * W + x] ? (uint16_t)v : s->px[y * W + x];
            }
        }
    }
}

static int open_scene(void **state) {
    scene_t *s = calloc(1, sizeof *s);
    unsigned seed = 11;
    put_disk(s, 300, 330, 200, 150); /* larger than any window, with others inside, touching none */
    put_disk(s, 700, 200, 140, 0);
    for (int i = 0; i < 300; i++) {
        seed = seed * 1664525U + 1013904223U;
        double x = (seed >> 8) % W, y = (seed >> 4) % H, ring = hypot(x - 300, y - 330);
        if ((ring < 130 || ring > 220) && hypot(x - 700, y - 200) > 160) {
            put_disk(s, x, y, 4 + (seed >> 20) % 14, 0);
        }
    }
    snprintf(s->path, sizeof s->path, "/tmp/sg_windows_XXXXXX");
    int fd = mkstemp(s->path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(image_write_png16(s->path, s->px, W, H, NULL), ERR_OK);
    *state = s;
    return 0;
}

static int close_scene(void **state) {
    scene_t *s = *state;
    unlink(s->path);
    free(s);
    return 0;
}

/* The model whose maps are the grey values. */
static pipeline_t *open_model(void) {
    static model_spec_t m;
    memset(&m, 0, sizeof m);
    snprintf(m.name, sizeof m.name, "grey");
    m.output = MODEL_OUTPUT_TEST;
    m.tile = 128;
    m.halo = 16;
    m.divisor = 16;
    m.object_size = 64;
    m.net = (model_net_t){.inputs = 1, .nsteps = 1, .grid = 1};
    m.net.steps[0] = (model_step_t){.kind = MODEL_STEP_PERCENTILE, .a = 0, .b = 100, .clip_min = 0, .clip_max = 1};
    m.threshold = 0.3;
    m.seed_threshold = 0.85;
    m.min_area = 20;
    m.max_hole_area = 30;
    pipeline_t *p = NULL;
    err_t err;
    if (pipeline_create(&m, "cpu", &p, &err) != ERR_OK) {
        fail_msg("%s", err.message);
    }
    return p;
}

static int by_place(const void *pa, const void *pb) {
    const result_object_t *a = pa, *b = pb;
    geom_bbox_t x = geom_bbox(&a->geom), y = geom_bbox(&b->geom);
    return memcmp(&x, &y, sizeof x);
}

static result_t run(pipeline_t *p, const char *path, int window_px, const job_options_t *o) {
    const pipeline_params_t pp = {.threshold = NAN,
                                  .detect_holes = true,
                                  .limits = LIMITS,
                                  .max_objects = 10000,
                                  .window_px = window_px,
                                  .options = o};
    result_t r;
    err_t err;
    err_clear(&err);
    if (pipeline_run(p, path, &pp, NULL, &r, &err) != ERR_OK) {
        fail_msg("%s: %s", err.message, err.detail);
    }
    qsort(r.objects, r.count, sizeof *r.objects, by_place);
    return r;
}

static void expect_equal_geometry(const geom_t *a, const geom_t *b_) {
    buf_t x, y;
    buf_init(&x, 1 << 20);
    buf_init(&y, 1 << 20);
    geom_encode(a, &x);
    geom_encode(b_, &y);
    if (x.len != y.len) {
        geom_bbox_t b = geom_bbox(a), c = geom_bbox(b_);
        fail_msg("the object at %d,%d..%d,%d has %zu bytes, the one at %d,%d..%d,%d %zu", b.x0, b.y0, b.x1, b.y1, x.len,
                 c.x0, c.y0, c.x1, c.y1, y.len);
    }
    assert_memory_equal(x.data, y.data, x.len);
    buf_free(&x);
    buf_free(&y);
}

static void expect_equal(const result_t *a, const result_t *b) {
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->width, b->width);
    for (uint32_t i = 0; i < a->count; i++) {
        const measurements_t *x = &a->objects[i].m, *y = &b->objects[i].m;
        expect_equal_geometry(&a->objects[i].geom, &b->objects[i].geom);
        assert_float_equal(a->objects[i].confidence, b->objects[i].confidence, 1e-5);
        assert_float_equal(x->area, y->area, 1e-6);
        assert_float_equal(x->centroid_x, y->centroid_x, 1e-6);
        assert_float_equal(x->bbox_y, y->bbox_y, 1e-6);
        assert_float_equal(x->mean_intensity, y->mean_intensity, 1e-3);
        assert_float_equal(x->integrated_intensity / y->integrated_intensity, 1, 1e-6);
    }
}

static void windows_of_any_size_give_the_same_objects(void **state) {
    scene_t *s = *state;
    pipeline_t *p = open_model();
    result_t whole = run(p, s->path, 0, NULL);
    assert_non_null(whole.labels);
    assert_true(whole.count > 60);
    static const int sizes[] = {64, 128, 192, 320, 640};
    for (int i = 0; i < 5; i++) {
        result_t parts = run(p, s->path, sizes[i], NULL);
        assert_null(parts.labels);
        expect_equal(&whole, &parts);
        result_free(&parts);
    }
    result_free(&whole);
    pipeline_free(p);
}

static void so_they_do_with_every_option(void **state) {
    scene_t *s = *state;
    pipeline_t *p = open_model();
    job_options_t o = JOB_OPTIONS_DEFAULT;
    o.threshold = 0.4;
    o.detect_holes = false;
    o.min_area = 200;
    o.max_area = 30000;
    o.tta = MODEL_TTA_ROTATIONS;
    result_t whole = run(p, s->path, 0, &o), parts = run(p, s->path, 128, &o);
    expect_equal(&whole, &parts);
    assert_true(whole.count > 10);
    for (uint32_t i = 0; i < whole.count; i++) {
        assert_in_range((int)whole.objects[i].m.area, 190, 30200);
    }
    assert_float_equal(parts.threshold, 0.4, 0);
    assert_int_equal(parts.min_area, 200);
    assert_string_equal(parts.tta, "rotations");
    result_free(&whole);
    result_free(&parts);
    pipeline_free(p);
}

typedef struct {
    uint32_t objects, next;
    double last;
    bool stop;
} watch_t;

static err_kind_t on_object(void *arg, const result_object_t *o, err_t *err) {
    watch_t *w = arg;
    (void)err;
    assert_int_equal(o->idx, ++w->objects);
    assert_true(o->geom.count > 0 && o->m.area > 0);
    return ERR_OK;
}

static void on_progress(void *arg, const char *stage, double fraction) {
    watch_t *w = arg;
    assert_true(strlen(stage) > 0 && fraction >= w->last && fraction <= 1);
    w->last = fraction;
}

static bool stop_half_way(void *arg) {
    watch_t *w = arg;
    return w->stop && w->last > 0.5;
}

static void objects_are_handed_out_as_they_come(void **state) {
    scene_t *s = *state;
    pipeline_t *p = open_model();
    watch_t w = {0};
    const pipeline_callbacks_t cb = {
        .arg = &w, .object = on_object, .progress = on_progress, .cancelled = stop_half_way};
    const pipeline_params_t pp = {
        .threshold = NAN, .detect_holes = true, .limits = LIMITS, .max_objects = 10000, .window_px = 128};
    result_t r;
    err_t err;
    assert_int_equal(pipeline_run(p, s->path, &pp, &cb, &r, &err), ERR_OK);
    assert_int_equal(r.count, w.objects);
    assert_null(r.objects);
    assert_true(w.last == 1.0);
    result_free(&r);
    w = (watch_t){.stop = true};
    assert_int_equal(pipeline_run(p, s->path, &pp, &cb, &r, &err), ERR_CANCELLED);
    assert_true(w.objects > 0);
    assert_true(w.last < 0.7);
    pipeline_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_of_any_size_give_the_same_objects),
        cmocka_unit_test(so_they_do_with_every_option),
        cmocka_unit_test(objects_are_handed_out_as_they_come),
    };
    return cmocka_run_group_tests(tests, open_scene, close_scene);
}
