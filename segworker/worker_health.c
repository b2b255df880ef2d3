/*
 * Signs of life: the heartbeat that renews every lease in one call, the sweeper that calls queue_sweep and looks after
 * PostgreSQL and Redis, and the loopback HTTP answers.
 */
#include <stdlib.h>
#include <string.h>

#include "common/json_util.h"
#include "common/log.h"
#include "common/timeutil.h"
#include "segworker/worker_internal.h"

enum { HEART_MAX_MS = 5000, HEART_RETRY_MS = 500, SWEEP_MS = 1000, REGISTER_MS = 60000 };

static metric_t *m_ready, *m_slots, *m_busy, *m_heart_errors;

/* ---- the worker's entry in the registry ---- */

static void put_models(worker_t *w, buf_t *b) {
    buf_puts(b, ",\"models\":[");
    char names[WORKER_MAX_MODELS][64];
    for (int i = 0, n = worker_model_names(w, names); i < n; i++) {
        buf_puts(b, i ? "," : "");
        json_put_string(b, names[i]);
    }
    buf_puts(b, "]");
}

static void put_info(worker_t *w, buf_t *b) {
    buf_reset(b);
    buf_puts(b, "{\"host\":");
    json_put_string(b, w->host);
    buf_puts(b, ",\"device\":");
    json_put_string(b, w->device);
    buf_printf(b, ",\"version\":\"%s\",\"slots\":%d,\"active\":%d,\"startedAt\":\"%s\"", SG_VERSION, w->nslots,
               worker_busy_count(w), w->started_at);
    put_models(w, b);
    buf_puts(b, "}");
}

/* ---- heartbeat ---- */

/* All claims that this worker holds: what waits behind the jobs that run, and these. A claim that begins between the
 * two looks is in both. */
enum { MAX_CLAIMS = WORKER_MAX_SLOTS * (QUEUE_AHEAD_MOST + 1) };

typedef struct {
    queue_ahead_claim_t claims[MAX_CLAIMS];
    const char *ids[MAX_CLAIMS], *tokens[MAX_CLAIMS];
    bool lost[MAX_CLAIMS];
    int n;
} heart_claims_t;

static void collect_claims(worker_t *w, heart_claims_t *all) {
    all->n = queue_ahead_claims(w->ahead, all->claims, MAX_CLAIMS - WORKER_MAX_SLOTS);
    (void)pthread_mutex_lock(&w->lock);
    for (int i = 0; i < w->nslots; i++) {
        if (w->slots[i].busy && !w->slots[i].given_up) {
            queue_ahead_claim_t *c = &all->claims[all->n++];
            memcpy(c->id, w->slots[i].claim.id, sizeof c->id);
            memcpy(c->token, w->slots[i].claim.token, sizeof c->token);
        }
    }
    (void)pthread_mutex_unlock(&w->lock);
    for (int i = 0; i < all->n; i++) {
        all->ids[i] = all->claims[i].id;
        all->tokens[i] = all->claims[i].token;
        all->lost[i] = false;
    }
}

/* The slot may have begun the job, or ended it and begun another, since it was asked about. */
static void tell_lost(worker_t *w, const char *token) {
    queue_ahead_lost(w->ahead, token);
    (void)pthread_mutex_lock(&w->lock);
    for (int i = 0; i < w->nslots; i++) {
        if (w->slots[i].busy && strcmp(w->slots[i].claim.token, token) == 0) {
            w->slots[i].lost = true;
        }
    }
    (void)pthread_mutex_unlock(&w->lock);
}

static err_kind_t beat(worker_t *w, heart_claims_t *all, buf_t *info, err_t *err) {
    collect_claims(w, all);
    put_info(w, info);
    if (info->failed) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is out of memory.", "heartbeat");
    }
    err_kind_t rc = queue_renew_claims(w->queue, w->id, info->data, all->ids, all->tokens, all->n, all->lost, err);
    for (int i = 0; rc == ERR_OK && i < all->n; i++) {
        if (all->lost[i]) {
            tell_lost(w, all->tokens[i]);
        }
    }
    return rc;
}

