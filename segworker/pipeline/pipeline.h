/*
 * From an image file to objects: decode, normalise, infer, label, polygons, measure. The daemon and `segworker run`
 * both call this, so a file gives the same result either way; storing is the caller's.
 *
 * An image of any size runs in bounded memory: one that fits into about 0.5 GB of maps and labels is handled whole, a
 * larger one in overlapping windows that are joined (stitch.h), read from disk as they are needed if the format allows.
 * A pixel's maps are the same either way. So are the objects, unless they touch others and are larger than the model's
 * objectSize; grey values are normalised by the statistics of the whole image, exactly. Models that work on a reduced
 * copy of the image get one, whatever its size.
 *
 * A pipeline_t is one model on one device, loaded and warmed up once. pipeline_run may be called from several threads
 * on the same pipeline: the stages run side by side, and so do the tiles of the network, in lanes that all pipelines of
 * a device share (lanes.h). */
#ifndef SG_PIPELINE_PIPELINE_H
#define SG_PIPELINE_PIPELINE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/image/region.h"
#include "segworker/models.h"
#include "segworker/result.h"

typedef struct pipeline pipeline_t;

typedef struct job_options job_options_t; /* options.h */

typedef struct {
    const job_options_t *options; /* NULL: threshold and detect_holes as below, else the model's own values */
    double threshold;             /* foreground probability; NaN = the model's own */
    bool detect_holes;            /* false: holes in objects are filled */
    int page;                     /* 0 = first */
    const image_select_t *plane;  /* NULL: the page, default mix (region.h); else this, and page does not count */
    image_limits_t limits;
    uint32_t max_objects;
    int64_t timeout_ms; /* 0 = none; grows with images of more than 16 million pixels */
    int window_px;      /* 0 = by the memory there is; else every image runs in windows of this size and what is around
                           them */
} pipeline_params_t;

typedef struct {
    void *arg;
    /* stage: decode, normalise, infer, label, polygons or measure; fraction 0..1 over the whole run, never falling.
     * Called on the thread of the run, once per stage and tile; a large image says infer all along. May be NULL. */
    void (*progress)(void *arg, const char *stage, double fraction);
    /* true = stop. Asked between tiles and inside long stages; must be cheap. May be NULL. */
    bool (*cancelled)(void *arg);
    /* Each object as soon as it is complete; result_t then holds none, only their number, and memory stays bounded
     * however many there are. The geometry is freed after the call. May be NULL. */
    err_kind_t (*object)(void *arg, const result_object_t *o, err_t *err);
    /* Each object of an image that is processed in windows, as soon as it is complete; it stays the result's. One call
     * at a time. May be NULL. */
    void (*found)(void *arg, const result_object_t *o);
} pipeline_callbacks_t;

/* Loads the model, warms it up and tests it on a small square, so the first image does not pay for the start. device:
 * auto, cpu, cuda, cuda:N. spec is copied. */
ERR_MUST err_kind_t pipeline_create(const model_spec_t *spec, const char *device, pipeline_t **out, err_t *err);
void pipeline_free(pipeline_t *p); /* NULL is allowed */

/* "cpu" or "cuda:N". */
const char *pipeline_device(const pipeline_t *p);
const model_spec_t *pipeline_spec(const pipeline_t *p);

/* Threads that inference uses on the CPU in all, for pipelines created from now on; 0 = one per core. lanes.h has more
 * to set. */
void pipeline_set_threads(int threads);

/* Measures how the cores are shared out best among tiles (lanes_tune), with this network; nothing may run meanwhile. */
void pipeline_tune(pipeline_t *p);

/* Tiles that are computed side by side, and threads of each. */
void pipeline_lanes(const pipeline_t *p, int *lanes, int *threads_each);

/* Segments one page of a file. An image without contrast or without objects is a success with count 0 and words in
 * out->note. Released with result_free, which is safe after an error too.
 * Errors: those of image.h; ERR_CANCELLED "cancelled"; ERR_TIMEOUT "job_timeout"; ERR_INVALID "too_many_objects",
 * "threshold_out_of_range"; ERR_NO_MEMORY; ERR_INTERNAL "inference_failed". cb may be NULL. */
ERR_MUST err_kind_t pipeline_run(pipeline_t *p, const char *path, const pipeline_params_t *params,
                                 const pipeline_callbacks_t *cb, result_t *out, err_t *err);

#endif
