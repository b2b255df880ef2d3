/* See decode.h. */
#include "segworker/pipeline/decode.h"

#include <stdlib.h>

#include "segworker/pipeline/label.h"
#include "segworker/pipeline/star.h"

void decode_free(decoded_t *d) {
    free(d->labels);
    free(d->confidence);
    *d = (decoded_t){0};
}

static label_params_t label_params(const run_options_t *o, bool part, uint32_t max_objects) {
    return (label_params_t){.threshold = (float)o->threshold,
                            .seed_threshold = (float)o->seed_threshold,
                            .dist_sigma = (float)o->dist_sigma,
                            .small_seed_threshold = (float)o->small_seed_threshold,
                            .small_area = o->small_area,
                            .seed_min_area = o->seed_min_area,
                            .min_area = o->min_area,
                            .max_hole_area = o->max_hole_area,
                            .detect_holes = o->detect_holes,
                            .drop_border = o->drop_border,
                            .part = part,
                            .max_objects = max_objects};
}

static err_kind_t decode_star(const model_spec_t *spec, const run_options_t *o, float *const *layer, int w, int h,
                              bool part, uint32_t max_objects, const cancel_t *cancel, decoded_t *out, err_t *err) {
    const star_params_t p = {.rays = spec->net.rays,
                             .grid = spec->net.grid,
                             .threshold = (float)o->threshold,
                             .nms_threshold = (float)o->nms_threshold,
                             .min_area = part ? 1 : o->min_area,
                             .max_objects = max_objects};
    return star_decode(layer[0], layer[1], w, h, &p, cancel, &out->labels, &out->count, &out->confidence, err);
}

/* The mean of the first layer over each object; label images have none and count as sure. */
static err_kind_t rate(const float *plane, int w, int h, decoded_t *out, err_t *err) {
    out->confidence = malloc(((size_t)out->count + 1) * sizeof *out->confidence);
    if (!out->confidence) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.", "decode");
    }
    if (plane) {
        return label_mean_of(out->labels, w, h, out->count, plane, out->confidence, err);
    }
    for (uint32_t k = 0; k < out->count; k++) {
        out->confidence[k] = 1;
    }
    return ERR_OK;
}

err_kind_t decode_window(const model_spec_t *spec, const run_options_t *o, float *const *layer, int w, int h, bool part,
                         uint32_t max_objects, const cancel_t *cancel, decoded_t *out, err_t *err) {
    label_params_t lp = label_params(o, part, max_objects);
    err_kind_t k = ERR_OK;
    *out = (decoded_t){0};
    switch (spec->output) {
    case MODEL_OUTPUT_STAR_CONVEX:
        return decode_star(spec, o, layer, w, h, part, max_objects, cancel, out, err);
    case MODEL_OUTPUT_LABELS:
        k = label_from_ids(layer[0], w, h, &lp, cancel, &out->labels, &out->count, err);
        break;
    case MODEL_OUTPUT_FOREGROUND_VOTES:
        k = label_from_votes(layer[0], layer[1], layer[2], w, h, &lp, cancel, &out->labels, &out->count, err);
        break;
    case MODEL_OUTPUT_SEMANTIC:
        k = label_from_foreground(layer[0], w, h, &lp, cancel, &out->labels, &out->count, err);
        break;
    default:
        k = label_from_maps(layer[0], layer[1], w, h, &lp, cancel, &out->labels, &out->count, err);
    }
    if (k == ERR_OK) {
        k = rate(spec->output == MODEL_OUTPUT_LABELS ? NULL : layer[0], w, h, out, err);
    }
    if (k != ERR_OK) {
        decode_free(out);
    }
    return k;
}
