/*
 * The image in windows. An image that fits into the memory a run may take is one window; others are divided into cores
 * of equal size, row by row, with as much around them as objects are large (objectSize of model.json). A network that
 * gives labels instead of maps is run window by window, each window being one of its tiles.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "segworker/pipeline/run.h"

enum {
    WHOLE_BYTES = 480 << 20,  /* an image that takes no more is one window */
    MANY_BYTES = 500 << 20,   /* what one in windows takes in all */
    WINDOW_BYTES = 200 << 20, /* else what one window may take */
    BAND_BYTES = 260 << 20,   /* and the rows of maps at hand, which are as wide as the image, if cores can be so low */
    PIXEL_BYTES = 40,         /* labels, outlines and measurements, per px of a window */
    CORE_STEP = 64,           /* cores are multiples of it: every grid divides it */
    MAX_CORE_WIDTH = 4096,
    MAX_CORE_HEIGHT = 1024
};

static int64_t bytes_per_pixel(const model_spec_t *m) {
    netout_t o = netout_of(m);
    return PIXEL_BYTES + 4 * (int64_t)o.inputs + 4 * (int64_t)netout_floats(&o) / (o.grid * o.grid);
}

/* ---- levels ---- */

/* Does the network see the page at another size? Then that size for a level of w x h px of um each. */
static bool net_size(const model_spec_t *m, double um, int w, int h, int *nw, int *nh) {
    double factor = 1;
    *nw = w;
    *nh = h;
    if (m->scale == MODEL_SCALE_FIT_LONG_SIDE) {
        factor = (double)m->scale_px / (w > h ? w : h);
        factor = factor > 1 && !m->upscale ? 1 : factor;
    } else if (m->scale == MODEL_SCALE_PIXEL_SIZE && um > 0) {
        factor = um / m->scale_um;
    }
    if (factor != 1) {
        *nw = (int)(w * factor + 0.5);
        *nh = (int)(h * factor + 0.5);
        *nw = *nw < 1 ? 1 : *nw;
        *nh = *nh < 1 ? 1 : *nh;
    }
    return *nw != w || *nh != h;
}

/* Resizes the level to what the network sees. */
static err_kind_t shrink(run_t *r, int w, int h, err_t *err) {
    input_t *in = &r->level, *out = &r->shrunk;
    *out = (input_t){.channels = in->channels, .width = w, .height = h, .reduce = 1, .info = in->info};
    size_t n = (size_t)w * (size_t)h, from = (size_t)in->width * (size_t)in->height;
    out->planes = malloc(n * (size_t)in->channels * sizeof *out->planes);
    out->grey = out->planes; /* not used: intensities are those of the level */
    if (!out->planes) {
        return run_no_memory(err);
    }
    err_kind_t k = ERR_OK;
    for (int c = 0; k == ERR_OK && c < in->channels; c++) {
        k = image_resize_f32(in->planes + (size_t)c * from, in->width, in->height, out->planes + (size_t)c * n, w, h,
                             err);
    }
    r->net_input = out;
    return k;
}

err_kind_t windows_open(run_t *r, err_t *err) {
    const model_spec_t *m = &r->p->spec;
    const cancel_t stop = {.fn = run_should_stop, .ctx = r};
    int nw = 0, nh = 0, reduce = 1;
    image_select_t plane = IMAGE_SELECT_DEFAULT;
    plane.page = r->params->page;
    err_kind_t k = input_open(r->path, r->params->plane ? r->params->plane : &plane, &r->params->limits,
                              netout_of(m).inputs, &r->level, err);
    if (k != ERR_OK) {
        return k;
    }
    r->net_input = &r->level;
    double pixels = (double)r->level.width * r->level.height, fits = (double)WHOLE_BYTES / (double)bytes_per_pixel(m);
    double um = r->level.info.pixel_size_um;
    bool resized = net_size(m, um, r->level.width, r->level.height, &nw, &nh);
    bool parts = r->params->window_px > 0 || pixels > fits || m->output == MODEL_OUTPUT_LABELS;
    r->many = parts && !resized;
    if (resized && pixels > fits) {
        reduce = (int)ceil(sqrt(pixels / fits));
    }
    k = run_take_room(r, pixels <= fits ? (int64_t)pixels * bytes_per_pixel(m) : MANY_BYTES, err);
    if (k == ERR_OK && (!r->many || pixels <= fits)) {
        k = input_load(&r->level, reduce, &stop, err);
    }
    if (k == ERR_OK && reduce > 1) {
        r->options = options_reduced(&r->options, reduce);
        net_size(m, um * reduce, r->level.width, r->level.height, &nw, &nh);
    }
    return k == ERR_OK && resized ? shrink(r, nw, nh, err) : k;
}

