/*
 * From the cracks of one ring to a smooth outline on the 1/100 px grid (steps 2 and 3 of contour.h). Internal to
 * contour.c. An outline_t is scratch memory for one thread, reused from ring to ring.
 */
#ifndef SG_PIPELINE_OUTLINE_H
#define SG_PIPELINE_OUTLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/geometry/polygon.h"
#include "segworker/pipeline/crack.h"

/* How much an outline may differ from its cracks, from most to least. */
typedef enum {
    OUTLINE_SMOOTH,    /* smoothed and simplified */
    OUTLINE_GENTLE,    /* smoothed with the narrowest filter, simplified half as much */
    OUTLINE_MIDPOINTS, /* through the mid-points of the cracks, nothing moved */
    OUTLINE_CRACKS     /* the cracks; corners where the label touches itself are cut by 0.1 px */
} outline_level_t;

/* Longer rings are not smoothed: bounds the memory (about 290 bytes per crack) for images of pure noise. */
#define OUTLINE_MAX_SMOOTH_CRACKS (1U << 20)

typedef struct {
    double x, y;
} vec_t;

/* Nodes lie on the ring, in order. at, smooth and dir have room for the ring twice, so that an arc over its beginning
 * can be read straight on. */
typedef struct {
    vec_t *at, *smooth, *wide, *tmp; /* nodes: where they are, smoothed, smoothed more, work space */
    vec_t *levels;                   /* work space of the smoothing */
    double *rest, *shift;            /* per node: share that is left for a narrower filter; distance moved by it */
    uint8_t *fixed;                  /* per node: corner that must stay */
    uint8_t *dir;                    /* per node: direction of its crack */
    uint32_t *order;                 /* indices: corners */
    uint8_t *keep;
    size_t nnodes;
    size_t room;
} outline_t;

void outline_free(outline_t *o);

/* ERR_NO_MEMORY. out->points is allocated; width and height clamp the outline to the image. steps: of all rings. */
ERR_MUST err_kind_t outline_build(outline_t *o, int width, int height, const crack_ring_t *ring, const crack_t *steps,
                                  outline_level_t level, double tolerance, geom_ring_t *out, err_t *err);

/* ---- the steps of it ---- */

/* at -> smooth, with the narrowest filter only if `gently`. Changes wide, tmp, levels, rest, shift and dir (behind its
 * end). */
void outline_smooth(outline_t *o, bool gently);

/* Picks nodes of smooth so that no other is farther than tolerance from the line through them; moves them to the front
 * of smooth and returns their number. Fixed nodes stay. */
size_t outline_simplify(outline_t *o, double tolerance);

/* Moves the n first nodes of smooth until they enclose `area`. Changes wide and tmp. */
void outline_match_area(outline_t *o, size_t n, double area);

#endif
