/*
 * The routing table and the way of a request through it.
 *
 * Matching is a linear walk over some forty patterns, comparing segment by segment: a few microseconds, no state.
 */
#include "router.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "auth/auth.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/timeutil.h"
#include "common/uuid.h"
#include "http_internal.h"
#include "server.h"
#include "static.h"

#define PATH_MAX_BYTES 2048

static const http_route_t *const all_tables[] = {routes_auth,   routes_projects,     routes_images,
                                                 routes_tiles,  routes_segmentation, routes_polygons,
                                                 routes_models, routes_health,       NULL};

const http_route_t *const *router_tables(void) {
    return all_tables;
}

/* ---- matching ---- */

static bool segment_is_parameter(const char *s, size_t n) {
    return n > 2 && s[0] == '{' && s[n - 1] == '}';
}

/* Does path fit pattern? Values are reported as pointers into path. */
static bool fits(const char *pattern, const char *path, const char *values[HTTP_MAX_PATH_PARAMS],
                 size_t lengths[HTTP_MAX_PATH_PARAMS], int *count) {
    *count = 0;
    while (*pattern == '/' && *path == '/') {
        pattern++;
        path++;
        size_t pn = strcspn(pattern, "/");
        size_t n = strcspn(path, "/");
        if (segment_is_parameter(pattern, pn)) {
            if (n == 0 || *count >= HTTP_MAX_PATH_PARAMS) {
                return false;
            }
            if (strncmp(pattern + pn - 3, "Id}", 3) == 0) {
                char id[37];
                if (n != 36) {
                    return false;
                }
                memcpy(id, path, 36);
                id[36] = '\0';
                if (!pg_is_uuid(id)) {
                    return false;
                }
            }
            values[*count] = path;
            lengths[*count] = n;
            (*count)++;
        } else if (pn != n || strncmp(pattern, path, n) != 0) {
            return false;
        }
        pattern += pn;
        path += n;
    }
    return *pattern == '\0' && *path == '\0';
}

static void allow_add(char *allow, size_t room, const char *method) {
    size_t n = strlen(allow);
    if (n + strlen(method) + 8 < room && !strstr(allow, method)) {
        (void)snprintf(allow + n, room - n, "%s%s%s", n > 0 ? ", " : "", method,
                       strcmp(method, "GET") == 0 ? ", HEAD" : "");
    }
}

route_match_t router_match(const http_route_t *const *tables, const char *method, const char *path, arena_t *arena,
                           const http_route_t **route, const char *params[HTTP_MAX_PATH_PARAMS], char *allow,
                           size_t allow_size) {
    const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
    bool other_method = false;
    allow[0] = '\0';
    for (; *tables; tables++) {
        for (const http_route_t *r = *tables; r->method; r++) {
            const char *values[HTTP_MAX_PATH_PARAMS];
            size_t lengths[HTTP_MAX_PATH_PARAMS];
            int n = 0;
            if (!fits(r->pattern, path, values, lengths, &n)) {
                continue;
            }
            if (strcmp(r->method, wanted) != 0) {
                other_method = true;
                allow_add(allow, allow_size, r->method);
                continue;
            }
            for (int i = 0; i < n; i++) {
                params[i] = arena_strndup(arena, values[i], lengths[i]);
                if (!params[i]) {
                    return ROUTE_NO_PATH;
                }
            }
            *route = r;
            return ROUTE_FOUND;
        }
    }
    return other_method ? ROUTE_NO_METHOD : ROUTE_NO_PATH;
}

void router_print(FILE *out) {
    for (const http_route_t *const *t = all_tables; *t; t++) {
        for (const http_route_t *r = *t; r->method; r++) {
            (void)fprintf(out, "%s %s\n", r->method, r->pattern);
        }
    }
}

/* ---- figures ---- */

#define BUCKETS 28 /* bucket i holds latencies under 2^(i/2) * 0.1 ms */

static atomic_uint_fast64_t stat_total, stat_class[6], stat_bucket[BUCKETS], stat_us;
static pthread_once_t metrics_once = PTHREAD_ONCE_INIT;
static metric_t *requests_metric, *seconds_metric;

static void make_metrics(void) {
    requests_metric = metrics_counter("spheroseg_http_requests_total", "Requests answered.", "method,route,status");
    seconds_metric =
        metrics_histogram("spheroseg_http_request_seconds",
                          "Time from the end of a request's headers to the end of its answer.", "route", NULL, 0);
    /* The first failure of a route must be seen as a step from 0 to 1, which a series that begins with it is not. */
    for (const http_route_t *const *t = all_tables; *t; t++) {
        for (const http_route_t *r = *t; r->method; r++) {
            metrics_add(requests_metric, (const char *const[]){r->method, r->pattern, "5xx"}, 0.0);
        }
    }
    metrics_add(requests_metric, (const char *const[]){"GET", "static", "5xx"}, 0.0);
}

