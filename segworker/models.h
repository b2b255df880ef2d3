/*
 * The models of a folder: MODELS_DIR/NAME/model.json says how an image is prepared for the network and what its maps
 * mean, MODELS_DIR/NAME/FILE is the TorchScript module. A model is brought in by dropping in such a folder.
 *
 * Everything in a model.json is checked before it is believed: types, ranges, that the file name stays inside the
 * folder, and the SHA-256 of the module. A broken folder is reported and left out; the others stay usable.
 *
 * Thread-safe: a loaded registry is read-only.
 */
#ifndef SG_SEGWORKER_MODELS_H
#define SG_SEGWORKER_MODELS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

#define MODEL_MANIFEST_MAX (1 << 20) /* bytes of a model.json */

typedef enum { MODEL_SCALE_NATIVE = 0, MODEL_SCALE_FIT_LONG_SIDE } model_scale_t;

typedef struct {
    char name[64]; /* [a-z0-9][a-z0-9_-]*; equals the folder's name */
    char version[32], title[128], description[512], license[64];
    char path[4096]; /* of the module */
    char sha256[65]; /* of the module, lower-case hex */

    /* input: one grey channel */
    model_scale_t scale;
    int scale_px;                           /* long side in px, for FIT_LONG_SIDE */
    bool upscale;                           /* may a smaller image be enlarged */
    int tile, halo, divisor;                /* px; tile is a multiple of divisor and > 2 halo */
    double percentile_low, percentile_high; /* 0..100 */
    double clip_min, clip_max, min_range;

    /* output and postprocessing; areas in px of the original image */
    double threshold, seed_threshold, dist_sigma;
    int64_t seed_min_area, min_area, max_hole_area;
} model_spec_t;

typedef struct {
    model_spec_t *models; /* by name, ascending */
    int count;
    struct {
        char name[256]; /* of the folder */
        err_t err;
    } * problems; /* folders that were left out, and why */
    int nproblems;
} model_registry_t;

/* Reads and checks one model folder. ERR_NOT_FOUND "model_missing" when there is no model.json; ERR_INVALID
 * "model_invalid" (the message names the field), "model_damaged" (the checksum differs). */
ERR_MUST err_kind_t model_spec_load(const char *dir, model_spec_t *out, err_t *err);

/* Reads every folder of dir that has a model.json. wanted: comma-separated names, NULL or "" = all; a wanted model that
 * is missing or broken is an error. ERR_NOT_FOUND "models_missing" when dir cannot be read or holds no usable model. */
ERR_MUST err_kind_t models_load(const char *dir, const char *wanted, model_registry_t *out, err_t *err);
void models_free(model_registry_t *r);

/* NULL when there is none of that name. */
const model_spec_t *models_find(const model_registry_t *r, const char *name);

#endif
