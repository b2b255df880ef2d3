/*
 * The job queue: proto/jobs.md. Gateway and worker share this client. PostgreSQL's row is the truth, Redis the
 * fast path; every function below keeps the invariants I1-I3, I8 and I10 of the contract.
 *
 * Thread-safe: it takes connections from the two pools for the time of a call.
 */
#ifndef SG_QUEUE_H
#define SG_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "err.h"
#include "job_choice.h"
#include "pg.h"
#include "rds.h"

typedef struct queue queue_t;

typedef enum { JOB_QUEUED, JOB_ACTIVE, JOB_DELAYED, JOB_COMPLETED, JOB_FAILED, JOB_CANCELLED } job_state_t;
const char *job_state_name(job_state_t s);
bool job_state_parse(const char *word, job_state_t *out);

#define JOB_ID_LEN 37

typedef struct {
    char id[JOB_ID_LEN], project_id[JOB_ID_LEN], image_id[JOB_ID_LEN], user_id[JOB_ID_LEN];
    char model[64];
    double threshold;         /* NaN: the model's own */
    bool detect_holes;
    job_choice_t choice;
    bool choice_unknown;      /* the row's options are none that this program knows: the job must not be run */
    int priority, attempt, max_attempts;
    char token[65];           /* fences this claim; its digits: proto/jobs.md */
    char storage_key[256];    /* of the image */
    int64_t seq;              /* last event number written */
    double waited_s;          /* from when it could have run until this claim */
} queue_claim_t;

ERR_MUST err_kind_t queue_create(const config_t *cfg, pg_pool_t *pg, rds_pool_t *rds, queue_t **out, err_t *err);
void queue_destroy(queue_t *q);

/* ---- gateway side ---- */

/* Call after the row is committed with state 'queued'. Redis away: returns ERR_OK, the sweeper enqueues it later (I1).
 * *position: jobs that will run before it, 0-based; -1 when unknown. */
ERR_MUST err_kind_t queue_enqueue(queue_t *q, const char *job_id, const char *model, int priority, int *position, err_t *err);
/* The same for a row that was just inserted with enqueued_at = now(): nothing has to be read or marked. Never fails: what
 * Redis does not take becomes part of the outbox. */
typedef struct {
    const char *id, *project_id, *image_id, *user_id, *model;
    int priority;
} queue_inserted_t;
void queue_enqueue_inserted(queue_t *q, const queue_inserted_t *job, int *position);
/* The same for up to QUEUE_GROUP_MAX jobs of any users in one round trip; positions has room for n. False: Redis did not
 * take them, they became part of the outbox. Their events are published by the second call, so that nobody waits for it. */
enum { QUEUE_GROUP_MAX = 64 };
bool queue_enqueue_group(queue_t *q, const queue_inserted_t *jobs, int n, int *positions);
void queue_announce_group(queue_t *q, const queue_inserted_t *jobs, int n, const int *positions);
/* Enqueues every job of a committed batch (rows with enqueued_at IS NULL), in pages. */
ERR_MUST err_kind_t queue_enqueue_batch(queue_t *q, const char *batch_id, int *count, err_t *err);
/* Cancels in any state (I8). ERR_CONFLICT "job_finished" when it already ended. *state is the state after the call. */
ERR_MUST err_kind_t queue_cancel(queue_t *q, const char *job_id, job_state_t *state, err_t *err);
/* failed | cancelled -> queued. ERR_CONFLICT "job_not_retryable" otherwise. */
ERR_MUST err_kind_t queue_retry(queue_t *q, const char *job_id, err_t *err);
/* Every unfinished job of a project or image: waiting ones are cancelled, running ones asked to stop (within one tile).
 * Cost: one statement and one script call for 500 jobs. *cancelled counts both; it is valid after an error too. */
typedef enum { QUEUE_OF_PROJECT, QUEUE_OF_IMAGE } queue_scope_t;
ERR_MUST err_kind_t queue_cancel_many(queue_t *q, queue_scope_t scope, const char *id, int *cancelled, err_t *err);
/* Queues again each image of the project whose latest job failed. *retried is valid after an error too. */
ERR_MUST err_kind_t queue_retry_failed(queue_t *q, const char *project_id, int *retried, err_t *err);
/* Position of a waiting job (0 = next), -1 unknown / not waiting. */
int queue_position(queue_t *q, const char *job_id, const char *model, int priority);
/* Seconds until a job is done, from measured times; NaN when nothing was measured or no worker runs the model now.
 * ahead: jobs that run before it (queue_position). */
double queue_eta_waiting(queue_t *q, const char *model, double ahead);
double queue_eta_active(queue_t *q, const char *model, double progress);
/* Live progress of an active job from Redis; false when none is known. stage has room for 24 bytes. */
bool queue_progress(queue_t *q, const char *job_id, double *progress, char *stage, int64_t *seq);

/* Recovery and housekeeping in one pass: outbox, delayed jobs that are due, expired leases, rows that Redis lost,
 * retention. Any number of processes may run it at once. Called every second by each daemon's sweeper thread. */
ERR_MUST err_kind_t queue_sweep(queue_t *q, err_t *err);

/* Pauses or resumes a model (an operator's wish, kept in PostgreSQL): nobody claims a job of a paused model; its jobs wait,
 * and new ones are accepted. ERR_NOT_FOUND. Redis away: takes effect with the next sweep. */
ERR_MUST err_kind_t queue_pause_model(queue_t *q, const char *model, bool paused, err_t *err);