void router_define_metrics(void) {
    pthread_once(&metrics_once, make_metrics);
}

static double bucket_top_ms(int i) {
    return 0.1 * pow(2.0, (double)i / 2.0);
}

static void count_request(const http_request_t *req, const char *route, int64_t us) {
    static const char *const classes[] = {"0xx", "1xx", "2xx", "3xx", "4xx", "5xx"};
    static const char *const methods[] = {"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"};
    int class = req->status / 100;
    class = class < 0 || class > 5 ? 0 : class;
    const char *method = "other";
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        if (strcmp(req->method, methods[i]) == 0) {
            method = methods[i];
        }
    }
    router_define_metrics();
    const char *labels[] = {method, route, classes[class]};
    metrics_add(requests_metric, labels, 1.0);
    atomic_fetch_add(&stat_total, 1);
    atomic_fetch_add(&stat_class[class], 1);
    if (req->status == 101) {
        return; /* a WebSocket lasts as long as its page: that is no latency */
    }
    metrics_observe(seconds_metric, (const char *const[]){route}, (double)us / 1e6);
    atomic_fetch_add(&stat_us, (uint64_t)us);
    int b = 0;
    while (b < BUCKETS - 1 && (double)us / 1000.0 >= bucket_top_ms(b)) {
        b++;
    }
    atomic_fetch_add(&stat_bucket[b], 1);
}

static double percentile(const uint64_t *buckets, uint64_t total, double p) {
    uint64_t need = (uint64_t)ceil((double)total * p);
    uint64_t sum = 0;
    for (int i = 0; i < BUCKETS; i++) {
        sum += buckets[i];
        if (sum >= need && sum > 0) {
            return bucket_top_ms(i);
        }
    }
    return 0.0;
}

void router_stats(router_stats_t *out) {
    uint64_t buckets[BUCKETS];
    uint64_t sum = 0;
    memset(out, 0, sizeof *out);
    out->total = atomic_load(&stat_total);
    for (int i = 0; i < 6; i++) {
        out->by_class[i] = atomic_load(&stat_class[i]);
    }
    for (int i = 0; i < BUCKETS; i++) {
        buckets[i] = atomic_load(&stat_bucket[i]);
        sum += buckets[i];
    }
    out->p50_ms = percentile(buckets, sum, 0.50);
    out->p95_ms = percentile(buckets, sum, 0.95);
    out->p99_ms = percentile(buckets, sum, 0.99);
    out->mean_ms = sum > 0 ? (double)atomic_load(&stat_us) / 1000.0 / (double)sum : 0.0;
}

/* ---- origins ---- */

static bool list_has(const char *list, const char *origin) {
    size_t want = strlen(origin);
    for (const char *p = list; *p;) {
        p += strspn(p, ", \t");
        size_t n = strcspn(p, ", \t");
        size_t m = n > 0 && p[n - 1] == '/' ? n - 1 : n;
        if (m == want && strncasecmp(p, origin, m) == 0) {
            return true;
        }
        p += n;
    }
    return false;
}

bool http_origin_is_ours(const http_request_t *req, const char *origin) {
    const char *host = http_header(req, "Host");
    const char *url = req->gw->cfg->public_url;
    if (host && strncasecmp(origin, "https://", 8) == 0 && strcasecmp(origin + 8, host) == 0) {
        return true;
    }
    if (!*url) {
        return false;
    }
    size_t n = strncmp(url, "https://", 8) == 0 ? 8 + strcspn(url + 8, "/") : strlen(url);
    return strlen(origin) == n && strncasecmp(url, origin, n) == 0;
}

bool http_origin_is_allowed(const http_request_t *req, const char *origin) {
    return http_origin_is_ours(req, origin) || list_has(req->gw->cfg->allowed_origins, origin);
}

static void set_cors(http_exchange_t *ex) {
    const char *origin = http_header(&ex->req, "Origin");
    if (origin && !http_origin_is_ours(&ex->req, origin) && list_has(ex->req.gw->cfg->allowed_origins, origin)) {
        ex->cors_origin = origin;
    }
}

/* ---- one request ---- */

static err_kind_t serve_options(http_exchange_t *ex, const char *path) {
    http_request_t *req = &ex->req;
    char allow[64];
    const http_route_t *route = NULL;
    const char *params[HTTP_MAX_PATH_PARAMS];
    /* A method that no route has: collects all that the path knows. */
    (void)router_match(all_tables, "OPTIONS", path, req->arena, &route, params, allow, sizeof allow);
    http_add_header(req, "Allow", allow[0] ? allow : "GET, HEAD");
    if (ex->cors_origin) {
        http_add_header(req, "Access-Control-Allow-Methods", allow[0] ? allow : "GET, HEAD");
        http_add_header(req, "Access-Control-Allow-Headers",
                        "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Range");
        http_add_header(req, "Access-Control-Max-Age", "600");
    }
    return http_reply_empty(req, 204);
}

