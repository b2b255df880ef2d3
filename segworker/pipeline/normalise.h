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

/*
 * The same for values that come in parts: feed them all, then, while percentile_scan_again says so, feed them all once
 * more in any order. Whole numbers from 0 to 65535 need one pass, all else two. About 3 MB.
 */
typedef struct percentile_scan percentile_scan_t;
ERR_MUST err_kind_t percentile_scan_begin(double low, double high, percentile_scan_t **out, err_t *err);
void percentile_scan_feed(percentile_scan_t *s, const float *v, size_t n);
bool percentile_scan_again(percentile_scan_t *s);
/* At least one value must have been fed. */
void percentile_scan_result(const percentile_scan_t *s, double *lo, double *hi);
void percentile_scan_free(percentile_scan_t *s); /* NULL is allowed */

typedef struct {
    double low, high; /* percentiles */
    double clip_min, clip_max;
    double min_range; /* hi - lo at or below this: no contrast */
} normalise_params_t;

/* Normalises v in place with percentiles that are known. */
void normalise_apply(float *v, size_t n, const normalise_params_t *p, double lo, double hi);

/* Normalises v in place. *contrast = false, and v untouched, when hi - lo <= min_range. */
ERR_MUST err_kind_t normalise_plane(float *v, size_t n, const normalise_params_t *p, bool *contrast, err_t *err);

#endif
