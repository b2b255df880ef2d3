/*
 * Making the smaller renditions of one image from its 8-bit pixels: a thumbnail and the tiles of a deep-zoom pyramid.
 * Pure computation plus writes to storage; no threads, no locks (derivatives.c has those).
 */
#ifndef SG_GATEWAY_PYRAMID_H
#define SG_GATEWAY_PYRAMID_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/err.h"
#include "common/storage.h"

enum { PYRAMID_THUMBNAIL_SIDE = 256, PYRAMID_THUMBNAIL_QUALITY = 80, PYRAMID_TILE_QUALITY = 90 };

/* Writes a JPEG whose longer side is min(256, longer side of the image) to key. */
ERR_MUST err_kind_t pyramid_write_thumbnail(storage_t *st, const char *key, const uint8_t *px, int width, int height,
                                            int channels, err_t *err);

/* Writes all tiles as <prefix>/<level>/<column>_<row>.jpg and, when all are there, <prefix>/done. px is used up: each
 * level is made in place from the one above. Stops with ERR_CANCELLED soon after *stop becomes true. */
ERR_MUST err_kind_t pyramid_write_tiles(storage_t *st, const char *prefix, uint8_t *px, int width, int height,
                                        int channels, const atomic_bool *stop, err_t *err);

/* Halves an image in place, rounding its size up; each new pixel is the rounded mean of the (up to) four under it. */
void pyramid_halve(uint8_t *px, int *width, int *height, int channels);

#endif