/* ---- worker side ---- */

/* Waits up to wait_ms for a job of one of the models. ERR_OK with *got == false: nothing came. */
ERR_MUST err_kind_t queue_claim(queue_t *q, const char *worker_id, const char *const *models, int nmodels,
                                int wait_ms, queue_claim_t *out, bool *got, err_t *err);
/* The same for up to `most` jobs at once (1..QUEUE_CLAIM_MAX), as if they had been claimed one after the other: one script
 * call and one statement. Waits for the first only. out has room for `most`; *got tells how many came. Each is a claim of
 * its own: renewed, completed or failed by itself. */
enum { QUEUE_CLAIM_MAX = 64 };
ERR_MUST err_kind_t queue_claim_many(queue_t *q, const char *worker_id, const char *const *models, int nmodels, int most,
                                     int wait_ms, queue_claim_t *out, int *got, err_t *err);
/* Ends claims that were committed, as queue_complete_done_many does, and claims the next, as queue_claim_many does: the end
 * of a job and the next one are one round trip. After an error the ends may be done or not: queue_complete_done_many may be
 * called again. Threads of one worker (slots of a daemon) that call at the same time are served together. */
ERR_MUST err_kind_t queue_turn(queue_t *q, const char *worker_id, const queue_claim_t *done, const int *object_counts,
                               int ndone, const char *const *models, int nmodels, int most, int wait_ms,
                               queue_claim_t *out, int *got, err_t *err);
/* Renews all leases of the worker in one call and refreshes its entry in sg:workers (info_json). lost[i] is set for ids
 * whose lease is no longer ours: stop that job. */
ERR_MUST err_kind_t queue_renew(queue_t *q, const char *worker_id, const char *info_json,
                                const char *const *job_ids, int n, bool *lost, err_t *err);
/* The same for claims that are named by their tokens: a worker that lost a job and claimed it again may hold two. */
ERR_MUST err_kind_t queue_renew_claims(queue_t *q, const char *worker_id, const char *info_json,
                                       const char *const *job_ids, const char *const *tokens, int n, bool *lost,
                                       err_t *err);
/* Publishes progress (0..1), rate-limited inside to 5 per second and job; a stage change is always sent. */
void queue_publish_progress(queue_t *q, queue_claim_t *c, const char *stage, double progress);
/* True when the job should stop: cancelled by a person. Cheap: reads a flag fed by the cancel subscription. */
bool queue_is_cancelled(queue_t *q, const char *job_id);
bool queue_claim_is_cancelled(queue_t *q, const queue_claim_t *c); /* this claim of the job */

/* Tells the model's circuit breaker how the run of a job ended, before the claim is ended; see breaker_report. */
void queue_report_run(queue_t *q, const queue_claim_t *c, bool ok);

/* Notes how long a job took from its claim to its commit, for the estimates. */
void queue_note_seconds(queue_t *q, const char *model, double seconds);

/* Completion is two steps so that polygons and state commit together: call this inside the caller's transaction; it updates
 * the row under the fence. ERR_CONFLICT "claim_lost": roll back, the result is not ours to write (I2). */
ERR_MUST err_kind_t queue_complete_in_tx(queue_t *q, pg_conn_t *conn, queue_claim_t *c, int object_count,
                                         const char *timings_json, err_t *err);
/* After the commit: frees the Redis side and publishes the event. */
void queue_complete_done(queue_t *q, const char *worker_id, const queue_claim_t *c, int object_count);
/* The same for claims that were committed together, in one script call and one pipeline of events. n <= QUEUE_CLAIM_MAX. */
void queue_complete_done_many(queue_t *q, const char *worker_id, const queue_claim_t *c, const int *object_counts, int n);
/* The job failed with err: retryable kinds go to delayed with full-jitter back-off while attempts are left, else failed.
 * ERR_CANCELLED -> cancelled. */
ERR_MUST err_kind_t queue_fail(queue_t *q, const char *worker_id, queue_claim_t *c, const err_t *why, err_t *err);
/* The same for several claims of a worker, each with its reason: one statement, one script call. results: one for each,
 * ERR_OK or ERR_CONFLICT (the claim was lost). n <= QUEUE_CLAIM_MAX. An error: nothing was changed. */
ERR_MUST err_kind_t queue_fail_many(queue_t *q, const char *worker_id, queue_claim_t *const *c, const err_t *const *why,
                                    int n, err_kind_t *results, err_t *err);
ERR_MUST err_kind_t queue_hand_back_many(queue_t *q, const char *worker_id, queue_claim_t *const *c, int n,
                                         err_kind_t *results, err_t *err);
/* Hands an unfinished job back (graceful stop): queued again, the attempt is not counted. */
ERR_MUST err_kind_t queue_hand_back(queue_t *q, const char *worker_id, queue_claim_t *c, err_t *err);
/* Worker leaves: removes its registry entry (jobs must have been handed back). */
void queue_unregister(queue_t *q, const char *worker_id);

/* ---- both: figures ---- */
typedef struct {
    int64_t waiting, active, delayed, completed, failed, cancelled;   /* completed… within the retention time */
    double oldest_waiting_s;                                          /* 0 when none waits */
} queue_counts_t;
ERR_MUST err_kind_t queue_counts(queue_t *q, queue_counts_t *out, err_t *err);
/* Body of GET /api/segmentation/queue/status: counts, per model and priority, workers, breaker. Caller frees with free(). */
ERR_MUST err_kind_t queue_status_json(queue_t *q, char **json, err_t *err);

#endif
