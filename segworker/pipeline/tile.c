/*
 * Tiles: see tile.h. Only one tile's input and output are held besides the plane and the maps.
 */
#include "segworker/pipeline/tile.h"

#include <stdlib.h>
#include <string.h>

int tile_padded(int n, int divisor) {
    return (int)(((int64_t)n + divisor - 1) / divisor * divisor);
}

int tile_count(int padded, const tile_params_t *p) {
    if (padded <= p->tile) {
        return 1;
    }
    int step = p->tile - 2 * p->halo;
    return (padded - p->tile + step - 1) / step + 1;
}

tile_span_t tile_span(int padded, const tile_params_t *p, int i) {
    if (padded <= p->tile) {
        return (tile_span_t){0, padded, 0, padded};
    }
    int last = tile_count(padded, p) - 1;
    int start = i == last ? padded - p->tile : i * (p->tile - 2 * p->halo);
    return (tile_span_t){.start = start,
                         .stop = start + p->tile,
                         .core_start = i == 0 ? 0 : start + p->halo,
                         .core_stop = i == last ? padded : start + p->tile - p->halo};
}

int tile_reflect(int i, int n) {
    if (n == 1) {
        return 0;
    }
    int64_t period = 2 * ((int64_t)n - 1), k = i % period;
    return (int)(k >= n ? period - k : k);
}

/* The network's input: part of the plane, reflected where it goes beyond. */
static void gather(const float *plane, int width, int height, tile_span_t sx, tile_span_t sy, float *in) {
    int tw = sx.stop - sx.start;
    int inside = (sx.stop < width ? sx.stop : width) - sx.start;
    inside = inside < 0 ? 0 : inside;
    for (int y = sy.start; in && y < sy.stop; y++) {
        const float *row = plane + (size_t)tile_reflect(y, height) * (size_t)width;
        float *d = in + (size_t)(y - sy.start) * (size_t)tw;
        memcpy(d, row + sx.start, (size_t)inside * sizeof *d);
        for (int x = inside; x < tw; x++) {
            d[x] = row[tile_reflect(sx.start + x, width)];
        }
    }
}

static void scatter(const float *out, int width, int height, tile_span_t sx, tile_span_t sy, float *map) {
    int tw = sx.stop - sx.start;
    int x1 = sx.core_stop < width ? sx.core_stop : width, y1 = sy.core_stop < height ? sy.core_stop : height;
    for (int y = sy.core_start; y < y1 && sx.core_start < x1; y++) {
        memcpy(map + (size_t)y * (size_t)width + sx.core_start,
               out + (size_t)(y - sy.start) * (size_t)tw + (sx.core_start - sx.start),
               (size_t)(x1 - sx.core_start) * sizeof *map);
    }
}

static err_kind_t run_one(const infer_t *net, const float *in, int h, int w, float *out, int channels,
                          const tile_hooks_t *hooks, err_t *err) {
    if (hooks && hooks->lock) {
        hooks->lock(hooks->lock_arg, true);
    }
    err_kind_t k = net->backend->run(net->state, in, h, w, out, channels, hooks ? &hooks->stop : NULL, err);
    if (hooks && hooks->lock) {
        hooks->lock(hooks->lock_arg, false);
    }
    return k;
}

err_kind_t tile_run(const infer_t *net, const float *plane, int width, int height, const tile_params_t *p,
                    float *const *maps, int channels, const tile_hooks_t *hooks, err_t *err) {
    int pw = tile_padded(width, p->divisor), ph = tile_padded(height, p->divisor);
    int across = tile_count(pw, p), down = tile_count(ph, p);
    size_t tile_pixels = (size_t)(pw < p->tile ? pw : p->tile) * (size_t)(ph < p->tile ? ph : p->tile);
    float *in = malloc(tile_pixels * sizeof *in);
    float *out = malloc(tile_pixels * (size_t)channels * sizeof *out);
    err_kind_t k = ERR_OK;
    if (!in || !out) {
        k = err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to run the model.", NULL);
    }
    for (int ty = 0; ty < down && k == ERR_OK; ty++) {
        for (int tx = 0; tx < across && k == ERR_OK; tx++) {
            if (hooks && cancel_asked(&hooks->stop)) {
                k = err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", NULL);
                break;
            }
            tile_span_t sx = tile_span(pw, p, tx), sy = tile_span(ph, p, ty);
            int tw = sx.stop - sx.start, th = sy.stop - sy.start;
            gather(plane, width, height, sx, sy, in);
            k = run_one(net, in, th, tw, out, channels, hooks, err);
            for (int c = 0; c < channels && k == ERR_OK; c++) {
                scatter(out + (size_t)c * (size_t)tw * (size_t)th, width, height, sx, sy, maps[c]);
            }
            if (k == ERR_OK && hooks && hooks->progress) {
                hooks->progress(hooks->arg, (double)((int64_t)ty * across + tx + 1) / ((double)down * across));
            }
        }
    }
    free(in);
    free(out);
    return k;
}
