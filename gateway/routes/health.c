/*
 * /api/health and /api/performance/metrics, for people and load balancers; Prometheus reads the loopback port instead
 * (metrics_server.h). The WebSocket's address is here too: it is a route like any other until it is upgraded.
 */
#include "gateway/health.h"

#include <sys/resource.h>

#include "common/timeutil.h"
#include "gateway/router.h"
#include "gateway/server.h"
#include "gateway/ws_hub.h"

static int http_status(health_status_t s) {
    return s == HEALTH_DOWN ? 503 : 200;
}

static err_kind_t get_health(http_request_t *req, err_t *err) {
    health_status_t status;
    (void)err;
    cJSON *json = health_json(req->gw, false, &status);
    return http_reply_json(req, http_status(status), json);
}

static err_kind_t get_detailed(http_request_t *req, err_t *err) {
    health_status_t status;
    (void)err;
    cJSON *json = health_json(req->gw, true, &status);
    return http_reply_json(req, http_status(status), json);
}

static err_kind_t get_live(http_request_t *req, err_t *err) {
    (void)err;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "status", "up");
    return http_reply_json(req, 200, json);
}

static err_kind_t get_ready(http_request_t *req, err_t *err) {
    health_status_t status;
    (void)err;
    bool ready = health_is_ready(req->gw);
    cJSON *json = health_json(req->gw, false, &status);
    if (!ready) {
        cJSON_ReplaceItemInObjectCaseSensitive(json, "status", cJSON_CreateString("down"));
    }
    return http_reply_json(req, ready ? 200 : 503, json);
}

static err_kind_t get_service(http_request_t *req, err_t *err) {
    health_status_t status;
    int service = health_service_find(req->params[0]);
    if (service < 0) {
        return err_set(err, ERR_NOT_FOUND, "not_found", "The services are: database, redis, queue, ml, storage.", NULL);
    }
    cJSON *json = health_service_json(service, &status);
    return http_reply_json(req, http_status(status), json);
}

/* ---- performance ---- */

static cJSON *requests_json(void) {
    static const char *const classes[] = {"other", "1xx", "2xx", "3xx", "4xx", "5xx"};
    router_stats_t r;
    router_stats(&r);
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "total", (double)r.total);
    cJSON *by = cJSON_AddObjectToObject(json, "byStatus");
    for (int i = 1; i < 6; i++) {
        cJSON_AddNumberToObject(by, classes[i], (double)r.by_class[i]);
    }
    cJSON *ms = cJSON_AddObjectToObject(json, "latencyMs");
    cJSON_AddNumberToObject(ms, "mean", r.mean_ms);
    cJSON_AddNumberToObject(ms, "p50", r.p50_ms);
    cJSON_AddNumberToObject(ms, "p95", r.p95_ms);
    cJSON_AddNumberToObject(ms, "p99", r.p99_ms);
    return json;
}

static cJSON *pool_json(gateway_t *gw) {
    pg_pool_stats_t p;
    pg_pool_stats(gw->pg, &p);
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "max", p.max);
    cJSON_AddNumberToObject(json, "total", p.total);
    cJSON_AddNumberToObject(json, "idle", p.idle);
    cJSON_AddNumberToObject(json, "inUse", p.in_use);
    cJSON_AddNumberToObject(json, "waiting", p.waiting);
    cJSON_AddNumberToObject(json, "acquired", (double)p.acquired_total);
    cJSON_AddNumberToObject(json, "timeouts", (double)p.timeouts_total);
    cJSON_AddNumberToObject(json, "slow", (double)p.slow_total);
    cJSON_AddNumberToObject(json, "errors", (double)p.errors_total);
    cJSON_AddNumberToObject(json, "recycled", (double)p.recycled_total);
    return json;
}

static cJSON *queue_json(gateway_t *gw) {
    queue_counts_t c;
    if (queue_counts(gw->queue, &c, NULL) != ERR_OK) {
        return cJSON_CreateNull();
    }
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "waiting", (double)c.waiting);
    cJSON_AddNumberToObject(json, "active", (double)c.active);
    cJSON_AddNumberToObject(json, "delayed", (double)c.delayed);
    cJSON_AddNumberToObject(json, "completed", (double)c.completed);
    cJSON_AddNumberToObject(json, "failed", (double)c.failed);
    cJSON_AddNumberToObject(json, "cancelled", (double)c.cancelled);
    cJSON_AddNumberToObject(json, "oldestWaitingSeconds", c.oldest_waiting_s);
    return json;
}

static cJSON *sockets_json(gateway_t *gw) {
    ws_hub_stats_t w = {0};
    if (gw->ws) {
        ws_hub_stats(gw->ws, &w);
    }
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "sockets", w.sockets);
    cJSON_AddNumberToObject(json, "subscriptions", w.subscriptions);
    cJSON_AddNumberToObject(json, "sent", (double)w.sent_total);
    cJSON_AddNumberToObject(json, "dropped", (double)w.dropped_total);
    return json;
}

static cJSON *process_json(gateway_t *gw) {
    server_stats_t s = {0};
    struct rusage u;
    cJSON *json = cJSON_CreateObject();
    if (gw->server) {
        server_stats(gw->server, &s);
    }
    cJSON_AddStringToObject(json, "version", SG_VERSION);
    cJSON_AddNumberToObject(json, "uptimeSeconds", (double)(time_wall_ms() - s.started_ms) / 1000.0);
    cJSON_AddNumberToObject(json, "threads", s.threads);
    cJSON_AddNumberToObject(json, "connections", s.connections);
    cJSON_AddNumberToObject(json, "inFlight", s.in_flight);
    if (getrusage(RUSAGE_SELF, &u) == 0) {
        cJSON_AddNumberToObject(json, "maxResidentBytes", (double)u.ru_maxrss * 1024.0);
        cJSON_AddNumberToObject(json, "cpuSeconds",
                                (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                                    (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
    }
    return json;
}

static err_kind_t get_performance(http_request_t *req, err_t *err) {
    (void)err;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddItemToObject(json, "requests", requests_json());
    cJSON_AddItemToObject(json, "database", pool_json(req->gw));
    cJSON_AddItemToObject(json, "queue", queue_json(req->gw));
    cJSON_AddItemToObject(json, "webSockets", sockets_json(req->gw));
    cJSON_AddItemToObject(json, "process", process_json(req->gw));
    return http_reply_json(req, 200, json);
}

static err_kind_t get_web_socket(http_request_t *req, err_t *err) {
    return ws_hub_serve(req->gw->ws, req, err);
}

const http_route_t routes_health[] = {
    {"GET", "/api/health", get_health, HTTP_PUBLIC},           {"GET", "/api/health/detailed", get_detailed, 0},
    {"GET", "/api/health/live", get_live, HTTP_PUBLIC},        {"GET", "/api/health/ready", get_ready, HTTP_PUBLIC},
    {"GET", "/api/health/services/{service}", get_service, 0}, {"GET", "/api/performance/metrics", get_performance, 0},
    {"GET", "/api/ws", get_web_socket, HTTP_PUBLIC},           {NULL, NULL, NULL, 0},
};
