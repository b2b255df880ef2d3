/*
 * The desk: a few threads for what the loops must not wait for (ownership in PostgreSQL, subscribing at Redis,
 * snapshots). A socket is in the line at most once, so the line is as long as there are sockets, and first come is
 * first served.
 */
#include <stdlib.h>

#include "common/thread_util.h"
#include "ws_internal.h"

struct ws_desk {
    ws_hub_t *hub;
    pthread_mutex_t lock;
    pthread_cond_t work;
    ws_socket_t *first, *last;
    bool stop;
    pthread_t threads[WS_DESK_THREADS];
    int running;
};

static void work_for(ws_hub_t *hub, ws_socket_t *s) {
    err_t err;
    switch (s->work) {
    case WS_WORK_SUBSCRIBE:
        if (ws_hub_subscribe(hub, s, s->work_project, &err) != ERR_OK) {
            ws_socket_send_error(s, err.code, err.message);
        }
        break;
    case WS_WORK_UNSUBSCRIBE:
        ws_hub_unsubscribe(hub, s, s->work_project);
        break;
    case WS_WORK_LEAVE:
        ws_hub_leave(hub, s);
        return;
    case WS_WORK_NONE:
        break;
    }
    ws_hub_send_snapshots(hub, s);
}

static void *run(void *arg) {
    ws_desk_t *d = arg;
    pthread_mutex_lock(&d->lock);
    while (!d->stop || d->first) {
        ws_socket_t *s = d->first;
        if (!s) {
            pthread_cond_wait(&d->work, &d->lock);
            continue;
        }
        d->first = s->desk_next;
        if (!d->first) {
            d->last = NULL;
        }
        pthread_mutex_unlock(&d->lock);
        work_for(d->hub, s);
        ws_loop_desk_done(s);
        pthread_mutex_lock(&d->lock);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

void ws_desk_post(ws_desk_t *d, ws_socket_t *s) {
    s->desk_next = NULL;
    pthread_mutex_lock(&d->lock);
    if (d->last) {
        d->last->desk_next = s;
    } else {
        d->first = s;
    }
    d->last = s;
    pthread_cond_signal(&d->work);
    pthread_mutex_unlock(&d->lock);
}

err_kind_t ws_desk_create(ws_hub_t *hub, ws_desk_t **out, err_t *err) {
    ws_desk_t *d = calloc(1, sizeof *d);
    if (!d) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    *out = d;
    d->hub = hub;
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->work, NULL);
    while (d->running < WS_DESK_THREADS) {
        if (thread_start(&d->threads[d->running], "ws-desk", run, d) != 0) {
            return err_set(err, ERR_NO_MEMORY, "no_thread", "Cannot start a thread.", "ws-desk");
        }
        d->running++;
    }
    return ERR_OK;
}

void ws_desk_destroy(ws_desk_t *d) {
    if (!d) {
        return;
    }
    pthread_mutex_lock(&d->lock);
    d->stop = true;
    pthread_cond_broadcast(&d->work);
    pthread_mutex_unlock(&d->lock);
    for (int i = 0; i < d->running; i++) {
        pthread_join(d->threads[i], NULL);
    }
    pthread_cond_destroy(&d->work);
    pthread_mutex_destroy(&d->lock);
    free(d);
}
