/*
 * The inside of one run of the pipeline, shared by pipeline.c (start, clock, end), windows.c (the image in windows) and
 * objects.c (labels to objects).
 *
 * Levels. The page is what the file holds. The level is what is labelled: the page itself, or the page reduced by a
 * whole factor when a model that works on a small copy anyway meets a page that does not fit into memory. The net plane
 * is what the network sees: the level, or the level resized to the size that the model was made for.
 */
#ifndef SG_PIPELINE_RUN_H
#define SG_PIPELINE_RUN_H

#include <pthread.h>

#include "segworker/pipeline/band.h"
#include "segworker/pipeline/decode.h"
#include "segworker/pipeline/options.h"
#include "segworker/pipeline/pipeline.h"
#include "segworker/pipeline/stitch.h"

struct pipeline {
    model_spec_t spec;
    infer_t net;
    lanes_t *lanes;       /* of the device; NULL: the backend runs on the thread of the run */
    pthread_mutex_t busy; /* for backends that take one call at a time */
};

typedef enum {
    STAGE_DECODE = 0,
    STAGE_NORMALISE,
    STAGE_INFER,
    STAGE_LABEL,
    STAGE_POLYGONS,
    STAGE_MEASURE,
    STAGE_COUNT
} stage_id_t;

typedef struct {
    pipeline_t *p;
    const char *path;
    const pipeline_params_t *params;
    const pipeline_callbacks_t *cb;
    result_t *out;
    double deadline; /* seconds of the monotonic clock; 0 = none */
    bool timed_out;

    int stage; /* stage_id_t; -1 = none yet */
    double stage_began, seconds[STAGE_COUNT], reported;
    bool begun[STAGE_COUNT];

    run_options_t options; /* areas in px of the level */
    input_t level, shrunk; /* shrunk: the net plane when it differs from the level */
    input_t *net_input;    /* one of the two */
    prepare_t prepare;
    bool contrast;
    double net_x, net_y; /* px of the level per px of what is labelled: 1, unless objects are found on the net plane */

    bool many;     /* more than one window */
    int64_t taken; /* bytes of the room, see room.h */
    size_t room;   /* of out->objects */
    struct {
        int32_t x, y;
    } * anchors; /* a pixel of each object that was found, in px of what is labelled */
    size_t nanchors, anchors_room;
} run_t;

/* ---- pipeline.c ---- */
double run_now(void);
void run_enter(run_t *r, stage_id_t stage);
/* done: 0..1 of the stage, or with many windows, of the image. */
void run_report(run_t *r, double done);
bool run_should_stop(void *r);
/* Waits for memory that other images have; the time does not count. ERR_CANCELLED. */
ERR_MUST err_kind_t run_take_room(run_t *r, int64_t bytes, err_t *err);
ERR_MUST err_kind_t run_stopped(const run_t *r, err_t *err);
ERR_MUST err_kind_t run_no_memory(err_t *err);

/* ---- windows.c ---- */
/* Brings the page in: whole, reduced, or ready to be read in parts. */
ERR_MUST err_kind_t windows_open(run_t *r, err_t *err);
/* Everything between the input and the objects. */
ERR_MUST err_kind_t windows_run(run_t *r, err_t *err);

/* ---- objects.c ---- */
/* The objects of a window: labels 1..count. */
ERR_MUST err_kind_t objects_from_window(run_t *r, const stitch_window_t *w, err_t *err);
/* One that is larger than a window; ctx is the run. */
ERR_MUST err_kind_t objects_from_runs(void *ctx, const stitch_object_t *o, err_t *err);

#endif
