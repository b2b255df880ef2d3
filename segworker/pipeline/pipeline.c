/*
 * The run of one image through its stages. A run_t holds what the stages hand on; each stage is one function that frees
 * what is no longer needed, so that the peak stays low. The clock, the progress and the question "go on?" are here and
 * nowhere else.
 */
#include "segworker/pipeline/pipeline.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "segworker/pipeline/contour.h"
#include "segworker/pipeline/infer.h"
#include "segworker/pipeline/label.h"
#include "segworker/pipeline/normalise.h"
#include "segworker/pipeline/tile.h"
#include "segworker/torch_shim.h"

enum { MAP_FOREGROUND = 0, MAP_DISTANCE, MAPS };

struct pipeline {
    model_spec_t spec;
    infer_t net;
    pthread_mutex_t busy; /* one tile at a time on the device */
};

typedef struct {
    pipeline_t *p;
    const char *path;
    const pipeline_params_t *params;
    const pipeline_callbacks_t *cb;
    result_t *out;
    double deadline; /* seconds of the monotonic clock; 0 = none */
    bool timed_out;
    const char *stage;
    double stage_began, from, to; /* share of the whole run that this stage covers */
    int width, height, work_width, work_height;
    float *grey; /* width*height, file units; kept for the intensities */
    float *work; /* the network's input plane */
    bool contrast;
    float *maps[MAPS]; /* at the original size after infer */
} run_t;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "out_of_memory",
                   "There is not enough memory to process this image now. Try again later.", NULL);
}

/* ---- progress, time, cancelling ---- */

static void report(const run_t *r, double done) {
    if (r->cb && r->cb->progress) {
        r->cb->progress(r->cb->arg, r->stage, r->from + (r->to - r->from) * done);
    }
}

static bool should_stop(void *ctx) {
    run_t *r = ctx;
    if (r->deadline > 0 && now() > r->deadline) {
        r->timed_out = true;
        return true;
    }
    return r->cb && r->cb->cancelled && r->cb->cancelled(r->cb->arg);
}

static err_kind_t stopped(const run_t *r, err_t *err) {
    if (r->timed_out) {
        return err_setf(err, ERR_TIMEOUT, "job_timeout", "The image took longer than the %lld s that are allowed.",
                        (long long)(r->params->timeout_ms / 1000));
    }
    return err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", NULL);
}

static void stage_begin(run_t *r, const char *name, double to) {
    r->from = r->to;
    r->to = to;
    r->stage = name;
    r->stage_began = now();
    report(r, 0);
}

static void stage_end(run_t *r) {
    result_t *out = r->out;
    if (out->nstages < RESULT_MAX_STAGES) {
        snprintf(out->stages[out->nstages].name, sizeof out->stages[0].name, "%s", r->stage);
        out->stages[out->nstages++].seconds = now() - r->stage_began;
    }
}

static void on_tile(void *arg, double done) {
    report(arg, done);
}

static void on_lock(void *arg, bool on) {
    pipeline_t *p = arg;
    if (on) {
        pthread_mutex_lock(&p->busy);
    } else {
        pthread_mutex_unlock(&p->busy);
    }
}

/* ---- stages ---- */

static void add_note(result_t *out, const char *words) {
    size_t used = strlen(out->note);
    snprintf(out->note + used, sizeof out->note - used, "%s%s", used ? " " : "", words);
}

static err_kind_t stage_decode(run_t *r, err_t *err) {
    image_t img;
    err_kind_t k = image_decode(r->path, r->params->page, &r->params->limits, &img, err);
    if (k != ERR_OK) {
        return k;
    }
    r->width = img.info.width;
    r->height = img.info.height;
    r->out->width = r->width;
    r->out->height = r->height;
    r->out->pixel_size_um = img.info.pixel_size_um;
    if (img.info.pages > 1) {
        char words[96];
        snprintf(words, sizeof words, "The file has %d pages; only page %d was segmented.", img.info.pages,
                 r->params->page + 1);
        add_note(r->out, words);
    }
    k = image_to_grey(&img, &r->grey, err);
    image_free(&img);
    return k;
}

/* Size at which the network sees the image: the long side fitted, each side rounded to nearest, at least 1. */
static void working_size(const model_spec_t *m, int w, int h, int *ww, int *wh) {
    *ww = w;
    *wh = h;
    if (m->scale == MODEL_SCALE_NATIVE) {
        return;
    }
    double factor = (double)m->scale_px / (w > h ? w : h);
    if (factor > 1 && !m->upscale) {
        return;
    }
    *ww = (int)(w * factor + 0.5);
    *wh = (int)(h * factor + 0.5);
    *ww = *ww < 1 ? 1 : *ww;
    *wh = *wh < 1 ? 1 : *wh;
}

