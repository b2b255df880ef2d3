/*
 * Who is there, and the way of an event. The subscriber's thread takes each event from Redis, drops what was overtaken,
 * and puts one shared, framed message into the queues of those that hear its project; it never writes to a socket and
 * never asks the database. A second thread makes the queue's status once a second while somebody listens.
 */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/thread_util.h"
#include "common/timeutil.h"
#include "ws_internal.h"

#define CHANNEL_PREFIX "sg:events:"
#define FEED_MS 1000
#define ORDER_JOBS 65536 /* 3 MiB */

/* ---- the subscriber's side ---- */

typedef struct {
    char job_id[37]; /* empty: not about a job */
    int64_t seq;     /* 0: has none */
    ws_message_t *message;
} event_t;

/* Progress: a job that is still active. Any other change of a job must arrive. */
static event_t event_parse(ws_hub_t *hub, const char *text, size_t len) {
    event_t e = {.job_id = ""};
    bool progress = false;
    cJSON *json = cJSON_ParseWithLength(text, len);
    const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "type"));
    const char *job = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "jobId"));
    const char *state = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "state"));
    const cJSON *seq = cJSON_GetObjectItemCaseSensitive(json, "seq");
    if (type && job && strcmp(type, "job") == 0) {
        (void)snprintf(e.job_id, sizeof e.job_id, "%s", job);
        progress = state && strcmp(state, "active") == 0;
        if (cJSON_IsNumber(seq) && seq->valuedouble > 0 && seq->valuedouble < 9007199254740992.0) {
            e.seq = (int64_t)seq->valuedouble;
        }
    }
    e.message = type ? ws_message_create(hub, text, len, e.job_id, progress) : NULL;
    cJSON_Delete(json);
    return e;
}

/* hub->lock held */
static void fan_out(ws_hub_t *hub, const ws_project_t *p, const event_t *e) {
    ws_order_verdict_t v = {false, 0};
    if (e->seq > 0) {
        v = ws_order_event(hub->order, e->job_id, e->seq);
    }
    if (v.stale) {
        atomic_fetch_add(&hub->stale_total, 1);
        return;
    }
    for (int i = 0; i < p->count; i++) {
        const ws_listener_t *l = &p->listeners[i];
        if (!ws_order_is_known(v, l->snapshot, l->begun)) {
            ws_socket_send(l->socket, e->message);
        }
    }
}

static void on_event(void *arg, const char *channel, const char *text, size_t len) {
    ws_hub_t *hub = arg;
    if (!text) {
        pthread_mutex_lock(&hub->lock);
        for (ws_socket_t *s = hub->sockets; s; s = s->next) {
            ws_socket_resync(s);
        }
        pthread_mutex_unlock(&hub->lock);
        return;
    }
    if (!channel || strncmp(channel, CHANNEL_PREFIX, sizeof CHANNEL_PREFIX - 1) != 0) {
        return;
    }
    event_t e = event_parse(hub, text, len);
    if (!e.message) {
        return;
    }
    pthread_mutex_lock(&hub->lock);
    const ws_project_t *p = ws_project_find(hub, channel + sizeof CHANNEL_PREFIX - 1);
    if (p) {
        fan_out(hub, p, &e);
    }
    pthread_mutex_unlock(&hub->lock);
    ws_message_release(e.message);
}

/* ---- the queue's status ---- */

static bool somebody_hears_queue(ws_hub_t *hub) {
    bool yes = false;
    pthread_mutex_lock(&hub->lock);
    for (ws_socket_t *s = hub->sockets; s && !yes; s = s->next) {
        yes = s->hears_queue;
    }
    pthread_mutex_unlock(&hub->lock);
    return yes;
}

