/*
 * The queue's worker side while a job runs: claim it, keep its lease, publish its progress, notice its cancellation.
 *
 * A claim is made twice: claim.lua moves the id to the worker's processing list, then the row goes from queued to
 * active with a new token. Only the second one counts; an id whose row is not queued is dropped from Redis.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "log.h"
#include "queue_internal.h"
#include "timeutil.h"

enum { MAX_MODELS = 64, WAIT_SLICE_MS = 2000, MAX_STALE = 1000 };

/* ---- the table of claims that this process holds ---- */

static queue_held_t *held_find(queue_t *q, const char *job_id) {
    for (queue_held_t *h = q->held; h; h = h->next) {
        if (strcmp(h->id, job_id) == 0) {
            return h;
        }
    }
    return NULL;
}

void queue_held_add(queue_t *q, const char *job_id, const char *worker_id) {
    (void)pthread_mutex_lock(&q->lock);
    queue_held_t *h = held_find(q, job_id);
    if (!h && (h = calloc(1, sizeof *h)) != NULL) {
        h->next = q->held;
        q->held = h;
    }
    if (h) { /* else memory is gone: the job runs without live progress, and cancellation waits for its commit */
        queue_held_t *next = h->next;
        *h = (queue_held_t){.next = next};
        (void)snprintf(h->id, sizeof h->id, "%s", job_id);
        (void)snprintf(h->worker, sizeof h->worker, "%s", worker_id);
    }
    (void)pthread_mutex_unlock(&q->lock);
}

void queue_held_remove(queue_t *q, const char *job_id) {
    (void)pthread_mutex_lock(&q->lock);
    for (queue_held_t **p = &q->held; *p; p = &(*p)->next) {
        if (strcmp((*p)->id, job_id) == 0) {
            queue_held_t *gone = *p;
            *p = gone->next;
            free(gone);
            break;
        }
    }
    (void)pthread_mutex_unlock(&q->lock);
}

void queue_held_cancel(queue_t *q, const char *job_id) {
    (void)pthread_mutex_lock(&q->lock);
    queue_held_t *h = held_find(q, job_id);
    if (h) {
        h->cancelled = true;
    }
    (void)pthread_mutex_unlock(&q->lock);
}

bool queue_is_cancelled(queue_t *q, const char *job_id) {
    (void)pthread_mutex_lock(&q->lock);
    queue_held_t *h = held_find(q, job_id);
    bool cancelled = h && h->cancelled;
    (void)pthread_mutex_unlock(&q->lock);
    return cancelled;
}

/* Messages may have been missed: asks PostgreSQL which of the jobs held here were cancelled. */
static void check_cancelled(queue_t *q) {
    buf_t ids;
    buf_init(&ids, 1 << 20);
    buf_puts(&ids, "{");
    (void)pthread_mutex_lock(&q->lock);
    for (queue_held_t *h = q->held; h; h = h->next) {
        buf_printf(&ids, "%s%s", h == q->held ? "" : ",", h->id);
    }
    (void)pthread_mutex_unlock(&q->lock);
    buf_puts(&ids, "}");
    const char *params[] = {ids.data};
    PGresult *rows = NULL;
    if (!ids.failed && ids.len > 2 &&
        pg_query(q->pg, "SELECT id FROM jobs WHERE id = ANY($1::uuid[]) AND cancel_requested", 1, params, &rows,
                 NULL) == ERR_OK) {
        for (int i = 0; i < PQntuples(rows); i++) {
            queue_held_cancel(q, pg_get(rows, i, "id"));
        }
        PQclear(rows);
    }
    buf_free(&ids);
}

/* Should both the message and this check fail, the mark in Redis comes back with the next heartbeat (renew.lua), and at
 * the latest the commit is refused. */
static void on_cancel(void *arg, const char *channel, const char *message, size_t len) {
    (void)channel;
    if (!message) {
        check_cancelled(arg);
    } else if (len == JOB_ID_LEN - 1) {
        queue_held_cancel(arg, message);
    }
}

static void start_cancel_subscription(queue_t *q) {
    (void)pthread_mutex_lock(&q->lock);
    bool fresh = false;
    if (!q->cancel_sub) {
        err_t err;
        fresh = events_sub_create(q->rds, on_cancel, q, &q->cancel_sub, &err) == ERR_OK;
        if (!fresh) {
            q->cancel_sub = NULL;
            log_error(LOG_WARN, "subscribe to cancellations", &err);
        }
    }
    events_sub_t *sub = q->cancel_sub;
    (void)pthread_mutex_unlock(&q->lock);
    if (fresh) {
        (void)events_sub_add(sub, "sg:cancel", 1000);
    }
}

