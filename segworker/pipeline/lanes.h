/*
 * The threads that run networks. A device has one set of them for all pipelines: runs hand their tiles in and go on
 * with decoding, labelling or storing while the network works, so the device has work as long as any job has.
 *
 * On the CPU there are as many lanes as pay (lanes_tune), and the cores are shared out among them: with several tiles
 * at hand each runs on its own share, side by side; a tile that is alone gets all. A tile's result does not depend on
 * that: a network for which it would (infer_t.fixed) always gets one thread, as does what knows no threads. On an
 * accelerator there is one lane, which puts tiles of one shape together, also those of different images, up to the
 * batch; it waits for more no longer than batch_wait_ms.
 *
 * When memory runs out: see ladder.h.
 *
 * Thread-safe. First in, first out.
 */
#ifndef SG_PIPELINE_LANES_H
#define SG_PIPELINE_LANES_H

#include "common/err.h"
#include "segworker/pipeline/cancel.h"
#include "segworker/pipeline/infer.h"

typedef struct lanes lanes_t;

enum { LANES_MOST = 64, LANES_MOST_BATCH = INFER_MOST_BATCH };

/* How devices opened from now on are used; 0 = as it comes: threads = cores, lanes = threads (one for an accelerator),
 * batch = 1 on the CPU, where a batch gains nothing, and 8 on an accelerator. */
typedef struct {
    int threads; /* cores that inference uses in all */
    int lanes;
    int batch;
    int batch_wait_ms;
} lanes_setup_t;
void lanes_set_up(const lanes_setup_t *setup);

/* The threads that inference uses on the CPU in all. */
int lanes_threads(void);

/* The lanes of a device ("cpu", "cuda:N"), started when nobody had them yet; lanes_close ends them after the last.
 * ERR_NO_MEMORY. */
ERR_MUST err_kind_t lanes_open(const char *device, lanes_t **out, err_t *err);
void lanes_close(lanes_t *l); /* NULL is allowed */

/* Tiles that one run should have handed in at a time, so that no lane waits for it. */
int lanes_depth(const lanes_t *l);

/* One tile. Filled in by the caller, who keeps it and its buffers until lanes_wait or lanes_drop. */
typedef struct lane_task {
    infer_t *net;
    const float *input; /* [inputs, h, w] */
    float *output;      /* [channels, h/grid, w/grid] */
    int h, w, channels;
    int more; /* tiles that the same run will hand in next: the tile is not alone */
    /* of lanes.c */
    struct lane_task *next;
    int state;
    int64_t since_ms;
    err_kind_t kind;
    err_t err;
} lane_task_t;

void lanes_submit(lanes_t *l, lane_task_t *t);

/* Waits for the end of a task. When stop says so, a task that has not begun is taken back; one that runs is waited for,
 * then ERR_CANCELLED "cancelled" as well. Else what the network gives. */
ERR_MUST err_kind_t lanes_wait(lanes_t *l, lane_task_t *t, const cancel_t *stop, err_t *err);

/* Takes a task back, or waits for its end. One that was never handed in (zeroed) or has ended is left alone. */
void lanes_drop(lanes_t *l, lane_task_t *t);

/* Measures how many lanes give most tiles per second with this network (a square of size px), and uses as many. Only on
 * the CPU, and only if the set-up leaves it open. Takes as long as ten tiles or less. Nothing else may run meanwhile.
 */
void lanes_tune(lanes_t *l, infer_t *net, int inputs, int size, int channels);

/* Lanes, and threads of each, as they are. */
void lanes_shape(lanes_t *l, int *lanes, int *threads_each);

#endif
