/*
 * The queue's worker side while a job runs: the table of claims that this process holds, their leases, their progress,
 * and what tells it that a person cancelled one.
 *
 * A claim is named by the job's id and its tag, the first 16 digits of its token: a worker that lost a job and got it
 * again holds another claim, and what is said to the first does not concern the second.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "log.h"
#include "queue_internal.h"
#include "timeutil.h"

/* ---- the table ---- */

/* tag NULL: the youngest claim of the job. The lock is held. */
static queue_held_t *held_find(queue_t *q, const char *job_id, const char *tag) {
    for (queue_held_t *h = q->held; h; h = h->next) {
        if (strcmp(h->id, job_id) == 0 && (!tag || strncmp(h->tag, tag, QUEUE_TAG_SIZE - 1) == 0)) {
            return h;
        }
    }
    return NULL;
}

void queue_held_add(queue_t *q, const char *job_id, const char *tag, const char *worker_id) {
    queue_held_t *h = calloc(1, sizeof *h);
    if (!h) { /* the job runs without live progress, and cancellation waits for its commit */
        return;
    }
    (void)snprintf(h->id, sizeof h->id, "%s", job_id);
    (void)snprintf(h->tag, sizeof h->tag, "%.16s", tag);
    (void)snprintf(h->worker, sizeof h->worker, "%s", worker_id);
    (void)pthread_mutex_lock(&q->lock);
    h->next = q->held;
    q->held = h;
    (void)pthread_mutex_unlock(&q->lock);
}

void queue_held_remove(queue_t *q, const char *job_id, const char *tag) {
    (void)pthread_mutex_lock(&q->lock);
    for (queue_held_t **p = &q->held; *p; p = &(*p)->next) {
        if (strcmp((*p)->id, job_id) == 0 && strncmp((*p)->tag, tag, QUEUE_TAG_SIZE - 1) == 0) {
            queue_held_t *gone = *p;
            *p = gone->next;
            free(gone);
            break;
        }
    }
    (void)pthread_mutex_unlock(&q->lock);
}

static void held_cancel(queue_t *q, const char *job_id, const char *tag) {
    (void)pthread_mutex_lock(&q->lock);
    queue_held_t *h = held_find(q, job_id, tag);
    if (h) {
        h->cancelled = true;
    }
    (void)pthread_mutex_unlock(&q->lock);
}

static bool held_is_cancelled(queue_t *q, const char *job_id, const char *tag) {
    (void)pthread_mutex_lock(&q->lock);
    queue_held_t *h = held_find(q, job_id, tag);
    bool cancelled = h && h->cancelled;
    (void)pthread_mutex_unlock(&q->lock);
    return cancelled;
}

bool queue_is_cancelled(queue_t *q, const char *job_id) {
    return held_is_cancelled(q, job_id, NULL);
}

bool queue_claim_is_cancelled(queue_t *q, const queue_claim_t *c) {
    return held_is_cancelled(q, c->id, c->token);
}

/* ---- cancellation ---- */

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
        pg_query(q->pg,
                 "SELECT id, left(token, 16) AS tag FROM jobs WHERE id = ANY($1::uuid[]) AND cancel_requested "
                 "AND token IS NOT NULL",
                 1, params, &rows, NULL) == ERR_OK) {
        for (int i = 0; i < PQntuples(rows); i++) {
            held_cancel(q, pg_get(rows, i, "id"), pg_get(rows, i, "tag"));
        }
        PQclear(rows);
    }
    buf_free(&ids);
}

/* A message is "<job id> <tag>". Should both the message and this check fail, the mark in Redis comes back with the
 * next heartbeat (renew.lua), and at the latest the commit is refused. */
static void on_cancel(void *arg, const char *channel, const char *message, size_t len) {
    (void)channel;
    if (!message) {
        check_cancelled(arg);
    } else if (len == JOB_ID_LEN + QUEUE_TAG_SIZE - 1 && message[JOB_ID_LEN - 1] == ' ') {
        char id[JOB_ID_LEN];
        (void)snprintf(id, sizeof id, "%.36s", message);
        held_cancel(arg, id, message + JOB_ID_LEN);
    }
}

