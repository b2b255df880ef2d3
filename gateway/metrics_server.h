/*
 * METRICS_HOST:METRICS_PORT, plain HTTP for Prometheus and probes, never for the public: /metrics, /live, /ready.
 */
#ifndef SG_GATEWAY_METRICS_SERVER_H
#define SG_GATEWAY_METRICS_SERVER_H

#include "http.h"

typedef struct metrics_server metrics_server_t;

/* METRICS_PORT=0: none, *out is NULL. gw->server may still be NULL: then /ready says no. */
ERR_MUST err_kind_t metrics_server_start(gateway_t *gw, metrics_server_t **out, err_t *err);
void metrics_server_stop(metrics_server_t *m); /* NULL is allowed */

#endif
