/*
 * One WebSocket after its handshake, on its loop's thread.
 *
 * Nothing here blocks: what the client does not take stays where it is (the message being written, or a copy of the
 * batch that was cut short) and in the bounded queue, and when that overflows the socket is closed with 4408. While the
 * desk works for the client, nothing more is read from it: what was read already waits in `rest`.
 *
 * States: unnamed (5 s to authenticate) -> open -> closing (our close frame is on its way; 3 s for the client's) ->
 * gone. The loop frees what is gone.
 */
#include <cjson/cJSON.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "auth/auth.h"
#include "common/log.h"
#include "common/timeutil.h"
#include "ws_internal.h"

#define STUCK_MS 30000 /* the client took no byte for so long */
#define CLOSE_WAIT_MS 3000
#define RATE_WINDOW_MS_WS 10000
#define RATE_MESSAGES 200 /* client messages in a window; more is not a browser of ours */
#define READ_ROUNDS 16
#define WRITE_ROUNDS 64

enum { CLIENT_SAID_ALL = -1 }; /* a state of the reader: nothing may follow a close frame */

static int64_t ping_ms(const ws_socket_t *s) {
    return s->hub->gw->cfg->ws_ping_ms;
}

/* ---- sending ---- */

/* A batch under construction. */
typedef struct {
    unsigned char *data;
    size_t len;
} batch_t;

static void put_control(batch_t *b, int opcode, const void *data, size_t n) {
    b->len += ws_frame_header(b->data + b->len, opcode, n);
    if (n > 0) {
        memcpy(b->data + b->len, data, n);
        b->len += n;
    }
}

static void put_close(ws_socket_t *s, batch_t *b, int code) {
    unsigned char payload[2] = {(unsigned char)(code >> 8), (unsigned char)(code & 0xff)};
    put_control(b, WS_OP_CLOSE, payload, sizeof payload);
    s->sent_close_code = code;
    s->closing = true;
    s->close_by_ms = time_mono_ms() + CLOSE_WAIT_MS;
}

/* The close that is due once everything before it has been sent; 0: none. */
static int due_close(ws_socket_t *s) {
    pthread_mutex_lock(&s->lock);
    int code = s->count == 0 ? s->close_code : 0;
    pthread_mutex_unlock(&s->lock);
    return code;
}

static void drop_out(ws_socket_t *s) {
    ws_message_release(s->out_message);
    free(s->out_copy);
    s->out_message = NULL;
    s->out_copy = NULL;
    s->out = NULL;
    s->out_len = s->out_sent = 0;
}

/* What goes out next: control frames first, then as many messages as one TLS record holds, or one larger message as it
 * is, without a copy. False: nothing. */
static bool fill(ws_socket_t *s) {
    /* Room is left for the control frames: a pong, a ping and a close. */
    const size_t room = WS_BATCH_BYTES - 2 * (WS_CONTROL_MAX + WS_HEADER_MAX) - WS_HEADER_MAX;
    batch_t b = {ws_loop_scratch(s->loop), 0};
    drop_out(s);
    if (s->closing) {
        return false;
    }
    if (s->wants_pong) {
        put_control(&b, WS_OP_PONG, s->pong, s->pong_len);
        s->wants_pong = false;
    }
    int64_t now = time_mono_ms();
    if (now - s->pinged_ms >= ping_ms(s)) {
        put_control(&b, WS_OP_PING, NULL, 0);
        s->pinged_ms = now;
    }
    ws_message_t *m = NULL;
    while (b.len < room && (m = ws_socket_take(s, room - b.len)) != NULL) {
        memcpy(b.data + b.len, m->frame, m->len);
        b.len += m->len;
        ws_message_release(m);
    }
    int code = due_close(s);
    if (code != 0) {
        put_close(s, &b, code);
    }
    if (b.len == 0 && (m = ws_socket_take(s, SIZE_MAX)) != NULL) {
        s->out_message = m;
        s->out = m->frame;
        s->out_len = m->len;
        return true;
    }
    s->out = b.data;
    s->out_len = b.len;
    return b.len > 0;
}

