/*
 * The run of one image through its stages: the clock, the progress and the question "go on?" are here and nowhere else;
 * windows.c does the work.
 */
#include "segworker/pipeline/pipeline.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "segworker/pipeline/room.h"
#include "segworker/pipeline/run.h"

/* Share of the run that is done after a stage, from measured times. */
static const struct {
    const char *name;
    double to;
} STAGES[STAGE_COUNT] = {{"decode", 0.05}, {"normalise", 0.08}, {"infer", 0.85},
                         {"label", 0.92},  {"polygons", 0.97},  {"measure", 1.0}};

#define TIMEOUT_PIXELS 16e6 /* px that the time-out is meant for */

double run_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

err_kind_t run_no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "out_of_memory",
                   "There is not enough memory to process this image now. Try again later.", NULL);
}

/* ---- progress, time, cancelling ---- */

static void tell(run_t *r, int stage, double fraction) {
    r->reported = fraction > r->reported ? fraction : r->reported; /* never falling */
    if (r->cb && r->cb->progress) {
        r->cb->progress(r->cb->arg, STAGES[stage].name, r->reported);
    }
}

void run_report(run_t *r, double done) {
    int stage = r->many ? STAGE_INFER : r->stage;
    double from = stage > 0 ? STAGES[stage - 1].to : 0, to = r->many ? 0.99 : STAGES[stage].to;
    tell(r, stage, from + (to - from) * done);
}

void run_enter(run_t *r, stage_id_t stage) {
    double t = run_now();
    if (r->stage >= 0) {
        r->seconds[r->stage] += t - r->stage_began;
    }
    bool again = r->begun[stage];
    r->stage = (int)stage;
    r->stage_began = t;
    r->begun[stage] = true;
    if (!r->many && !again) {
        run_report(r, 0);
    }
}

bool run_should_stop(void *ctx) {
    run_t *r = ctx;
    if (r->deadline > 0 && run_now() > r->deadline) {
        r->timed_out = true;
        return true;
    }
    return r->cb && r->cb->cancelled && r->cb->cancelled(r->cb->arg);
}

err_kind_t run_stopped(const run_t *r, err_t *err) {
    if (r->timed_out) {
        return err_setf(err, ERR_TIMEOUT, "job_timeout", "The image took longer than the %lld s that are allowed.",
                        (long long)(r->params->timeout_ms / 1000));
    }
    return err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", NULL);
}

err_kind_t run_take_room(run_t *r, int64_t bytes, err_t *err) {
    const int64_t look_ms = 50;
    while (!room_take(bytes, look_ms)) {
        if (run_should_stop(r)) {
            return err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", NULL);
        }
        r->deadline += r->deadline > 0 ? (double)look_ms / 1000.0 : 0;
        tell(r, STAGE_DECODE, 0); /* alive, and waiting */
    }
    r->taken = bytes;
    return ERR_OK;
}

/* ---- the run ---- */

static void add_note(result_t *out, const char *words) {
    size_t used = strlen(out->note);
    snprintf(out->note + used, sizeof out->note - used, "%s%s", used ? " " : "", words);
}

static err_kind_t decode(run_t *r, err_t *err) {
    run_enter(r, STAGE_DECODE);
    err_kind_t k = windows_open(r, err);
    if (k != ERR_OK) {
        return k;
    }
    const image_info_t *info = &r->level.info;
    r->out->width = info->width;
    r->out->height = info->height;
    r->out->pixel_size_um = info->pixel_size_um;
    if (info->pages > 1) {
        const image_select_t *plane = r->params->plane;
        char words[96], which[32] = "the chosen plane";
        if (!plane || (plane->channel < 0 && plane->weights == 0 && plane->z < 0 && plane->t < 0)) {
            snprintf(which, sizeof which, "page %d", (plane ? plane->page : r->params->page) + 1);
        }
        snprintf(words, sizeof words, "The file has %d pages; only %s was segmented.", info->pages, which);
        add_note(r->out, words);
    }
    if (r->level.reduce > 1) {
        char words[96];
        snprintf(words, sizeof words, "The image was segmented at 1/%d of its size.", r->level.reduce);
        add_note(r->out, words);
    }
    double large = (double)info->width * info->height / TIMEOUT_PIXELS;
    if (r->params->timeout_ms > 0 && large > 1) {
        r->deadline += (double)r->params->timeout_ms / 1000.0 * (large - 1);
    }
    return ERR_OK;
}

static err_kind_t normalise(run_t *r, err_t *err) {
    const cancel_t stop = {.fn = run_should_stop, .ctx = r};
    run_enter(r, STAGE_NORMALISE);
    return prepare_image(&r->p->spec, r->net_input, &stop, &r->prepare, &r->contrast, err);
}

/* An image of one grey value has no objects: the label image is empty and no network runs. */
static err_kind_t finish_without_contrast(run_t *r, err_t *err) {
    if (!r->many) {
        r->out->labels = calloc((size_t)r->level.width * (size_t)r->level.height, sizeof *r->out->labels);
        if (!r->out->labels) {
            return run_no_memory(err);
        }
    }
    add_note(r->out, "The image has no contrast, so nothing was found.");
    tell(r, STAGE_NORMALISE, 1);
    return ERR_OK;
}

