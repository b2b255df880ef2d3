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

/* Publishes the state of a row: id, project_id, image_id, state, seq, attempt, error_code, error_message and, if it is
 * there, object_count. Doing so twice is harmless, because the number stays the same. */
void queue_publish_row(queue_t *q, const PGresult *row);

#endif
