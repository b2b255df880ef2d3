/*
 * How quick a worker's jobs were of late: what decides whether it claims several at once.
 *
 * A job is reckoned to take as long as the longest of the last QUEUE_QUICK_RUNS runs of its model, and as long as
 * "longer than anything" while fewer are known or the last is older than QUEUE_QUICK_MS. So one slow job is enough to
 * go back to claiming one at a time, and QUEUE_QUICK_RUNS quick ones lead away from it again.
 *
 * Not thread-safe: queue_ahead.c, its only user in the daemons, holds a lock.
 */
#ifndef SG_QUEUE_QUICK_H
#define SG_QUEUE_QUICK_H

#include <stdint.h>

enum { QUEUE_QUICK_RUNS = 8, QUEUE_QUICK_MODELS = 64, QUEUE_QUICK_MS = 60000 };

typedef struct {
    char model[64];
    int64_t us[QUEUE_QUICK_RUNS];
    int runs, next;   /* known; where the next one is noted */
    int64_t noted_ms; /* when the last was */
} queue_quick_model_t;

typedef struct {
    queue_quick_model_t models[QUEUE_QUICK_MODELS];
    int count;
} queue_quick_t;

/* A run of the model took so long, from when the slot took the job up to when it was committed. now_ms: monotonic. */
void queue_quick_note(queue_quick_t *k, const char *model, int64_t us, int64_t now_ms);
/* What was measured does not hold any more: a run failed, or the model is another. */
void queue_quick_forget(queue_quick_t *k, const char *model);
/* Microseconds to reckon with for one job, at least 1; `unknown` when too little is known. */
int64_t queue_quick_cost_us(const queue_quick_t *k, const char *model, int64_t now_ms, int64_t unknown);

#endif