/* The batch was cut short: the scratch memory is the next socket's, so the rest must be kept. */
static void keep_rest(ws_socket_t *s) {
    if (s->out_message || s->out_copy || s->out_sent >= s->out_len) {
        return;
    }
    s->out_len -= s->out_sent;
    s->out_copy = malloc(s->out_len);
    if (!s->out_copy) {
        s->gone = true;
        return;
    }
    memcpy(s->out_copy, s->out + s->out_sent, s->out_len);
    s->out = s->out_copy;
    s->out_sent = 0;
}

/* True when there may be more to write at once. */
static bool write_some(ws_socket_t *s) {
    for (int rounds = 0; rounds < WRITE_ROUNDS && s->can_write && !s->gone; rounds++) {
        if (s->out_sent >= s->out_len) {
            if (!fill(s)) {
                return false;
            }
            s->moved_ms = time_mono_ms();
        }
        size_t n = 0;
        ERR_clear_error();
        int r = SSL_write_ex(s->tls, s->out + s->out_sent, s->out_len - s->out_sent, &n);
        if (r != 1) {
            int e = SSL_get_error(s->tls, r);
            s->can_write = false;
            if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE) {
                s->gone = s->broken = true;
            }
            keep_rest(s);
            return false;
        }
        s->out_sent += n;
        s->bytes_out += (int64_t)n;
        s->moved_ms = time_mono_ms();
    }
    keep_rest(s);
    return s->can_write && !s->gone;
}

/* ---- what the client says ---- */

static void lower_case(char *text) {
    for (; *text; text++) {
        if (*text >= 'A' && *text <= 'Z') {
            *text = (char)(*text - 'A' + 'a');
        }
    }
}

static void on_auth(ws_socket_t *s, const cJSON *json) {
    const char *token = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "token"));
    token_claims_t claims;
    err_t err;
    if (!token || token_check(s->hub->gw->auth->signer, token, &claims, &err) != ERR_OK) {
        ws_socket_send_text(s, "{\"type\":\"auth.expired\"}");
        ws_socket_close(s, WS_CLOSE_AUTH);
        return;
    }
    if (s->named) {
        if (strcmp(s->user_id, claims.user_id) != 0) {
            ws_socket_close(s, WS_CLOSE_POLICY);
            return;
        }
    } else if (ws_hub_name(s->hub, s, claims.user_id, &err) != ERR_OK) {
        ws_socket_send_error(s, err.code, err.message);
        ws_socket_close(s, WS_CLOSE_TOO_MANY);
        return;
    }
    s->named = true;
    s->expires_ms = claims.expires_at * 1000;
}

static void give_to_desk(ws_socket_t *s, ws_work_t work) {
    s->work = work;
    s->busy = true;
    ws_desk_post(s->hub->desk, s);
}

static void on_subscribe(ws_socket_t *s, const cJSON *json, bool subscribe) {
    const char *project = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "projectId"));
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "queue"))) {
        ws_hub_hear_queue(s->hub, s, subscribe);
        return;
    }
    if (!project || !pg_is_uuid(project)) {
        ws_socket_send_error(s, "message_invalid", "A subscription names a projectId, or queue: true.");
        return;
    }
    memcpy(s->work_project, project, sizeof s->work_project);
    lower_case(s->work_project);
    give_to_desk(s, subscribe ? WS_WORK_SUBSCRIBE : WS_WORK_UNSUBSCRIBE);
}

static void on_ping(ws_socket_t *s, const cJSON *json) {
    cJSON *pong = cJSON_CreateObject();
    cJSON_AddStringToObject(pong, "type", "pong");
    const cJSON *t = cJSON_GetObjectItemCaseSensitive(json, "t");
    if (t) {
        cJSON_AddItemToObject(pong, "t", cJSON_Duplicate(t, cJSON_IsNumber(t) || cJSON_IsString(t)));
    }
    char *text = cJSON_PrintUnformatted(pong);
    cJSON_Delete(pong);
    if (text) {
        ws_socket_send_text(s, text);
        cJSON_free(text);
    }
}