void queue_held_watch(queue_t *q) {
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

/* ---- heartbeat ---- */

/* What renew.lua answers for one claim. */
enum { RENEW_LOST = 0, RENEW_CANCEL = 2 };

err_kind_t queue_renew_claims(queue_t *q, const char *worker_id, const char *info_json, const char *const *job_ids,
                              const char *const *tokens, int n, bool *lost, err_t *err) {
    char lease[24], (*tags)[QUEUE_TAG_SIZE] = calloc((size_t)n + 1, sizeof *tags);
    if (!tags) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", "queue_renew");
    }
    (void)snprintf(lease, sizeof lease, "%lld", (long long)q->lease_ms);
    queue_args_t a = {0};
    queue_args_put(&a, worker_id);
    queue_args_put(&a, lease);
    queue_args_put(&a, info_json);
    for (int i = 0; i < n; i++) {
        (void)snprintf(tags[i], sizeof tags[i], "%.16s", tokens[i]);
        queue_args_put(&a, job_ids[i]);
        queue_args_put(&a, tags[i]);
    }
    redisReply *r = NULL;
    err_kind_t rc = queue_eval_args(q, &q->lua.renew, &a, &r, err);
    if (rc == ERR_OK && (r->type != REDIS_REPLY_ARRAY || r->elements != (size_t)n)) {
        rc = err_set(err, ERR_INTERNAL, "redis_error", "The queue gave an unexpected answer.", "renew: type %d",
                     r->type);
    }
    for (int i = 0; rc == ERR_OK && i < n; i++) {
        lost[i] = r->element[i]->integer == RENEW_LOST;
        if (r->element[i]->integer == RENEW_CANCEL) {
            held_cancel(q, job_ids[i], tags[i]);
        }
    }
    if (r) {
        freeReplyObject(r);
    }
    queue_args_free(&a);
    free(tags);
    return rc;
}

err_kind_t queue_renew(queue_t *q, const char *worker_id, const char *info_json, const char *const *job_ids, int n,
                       bool *lost, err_t *err) {
    char(*tags)[QUEUE_TAG_SIZE] = calloc((size_t)n + 1, sizeof *tags);
    const char **tokens = calloc((size_t)n + 1, sizeof *tokens);
    err_kind_t rc = ERR_NO_MEMORY;
    if (tags && tokens) {
        (void)pthread_mutex_lock(&q->lock);
        for (int i = 0; i < n; i++) {
            tokens[i] = tags[i];
            for (queue_held_t *h = q->held; h && !tags[i][0]; h = h->next) {
                if (strcmp(h->id, job_ids[i]) == 0 && strcmp(h->worker, worker_id) == 0) {
                    memcpy(tags[i], h->tag, sizeof h->tag);
                }
            }
        }
        (void)pthread_mutex_unlock(&q->lock);
        rc = queue_renew_claims(q, worker_id, info_json, job_ids, tokens, n, lost, err);
    } else {
        rc = err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", "queue_renew");
    }
    free(tokens);
    free(tags);
    return rc;
}

void queue_report_run(queue_t *q, const queue_claim_t *c, bool ok) {
    breaker_report(q->rds, &q->breaker, c->model, c->id, ok);
}

/* ---- progress ---- */

/* Decides whether a message is due, and notes it. */
static bool progress_due(queue_t *q, const queue_claim_t *c, const char *stage, double *progress) {
    int64_t now = time_mono_ms();
    bool due = false;
    (void)pthread_mutex_lock(&q->lock);
    queue_held_t *h = held_find(q, c->id, c->token);
    if (h && now >= q->progress_pause_until_ms) {
        bool new_stage = strcmp(h->stage, stage) != 0;
        if (new_stage || h->published_ms == 0 || now - h->published_ms >= QUEUE_PROGRESS_GAP_MS) {
            due = true;
            h->published_ms = now;
            (void)snprintf(h->stage, sizeof h->stage, "%s", stage);
            h->progress = *progress > h->progress ? *progress : h->progress; /* never falls */
            *progress = h->progress;
        }
    }
    (void)pthread_mutex_unlock(&q->lock);
    return due;
}

void queue_publish_progress(queue_t *q, queue_claim_t *c, const char *stage, double progress) {
    char tag[QUEUE_TAG_SIZE], value[24], seq[24];
    progress = progress < 0 || isnan(progress) ? 0 : progress > 1 ? 1 : progress;
    if (!progress_due(q, c, stage, &progress)) {
        return;
    }
    c->seq++;
    (void)snprintf(tag, sizeof tag, "%.16s", c->token);
    (void)snprintf(value, sizeof value, "%.4f", progress);
    (void)snprintf(seq, sizeof seq, "%lld", (long long)c->seq);
    const char *argv[] = {c->id, tag, seq, value, stage};
    redisReply *r = NULL;
    bool ours = false;
    if (queue_eval(q, &q->lua.progress, 0, 5, argv, &r, NULL) == ERR_OK) {
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
