/*
 * One WebSocket, from handshake to close, on its connection's thread.
 *
 * The thread waits in poll() for two things: bytes from the client, and an eventfd that says that something was put
 * into its queue. Reads and writes never block: what the client does not take stays in `out` (one batch of whole
 * frames) and in the bounded queue, and when that overflows the socket is closed with 4408.
 *
 * States: unnamed (5 s to authenticate) -> open -> closing (our close frame is on its way; 3 s for the client's) ->
 * gone.
 */
#include <errno.h>
#include <inttypes.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "auth/auth.h"
#include "common/log.h"
#include "common/timeutil.h"
#include "http_internal.h"
#include "server.h"
#include "ws_internal.h"

#define AUTH_WAIT_MS 5000
#define PING_MS 20000
#define DEAD_MS 45000  /* nothing heard for so long: two pings unanswered */
#define STUCK_MS 30000 /* the client took no byte for so long */
#define CLOSE_WAIT_MS 3000
#define SNAPSHOT_RETRY_MS 2000
#define BATCH_BYTES ((size_t)16 * 1024)
#define RATE_WINDOW_MS_WS 10000
#define RATE_MESSAGES 200 /* client messages in a window; more is not a browser of ours */

typedef struct {
    ws_socket_t socket;
    http_request_t *req;
    SSL *tls;
    int fd;
    ws_reader_t reader;
    buf_t out; /* frames being written */
    size_t out_sent;
    bool named, closing, gone, tls_wants_write;
    int sent_close_code;
    unsigned char pong[WS_CONTROL_MAX];
    size_t pong_len;
    bool wants_pong;
    int64_t expires_ms; /* wall clock; of the access token */
    int64_t heard_ms, pinged_ms, moved_ms, close_by_ms, auth_by_ms, retry_snapshot_ms;
    int64_t window_start_ms;
    int window_messages;
} session_t;

/* ---- sending: own thread ---- */

static void send_text(session_t *c, const char *text) {
    ws_message_t *m = ws_message_create(text, strlen(text), NULL, false);
    if (m) {
        ws_socket_send(&c->socket, m);
        ws_message_release(m);
    }
}

static void send_error(session_t *c, const char *code, const char *message) {
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "type", "error");
    cJSON_AddStringToObject(json, "code", code);
    cJSON_AddStringToObject(json, "message", message);
    char *text = cJSON_PrintUnformatted(json);
    cJSON_Delete(json);
    if (text) {
        send_text(c, text);
        cJSON_free(text);
    }
}

static void put_frame(buf_t *out, int opcode, const void *data, size_t n) {
    unsigned char header[WS_HEADER_MAX];
    buf_append(out, header, ws_frame_header(header, opcode, n));
    if (n > 0) {
        buf_append(out, data, n);
    }
}

static void put_close(session_t *c, int code) {
    unsigned char payload[2] = {(unsigned char)(code >> 8), (unsigned char)(code & 0xff)};
    put_frame(&c->out, WS_OP_CLOSE, payload, sizeof payload);
    c->sent_close_code = code;
    c->closing = true;
    c->close_by_ms = time_mono_ms() + CLOSE_WAIT_MS;
}

/* Fills `out` with the next batch: control frames first, then messages up to BATCH_BYTES (or one larger message). */
static void fill(session_t *c) {
    ws_socket_t *s = &c->socket;
    int close_code;
    buf_reset(&c->out);
    c->out_sent = 0;
    if (c->out.room > 8 * BATCH_BYTES) {
        buf_free(&c->out);
        buf_init(&c->out, WS_QUEUE_BYTES_MAX + WS_HEADER_MAX);
    }
    if (c->closing) {
        return;
    }
    if (c->wants_pong) {
        put_frame(&c->out, WS_OP_PONG, c->pong, c->pong_len);
        c->wants_pong = false;
    }
    int64_t now = time_mono_ms();
    if (now - c->pinged_ms >= PING_MS) {
        put_frame(&c->out, WS_OP_PING, NULL, 0);
        c->pinged_ms = now;
    }
    pthread_mutex_lock(&s->lock);
    while (s->count > 0 && c->out.len < BATCH_BYTES) {
        ws_message_t *m = s->ring[s->head];
        s->head = (s->head + 1) % s->room;
        s->count--;
        s->bytes -= m->len;
        put_frame(&c->out, WS_OP_TEXT, m->text, m->len);
        ws_message_release(m);
        atomic_fetch_add(&s->hub->sent_total, 1);
    }
    close_code = s->count == 0 ? s->close_code : 0;
    pthread_mutex_unlock(&s->lock);
    if (close_code != 0) {
        put_close(c, close_code);
    }
    if (c->out.failed) {
        c->gone = true;
    }
}

