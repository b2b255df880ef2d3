/*
 * The network behind a small interface: floats in, floats out, one backend per runtime. A backend for another runtime
 * is one more table like infer_torch; nothing else of the pipeline knows which one runs.
 */
#ifndef SG_PIPELINE_INFER_H
#define SG_PIPELINE_INFER_H

#include "common/err.h"

typedef struct {
    const char *name;
    /* Loads the file on the device; *state is the backend's own. */
    err_kind_t (*load)(const char *path, const char *device, void **state, err_t *err);
    /* input float32 [1, 1, h, w] -> output float32 [1, channels, h, w], the caller's buffers. Not called concurrently.
     */
    err_kind_t (*run)(void *state, const float *input, int h, int w, float *output, int channels, err_t *err);
    const char *(*device)(void *state);
    void (*unload)(void *state);
} infer_backend_t;

extern const infer_backend_t infer_torch;

/* A loaded network. Zeroed by infer_close. */
typedef struct {
    const infer_backend_t *backend;
    void *state;
} infer_t;

/* Loads path and runs a square of warm_size px once. */
ERR_MUST err_kind_t infer_open(const infer_backend_t *backend, const char *path, const char *device, int warm_size,
                               int channels, infer_t *out, err_t *err);
void infer_close(infer_t *net);

#endif
