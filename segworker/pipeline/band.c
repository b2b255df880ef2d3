/*
 * See band.h. Rows are kept in one block per layer; rows that no window needs any more are moved out at the top before
 * a row of tiles is run.
 */
#include "segworker/pipeline/band.h"

#include <stdlib.h>
#include <string.h>

#include "segworker/pipeline/turn.h"

enum { MOST_AHEAD = 32, AHEAD_BYTES = 96 << 20 };

/* A tile and what it needs while it runs. */
typedef struct {
    float *in, *raw, *layers[NETOUT_LAYERS];
    lane_task_t task;
} work_t;

/* Rows of the image that are in memory: `inputs` planes of h rows, the first being row y. */
typedef struct {
    float *planes;
    int x, y, w, h;
} rows_t;

struct band {
    band_source_t src;
    netout_t out;
    tile_params_t along_x, along_y;
    int padded_width, padded_height, across, down;
    int next;             /* row of tiles that comes next */
    int first, have, cap; /* rows of points at hand: first .. first + have - 1 */
    int points;           /* per row */
    float *layer[NETOUT_LAYERS];
    /* Tiles are numbered row by row; tile t uses work[t % nwork]. From ended to handed_in - 1 they run. */
    work_t work[MOST_AHEAD];
    int nwork;
    int64_t handed_in, ended;
    rows_t rows; /* of the row of tiles that is being handed in */
    int rows_of; /* its number; -1 = none */
};

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to run the model.", NULL);
}

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

static int tile_width(const band_t *b) {
    return b->padded_width < b->along_x.tile ? b->padded_width : b->along_x.tile;
}

static int tile_height(const band_t *b) {
    return b->padded_height < b->along_y.tile ? b->padded_height : b->along_y.tile;
}

/* Tiles at a time: enough for the lanes, but at least two fit into any memory. Turned tiles come one by one. */
static err_kind_t make_work(band_t *b, err_t *err) {
    int tw = tile_width(b), th = tile_height(b), wanted = 1;
    if (b->src.lanes && b->src.tta == MODEL_TTA_NONE) {
        int64_t floats =
            b->out.inputs + ((int64_t)b->out.channels + netout_floats(&b->out)) / (b->out.grid * b->out.grid);
        int64_t room = AHEAD_BYTES / ((int64_t)tw * th * floats * (int64_t)sizeof(float));
        wanted = lanes_depth(b->src.lanes);
        wanted = wanted < MOST_AHEAD ? wanted : MOST_AHEAD;
        wanted = wanted > room ? (int)room : wanted;
        wanted = wanted < 2 ? 2 : wanted;
        int64_t tiles = (int64_t)b->across * b->down;
        wanted = wanted > tiles ? (int)tiles : wanted;
    }
    err_kind_t k = ERR_OK;
    for (int i = 0; k == ERR_OK && i < wanted; i++) {
        k = work_make(&b->work[i], &b->out, tw, th, err);
        b->nwork = i + 1;
    }
    return k;
}

err_kind_t band_create(const band_source_t *src, int rows, band_t **out, err_t *err) {
    band_t *b = calloc(1, sizeof *b);
    *out = NULL;
    if (!b) {
        return no_memory(err);
    }
    b->src = *src;
    b->rows_of = -1;
    b->out = netout_of(src->spec);
    b->padded_width = tile_padded(src->input->width, src->tile.divisor);
    b->padded_height = tile_padded(src->input->height, src->tile.divisor);
    b->along_x = b->along_y = src->tile;
    if (src->net->backend->any_size) {
        b->along_x = tile_evened(b->padded_width, &src->tile);
        b->along_y = tile_evened(b->padded_height, &src->tile);
    }
    b->across = tile_count(b->padded_width, &b->along_x);
    b->down = tile_count(b->padded_height, &b->along_y);
    b->points = netout_points(&b->out, src->input->width);
    int all = netout_points(&b->out, src->input->height);
    int64_t cap = ((int64_t)rows + b->along_y.tile) / b->out.grid + 2;
    b->cap = cap < all ? (int)cap : all;
    for (int l = 0; l < b->out.layers; l++) {
        b->layer[l] = malloc((size_t)b->cap * (size_t)b->points * (size_t)b->out.depth[l] * sizeof *b->layer[l]);
        if (!b->layer[l]) {
            band_free(b);
            return no_memory(err);
        }
    }
    err_kind_t k = make_work(b, err);
    if (k != ERR_OK) {
        band_free(b);
        return k;
    }
    *out = b;
    return ERR_OK;
}

void band_free(band_t *b) {
    if (!b) {
        return;
    }
    for (int i = 0; i < b->nwork; i++) {
        if (b->src.lanes) {
            lanes_drop(b->src.lanes, &b->work[i].task);
        }
        work_free(&b->work[i]);
    }
    for (int l = 0; l < NETOUT_LAYERS; l++) {
        free(b->layer[l]);
    }
    free(b->rows.planes);
    free(b);
}

/* ---- one tile ---- */

