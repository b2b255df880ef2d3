/*
 * The last sequence number of each job that went out to the browsers, so that a message that was overtaken on its way
 * is left out instead of showing a step back (proto/events.md). The table has a fixed size; a job that was quiet for
 * long may be forgotten, and then the client's own rule is all there is. Not thread-safe: hub->lock.
 */
#ifndef SG_GATEWAY_WS_ORDER_H
#define SG_GATEWAY_WS_ORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ws_order ws_order_t;

/* 48 bytes for each of `jobs` (rounded up). NULL: no memory. */
ws_order_t *ws_order_create(size_t jobs);
void ws_order_destroy(ws_order_t *o);

typedef struct {
    bool stale; /* everybody here has had this or a newer state: nobody needs it */
    uint64_t
        snapshot; /* 0, or: whoever has had this snapshot, or one begun after its end, has had this or a newer state */
} ws_order_verdict_t;

/* Does a listener know the state of the verdict's event or a newer one? snapshot: the number of the last that it was
 * sent; begun: the number when that was begun, before PostgreSQL was asked. Numbers count beginnings and ends together.
 */
static inline bool ws_order_is_known(ws_order_verdict_t v, uint64_t snapshot, uint64_t begun) {
    return v.snapshot != 0 && (snapshot == v.snapshot || begun > v.snapshot);
}

/* An event of a job is to go out. A job_id that is no UUID is never stale. */
ws_order_verdict_t ws_order_event(ws_order_t *o, const char *job_id, int64_t seq);
/* The snapshot that ends with number `snapshot` (they grow) shows the job at seq. */
void ws_order_snapshot(ws_order_t *o, const char *job_id, int64_t seq, uint64_t snapshot);

#endif
