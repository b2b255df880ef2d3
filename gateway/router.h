/*
 * The routing table, joined from the tables of the resources, and the way of every request through it: request id,
 * caller, route, handler, answer, access log, metrics. Thread-safe after router_init.
 */
#ifndef SG_GATEWAY_ROUTER_H
#define SG_GATEWAY_ROUTER_H

#include "http.h"

typedef enum { ROUTE_FOUND, ROUTE_NO_PATH, ROUTE_NO_METHOD } route_match_t;

/* Finds the route of a decoded path. params are filled with copies from the arena; a {…Id} that is no UUID, and an
 * empty segment, do not match. On ROUTE_NO_METHOD allow (at least 64 bytes) names the methods that would do. */
route_match_t router_match(const http_route_t *const *tables, const char *method, const char *path, arena_t *arena,
                           const http_route_t **route, const char *params[HTTP_MAX_PATH_PARAMS], char *allow,
                           size_t allow_size);

/* Every table, ended by NULL. */
const http_route_t *const *router_tables(void);

/* Makes the request metrics, the server errors (5xx) of every route at 0. The first request does it otherwise. */
void router_define_metrics(void);

/* Serves one request of a TLS connection from its first to its last byte. */
void router_serve(gateway_t *gw, struct mg_connection *conn);

/* Figures for /api/performance/metrics. Latencies are upper bounds of buckets, in ms, over the process's life. */
typedef struct {
    uint64_t total, by_class[6]; /* index 2: 2xx … */
    double p50_ms, p95_ms, p99_ms, mean_ms;
} router_stats_t;
void router_stats(router_stats_t *out);

/* Prints "METHOD /pattern" lines, for the comparison with proto/openapi.yaml. */
void router_print(FILE *out);

#endif
