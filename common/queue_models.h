/*
 * The part of pausing models that the sweeper uses. Internal to the queue.
 */
#ifndef SG_QUEUE_MODELS_H
#define SG_QUEUE_MODELS_H

#include "queue_internal.h"

/* Makes sg:paused what the table models says. */
ERR_MUST err_kind_t queue_sync_paused(queue_t *q, pg_conn_t *conn, err_t *err);

#endif
