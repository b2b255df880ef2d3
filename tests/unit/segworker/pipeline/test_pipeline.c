/* The whole pipeline with the models that are shipped, on generated images. Run from the repository root (or with
 * MODELS_DIR set). */
#include "tests/unit/support/cmocka_all.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "segworker/pipeline/pipeline.h"

enum { SIDE = 200 };

static const image_limits_t LIMITS = {.max_pixels = 4000000, .max_decoded_bytes = 64 << 20, .max_pages = 10};

typedef struct {
    pipeline_t *p;
    char path[64];
} fixture_t;

static int open_model(void **state) {
    fixture_t *f = calloc(1, sizeof *f);
    const char *dir = getenv("MODELS_DIR") ? getenv("MODELS_DIR") : "segworker/models";
    model_registry_t r;
    err_t err;
    err_clear(&err);
    if (models_load(dir, "nuclei", &r, &err) != ERR_OK) {
        fail_msg("%s", err.message);
    }
    pipeline_set_threads(2);
    if (pipeline_create(&r.models[0], "cpu", &f->p, &err) != ERR_OK) {
        fail_msg("%s: %s", err.message, err.detail);
    }
    models_free(&r);
    snprintf(f->path, sizeof f->path, "/tmp/sg_pipeline_XXXXXX");
    int fd = mkstemp(f->path);
    assert_true(fd >= 0);
    close(fd);
    *state = f;
    return 0;
}

static int close_model(void **state) {
    fixture_t *f = *state;
    pipeline_free(f->p);
    unlink(f->path);
    free(f);
    return 0;
}

/* Nine bright disks of radius 11 on a dim, slightly uneven background. */
static void write_disks(const char *path) {
    uint16_t *px = calloc(SIDE * SIDE, sizeof *px);
    unsigned seed = 1;
    for (int y = 0; y < SIDE; y++) {
        for (int x = 0; x < SIDE; x++) {
            seed = seed * 1664525u + 1013904223u;
            double v = 900 + x + (double)(seed >> 26);
            for (int k = 0; k < 9; k++) {
                double dx = x - (35 + 65 * (k % 3)), dy = y - (35 + 65 * (k / 3));
                v += 6000 / (1 + exp((sqrt(dx * dx + dy * dy) - 11) * 2));
            }
            px[y * SIDE + x] = (uint16_t)v;
        }
    }
    assert_int_equal(image_write_png16(path, px, SIDE, SIDE, NULL), ERR_OK);
    free(px);
}

static pipeline_params_t params(void) {
    return (pipeline_params_t){.threshold = NAN, .limits = LIMITS, .max_objects = 1000, .detect_holes = true};
}

typedef struct {
    double last;
    int calls;
    bool stop;
} watch_t;

static void on_progress(void *arg, const char *stage, double fraction) {
    watch_t *w = arg;
    assert_true(strlen(stage) > 0);
    assert_true(fraction >= w->last && fraction <= 1);
    w->last = fraction;
    w->calls++;
}

static bool asked_to_stop(void *arg) {
    return ((watch_t *)arg)->stop;
}

static void finds_nine_disks_twice_the_same(void **state) {
    fixture_t *f = *state;
    write_disks(f->path);
    pipeline_params_t pp = params();
    result_t r[2];
    err_t err;
    for (int i = 0; i < 2; i++) {
        watch_t w = {0};
        pipeline_callbacks_t cb = {.arg = &w, .progress = on_progress, .cancelled = asked_to_stop};
        err_clear(&err);
        if (pipeline_run(f->p, f->path, &pp, &cb, &r[i], &err) != ERR_OK) {
            fail_msg("%s: %s", err.message, err.detail);
        }
        assert_true(w.last == 1.0 && w.calls >= 12);
    }
    assert_int_equal(r[0].count, 9);
    assert_int_equal(r[0].width, SIDE);
    assert_string_equal(r[0].model, "nuclei");
    assert_int_equal(r[0].nstages, 6);
    for (uint32_t i = 0; i < r[0].count; i++) {
        const result_object_t *a = &r[0].objects[i], *b = &r[1].objects[i];
        assert_int_equal(a->idx, i + 1);
        assert_true(a->m.area > 200 && a->m.area < 800);
        assert_true(a->m.mean_intensity > 2000 && a->m.mean_intensity < 7500);
        assert_true(a->confidence >= 0.5f && a->confidence <= 1.0f);
        assert_memory_equal(&a->m.area, &b->m.area, sizeof a->m.area);
        assert_int_equal(a->geom.polygons[0].rings[0].count, b->geom.polygons[0].rings[0].count);
    }
    assert_memory_equal(r[0].labels, r[1].labels, sizeof(int32_t) * SIDE * SIDE);
    result_free(&r[0]);
    result_free(&r[1]);
}