/* ---- waiting without polling ---- */

static err_kind_t blocking_get(queue_t *q, rds_conn_t **out, err_t *err) {
    *out = NULL;
    (void)pthread_mutex_lock(&q->lock);
    if (q->blocking_count > 0) {
        *out = q->blocking[--q->blocking_count];
    }
    (void)pthread_mutex_unlock(&q->lock);
    if (*out && !rds_is_stale(*out)) {
        return ERR_OK;
    }
    rds_release(*out);
    return rds_connect(q->rds, (int)(WAIT_SLICE_MS + q->redis_timeout_ms), out, err);
}

static void blocking_put(queue_t *q, rds_conn_t *conn, bool good) {
    (void)pthread_mutex_lock(&q->lock);
    if (good && q->blocking_count < QUEUE_MAX_BLOCKING) {
        q->blocking[q->blocking_count++] = conn;
        conn = NULL;
    }
    (void)pthread_mutex_unlock(&q->lock);
    if (conn) {
        if (!good) {
            rds_fail(conn);
        }
        rds_release(conn);
    }
}

/* Returns when a job of one of the models may be waiting, or after ms. */
static err_kind_t wait_for_wake(queue_t *q, const char *const *models, int nmodels, int64_t ms, err_t *err) {
    char keys[MAX_MODELS][80];
    char seconds[32];
    const char *argv[MAX_MODELS + 2];
    int argc = 0;
    argv[argc++] = "BLPOP";
    for (int i = 0; i < nmodels; i++) {
        (void)snprintf(keys[i], sizeof keys[i], "sg:wake:%s", models[i]);
        argv[argc++] = keys[i];
    }
    /* zero would mean for ever */
    (void)snprintf(seconds, sizeof seconds, "%.3f", (double)(ms < 1 ? 1 : ms) / 1000.0);
    argv[argc++] = seconds;
    rds_conn_t *conn = NULL;
    err_kind_t rc = blocking_get(q, &conn, err);
    if (rc == ERR_OK) {
        redisReply *r = NULL;
        rc = rds_command(conn, argc, argv, NULL, &r, err);
        if (r) {
            freeReplyObject(r);
        }
        blocking_put(q, conn, rc == ERR_OK);
    }
    return rc;
}

/* ---- claim ---- */

typedef struct {
    char id[JOB_ID_LEN], user[JOB_ID_LEN], model[64], priority[8];
} candidate_t;

static bool copy_element(const redisReply *r, char *out, size_t room) {
    if (r->type == REDIS_REPLY_INTEGER) {
        return snprintf(out, room, "%lld", r->integer) > 0;
    }
    return r->type == REDIS_REPLY_STRING && r->len < room && snprintf(out, room, "%s", r->str) >= 0;
}

/* *n: how many were found, at most `most`. */
static err_kind_t claim_in_redis(queue_t *q, const char *worker_id, const char *const *models, int nmodels, int most,
                                 candidate_t *c, int *n, err_t *err) {
    char proc[192], lease[24], age[24], every[16], count[16];
    const char *argv[MAX_MODELS + 8];
    int argc = 0;
    (void)snprintf(proc, sizeof proc, "sg:proc:%s", worker_id);
    (void)snprintf(lease, sizeof lease, "%lld", (long long)q->lease_ms);
    (void)snprintf(age, sizeof age, "%lld", (long long)q->tune.age_ms);
    (void)snprintf(every, sizeof every, "%d", q->tune.age_every);
    (void)snprintf(count, sizeof count, "%d", most);
    argv[argc++] = proc;
    argv[argc++] = "sg:procs";
    argv[argc++] = "sg:lease";
    argv[argc++] = worker_id;
    argv[argc++] = lease;
    argv[argc++] = age;
    argv[argc++] = every;
    argv[argc++] = count;
    for (int i = 0; i < nmodels; i++) {
        argv[argc++] = models[i];
    }
    redisReply *r = NULL;
    err_kind_t rc = queue_eval(q, &q->lua.claim, 3, argc, argv, &r, err);
    *n = 0;
    if (rc == ERR_OK && r->type == REDIS_REPLY_ARRAY && r->elements % 4 == 0) {
        for (size_t i = 0; i < r->elements && *n < most; i += 4) {
            candidate_t *one = &c[*n];
            *n += copy_element(r->element[i], one->id, sizeof one->id) &&
                  copy_element(r->element[i + 1], one->model, sizeof one->model) &&
                  copy_element(r->element[i + 2], one->priority, sizeof one->priority) &&
                  copy_element(r->element[i + 3], one->user, sizeof one->user);
        }
    }
    if (r) {
        freeReplyObject(r);
    }
    return rc;
}

