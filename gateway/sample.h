/*
 * The sample project: a person who has no images at hand sees the system work at once. Its images are computed, not
 * shipped: fields of fluorescent nuclei (16-bit TIFF) and bright-field spheroids (PNG, JPEG), the same bytes each time.
 */
#ifndef SG_GATEWAY_SAMPLE_H
#define SG_GATEWAY_SAMPLE_H

#include "http.h"

#define SAMPLE_IMAGES 8

/* The user's sample project, made on the first call: rows, files and queued jobs, by the way that uploads go. A
 * project that could not be filled is taken away again. ERR_UNAVAILABLE "no_model_available" before any worker came. */
ERR_MUST err_kind_t sample_create(gateway_t *gw, const char *user_id, char project_id[37], bool *created, err_t *err);

/* Image number `index` as a file: its name and its bytes (free()). Deterministic. */
ERR_MUST err_kind_t sample_render(int index, const char **name, uint8_t **bytes, size_t *n, err_t *err);

#endif