static bool too_many_messages(ws_socket_t *s) {
    int64_t now = time_mono_ms();
    if (now - s->window_start_ms >= RATE_WINDOW_MS_WS) {
        s->window_start_ms = now;
        s->window_messages = 0;
    }
    return ++s->window_messages > RATE_MESSAGES;
}

static void on_text(ws_socket_t *s) {
    if (too_many_messages(s)) {
        ws_socket_close(s, WS_CLOSE_POLICY);
        return;
    }
    int depth = 0;
    for (size_t i = 0; i < s->reader.message_len; i++) {
        depth += s->reader.message[i] == '{' || s->reader.message[i] == '[';
    }
    cJSON *json = depth <= 32 ? cJSON_ParseWithLength(s->reader.message, s->reader.message_len) : NULL;
    const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "type"));
    if (!type) {
        ws_socket_send_error(s, "message_invalid", "A message is a JSON object with a type.");
    } else if (strcmp(type, "auth") == 0) {
        on_auth(s, json);
    } else if (!s->named) {
        ws_socket_send_error(s, "sign_in_required", "The first message must be {\"type\":\"auth\",\"token\":…}.");
    } else if (strcmp(type, "subscribe") == 0) {
        on_subscribe(s, json, true);
    } else if (strcmp(type, "unsubscribe") == 0) {
        on_subscribe(s, json, false);
    } else if (strcmp(type, "ping") == 0) {
        on_ping(s, json);
    } else {
        ws_socket_send_error(s, "message_unknown", "The types are auth, subscribe, unsubscribe and ping.");
    }
    cJSON_Delete(json);
}

static void on_close(ws_socket_t *s) {
    if (s->closing) {
        s->gone = true; /* both have said it */
        return;
    }
    const unsigned char *payload = s->reader.control;
    int code = s->reader.control_len >= 2 ? payload[0] << 8 | payload[1] : WS_CLOSE_NORMAL;
    bool echo = (code >= 1000 && code < 1004) || (code >= 1007 && code <= 1014) || (code >= 3000 && code < 5000);
    ws_socket_close(s, echo ? code : WS_CLOSE_PROTOCOL);
    s->close_by_ms = time_mono_ms() + 1000;
    s->reader.state = CLIENT_SAID_ALL;
}

/* Obeys what was read, until the desk has to do something; what follows is kept for later. */
static void feed_reader(ws_socket_t *s, const unsigned char *data, size_t n) {
    while (n > 0 && !s->gone && !s->busy) {
        size_t used = 0;
        ws_event_t e = ws_reader_feed(&s->reader, data, n, &used);
        data += used;
        n -= used;
        switch (e) {
        case WS_MORE:
        case WS_PONG:
            break;
        case WS_TEXT:
            if (!s->closing) {
                on_text(s);
            }
            ws_reader_free(&s->reader);
            break;
        case WS_PING:
            memcpy(s->pong, s->reader.control, s->reader.control_len);
            s->pong_len = s->reader.control_len;
            s->wants_pong = true;
            break;
        case WS_CLOSE:
            on_close(s);
            return;
        case WS_BROKEN:
            if (s->reader.error) {
                ws_socket_close(s, s->reader.error);
            }
            return;
        }
    }
    if (n > 0 && s->busy) {
        s->rest = malloc(n);
        if (!s->rest) {
            s->gone = true;
            return;
        }
        memcpy(s->rest, data, n);
        s->rest_len = n;
    }
}

/* True when there may be more to read at once. */
static bool read_some(ws_socket_t *s) {
    unsigned char data[4096];
    if (s->rest && !s->busy) {
        unsigned char *rest = s->rest;
        s->rest = NULL;
        feed_reader(s, rest, s->rest_len);
        free(rest);
    }
    for (int rounds = 0; rounds < READ_ROUNDS; rounds++) {
        if (s->gone || s->busy || !s->can_read) {
            return false;
        }
        size_t n = 0;
        ERR_clear_error();
        int r = SSL_read_ex(s->tls, data, sizeof data, &n);
        if (r != 1) {
            int e = SSL_get_error(s->tls, r);
            s->can_read = false;
            if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE) {
                s->gone = true;
                s->broken = e != SSL_ERROR_ZERO_RETURN;
            }
            return false;
        }
        s->heard_ms = time_mono_ms();
        feed_reader(s, data, n);
    }
    return true;
}

