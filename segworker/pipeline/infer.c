/*
 * Loading and warming up a network, and the TorchScript backend.
 */
#include "segworker/pipeline/infer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "segworker/pipeline/lanes.h"
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

static err_kind_t torch_run_many(void *state, const float *input, int n, int h, int w, float *output, int channels,
                                 err_t *err) {
    const torch_state_t *s = state;
    return torch_model_run_maps(s->model, input, n, s->inputs, h, w, output, channels, (h + s->grid - 1) / s->grid,
                                (w + s->grid - 1) / s->grid, err);
}

static err_kind_t torch_run(void *state, const float *input, int h, int w, float *output, int channels,
                            const cancel_t *stop, err_t *err) {
    (void)stop; /* a call into the library runs to its end */
    return torch_run_many(state, input, 1, h, w, output, channels, err);
}

static const char *torch_device(void *state) {
    return torch_model_device(((const torch_state_t *)state)->model);
}

static void torch_unload(void *state) {
    torch_model_free(((torch_state_t *)state)->model);
    free(state);
}

const infer_backend_t infer_torch = {.name = "torch",
                                     .load = torch_load,
                                     .run = torch_run,
                                     .run_many = torch_run_many,
                                     .set_threads = torch_set_threads,
                                     .device = torch_device,
                                     .unload = torch_unload,
                                     .computes = true,
                                     .concurrent = true};

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
        size_t column = i % n % (size_t)size, row = i % n / (size_t)size;
        double x = (double)column, y = (double)row;
        in[i] = (float)(0.5 + 0.5 * sin(sqrt(x * x + y * y + 1)));
    }
}

/* Does the network give the same with one thread as with all? Sums of floats may be divided otherwise. */
static err_kind_t compare_threads(infer_t *net, const float *in, int size, const float *out, int channels, err_t *err) {
    size_t bytes = (size_t)size * (size_t)size * (size_t)channels * sizeof *out;
    float *again = calloc(1, bytes);
    if (!again) {
        return err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to load the model.", NULL);
    }
    net->backend->set_threads(1);
    err_kind_t k = net->backend->run(net->state, in, size, size, again, channels, NULL, err);
    net->backend->set_threads(lanes_threads());
    net->fixed = k == ERR_OK && memcmp(out, again, bytes) != 0;
    free(again);
    return k;
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
        if (net->backend->set_threads) {
            net->backend->set_threads(lanes_threads());
        }
        k = net->backend->run(net->state, in, size, size, out, channels, NULL, err);
    }
    for (size_t i = 0; k == ERR_OK && i < n * (size_t)channels; i++) {
        if (!isfinite(out[i])) {
            k = err_set(err, ERR_INVALID, "model_output", "The model gives values that are no numbers.", NULL);
        }
    }
    if (k == ERR_OK && net->backend->set_threads && lanes_threads() > 1 &&
        strcmp(net->backend->device(net->state), "cpu") == 0) {
        k = compare_threads(net, in, size, out, channels, err);
    }
    free(in);
    free(out);
    return k;
}

err_kind_t infer_open(const infer_backend_t *backend, const model_spec_t *spec, const char *device, int warm_size,
                      int channels, infer_t *out, err_t *err) {
    *out = (infer_t){0};
    infer_t net = {.backend = backend,
                   .spec = spec,
                   .inputs = spec->net.inputs > 0 ? spec->net.inputs : 1,
                   .grid = spec->net.grid > 0 ? spec->net.grid : 1,
                   .halo = spec->halo,
                   .divisor = spec->divisor,
                   .divisible = spec->output != MODEL_OUTPUT_LABELS,
                   .batch_limit = spec->output == MODEL_OUTPUT_LABELS ? 1 : INFER_MOST_BATCH};
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
        if (net->on_cpu) {
            net->backend->unload(net->on_cpu);
        }
    }
    *net = (infer_t){0};
}
