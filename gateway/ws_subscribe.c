/*
 * Who hears what: a table of the projects that somebody here listens to, with their listeners, and the snapshot that
 * each subscription starts with. Runs at the desk: it asks PostgreSQL and waits for Redis.
 */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/timeutil.h"
#include "routes/job_json.h"
#include "ws_internal.h"

#define CHANNEL_PREFIX "sg:events:"
#define SUBSCRIBE_WAIT_MS 1500
#define REDIS_SLOW_MS 5000 /* after a wait in vain nobody waits for so long */
#define SNAPSHOT_RETRY_MS 2000
#define SNAPSHOT_JOBS_MAX "20000"
#define SNAPSHOT_POSITIONS_MAX 200 /* more waiting jobs than this: their positions are left out, each costs a call */
#define SNAPSHOT_BYTES_MAX ((size_t)48 * 1024 * 1024)

/* ---- the table of projects: hub->lock held ---- */

static unsigned bucket_of(const char *project_id) {
    uint32_t h = 2166136261U; /* FNV-1a, 32 bits */
    for (const char *p = project_id; *p; p++) {
        h = (h ^ (unsigned char)*p) * 16777619U;
    }
    return h % WS_PROJECT_BUCKETS;
}

ws_project_t *ws_project_find(const ws_hub_t *hub, const char *project_id) {
    ws_project_t *p = hub->projects[bucket_of(project_id)];
    while (p && strcmp(p->id, project_id) != 0) {
        p = p->next;
    }
    return p;
}

static ws_project_t *project_make(ws_hub_t *hub, const char *project_id) {
    ws_project_t *p = calloc(1, sizeof *p);
    if (p) {
        ws_project_t **bucket = &hub->projects[bucket_of(project_id)];
        memcpy(p->id, project_id, sizeof p->id);
        p->next = *bucket;
        *bucket = p;
    }
    return p;
}

static void project_drop(ws_hub_t *hub, ws_project_t *p) {
    ws_project_t **at = &hub->projects[bucket_of(p->id)];
    while (*at != p) {
        at = &(*at)->next;
    }
    *at = p->next;
    free(p->listeners);
    free(p);
}

static ws_listener_t *listener_of(ws_project_t *p, const ws_socket_t *s) {
    for (int i = 0; i < p->count; i++) {
        if (p->listeners[i].socket == s) {
            return &p->listeners[i];
        }
    }
    return NULL;
}

static bool listener_add(ws_project_t *p, ws_socket_t *s) {
    if (p->count == p->room) {
        int room = p->room > 0 ? p->room * 2 : 4;
        ws_listener_t *grown = realloc(p->listeners, (size_t)room * sizeof *grown);
        if (!grown) {
            return false;
        }
        p->listeners = grown;
        p->room = room;
    }
    p->listeners[p->count++] = (ws_listener_t){.socket = s};
    return true;
}

static ws_subscription_t *subscription_of(const ws_socket_t *s, const char *project_id) {
    for (int i = 0; i < s->subscription_count; i++) {
        if (strcmp(s->subscriptions[i].project->id, project_id) == 0) {
            return &s->subscriptions[i];
        }
    }
    return NULL;
}

static bool subscription_room(ws_socket_t *s) {
    if (s->subscription_count < s->subscription_room) {
        return true;
    }
    int room = s->subscription_room > 0 ? s->subscription_room * 2 : 2;
    ws_subscription_t *grown = realloc(s->subscriptions, (size_t)room * sizeof *grown);
    if (!grown) {
        return false;
    }
    s->subscriptions = grown;
    s->subscription_room = room;
    return true;
}

/* ---- subscriptions ---- */

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
}

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

