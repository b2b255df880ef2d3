/*
 * The listening side: civetweb over TLS, a plain port that only redirects, and the hand-over of each request to the
 * router. One thread belongs to each connection, until it becomes a WebSocket and leaves (server_detach).
 *
 * civetweb leaves three things open that this module closes:
 *  - its request time-out is per read, so a body that trickles in would hold a thread for ever (see http_read_body);
 *  - it drains an unread body of any length before it reuses a connection (see http_exchange_finish);
 *  - it reads a WebSocket on one thread and lets others write to the same TLS object, which OpenSSL does not allow, and
 *    allocates whatever length a frame announces. It also holds one thread per WebSocket. So the gateway
 *    runs the WebSocket protocol itself, on a few threads for all of them (ws_loop.c).
 */
#ifndef SG_GATEWAY_SERVER_H
#define SG_GATEWAY_SERVER_H

#include <openssl/ssl.h>

#include "http.h"

typedef struct server server_t;

typedef struct {
    int threads, connections, in_flight; /* in_flight: requests being answered now */
    int64_t started_ms;                  /* wall clock */
    bool draining;
} server_stats_t;

/* Opens the ports and starts to answer. gw is kept by reference; gw->server is set. */
ERR_MUST err_kind_t server_start(gateway_t *gw, server_t **out, err_t *err);
/* New answers close their connections; readiness says no. */
void server_drain(server_t *s);
/* Waits until no request is in flight, at most timeout_ms; true when that came about. */
bool server_wait_idle(server_t *s, int64_t timeout_ms);
void server_stop(server_t *s); /* cuts what still runs, joins every thread, frees; NULL is allowed */
/* Takes a renewed certificate into use; connections go on. */
void server_reload_certificate(server_t *s);
/* Does that when the files changed since the last call; *stamp starts as 0 and belongs to the caller. */
void server_watch_certificate(server_t *s, int64_t *stamp);
/* Days that the certificate is still valid; -1 when it is expired or cannot be read. */
int server_certificate_days(const server_t *s);

bool server_is_draining(const server_t *s);
/* Are so many threads taken that idle connections should not be kept? */
bool server_is_crowded(const server_t *s);
void server_stats(const server_t *s, server_stats_t *out);

/* The TLS object of the connection whose thread this is; NULL on the plain port or on another thread. */
SSL *server_connection_tls(const struct mg_connection *conn);
/* Takes the connection out of civetweb's hands: its TLS object (with a reference of its own) and its descriptor. To be
 * called by a handler that has answered and reads no more, with keep-alive off. then(arg) is called on this thread once
 * civetweb has let go of both; until then nobody may touch them. On failure nothing has changed. */
ERR_MUST err_kind_t server_detach(struct mg_connection *conn, SSL **tls, int *fd, void (*then)(void *arg), void *arg,
                                  err_t *err);

#endif
