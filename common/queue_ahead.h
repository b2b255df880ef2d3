/*
 * Claiming ahead: what the slots of a worker hold besides the job that each of them runs.
 *
 * A slot runs one job at a time. When the worker's last runs of a model were quick (queue_quick.h), a slot claims
 * several of its jobs in one step, at most QUEUE_AHEAD_MOST and not more than work_ms of work by that measure, runs
 * them one after the other, and ends them in Redis together with its next claim. A job of a model that is not known to
 * be quick is the last of what is claimed at once, or the only one. Whatever the measure said, after 2.5 times work_ms
 * (and up to 10 ms more) what has not begun is handed back, as if it had never been claimed, and what has ended is told
 * of; a thread of this module's sees to it while the slots work. All is handed back, too, when a job ends in any other
 * way than by its commit, so a job begins only when the one before it has ended in PostgreSQL: recovery relies on it
 * (queue_finish.c).
 *
 * One queue_ahead_t for a worker, thread-safe; the functions with a slot's number are called by one thread for each
 * slot.
 */
#ifndef SG_QUEUE_AHEAD_H
#define SG_QUEUE_AHEAD_H

#include "queue.h"

enum { QUEUE_AHEAD_MOST = 16 };

typedef struct queue_ahead queue_ahead_t;

typedef struct {
    queue_t *queue;
    const char *worker_id; /* must live as long as the queue_ahead_t */
    int slots;             /* 1.. */
    int64_t work_ms;       /* so much work, as measured, is claimed at once; 0: one job at a time, always */
    bool redis_only;       /* without rows, for measurements: see queue_turn_t */
} queue_ahead_setup_t;

ERR_MUST err_kind_t queue_ahead_create(const queue_ahead_setup_t *setup, queue_ahead_t **out, err_t *err);
/* Slots must have ended, and handed back what they hold. NULL is fine. */
void queue_ahead_destroy(queue_ahead_t *a);

/* The slot's next job: one that it holds, or claimed, for which it waits up to wait_ms. Ends what the slot has
 * committed. *lost: the heartbeat learned that this claim is not ours any more. Errors as those of queue_turn. */
ERR_MUST err_kind_t queue_ahead_next(queue_ahead_t *a, int slot, const char *const *models, int nmodels, int wait_ms,
                                     queue_claim_t *out, bool *got, bool *lost, err_t *err);
/* The job that the slot got last was committed. Ends it in Redis, soon. */
void queue_ahead_done(queue_ahead_t *a, int slot, const queue_claim_t *c, int object_count);
/* It ended in another way (the caller told the queue): the slot hands back what it holds. failed: the model's measure
 * is forgotten. */
void queue_ahead_broke(queue_ahead_t *a, int slot, const char *model, bool failed);
/* The slot claims nothing more: ends what it has committed, hands back what it holds. */
void queue_ahead_leave(queue_ahead_t *a, int slot);
/* The worker stops: hands back what all slots hold, at once and from now on, without waiting for the jobs that run. */
void queue_ahead_stop(queue_ahead_t *a);

/* A claim that has not begun, for the heartbeat. */
typedef struct {
    char id[JOB_ID_LEN], token[65];
} queue_ahead_claim_t;
/* Copies up to room of them; returns how many. */
int queue_ahead_claims(queue_ahead_t *a, queue_ahead_claim_t *out, int room);
/* The claim with this token, if it has not begun, is another's now. */
void queue_ahead_lost(queue_ahead_t *a, const char *token);

#endif
