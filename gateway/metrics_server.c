/*
 * The private port, and the gauges that are read when Prometheus asks.
 */
#include "metrics_server.h"

#include <stdlib.h>
#include <string.h>

#include "common/httpd_mini.h"
#include "common/metrics.h"
#include "health.h"
#include "server.h"
#include "ws_hub.h"

struct metrics_server {
    gateway_t *gw;
    httpd_mini_t *httpd;
    metric_t *sockets, *subscriptions, *sent, *dropped, *stale, *slow, *waiting, *connections, *in_flight, *threads,
        *certificate, *up;
    uint64_t sent_seen, dropped_seen, stale_seen, slow_seen;
};

static void collect_health(const metrics_server_t *m) {
    static const char *const names[HEALTH_SERVICES] = {"database", "redis", "queue", "ml", "storage"};
    for (int i = 0; i < HEALTH_SERVICES; i++) {
        health_status_t status;
        cJSON_Delete(health_service_json(i, &status));
        metrics_set(m->up, (const char *const[]){names[i]}, status == HEALTH_DOWN ? 0.0 : 1.0);
    }
}

static void collect(void *arg) {
    metrics_server_t *m = arg;
    server_stats_t s;
    ws_hub_stats_t w;
    if (!m->gw->server || !m->gw->ws) {
        return;
    }
    server_stats(m->gw->server, &s);
    metrics_set(m->connections, NULL, s.connections);
    metrics_set(m->in_flight, NULL, s.in_flight);
    metrics_set(m->threads, NULL, s.threads);
    metrics_set(m->certificate, NULL, (double)server_certificate_days(m->gw->server) * 86400.0);
    ws_hub_stats(m->gw->ws, &w);
    metrics_set(m->sockets, NULL, w.sockets);
    metrics_set(m->subscriptions, NULL, w.subscriptions);
    metrics_add(m->sent, NULL, (double)(w.sent_total - m->sent_seen));
    metrics_add(m->dropped, NULL, (double)(w.dropped_total - m->dropped_seen));
    metrics_add(m->stale, NULL, (double)(w.stale_total - m->stale_seen));
    metrics_add(m->slow, NULL, (double)(w.slow_total - m->slow_seen));
    metrics_set(m->waiting, NULL, (double)w.waiting_bytes);
    m->sent_seen = w.sent_total;
    m->dropped_seen = w.dropped_total;
    m->stale_seen = w.stale_total;
    m->slow_seen = w.slow_total;
    collect_health(m);
}

static int answer(void *arg, const char *path, buf_t *out, const char **content_type) {
    metrics_server_t *m = arg;
    if (strcmp(path, "/metrics") == 0) {
        *content_type = "text/plain; version=0.0.4; charset=utf-8";
        metrics_render(out);
        return 200;
    }
    if (strcmp(path, "/live") == 0) {
        buf_puts(out, "up\n");
        return 200;
    }
    if (strcmp(path, "/ready") == 0) {
        bool ready = health_is_ready(m->gw);
        buf_puts(out, ready ? "ready\n" : "not ready\n");
        return ready ? 200 : 503;
    }
    buf_puts(out, "/metrics /live /ready\n");
    return 404;
}

static void make_metrics(metrics_server_t *m) {
    m->sockets = metrics_gauge("spheroseg_websockets", "Open WebSockets.", NULL);
    m->subscriptions = metrics_gauge("spheroseg_websocket_subscriptions", "Subscriptions of all WebSockets.", NULL);
    m->sent = metrics_counter("spheroseg_websocket_messages_total", "Messages sent to browsers.", NULL);
    m->dropped =
        metrics_counter("spheroseg_websocket_coalesced_total", "Progress messages that a newer one replaced.", NULL);
    m->stale = metrics_counter("spheroseg_websocket_stale_total",
                               "Events left out because a newer one of the same job had been sent.", NULL);
    m->slow = metrics_counter("spheroseg_websocket_slow_total", "WebSockets closed because they were too slow.", NULL);
    m->waiting = metrics_gauge("spheroseg_websocket_waiting_bytes", "Messages that wait for WebSockets.", NULL);
    m->connections = metrics_gauge("spheroseg_http_connections", "Open connections, without WebSockets.", NULL);
    m->in_flight = metrics_gauge("spheroseg_http_requests_in_flight", "Requests being answered.", NULL);
    m->threads = metrics_gauge("spheroseg_http_threads", "Connection threads (HTTP_THREADS).", NULL);
    m->certificate =
        metrics_gauge("spheroseg_tls_certificate_left_seconds", "Time until the certificate expires.", NULL);
    m->up = metrics_gauge("spheroseg_service_up", "1 while the dependency works.", "service");
}

err_kind_t metrics_server_start(gateway_t *gw, metrics_server_t **out, err_t *err) {
    *out = NULL;
    if (gw->cfg->metrics_port == 0) {
        return ERR_OK;
    }
    metrics_server_t *m = calloc(1, sizeof *m);
    if (!m) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    m->gw = gw;
    make_metrics(m);
    metrics_on_collect(collect, m);
    err_kind_t k = httpd_mini_start(gw->cfg->metrics_host, (int)gw->cfg->metrics_port, answer, m, &m->httpd, err);
    if (k != ERR_OK) {
        free(m);
        return k;
    }
    *out = m;
    return ERR_OK;
}

void metrics_server_stop(metrics_server_t *m) {
    if (m) {
        /* m itself stays until the process ends: the collect function cannot be taken back. */
        httpd_mini_stop(m->httpd);
        m->httpd = NULL;
    }
}
