/*
 * How a plane of any size is divided into tiles of bounded size (band.h runs them).
 *
 * Each axis, rounded up to a multiple of `divisor` by reflection (the edge pixel is not repeated), is covered by spans
 * of at most `tile` pixels that overlap by two halos; only the core of each span, without its halos, is kept, so there
 * are no seams as long as the network's field of view is smaller than the halo. An axis that fits one tile is one span.
 */
#ifndef SG_PIPELINE_TILE_H
#define SG_PIPELINE_TILE_H

#include <stdbool.h>

#include "segworker/pipeline/cancel.h"

typedef struct {
    int tile, halo, divisor; /* px; tile a multiple of divisor, > 2 halo */
} tile_params_t;

/* One span of an axis: the network sees start..stop, core_start..core_stop of it is kept. */
typedef struct {
    int start, stop, core_start, core_stop;
} tile_span_t;

/* n rounded up to a multiple of divisor. */
int tile_padded(int n, int divisor);
/* For what takes tiles of any size: the smallest that cover the padded length with no more spans, so that the last one
 * overlaps no more than the others. */
tile_params_t tile_evened(int padded, const tile_params_t *p);
/* Number of spans for a padded length; tile_span gives the i-th. */
int tile_count(int padded, const tile_params_t *p);
tile_span_t tile_span(int padded, const tile_params_t *p, int i);
/* Coordinate i (>= 0) of a reflected axis of length n. */
int tile_reflect(int i, int n);

typedef struct {
    cancel_t stop;                            /* asked before each tile */
    void (*progress)(void *arg, double done); /* 0..1 after each tile; may be NULL */
    void *arg;
    void (*lock)(void *arg, bool on); /* around each run of the network; may be NULL */
    void *lock_arg;
} tile_hooks_t;

#endif