/* Back to the head of its list: PostgreSQL could not be asked. */
static void put_back(queue_t *q, const char *worker_id, const candidate_t *c) {
    char proc[192];
    (void)snprintf(proc, sizeof proc, "sg:proc:%s", worker_id);
    const char *argv[] = {proc, "sg:procs", "sg:lease", worker_id, c->id, "front", c->model, c->priority, c->user};
    if (queue_eval(q, &q->lua.release, 3, 9, argv, NULL, NULL) != ERR_OK) {
        log_event(LOG_WARN, "could not put a job back; its lease will run out", "jobId", c->id, NULL);
    }
}

static void copy_column(char *out, size_t room, const PGresult *rows, int i, const char *column) {
    const char *v = pg_get(rows, i, column);
    (void)snprintf(out, room, "%s", v ? v : "");
}

static void fill_claim(const PGresult *rows, int i, queue_claim_t *out) {
    *out = (queue_claim_t){0};
    copy_column(out->id, sizeof out->id, rows, i, "id");
    copy_column(out->project_id, sizeof out->project_id, rows, i, "project_id");
    copy_column(out->image_id, sizeof out->image_id, rows, i, "image_id");
    copy_column(out->user_id, sizeof out->user_id, rows, i, "user_id");
    copy_column(out->token, sizeof out->token, rows, i, "token");
    copy_column(out->model, sizeof out->model, rows, i, "model");
    copy_column(out->storage_key, sizeof out->storage_key, rows, i, "storage_key");
    out->threshold = pg_get_real(rows, i, "threshold", NAN);
    out->detect_holes = pg_get_bool(rows, i, "detect_holes");
    out->priority = (int)pg_get_int(rows, i, "priority", 5);
    out->attempt = (int)pg_get_int(rows, i, "attempt", 1);
    out->max_attempts = (int)pg_get_int(rows, i, "max_attempts", 1);
    out->seq = pg_get_int(rows, i, "seq", 0);
    out->waited_s = pg_get_real(rows, i, "waited", 0);
}

/* The candidates' ids and as many new tokens, as arrays for PostgreSQL. */
static err_kind_t claim_arrays(const candidate_t *c, int n, buf_t *ids, buf_t *tokens, err_t *err) {
    buf_puts(ids, "{");
    buf_puts(tokens, "{");
    for (int i = 0; i < n; i++) {
        char token[65];
        err_kind_t rc = queue_random_hex(token, 32, err);
        if (rc != ERR_OK) {
            return rc;
        }
        buf_printf(ids, "%s%s", i ? "," : "", c[i].id);
        buf_printf(tokens, "%s%s", i ? "," : "", token);
    }
    buf_puts(ids, "}");
    buf_puts(tokens, "}");
    return ids->failed || tokens->failed
               ? err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", "claim")
               : ERR_OK;
}

/* queued -> active, in one statement. out, taken: one for each candidate; a row that is not queued (any more) is not
 * taken. */
static err_kind_t claim_rows(queue_t *q, const char *worker_id, const candidate_t *c, int n, queue_claim_t *out,
                             bool *taken, err_t *err) {
    buf_t ids, tokens;
    buf_init(&ids, 1 << 20);
    buf_init(&tokens, 1 << 20);
    PGresult *rows = NULL;
    err_kind_t rc = claim_arrays(c, n, &ids, &tokens, err);
    if (rc == ERR_OK) {
        const char *params[] = {ids.data, tokens.data, worker_id};
        rc = pg_query(
            q->pg,
            "WITH c AS (UPDATE jobs SET state = 'active', attempt = attempt + 1, token = n.token, worker_id = $3, "
            "started_at = now(), stage = '', cancel_requested = false, error_code = NULL, error_message = NULL, "
            "error_detail = NULL, seq = GREATEST((attempt + 1)::bigint << 32, seq) + 1 "
            "FROM unnest($1::uuid[], $2::text[]) AS n(job, token) "
            "WHERE jobs.id = n.job AND state = 'queued' RETURNING jobs.*) "
            "SELECT c.*, i.storage_key, GREATEST(0, extract(epoch FROM c.started_at - c.run_after)) AS waited "
            "FROM c JOIN images i ON i.id = c.image_id",
            3, params, &rows, err);
    }
    buf_free(&ids);
    buf_free(&tokens);
    for (int i = 0; i < n; i++) {
        taken[i] = false;
        for (int k = 0; rc == ERR_OK && k < PQntuples(rows) && !taken[i]; k++) {
            taken[i] = strcmp(pg_get(rows, k, "id"), c[i].id) == 0;
            if (taken[i]) {
                fill_claim(rows, k, &out[i]);
            }
        }
    }
    if (rc == ERR_OK) {
        PQclear(rows);
    }
    return rc;
}

