/*
 * The network behind a small interface: floats in, floats out, one backend per runtime. A backend for another runtime
 * is one more table like infer_torch; nothing else of the pipeline knows which one runs.
 */
#ifndef SG_PIPELINE_INFER_H
#define SG_PIPELINE_INFER_H

#include <stdatomic.h>

#include "common/err.h"
#include "segworker/models.h"
#include "segworker/pipeline/cancel.h"

enum { INFER_MOST_BATCH = 64 };

typedef struct {
    const char *name;
    /* Loads the model on the device; *state is the backend's own. */
    err_kind_t (*load)(const model_spec_t *spec, const char *device, void **state, err_t *err);
    /* input float32 [1, inputs, h, w] -> output float32 [1, channels, h/grid, w/grid], the caller's buffers; inputs and
     * grid are those of the model (model_net.h), 1 for models without a network.
     * stop: a backend that can be interrupted asks it now and then and ends with ERR_CANCELLED "cancelled"; NULL while
     * warming up. */
    err_kind_t (*run)(void *state, const float *input, int h, int w, float *output, int channels, const cancel_t *stop,
                      err_t *err);
    /* The same for n inputs one after the other; NULL: the backend takes one at a time. */
    err_kind_t (*run_many)(void *state, const float *input, int n, int h, int w, float *output, int channels,
                           err_t *err);
    /* Threads that run and run_many use on the CPU when called by this thread; NULL: there is no choice. */
    void (*set_threads)(int threads);
    const char *(*device)(void *state);
    void (*unload)(void *state);
    bool computes;   /* it runs in the device's lanes (lanes.h), several calls at a time on the CPU */
    bool concurrent; /* run may be called by several threads at a time; if neither holds, one call at a time */
    bool any_size;   /* a new size of tile costs nothing */
} infer_backend_t;

extern const infer_backend_t infer_torch;
extern const infer_backend_t infer_test;      /* infer_test.c: no network, see models.h */
extern const infer_backend_t infer_classical; /* infer_classical.c: a local threshold */

/* The backend that a model's output.kind asks for. */
const infer_backend_t *infer_backend_for(const model_spec_t *spec);

/* A loaded network. Zeroed by infer_close. */
typedef struct {
    const infer_backend_t *backend;
    void *state;
    const model_spec_t *spec; /* as given to infer_open: it has to stay */
    void *on_cpu;             /* state of the same network on the CPU, once it was needed (ladder.h) */
    int inputs, grid, halo, divisor;
    bool divisible; /* a tile's output is that of its parts: maps, not labels */
    bool fixed;     /* its results depend on the number of threads */
    atomic_int batch_limit;
} infer_t;

/* Loads the model and runs a square of warm_size px once: ERR_INVALID "model_output" when it does not give what its
 * model.json says, or gives NaN or infinities. */
ERR_MUST err_kind_t infer_open(const infer_backend_t *backend, const model_spec_t *spec, const char *device,
                               int warm_size, int channels, infer_t *out, err_t *err);
void infer_close(infer_t *net);

#endif