/* ---- its turn ---- */

/* A close that was asked for while the client takes nothing: start its clock, or the batch would hold it up for
 * STUCK_MS. */
static void look_at_queue(ws_socket_t *s) {
    pthread_mutex_lock(&s->lock);
    bool resync = s->resync;
    bool closing = s->close_code != 0;
    s->resync = false;
    pthread_mutex_unlock(&s->lock);
    if (resync) {
        ws_hub_want_snapshot(s->hub, s, NULL);
    }
    if (closing && s->close_by_ms == 0) {
        s->close_by_ms = time_mono_ms() + CLOSE_WAIT_MS;
    }
}

static bool snapshot_is_due(ws_socket_t *s, int64_t now) {
    return !s->busy && !s->closing && atomic_load(&s->snapshots_due) && now >= s->retry_snapshot_ms;
}

bool ws_socket_serve(ws_socket_t *s) {
    look_at_queue(s);
    bool more = read_some(s);
    more = write_some(s) || more;
    if (s->closing && s->out_sent >= s->out_len && s->reader.state == CLIENT_SAID_ALL) {
        s->gone = true; /* the client closed and has our answer */
    }
    if (!s->gone && snapshot_is_due(s, time_mono_ms())) {
        give_to_desk(s, WS_WORK_NONE);
    }
    return more && !s->gone;
}

bool ws_socket_check_clocks(ws_socket_t *s, int64_t now) {
    if (!s->named && now >= s->auth_by_ms && !s->closing) {
        ws_socket_send_text(s, "{\"type\":\"auth.expired\"}");
        ws_socket_close(s, WS_CLOSE_AUTH);
        s->auth_by_ms = INT64_MAX;
    }
    if (s->named && !s->closing && time_wall_ms() >= s->expires_ms) {
        ws_socket_send_text(s, "{\"type\":\"auth.expired\"}");
        ws_socket_close(s, WS_CLOSE_AUTH);
        s->expires_ms = INT64_MAX;
    }
    bool stuck = s->out_sent < s->out_len && now - s->moved_ms > STUCK_MS;
    bool dead = !s->busy && now - s->heard_ms > ping_ms(s) * 9 / 4 /* two pings were not answered */;
    if (dead || stuck || (s->close_by_ms != 0 && now >= s->close_by_ms)) {
        s->gone = true;
    }
    return s->gone || now - s->pinged_ms >= ping_ms(s) || snapshot_is_due(s, now);
}

/* ---- life ---- */

ws_socket_t *ws_socket_create(ws_hub_t *hub) {
    ws_socket_t *s = calloc(1, sizeof *s);
    if (!s) {
        return NULL;
    }
    int64_t now = time_mono_ms();
    s->hub = hub;
    s->fd = -1;
    s->room_max = (int)hub->gw->cfg->ws_queue_max;
    pthread_mutex_init(&s->lock, NULL);
    ws_reader_init(&s->reader);
    s->heard_ms = s->pinged_ms = s->moved_ms = now;
    return s;
}

void ws_socket_hang_up(ws_socket_t *s) {
    char code[16];
    char bytes[32];
    if (!s->broken) {
        ERR_clear_error();
        (void)SSL_shutdown(s->tls);
    }
    SSL_free(s->tls);
    s->tls = NULL;
    (void)shutdown(s->fd, SHUT_WR);
    close(s->fd);
    s->fd = -1;
    drop_out(s);
    (void)snprintf(code, sizeof code, "%d", s->sent_close_code);
    (void)snprintf(bytes, sizeof bytes, "%lld", (long long)s->bytes_out);
    log_event(LOG_DEBUG, "WebSocket closed", "requestId", s->request_id, "code", code, "bytes", bytes, NULL);
}

void ws_socket_destroy(ws_socket_t *s) {
    if (!s) {
        return;
    }
    ws_socket_clear(s);
    drop_out(s);
    ws_reader_free(&s->reader);
    free(s->ring);
    free(s->rest);
    free(s->subscriptions);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
