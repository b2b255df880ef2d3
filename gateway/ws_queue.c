/*
 * What waits for one socket: shared messages in a ring that grows to WS_QUEUE_MAX places, filled by any thread, emptied
 * by the socket's loop. Progress of one job takes one place, however much of it comes.
 */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ws_internal.h"

#define RING_START 8

/* ---- messages ---- */

ws_message_t *ws_message_create(ws_hub_t *hub, const char *text, size_t len, const char *key, bool progress) {
    unsigned char header[WS_HEADER_MAX];
    size_t head = ws_frame_header(header, WS_OP_TEXT, len);
    ws_message_t *m = malloc(sizeof *m + head + len);
    if (!m) {
        return NULL;
    }
    atomic_init(&m->refs, 1);
    m->account = &hub->message_bytes;
    m->progress = progress;
    (void)snprintf(m->key, sizeof m->key, "%s", key ? key : "");
    m->len = head + len;
    memcpy(m->frame, header, head);
    memcpy(m->frame + head, text, len);
    atomic_fetch_add(m->account, m->len);
    return m;
}

void ws_message_release(ws_message_t *m) {
    if (m && atomic_fetch_sub(&m->refs, 1) == 1) {
        atomic_fetch_sub(m->account, m->len);
        free(m);
    }
}

/* ---- queue ---- */

/* lock held */
static void clear_queue(ws_socket_t *s) {
    while (s->count > 0) {
        ws_message_release(s->ring[s->head]);
        s->head = (s->head + 1) % s->room;
        s->count--;
    }
    s->bytes = 0;
}

/* lock held */
static bool make_room(ws_socket_t *s) {
    if (s->count < s->room) {
        return true;
    }
    int room = s->room == 0 ? RING_START : s->room * 2;
    room = room < s->room_max ? room : s->room_max;
    if (room <= s->room || room < 1) {
        return false;
    }
    ws_message_t **ring = calloc((size_t)room, sizeof(ws_message_t *));
    if (!ring) {
        return false;
    }
    for (int i = 0; i < s->count; i++) {
        ring[i] = s->ring[(s->head + i) % s->room];
    }
    free(s->ring);
    s->ring = ring;
    s->room = room;
    s->head = 0;
    return true;
}

/* Replaces the waiting progress of the same job, if the last thing that waits about that job is progress. lock held */
static bool coalesce(ws_socket_t *s, ws_message_t *m) {
    if (!m->progress) {
        return false;
    }
    for (int i = s->count - 1; i >= 0; i--) {
        ws_message_t **slot = &s->ring[(s->head + i) % s->room];
        if (strcmp((*slot)->key, m->key) != 0) {
            continue;
        }
        if (!(*slot)->progress) {
            return false;
        }
        s->bytes = s->bytes - (*slot)->len + m->len;
        ws_message_release(*slot);
        atomic_fetch_add(&m->refs, 1);
        *slot = m;
        atomic_fetch_add(&s->hub->dropped_total, 1);
        return true;
    }
    return false;
}

/* Would one more be too much? Also when everybody's messages together are: then whoever has some waiting is the one
 * who is behind. lock held */
static bool is_full(const ws_socket_t *s, const ws_message_t *m) {
    return s->count >= s->room_max || s->bytes + m->len > WS_QUEUE_BYTES_MAX ||
           (s->count > 0 && atomic_load(&s->hub->message_bytes) > WS_ALL_BYTES_MAX);
}

void ws_socket_send(ws_socket_t *s, ws_message_t *m) {
    pthread_mutex_lock(&s->lock);
    if (s->close_code != 0 || coalesce(s, m)) {
        pthread_mutex_unlock(&s->lock);
        return;
    }
    if (is_full(s, m) || !make_room(s)) {
        s->close_code = WS_CLOSE_SLOW;
        clear_queue(s);
        atomic_fetch_add(&s->hub->slow_total, 1);
    } else {
        atomic_fetch_add(&m->refs, 1);
        s->ring[(s->head + s->count) % s->room] = m;
        s->count++;
        s->bytes += m->len;
    }
    pthread_mutex_unlock(&s->lock);
    ws_loop_touch(s);
}

void ws_socket_send_text(ws_socket_t *s, const char *text) {
    ws_message_t *m = ws_message_create(s->hub, text, strlen(text), NULL, false);
    if (m) {
        ws_socket_send(s, m);
        ws_message_release(m);
    }
}

void ws_socket_send_error(ws_socket_t *s, const char *code, const char *message) {
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "type", "error");
    cJSON_AddStringToObject(json, "code", code);
    cJSON_AddStringToObject(json, "message", message);
    char *text = cJSON_PrintUnformatted(json);
    cJSON_Delete(json);
    if (text) {
        ws_socket_send_text(s, text);
        cJSON_free(text);
    }
}

void ws_socket_close(ws_socket_t *s, int code) {
    pthread_mutex_lock(&s->lock);
    if (s->close_code == 0) {
        s->close_code = code;
    }
    pthread_mutex_unlock(&s->lock);
    ws_loop_touch(s);
}

void ws_socket_resync(ws_socket_t *s) {
    pthread_mutex_lock(&s->lock);
    s->resync = true;
    pthread_mutex_unlock(&s->lock);
    ws_loop_touch(s);
}

ws_message_t *ws_socket_take(ws_socket_t *s, size_t most) {
    ws_message_t *m = NULL;
    pthread_mutex_lock(&s->lock);
    if (s->count > 0 && s->ring[s->head]->len <= most) {
        m = s->ring[s->head];
        s->head = (s->head + 1) % s->room;
        s->count--;
        s->bytes -= m->len;
    }
    pthread_mutex_unlock(&s->lock);
    if (m) {
        atomic_fetch_add(&s->hub->sent_total, 1);
    }
    return m;
}

void ws_socket_clear(ws_socket_t *s) {
    pthread_mutex_lock(&s->lock);
    clear_queue(s);
    pthread_mutex_unlock(&s->lock);
}