static err_kind_t stage_normalise(run_t *r, err_t *err) {
    const model_spec_t *m = &r->p->spec;
    working_size(m, r->width, r->height, &r->work_width, &r->work_height);
    size_t n = (size_t)r->work_width * (size_t)r->work_height;
    r->work = malloc(n * sizeof *r->work);
    if (!r->work) {
        return no_memory(err);
    }
    err_kind_t k = image_resize_f32(r->grey, r->width, r->height, r->work, r->work_width, r->work_height, err);
    if (k != ERR_OK) {
        return k;
    }
    normalise_params_t np = {.low = m->percentile_low,
                             .high = m->percentile_high,
                             .clip_min = m->clip_min,
                             .clip_max = m->clip_max,
                             .min_range = m->min_range};
    k = normalise_plane(r->work, n, &np, &r->contrast, err);
    if (k == ERR_OK && r->contrast) {
        infer_prepare(m, r->work, r->work_width, r->work_height);
    }
    return k;
}

/* The maps at the working size become maps at the original size. */
static err_kind_t enlarge_maps(run_t *r, err_t *err) {
    if (r->work_width == r->width && r->work_height == r->height) {
        return ERR_OK;
    }
    for (int c = 0; c < MAPS; c++) {
        float *full = malloc((size_t)r->width * (size_t)r->height * sizeof *full);
        if (!full) {
            return no_memory(err);
        }
        err_kind_t k = image_resize_f32(r->maps[c], r->work_width, r->work_height, full, r->width, r->height, err);
        free(r->maps[c]);
        r->maps[c] = full;
        if (k != ERR_OK) {
            return k;
        }
    }
    return ERR_OK;
}

static err_kind_t stage_infer(run_t *r, err_t *err) {
    const model_spec_t *m = &r->p->spec;
    size_t n = (size_t)r->work_width * (size_t)r->work_height;
    for (int c = 0; c < MAPS; c++) {
        r->maps[c] = malloc(n * sizeof *r->maps[c]);
        if (!r->maps[c]) {
            return no_memory(err);
        }
    }
    tile_params_t tp = {.tile = m->tile, .halo = m->halo, .divisor = m->divisor};
    tile_hooks_t hooks = {
        .stop = {.fn = should_stop, .ctx = r}, .progress = on_tile, .arg = r, .lock = on_lock, .lock_arg = r->p};
    err_kind_t k = tile_run(&r->p->net, r->work, r->work_width, r->work_height, &tp, r->maps, MAPS, &hooks, err);
    free(r->work);
    r->work = NULL;
    return k == ERR_OK ? enlarge_maps(r, err) : k;
}

static err_kind_t stage_label(run_t *r, err_t *err) {
    const model_spec_t *m = &r->p->spec;
    label_params_t lp = {.threshold = (float)r->out->threshold,
                         .seed_threshold = (float)m->seed_threshold,
                         .dist_sigma = (float)m->dist_sigma,
                         .seed_min_area = m->seed_min_area,
                         .min_area = m->min_area,
                         .max_hole_area = m->max_hole_area,
                         .detect_holes = r->params->detect_holes,
                         .drop_border = m->drop_border,
                         .max_objects = r->params->max_objects};
    cancel_t stop = {.fn = should_stop, .ctx = r};
    err_kind_t k = label_from_maps(r->maps[MAP_FOREGROUND], r->maps[MAP_DISTANCE], r->width, r->height, &lp, &stop,
                                   &r->out->labels, &r->out->count, err);
    free(r->maps[MAP_DISTANCE]);
    r->maps[MAP_DISTANCE] = NULL;
    return k;
}

static err_kind_t stage_polygons(run_t *r, err_t *err) {
    result_t *out = r->out;
    cancel_t stop = {.fn = should_stop, .ctx = r};
    size_t n = out->count ? out->count : 1;
    out->objects = calloc(n, sizeof *out->objects);
    geom_t *geoms = calloc(n, sizeof *geoms);
    float *means = calloc(n, sizeof *means);
    err_kind_t k = ERR_OK;
    if (!out->objects || !geoms || !means) {
        out->count = out->objects ? out->count : 0;
        k = no_memory(err);
    }
    if (k == ERR_OK && geoms && means) {
        k = contour_trace(out->labels, r->width, r->height, out->count, NULL, &stop, geoms, err);
    }
    if (k == ERR_OK && geoms && means) {
        k = label_mean_of(out->labels, r->width, r->height, out->count, r->maps[MAP_FOREGROUND], means, err);
        for (uint32_t i = 0; i < out->count; i++) { /* the result owns the outlines from here on */
            out->objects[i] = (result_object_t){.idx = i + 1, .geom = geoms[i], .confidence = means[i]};
        }
    }
    free(geoms);
    free(means);
    free(r->maps[MAP_FOREGROUND]);
    r->maps[MAP_FOREGROUND] = NULL;
    return k;
}

