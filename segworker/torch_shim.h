/*
 * C interface to TorchScript, implemented by torch_shim.cc, the only C++ of the project. No exception leaves it.
 *
 * A torch_model_t holds one loaded module on one device. Calls on the same model may overlap once the first has
 * returned; on an accelerator they must not. A model lives until torch_model_free.
 */
#ifndef SG_TORCH_SHIM_H
#define SG_TORCH_SHIM_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "common/err.h"

typedef struct torch_model torch_model_t;

/* Number of threads that an inference called by this thread uses on the CPU; 0 = one per core. */
void torch_set_threads(int threads);

/* Can the word be a device here? "auto", "cpu", "cuda", "cuda:N". auto gives cuda when there is one, else cpu.
 * name: "cpu" or "cuda:N", at least 16 bytes. ERR_INVALID "device_unknown", ERR_UNAVAILABLE "device_missing". */
ERR_MUST err_kind_t torch_resolve_device(const char *device, char *name, int name_size, err_t *err);

/* Loads a TorchScript file, moves it to the device (resolved as above), sets inference mode, freezes it and, on the
 * CPU, takes the library's fused kernels where the first run shows that they compute the same (within 1e-4).
 * ERR_INVALID "model_unreadable", ERR_NO_MEMORY, and what torch_resolve_device gives. */
ERR_MUST err_kind_t torch_model_load(const char *path, const char *device, torch_model_t **out, err_t *err);
void torch_model_free(torch_model_t *m); /* NULL is allowed */

/* The device's name as resolved; lives as long as the model. */
const char *torch_model_device(const torch_model_t *m);

/* input: float32 [n, in_channels, h, w]; output: float32 [n, out_channels, h, w], both contiguous and the caller's.
 * A model that gives another shape: ERR_INVALID "model_output". Out of memory on the device: ERR_NO_MEMORY.
 * Other failures of the runtime: ERR_INTERNAL "inference_failed". */
ERR_MUST err_kind_t torch_model_run(torch_model_t *m, const float *input, int n, int in_channels, int h, int w,
                                    float *output, int out_channels, err_t *err);

/* The same for any module whose output is maps of out_h x out_w: a tensor [n, out_channels, out_h, out_w] of any type
 * (without the second dimension when out_channels is 1), or a tuple or list of such tensors, whose channels follow each
 * other. */
ERR_MUST err_kind_t torch_model_run_maps(torch_model_t *m, const float *input, int n, int in_channels, int h, int w,
                                         float *output, int out_channels, int out_h, int out_w, err_t *err);

/* Runs zeros of that shape, so that the first real image does not pay for the start. */
ERR_MUST err_kind_t torch_model_warm_up(torch_model_t *m, int in_channels, int h, int w, int out_channels, err_t *err);

/* Version of the library, e.g. "1.13.0". */
const char *torch_version(void);

#ifdef __cplusplus
}
#endif

#endif
