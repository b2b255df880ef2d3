/*
 * From an image file to objects: decode, normalise, infer, label, polygons, measure. The daemon and `segworker run`
 * both call this, so a file gives the same result either way; storing is the caller's.
 *
 * A pipeline_t is one model on one device, loaded and warmed up once. pipeline_run may be called from several threads
 * on the same pipeline: the stages run side by side, the network runs one tile at a time. A run holds about 25 bytes
 * per pixel besides the decoded file.
 */
#ifndef SG_PIPELINE_PIPELINE_H
#define SG_PIPELINE_PIPELINE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/image/image.h"
#include "segworker/models.h"
#include "segworker/result.h"

typedef struct pipeline pipeline_t;

typedef struct {
    double threshold;  /* foreground probability; NaN = the model's own */
    bool detect_holes; /* false: holes in objects are filled */
    int page;          /* 0 = first */
    image_limits_t limits;
    uint32_t max_objects;
    int64_t timeout_ms; /* 0 = none */
} pipeline_params_t;

typedef struct {
    void *arg;
    /* stage: decode, normalise, infer, label, polygons or measure; fraction 0..1 over the whole run, never falling.
     * Called on the thread of the run, once per stage and tile. May be NULL. */
    void (*progress)(void *arg, const char *stage, double fraction);
    /* true = stop. Asked between tiles and inside long stages; must be cheap. May be NULL. */
    bool (*cancelled)(void *arg);
} pipeline_callbacks_t;

/* Loads the model and runs a small square of zeros, so the first image does not pay for the start. device: auto, cpu,
 * cuda, cuda:N. spec is copied. */
ERR_MUST err_kind_t pipeline_create(const model_spec_t *spec, const char *device, pipeline_t **out, err_t *err);
void pipeline_free(pipeline_t *p); /* NULL is allowed */

/* "cpu" or "cuda:N". */
const char *pipeline_device(const pipeline_t *p);
const model_spec_t *pipeline_spec(const pipeline_t *p);

/* Threads that one inference uses on the CPU, for the whole process; 0 = one per core. */
void pipeline_set_threads(int threads);

/* Segments one page of a file. An image without contrast or without objects is a success with count 0 and words in
 * out->note. Released with result_free, which is safe after an error too.
 * Errors: those of image.h; ERR_CANCELLED "cancelled"; ERR_TIMEOUT "job_timeout"; ERR_INVALID "too_many_objects",
 * "threshold_out_of_range"; ERR_NO_MEMORY; ERR_INTERNAL "inference_failed". cb may be NULL. */
ERR_MUST err_kind_t pipeline_run(pipeline_t *p, const char *path, const pipeline_params_t *params,
                                 const pipeline_callbacks_t *cb, result_t *out, err_t *err);

#endif
