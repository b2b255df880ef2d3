/*
 * The last stage: a result goes into the database. Polygons, segmentation and the job's completion are one transaction
 * under the claim's fence, so there is one visible result or none (I2).
 *
 * Thread-safe; a claim and a result belong to one thread.
 */
#ifndef SG_PIPELINE_STORE_H
#define SG_PIPELINE_STORE_H

#include "common/queue.h"
#include "segworker/result.h"

/* Commits the result and completes the job, and tells so (queue_complete_done; with worker_id NULL the caller does, and
 * may do so together with its next claim, see queue_turn). Tries again when the database is away
 * for a moment, and finds out whether a commit whose answer was lost had happened. timings_json: seconds by stage.
 * ERR_CONFLICT "claim_lost": nothing was written; ERR_CANCELLED: the same, a person cancelled the job; ERR_UNAVAILABLE:
 * the database stayed away. After any error the claim is still held. */
ERR_MUST err_kind_t store_commit(queue_t *q, pg_pool_t *pg, const char *worker_id, queue_claim_t *c, const result_t *r,
                                 const char *timings_json, err_t *err);

#endif
