/*
 * WebSocket hub: authenticated sockets, subscriptions to projects and to the queue, snapshots, bounded outbound queues
 * (proto/events.md). One events subscriber feeds all sockets; WS_THREADS threads read and write them without ever
 * waiting for one, so no client stops another. ws_internal.h tells how it is divided. Thread-safe.
 */
#ifndef SG_GATEWAY_WS_HUB_H
#define SG_GATEWAY_WS_HUB_H

#include "http.h"

typedef struct ws_hub ws_hub_t;

/* Starts the subscriber and the thread that feeds the queue's status. Redis may be away. */
ERR_MUST err_kind_t ws_hub_create(gateway_t *gw, ws_hub_t **out, err_t *err);

/* The handler of GET /api/ws: checks the handshake, answers 101 and takes the connection over. Without an upgrade the
 * answer is 426; over the caps 429 (this person's) or 503 (all). */
ERR_MUST err_kind_t ws_hub_serve(ws_hub_t *hub, http_request_t *req, err_t *err);

/* Closes every socket with 1001 (going away), waits for them at most timeout_ms, and takes no new ones. */
void ws_hub_shutdown(ws_hub_t *hub, int64_t timeout_ms);
/* After ws_hub_shutdown and after the server has stopped. NULL is allowed. */
void ws_hub_destroy(ws_hub_t *hub);

typedef struct {
    int sockets, subscriptions;
    uint64_t sent_total, dropped_total; /* messages sent; progress messages that a newer one replaced */
    uint64_t stale_total, slow_total;   /* events that were overtaken on their way; sockets closed with 4408 */
    size_t waiting_bytes;               /* of all messages that wait for sockets, shared ones once */
} ws_hub_stats_t;
void ws_hub_stats(ws_hub_t *hub, ws_hub_stats_t *out);

#endif
