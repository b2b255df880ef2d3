/*
 * Where touching objects part: the distance to the border has a summit in each of them and a saddle, the neck, between.
 * Pixels are visited from the farthest inside outwards and joined with their neighbours (union-find); when two summits
 * meet at a saddle lower than `neck` times the lower summit, both are objects, else the lower one is a bump
 * of the other. The order is by counting, so the time is linear. Pure function.
 */
#ifndef SG_CLASSICAL_SPLIT_H
#define SG_CLASSICAL_SPLIT_H

#include <stdint.h>

#include "common/err.h"

/* d2: squared distances to the outside, 0 outside the objects. Sets seed[i] = 1 on one summit pixel per object, else
 * 0. ERR_NO_MEMORY. */
ERR_MUST err_kind_t split_find_seeds(const int32_t *d2, int width, int height, double neck, uint8_t *seed, err_t *err);

#endif