/* True when there may be more to write at once. */
static bool write_some(session_t *c) {
    for (int rounds = 0; rounds < 64 && !c->gone; rounds++) {
        if (c->out_sent >= c->out.len) {
            fill(c);
            if (c->out.len == 0) {
                return false;
            }
            c->moved_ms = time_mono_ms();
        }
        size_t n = 0;
        ERR_clear_error();
        int r = SSL_write_ex(c->tls, c->out.data + c->out_sent, c->out.len - c->out_sent, &n);
        if (r != 1) {
            int e = SSL_get_error(c->tls, r);
            c->gone = e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE;
            return false;
        }
        c->out_sent += n;
        c->req->bytes_out += (int64_t)n;
        c->moved_ms = time_mono_ms();
    }
    return true;
}

/* ---- what the client says ---- */

static void lower_case(char *s) {
    for (; *s; s++) {
        if (*s >= 'A' && *s <= 'Z') {
            *s = (char)(*s - 'A' + 'a');
        }
    }
}

static void on_auth(session_t *c, const cJSON *json) {
    const char *token = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "token"));
    token_claims_t claims;
    err_t err;
    auth_t *auth = c->req->gw->auth;
    if (!token || token_check(auth->signer, token, &claims, &err) != ERR_OK) {
        send_text(c, "{\"type\":\"auth.expired\"}");
        ws_socket_close(&c->socket, WS_CLOSE_AUTH);
        return;
    }
    if (c->named) {
        if (strcmp(c->socket.user_id, claims.user_id) != 0) {
            ws_socket_close(&c->socket, WS_CLOSE_POLICY);
            return;
        }
    } else if (ws_hub_name(c->socket.hub, &c->socket, claims.user_id, &err) != ERR_OK) {
        send_error(c, err.code, err.message);
        ws_socket_close(&c->socket, WS_CLOSE_TOO_MANY);
        return;
    }
    memcpy(c->req->user.id, claims.user_id, sizeof c->req->user.id);
    c->named = true;
    c->expires_ms = claims.expires_at * 1000;
}

static void on_subscribe(session_t *c, const cJSON *json, bool subscribe) {
    ws_hub_t *hub = c->socket.hub;
    const char *project = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "projectId"));
    err_t err;
    char id[37];
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "queue"))) {
        ws_hub_hear_queue(hub, &c->socket, subscribe);
        return;
    }
    if (!project || !pg_is_uuid(project)) {
        send_error(c, "message_invalid", "A subscription names a projectId, or queue: true.");
        return;
    }
    memcpy(id, project, sizeof id);
    lower_case(id);
    if (!subscribe) {
        ws_hub_unsubscribe(hub, &c->socket, id);
    } else if (ws_hub_subscribe(hub, &c->socket, id, &err) != ERR_OK) {
        send_error(c, err.code, err.message);
    }
}

static void on_ping(session_t *c, const cJSON *json) {
    cJSON *pong = cJSON_CreateObject();
    cJSON_AddStringToObject(pong, "type", "pong");
    const cJSON *t = cJSON_GetObjectItemCaseSensitive(json, "t");
    if (t) {
        cJSON_AddItemToObject(pong, "t", cJSON_Duplicate(t, cJSON_IsNumber(t) || cJSON_IsString(t)));
    }
    char *text = cJSON_PrintUnformatted(pong);
    cJSON_Delete(pong);
    if (text) {
        send_text(c, text);
        cJSON_free(text);
    }
}

static bool too_many_messages(session_t *c) {
    int64_t now = time_mono_ms();
    if (now - c->window_start_ms >= RATE_WINDOW_MS_WS) {
        c->window_start_ms = now;
        c->window_messages = 0;
    }
    return ++c->window_messages > RATE_MESSAGES;
}

static void on_text(session_t *c) {
    if (too_many_messages(c)) {
        ws_socket_close(&c->socket, WS_CLOSE_POLICY);
        return;
    }
    int depth = 0;
    for (size_t i = 0; i < c->reader.message_len; i++) {
        depth += c->reader.message[i] == '{' || c->reader.message[i] == '[';
    }
    cJSON *json = depth <= 32 ? cJSON_ParseWithLength(c->reader.message, c->reader.message_len) : NULL;
    const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "type"));
    if (!type) {
        send_error(c, "message_invalid", "A message is a JSON object with a type.");
    } else if (strcmp(type, "auth") == 0) {
        on_auth(c, json);
    } else if (!c->named) {
        send_error(c, "sign_in_required", "The first message must be {\"type\":\"auth\",\"token\":…}.");
    } else if (strcmp(type, "subscribe") == 0) {
        on_subscribe(c, json, true);
    } else if (strcmp(type, "unsubscribe") == 0) {
        on_subscribe(c, json, false);
    } else if (strcmp(type, "ping") == 0) {
        on_ping(c, json);
    } else {
        send_error(c, "message_unknown", "The types are auth, subscribe, unsubscribe and ping.");
    }
    cJSON_Delete(json);
}

