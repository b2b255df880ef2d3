/*
 * Figures of the queue: counts (from PostgreSQL, the truth), the body of the status route, and the gauges.
 *
 * Counting reads every job of the retention time, so the answer is kept for ten times as long as it took to get
 * (100 ms to 5 s): many viewers cost what one costs.
 */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "metrics.h"
#include "queue_internal.h"
#include "timeutil.h"

enum { COUNTS_MIN_MS = 100, COUNTS_MAX_MS = 5000 };

/* ---- counts ---- */

static err_kind_t read_counts(queue_t *q, queue_counts_t *out, err_t *err) {
    char days[24];
    (void)snprintf(days, sizeof days, "%lld", (long long)q->retention_days);
    const char *params[] = {days};
    PGresult *rows = NULL;
    err_kind_t rc = pg_query(q->pg,
                             "SELECT state, count(*) AS n, extract(epoch FROM now() - min(run_after)) AS age FROM jobs "
                             "WHERE state IN ('queued', 'active', 'delayed') GROUP BY state "
                             "UNION ALL SELECT state, count(*), 0 FROM jobs "
                             "WHERE finished_at > now() - make_interval(days => $1::int) "
                             "AND state IN ('completed', 'failed', 'cancelled') GROUP BY state",
                             1, params, &rows, err);
    if (rc != ERR_OK) {
        return rc;
    }
    *out = (queue_counts_t){0};
    for (int i = 0; i < PQntuples(rows); i++) {
        int64_t n = pg_get_int(rows, i, "n", 0);
        job_state_t s;
        if (!job_state_parse(pg_get(rows, i, "state"), &s)) {
            continue;
        }
        switch (s) {
        case JOB_QUEUED:
            out->waiting = n;
            out->oldest_waiting_s = pg_get_real(rows, i, "age", 0);
            out->oldest_waiting_s = out->oldest_waiting_s < 0 ? 0 : out->oldest_waiting_s;
            break;
        case JOB_ACTIVE:
            out->active = n;
            break;
        case JOB_DELAYED:
            out->delayed = n;
            break;
        case JOB_COMPLETED:
            out->completed = n;
            break;
        case JOB_FAILED:
            out->failed = n;
            break;
        case JOB_CANCELLED:
            out->cancelled = n;
            break;
        }
    }
    PQclear(rows);
    return ERR_OK;
}

err_kind_t queue_counts(queue_t *q, queue_counts_t *out, err_t *err) {
    int64_t before = time_mono_ms();
    (void)pthread_mutex_lock(&q->lock);
    bool fresh = before < q->counts_valid_until_ms;
    if (fresh) {
        *out = q->counts;
    }
    (void)pthread_mutex_unlock(&q->lock);
    if (fresh) {
        return ERR_OK;
    }
    err_kind_t rc = read_counts(q, out, err);
    if (rc == ERR_OK) {
        int64_t now = time_mono_ms();
        int64_t keep = (now - before) * 10;
        keep = keep < COUNTS_MIN_MS ? COUNTS_MIN_MS : keep > COUNTS_MAX_MS ? COUNTS_MAX_MS : keep;
        (void)pthread_mutex_lock(&q->lock);
        q->counts = *out;
        q->counts_valid_until_ms = now + keep;
        (void)pthread_mutex_unlock(&q->lock);
    }
    return rc;
}

/* ---- the status body; cJSON calls that fail for want of memory make the whole answer fail at its end ---- */

static cJSON *model_entry(cJSON *models, const char *name) {
    cJSON *m = NULL;
    cJSON_ArrayForEach(m, models) {
        if (strcmp(cJSON_GetObjectItem(m, "model")->valuestring, name) == 0) {
            return m;
        }
    }
    m = cJSON_CreateObject();
    if (m && cJSON_AddStringToObject(m, "model", name) && cJSON_AddNumberToObject(m, "waiting", 0) &&
        cJSON_AddNumberToObject(m, "active", 0) && cJSON_AddNumberToObject(m, "delayed", 0) &&
        cJSON_AddFalseToObject(m, "paused") && cJSON_AddObjectToObject(m, "byPriority") &&
        cJSON_AddItemToArray(models, m)) {
        return m;
    }
    cJSON_Delete(m);
    return NULL;
}

