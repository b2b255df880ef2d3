/*
 * Seeded watershed: grows numbered seeds over a mask, greatest value first. Thread-safe, deterministic: pixels of equal
 * value are taken in the order in which they were reached. Time is linear in the pixels.
 */
#ifndef SG_PIPELINE_WATERSHED_H
#define SG_PIPELINE_WATERSHED_H

#include <stdint.h>

#include "common/err.h"
#include "segworker/pipeline/cancel.h"

/*
 * Floods -value from the seeds (labels > 0) through 4-connected pixels. parts: the connected components 1..nparts that
 * may be flooded, 0 elsewhere. labels is both the seeds and the result; pixels that no seed reaches stay 0. Memory:
 * 2 MB, 4 bytes per part and per seed pixel at a border, 16 per pixel of the flooding front. ERR_CANCELLED,
 * ERR_NO_MEMORY.
 */
ERR_MUST err_kind_t watershed_flood(const float *value, const int32_t *parts, uint32_t nparts, int width, int height,
                                    const cancel_t *cancel, int32_t *labels, err_t *err);

#endif
