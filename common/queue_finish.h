/*
 * The part of ending a claim that recovery uses. Internal to the queue.
 */
#ifndef SG_QUEUE_FINISH_H
#define SG_QUEUE_FINISH_H

#include "queue_internal.h"

/* active -> delayed, failed or cancelled, because worker_id (empty: whoever) lost the job. *changed is false when the
 * row is not active or belongs to another worker. */
ERR_MUST err_kind_t queue_lose_claim(queue_t *q, pg_conn_t *conn, const char *job_id, const char *worker_id,
                                     bool *changed, err_t *err);

#endif
