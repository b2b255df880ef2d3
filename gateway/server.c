/*
 * civetweb's set-up. Every request, WebSocket handshakes included, comes in through begin_request and is served by the
 * router (TLS) or redirected (plain port); civetweb's own file serving, CGI and WebSocket code are never reached.
 *
 * The TLS context is ours, made by tls.c. OpenSSL calls on_handshake on the connection's thread; it notes the TLS
 * object in a thread-local variable, which is how http_read_body and server_detach reach it.
 *
 * A WebSocket leaves civetweb after its handshake (server_detach). civetweb will close the connection when the handler
 * returns, and it must find something to close: it keeps its own reference to the TLS object, told to be quiet about
 * the end, and the number of its descriptor, which by then means an unconnected socket. Only when it has let go of both
 * (connection_closed, same thread) does the new owner get to know, so that the two never use the object together.
 */
#include "server.h"

#include <ctype.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/timeutil.h"
#include "common/uuid.h"
#include "http_internal.h"
#include "proxy.h"
#include "router.h"
#include "tls.h"

#define KEEP_ALIVE_MS "15000"
#define HEADERS_MAX "16384"
#define BACKLOG "512"
#define WAITING_CONNECTIONS "128"

struct server {
    gateway_t *gw;
    struct mg_context *ctx;
    SSL_CTX *tls;
    tls_files_t files;
    int64_t started_ms;
    atomic_int connections, in_flight;
    atomic_bool draining;
};

static _Thread_local SSL *thread_tls;

static void on_handshake(const SSL *tls, int where, int ret) {
    (void)ret;
    if (where & SSL_CB_HANDSHAKE_START) {
        thread_tls = (SSL *)tls; /* the callback's const is a promise about itself, not about the object */
    }
}

SSL *server_connection_tls(const struct mg_connection *conn) {
    const struct mg_request_info *info = conn ? mg_get_request_info(conn) : NULL;
    if (!info || !info->is_ssl || !thread_tls || SSL_get_app_data(thread_tls) != (const void *)conn) {
        return NULL;
    }
    return thread_tls;
}

/* ---- connections that leave ---- */

typedef struct {
    SSL *tls;
    void (*then)(void *arg);
    void *arg;
} leaving_t;

static _Thread_local leaving_t thread_leaving; /* of the connection that is being served */

err_kind_t server_detach(struct mg_connection *conn, SSL **tls_out, int *fd_out, void (*then)(void *arg), void *arg,
                         err_t *err) {
    SSL *tls = server_connection_tls(conn);
    int old = tls ? SSL_get_fd(tls) : -1;
    int fd = old >= 0 ? fcntl(old, F_DUPFD_CLOEXEC, 0) : -1;
    int dummy = fd >= 0 ? socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    if (dummy < 0 || SSL_set_fd(tls, fd) != 1) {
        goto fail;
    }
    if (dup3(dummy, old, O_CLOEXEC) < 0) {
        (void)SSL_set_fd(tls, old);
        goto fail;
    }
    close(dummy);
    SSL_up_ref(tls);
    SSL_set_quiet_shutdown(tls, 1);
    thread_leaving = (leaving_t){tls, then, arg};
    *tls_out = tls;
    *fd_out = fd;
    return ERR_OK;
fail:
    if (dummy >= 0) {
        close(dummy);
    }
    if (fd >= 0) {
        close(fd);
    }
    return err_set(err, ERR_NO_MEMORY, "no_descriptor", "The server has no room for another connection.", NULL);
}

static void on_connection_closed(const struct mg_connection *conn) {
    leaving_t l = thread_leaving;
    (void)conn;
    if (l.then) {
        memset(&thread_leaving, 0, sizeof thread_leaving);
        SSL_set_shutdown(l.tls, 0); /* civetweb's quiet shutdown marked it as closed */
        SSL_set_quiet_shutdown(l.tls, 0);
        SSL_set_app_data(l.tls, NULL);
        l.then(l.arg);
    }
}

/* ---- the plain port ---- */

/* A Host header that is nothing but a host, so that the redirect cannot be bent; without its port. */
static bool clean_host(const char *host, char *out, size_t room) {
    size_t n = 0;
    if (!host) {
        return false;
    }
    if (host[0] == '[') {
        n = strcspn(host, "]");
        if (host[n] != ']') {
            return false;
        }
        n++;
    } else {
        n = strcspn(host, ":");
    }
    if (n == 0 || n >= room) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)host[i]) && !strchr(".-:[]_", host[i])) {
            return false;
        }
    }
    memcpy(out, host, n);
    out[n] = '\0';
    return true;
}

/* A proxy of ours says that the person reached it without TLS. */
static bool came_plain(const server_t *s, const struct mg_connection *conn) {
    const char *proto = s->gw->proxies ? mg_get_header(conn, "X-Forwarded-Proto") : NULL;
    return proto && strcasecmp(proto, "http") == 0 &&
           proxy_is_trusted(s->gw->proxies, mg_get_request_info(conn)->remote_addr);
}

