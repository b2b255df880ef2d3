/*
 * Event bus: proto/events.md. Publishing is best effort (the truth is in PostgreSQL); a subscriber owns one Redis
 * connection and one thread, reconnects by itself with back-off and reports each gap so that clients can be resynced.
 */
#ifndef SG_EVENTS_H
#define SG_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rds.h"

/* Publishes on sg:events:<project_id>. Failures are logged and counted, not returned. */
void events_publish(rds_pool_t *rds, const char *project_id, const char *json);
/* The same for n messages in one round trip. */
void events_publish_many(rds_pool_t *rds, size_t n, const char *const *project_ids, const char *const *jsons);

typedef struct events_sub events_sub_t;
/* channel: without prefix change, e.g. "sg:events:<uuid>" or "sg:cancel". Called on the subscriber's thread.
 * message == NULL: the connection was lost and is back; anything may have been missed since. */
typedef void (*events_fn)(void *arg, const char *channel, const char *message, size_t len);

ERR_MUST err_kind_t events_sub_create(rds_pool_t *rds, events_fn fn, void *arg, events_sub_t **out, err_t *err);
/* Thread-safe. add returns after the server confirmed, or after timeout_ms with false (it is still added when Redis returns). */
bool events_sub_add(events_sub_t *s, const char *channel, int timeout_ms);
void events_sub_remove(events_sub_t *s, const char *channel);
void events_sub_destroy(events_sub_t *s);    /* joins the thread */

#endif
