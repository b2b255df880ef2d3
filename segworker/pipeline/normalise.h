/*
 * Intensities of an image as the network expects them: (v - lo) / (hi - lo), clipped, where lo and hi are percentiles
 * of the image. Pure functions.
 */
#ifndef SG_PIPELINE_NORMALISE_H
#define SG_PIPELINE_NORMALISE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

/* The percentile by linear interpolation between order statistics at rank q/100 * (n-1), in double from float32
 * neighbours (the definition of numpy.percentile, method "linear"). Exact; n > 0, q in 0..100, no NaN in v.
 * low <= high. O(n), no copy of v. */
ERR_MUST err_kind_t normalise_percentiles(const float *v, size_t n, double low, double high, double *lo, double *hi,
                                          err_t *err);

typedef struct {
    double low, high; /* percentiles */
    double clip_min, clip_max;
    double min_range; /* hi - lo at or below this: no contrast */
} normalise_params_t;

/* Normalises v in place. *contrast = false, and v untouched, when hi - lo <= min_range. */
ERR_MUST err_kind_t normalise_plane(float *v, size_t n, const normalise_params_t *p, bool *contrast, err_t *err);

#endif