/* What is labelled: the level; networks whose output cannot be resized are taken at the size they work at. */
static const input_t *labelled(const run_t *r) {
    bool fixed = r->p->spec.output == MODEL_OUTPUT_LABELS || r->p->spec.output == MODEL_OUTPUT_STAR_CONVEX;
    return fixed ? r->net_input : &r->level;
}

/* ---- maps ---- */

static void on_tile(void *arg, double done) {
    run_report(arg, done);
}

static void on_lock(void *arg, bool on) {
    pipeline_t *p = arg;
    if (on) {
        pthread_mutex_lock(&p->busy);
    } else {
        pthread_mutex_unlock(&p->busy);
    }
}

static band_source_t source_of(run_t *r) {
    const model_spec_t *m = &r->p->spec;
    bool shared = r->p->net.backend->concurrent;
    return (band_source_t){.net = &r->p->net,
                           .lanes = r->p->lanes,
                           .spec = m,
                           .tta = r->options.tta,
                           .input = r->net_input,
                           .prepare = &r->prepare,
                           .tile = {.tile = m->tile, .halo = m->halo, .divisor = m->divisor},
                           .hooks = {.stop = {.fn = run_should_stop, .ctx = r},
                                     .progress = on_tile,
                                     .arg = r,
                                     .lock = shared ? NULL : on_lock,
                                     .lock_arg = r->p}};
}

/* Maps of the net plane become maps of the level, layer by layer. */
static err_kind_t enlarge(run_t *r, const netout_t *o, band_window_t *w, err_t *err) {
    const input_t *from = &r->shrunk, *to = &r->level;
    band_window_t full = {0};
    err_kind_t k = ERR_OK;
    for (int l = 0; k == ERR_OK && l < o->layers; l++) {
        full.layer[l] = malloc((size_t)to->width * (size_t)to->height * sizeof(float));
        k = full.layer[l]
                ? image_resize_f32(w->layer[l], from->width, from->height, full.layer[l], to->width, to->height, err)
                : run_no_memory(err);
        if (k == ERR_OK) {
            netout_resized(&r->p->spec, l, (double)to->width / from->width, (double)to->height / from->height,
                           full.layer[l], (size_t)to->width * (size_t)to->height);
        }
    }
    band_window_free(w);
    *w = full;
    return k;
}

/* ---- one window ---- */

/* Labels -> whole objects -> outlines. Takes over the decoded labels. */
static err_kind_t finish_window(run_t *r, stitch_t *st, stitch_window_t *w, decoded_t *d, err_t *err) {
    const stitch_sink_t sink = {.fn = objects_from_runs, .ctx = r};
    w->labels = d->labels;
    w->count = d->count;
    w->confidence = d->confidence;
    err_kind_t k = stitch_add(st, w, &sink, err);
    if (k == ERR_OK) {
        k = objects_from_window(r, w, err);
    }
    if (k == ERR_OK && !r->many) { /* the label image is part of the result */
        r->out->labels = d->labels;
        d->labels = NULL;
    }
    decode_free(d);
    return k;
}

static err_kind_t map_window(run_t *r, band_t *band, stitch_t *st, stitch_window_t *w, err_t *err) {
    const model_spec_t *m = &r->p->spec;
    const cancel_t stop = {.fn = run_should_stop, .ctx = r};
    netout_t o = netout_of(m);
    band_window_t maps = {0};
    decoded_t d = {0};
    image_rect_t rect = {w->x, w->y, w->w, w->h};
    if (r->net_input != &r->level) {
        rect = (image_rect_t){0, 0, r->shrunk.width, r->shrunk.height};
    }
    run_enter(r, STAGE_INFER);
    err_kind_t k = band_window(band, rect, &maps, err);
    if (k == ERR_OK && r->net_input != labelled(r)) {
        k = enlarge(r, &o, &maps, err);
    }
    if (k == ERR_OK) {
        run_enter(r, STAGE_LABEL);
        k = decode_window(m, &r->options, maps.layer, w->w, w->h, r->many, r->params->max_objects, &stop, &d, err);
    }
    if (k == ERR_OK) {
        w->plane = m->output == MODEL_OUTPUT_STAR_CONVEX ? NULL : maps.layer[0];
        k = finish_window(r, st, w, &d, err);
    }
    band_window_free(&maps);
    return k;
}

