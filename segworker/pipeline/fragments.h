/*
 * Fragments of objects that are larger than a window (stitch.h), and which of them belong together. Internal to
 * stitch.c.
 */
#ifndef SG_PIPELINE_FRAGMENTS_H
#define SG_PIPELINE_FRAGMENTS_H

#include "segworker/pipeline/stitch.h"

typedef struct {
    stitch_run_t *runs; /* owned, raster order */
    size_t nruns, room;
    stitch_run_t *reach; /* owned: its pixels in the first column right of its core and the first row below it */
    size_t nreach, reach_room;
    int64_t area;
    double confidence; /* of the object in its window; where there is a plane, of its part in the core */
    double sum;        /* of stitch_window_t.plane over that part */
    int cx0, cx1;      /* its core's columns */
    uint32_t parent;   /* union-find over the list's indices */
    bool done;         /* emitted or dropped: no runs any more */
} fragment_t;

typedef struct {
    fragment_t *list;
    size_t count, room;
    size_t row_begin;  /* fragments of the current row of cores are list[row_begin..count) */
    size_t total_runs; /* alive */
    int width;
    uint32_t *above; /* per column: 1 + index of the fragment that reaches down here from the row above, 0 = none */
    uint32_t *line;  /* scratch, max(width, core height) entries each */
    uint32_t *other;
    uint64_t *pairs;
    size_t scratch;
} fragments_t;

ERR_MUST err_kind_t fragments_init(fragments_t *f, int width, int max_core_height, err_t *err);
void fragments_release(fragments_t *f);

/* A new, empty fragment of the current row; NULL: no memory. Valid until the next. */
fragment_t *fragments_add(fragments_t *f, int cx0, int cx1, double confidence);
/* ERR_NO_MEMORY, ERR_INVALID "outline_too_complex". */
ERR_MUST err_kind_t fragments_add_run(fragments_t *f, fragment_t *g, stitch_run_t run, err_t *err);
/* The same for the pixels next to its core. */
ERR_MUST err_kind_t fragments_add_reach(fragments_t *f, fragment_t *g, stitch_run_t run, err_t *err);
/* Frees what it holds. */
void fragments_drop(fragments_t *f, fragment_t *g);

/* The current row of cores is complete: unites its fragments with each other and with the row above, emits the objects
 * that do not reach its last row (with last: all), and begins the next row. */
ERR_MUST err_kind_t fragments_close_row(fragments_t *f, int cy0, int cy1, bool last, int64_t min_area,
                                        const stitch_sink_t *sink, err_t *err);

#endif