/* hub->lock held. *first: nobody heard the project before. */
static err_kind_t add_subscription(ws_hub_t *hub, ws_socket_t *s, const char *project_id, bool *first, err_t *err) {
    if (subscription_of(s, project_id)) {
        return ERR_OK; /* asked again: only a fresh snapshot is wanted */
    }
    if (s->subscription_count >= WS_SUBSCRIPTIONS_MAX) {
        return err_setf(err, ERR_LIMIT, "too_many_subscriptions", "One connection may follow %d projects.",
                        WS_SUBSCRIPTIONS_MAX);
    }
    ws_project_t *p = ws_project_find(hub, project_id);
    *first = p == NULL;
    if (!p) {
        p = project_make(hub, project_id);
    }
    if (!p || !subscription_room(s) || !listener_add(p, s)) {
        if (p && p->count == 0) {
            project_drop(hub, p);
        }
        return no_memory(err);
    }
    s->subscriptions[s->subscription_count++] = (ws_subscription_t){.project = p};
    return ERR_OK;
}

/* channels_lock held. The channel stays wanted whether Redis answers or not, and when it is there in the end everybody
 * gets fresh snapshots: so after one wait in vain there is no point in making others wait. */
static void join_channel(ws_hub_t *hub, const char *project_id) {
    char channel[64];
    bool wait = time_mono_ms() >= hub->redis_slow_until_ms;
    (void)snprintf(channel, sizeof channel, CHANNEL_PREFIX "%s", project_id);
    if (!events_sub_add(hub->events, channel, wait ? SUBSCRIBE_WAIT_MS : 0) && wait) {
        hub->redis_slow_until_ms = time_mono_ms() + REDIS_SLOW_MS;
        log_event(LOG_WARN, "Redis did not confirm a subscription in time", "projectId", project_id, NULL);
    }
}