static void on_close(session_t *c) {
    if (!c->closing) {
        int code = c->reader.control_len >= 2 ? c->reader.control[0] << 8 | c->reader.control[1] : WS_CLOSE_NORMAL;
        bool echo = (code >= 1000 && code < 1004) || (code >= 1007 && code <= 1014) || (code >= 3000 && code < 5000);
        ws_socket_close(&c->socket, echo ? code : WS_CLOSE_PROTOCOL);
        c->close_by_ms = time_mono_ms() + 1000;
        c->reader.state = -1; /* nothing may follow a close frame */
    } else {
        c->gone = true; /* both have said it */
    }
}

static void feed_reader(session_t *c, const unsigned char *data, size_t n) {
    while (n > 0 && !c->gone) {
        size_t used = 0;
        ws_event_t e = ws_reader_feed(&c->reader, data, n, &used);
        data += used;
        n -= used;
        switch (e) {
        case WS_MORE:
        case WS_PONG:
            break;
        case WS_TEXT:
            if (!c->closing) {
                on_text(c);
            }
            break;
        case WS_PING:
            memcpy(c->pong, c->reader.control, c->reader.control_len);
            c->pong_len = c->reader.control_len;
            c->wants_pong = true;
            break;
        case WS_CLOSE:
            on_close(c);
            return;
        case WS_BROKEN:
            if (c->reader.error) {
                ws_socket_close(&c->socket, c->reader.error);
            }
            return;
        }
    }
}

static void read_some(session_t *c) {
    unsigned char data[4096];
    for (int rounds = 0; rounds < 16 && !c->gone; rounds++) {
        size_t n = 0;
        ERR_clear_error();
        int r = SSL_read_ex(c->tls, data, sizeof data, &n);
        if (r != 1) {
            int e = SSL_get_error(c->tls, r);
            c->tls_wants_write = e == SSL_ERROR_WANT_WRITE;
            c->gone = e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE;
            return;
        }
        c->heard_ms = time_mono_ms();
        feed_reader(c, data, n);
    }
}

/* ---- the loop ---- */

static void send_snapshots(session_t *c) {
    ws_hub_t *hub = c->socket.hub;
    char project_id[37];
    err_t err;
    if (c->closing || time_mono_ms() < c->retry_snapshot_ms) {
        return;
    }
    while (ws_hub_next_snapshot(hub, &c->socket, project_id)) {
        ws_message_t *m = NULL;
        err_kind_t k = ws_hub_snapshot(hub, project_id, c->socket.user_id, &m, &err);
        if (k == ERR_OK) {
            ws_socket_send(&c->socket, m);
            ws_message_release(m);
        } else if (k == ERR_NOT_FOUND) {
            ws_hub_unsubscribe(hub, &c->socket, project_id);
            send_error(c, err.code, err.message);
        } else {
            log_error(LOG_WARN, "making a snapshot", &err);
            ws_hub_want_snapshot(hub, &c->socket, project_id);
            c->retry_snapshot_ms = time_mono_ms() + SNAPSHOT_RETRY_MS;
            return;
        }
    }
}

static void check_clocks(session_t *c) {
    int64_t now = time_mono_ms();
    if (!c->named && now >= c->auth_by_ms && !c->closing) {
        send_text(c, "{\"type\":\"auth.expired\"}");
        ws_socket_close(&c->socket, WS_CLOSE_AUTH);
        c->auth_by_ms = INT64_MAX;
    }
    if (c->named && !c->closing && time_wall_ms() >= c->expires_ms) {
        send_text(c, "{\"type\":\"auth.expired\"}");
        ws_socket_close(&c->socket, WS_CLOSE_AUTH);
        c->expires_ms = INT64_MAX;
    }
    bool stuck = c->out_sent < c->out.len && now - c->moved_ms > STUCK_MS;
    if (now - c->heard_ms > DEAD_MS || stuck || (c->close_by_ms != 0 && now >= c->close_by_ms)) {
        c->gone = true;
    }
}

/* A close that was asked for while the client takes nothing: start its clock, or the batch would hold it up for
 * STUCK_MS. */
