/*
 * The models of a folder: MODELS_DIR/NAME/model.json says how an image is prepared for the network and what its maps
 * mean, MODELS_DIR/NAME/FILE is the TorchScript module. A model is brought in by dropping in such a folder.
 *
 * Everything in a model.json is checked before it is believed: types, ranges, that the file name stays inside the
 * folder, and the SHA-256 of the module. A broken folder is reported and left out; the others stay usable.
 *
 * output.kind says which runtime a model needs: "foreground_distance" is a TorchScript module with these two maps;
 * "test" needs no module. It stands in for a network in tests of everything around it: the image is decoded and
 * normalised, then the worker waits as long as the object "test" says, and the grey values are both maps. Such a folder
 * holds only a model.json without "file" and "sha256"; "test" holds milliseconds  per tile, 0..3600000 jitter 0..1: the
 * wait lies in milliseconds · (1 ± jitter) failRate      0..1: share of the tiles that end with ERR_INTERNAL
 * "inference_failed" hang          true: a tile never ends by itself, only by cancelling or by the job's time-out deaf
 * true: what waits hears neither, like a call into a library that does not return while         "" or the name of a
 * file in the folder: failRate, hang and deaf hold only while it exists All of them must be there. The numbers of tiles
 * decide, not chance, so a run can be repeated.
 *
 * "classical" needs no module either: the maps come from a local threshold, and the object "classical" says how. It
 * holds, all of them required:
 *   method       "sauvola", "niblack" or "gaussian"
 *   polarity     "auto", "dark" or "bright": the objects against their surroundings
 *   window       px, odd, 3..4001           k            -1..1, weight of the local deviation
 *   offset       -1..1, off the threshold   smooth       px, sigma of a Gaussian before, 0..20
 *   open, close  px, radius, 0..100         fill         px, holes up to this area are filled
 *   edgeContrast 0..1, least mean step across an object's border
 *   neck         0..1: a neck narrower than this share of the smaller part separates; 0 = touching objects stay one
 * px count at the size that "scale" gives, grey values in the range that "normalisation" makes. "halo" must cover what
 * the method looks at around a pixel, unless every image fits one tile.
 *
 * Thread-safe: a loaded registry is read-only.
 */
#ifndef SG_SEGWORKER_MODELS_H
#define SG_SEGWORKER_MODELS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "segworker/classical/classical.h"
#include "segworker/model_net.h"

#define MODEL_MANIFEST_MAX (1 << 20) /* bytes of a model.json */

enum { MODEL_OBJECT_SIZE = 128 };

typedef enum { MODEL_SCALE_NATIVE = 0, MODEL_SCALE_FIT_LONG_SIDE, MODEL_SCALE_PIXEL_SIZE } model_scale_t;

typedef enum {
    MODEL_OUTPUT_FOREGROUND_DISTANCE = 0,
    MODEL_OUTPUT_TEST,
    MODEL_OUTPUT_CLASSICAL,
    MODEL_OUTPUT_SEMANTIC,            /* foreground only */
    MODEL_OUTPUT_FOREGROUND_BOUNDARY, /* touching objects split along their boundary */
    MODEL_OUTPUT_FOREGROUND_VOTES,    /* pixels point to their object's centre: pipeline/votes.h */
    MODEL_OUTPUT_STAR_CONVEX,         /* pipeline/star.h */
    MODEL_OUTPUT_LABELS               /* the network's output is a label image */
} model_output_t;

typedef struct {
    int milliseconds;
    double jitter, fail_rate;
    bool hang, deaf;
    char condition[64]; /* "while": a file's name; "" = always */
} model_test_t;

typedef struct {
    char name[64]; /* [a-z0-9][a-z0-9_-]*; equals the folder's name */
    char version[32], title[128], description[512], license[64];
    char path[4096]; /* of the module; of model.json for a model without one */
    char sha256[65]; /* of that file, lower-case hex */

    bool package;    /* read from rdf.yaml (bioimage.h) instead of model.json */
    model_net_t net; /* what the network takes and gives */

    /* input */
    model_scale_t scale;
    int scale_px;                           /* long side in px, for FIT_LONG_SIDE */
    bool upscale;                           /* may a smaller image be enlarged */
    double scale_um;                        /* size of the network's pixels, for PIXEL_SIZE; an image that does not
                                               say how large its pixels are is used as it is */
    int tile, halo, divisor;                /* px; tile is a multiple of divisor and > 2 halo */
    double percentile_low, percentile_high; /* 0..100 */
    double clip_min, clip_max, min_range;

    model_output_t output;
    model_test_t test;            /* for MODEL_OUTPUT_TEST */
    classical_params_t classical; /* for MODEL_OUTPUT_CLASSICAL */

    /* postprocessing; areas in px of the original image */
    double threshold, seed_threshold, dist_sigma;
    double small_seed_threshold; /* for MODEL_OUTPUT_FOREGROUND_VOTES, optional: "smallSeedThreshold" in place of
                                    seed_threshold where two objects have fewer px than "smallArea" together */
    double min_confidence;       /* "minConfidence", optional: less confident objects are left out */
    double nms_threshold;        /* for MODEL_OUTPUT_STAR_CONVEX */
    int object_size; /* px; objects up to this size are whole in a part of a large image: "objectSize", optional */
    int64_t seed_min_area, small_area, min_area, max_hole_area;
    bool drop_border; /* "dropBorder", optional: objects that the image's edge cuts are left out */
} model_spec_t;

typedef struct {
    model_spec_t *models; /* by name, ascending; those without a network last */
    int count;
    struct {
        char name[256]; /* of the folder */
        err_t err;
    } * problems; /* folders that were left out, and why */
    int nproblems;
} model_registry_t;

/* Reads and checks one model folder: model.json, or a bioimage.io package. ERR_NOT_FOUND "model_missing" when there is
 * neither; ERR_INVALID
 * "model_invalid" (the message names the field), "model_damaged" (the checksum differs). */
ERR_MUST err_kind_t model_spec_load(const char *dir, model_spec_t *out, err_t *err);

/* Reads every folder of dir that has a model.json. wanted: comma-separated names, NULL or "" = all; a wanted model that
 * is missing or broken is an error. ERR_NOT_FOUND "models_missing" when dir cannot be read or holds no usable model. */
ERR_MUST err_kind_t models_load(const char *dir, const char *wanted, model_registry_t *out, err_t *err);
void models_free(model_registry_t *r);

/* The model's model.json as it is; for a package, what was understood of it, in the same form. Caller frees *text. */
ERR_MUST err_kind_t models_manifest(const model_spec_t *m, char **text, err_t *err);

/* NULL when there is none of that name. */
const model_spec_t *models_find(const model_registry_t *r, const char *name);

#endif