err_kind_t ws_hub_subscribe(ws_hub_t *hub, ws_socket_t *s, const char *project_id, err_t *err) {
    bool first = false;
    err_kind_t k = check_owner(hub, project_id, s->user_id, err);
    if (k != ERR_OK) {
        return k;
    }
    pthread_mutex_lock(&hub->channels_lock);
    pthread_mutex_lock(&hub->lock);
    k = add_subscription(hub, s, project_id, &first, err);
    pthread_mutex_unlock(&hub->lock);
    if (k == ERR_OK && first) {
        join_channel(hub, project_id);
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
    ws_subscription_t *sub = subscription_of(s, project_id);
    if (sub) {
        ws_project_t *p = sub->project;
        *listener_of(p, s) = p->listeners[p->count - 1];
        p->count--;
        *sub = s->subscriptions[--s->subscription_count];
        last = p->count == 0;
        if (last) {
            project_drop(hub, p);
        }
    }
    pthread_mutex_unlock(&hub->lock);
    if (last) {
        (void)snprintf(channel, sizeof channel, CHANNEL_PREFIX "%s", project_id);
        events_sub_remove(hub->events, channel);
    }
    pthread_mutex_unlock(&hub->channels_lock);
}

void ws_hub_hear_queue(ws_hub_t *hub, ws_socket_t *s, bool hear) {
    pthread_mutex_lock(&hub->lock);
    s->hears_queue = hear;
    pthread_mutex_unlock(&hub->lock);
}

/* ---- snapshot ---- */

void ws_hub_want_snapshot(ws_hub_t *hub, ws_socket_t *s, const char *project_id) {
    pthread_mutex_lock(&hub->lock);
    for (int i = 0; i < s->subscription_count; i++) {
        if (!project_id || strcmp(s->subscriptions[i].project->id, project_id) == 0) {
            s->subscriptions[i].wants_snapshot = true;
            atomic_store(&s->snapshots_due, true);
        }
    }
    pthread_mutex_unlock(&hub->lock);
}

/* The next project whose snapshot is due; false when there is none. Clears the wish. */
static bool next_snapshot(ws_hub_t *hub, ws_socket_t *s, char project_id[37]) {
    bool found = false;
    pthread_mutex_lock(&hub->lock);
    atomic_store(&s->snapshots_due, false);
    for (int i = 0; i < s->subscription_count; i++) {
        ws_subscription_t *sub = &s->subscriptions[i];
        if (!sub->wants_snapshot) {
            continue;
        }
        if (found) {
            atomic_store(&s->snapshots_due, true);
            break;
        }
        sub->wants_snapshot = false;
        memcpy(project_id, sub->project->id, 37);
        found = true;
    }
    pthread_mutex_unlock(&hub->lock);
    return found;
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

/* *jobs: the rows it was made of. */
static err_kind_t make_snapshot(ws_hub_t *hub, const char *project_id, const char *user_id, ws_message_t **out,
                                PGresult **jobs, err_t *err) {
    PGresult *images = NULL;
    buf_t text;
    char sql[4096];
    buf_init(&text, SNAPSHOT_BYTES_MAX);
    int n = snprintf(sql, sizeof sql,
                     "SELECT %s, j.state AS ws_state, j.seq AS ws_seq, j.id AS ws_id"
                     " FROM jobs j JOIN images i ON i.id = j.image_id"
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
        k = pg_query(hub->gw->pg, sql, 1, params, jobs, err);
    }
    if (k != ERR_OK) {
        goto out;
    }
    buf_printf(&text, "{\"type\":\"snapshot\",\"projectId\":\"%s\",\"imageCount\":%lld,\"jobs\":[", project_id,
               (long long)pg_get_int(images, 0, "n", 0));
    k = put_jobs(hub, *jobs, &text, err);
    buf_puts(&text, "]}");
    if (k == ERR_OK) {
        *out = text.failed ? NULL : ws_message_create(hub, text.data, text.len, NULL, false);
        k = *out ? ERR_OK : no_memory(err);
    }
out:
    PQclear(images);
    buf_free(&text);
    return k;
}

/* Into the queue, and into the order: no event that is older than what the snapshot shows may follow it. Two threads of
 * the desk may make snapshots side by side, and the one that is sent first may have been read last: so a snapshot
 * counts as newer than another only if it was begun after the other's end. */
static void send_snapshot(ws_hub_t *hub, ws_socket_t *s, const char *project_id, ws_message_t *m, const PGresult *jobs,
                          uint64_t begun) {
    pthread_mutex_lock(&hub->lock);
    const ws_subscription_t *sub = subscription_of(s, project_id);
    if (sub) {
        uint64_t number = ++hub->snapshots;
        for (int i = 0; i < PQntuples(jobs); i++) {
            ws_order_snapshot(hub->order, pg_get(jobs, i, "ws_id"), pg_get_int(jobs, i, "ws_seq", 0), number);
        }
        ws_listener_t *l = listener_of(sub->project, s);
        l->snapshot = number;
        l->begun = begun;
        ws_socket_send(s, m);
    }
    pthread_mutex_unlock(&hub->lock);
}

static err_kind_t snapshot(ws_hub_t *hub, ws_socket_t *s, const char *project_id, err_t *err) {
    PGresult *jobs = NULL;
    ws_message_t *m = NULL;
    if (atomic_load(&hub->message_bytes) > WS_ALL_BYTES_MAX / 2) {
        return err_set(err, ERR_UNAVAILABLE, "busy", "The server is busy.", "too much waits for slow clients");
    }
    pthread_mutex_lock(&hub->lock);
    uint64_t begun = ++hub->snapshots;
    pthread_mutex_unlock(&hub->lock);
    err_kind_t k = make_snapshot(hub, project_id, s->user_id, &m, &jobs, err);
    if (k == ERR_OK) {
        send_snapshot(hub, s, project_id, m, jobs, begun);
    }
    ws_message_release(m);
    PQclear(jobs);
    return k;
}

void ws_hub_send_snapshots(ws_hub_t *hub, ws_socket_t *s) {
    char project_id[37];
    err_t err;
    while (next_snapshot(hub, s, project_id)) {
        switch (snapshot(hub, s, project_id, &err)) {
        case ERR_OK:
            break;
        case ERR_NOT_FOUND:
            ws_hub_unsubscribe(hub, s, project_id);
            ws_socket_send_error(s, err.code, err.message);
            break;
        default:
            log_error(LOG_WARN, "making a snapshot", &err);
            ws_hub_want_snapshot(hub, s, project_id);
            s->retry_snapshot_ms = time_mono_ms() + SNAPSHOT_RETRY_MS;
            return;
        }
    }
}
