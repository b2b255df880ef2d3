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

/* What besides the image's bytes, the model's name and the handling of holes decides a result. */
typedef struct {
    const char *recipe;  /* version of the program and checksum of the model and its settings */
    double threshold;    /* as used, never NaN */
    const char *options; /* the other settings as used and the plane, see options_write; NULL = {} */
} store_key_t;

/* Takes over the newest earlier result of the same bytes, key and owner, if there is one, as store_commit would have
 * committed it; the segmentation says where it comes from. *found = false: nothing was changed. *count: objects. Errors
 * as store_commit's, except that it tries once. */
ERR_MUST err_kind_t store_cached(queue_t *q, pg_pool_t *pg, queue_claim_t *c, const store_key_t *key, int *count,
                                 bool *found, err_t *err);

#endif
