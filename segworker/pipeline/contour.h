/*
 * From a label image to outlines: one geometry per label, outer rings, holes and islands (proto/polygons.md).
 *
 * 1. Crack following: rings run along pixel edges, object on the right hand (so outer rings are positive). Objects
 *    are 4-connected, their holes 8-connected; a label of several pieces becomes a MultiPolygon.
 * 2. The staircase of the pixel grid overstates lengths by up to 27 %, so each ring is rebuilt from the mid-points of
 *    its cracks: right-angled and sharp corners are found and kept, the arcs between them are smoothed, no point moving
 *    more than half a pixel from its crack, then simplified.
 * 3. The ring is moved along its normals until it encloses as much area as its pixels cover, and put on the
 *    1/100 px grid. An object whose rings would cross, or that would misplace more than 1.7 % of its
 * pixels or 0.4 % of its area, is redone with less freedom; the last resort are the crack rings, which cannot cross.
 *
 * Axis-aligned rectangles (a single pixel too) come out exactly. Time is linear in pixels plus outline length; memory
 * 4.25 bytes per pixel, 2 per crack and 290 per crack of the longest ring (at most 2^20 of them) besides the result.
 * Deterministic. Thread-safe: no state.
 */
#ifndef SG_PIPELINE_CONTOUR_H
#define SG_PIPELINE_CONTOUR_H

#include <stdint.h>

#include "common/err.h"
#include "common/geometry/polygon.h"
#include "segworker/pipeline/cancel.h"

/* Greatest distance in px between the smoothed outline and the simplified one. */
#define CONTOUR_DEFAULT_TOLERANCE 0.1

typedef struct {
    double tolerance; /* px; 0 = the crack rings themselves, nothing smoothed or simplified */
} contour_params_t;

/*
 * labels: width*height values 0..count (others are ignored). geoms: count elements, overwritten; geoms[k] is the
 * outline of label k+1 (empty when no pixel carries it); each is released with geom_free. p may be NULL: defaults.
 * Errors: ERR_CANCELLED, ERR_NO_MEMORY, ERR_TOO_LARGE "image_too_large" (over 2^30 pixels), ERR_INVALID
 * "outline_too_complex" (an object of more than 65535 pieces or holes); then all geoms are empty.
 */
ERR_MUST err_kind_t contour_trace(const int32_t *labels, int width, int height, uint32_t count,
                                  const contour_params_t *p, const cancel_t *cancel, geom_t *geoms, err_t *err);

#endif