static err_kind_t add_models(queue_t *q, cJSON *body, err_t *err) {
    PGresult *rows = NULL;
    err_kind_t rc = pg_query(q->pg,
                             "SELECT model, state, priority, count(*) AS n, false AS paused FROM jobs "
                             "WHERE state IN ('queued', 'active', 'delayed') GROUP BY 1, 2, 3 "
                             "UNION ALL SELECT name, 'queued', 0, 0, paused FROM models ORDER BY 1, 3 DESC",
                             0, NULL, &rows, err);
    if (rc != ERR_OK) {
        return rc;
    }
    cJSON *models = cJSON_AddArrayToObject(body, "byModel");
    for (int i = 0; models && i < PQntuples(rows); i++) {
        const char *state = pg_get(rows, i, "state");
        double n = (double)pg_get_int(rows, i, "n", 0);
        cJSON *m = model_entry(models, pg_get(rows, i, "model"));
        if (!m) {
            models = NULL;
            break;
        }
        bool waiting = strcmp(state, "queued") == 0;
        cJSON *sum = cJSON_GetObjectItem(m, waiting ? "waiting" : state);
        if (sum) { /* model_entry made all three */
            cJSON_SetNumberValue(sum, sum->valuedouble + n);
        }
        if (pg_get_bool(rows, i, "paused")) {
            (void)cJSON_ReplaceItemInObject(m, "paused", cJSON_CreateTrue());
        }
        if (waiting && n > 0) {
            models = cJSON_AddNumberToObject(cJSON_GetObjectItem(m, "byPriority"), pg_get(rows, i, "priority"), n)
                         ? models
                         : NULL;
        }
    }
    PQclear(rows);
    return models ? ERR_OK : err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", "queue status");
}

static void add_worker(cJSON *workers, const char *id, const char *info, int64_t oldest_ms) {
    cJSON *w = cJSON_Parse(info);
    const cJSON *seen = w ? cJSON_GetObjectItem(w, "seenAt") : NULL;
    if (!seen || !cJSON_IsNumber(seen) || seen->valuedouble < (double)oldest_ms) {
        cJSON_Delete(w);
        return; /* silent for too long: recovery will drop the entry */
    }
    char text[TIME_RFC3339_SIZE];
    time_format_rfc3339((int64_t)seen->valuedouble, text);
    cJSON_DeleteItemFromObject(w, "seenAt");
    (void)cJSON_AddStringToObject(w, "id", id);
    (void)cJSON_AddStringToObject(w, "seenAt", text);
    (void)cJSON_AddItemToArray(workers, w);
}

/* Redis's clock, in ms; by it the heartbeats are stamped. */
static err_kind_t redis_now_ms(queue_t *q, int64_t *ms, err_t *err) {
    const char *argv[] = {"TIME"};
    redisReply *r = NULL;
    err_kind_t rc = rds_run(q->rds, 1, argv, &r, err);
    *ms = 0;
    if (rc == ERR_OK && r->type == REDIS_REPLY_ARRAY && r->elements == 2) {
        *ms = strtoll(r->element[0]->str, NULL, 10) * 1000 + strtoll(r->element[1]->str, NULL, 10) / 1000;
    }
    if (r) {
        freeReplyObject(r);
    }
    return rc;
}

/* Redis away: the lists stay empty, and the counts are still true. */
static void add_workers(queue_t *q, cJSON *body) {
    cJSON *workers = cJSON_AddArrayToObject(body, "workers");
    int64_t now = 0;
    if (!workers || redis_now_ms(q, &now, NULL) != ERR_OK) {
        return;
    }
    const char *argv[] = {"HGETALL", "sg:workers"};
    redisReply *r = NULL;
    if (rds_run(q->rds, 2, argv, &r, NULL) == ERR_OK && r->type == REDIS_REPLY_ARRAY) {
        for (size_t i = 0; i + 1 < r->elements; i += 2) {
            add_worker(workers, r->element[i]->str, r->element[i + 1]->str, now - 2 * q->lease_ms);
        }
    }
    if (r) {
        freeReplyObject(r);
    }
}

