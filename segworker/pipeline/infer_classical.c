/*
 * The backend of models without a network (models.h, output.kind "classical"): the maps come from a local threshold
 * (segworker/classical). Whether objects are bright or dark is asked of the whole plane once, before its tiles.
 */
#include <stdlib.h>

#include "segworker/pipeline/infer.h"

typedef struct {
    classical_params_t params;
} classical_state_t;

static err_kind_t classical_load(const model_spec_t *spec, const char *device, void **state, err_t *err) {
    (void)device;
    classical_state_t *s = malloc(sizeof *s);
    if (!s) {
        return err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to load the model.", NULL);
    }
    s->params = spec->classical;
    *state = s;
    return ERR_OK;
}

/* The plane has dark objects already: see prepare.c. */
static err_kind_t classical_tile(void *state, const float *input, int h, int w, float *output, int channels,
                                 const cancel_t *stop, err_t *err) {
    const classical_state_t *s = state;
    if (channels != 2) {
        return err_set(err, ERR_INTERNAL, "inference_failed", "The model failed on this image.", "%d maps", channels);
    }
    return classical_run(input, w, h, false, &s->params, stop, output, output + (size_t)w * (size_t)h, err);
}

static const char *classical_device(void *state) {
    (void)state;
    return "cpu";
}

const infer_backend_t infer_classical = {.name = "classical",
                                         .load = classical_load,
                                         .run = classical_tile,
                                         .device = classical_device,
                                         .unload = free,
                                         .computes = true,
                                         .concurrent = true,
                                         .any_size = true};
