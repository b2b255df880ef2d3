/*
 * Thumbnails and deep-zoom tiles: made from the original on first use (or right after an upload, in the background),
 * kept in storage under images/<id>/…, never made twice at once for the same image. At most two images are decoded at a
 * time, so memory is bounded by 2 × MAX_DECODED_BYTES; callers wait up to 30 s, then ERR_UNAVAILABLE "busy_rendering".
 * Thread-safe.
 */
#ifndef SG_GATEWAY_DERIVATIVES_H
#define SG_GATEWAY_DERIVATIVES_H

#include <stdint.h>

#include "common/config.h"
#include "common/err.h"
#include "common/storage.h"

typedef struct derivatives derivatives_t;

#define DERIVATIVES_TILE 256
#define DERIVATIVES_KEY_ROOM 256

ERR_MUST err_kind_t derivatives_create(const config_t *cfg, storage_t *st, derivatives_t **out, err_t *err);
void derivatives_destroy(derivatives_t *d); /* finishes what runs, drops what waits */

/* Queue the thumbnail and the tiles to be made soon. done is called exactly once: from a worker thread when the
 * thumbnail is there (ok) or cannot be made, or at once with ok = 0 when the queue (1,024) is full or closing. done may
 * be NULL. */
void derivatives_prepare(derivatives_t *d, const char *image_id, const char *original_key,
                         void (*done)(void *arg, const char *image_id, int ok), void *arg);

/* Key of the wanted file, after making it if needed. key has room for 256 bytes. */
ERR_MUST err_kind_t derivatives_thumbnail(derivatives_t *d, const char *image_id, const char *original_key, char *key,
                                          err_t *err);
ERR_MUST err_kind_t derivatives_tile(derivatives_t *d, const char *image_id, const char *original_key, int width,
                                     int height, int level, int column, int row, char *key, err_t *err);
/* Deletes everything that storage holds of an image, its original included, when no thread renders it (any more). Call
 * after its row is gone: what asks for it later finds no row. */
ERR_MUST err_kind_t derivatives_forget(derivatives_t *d, const char *image_id, err_t *err);
/* Highest level of a pyramid whose level 0 is 1×1. */
int derivatives_max_level(int width, int height);

#endif
