/*
 * What waits for one socket: shared messages in a ring of WS_QUEUE_MAX, filled by any thread, emptied by the socket's
 * own. Progress of one job takes one place, however much of it comes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ws_internal.h"

/* ---- messages ---- */

ws_message_t *ws_message_create(const char *text, size_t len, const char *key, bool progress) {
    ws_message_t *m = malloc(sizeof *m + len + 1);
    if (!m) {
        return NULL;
    }
    atomic_init(&m->refs, 1);
    m->progress = progress;
    (void)snprintf(m->key, sizeof m->key, "%s", key ? key : "");
    m->len = len;
    memcpy(m->text, text, len);
    m->text[len] = '\0';
    return m;
}

void ws_message_release(ws_message_t *m) {
    if (m && atomic_fetch_sub(&m->refs, 1) == 1) {
        free(m);
    }
}

/* ---- queue ---- */

static void wake(const ws_socket_t *s) {
    uint64_t one = 1;
    ssize_t n = write(s->wake_fd, &one, sizeof one);
    (void)n; /* a full counter means that it is awake already */
}

/* lock held */
static void clear_queue(ws_socket_t *s) {
    while (s->count > 0) {
        ws_message_release(s->ring[s->head]);
        s->head = (s->head + 1) % s->room;
        s->count--;
    }
    s->bytes = 0;
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

void ws_socket_send(ws_socket_t *s, ws_message_t *m) {
    pthread_mutex_lock(&s->lock);
    if (s->close_code != 0 || coalesce(s, m)) {
        pthread_mutex_unlock(&s->lock);
        return;
    }
    if (s->count >= s->room || s->bytes + m->len > WS_QUEUE_BYTES_MAX) {
        s->close_code = WS_CLOSE_SLOW;
        clear_queue(s);
    } else {
        atomic_fetch_add(&m->refs, 1);
        s->ring[(s->head + s->count) % s->room] = m;
        s->count++;
        s->bytes += m->len;
    }
    pthread_mutex_unlock(&s->lock);
    wake(s);
}

void ws_socket_close(ws_socket_t *s, int code) {
    pthread_mutex_lock(&s->lock);
    if (s->close_code == 0) {
        s->close_code = code;
    }
    pthread_mutex_unlock(&s->lock);
    wake(s);
}

void ws_socket_resync(ws_socket_t *s) {
    pthread_mutex_lock(&s->lock);
    s->resync = true;
    pthread_mutex_unlock(&s->lock);
    wake(s);
}

void ws_socket_clear(ws_socket_t *s) {
    pthread_mutex_lock(&s->lock);
    clear_queue(s);
    pthread_mutex_unlock(&s->lock);
}
