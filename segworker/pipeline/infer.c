/*
 * Loading and warming up a network, and the TorchScript backend.
 */
#include "segworker/pipeline/infer.h"

#include <math.h>
#include <stdlib.h>

#include "segworker/torch_shim.h"

typedef struct {
    torch_model_t *model;
    int inputs, grid;
} torch_state_t;

static err_kind_t torch_load(const model_spec_t *spec, const char *device, void **state, err_t *err) {
    torch_state_t *s = calloc(1, sizeof *s);
    if (!s) {
        return err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to load the model.", NULL);
    }
    s->inputs = spec->net.inputs;
    s->grid = spec->net.grid;
    err_kind_t k = torch_model_load(spec->path, device, &s->model, err);
    if (k != ERR_OK) {
        free(s);
        s = NULL;
    }
    *state = s;
    return k;
}

static err_kind_t torch_run(void *state, const float *input, int h, int w, float *output, int channels,
                            const cancel_t *stop, err_t *err) {
    const torch_state_t *s = state;
    (void)stop; /* a call into the library runs to its end */
    return torch_model_run_maps(s->model, input, 1, s->inputs, h, w, output, channels, (h + s->grid - 1) / s->grid,
                                (w + s->grid - 1) / s->grid, err);
}

static const char *torch_device(void *state) {
    return torch_model_device(((const torch_state_t *)state)->model);
}

static void torch_unload(void *state) {
    torch_model_free(((torch_state_t *)state)->model);
    free(state);
}

const infer_backend_t infer_torch = {
    .name = "torch", .load = torch_load, .run = torch_run, .device = torch_device, .unload = torch_unload};

const infer_backend_t *infer_backend_for(const model_spec_t *spec) {
    switch (spec->output) {
    case MODEL_OUTPUT_TEST:
        return &infer_test;
    case MODEL_OUTPUT_CLASSICAL:
        return &infer_classical;
    default:
        return &infer_torch;
    }
}

/* Something that is neither blank nor like any image: rings of rising width. */
static void draw_rings(float *in, int size, int planes) {
    for (size_t i = 0, n = (size_t)size * (size_t)size; i < n * (size_t)planes; i++) {
        double x = (double)(i % n % (size_t)size), y = (double)(i % n / (size_t)size);
        in[i] = (float)(0.5 + 0.5 * sin(sqrt(x * x + y * y + 1)));
    }
}

/* The first run, which also shows whether the model can do what its model.json says. */
static err_kind_t warm_up(infer_t *net, int size, int channels, err_t *err) {
    size_t n = (size_t)size * (size_t)size;
    float *in = malloc(n * MODEL_MAX_INPUTS * sizeof *in), *out = calloc(n * (size_t)channels, sizeof *out);
    err_kind_t k = ERR_OK;
    if (!in || !out) {
        k = err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to load the model.", NULL);
    } else {
        draw_rings(in, size, MODEL_MAX_INPUTS);
        k = net->backend->run(net->state, in, size, size, out, channels, NULL, err);
    }
    for (size_t i = 0; k == ERR_OK && i < n * (size_t)channels; i++) {
        if (!isfinite(out[i])) {
            k = err_set(err, ERR_INVALID, "model_output", "The model gives values that are no numbers.", NULL);
        }
    }
    free(in);
    free(out);
    return k;
}

err_kind_t infer_open(const infer_backend_t *backend, const model_spec_t *spec, const char *device, int warm_size,
                      int channels, infer_t *out, err_t *err) {
    *out = (infer_t){0};
    infer_t net = {.backend = backend};
    err_kind_t k = backend->load(spec, device, &net.state, err);
    if (k != ERR_OK) {
        return k;
    }
    k = warm_up(&net, warm_size, channels, err);
    if (k != ERR_OK) {
        infer_close(&net);
        return k;
    }
    *out = net;
    return ERR_OK;
}

void infer_close(infer_t *net) {
    if (net->backend) {
        net->backend->unload(net->state);
    }
    *net = (infer_t){0};
}
