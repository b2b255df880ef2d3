/*
 * From labels of overlapping windows to objects of the whole image, each of them once, without seams.
 *
 * The image is divided into cores; a window is a core with what surrounds it. Windows come row by row, from left to
 * right; the cores of a row have the same top and bottom. Of the objects that a window shows
 *   - a whole one (it does not reach a side where the image goes on) that has a pixel in the core is accepted by the
 *     first window that shows it so; later windows find its pixels taken and leave it;
 *   - one that is cut is larger than what surrounds the core. Its part in the core becomes a fragment, unless another
 *     window shows it whole. The line of pixels behind a border between cores is seen by both windows: fragments that
 *     share at least half of their pixels there are one object, which is complete when no fragment can join it any
 * more. So an object that is alone comes out the same wherever the borders lie. Where large objects touch each other,
 * their common border may have steps where cores meet, since neither window saw both whole.
 *
 * Memory: 1 bit per pixel of two rows of cores, and 12 bytes per run of pixels of objects not yet complete; the latter
 * is bounded (ERR_INVALID "outline_too_complex"). Deterministic. A stitch_t belongs to one thread.
 */
#ifndef SG_PIPELINE_STITCH_H
#define SG_PIPELINE_STITCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

typedef struct stitch stitch_t;

typedef struct {
    int width, height;     /* of the image */
    int max_core_height;   /* of any core */
    int max_halo;          /* px that a window shows beyond its core, at most; at least 1 and no more than the
                                least core height */
    int64_t min_area;      /* smaller objects are dropped */
    int64_t max_area;      /* so are larger ones; 0 = no limit */
    double min_confidence; /* so are less confident ones */
    bool drop_border;      /* so are objects with a pixel on the image's edge */
} stitch_params_t;

typedef struct {
    int x, y, w, h;         /* the window */
    int cx0, cy0, cx1, cy1; /* its core, in px of the image; cx1 and cy1 are outside */
    int32_t *labels;        /* w*h: 0 or 1..count; overwritten, see stitch_add */
    uint32_t count;
    float *confidence;  /* per object; overwritten */
    const float *plane; /* w*h whose mean over an object is its confidence; NULL: there is none, as with shapes */
} stitch_window_t;

/* A run of pixels: row y, x0 <= x < x1. */
typedef struct {
    int32_t y, x0, x1;
} stitch_run_t;

/* An object of several fragments: its runs in raster order, its bounds. Valid during the call. */
typedef struct {
    const stitch_run_t *runs;
    size_t nruns;
    int x0, y0, x1, y1;
    int64_t area;
    float confidence; /* mean of its fragments, weighted by area */
} stitch_object_t;

typedef struct {
    err_kind_t (*fn)(void *ctx, const stitch_object_t *o, err_t *err); /* an error ends the call that emits */
    void *ctx;
} stitch_sink_t;

ERR_MUST err_kind_t stitch_create(const stitch_params_t *p, stitch_t **out, err_t *err);
void stitch_free(stitch_t *s); /* NULL is allowed */

/* Looks at a window. Afterwards w->labels and w->confidence hold the accepted objects only, numbered 1..w->count in the
 * order of their first pixel. When the first window of a row comes, objects that ended above it go to the sink. */
ERR_MUST err_kind_t stitch_add(stitch_t *s, stitch_window_t *w, const stitch_sink_t *sink, err_t *err);

/* All windows were added: the rest goes to the sink. */
ERR_MUST err_kind_t stitch_finish(stitch_t *s, const stitch_sink_t *sink, err_t *err);

#endif