/* Until the last of the models' waiting jobs is done; null when none waits or runs, or nothing is known. */
static void add_eta(queue_t *q, cJSON *body) {
    double longest = NAN;
    const cJSON *m = NULL;
    cJSON_ArrayForEach(m, cJSON_GetObjectItem(body, "byModel")) {
        const char *name = cJSON_GetObjectItem(m, "model")->valuestring;
        double waiting = cJSON_GetObjectItem(m, "waiting")->valuedouble;
        double active = cJSON_GetObjectItem(m, "active")->valuedouble;
        double eta = waiting > 0  ? queue_eta_waiting(q, name, waiting - 1)
                     : active > 0 ? queue_eta_active(q, name, 0.5)
                                  : NAN;
        longest = isnan(longest) || eta > longest ? eta : longest;
    }
    if (isnan(longest)) {
        (void)cJSON_AddNullToObject(body, "etaSeconds");
    } else {
        (void)cJSON_AddNumberToObject(body, "etaSeconds", longest);
    }
}

/* The breaker of each model of byModel; empty while Redis is away. */
static void add_breakers(queue_t *q, cJSON *body) {
    const char *names[BREAKER_MODELS_MAX];
    breaker_info_t info[BREAKER_MODELS_MAX];
    int n = 0;
    cJSON *list = cJSON_AddArrayToObject(body, "breaker");
    const cJSON *m = NULL;
    cJSON_ArrayForEach(m, cJSON_GetObjectItem(body, "byModel")) {
        if (n < BREAKER_MODELS_MAX) {
            names[n++] = cJSON_GetObjectItem(m, "model")->valuestring;
        }
    }
    if (breaker_read(q->rds, &q->breaker, n, names, info, NULL) != ERR_OK) {
        return;
    }
    for (int i = 0; list && i < n; i++) {
        cJSON *b = cJSON_CreateObject();
        (void)cJSON_AddStringToObject(b, "model", names[i]);
        (void)cJSON_AddStringToObject(b, "state", breaker_state_name(info[i].state));
        (void)cJSON_AddNumberToObject(b, "errorRate", info[i].error_rate);
        (void)cJSON_AddNumberToObject(b, "runs", info[i].runs);
        (void)cJSON_AddNumberToObject(b, "failures", info[i].failed);
        (void)cJSON_AddNumberToObject(b, "opened", (double)info[i].opened_total);
        (void)cJSON_AddNumberToObject(b, "retrySeconds", (double)info[i].open_left_ms / 1000.0);
        (void)cJSON_AddBoolToObject(b, "probing", info[i].probing);
        (void)cJSON_AddItemToArray(list, b);
    }
}

err_kind_t queue_status_json(queue_t *q, char **json, err_t *err) {
    *json = NULL;
    queue_counts_t n;
    err_kind_t rc = queue_counts(q, &n, err);
    if (rc != ERR_OK) {
        return rc;
    }
    cJSON *body = cJSON_CreateObject();
    bool ok = body && cJSON_AddNumberToObject(body, "waiting", (double)n.waiting) &&
              cJSON_AddNumberToObject(body, "active", (double)n.active) &&
              cJSON_AddNumberToObject(body, "delayed", (double)n.delayed) &&
              cJSON_AddNumberToObject(body, "completed", (double)n.completed) &&
              cJSON_AddNumberToObject(body, "failed", (double)n.failed) &&
              cJSON_AddNumberToObject(body, "cancelled", (double)n.cancelled) &&
              cJSON_AddNumberToObject(body, "oldestWaitingSeconds", n.oldest_waiting_s);
    if (ok) {
        rc = add_models(q, body, err);
        add_workers(q, body);
        add_breakers(q, body);
        add_eta(q, body);
        *json = rc == ERR_OK ? cJSON_PrintUnformatted(body) : NULL;
        ok = rc != ERR_OK || *json;
    }
    cJSON_Delete(body);
    return ok ? rc : err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", "queue status");
}

/* ---- gauges: read at each scrape, from every queue_t of the process (there is one, except in tests) ---- */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t live_lock = PTHREAD_MUTEX_INITIALIZER;
static queue_t *live;
static metric_t *jobs, *oldest, *workers_alive, *breaker_states, *breaker_opened;