static err_kind_t label_window(run_t *r, tile_span_t sx, tile_span_t sy, stitch_t *st, stitch_window_t *w, err_t *err) {
    const cancel_t stop = {.fn = run_should_stop, .ctx = r};
    const band_source_t src = source_of(r);
    decoded_t d = {0};
    float *ids = malloc((size_t)w->w * (size_t)w->h * sizeof *ids);
    run_enter(r, STAGE_INFER);
    err_kind_t k = ids ? band_run_span(&src, sx, sy, (float *const[]){ids}, err) : run_no_memory(err);
    if (k == ERR_OK) {
        run_enter(r, STAGE_LABEL);
        k = decode_window(&r->p->spec, &r->options, (float *const[]){ids}, w->w, w->h, r->many, r->params->max_objects,
                          &stop, &d, err);
    }
    free(ids);
    return k == ERR_OK ? finish_window(r, st, w, &d, err) : k;
}

/* ---- all windows ---- */

static int up_to_step(int v) {
    return (v + CORE_STEP - 1) / CORE_STEP * CORE_STEP;
}

/* n divided into equal cores of at most `most` px. */
static int core_size(int n, int most) {
    int parts = (n + most - 1) / most;
    return up_to_step((n + parts - 1) / parts);
}

static err_kind_t begin_stitch(const run_t *r, int width, int height, int core_height, int halo, stitch_t **st,
                               err_t *err) {
    const stitch_params_t p = {.width = width,
                               .height = height,
                               .max_core_height = core_height,
                               .max_halo = halo,
                               .min_area = r->options.min_area,
                               .max_area = r->options.max_area,
                               .min_confidence = r->options.min_confidence,
                               .drop_border = r->options.drop_border};
    return stitch_create(&p, st, err);
}

static err_kind_t finish_stitch(run_t *r, stitch_t *st, err_t *err) {
    const stitch_sink_t sink = {.fn = objects_from_runs, .ctx = r};
    run_enter(r, STAGE_LABEL);
    return stitch_finish(st, &sink, err);
}

/* How high cores may be: windows and the rows at hand both stay within their bytes, if that leaves a core. */
static int core_height(const run_t *r, int width, int height, int core_width, int halo) {
    const model_spec_t *m = &r->p->spec;
    tile_params_t tile = {.tile = m->tile, .halo = m->halo, .divisor = m->divisor};
    netout_t o = netout_of(m);
    int64_t row = 4 * (int64_t)netout_floats(&o) * width / (o.grid * o.grid);
    int64_t by_window = WINDOW_BYTES / bytes_per_pixel(m) / (core_width + 2 * halo) - 2 * halo;
    tile = r->p->net.backend->any_size ? tile_evened(tile_padded(height, m->divisor), &tile) : tile;
    int64_t by_band = BAND_BYTES / row - 2 * halo - tile.tile;
    int64_t high = by_window < by_band ? by_window : by_band;
    high = high > MAX_CORE_HEIGHT ? MAX_CORE_HEIGHT : high;
    return high > halo ? (int)high / CORE_STEP * CORE_STEP : halo;
}