static err_kind_t run_stages(run_t *r, err_t *err) {
    static err_kind_t (*const steps[])(run_t *, err_t *) = {decode, normalise, windows_run};
    for (int i = 0; i < 3; i++) {
        if (run_should_stop(r)) {
            return run_stopped(r, err);
        }
        err_kind_t k = steps[i](r, err);
        if (k == ERR_CANCELLED) {
            return run_stopped(r, err);
        }
        if (k != ERR_OK) {
            return k;
        }
        if (steps[i] == normalise && !r->contrast) {
            return finish_without_contrast(r, err);
        }
        tell(r, r->stage, STAGES[r->stage].to);
    }
    run_enter(r, STAGE_MEASURE);
    tell(r, STAGE_MEASURE, 1);
    if (r->out->count == 0) {
        add_note(r->out, "No object was found. A lower threshold or another model may help.");
    }
    return ERR_OK;
}

static err_kind_t fill_header(run_t *r, err_t *err) {
    const model_spec_t *m = &r->p->spec;
    result_t *out = r->out;
    job_options_t asked = JOB_OPTIONS_DEFAULT;
    asked.threshold = r->params->threshold;
    asked.detect_holes = r->params->detect_holes;
    snprintf(out->model, sizeof out->model, "%s", m->name);
    snprintf(out->model_version, sizeof out->model_version, "%s", m->version);
    snprintf(out->model_sha256, sizeof out->model_sha256, "%s", m->sha256);
    err_kind_t k = options_settle(m, r->params->options ? r->params->options : &asked, &r->options, err);
    out->threshold = r->options.threshold;
    out->detect_holes = r->options.detect_holes;
    out->min_area = r->options.min_area;
    out->max_area = r->options.max_area;
    out->max_hole_area = r->options.max_hole_area;
    out->tta = model_tta_name(r->options.tta);
    return k;
}

static void fill_times(run_t *r) {
    if (r->stage >= 0) {
        r->seconds[r->stage] += run_now() - r->stage_began;
    }
    for (int i = 0; i < STAGE_COUNT; i++) {
        if (r->begun[i]) {
            snprintf(r->out->stages[r->out->nstages].name, sizeof r->out->stages[0].name, "%s", STAGES[i].name);
            r->out->stages[r->out->nstages++].seconds = r->seconds[i];
        }
    }
}

err_kind_t pipeline_run(pipeline_t *p, const char *path, const pipeline_params_t *params,
                        const pipeline_callbacks_t *cb, result_t *out, err_t *err) {
    memset(out, 0, sizeof *out);
    run_t r = {.p = p, .path = path, .params = params, .cb = cb, .out = out, .stage = -1};
    if (params->timeout_ms > 0) {
        r.deadline = run_now() + (double)params->timeout_ms / 1000.0;
    }
    err_kind_t k = fill_header(&r, err);
    if (k == ERR_OK) {
        k = run_stages(&r, err);
    }
    fill_times(&r);
    input_close(&r.level);
    input_close(&r.shrunk);
    free(r.anchors);
    room_leave(r.taken);
    if (k != ERR_OK) {
        result_free(out);
    }
    return k;
}

/* ---- pipelines ---- */

/* A small square is enough: with re-optimisation off, a new shape costs nothing extra. */
static int warm_size(const model_spec_t *m) {
    const int px = 256;
    return m->tile < px ? m->tile : tile_padded(px, m->divisor);
}

err_kind_t pipeline_create(const model_spec_t *spec, const char *device, pipeline_t **out, err_t *err) {
    *out = NULL;
    pipeline_t *p = calloc(1, sizeof *p);
    if (!p) {
        return run_no_memory(err);
    }
    p->spec = *spec;
    int warm = warm_size(&p->spec);
    err_kind_t k =
        infer_open(infer_backend_for(&p->spec), &p->spec, device, warm, netout_of(&p->spec).channels, &p->net, err);
    if (k == ERR_OK && p->net.backend->computes) {
        k = lanes_open(pipeline_device(p), &p->lanes, err);
    }
    if (k != ERR_OK) {
        infer_close(&p->net);
        free(p);
        return k;
    }
    pthread_mutex_init(&p->busy, NULL);
    *out = p;
    return ERR_OK;
}

void pipeline_free(pipeline_t *p) {
    if (p) {
        lanes_close(p->lanes);
        infer_close(&p->net);
        pthread_mutex_destroy(&p->busy);
        free(p);
    }
}

const char *pipeline_device(const pipeline_t *p) {
    return p->net.backend->device(p->net.state);
}

void pipeline_tune(pipeline_t *p) {
    if (p->lanes) {
        lanes_tune(p->lanes, &p->net, p->net.inputs, warm_size(&p->spec), netout_of(&p->spec).channels);
    }
}

void pipeline_lanes(const pipeline_t *p, int *lanes, int *threads_each) {
    *lanes = *threads_each = 1;
    if (p->lanes) {
        lanes_shape(p->lanes, lanes, threads_each);
    }
}

const model_spec_t *pipeline_spec(const pipeline_t *p) {
    return &p->spec;
}

void pipeline_set_threads(int threads) {
    lanes_set_up(&(lanes_setup_t){.threads = threads});
}
