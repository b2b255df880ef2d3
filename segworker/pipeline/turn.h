/*
 * Test-time augmentation: a tile is run flipped and turned, the results are turned back and averaged. Rays of
 * star-convex maps change places with the turn.
 */
#ifndef SG_PIPELINE_TURN_H
#define SG_PIPELINE_TURN_H

#include "segworker/pipeline/netout.h"
#include "segworker/pipeline/star.h"

typedef struct {
    const model_spec_t *spec;
    const netout_t *out; /* grid 1 */
    /* in: inputs planes of w*h -> raw: channels planes */
    err_kind_t (*run)(void *ctx, const float *in, int w, int h, float *raw, err_t *err);
    void *ctx;
} turn_job_t;

/* in: the tile, raw: scratch for the network's output, layers: the mean. ERR_NO_MEMORY and what run gives. */
ERR_MUST err_kind_t turn_run(const turn_job_t *job, model_tta_t tta, const float *in, int w, int h, float *raw,
                             float *const *layers, err_t *err);

#endif
