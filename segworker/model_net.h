/*
 * What a model's network takes and gives, from the objects "input" and "output" of its model.json (schema in
 * segworker/models/README.md). Part of models.h; pure data and its reading.
 */
#ifndef SG_SEGWORKER_MODEL_NET_H
#define SG_SEGWORKER_MODEL_NET_H

#include <stdbool.h>

#include <cjson/cJSON.h>

enum { MODEL_MAX_CHANNELS = 16, MODEL_MAX_INPUTS = 3, MODEL_MAX_STEPS = 8, MODEL_MAX_GRID = 16 };

typedef enum { MODEL_ACTIVATION_NONE = 0, MODEL_ACTIVATION_SIGMOID, MODEL_ACTIVATION_SOFTMAX } model_activation_t;

/* Test-time augmentation: the maps are the mean over turned inputs. */
typedef enum {
    MODEL_TTA_NONE = 0,
    MODEL_TTA_FLIPS /* 4 runs */,
    MODEL_TTA_ROTATIONS /* 8 runs: flips and turns */
} model_tta_t;

/* One step of the preparation of grey values; statistics are those of the whole image after the steps before. */
typedef enum {
    MODEL_STEP_PERCENTILE = 0, /* (v - p_a) / (p_b - p_a), then clipped to clip_min..clip_max */
    MODEL_STEP_MEAN_STD,       /* (v - mean) / (standard deviation + a) */
    MODEL_STEP_LINEAR,         /* v * gain[c] + offset[c] */
    MODEL_STEP_CLIP,           /* to a..b */
    MODEL_STEP_BINARIZE        /* v > a */
} model_step_kind_t;

typedef struct {
    model_step_kind_t kind;
    double a, b;
    double clip_min, clip_max, min_range; /* of percentiles; at or below min_range there is no contrast */
    double gain[MODEL_MAX_INPUTS], offset[MODEL_MAX_INPUTS];
    bool together; /* statistics over all channels instead of each channel's own */
} model_step_t;

typedef struct {
    int inputs; /* 1 = grey, 3 = red, green, blue */
    model_step_t steps[MODEL_MAX_STEPS];
    int nsteps;
    model_tta_t tta;

    int channels;                        /* that the network gives */
    int first, second;                   /* channel of the foreground (or label map) and of the distance or boundary */
    int third;                           /* votes: second and third are the way down and right to the centre */
    bool foreground[MODEL_MAX_CHANNELS]; /* classes whose probabilities are summed (semantic) */
    model_activation_t activation;
    int rays, grid; /* star-convex; grid = 1 for all else */
} model_net_t;

/* Reads "output" for the kinds foreground_distance, foreground_boundary, foreground_votes, semantic, star_convex and
 * labels. Returns NULL, or the name of the first wrong field and in *what why. */
const char *model_net_read_output(const char *kind, const cJSON *output, model_net_t *out, const char **what);

/* Reads channels, colour, normalisation and testTimeAugmentation of "input". */
const char *model_net_read_input(const cJSON *input, model_net_t *out, const char **what);

/* "none", "flips" or "rotations". False: none of these. */
bool model_tta_parse(const char *word, model_tta_t *out);
const char *model_tta_name(model_tta_t tta);

/* Can the network's maps be turned back? Grids and ray numbers set limits. NULL: yes; else why not. */
const char *model_tta_refused(const model_net_t *net, bool labels, bool star, model_tta_t tta);

#endif
