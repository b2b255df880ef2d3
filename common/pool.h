/*
 * A bounded pool of things that cost time to make (connections). The pool counts slots and keeps idle items; making and
 * checking an item is the caller's work, outside of every lock.
 *
 * A slot moves: free -> taken (pool_take) -> idle (pool_give) -> taken … -> free (pool_drop, or idle for too long).
 * At most `max` slots are not free. Who finds none waits in a first-come-first-served line: a slot that comes back
 * goes to the head of the line and never past it. The most recently used idle item is lent first, so that the
 * others grow old and are closed when traffic falls.
 *
 * Thread-safe. One thread of the pool closes items that were idle for idle_ms.
 */
#ifndef SG_POOL_H
#define SG_POOL_H

#include <stdint.h>

typedef struct pool pool_t;

typedef enum {
    POOL_ITEM,    /* *item is an idle item, now the caller's; give it back or close it and call pool_drop */
    POOL_SLOT,    /* the caller may make an item: then pool_give it, or pool_drop when that fails */
    POOL_TIMEOUT, /* nothing came free in time */
    POOL_CLOSED   /* the pool is being destroyed */
} pool_take_t;

typedef struct {
    int max, total, idle, in_use, waiting;
    uint64_t acquired_total, timeouts_total, idle_closed_total;
} pool_stats_t;

typedef void (*pool_close_fn)(void *item);

/* max >= 1; idle_ms > 0. NULL: no memory or no thread. close is called without locks held. */
pool_t *pool_create(int max, int64_t idle_ms, pool_close_fn close);

/* Ends waiting calls with POOL_CLOSED, waits up to grace_ms for lent items, closes idle ones and frees the pool. Items
 * that are still lent then keep the pool alive (and leak it): that is a bug of the borrower. Returns how many those
 * are. */
int pool_destroy(pool_t *p, int64_t grace_ms);

pool_take_t pool_take(pool_t *p, int64_t wait_ms, void **item);
void pool_give(pool_t *p, void *item);
void pool_drop(pool_t *p);

void pool_stats(pool_t *p, pool_stats_t *out);

#endif
