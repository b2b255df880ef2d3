/*
 * 4-connected components of a mask, by rows with union-find (Rosenfeld and Pfaltz, 1966; path halving).
 * Time linear in practice; memory 4 bytes per provisional component besides the output. Thread-safe.
 */
#ifndef SG_PIPELINE_COMPONENTS_H
#define SG_PIPELINE_COMPONENTS_H

#include <stdint.h>

#include "common/err.h"
#include "segworker/pipeline/cancel.h"

/*
 * A pixel is set when (mask[i] & bits) != 0. out: width*height, 0 = not set, components are 1..*count in the order of
 * their first pixel. *areas: count+1 entries, areas[0] = 0, freed by the caller. ERR_CANCELLED, ERR_NO_MEMORY.
 */
ERR_MUST err_kind_t components_label(const uint8_t *mask, uint8_t bits, int width, int height, const cancel_t *cancel,
                                     int32_t *out, uint32_t *count, uint32_t **areas, err_t *err);

#endif
