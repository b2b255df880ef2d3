/*
 * The part of ending a claim that recovery uses. Internal to the queue.
 */
#ifndef SG_QUEUE_FINISH_H
#define SG_QUEUE_FINISH_H

#include "queue_internal.h"

/* A claim that recovery took from its worker. */
typedef struct {
    const char *id, *worker, *tag;
} queue_lost_t;

/* active -> delayed, failed or cancelled, or queued if it was claimed ahead and had not begun, because the workers lost
 * these claims: one statement. *rows: those that were changed (others had ended, or have a younger claim by now); freed
 * by the caller. */
ERR_MUST err_kind_t queue_lose_claims(queue_t *q, pg_conn_t *conn, const queue_lost_t *lost, int n, PGresult **rows,
                                      err_t *err);

/* The message with the state of a row: id, project_id, image_id, state, seq, attempt, error_code, error_message and, if
 * it is there, object_count. Publishing it twice is harmless, because the number stays the same. */
void queue_news_add_row(queue_news_t *news, const PGresult *rows, int i);

#endif
