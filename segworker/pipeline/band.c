/*
 * See band.h. Rows are kept in one block per layer; rows that no window needs any more are moved out at the top before
 * a row of tiles is run.
 */
#include "segworker/pipeline/band.h"

#include <stdlib.h>
#include <string.h>

#include "segworker/pipeline/turn.h"

struct band {
    band_source_t src;
    netout_t out;
    int padded_width, padded_height, across, down;
    int next;             /* row of tiles that comes next */
    int first, have, cap; /* rows of points at hand: first .. first + have - 1 */
    int points;           /* per row */
    float *layer[NETOUT_LAYERS];
};

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to run the model.", NULL);
}

err_kind_t band_create(const band_source_t *src, int rows, band_t **out, err_t *err) {
    band_t *b = calloc(1, sizeof *b);
    *out = NULL;
    if (!b) {
        return no_memory(err);
    }
    b->src = *src;
    b->out = netout_of(src->spec);
    b->padded_width = tile_padded(src->input->width, src->tile.divisor);
    b->padded_height = tile_padded(src->input->height, src->tile.divisor);
    b->across = tile_count(b->padded_width, &src->tile);
    b->down = tile_count(b->padded_height, &src->tile);
    b->points = netout_points(&b->out, src->input->width);
    int all = netout_points(&b->out, src->input->height);
    int64_t cap = ((int64_t)rows + src->tile.tile) / b->out.grid + 2;
    b->cap = cap < all ? (int)cap : all;
    for (int l = 0; l < b->out.layers; l++) {
        b->layer[l] = malloc((size_t)b->cap * (size_t)b->points * (size_t)b->out.depth[l] * sizeof *b->layer[l]);
        if (!b->layer[l]) {
            band_free(b);
            return no_memory(err);
        }
    }
    *out = b;
    return ERR_OK;
}

void band_free(band_t *b) {
    if (b) {
        for (int l = 0; l < NETOUT_LAYERS; l++) {
            free(b->layer[l]);
        }
        free(b);
    }
}

/* ---- one tile ---- */

/* Buffers for one tile. */
typedef struct {
    float *in, *raw, *layers[NETOUT_LAYERS];
} work_t;

static void work_free(work_t *w) {
    free(w->in);
    free(w->raw);
    for (int l = 0; l < NETOUT_LAYERS; l++) {
        free(w->layers[l]);
    }
}

static err_kind_t work_make(work_t *w, const netout_t *o, int tw, int th, err_t *err) {
    size_t px = (size_t)tw * (size_t)th, points = (size_t)netout_points(o, tw) * (size_t)netout_points(o, th);
    *w = (work_t){.in = malloc(px * (size_t)o->inputs * sizeof *w->in),
                  .raw = malloc(points * (size_t)o->channels * sizeof *w->raw)};
    bool ok = w->in && w->raw;
    for (int l = 0; l < o->layers; l++) {
        w->layers[l] = malloc(points * (size_t)o->depth[l] * sizeof *w->layers[l]);
        ok = ok && w->layers[l];
    }
    return ok ? ERR_OK : no_memory(err);
}

static err_kind_t run_network(void *ctx, const float *in, int w, int h, float *raw, err_t *err) {
    const band_source_t *src = ctx;
    const tile_hooks_t *hooks = &src->hooks;
    if (cancel_asked(&hooks->stop)) {
        return err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", NULL);
    }
    if (hooks->lock) {
        hooks->lock(hooks->lock_arg, true);
    }
    err_kind_t k =
        src->net->backend->run(src->net->state, in, h, w, raw, netout_of(src->spec).channels, &hooks->stop, err);
    if (hooks->lock) {
        hooks->lock(hooks->lock_arg, false);
    }
    return k;
}

/* w->in -> w->layers, turned and averaged if asked for. */
static err_kind_t run_tile(const band_source_t *src, const netout_t *o, work_t *w, int tw, int th, err_t *err) {
    if (src->tta != MODEL_TTA_NONE) {
        const turn_job_t job = {.spec = src->spec, .out = o, .run = run_network, .ctx = (void *)src};
        return turn_run(&job, src->tta, w->in, tw, th, w->raw, w->layers, err);
    }
    err_kind_t k = run_network((void *)src, w->in, tw, th, w->raw, err);
    if (k == ERR_OK) {
        netout_convert(src->spec, w->raw, (size_t)netout_points(o, tw) * (size_t)netout_points(o, th), w->layers);
    }
    return k;
}