static void collect_breakers(queue_t *q) {
    const char *names[BREAKER_MODELS_MAX];
    breaker_info_t info[BREAKER_MODELS_MAX];
    PGresult *rows = NULL;
    if (pg_query(q->pg, "SELECT name FROM models ORDER BY name LIMIT 256", 0, NULL, &rows, NULL) != ERR_OK) {
        return;
    }
    int n = PQntuples(rows) < BREAKER_MODELS_MAX ? PQntuples(rows) : BREAKER_MODELS_MAX;
    for (int i = 0; i < n; i++) {
        names[i] = pg_get(rows, i, "name");
    }
    if (breaker_read(q->rds, &q->breaker, n, names, info, NULL) == ERR_OK) {
        for (int i = 0; i < n; i++) {
            const char *labels[] = {names[i]};
            metrics_set(breaker_states, labels, (double)info[i].state);
            double more = (double)info[i].opened_total - metrics_get(breaker_opened, labels);
            metrics_add(breaker_opened, labels, more > 0 ? more : 0); /* Redis may forget, a counter may not fall */
        }
    }
    PQclear(rows);
}

/* Nobody who asks for figures waits for a connection: when all are taken, the figures must say so, and not come too
 * late. */
static bool database_is_free(queue_t *q) {
    pg_pool_stats_t s;
    pg_pool_stats(q->pg, &s);
    return s.in_use < s.max && s.waiting == 0;
}

static void collect_one(queue_t *q) {
    queue_counts_t n;
    bool ask = database_is_free(q); /* else the figures of before stay */
    if (ask && queue_counts(q, &n, NULL) == ERR_OK) {
        const struct {
            job_state_t state;
            int64_t n;
        } all[] = {{JOB_QUEUED, n.waiting},      {JOB_ACTIVE, n.active}, {JOB_DELAYED, n.delayed},
                   {JOB_COMPLETED, n.completed}, {JOB_FAILED, n.failed}, {JOB_CANCELLED, n.cancelled}};
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
            const char *labels[] = {job_state_name(all[i].state)};
            metrics_set(jobs, labels, (double)all[i].n);
        }
        metrics_set(oldest, NULL, n.oldest_waiting_s);
    }
    const char *argv[] = {"HLEN", "sg:workers"};
    redisReply *r = NULL;
    if (rds_run(q->rds, 2, argv, &r, NULL) == ERR_OK && r->type == REDIS_REPLY_INTEGER) {
        metrics_set(workers_alive, NULL, (double)r->integer);
    }
    if (ask) {
        collect_breakers(q);
    }
    if (r) {
        freeReplyObject(r);
    }
}

static void collect(void *arg) {
    (void)arg;
    (void)pthread_mutex_lock(&live_lock);
    for (queue_t *q = live; q; q = q->next_live) {
        collect_one(q);
    }
    (void)pthread_mutex_unlock(&live_lock);
}

static void register_metrics(void) {
    jobs = metrics_gauge("spheroseg_queue_jobs", "Jobs by state; finished ones within the retention time.", "state");
    oldest = metrics_gauge("spheroseg_queue_oldest_waiting_seconds", "Age of the job that waits longest.", NULL);
    workers_alive = metrics_gauge("spheroseg_queue_workers", "Workers in the registry.", NULL);
    breaker_states =
        metrics_gauge("spheroseg_breaker_state",
                      "Circuit breaker of a model, as all workers share it: 0 closed, 1 half open, 2 open.", "model");
    breaker_opened = metrics_counter("spheroseg_breaker_opened_total", "Times the circuit breaker opened.", "model");
    metrics_on_collect(collect, NULL);
}

void queue_metrics_attach(queue_t *q) {
    (void)pthread_once(&once, register_metrics);
    (void)pthread_mutex_lock(&live_lock);
    q->next_live = live;
    live = q;
    (void)pthread_mutex_unlock(&live_lock);
}

void queue_metrics_detach(queue_t *q) {
    (void)pthread_mutex_lock(&live_lock);
    for (queue_t **p = &live; *p; p = &(*p)->next_live) {
        if (*p == q) {
            *p = q->next_live;
            break;
        }
    }
    (void)pthread_mutex_unlock(&live_lock);
}