static void publish_claims(queue_t *q, const queue_claim_t *c, int n) {
    const char *projects[QUEUE_CLAIM_MAX] = {0}, *jsons[QUEUE_CLAIM_MAX] = {0};
    char *owned[QUEUE_CLAIM_MAX];
    size_t count = 0;
    for (int i = 0; i < n; i++) {
        queue_event_t e = {.project_id = c[i].project_id,
                           .image_id = c[i].image_id,
                           .job_id = c[i].id,
                           .seq = c[i].seq,
                           .state = JOB_ACTIVE,
                           .attempt = c[i].attempt,
                           .position = -1,
                           .object_count = -1};
        char *json = queue_event_json(&e);
        if (json) {
            projects[count] = c[i].project_id;
            owned[count] = json;
            jsons[count++] = json;
        }
    }
    events_publish_many(q->rds, count, projects, jsons);
    for (size_t i = 0; i < count; i++) {
        free(owned[i]);
    }
}

/* One look: Redis, then the rows. *stale: ids that Redis gave and PostgreSQL did not; they are dropped. */
static err_kind_t claim_once(queue_t *q, const char *worker_id, const char *const *models, int nmodels, int most,
                             queue_claim_t *out, int *got, int *stale, err_t *err) {
    candidate_t c[QUEUE_CLAIM_MAX];
    bool taken[QUEUE_CLAIM_MAX];
    int n = 0;
    *got = *stale = 0;
    err_kind_t rc = claim_in_redis(q, worker_id, models, nmodels, most, c, &n, err);
    if (rc != ERR_OK || n == 0) {
        return rc;
    }
    for (int i = 0; i < n; i++) {
        queue_held_add(q, c[i].id, worker_id); /* first, so that no cancellation falls between the two steps */
    }
    rc = claim_rows(q, worker_id, c, n, out, taken, err);
    for (int i = n - 1; rc != ERR_OK && i >= 0; i--) { /* the last first: each goes to the head of its list */
        queue_held_remove(q, c[i].id);
        put_back(q, worker_id, &c[i]);
    }
    for (int i = 0; rc == ERR_OK && i < n; i++) {
        if (!taken[i]) { /* cancelled, deleted, or a leftover of an older Redis */
            queue_held_remove(q, c[i].id);
            (void)queue_release_drop(q, worker_id, c[i].id);
            ++*stale;
        } else {
            if (*got != i) {
                out[*got] = out[i];
            }
            ++*got;
        }
    }
    return rc;
}

err_kind_t queue_claim_many(queue_t *q, const char *worker_id, const char *const *models, int nmodels, int most,
                            int wait_ms, queue_claim_t *out, int *got, err_t *err) {
    *got = 0;
    if (nmodels < 1 || nmodels > MAX_MODELS) {
        return err_set(err, ERR_INVALID, "models_invalid", "A worker serves between 1 and 64 models.", "%d", nmodels);
    }
    if (most < 1 || most > QUEUE_CLAIM_MAX) {
        return err_set(err, ERR_INVALID, "claims_invalid", "Between 1 and 64 jobs are claimed at once.", "%d", most);
    }
    start_cancel_subscription(q);
    int64_t deadline = time_mono_ms() + wait_ms;
    for (int stale = 0; stale < MAX_STALE;) {
        int dropped = 0;
        err_kind_t rc = claim_once(q, worker_id, models, nmodels, most, out, got, &dropped, err);
        if (rc != ERR_OK) {
            return rc;
        }
        if (*got > 0) {
            publish_claims(q, out, *got);
            return ERR_OK;
        }
        stale += dropped;
        if (dropped > 0) {
            continue;
        }
        int64_t left = deadline - time_mono_ms();
        if (left <= 0) {
            return ERR_OK;
        }
        rc = wait_for_wake(q, models, nmodels, left < WAIT_SLICE_MS ? left : WAIT_SLICE_MS, err);
        if (rc != ERR_OK) {
            return rc;
        }
    }
    return ERR_OK;
}

err_kind_t queue_claim(queue_t *q, const char *worker_id, const char *const *models, int nmodels, int wait_ms,
                       queue_claim_t *out, bool *got, err_t *err) {
    int n = 0;
    err_kind_t rc = queue_claim_many(q, worker_id, models, nmodels, 1, wait_ms, out, &n, err);
    *got = n == 1;
    return rc;
}

