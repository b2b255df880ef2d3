/*
 * Exact squared Euclidean distances on the pixel grid in linear time (P. Felzenszwalb, D. Huttenlocher, "Distance
 * transforms of sampled functions", 2012: lower envelope of parabolas, column by column, then row by row), and discs
 * as structuring elements by thresholding them, so that the radius costs nothing. Pure functions.
 */
#ifndef SG_CLASSICAL_DISTANCE_H
#define SG_CLASSICAL_DISTANCE_H

#include <stdint.h>

#include "common/err.h"
#include "segworker/pipeline/cancel.h"

/* out[i] = squared distance in px from pixel i to the nearest pixel with mask != 0 (0 there); DISTANCE_NONE when there
 * is none. ERR_CANCELLED, ERR_NO_MEMORY. */
#define DISTANCE_NONE INT32_MAX
ERR_MUST err_kind_t distance_to(const uint8_t *mask, int width, int height, const cancel_t *cancel, int32_t *out,
                                err_t *err);

/* Opening (on = 1) or closing (on = 0) of a 0/1 mask by a disc, in place; what lies beyond the edge has no say.
 * work: width*height. */
ERR_MUST err_kind_t distance_open_close(uint8_t *mask, int width, int height, int radius, int on,
                                        const cancel_t *cancel, int32_t *work, err_t *err);

#endif