static err_kind_t stage_measure(run_t *r, err_t *err) {
    const uint32_t ask_every = 64;
    for (uint32_t i = 0; i < r->out->count; i++) {
        if (i % ask_every == 0) {
            if (should_stop(r)) {
                return stopped(r, err);
            }
            report(r, (double)i / r->out->count);
        }
        result_object_t *o = &r->out->objects[i];
        err_kind_t k = measure_object(&o->geom, r->grey, r->width, r->height, &o->m, err);
        if (k != ERR_OK) {
            return k;
        }
    }
    return ERR_OK;
}

typedef struct {
    const char *name;
    err_kind_t (*fn)(run_t *, err_t *);
    double to; /* share of the run that is done after it, from measured times */
} stage_t;

static const stage_t STAGES[] = {
    {"decode", stage_decode, 0.05}, {"normalise", stage_normalise, 0.08}, {"infer", stage_infer, 0.85},
    {"label", stage_label, 0.92},   {"polygons", stage_polygons, 0.97},   {"measure", stage_measure, 1.0},
};

/* An image of one grey value has no objects: the label image is empty and no network runs. */
static err_kind_t finish_without_contrast(run_t *r, err_t *err) {
    r->out->labels = calloc((size_t)r->width * (size_t)r->height, sizeof *r->out->labels);
    if (!r->out->labels) {
        return no_memory(err);
    }
    add_note(r->out, "The image has no contrast, so nothing was found.");
    report(r, 1);
    return ERR_OK;
}

static err_kind_t run_stages(run_t *r, err_t *err) {
    for (size_t i = 0; i < sizeof STAGES / sizeof STAGES[0]; i++) {
        if (should_stop(r)) {
            return stopped(r, err);
        }
        stage_begin(r, STAGES[i].name, STAGES[i].to);
        err_kind_t k = STAGES[i].fn(r, err);
        stage_end(r);
        if (k == ERR_CANCELLED) {
            return stopped(r, err);
        }
        if (k != ERR_OK) {
            return k;
        }
        report(r, 1);
        if (STAGES[i].fn == stage_normalise && !r->contrast) {
            r->to = 1.0;
            return finish_without_contrast(r, err);
        }
    }
    if (r->out->count == 0) {
        add_note(r->out, "No object was found. A lower threshold or another model may help.");
    }
    return ERR_OK;
}

static err_kind_t fill_header(run_t *r, err_t *err) {
    const model_spec_t *m = &r->p->spec;
    result_t *out = r->out;
    snprintf(out->model, sizeof out->model, "%s", m->name);
    snprintf(out->model_version, sizeof out->model_version, "%s", m->version);
    snprintf(out->model_sha256, sizeof out->model_sha256, "%s", m->sha256);
    out->threshold = isnan(r->params->threshold) ? m->threshold : r->params->threshold;
    out->detect_holes = r->params->detect_holes;
    if (!(out->threshold > 0 && out->threshold < 1)) {
        return err_set(err, ERR_INVALID, "threshold_out_of_range", "The threshold must lie between 0 and 1.", "%g",
                       out->threshold);
    }
    return ERR_OK;
}

err_kind_t pipeline_run(pipeline_t *p, const char *path, const pipeline_params_t *params,
                        const pipeline_callbacks_t *cb, result_t *out, err_t *err) {
    memset(out, 0, sizeof *out);
    run_t r = {.p = p, .path = path, .params = params, .cb = cb, .out = out};
    if (params->timeout_ms > 0) {
        r.deadline = now() + (double)params->timeout_ms / 1000.0;
    }
    err_kind_t k = fill_header(&r, err);
    if (k == ERR_OK) {
        k = run_stages(&r, err);
    }
    free(r.grey);
    free(r.work);
    for (int c = 0; c < MAPS; c++) {
        free(r.maps[c]);
    }
    if (k != ERR_OK) {
        result_free(out);
    }
    return k;
}

err_kind_t pipeline_create(const model_spec_t *spec, const char *device, pipeline_t **out, err_t *err) {
    *out = NULL;
    pipeline_t *p = calloc(1, sizeof *p);
    if (!p) {
        return no_memory(err);
    }
    p->spec = *spec;
    /* A small square is enough: with re-optimisation off, a new shape costs nothing extra. */
    const int warm_px = 256;
    int warm = p->spec.tile < warm_px ? p->spec.tile : tile_padded(warm_px, p->spec.divisor);
    err_kind_t k = infer_open(infer_backend_for(&p->spec), &p->spec, device, warm, MAPS, &p->net, err);
    if (k != ERR_OK) {
        free(p);
        return k;
    }
    pthread_mutex_init(&p->busy, NULL);
    *out = p;
    return ERR_OK;
}

void pipeline_free(pipeline_t *p) {
    if (p) {
        infer_close(&p->net);
        pthread_mutex_destroy(&p->busy);
        free(p);
    }
}

const char *pipeline_device(const pipeline_t *p) {
    return p->net.backend->device(p->net.state);
}

const model_spec_t *pipeline_spec(const pipeline_t *p) {
    return &p->spec;
}

void pipeline_set_threads(int threads) {
    torch_set_threads(threads);
}
