/*
 * What is finished of a large image, shown while the rest is still being processed: outlines go to the table `previews`
 * in parts (proto/jobs.md). A preview is a courtesy: it is bounded in size and number of parts, an error ends it and
 * nothing else, and it can never be taken for the result.
 *
 * A preview belongs to one run; its functions are called by one thread at a time.
 */
#ifndef SG_SEGWORKER_WORKER_PREVIEW_H
#define SG_SEGWORKER_WORKER_PREVIEW_H

#include "common/buf.h"
#include "common/pg.h"
#include "common/queue.h"
#include "segworker/result.h"

enum {
    PREVIEW_PART_BYTES = 1 << 20, /* of one part */
    PREVIEW_BYTES = 16 << 20,     /* of all parts of a run */
    PREVIEW_PARTS = 64,
    PREVIEW_GAP_MS = 1000 /* to the first part and between parts; grows by an eighth of it with each */
};

typedef struct {
    pg_pool_t *pg;
    const queue_claim_t *claim; /* not owned */
    buf_t objects;              /* that wait for the next part */
    uint32_t count;
    int parts;
    size_t bytes; /* sent */
    int64_t next_ms;
    bool over; /* nothing more is taken */
} preview_t;

void preview_begin(preview_t *p, pg_pool_t *pg, const queue_claim_t *claim);
/* An object of the result to come. It waits for the next tick, unless the part is full: objects come in bursts. */
void preview_add(preview_t *p, const result_object_t *o);
/* Sends what waits, when it is time. */
void preview_tick(preview_t *p);
/* The run has ended, whatever way: its parts are deleted. Safe on a zeroed preview and twice. */
void preview_end(preview_t *p);

#endif