static void one_colour_gives_nothing_and_says_why(void **state) {
    fixture_t *f = *state;
    uint16_t *px = calloc(SIDE * SIDE, sizeof *px);
    assert_int_equal(image_write_png16(f->path, px, SIDE, SIDE, NULL), ERR_OK);
    free(px);
    pipeline_params_t pp = params();
    result_t r;
    assert_int_equal(pipeline_run(f->p, f->path, &pp, NULL, &r, NULL), ERR_OK);
    assert_int_equal(r.count, 0);
    assert_non_null(strstr(r.note, "no contrast"));
    result_free(&r);
}

static void stops_when_asked_or_late_or_wrong(void **state) {
    fixture_t *f = *state;
    write_disks(f->path);
    pipeline_params_t pp = params();
    result_t r;
    err_t err;
    watch_t w = {.stop = true};
    pipeline_callbacks_t cb = {.arg = &w, .progress = on_progress, .cancelled = asked_to_stop};
    assert_int_equal(pipeline_run(f->p, f->path, &pp, &cb, &r, &err), ERR_CANCELLED);
    result_free(&r);
    pp.timeout_ms = 1;
    assert_int_equal(pipeline_run(f->p, f->path, &pp, NULL, &r, &err), ERR_TIMEOUT);
    assert_string_equal(err.code, "job_timeout");
    pp = params();
    pp.max_objects = 3;
    assert_int_equal(pipeline_run(f->p, f->path, &pp, NULL, &r, &err), ERR_INVALID);
    assert_string_equal(err.code, "too_many_objects");
    pp = params();
    pp.threshold = 1.5;
    assert_int_equal(pipeline_run(f->p, f->path, &pp, NULL, &r, &err), ERR_INVALID);
    assert_string_equal(err.code, "threshold_out_of_range");
    pp = params();
    pp.page = 1;
    assert_int_equal(pipeline_run(f->p, f->path, &pp, NULL, &r, &err), ERR_INVALID);
    assert_int_equal(pipeline_run(f->p, "/nonexistent.png", &pp, NULL, &r, &err), ERR_NOT_FOUND);
    assert_null(r.objects);
}

static void a_file_that_is_no_model_is_refused(void **state) {
    fixture_t *f = *state;
    FILE *file = fopen(f->path, "wb");
    fputs("not TorchScript", file);
    fclose(file);
    model_spec_t *m = malloc(sizeof *m);
    *m = *pipeline_spec(f->p);
    snprintf(m->path, sizeof m->path, "%s", f->path);
    pipeline_t *p = NULL;
    err_t err;
    assert_int_equal(pipeline_create(m, "cpu", &p, &err), ERR_INVALID);
    assert_string_equal(err.code, "model_unreadable");
    assert_int_equal(pipeline_create(pipeline_spec(f->p), "toaster", &p, &err), ERR_INVALID);
    assert_string_equal(err.code, "device_unknown");
    assert_null(p);
    free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_nine_disks_twice_the_same),
        cmocka_unit_test(one_colour_gives_nothing_and_says_why),
        cmocka_unit_test(stops_when_asked_or_late_or_wrong),
        cmocka_unit_test(a_file_that_is_no_model_is_refused),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
