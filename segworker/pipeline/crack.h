/*
 * Crack following: the borders of labelled regions as closed walks along pixel edges. A crack is one unit edge between
 * a pixel of the region and one outside; lattice point (x, y) is the top-left corner of pixel (x, y). The region is
 * always on the right hand, so outer rings are positive and holes negative (y points down). Regions are 4-connected,
 * holes 8-connected: where two pixels of a label touch in a corner only, the walk stays with its own pixel.
 * Internal to contour.c. Thread-safe.
 */
#ifndef SG_PIPELINE_CRACK_H
#define SG_PIPELINE_CRACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "segworker/pipeline/cancel.h"

typedef struct {
    int32_t label;
    uint32_t part;   /* number of the 4-connected piece, 1.. in order of first pixels over the whole image */
    uint32_t start;  /* index of the pixel whose left (outer) or right (hole) crack begins the ring */
    uint32_t cracks; /* length of the ring */
    int64_t area;    /* pixels enclosed; negative for a hole */
    bool hole;
} crack_ring_t;

/* All rings of the labels 1..count in one pass over the image: an outer ring comes before the holes of its piece.
 * Memory: 4.25 bytes per pixel during the call. *rings is freed by the caller. ERR_CANCELLED, ERR_NO_MEMORY. */
ERR_MUST err_kind_t crack_find_rings(const int32_t *labels, int width, int height, uint32_t count,
                                     const cancel_t *cancel, crack_ring_t **rings, size_t *nrings, err_t *err);

typedef struct {
    int32_t x, y; /* lattice point where the crack starts */
    uint8_t dir;  /* where it leads: 0 right, 1 down, 2 left, 3 up */
    bool pinch;   /* at its start another piece of the same label touches in the corner */
} crack_t;

/* Walks one ring again; fn is called once per crack, in order. */
typedef void (*crack_fn)(void *ctx, const crack_t *c);
void crack_walk(const int32_t *labels, int width, int height, const crack_ring_t *ring, crack_fn fn, void *ctx);

#endif
