/*
 * Gaussian smoothing of a plane, the same values as scipy.ndimage.gaussian_filter with its default border. Sums are
 * kept in double. Thread-safe; time grows with pixels times sigma.
 */
#ifndef SG_PIPELINE_SMOOTH_H
#define SG_PIPELINE_SMOOTH_H

#include "common/err.h"
#include "segworker/pipeline/cancel.h"

/*
 * src -> dst, width*height each, not overlapping. sigma: px, > 0 (more than 1000 counts as 1000); the kernel is cut off
 * at 4 sigma and sums to 1; beyond the edge the plane is mirrored, the edge pixel repeated. ERR_CANCELLED,
 * ERR_NO_MEMORY.
 */
ERR_MUST err_kind_t smooth_gaussian(const float *src, int width, int height, double sigma, const cancel_t *cancel,
                                    float *dst, err_t *err);

#endif
