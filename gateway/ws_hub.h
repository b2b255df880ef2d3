/*
 * WebSocket hub: authenticated sockets, subscriptions to projects and to the queue, snapshots, bounded outbound queues
 * (proto/events.md). One events subscriber feeds all sockets; each socket's writes happen on its own sender so that a
 * slow client never stops another. Thread-safe.
 */
#ifndef SG_GATEWAY_WS_HUB_H
#define SG_GATEWAY_WS_HUB_H

#include "http.h"

typedef struct ws_hub ws_hub_t;

ERR_MUST err_kind_t ws_hub_create(gateway_t *gw, ws_hub_t **out, err_t *err);
/* Registers the handler for /api/ws. */
void ws_hub_attach(ws_hub_t *hub, struct mg_context *ctx);
/* Closes every socket with 1001 (going away). */
void ws_hub_shutdown(ws_hub_t *hub);
void ws_hub_destroy(ws_hub_t *hub);

typedef struct { int sockets, subscriptions; uint64_t sent_total, dropped_total; } ws_hub_stats_t;
void ws_hub_stats(ws_hub_t *hub, ws_hub_stats_t *out);

/* One job as the API and the snapshot show it, from a row of JOB_COLUMNS (routes/job_json.h). */
#endif