void *worker_heart_run(void *arg) {
    worker_t *w = arg;
    static heart_claims_t claims; /* one heartbeat thread in a process */
    buf_t info;
    buf_init(&info, 1 << 20);
    int64_t third = w->cfg->lease_ms / 3;
    int64_t interval = third < HEART_MAX_MS ? third : HEART_MAX_MS;
    bool complained = false;
    while (!w->quit) {
        err_t err;
        err_kind_t rc = beat(w, &claims, &info, &err);
        w->redis_ok = rc == ERR_OK;
        if (rc != ERR_OK) {
            metrics_add(m_heart_errors, NULL, 1);
            if (!complained) {
                log_error(LOG_WARN, "heartbeat", &err);
            }
        }
        complained = rc != ERR_OK;
        int64_t until = time_mono_ms() + (rc == ERR_OK ? interval : HEART_RETRY_MS);
        for (int64_t left = until - time_mono_ms(); left > 0 && !w->quit; left = until - time_mono_ms()) {
            worker_sleep(w, left); /* other threads' wake-ups are not for us */
        }
    }
    buf_free(&info);
    return NULL;
}

/* ---- sweeper ---- */

void *worker_sweeper_run(void *arg) {
    worker_t *w = arg;
    int64_t registered_ms = time_mono_ms();
    bool complained = false;
    while (!w->quit) {
        err_t err;
        worker_watch(w);
        err_kind_t rc = pg_query(w->pg, "SELECT 1", 0, NULL, NULL, &err);
        w->pg_ok = rc == ERR_OK;
        if (rc == ERR_OK) {
            rc = queue_sweep(w->queue, &err);
        }
        if (rc == ERR_OK && time_mono_ms() - registered_ms > REGISTER_MS) {
            registered_ms = time_mono_ms();
            rc = worker_register_models(w, &err);
        }
        if (rc != ERR_OK && !complained) {
            log_error(LOG_WARN, "sweep", &err);
        }
        complained = rc != ERR_OK;
        /* not all workers at once */
        int64_t until = time_mono_ms() + SWEEP_MS + (int64_t)(time_mono_us() % 200) - 100;
        for (int64_t left = until - time_mono_ms(); left > 0 && !w->quit; left = until - time_mono_ms()) {
            worker_sleep(w, left);
        }
    }
    return NULL;
}

/* ---- HTTP ---- */

static void collect(void *arg) {
    worker_t *w = arg;
    metrics_set(m_ready, NULL, w->warm && w->pg_ok && w->redis_ok && !w->stopping);
    metrics_set(m_slots, NULL, w->nslots);
    metrics_set(m_busy, NULL, worker_busy_count(w));
}

void worker_health_register(worker_t *w) {
    m_ready = metrics_gauge("spheroseg_worker_ready", "1 when the worker can take jobs.", NULL);
    m_slots = metrics_gauge("spheroseg_worker_slots", "Jobs that this worker may run at a time.", NULL);
    m_busy = metrics_gauge("spheroseg_worker_active_jobs", "Jobs that this worker runs now.", NULL);
    m_heart_errors =
        metrics_counter("spheroseg_worker_heartbeat_errors_total", "Heartbeats that did not reach Redis.", NULL);
    metrics_on_collect(collect, w);
}

int worker_http(void *arg, const char *path, buf_t *out, const char **content_type) {
    worker_t *w = arg;
    if (strcmp(path, "/metrics") == 0) {
        *content_type = "text/plain; version=0.0.4; charset=utf-8";
        metrics_render(out);
        return 200;
    }
    *content_type = "application/json";
    if (strcmp(path, "/live") == 0) {
        buf_puts(out, "{\"status\":\"up\"}\n");
        return 200;
    }
    if (strcmp(path, "/ready") == 0) {
        bool ready = w->warm && w->pg_ok && w->redis_ok && !w->stopping;
        buf_printf(out, "{\"ready\":%s,\"models\":%s,\"database\":%s,\"redis\":%s,\"stopping\":%s}\n",
                   ready ? "true" : "false", w->warm ? "true" : "false", w->pg_ok ? "true" : "false",
                   w->redis_ok ? "true" : "false", w->stopping ? "true" : "false");
        return ready ? 200 : 503;
    }
    buf_puts(out, "{\"error\":\"not found\"}\n");
    return 404;
}
