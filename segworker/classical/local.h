/*
 * Local thresholds in time linear in the pixels, whatever the window, from exact integer sums that slide over rows and
 * columns. The window is cut at the plane's edge: statistics are over the pixels that are there.
 *
 * Sauvola: J. Sauvola, M. Pietikäinen, "Adaptive document image binarization", 2000: m (1 + k (s / R - 1)), R half the
 * range. Niblack: W. Niblack, "An Introduction to Digital Image Processing", 1986: m - k s (dark objects). Gaussian:
 * the weighted mean with sigma = (window - 1) / 6, by three box filters (P. Kovesi, "Fast almost-Gaussian filtering",
 * 2010). Pure functions.
 */
#ifndef SG_CLASSICAL_LOCAL_H
#define SG_CLASSICAL_LOCAL_H

#include <stdint.h>

#include "common/err.h"
#include "segworker/classical/classical.h"

/* Into excess: threshold - v in units of the range 0..1, positive inside dark objects. v: width*height, 0..65535.
 * ERR_CANCELLED, ERR_NO_MEMORY. */
ERR_MUST err_kind_t local_threshold(const uint16_t *v, int width, int height, const classical_params_t *p,
                                    const cancel_t *cancel, float *excess, err_t *err);

/* How far local_threshold looks. */
int local_reach(const classical_params_t *p);

#endif