static ws_message_t *queue_message(ws_hub_t *hub) {
    static const char head[] = "{\"type\":\"queue\",";
    char *json = NULL;
    ws_message_t *m = NULL;
    buf_t b;
    if (queue_status_json(hub->gw->queue, &json, NULL) != ERR_OK) {
        return NULL;
    }
    buf_init(&b, (size_t)4 * 1024 * 1024);
    if (json[0] == '{' && json[1] != '}') {
        buf_puts(&b, head);
        buf_puts(&b, json + 1);
    }
    if (b.len > 0 && !b.failed) {
        m = ws_message_create(hub, b.data, b.len, "queue", true);
    }
    buf_free(&b);
    free(json);
    return m;
}

static void *feed(void *arg) {
    ws_hub_t *hub = arg;
    int64_t next = 0;
    while (!atomic_load(&hub->stop)) {
        time_sleep_ms(50);
        if (time_mono_ms() < next || !somebody_hears_queue(hub)) {
            continue;
        }
        next = time_mono_ms() + FEED_MS;
        ws_message_t *m = queue_message(hub);
        if (!m) {
            continue;
        }
        pthread_mutex_lock(&hub->lock);
        for (ws_socket_t *s = hub->sockets; s; s = s->next) {
            if (s->hears_queue) {
                ws_socket_send(s, m);
            }
        }
        pthread_mutex_unlock(&hub->lock);
        ws_message_release(m);
    }
    return NULL;
}

/* ---- sockets come and go ---- */

static err_kind_t check_person(ws_hub_t *hub, const char *user_id, err_t *err) {
    int own = 0;
    for (const ws_socket_t *s = hub->sockets; s; s = s->next) {
        own += strcmp(s->user_id, user_id) == 0;
    }
    if (own >= hub->gw->cfg->ws_max_per_user) {
        return err_set(err, ERR_LIMIT, "too_many_sockets",
                       "You have too many live connections open. Close some windows and try again.", NULL);
    }
    return ERR_OK;
}

err_kind_t ws_hub_enter(ws_hub_t *hub, ws_socket_t *s, const char *user_id, err_t *err) {
    err_kind_t k = ERR_OK;
    s->loop = hub->loops[atomic_fetch_add(&hub->next_loop, 1) % (unsigned)hub->loop_count];
    pthread_mutex_lock(&hub->lock);
    if (hub->closing || hub->socket_count >= hub->gw->cfg->ws_max_total) {
        k = err_set(err, ERR_UNAVAILABLE, "too_many_sockets_in_all",
                    "The server has no room for another live connection now. Please try again later.", NULL);
    } else if (user_id[0]) {
        k = check_person(hub, user_id, err);
    }
    if (k == ERR_OK) {
        memcpy(s->user_id, user_id, sizeof s->user_id);
        s->prev = NULL;
        s->next = hub->sockets;
        if (s->next) {
            s->next->prev = s;
        }
        hub->sockets = s;
        hub->socket_count++;
    }
    pthread_mutex_unlock(&hub->lock);
    return k;
}

err_kind_t ws_hub_name(ws_hub_t *hub, ws_socket_t *s, const char *user_id, err_t *err) {
    pthread_mutex_lock(&hub->lock);
    err_kind_t k = check_person(hub, user_id, err);
    if (k == ERR_OK) {
        memcpy(s->user_id, user_id, sizeof s->user_id);
    }
    pthread_mutex_unlock(&hub->lock);
    return k;
}

void ws_hub_leave(ws_hub_t *hub, ws_socket_t *s) {
    ws_hub_hear_queue(hub, s, false);
    for (;;) {
        char project_id[37];
        pthread_mutex_lock(&hub->lock);
        bool more = s->subscription_count > 0;
        if (more) {
            memcpy(project_id, s->subscriptions[0].project->id, sizeof project_id);
        }
        pthread_mutex_unlock(&hub->lock);
        if (!more) {
            break;
        }
        ws_hub_unsubscribe(hub, s, project_id);
    }
    pthread_mutex_lock(&hub->lock);
    if (s->prev) {
        s->prev->next = s->next;
    } else {
        hub->sockets = s->next;
    }
    if (s->next) {
        s->next->prev = s->prev;
    }
    hub->socket_count--;
    pthread_mutex_unlock(&hub->lock);
}

