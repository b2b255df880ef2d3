/*
 * From the layers of a window (netout.h) to labels and confidences, whatever the kind of model.
 */
#ifndef SG_PIPELINE_DECODE_H
#define SG_PIPELINE_DECODE_H

#include "segworker/pipeline/netout.h"
#include "segworker/pipeline/options.h"

typedef struct {
    int32_t *labels; /* w*h; 0 = background, 1..count in the order of their first pixel; owned */
    uint32_t count;
    float *confidence; /* count entries; owned */
} decoded_t;

/* part: the window is part of an image, small objects and those at its edges are kept. Errors: those of label.h and
 * star.h; then nothing is owned. */
ERR_MUST err_kind_t decode_window(const model_spec_t *spec, const run_options_t *o, float *const *layer, int w, int h,
                                  bool part, uint32_t max_objects, const cancel_t *cancel, decoded_t *out, err_t *err);
void decode_free(decoded_t *d);

#endif
