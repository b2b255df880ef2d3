/*
 * From grey values in the file's units to the network's input: the steps of model_net_t with their statistics, taken
 * once over the whole image in as many passes as they need, then applied to any part of it.
 *
 * Thread-safe: preparing belongs to the input's thread; a prepare_t is read-only afterwards.
 */
#ifndef SG_PIPELINE_PREPARE_H
#define SG_PIPELINE_PREPARE_H

#include "segworker/models.h"
#include "segworker/pipeline/cancel.h"
#include "segworker/pipeline/input.h"

typedef struct {
    const model_net_t *net;
    int steps;                                      /* that have their statistics */
    double low[MODEL_MAX_STEPS][MODEL_MAX_INPUTS];  /* lower percentile or mean */
    double high[MODEL_MAX_STEPS][MODEL_MAX_INPUTS]; /* upper percentile or standard deviation */
    bool invert;                                    /* afterwards v becomes 1 - v */
} prepare_t;

/* *contrast = false when the image has none: nothing can be found in it. ERR_CANCELLED, ERR_NO_MEMORY, and what reading
 * gives. */
ERR_MUST err_kind_t prepare_image(const model_spec_t *spec, input_t *in, const cancel_t *cancel, prepare_t *out,
                                  bool *contrast, err_t *err);

/* planes: net->inputs planes of n values, in place. */
void prepare_apply(const prepare_t *p, float *planes, size_t n);

#endif