/* ---- life ---- */

static err_kind_t start_threads(ws_hub_t *hub, err_t *err) {
    err_kind_t k = ws_desk_create(hub, &hub->desk, err);
    while (k == ERR_OK && hub->loop_count < hub->gw->cfg->ws_threads && hub->loop_count < WS_LOOPS_MAX) {
        ws_loop_t *loop = NULL;
        k = ws_loop_create(hub, &loop, err);
        if (loop) {
            hub->loops[hub->loop_count++] = loop;
        }
    }
    if (k == ERR_OK) {
        k = events_sub_create(hub->gw->rds, on_event, hub, &hub->events, err);
    }
    if (k == ERR_OK && thread_start(&hub->feeder, "ws-feeder", feed, hub) != 0) {
        k = err_set(err, ERR_NO_MEMORY, "no_thread", "Cannot start a thread.", "ws-feeder");
    }
    hub->feeder_running = k == ERR_OK;
    return k;
}

err_kind_t ws_hub_create(gateway_t *gw, ws_hub_t **out, err_t *err) {
    ws_hub_t *hub = calloc(1, sizeof *hub);
    if (!hub) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    hub->gw = gw;
    pthread_mutex_init(&hub->lock, NULL);
    pthread_mutex_init(&hub->channels_lock, NULL);
    hub->order = ws_order_create(ORDER_JOBS);
    err_kind_t k = hub->order
                       ? start_threads(hub, err)
                       : err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", "table of jobs");
    if (k != ERR_OK) {
        ws_hub_destroy(hub);
        return k;
    }
    *out = hub;
    return ERR_OK;
}

void ws_hub_shutdown(ws_hub_t *hub, int64_t timeout_ms) {
    int64_t until = time_mono_ms() + timeout_ms;
    pthread_mutex_lock(&hub->lock);
    hub->closing = true;
    for (ws_socket_t *s = hub->sockets; s; s = s->next) {
        ws_socket_close(s, WS_CLOSE_GOING_AWAY);
    }
    while (hub->socket_count > 0 && time_mono_ms() < until) {
        pthread_mutex_unlock(&hub->lock);
        time_sleep_ms(10);
        pthread_mutex_lock(&hub->lock);
    }
    pthread_mutex_unlock(&hub->lock);
}

void ws_hub_destroy(ws_hub_t *hub) {
    if (!hub) {
        return;
    }
    atomic_store(&hub->stop, true);
    if (hub->feeder_running) {
        pthread_join(hub->feeder, NULL);
    }
    /* The loops give every socket that is left to the desk, which takes it off the list and out of the channels. */
    for (int i = 0; i < hub->loop_count; i++) {
        ws_loop_destroy(hub->loops[i]);
    }
    ws_desk_destroy(hub->desk);
    if (hub->events) {
        events_sub_destroy(hub->events);
    }
    ws_order_destroy(hub->order);
    pthread_mutex_destroy(&hub->lock);
    pthread_mutex_destroy(&hub->channels_lock);
    free(hub);
}

void ws_hub_stats(ws_hub_t *hub, ws_hub_stats_t *out) {
    memset(out, 0, sizeof *out);
    pthread_mutex_lock(&hub->lock);
    for (const ws_socket_t *s = hub->sockets; s; s = s->next) {
        out->sockets++;
        out->subscriptions += s->subscription_count + (s->hears_queue ? 1 : 0);
    }
    pthread_mutex_unlock(&hub->lock);
    out->sent_total = atomic_load(&hub->sent_total);
    out->dropped_total = atomic_load(&hub->dropped_total);
    out->stale_total = atomic_load(&hub->stale_total);
    out->slow_total = atomic_load(&hub->slow_total);
    out->waiting_bytes = atomic_load(&hub->message_bytes);
}
