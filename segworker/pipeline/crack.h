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
    int32_t x, y;    /* lattice point where its first crack starts */
    uint32_t cracks; /* length of the ring */
    bool hole;
    int64_t area; /* pixels enclosed; negative for a hole */
    size_t first; /* its cracks are steps[first..first+cracks-1] */
} crack_ring_t;

/* A crack in one byte: where it leads, and whether at its start another piece of the same label touches in the corner.
 * The next crack starts where it ends; the last one ends where the first one starts. */
typedef uint8_t crack_t;
enum { CRACK_RIGHT, CRACK_DOWN, CRACK_LEFT, CRACK_UP, CRACK_DIRECTION = 3, CRACK_PINCH = 4 };

typedef struct {
    crack_ring_t *rings;
    crack_t *steps;
    size_t count;
} crack_rings_t;

/* All rings of the labels 1..count in one pass over the image: an outer ring comes before the holes of its piece. Each
 * ring is walked once. Memory: 4.25 bytes per pixel during the call, and up to 2 per crack for the steps. *out is
 * released by crack_rings_free whatever happens. ERR_CANCELLED, ERR_NO_MEMORY. */
ERR_MUST err_kind_t crack_find_rings(const int32_t *labels, int width, int height, uint32_t count,
                                     const cancel_t *cancel, crack_rings_t *out, err_t *err);
void crack_rings_free(crack_rings_t *r);

#endif