static err_kind_t run_maps(run_t *r, err_t *err) {
    const model_spec_t *m = &r->p->spec;
    const input_t *in = labelled(r);
    int cw = in->width, ch = in->height, halo = 0;
    if (r->many) {
        halo = up_to_step(m->object_size);
        cw = core_size(in->width, r->params->window_px > 0 ? r->params->window_px : MAX_CORE_WIDTH);
        ch = core_size(in->height, r->params->window_px > 0 ? r->params->window_px
                                                            : core_height(r, in->width, in->height, cw, halo));
        ch = ch > halo ? ch : halo; /* a window shows parts of neighbouring cores only */
    }
    const band_source_t src = source_of(r);
    band_t *band = NULL;
    stitch_t *st = NULL;
    int rows = r->net_input == in ? ch + 2 * halo : r->shrunk.height;
    err_kind_t k = band_create(&src, rows, &band, err);
    if (k == ERR_OK) {
        k = begin_stitch(r, in->width, in->height, ch, halo, &st, err);
    }
    for (int y = 0; k == ERR_OK && y < in->height; y += ch) {
        for (int x = 0; k == ERR_OK && x < in->width; x += cw) {
            stitch_window_t w = {.cx0 = x, .cy0 = y, .cx1 = x + cw, .cy1 = y + ch};
            w.cx1 = w.cx1 < in->width ? w.cx1 : in->width;
            w.cy1 = w.cy1 < in->height ? w.cy1 : in->height;
            w.x = x > halo ? x - halo : 0;
            w.y = y > halo ? y - halo : 0;
            w.w = (w.cx1 + halo < in->width ? w.cx1 + halo : in->width) - w.x;
            w.h = (w.cy1 + halo < in->height ? w.cy1 + halo : in->height) - w.y;
            k = map_window(r, band, st, &w, err);
        }
    }
    k = k == ERR_OK ? finish_stitch(r, st, err) : k;
    stitch_free(st);
    band_free(band);
    return k;
}

/* Tiles of a network that gives labels: all at the same distance, so that each shows parts of its neighbours' cores
 * only; the last ones go beyond the image. */
static tile_span_t label_span(int n, const tile_params_t *p, int i) {
    int padded = tile_padded(n, p->divisor);
    if (padded <= p->tile) {
        return tile_span(padded, p, 0);
    }
    int start = i * (p->tile - 2 * p->halo), last = tile_count(padded, p) - 1;
    return (tile_span_t){.start = start,
                         .stop = start + p->tile,
                         .core_start = i == 0 ? 0 : start + p->halo,
                         .core_stop = i == last ? n : start + p->tile - p->halo};
}

static int within(int v, int n) {
    return v < n ? v : n;
}

static err_kind_t run_labels(run_t *r, err_t *err) {
    const model_spec_t *m = &r->p->spec;
    const input_t *in = r->net_input;
    const tile_params_t tile = {.tile = m->tile, .halo = m->halo, .divisor = m->divisor};
    int across = tile_count(tile_padded(in->width, m->divisor), &tile);
    int down = tile_count(tile_padded(in->height, m->divisor), &tile);
    stitch_t *st = NULL;
    r->many = true;
    err_kind_t k = begin_stitch(r, in->width, in->height, m->tile, m->halo, &st, err);
    for (int ty = 0; k == ERR_OK && ty < down; ty++) {
        tile_span_t sy = label_span(in->height, &tile, ty);
        for (int tx = 0; k == ERR_OK && tx < across; tx++) {
            tile_span_t sx = label_span(in->width, &tile, tx);
            stitch_window_t w = {.x = sx.start, .y = sy.start, .cx0 = sx.core_start, .cy0 = sy.core_start};
            w.w = within(sx.stop, in->width) - sx.start;
            w.h = within(sy.stop, in->height) - sy.start;
            w.cx1 = within(sx.core_stop, in->width);
            w.cy1 = within(sy.core_stop, in->height);
            if (w.cx0 < w.cx1 && w.cy0 < w.cy1) { /* a core may lie in the padding altogether */
                k = label_window(r, sx, sy, st, &w, err);
            }
            run_report(r, (double)(ty * across + tx + 1) / ((double)across * down));
        }
    }
    k = k == ERR_OK ? finish_stitch(r, st, err) : k;
    stitch_free(st);
    return k;
}

err_kind_t windows_run(run_t *r, err_t *err) {
    r->net_x = r->net_y = 1;
    if (labelled(r) != &r->level) {
        r->net_x = (double)r->level.width / r->shrunk.width;
        r->net_y = (double)r->level.height / r->shrunk.height;
        r->options = options_reduced(&r->options, sqrt(r->net_x * r->net_y));
    }
    return r->p->spec.output == MODEL_OUTPUT_LABELS ? run_labels(r, err) : run_maps(r, err);
}
