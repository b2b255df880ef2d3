/* See ladder.h. */
#include "segworker/pipeline/ladder.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/metrics.h"
#include "segworker/pipeline/tile.h"

enum { MOST_PARTS = 64 }; /* per axis */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;
static metric_t *m_steps;

static void register_once(void) {
    static const char *const STEPS[] = {"batch", "alone", "tile", "cpu"};
    m_steps = metrics_counter("spheroseg_inference_memory_steps_total",
                              "Times that memory ran out in a network, by what was done next.", "step");
    for (size_t i = 0; i < sizeof STEPS / sizeof STEPS[0]; i++) {
        metrics_add(m_steps, &STEPS[i], 0);
    }
}

void ladder_register_metrics(void) {
    (void)pthread_once(&once, register_once);
}

void ladder_note(const char *step, int h, int w) {
    char size[32];
    ladder_register_metrics();
    (void)snprintf(size, sizeof size, "%dx%d", w, h);
    metrics_add(m_steps, &step, 1);
    log_event(LOG_WARN, "memory ran out in a network", "next", step, "tile", size, NULL);
}

/* ---- the tile in parts ---- */

/* Spans of an axis of n px, about n / parts each and what they overlap by; as long as the axis when that is no less. */
static tile_params_t spans_of(const infer_t *net, int n, int parts) {
    tile_params_t p = {.halo = net->halo, .divisor = net->divisor};
    p.tile = tile_padded((n + parts - 1) / parts + 2 * net->halo, net->divisor);
    p.tile = p.tile < n ? p.tile : n;
    return p;
}

typedef struct {
    float *in, *out; /* of one part */
} part_t;

/* Copies `planes` planes of a rectangle w x h at (fx, fy) of a plane fw wide to (tx, ty) of one tw wide. */
typedef struct {
    int w, h, planes;
    int fx, fy, fw, fh;
    int tx, ty, tw, th;
} copy_t;

static void copy_planes(const copy_t *c, const float *from, float *to) {
    for (int p = 0; p < c->planes; p++) {
        for (int y = 0; y < c->h; y++) {
            memcpy(to + ((size_t)p * (size_t)c->th + (size_t)(c->ty + y)) * (size_t)c->tw + (size_t)c->tx,
                   from + ((size_t)p * (size_t)c->fh + (size_t)(c->fy + y)) * (size_t)c->fw + (size_t)c->fx,
                   (size_t)c->w * sizeof *to);
        }
    }
}

static err_kind_t run_part(infer_t *net, const float *input, int h, int w, tile_span_t sx, tile_span_t sy, part_t *part,
                           float *output, int channels, err_t *err) {
    int g = net->grid, pw = sx.stop - sx.start, ph = sy.stop - sy.start;
    const copy_t in = {
        .w = pw, .h = ph, .planes = net->inputs, .fx = sx.start, .fy = sy.start, .fw = w, .fh = h, .tw = pw, .th = ph};
    copy_planes(&in, input, part->in);
    err_kind_t k = net->backend->run(net->state, part->in, ph, pw, part->out, channels, NULL, err);
    const copy_t out = {.w = (sx.core_stop - sx.core_start) / g,
                        .h = (sy.core_stop - sy.core_start) / g,
                        .planes = channels,
                        .fx = (sx.core_start - sx.start) / g,
                        .fy = (sy.core_start - sy.start) / g,
                        .fw = pw / g,
                        .fh = ph / g,
                        .tx = sx.core_start / g,
                        .ty = sy.core_start / g,
                        .tw = w / g,
                        .th = h / g};
    if (k == ERR_OK) {
        copy_planes(&out, part->out, output);
    }
    return k;
}

static err_kind_t run_parts(infer_t *net, const float *input, int h, int w, const tile_params_t *px,
                            const tile_params_t *py, float *output, int channels, err_t *err) {
    size_t n = (size_t)px->tile * (size_t)py->tile;
    part_t part = {.in = malloc(n * (size_t)net->inputs * sizeof(float)),
                   .out = malloc(n * (size_t)channels * sizeof(float))};
    err_kind_t k = ERR_OK;
    if (!part.in || !part.out) {
        k = err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to run the model.", "part");
    }
    for (int y = 0; k == ERR_OK && y < tile_count(h, py); y++) {
        for (int x = 0; k == ERR_OK && x < tile_count(w, px); x++) {
            k = run_part(net, input, h, w, tile_span(w, px, x), tile_span(h, py, y), &part, output, channels, err);
        }
    }
    free(part.in);
    free(part.out);
    return k;
}

/* Smaller and smaller parts until one size works. */
static err_kind_t cut(infer_t *net, const float *input, int h, int w, float *output, int channels, err_t *err) {
    int last_w = w, last_h = h;
    err_kind_t k = ERR_NO_MEMORY;
    for (int parts = 2; k == ERR_NO_MEMORY && parts <= MOST_PARTS; parts *= 2) {
        const tile_params_t px = spans_of(net, w, parts), py = spans_of(net, h, parts);
        if (px.tile < last_w || py.tile < last_h) {
            ladder_note("tile", py.tile, px.tile);
            k = run_parts(net, input, h, w, &px, &py, output, channels, err);
            last_w = px.tile;
            last_h = py.tile;
        }
    }
    return k;
}

/* ---- the CPU ---- */

static err_kind_t run_on_cpu(infer_t *net, const float *input, int h, int w, float *output, int channels, err_t *err) {
    (void)pthread_mutex_lock(&load_lock);
    err_kind_t k = net->on_cpu ? ERR_OK : net->backend->load(net->spec, "cpu", &net->on_cpu, err);
    (void)pthread_mutex_unlock(&load_lock);
    return k == ERR_OK ? net->backend->run(net->on_cpu, input, h, w, output, channels, NULL, err) : k;
}

err_kind_t ladder_go_down(infer_t *net, const float *input, int h, int w, float *output, int channels, err_t *err) {
    err_kind_t k = ERR_NO_MEMORY;
    if (net->divisible) {
        k = cut(net, input, h, w, output, channels, err);
    }
    if (k == ERR_NO_MEMORY && strcmp(net->backend->device(net->state), "cpu") != 0) {
        ladder_note("cpu", h, w);
        k = run_on_cpu(net, input, h, w, output, channels, err);
    }
    return k;
}