void queue_report_run(queue_t *q, const queue_claim_t *c, bool ok) {
    breaker_report(q->rds, &q->breaker, c->model, c->id, ok);
}

/* ---- heartbeat ---- */

err_kind_t queue_renew(queue_t *q, const char *worker_id, const char *info_json, const char *const *job_ids, int n,
                       bool *lost, err_t *err) {
    char proc[192], lease[24];
    (void)snprintf(proc, sizeof proc, "sg:proc:%s", worker_id);
    (void)snprintf(lease, sizeof lease, "%lld", (long long)q->lease_ms);
    const char **argv = calloc((size_t)n + 7, sizeof *argv);
    if (!argv) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", "queue_renew");
    }
    int argc = 0;
    argv[argc++] = proc;
    argv[argc++] = "sg:procs";
    argv[argc++] = "sg:lease";
    argv[argc++] = "sg:workers";
    argv[argc++] = worker_id;
    argv[argc++] = lease;
    argv[argc++] = info_json;
    for (int i = 0; i < n; i++) {
        argv[argc++] = job_ids[i];
    }
    redisReply *r = NULL;
    err_kind_t rc = queue_eval(q, &q->lua.renew, 4, argc, argv, &r, err);
    if (rc == ERR_OK && (r->type != REDIS_REPLY_ARRAY || r->elements != (size_t)n)) {
        rc = err_set(err, ERR_INTERNAL, "redis_error", "The queue gave an unexpected answer.", "renew: type %d",
                     r->type);
    }
    for (int i = 0; rc == ERR_OK && i < n; i++) {
        lost[i] = r->element[i]->integer == 0;
        if (r->element[i]->integer == 2) {
            queue_held_cancel(q, job_ids[i]);
        }
    }
    if (r) {
        freeReplyObject(r);
    }
    free(argv);
    return rc;
}

/* ---- progress ---- */

/* Decides whether a message is due, and notes it. worker: room for 128 bytes. */
static bool progress_due(queue_t *q, const char *job_id, const char *stage, double *progress, char *worker) {
    int64_t now = time_mono_ms();
    bool due = false;
    (void)pthread_mutex_lock(&q->lock);
    queue_held_t *h = held_find(q, job_id);
    if (h && now >= q->progress_pause_until_ms) {
        bool new_stage = strcmp(h->stage, stage) != 0;
        if (new_stage || h->published_ms == 0 || now - h->published_ms >= QUEUE_PROGRESS_GAP_MS) {
            due = true;
            h->published_ms = now;
            (void)snprintf(h->stage, sizeof h->stage, "%s", stage);
            h->progress = *progress > h->progress ? *progress : h->progress; /* never falls */
            *progress = h->progress;
            (void)snprintf(worker, 128, "%s", h->worker);
        }
    }
    (void)pthread_mutex_unlock(&q->lock);
    return due;
}

void queue_publish_progress(queue_t *q, queue_claim_t *c, const char *stage, double progress) {
    char worker[128], key[64], value[24], seq[24];
    progress = progress < 0 || isnan(progress) ? 0 : progress > 1 ? 1 : progress;
    if (!progress_due(q, c->id, stage, &progress, worker)) {
        return;
    }
    c->seq++;
    (void)snprintf(key, sizeof key, "sg:job:%s", c->id);
    (void)snprintf(value, sizeof value, "%.4f", progress);
    (void)snprintf(seq, sizeof seq, "%lld", (long long)c->seq);
    const char *argv[] = {key, worker, value, stage, seq};
    redisReply *r = NULL;
    bool ours = false;
    if (queue_eval(q, &q->lua.progress, 1, 5, argv, &r, NULL) == ERR_OK) {
        ours = r->type == REDIS_REPLY_INTEGER && r->integer == 1;
    } else {
        /* A Redis that hangs must not slow the inference down by a time-out per message. */
        (void)pthread_mutex_lock(&q->lock);
        q->progress_pause_until_ms = time_mono_ms() + QUEUE_REDIS_PAUSE_MS;
        (void)pthread_mutex_unlock(&q->lock);
    }
    if (r) {
        freeReplyObject(r);
    }
    if (ours) {
        queue_event_t e = {.project_id = c->project_id,
                           .image_id = c->image_id,
                           .job_id = c->id,
                           .seq = c->seq,
                           .state = JOB_ACTIVE,
                           .stage = stage,
                           .progress = progress,
                           .attempt = c->attempt,
                           .position = -1,
                           .object_count = -1};
        queue_event_publish(q, &e);
    }
}