static void redirect(const server_t *s, struct mg_connection *conn) {
    const struct mg_request_info *info = mg_get_request_info(conn);
    const config_t *cfg = s->gw->cfg;
    char host[256];
    char base[512] = "";
    const char *path = info->local_uri_raw && info->local_uri_raw[0] == '/' ? info->local_uri_raw : "/";
    bool reads = strcmp(info->request_method, "GET") == 0 || strcmp(info->request_method, "HEAD") == 0;
    if (cfg->public_url[0]) {
        (void)snprintf(base, sizeof base, "%.500s", cfg->public_url);
        size_t n = strlen(base);
        if (n > 0 && base[n - 1] == '/') {
            base[n - 1] = '\0';
        }
    } else if (clean_host(mg_get_header(conn, "Host"), host, sizeof host)) {
        /* Behind a proxy the port that people see is the proxy's. */
        bool usual = cfg->https_port == 443 || info->is_ssl;
        (void)snprintf(base, sizeof base, usual ? "https://%s" : "https://%s:%lld", host, (long long)cfg->https_port);
    }
    mg_disable_connection_keep_alive(conn);
    if (!base[0]) {
        mg_printf(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    }
    mg_printf(conn,
              "HTTP/1.1 %d %s\r\nLocation: %s%s%s%s\r\nContent-Length: 0\r\nCache-Control: no-store\r\n"
              "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
              reads ? 301 : 308, http_reason(reads ? 301 : 308), base, path, info->query_string ? "?" : "",
              info->query_string ? info->query_string : "");
}

/* ---- civetweb's callbacks ---- */

static int on_request(struct mg_connection *conn) {
    server_t *s = mg_get_user_context_data(conn);
    const struct mg_request_info *info = mg_get_request_info(conn);
    if (!info->is_ssl || came_plain(s, conn)) {
        redirect(s, conn);
        return 301;
    }
    atomic_fetch_add(&s->in_flight, 1);
    router_serve(s->gw, conn);
    atomic_fetch_sub(&s->in_flight, 1);
    return 200; /* only civetweb's own access log would look at it, and there is none */
}

static int on_log(const struct mg_connection *conn, const char *message) {
    (void)conn;
    /* Handshakes that fail are daily business on a public port. */
    bool noise = strstr(message, "sslize") || strstr(message, "SSL syscall");
    log_event(noise ? LOG_DEBUG : LOG_WARN, "civetweb", "detail", message, NULL);
    return 1;
}

/* Requests that civetweb refuses by itself (no valid request line, headers too long or too slow). */
static int on_error(struct mg_connection *conn, int status, const char *message) {
    char id[37];
    char body[512];
    (void)message;
    if (status == 413 || status == 414) {
        status = 431;
    }
    uuid_v4(id);
    const char *reason = http_reason(status);
    int n = snprintf(
        body, sizeof body,
        "{\"type\":\"urn:spheroseg:problem:request_invalid\",\"title\":\"%s\",\"status\":%d,"
        "\"code\":\"request_invalid\",\"detail\":\"The request could not be understood.\",\"requestId\":\"%s\"}",
        reason, status, id);
    mg_disable_connection_keep_alive(conn);
    mg_printf(
        conn,
        "HTTP/1.1 %d %s\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\nCache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\nX-Request-Id: %s\r\nConnection: close\r\n\r\n%s",
        status, reason, n, id, body);
    return 0;
}

static int on_tls_context(void **ctx, void *user_data) {
    server_t *s = user_data;
    if (*ctx) {
        return 1; /* at the end: we free it ourselves */
    }
    *ctx = s->tls;
    return 1;
}

static int on_connection(const struct mg_connection *conn, void **data) {
    server_t *s = mg_get_user_context_data(conn);
    *data = s; /* counted: a connection whose handshake failed is closed without having been opened */
    atomic_fetch_add(&s->connections, 1);
    return 0;
}

static void on_connection_close(const struct mg_connection *conn) {
    server_t *s = mg_get_user_connection_data(conn);
    if (s) {
        atomic_fetch_sub(&s->connections, 1);
    }
}

/* ---- life ---- */

static bool listening_ports(const config_t *cfg, char *out, size_t room) {
    const char *host = cfg->listen_host;
    const char *open = strchr(host, ':') ? "[" : "";
    const char *close = strchr(host, ':') ? "]" : "";
    int n = snprintf(out, room, "%s%s%s:%llds", open, host, close, (long long)cfg->https_port);
    if (n < 0 || (size_t)n >= room) {
        return false;
    }
    if (cfg->http_port > 0) {
        size_t at = (size_t)n;
        n = snprintf(out + at, room - at, ",%s%s%s:%lld", open, host, close, (long long)cfg->http_port);
        return n > 0 && (size_t)n < room - at;
    }
    return true;
}

static err_kind_t start_civetweb(server_t *s, err_t *err) {
    const config_t *cfg = s->gw->cfg;
    char ports[512];
    char threads[32];
    char timeout[32];
    if (!listening_ports(cfg, ports, sizeof ports)) {
        return err_set(err, ERR_INVALID, "listen_host", "LISTEN_HOST is too long.", NULL);
    }
    (void)snprintf(threads, sizeof threads, "%lld", (long long)cfg->http_threads);
    (void)snprintf(timeout, sizeof timeout, "%lld", (long long)cfg->request_timeout_ms);
    const char *options[] = {"listening_ports",
                             ports,
                             "num_threads",
                             threads,
                             "request_timeout_ms",
                             timeout,
                             "enable_keep_alive",
                             "yes",
                             "keep_alive_timeout_ms",
                             KEEP_ALIVE_MS,
                             "max_request_size",
                             HEADERS_MAX,
                             "listen_backlog",
                             BACKLOG,
                             "connection_queue",
                             WAITING_CONNECTIONS,
                             "tcp_nodelay",
                             "1",
                             "linger_timeout_ms",
                             "2000",
                             "decode_url",
                             "no",
                             "decode_query_string",
                             "no",
                             "ssl_protocol_version",
                             "4",
                             NULL};
    struct mg_callbacks cb;
    memset(&cb, 0, sizeof cb);
    cb.begin_request = on_request;
    cb.log_message = on_log;
    cb.http_error = on_error;
    cb.external_ssl_ctx = on_tls_context;
    cb.init_connection = on_connection;
    cb.connection_close = on_connection_close;
    cb.connection_closed = on_connection_closed;
    if (mg_init_library(MG_FEATURES_TLS) == 0) {
        return err_set(err, ERR_INTERNAL, "tls_failed",
                       "The web server library could not load OpenSSL (libssl.so). Install libssl-dev.",
                       "mg_init_library");
    }
    s->ctx = mg_start(&cb, s, options);
    if (!s->ctx) {
        mg_exit_library();
        return err_setf(err, ERR_UNAVAILABLE, "port_taken",
                        "Cannot listen on %s port %lld%s. Is another program using it? Set HTTPS_PORT and HTTP_PORT.",
                        cfg->listen_host, (long long)cfg->https_port, cfg->http_port > 0 ? " or the plain port" : "");
    }
    return ERR_OK;
}

err_kind_t server_start(gateway_t *gw, server_t **out, err_t *err) {
    server_t *s = calloc(1, sizeof *s);
    if (!s) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    s->gw = gw;
    s->started_ms = time_wall_ms();
    err_kind_t k = tls_prepare(gw->cfg, &s->files, err);
    if (k == ERR_OK) {
        k = tls_context_create(&s->files, &s->tls, err);
    }
    if (k == ERR_OK) {
        SSL_CTX_set_info_callback(s->tls, on_handshake);
        gw->server = s;
        *out = s; /* before the first request */
        router_define_metrics();
        k = start_civetweb(s, err);
    }
    if (k != ERR_OK) {
        *out = NULL;
        gw->server = NULL;
        SSL_CTX_free(s->tls);
        free(s);
    }
    return k;
}

void server_drain(server_t *s) {
    atomic_store(&s->draining, true);
}

bool server_wait_idle(server_t *s, int64_t timeout_ms) {
    int64_t until = time_mono_ms() + timeout_ms;
    while (atomic_load(&s->in_flight) > 0) {
        if (time_mono_ms() >= until) {
            return false;
        }
        time_sleep_ms(10);
    }
    return true;
}

void server_stop(server_t *s) {
    if (!s) {
        return;
    }
    mg_stop(s->ctx);
    mg_exit_library();
    SSL_CTX_free(s->tls);
    s->gw->server = NULL;
    free(s);
}

void server_reload_certificate(server_t *s) {
    err_t err;
    /* civetweb makes each connection's TLS object under its context lock. */
    mg_lock_context(s->ctx);
    err_kind_t k = tls_context_reload(s->tls, &s->files, &err);
    mg_unlock_context(s->ctx);
    if (k == ERR_OK) {
        log_event(LOG_INFO, "certificate loaded again", "file", s->files.cert, NULL);
    } else {
        log_error(LOG_ERROR, "loading the certificate again (the old one stays in use)", &err);
    }
}

void server_watch_certificate(server_t *s, int64_t *stamp) {
    int64_t now = tls_files_stamp(&s->files);
    if (*stamp != 0 && now != 0 && now != *stamp) {
        server_reload_certificate(s);
    }
    if (now != 0) {
        *stamp = now;
    }
}

int server_certificate_days(const server_t *s) {
    int days = 0;
    return tls_days_left(s->files.cert, &days, NULL) == ERR_OK ? days : -1;
}

bool server_is_draining(const server_t *s) {
    return atomic_load(&s->draining);
}

bool server_is_crowded(const server_t *s) {
    return atomic_load(&s->connections) * 4 > (int)s->gw->cfg->http_threads * 3;
}

void server_stats(const server_t *s, server_stats_t *out) {
    out->threads = (int)s->gw->cfg->http_threads;
    out->connections = atomic_load(&s->connections);
    out->in_flight = atomic_load(&s->in_flight);
    out->started_ms = s->started_ms;
    out->draining = server_is_draining(s);
}