static err_kind_t call_handler(http_request_t *req, const http_route_t *route, err_t *err) {
    bool replayed = false;
    err_kind_t k = auth_identify(req, NULL, err);
    if (k != ERR_OK && !(route->flags & HTTP_PUBLIC)) {
        return k;
    }
    if (route->flags & HTTP_IDEMPOTENT_KEY) {
        k = idempotency_begin(req, &replayed, err);
        if (k != ERR_OK || replayed) {
            return k;
        }
    }
    k = route->handler(req, err);
    if (route->flags & HTTP_IDEMPOTENT_KEY) {
        idempotency_end(req);
    }
    return k;
}

static err_kind_t no_such_path(http_request_t *req, err_t *err) {
    (void)req;
    return err_set(err, ERR_NOT_FOUND, "not_found", "There is nothing at this address.", NULL);
}

/* Serves the request; *route_name is what logs and metrics call it. */
static err_kind_t dispatch(http_exchange_t *ex, const char **route_name, err_t *err) {
    http_request_t *req = &ex->req;
    const char *raw = ex->info->local_uri_raw;
    char allow[64];
    const http_route_t *route = NULL;
    if (!raw || strlen(raw) > PATH_MAX_BYTES) {
        return no_such_path(req, err);
    }
    req->path = http_percent_decode(req->arena, raw, strlen(raw), false);
    if (!req->path) {
        req->path = raw;
        return err_set(err, ERR_INVALID, "path_invalid", "The address is not well-formed.", NULL);
    }
    bool api = strncmp(req->path, "/api/", 5) == 0 || strcmp(req->path, "/api") == 0;
    if (!api) {
        *route_name = "static";
        return static_serve(req, err);
    }
    if (strcmp(req->method, "OPTIONS") == 0) {
        *route_name = "options";
        return serve_options(ex, req->path);
    }
    switch (router_match(all_tables, req->method, req->path, req->arena, &route, req->params, allow, sizeof allow)) {
    case ROUTE_NO_PATH:
        return no_such_path(req, err);
    case ROUTE_NO_METHOD:
        http_add_header(req, "Allow", allow);
        err_setf(err, ERR_INVALID, "method_not_allowed", "This address knows only: %s.", allow);
        return http_reply_problem_status(req, 405, err);
    case ROUTE_FOUND:
        break;
    }
    *route_name = route->pattern;
    return call_handler(req, route, err);
}

static void log_access(const http_exchange_t *ex, int64_t us) {
    const http_request_t *req = &ex->req;
    char status[16];
    char ms[32];
    char bytes[32];
    (void)snprintf(status, sizeof status, "%d", req->status);
    (void)snprintf(ms, sizeof ms, "%.1f", (double)us / 1000.0);
    (void)snprintf(bytes, sizeof bytes, "%" PRId64, req->bytes_out);
    log_event(LOG_INFO, "request", "requestId", req->request_id, "method", req->method, "path", req->path, "status",
              status, "ms", ms, "bytes", bytes, "userId", req->user.id, "remote", req->remote, NULL);
}

void router_serve(gateway_t *gw, struct mg_connection *conn) {
    http_exchange_t ex;
    err_t err;
    const char *route_name = "none";
    int64_t start = time_mono_us();
    err_clear(&err);
    err_kind_t k = http_exchange_init(&ex, gw, conn, &err);
    uuid_v4(ex.req.request_id);
    if (!ex.req.arena) {
        static const char sorry[] =
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        (void)mg_write(conn, sorry, sizeof sorry - 1);
        ex.req.close_after = true;
        http_exchange_finish(&ex);
        return;
    }
    set_cors(&ex);
    ex.req.path = ex.info->local_uri_raw ? ex.info->local_uri_raw : "";
    if (k == ERR_OK) {
        k = dispatch(&ex, &route_name, &err);
    }
    if (!ex.req.answered) {
        if (k == ERR_OK) {
            err_set(&err, ERR_INTERNAL, "no_answer", "The server made a mistake. Please try again.",
                    "handler did not answer");
        }
        (void)http_reply_problem(&ex.req, &err);
    } else if (k != ERR_OK) {
        log_error(LOG_WARN, "after the answer was sent", &err);
    }
    int64_t us = time_mono_us() - start;
    count_request(&ex.req, route_name, us);
    log_access(&ex, us);
    http_exchange_finish(&ex);
}
