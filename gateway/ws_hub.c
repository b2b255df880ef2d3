/*
 * Who hears what. The subscriber's thread takes each event from Redis, finds the sockets that subscribed to its project
 * and puts one shared message into their queues; it never writes to a socket and never asks the database. A second
 * thread makes the queue's status once a second while somebody listens. Snapshots are made on the socket's own thread.
 */
#include "ws_internal.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/thread_util.h"
#include "common/timeutil.h"
#include "routes/job_json.h"

#define CHANNEL_PREFIX "sg:events:"
#define SUBSCRIBE_WAIT_MS 1500
#define FEED_MS 1000
#define SNAPSHOT_JOBS_MAX "20000"
#define SNAPSHOT_POSITIONS_MAX 200 /* more waiting jobs than this: their positions are left out, each costs a call */
#define SNAPSHOT_BYTES_MAX ((size_t)48 * 1024 * 1024)

/* ---- the subscriber's side ---- */

/* Progress: a job that is still active. Any other change of a job must arrive. */
static ws_message_t *message_of_event(const char *text, size_t len) {
    char key[37] = "";
    bool progress = false;
    cJSON *json = cJSON_ParseWithLength(text, len);
    const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "type"));
    const char *job = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "jobId"));
    const char *state = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "state"));
    if (type && job && strcmp(type, "job") == 0) {
        (void)snprintf(key, sizeof key, "%s", job);
        progress = state && strcmp(state, "active") == 0;
    }
    ws_message_t *m = type ? ws_message_create(text, len, key, progress) : NULL;
    cJSON_Delete(json);
    return m;
}

static bool hears_project(const ws_socket_t *s, const char *project_id) {
    for (int i = 0; i < s->subscription_count; i++) {
        if (strcmp(s->subscriptions[i].project_id, project_id) == 0) {
            return true;
        }
    }
    return false;
}