static err_kind_t run_network(void *ctx, const float *in, int w, int h, float *raw, err_t *err) {
    const band_source_t *src = ctx;
    const tile_hooks_t *hooks = &src->hooks;
    int channels = netout_of(src->spec).channels;
    if (cancel_asked(&hooks->stop)) {
        return err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", NULL);
    }
    if (src->lanes) {
        lane_task_t t = {.net = src->net, .input = in, .output = raw, .h = h, .w = w, .channels = channels};
        lanes_submit(src->lanes, &t);
        return lanes_wait(src->lanes, &t, &hooks->stop, err);
    }
    if (hooks->lock) {
        hooks->lock(hooks->lock_arg, true);
    }
    err_kind_t k = src->net->backend->run(src->net->state, in, h, w, raw, channels, &hooks->stop, err);
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

static void spans_of(const band_t *b, int64_t tile, tile_span_t *sx, tile_span_t *sy) {
    *sx = tile_span(b->padded_width, &b->along_x, (int)(tile % b->across));
    *sy = tile_span(b->padded_height, &b->along_y, (int)(tile / b->across));
}

/* The rows that a row of tiles looks at are at hand afterwards. */
static err_kind_t need_input(band_t *b, int row, tile_span_t sy, err_t *err) {
    int width = b->src.input->width, height = b->src.input->height;
    if (b->rows_of == row) {
        return ERR_OK;
    }
    free(b->rows.planes);
    b->rows = (rows_t){.y = first_of(sy, height), .w = width};
    b->rows.h = (sy.stop < height ? sy.stop : height) - b->rows.y;
    b->rows_of = -1;
    err_kind_t k = read_prepared(&b->src, (image_rect_t){0, b->rows.y, width, b->rows.h}, &b->rows.planes, err);
    b->rows_of = k == ERR_OK ? row : -1;
    return k;
}

/* The next tile: its input is made and, with lanes, handed in. */
static err_kind_t hand_in(band_t *b, err_t *err) {
    int64_t tile = b->handed_in, all = (int64_t)b->across * b->down;
    tile_span_t sx, sy;
    spans_of(b, tile, &sx, &sy);
    work_t *w = &b->work[tile % b->nwork];
    err_kind_t k = need_input(b, (int)(tile / b->across), sy, err);
    if (k != ERR_OK) {
        return k;
    }
    gather(&b->rows, b->out.inputs, b->src.input->width, b->src.input->height, sx, sy, w->in);
    if (b->src.lanes && b->src.tta == MODEL_TTA_NONE) {
        w->task = (lane_task_t){.net = b->src.net,
                                .input = w->in,
                                .output = w->raw,
                                .h = sy.stop - sy.start,
                                .w = sx.stop - sx.start,
                                .channels = b->out.channels,
                                .more = (int)(all - tile - 1 < b->nwork ? all - tile - 1 : b->nwork)};
        lanes_submit(b->src.lanes, &w->task);
    }
    b->handed_in++;
    return ERR_OK;
}

/* As many tiles as can run are handed in. */
static err_kind_t hand_in_all(band_t *b, err_t *err) {
    int64_t all = (int64_t)b->across * b->down;
    err_kind_t k = ERR_OK;
    while (k == ERR_OK && b->handed_in < all && b->handed_in < b->ended + b->nwork) {
        k = hand_in(b, err);
    }
    return k;
}

/* The tile that was handed in first: its layers go to the rows at hand. */
static err_kind_t end_tile(band_t *b, err_t *err) {
    tile_span_t sx, sy;
    spans_of(b, b->ended, &sx, &sy);
    work_t *w = &b->work[b->ended % b->nwork];
    int tw = sx.stop - sx.start, th = sy.stop - sy.start;
    err_kind_t k = ERR_OK;
    if (b->src.lanes && b->src.tta == MODEL_TTA_NONE) {
        k = cancel_asked(&b->src.hooks.stop) ? err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", NULL)
                                             : lanes_wait(b->src.lanes, &w->task, &b->src.hooks.stop, err);
        if (k == ERR_OK) {
            netout_convert(b->src.spec, w->raw, (size_t)netout_points(&b->out, tw) * (size_t)netout_points(&b->out, th),
                           w->layers);
        }
    } else {
        k = run_tile(&b->src, &b->out, w, tw, th, err);
    }
    if (k == ERR_OK) {
        scatter(b, w, sx, sy);
        b->ended++;
        if (b->src.hooks.progress) {
            b->src.hooks.progress(b->src.hooks.arg, (double)b->ended / ((double)b->down * b->across));
        }
    }
    return k;
}

/* Row `next` of tiles. The first tiles of the row after it are running when it ends. */
static err_kind_t run_row(band_t *b, err_t *err) {
    err_kind_t k = ERR_OK;
    for (int tx = 0; k == ERR_OK && tx < b->across; tx++) {
        k = hand_in_all(b, err);
        if (k == ERR_OK) {
            k = end_tile(b, err);
        }
    }
    return k == ERR_OK && b->nwork > 1 ? hand_in_all(b, err) : k;
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
        tile_span_t sy = tile_span(b->padded_height, &b->along_y, b->next++);
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
