/*
 * From the maps of a star-convex network (Schmidt, Weigert, Broaddus and Myers, "Cell detection with star-convex
 * polygons", MICCAI 2018) to a label image.
 *
 * The network gives, for each point of a grid with `grid` px between its points, a probability and the distance to the
 * object's border along `rays` equally spaced directions, the first along +x, the following turning towards +y. Point
 * (i, j) stands for the centre of the pixel (i * grid, j * grid); distances are in px of the image.
 *
 * 1. Candidates: points with prob >= threshold.
 * 2. Non-maximum suppression, the most probable first (of equals, the first in the raster): a candidate is dropped when
 *    it shares more than nms_threshold of the smaller of two areas with one that was kept. Areas are measured between
 *    32 scan lines, whatever the size.
 * 3. The kept ones are drawn, the more probable on top, at pixel centres.
 *
 * Time: linear in the pixels drawn, plus about a microsecond per candidate and kept object beside it. Memory: 16 bytes
 * per candidate, 4 per pixel, 8 * rays + 60 per kept object. Deterministic; thread-safe: no state.
 */
#ifndef SG_PIPELINE_STAR_H
#define SG_PIPELINE_STAR_H

#include <stdint.h>

#include "common/err.h"
#include "segworker/pipeline/cancel.h"

enum { STAR_MIN_RAYS = 3, STAR_MAX_RAYS = 256 };

typedef struct {
    int rays, grid;       /* STAR_MIN_RAYS..STAR_MAX_RAYS; >= 1 */
    float threshold;      /* least probability of an object */
    float nms_threshold;  /* 0..1: share of the smaller area that two objects may have in common */
    int64_t min_area;     /* px; smaller objects are dropped */
    uint32_t max_objects; /* more than that: ERR_INVALID "too_many_objects" */
} star_params_t;

/*
 * prob: ceil(width/grid) * ceil(height/grid) values. dist: `rays` values for each of them, side by side (candidates are
 * visited in no order, so planes would cost a cache miss per ray); negative and NaN count as 0, and none counts for
 * more than width + height. Objects are numbered 1..*count in the order of their first pixel.
 * *labels (width*height, 0 = background) and *probs (count entries: probability of object k+1) are freed by the caller
 * with free(). Errors: as above, ERR_INVALID "image_empty", ERR_TOO_LARGE "image_too_large" (over 2^30 px),
 * ERR_CANCELLED, ERR_NO_MEMORY; then both are NULL.
 */
ERR_MUST err_kind_t star_decode(const float *prob, const float *dist, int width, int height, const star_params_t *p,
                                const cancel_t *cancel, int32_t **labels, uint32_t *count, float **probs, err_t *err);

#endif
