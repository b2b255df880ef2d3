/*
 * The network's output for an image of any size, a band of rows at a time: the image is run in tiles (tile.h), each of
 * them once, and the kept layers (netout.h) of the rows that windows still need stay at hand. What a pixel gets does
 * not depend on which rows are asked for. With lanes (lanes.h) tiles run ahead: a few are always handed in, also while
 * the window before is labelled.
 *
 * Memory: rows at hand x width x netout_floats * 4 bytes / grid^2, and tiles ahead within 96 MB. A band belongs to one
 * thread; its network may be shared through tile_hooks_t.lock or the lanes.
 */
#ifndef SG_PIPELINE_BAND_H
#define SG_PIPELINE_BAND_H

#include "segworker/pipeline/infer.h"
#include "segworker/pipeline/input.h"
#include "segworker/pipeline/lanes.h"
#include "segworker/pipeline/netout.h"
#include "segworker/pipeline/prepare.h"
#include "segworker/pipeline/tile.h"

typedef struct {
    infer_t *net;
    lanes_t *lanes; /* where it runs; NULL: on the thread of the run */
    const model_spec_t *spec;
    model_tta_t tta;
    input_t *input;
    const prepare_t *prepare; /* how its values become the network's */
    tile_params_t tile;
    tile_hooks_t hooks;
} band_source_t;

typedef struct band band_t;

/* rows: the most that one window is high. ERR_NO_MEMORY. */
ERR_MUST err_kind_t band_create(const band_source_t *src, int rows, band_t **out, err_t *err);
void band_free(band_t *b); /* NULL is allowed */

/* Layers of a window inside the image. Windows may not go up again by more than `rows`. The layers of a window as wide
 * as the image are lent until the next call, others are copied. layer[l]: rows of netout_points(w) * depth[l] floats.
 * Errors: as the network and the file give them, ERR_CANCELLED, ERR_NO_MEMORY. */
typedef struct {
    float *layer[NETOUT_LAYERS];
    bool lent; /* by the band; else owned by the window */
} band_window_t;
ERR_MUST err_kind_t band_window(band_t *b, image_rect_t rect, band_window_t *out, err_t *err);
void band_window_free(band_window_t *w);

/* One tile by itself, for networks whose output is not a map. layer[l]: the caller's, the part of the spans that is
 * inside the image. */
ERR_MUST err_kind_t band_run_span(const band_source_t *src, tile_span_t sx, tile_span_t sy, float *const *layer,
                                  err_t *err);

#endif