/* Rows of the image that are in memory: `inputs` planes of h rows, the first being row y. */
typedef struct {
    const float *planes;
    int x, y, w, h;
} rows_t;

/* The network's input, reflected where the tile goes beyond the image (width x height). */
static void gather(const rows_t *r, int inputs, int width, int height, tile_span_t sx, tile_span_t sy, float *in) {
    int tw = sx.stop - sx.start;
    for (int c = 0; c < inputs; c++) {
        const float *plane = r->planes + (size_t)c * (size_t)r->w * (size_t)r->h;
        for (int y = sy.start; y < sy.stop; y++) {
            const float *row = plane + (size_t)(tile_reflect(y, height) - r->y) * (size_t)r->w;
            int inside = (sx.stop < width ? sx.stop : width) - sx.start;
            memcpy(in, row + (sx.start - r->x), (size_t)inside * sizeof *in);
            for (int x = inside; x < tw; x++) {
                in[x] = row[tile_reflect(sx.start + x, width) - r->x];
            }
            in += tw;
        }
    }
}

/* First row or column of the image that a span looks at, reflections included. */
static int first_of(tile_span_t s, int n) {
    int mirrored = s.stop > n ? tile_reflect(s.stop - 1, n) : s.start;
    return mirrored < s.start ? mirrored : s.start;
}

static err_kind_t read_prepared(const band_source_t *src, image_rect_t rect, float **planes, err_t *err) {
    size_t n = (size_t)rect.w * (size_t)rect.h;
    *planes = malloc(n * (size_t)src->input->channels * sizeof **planes);
    if (!*planes) {
        return no_memory(err);
    }
    err_kind_t k = input_read(src->input, rect, *planes, err);
    if (k == ERR_OK) {
        prepare_apply(src->prepare, *planes, n);
    } else {
        free(*planes);
        *planes = NULL;
    }
    return k;
}

err_kind_t band_run_span(const band_source_t *src, tile_span_t sx, tile_span_t sy, float *const *layer, err_t *err) {
    int width = src->input->width, height = src->input->height, tw = sx.stop - sx.start, th = sy.stop - sy.start;
    netout_t o = netout_of(src->spec);
    rows_t r = {.x = first_of(sx, width), .y = first_of(sy, height)};
    float *planes = NULL;
    work_t w = {0};
    r.w = (sx.stop < width ? sx.stop : width) - r.x;
    r.h = (sy.stop < height ? sy.stop : height) - r.y;
    err_kind_t k = read_prepared(src, (image_rect_t){r.x, r.y, r.w, r.h}, &planes, err);
    if (k == ERR_OK) {
        k = work_make(&w, &o, tw, th, err);
    }
    if (k == ERR_OK) {
        r.planes = planes;
        gather(&r, o.inputs, width, height, sx, sy, w.in);
        k = run_tile(src, &o, &w, tw, th, err);
    }
    int ow = netout_points(&o, r.x + r.w - sx.start), oh = netout_points(&o, r.y + r.h - sy.start);
    for (int l = 0; k == ERR_OK && l < o.layers; l++) {
        size_t d = (size_t)o.depth[l];
        for (int y = 0; y < oh; y++) {
            memcpy(layer[l] + (size_t)y * (size_t)ow * d, w.layers[l] + (size_t)y * (size_t)netout_points(&o, tw) * d,
                   (size_t)ow * d * sizeof **layer);
        }
    }
    work_free(&w);
    free(planes);
    return k;
}

/* ---- rows of tiles ---- */

/* The core of a tile goes to the rows at hand. */
static void scatter(band_t *b, const work_t *w, tile_span_t sx, tile_span_t sy) {
    int g = b->out.grid, tw = netout_points(&b->out, sx.stop - sx.start);
    int x0 = sx.core_start / g, x1 = netout_points(&b->out, sx.core_stop);
    int y0 = sy.core_start / g, y1 = netout_points(&b->out, sy.core_stop);
    int last = netout_points(&b->out, b->src.input->height);
    x1 = x1 < b->points ? x1 : b->points;
    y1 = y1 < last ? y1 : last;
    y0 = y0 > b->first ? y0 : b->first;
    for (int l = 0; l < b->out.layers && x0 < x1; l++) {
        size_t d = (size_t)b->out.depth[l];
        for (int y = y0; y < y1; y++) {
            memcpy(b->layer[l] + ((size_t)(y - b->first) * (size_t)b->points + (size_t)x0) * d,
                   w->layers[l] + ((size_t)(y - sy.start / g) * (size_t)tw + (size_t)(x0 - sx.start / g)) * d,
                   (size_t)(x1 - x0) * d * sizeof(float));
        }
    }
}

