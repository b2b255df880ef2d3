/*
 * The handshake of a WebSocket (RFC 6455 §4.2), on the connection's thread. When it is done, the thread and civetweb's
 * connection are free again: the TLS object and the descriptor go to a loop.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "auth/auth.h"
#include "common/timeutil.h"
#include "http_internal.h"
#include "server.h"
#include "ws_internal.h"

#define AUTH_WAIT_MS 5000

static bool header_has(const char *header, const char *word) {
    size_t want = strlen(word);
    for (const char *p = header ? header : ""; *p;) {
        p += strspn(p, ", \t");
        size_t n = strcspn(p, ", \t");
        if (n == want && strncasecmp(p, word, n) == 0) {
            return true;
        }
        p += n;
    }
    return false;
}

static err_kind_t upgrade_required(http_request_t *req, err_t *err) {
    http_add_header(req, "Upgrade", "websocket");
    http_add_header(req, "Sec-WebSocket-Version", "13");
    err_set(err, ERR_INVALID, "upgrade_required", "This address speaks WebSocket (version 13) only.", NULL);
    return http_reply_problem_status(req, 426, err);
}

/* Who is it? A wrong Authorization header is refused at once; an expired cookie is not, because a browser could not
 * tell why: it may still authenticate by message. */
static err_kind_t identify(http_request_t *req, ws_socket_t *s, err_t *err) {
    token_claims_t claims;
    err_kind_t k = auth_identify(req, &claims, err);
    if (k == ERR_OK) {
        s->named = true;
        s->expires_ms = claims.expires_at * 1000;
        return ERR_OK;
    }
    req->user.id[0] = '\0';
    return http_header(req, "Authorization") ? k : ERR_OK;
}

static void adopt(void *arg) {
    ws_loop_adopt(arg);
}

/* Answers 101 and hands the connection over. The socket is registered already. */
static err_kind_t hand_over(http_request_t *req, ws_socket_t *s, const char *accept, err_t *err) {
    memcpy(s->request_id, req->request_id, sizeof s->request_id);
    s->auth_by_ms = time_mono_ms() + AUTH_WAIT_MS;
    if (!server_connection_tls(req->conn)) {
        return err_set(err, ERR_INTERNAL, "no_tls", "The server made a mistake.", "no TLS object for this connection");
    }
    http_add_header(req, "Upgrade", "websocket");
    http_add_header(req, "Connection", "Upgrade");
    http_add_header(req, "Sec-WebSocket-Accept", accept);
    http_write_head(req, 101, NULL, -1, NULL, 0);
    bool sent = !req->close_after;
    req->close_after = true;
    if (!sent) {
        return err_set(err, ERR_UNAVAILABLE, "client_gone", "The client is gone.", NULL);
    }
    return server_detach(req->conn, &s->tls, &s->fd, adopt, s, err);
}

err_kind_t ws_hub_serve(ws_hub_t *hub, http_request_t *req, err_t *err) {
    char accept[32];
    const char *key = http_header(req, "Sec-WebSocket-Key");
    const char *version = http_header(req, "Sec-WebSocket-Version");
    const char *origin = http_header(req, "Origin");
    if (strcmp(req->method, "GET") != 0 || !header_has(http_header(req, "Upgrade"), "websocket") ||
        !header_has(http_header(req, "Connection"), "upgrade") || !version || strcmp(version, "13") != 0 || !key ||
        !ws_accept_key(key, accept)) {
        return upgrade_required(req, err);
    }
    if (origin && !http_origin_is_allowed(req, origin)) {
        return err_set(err, ERR_FORBIDDEN, "origin_forbidden", "Live updates are for pages of this site only.", NULL);
    }
    if (server_is_draining(req->gw->server)) {
        return err_set(err, ERR_UNAVAILABLE, "stopping", "The server is being restarted. Please try again.", NULL);
    }
    ws_socket_t *s = ws_socket_create(hub);
    if (!s) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory. Please try again.", NULL);
    }
    err_kind_t k = identify(req, s, err);
    if (k == ERR_OK) {
        k = ws_hub_enter(hub, s, req->user.id, err);
    }
    if (k == ERR_OK) {
        k = hand_over(req, s, accept, err);
        if (k == ERR_OK) {
            return ERR_OK; /* s is the loop's */
        }
        ws_hub_leave(hub, s);
    }
    ws_socket_destroy(s);
    return k;
}