static void look_at_queue(session_t *c) {
    ws_socket_t *s = &c->socket;
    uint64_t n = 0;
    ssize_t r = read(s->wake_fd, &n, sizeof n);
    (void)r;
    pthread_mutex_lock(&s->lock);
    bool resync = s->resync;
    bool closing = s->close_code != 0;
    s->resync = false;
    pthread_mutex_unlock(&s->lock);
    if (resync) {
        ws_hub_want_snapshot(s->hub, s, NULL);
    }
    if (closing && c->close_by_ms == 0) {
        c->close_by_ms = time_mono_ms() + CLOSE_WAIT_MS;
    }
}

static void run(session_t *c) {
    while (!c->gone) {
        look_at_queue(c);
        send_snapshots(c);
        bool more = write_some(c);
        bool blocked = c->out_sent < c->out.len || c->tls_wants_write;
        struct pollfd p[2] = {{.fd = c->fd, .events = (short)(POLLIN | (blocked ? POLLOUT : 0))},
                              {.fd = c->socket.wake_fd, .events = POLLIN}};
        int wait_ms = more || SSL_pending(c->tls) > 0 ? 0 : 500;
        if (!c->gone && poll(p, 2, wait_ms) < 0 && errno != EINTR) {
            c->gone = true;
        }
        read_some(c);
        check_clocks(c);
        if (c->closing && c->out_sent >= c->out.len && c->reader.state == -1) {
            c->gone = true; /* the client closed and has our answer */
        }
    }
}

/* ---- handshake ---- */

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
static err_kind_t identify(http_request_t *req, session_t *c, err_t *err) {
    token_claims_t claims;
    err_kind_t k = auth_identify(req, &claims, err);
    if (k == ERR_OK) {
        c->named = true;
        c->expires_ms = claims.expires_at * 1000;
        return ERR_OK;
    }
    req->user.id[0] = '\0';
    return http_header(req, "Authorization") ? k : ERR_OK;
}

static err_kind_t session_open(session_t *c, http_request_t *req, err_t *err) {
    ws_socket_t *s = &c->socket;
    pthread_mutex_init(&s->lock, NULL);
    s->room = (int)req->gw->cfg->ws_queue_max;
    s->ring = calloc((size_t)s->room, sizeof(ws_message_t *));
    s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    c->req = req;
    c->tls = server_connection_tls(req->conn);
    ws_reader_init(&c->reader);
    buf_init(&c->out, WS_QUEUE_BYTES_MAX + WS_HEADER_MAX);
    if (!s->ring || s->wake_fd < 0) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory. Please try again.", NULL);
    }
    if (!c->tls) {
        return err_set(err, ERR_INTERNAL, "no_tls", "The server made a mistake.", "no TLS object for this connection");
    }
    c->fd = SSL_get_fd(c->tls);
    return ERR_OK;
}

static void session_close(session_t *c) {
    ws_socket_t *s = &c->socket;
    if (s->ring) {
        ws_socket_clear(s);
    }
    free(s->ring);
    if (s->wake_fd >= 0) {
        close(s->wake_fd);
    }
    pthread_mutex_destroy(&s->lock);
    buf_free(&c->out);
    free(c);
}

static void serve_open(session_t *c, const char *accept) {
    http_request_t *req = c->req;
    int64_t now = time_mono_ms();
    http_add_header(req, "Upgrade", "websocket");
    http_add_header(req, "Connection", "Upgrade");
    http_add_header(req, "Sec-WebSocket-Accept", accept);
    http_write_head(req, 101, NULL, -1, NULL, 0);
    c->heard_ms = c->pinged_ms = c->moved_ms = now;
    c->auth_by_ms = now + AUTH_WAIT_MS;
    if (!req->close_after) {
        run(c);
    }
    req->close_after = true;
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
    session_t *c = calloc(1, sizeof *c);
    if (!c) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory. Please try again.", NULL);
    }
    err_kind_t k = session_open(c, req, err);
    if (k == ERR_OK) {
        k = identify(req, c, err);
    }
    if (k == ERR_OK) {
        k = ws_hub_enter(hub, &c->socket, req->user.id, err);
    }
    if (k == ERR_OK) {
        server_count_websocket(req->gw->server, 1);
        serve_open(c, accept);
        server_count_websocket(req->gw->server, -1);
        ws_hub_leave(hub, &c->socket);
        char code[16];
        (void)snprintf(code, sizeof code, "%d", c->sent_close_code);
        log_event(LOG_DEBUG, "WebSocket closed", "requestId", req->request_id, "code", code, NULL);
    }
    session_close(c);
    return k;
}