static void on_event(void *arg, const char *channel, const char *text, size_t len) {
    ws_hub_t *hub = arg;
    ws_message_t *m = NULL;
    if (text && (!channel || strncmp(channel, CHANNEL_PREFIX, sizeof CHANNEL_PREFIX - 1) != 0)) {
        return;
    }
    pthread_mutex_lock(&hub->lock);
    for (ws_socket_t *s = hub->sockets; s; s = s->next) {
        if (!text) {
            ws_socket_resync(s);
            continue;
        }
        if (!hears_project(s, channel + sizeof CHANNEL_PREFIX - 1)) {
            continue;
        }
        if (!m) {
            m = message_of_event(text, len);
        }
        if (m) {
            ws_socket_send(s, m);
        }
    }
    pthread_mutex_unlock(&hub->lock);
    ws_message_release(m);
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
        m = ws_message_create(b.data, b.len, "queue", true);
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
    pthread_mutex_lock(&hub->lock);
    if (hub->closing || hub->socket_count >= hub->gw->cfg->ws_max_total) {
        k = err_set(err, ERR_UNAVAILABLE, "too_many_sockets_in_all",
                    "The server has no room for another live connection now. Please try again later.", NULL);
    } else if (user_id[0]) {
        k = check_person(hub, user_id, err);
    }
    if (k == ERR_OK) {
        s->hub = hub;
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

/* Does anybody here hear the project? hub->lock held. */
static bool is_heard(const ws_hub_t *hub, const char *project_id) {
    for (const ws_socket_t *s = hub->sockets; s; s = s->next) {
        if (hears_project(s, project_id)) {
            return true;
        }
    }
    return false;
}

static void channel_name(char out[64], const char *project_id) {
    (void)snprintf(out, 64, CHANNEL_PREFIX "%s", project_id);
}

void ws_hub_leave(ws_hub_t *hub, ws_socket_t *s) {
    ws_hub_hear_queue(hub, s, false);
    for (;;) {
        char project_id[37];
        pthread_mutex_lock(&hub->lock);
        bool more = s->subscription_count > 0;
        if (more) {
            memcpy(project_id, s->subscriptions[0].project_id, sizeof project_id);
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

/* ---- subscriptions ---- */

static err_kind_t check_owner(ws_hub_t *hub, const char *project_id, const char *user_id, err_t *err) {
    PGresult *res = NULL;
    const char *params[] = {project_id, user_id};
    err_kind_t k =
        pg_query(hub->gw->pg, "SELECT 1 FROM projects WHERE id = $1 AND owner_id = $2", 2, params, &res, err);
    if (k == ERR_OK && PQntuples(res) == 0) {
        k = err_set(err, ERR_NOT_FOUND, "not_found", "There is no such project.", NULL);
    }
    PQclear(res);
    return k;
}

err_kind_t ws_hub_subscribe(ws_hub_t *hub, ws_socket_t *s, const char *project_id, err_t *err) {
    char channel[64];
    bool first = false;
    err_kind_t k = check_owner(hub, project_id, s->user_id, err);
    if (k != ERR_OK) {
        return k;
    }
    pthread_mutex_lock(&hub->channels_lock);
    pthread_mutex_lock(&hub->lock);
    if (hears_project(s, project_id)) {
        /* Asked again: only a fresh snapshot is wanted. */
    } else if (s->subscription_count >= WS_SUBSCRIPTIONS_MAX) {
        k = err_setf(err, ERR_LIMIT, "too_many_subscriptions", "One connection may follow %d projects.",
                     WS_SUBSCRIPTIONS_MAX);
    } else {
        first = !is_heard(hub, project_id);
        ws_subscription_t *sub = &s->subscriptions[s->subscription_count++];
        memcpy(sub->project_id, project_id, sizeof sub->project_id);
        sub->wants_snapshot = false;
    }
    pthread_mutex_unlock(&hub->lock);
    if (k == ERR_OK && first) {
        channel_name(channel, project_id);
        if (!events_sub_add(hub->events, channel, SUBSCRIBE_WAIT_MS)) {
            log_event(LOG_WARN, "Redis did not confirm a subscription in time", "projectId", project_id, NULL);
        }
    }
    pthread_mutex_unlock(&hub->channels_lock);
    if (k == ERR_OK) {
        ws_hub_want_snapshot(hub, s, project_id);
    }
    return k;
}

void ws_hub_unsubscribe(ws_hub_t *hub, ws_socket_t *s, const char *project_id) {
    char channel[64];
    bool last = false;
    pthread_mutex_lock(&hub->channels_lock);
    pthread_mutex_lock(&hub->lock);
    for (int i = 0; i < s->subscription_count; i++) {
        if (strcmp(s->subscriptions[i].project_id, project_id) == 0) {
            s->subscriptions[i] = s->subscriptions[--s->subscription_count];
            last = !is_heard(hub, project_id);
            break;
        }
    }
    pthread_mutex_unlock(&hub->lock);
    if (last) {
        channel_name(channel, project_id);
        events_sub_remove(hub->events, channel);
    }
    pthread_mutex_unlock(&hub->channels_lock);
}

void ws_hub_hear_queue(ws_hub_t *hub, ws_socket_t *s, bool hear) {
    pthread_mutex_lock(&hub->lock);
    s->hears_queue = hear;
    pthread_mutex_unlock(&hub->lock);
}

void ws_hub_want_snapshot(ws_hub_t *hub, ws_socket_t *s, const char *project_id) {
    pthread_mutex_lock(&hub->lock);
    for (int i = 0; i < s->subscription_count; i++) {
        if (!project_id || strcmp(s->subscriptions[i].project_id, project_id) == 0) {
            s->subscriptions[i].wants_snapshot = true;
        }
    }
    pthread_mutex_unlock(&hub->lock);
}

bool ws_hub_next_snapshot(ws_hub_t *hub, ws_socket_t *s, char project_id[37]) {
    bool found = false;
    pthread_mutex_lock(&hub->lock);
    for (int i = 0; i < s->subscription_count && !found; i++) {
        if (s->subscriptions[i].wants_snapshot) {
            s->subscriptions[i].wants_snapshot = false;
            memcpy(project_id, s->subscriptions[i].project_id, 37);
            found = true;
        }
    }
    pthread_mutex_unlock(&hub->lock);
    return found;
}

/* ---- snapshot ---- */

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
}

static err_kind_t put_jobs(ws_hub_t *hub, const PGresult *res, buf_t *out, err_t *err) {
    int n = PQntuples(res);
    for (int i = 0; i < n; i++) {
        const char *state = pg_get(res, i, "ws_state");
        bool live = n <= SNAPSHOT_POSITIONS_MAX || (state && strcmp(state, "active") == 0);
        cJSON *job = job_json(hub->gw->queue, res, i, live);
        char *text = job ? cJSON_PrintUnformatted(job) : NULL;
        cJSON_Delete(job);
        if (!text) {
            return no_memory(err);
        }
        buf_puts(out, i > 0 ? "," : "");
        buf_puts(out, text);
        cJSON_free(text);
    }
    return ERR_OK;
}

err_kind_t ws_hub_snapshot(ws_hub_t *hub, const char *project_id, const char *user_id, ws_message_t **out, err_t *err) {
    PGresult *jobs = NULL;
    PGresult *images = NULL;
    buf_t text;
    char sql[4096];
    *out = NULL;
    buf_init(&text, SNAPSHOT_BYTES_MAX);
    int n = snprintf(sql, sizeof sql,
                     "SELECT %s, j.state AS ws_state FROM jobs j JOIN images i ON i.id = j.image_id"
                     " WHERE j.project_id = $1 AND (j.state IN ('queued', 'active', 'delayed')"
                     " OR j.finished_at > now() - interval '60 seconds')"
                     " ORDER BY j.created_at DESC, j.id LIMIT " SNAPSHOT_JOBS_MAX,
                     JOB_COLUMNS);
    if (n < 0 || (size_t)n >= sizeof sql) {
        return err_set(err, ERR_INTERNAL, "snapshot_failed", "The server made a mistake.", "query too long");
    }
    const char *params[] = {project_id, user_id};
    /* Ownership once more: the project may have been deleted, or its owner changed, since the subscription. */
    err_kind_t k = pg_query(hub->gw->pg,
                            "SELECT (SELECT count(*) FROM images i WHERE i.project_id = p.id) AS n FROM projects p"
                            " WHERE p.id = $1 AND p.owner_id = $2",
                            2, params, &images, err);
    if (k == ERR_OK && PQntuples(images) == 0) {
        k = err_set(err, ERR_NOT_FOUND, "not_found", "There is no such project.", NULL);
    }
    if (k == ERR_OK) {
        k = pg_query(hub->gw->pg, sql, 1, params, &jobs, err);
    }
    if (k != ERR_OK) {
        goto out;
    }
    buf_printf(&text, "{\"type\":\"snapshot\",\"projectId\":\"%s\",\"imageCount\":%lld,\"jobs\":[", project_id,
               (long long)pg_get_int(images, 0, "n", 0));
    k = put_jobs(hub, jobs, &text, err);
    buf_puts(&text, "]}");
    if (k == ERR_OK) {
        *out = text.failed ? NULL : ws_message_create(text.data, text.len, NULL, false);
        k = *out ? ERR_OK : no_memory(err);
    }
out:
    PQclear(jobs);
    PQclear(images);
    buf_free(&text);
    return k;
}

/* ---- life ---- */

err_kind_t ws_hub_create(gateway_t *gw, ws_hub_t **out, err_t *err) {
    ws_hub_t *hub = calloc(1, sizeof *hub);
    if (!hub) {
        return no_memory(err);
    }
    hub->gw = gw;
    pthread_mutex_init(&hub->lock, NULL);
    pthread_mutex_init(&hub->channels_lock, NULL);
    err_kind_t k = events_sub_create(gw->rds, on_event, hub, &hub->events, err);
    if (k == ERR_OK && thread_start(&hub->feeder, "ws-feeder", feed, hub) != 0) {
        k = err_set(err, ERR_NO_MEMORY, "no_thread", "Cannot start a thread.", "ws-feeder");
    }
    if (k != ERR_OK) {
        ws_hub_destroy(hub);
        return k;
    }
    hub->feeder_running = true;
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
    if (hub->events) {
        events_sub_destroy(hub->events);
    }
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
}