/* Row `next` of tiles. */
static err_kind_t run_row(band_t *b, err_t *err) {
    int width = b->src.input->width, height = b->src.input->height;
    tile_span_t sy = tile_span(b->padded_height, &b->src.tile, b->next);
    rows_t r = {.x = 0, .y = first_of(sy, height), .w = width};
    float *planes = NULL;
    work_t w = {0};
    int tw = b->padded_width < b->src.tile.tile ? b->padded_width : b->src.tile.tile;
    r.h = (sy.stop < height ? sy.stop : height) - r.y;
    err_kind_t k = read_prepared(&b->src, (image_rect_t){0, r.y, width, r.h}, &planes, err);
    if (k == ERR_OK) {
        k = work_make(&w, &b->out, tw, sy.stop - sy.start, err);
    }
    r.planes = planes;
    for (int tx = 0; k == ERR_OK && tx < b->across; tx++) {
        tile_span_t sx = tile_span(b->padded_width, &b->src.tile, tx);
        gather(&r, b->out.inputs, width, height, sx, sy, w.in);
        k = run_tile(&b->src, &b->out, &w, tw, sy.stop - sy.start, err);
        if (k == ERR_OK) {
            scatter(b, &w, sx, sy);
            if (b->src.hooks.progress) {
                b->src.hooks.progress(b->src.hooks.arg,
                                      (double)((int64_t)b->next * b->across + tx + 1) / ((double)b->down * b->across));
            }
        }
    }
    work_free(&w);
    free(planes);
    return k;
}

static void forget_above(band_t *b, int row) {
    int gone = row - b->first;
    gone = gone < b->have ? gone : b->have;
    for (int l = 0; gone > 0 && l < b->out.layers; l++) {
        size_t size = (size_t)b->points * (size_t)b->out.depth[l];
        memmove(b->layer[l], b->layer[l] + (size_t)gone * size, (size_t)(b->have - gone) * size * sizeof(float));
    }
    if (gone > 0) {
        b->first += gone;
        b->have -= gone;
    }
}

/* Rows y0..y1 of the image are at hand afterwards. */
static err_kind_t need_rows(band_t *b, int y0, int y1, err_t *err) {
    int last = netout_points(&b->out, b->src.input->height), to = netout_points(&b->out, y1);
    while (b->first + b->have < to) {
        forget_above(b, y0 / b->out.grid);
        err_kind_t k = run_row(b, err);
        if (k != ERR_OK) {
            return k;
        }
        tile_span_t sy = tile_span(b->padded_height, &b->src.tile, b->next++);
        int stop = netout_points(&b->out, sy.core_stop);
        b->have = (stop < last ? stop : last) - b->first;
    }
    return ERR_OK;
}

err_kind_t band_window(band_t *b, image_rect_t rect, band_window_t *out, err_t *err) {
    int g = b->out.grid, x0 = rect.x / g, y0 = rect.y / g;
    size_t w = (size_t)netout_points(&b->out, rect.w), h = (size_t)netout_points(&b->out, rect.h);
    *out = (band_window_t){.lent = rect.x == 0 && rect.w == b->src.input->width};
    err_kind_t k = need_rows(b, rect.y, rect.y + rect.h, err);
    for (int l = 0; k == ERR_OK && l < b->out.layers; l++) {
        size_t d = (size_t)b->out.depth[l], row = (size_t)b->points * d;
        float *from = b->layer[l] + (size_t)(y0 - b->first) * row + (size_t)x0 * d;
        out->layer[l] = out->lent ? from : malloc(w * h * d * sizeof *from);
        if (!out->layer[l]) {
            band_window_free(out);
            return no_memory(err);
        }
        for (size_t y = 0; !out->lent && y < h; y++) {
            memcpy(out->layer[l] + y * w * d, from + y * row, w * d * sizeof *from);
        }
    }
    return k;
}

void band_window_free(band_window_t *w) {
    for (int l = 0; l < NETOUT_LAYERS; l++) {
        if (!w->lent) {
            free(w->layer[l]);
        }
        w->layer[l] = NULL;
    }
}
