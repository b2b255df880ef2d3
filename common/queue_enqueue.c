/*
 * The queue's gateway side: waiting jobs are pushed to Redis, cancelled, retried, and asked for their position.
 *
 * A row is marked as pushed (enqueued_at) before it is pushed: one statement in the fast path. When the push fails the
 * mark is taken back and the sweeper pushes it; when the process dies in between, the audit finds a row that is in no
 * list (queue_audit.c).
 */
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "log.h"
#include "queue_internal.h"

/* images.latest_job_id follows the job that is pushed; a gateway that already set it costs no write. */
#define MARK_PUSHED(where)                                                                                             \
    "WITH j AS (UPDATE jobs SET enqueued_at = now() WHERE " where " RETURNING *), "                                    \
    "i AS (UPDATE images SET latest_job_id = j.id FROM j WHERE images.id = j.image_id "                                \
    "AND images.latest_job_id IS DISTINCT FROM j.id) "                                                                 \
    "SELECT " QUEUE_PUSH_COLUMNS " FROM j ORDER BY j.created_at, j.id"

/* A condition that is true and lets this transaction's commit return before it is on the disk. For the mark alone: the
 * job itself is committed already, and a mark that a crash of the server loses makes the sweeper push it once more. */
#define NO_FLUSH "(SELECT set_config('synchronous_commit', 'off', true)) = 'off'"

static queue_event_t row_event(const PGresult *rows, int i) {
    return (queue_event_t){
        .project_id = pg_get(rows, i, "project_id"),
        .image_id = pg_get(rows, i, "image_id"),
        .job_id = pg_get(rows, i, "id"),
        .seq = pg_get_int(rows, i, "seq", 0),
        .state = JOB_QUEUED,
        .attempt = (int)pg_get_int(rows, i, "attempt", 0),
        .position = -1,
        .object_count = -1,
    };
}

/* Jobs that did not reach Redis become part of the outbox again. uuid_array: '{…}' */
static void unmark_ids(queue_t *q, const char *uuid_array) {
    const char *params[] = {uuid_array};
    err_t err;
    if (pg_query(q->pg, "UPDATE jobs SET enqueued_at = NULL WHERE id = ANY($1::uuid[]) AND state = 'queued'", 1, params,
                 NULL, &err) != ERR_OK) {
        log_error(LOG_WARN, "put jobs back into the outbox", &err);
    }
}

static void unmark(queue_t *q, const PGresult *rows, int from) {
    buf_t ids;
    buf_init(&ids, (size_t)(PQntuples(rows) + 1) * 40);
    for (int i = from; i < PQntuples(rows); i++) {
        buf_printf(&ids, "%s%s", i == from ? "{" : ",", pg_get(rows, i, "id"));
    }
    buf_puts(&ids, "}");
    if (!ids.failed) {
        unmark_ids(q, ids.data);
    }
    buf_free(&ids);
}

void queue_unmark_jobs(queue_t *q, const queue_inserted_t *jobs, int n) {
    buf_t ids;
    buf_init(&ids, (size_t)(n + 1) * 40);
    for (int i = 0; i < n; i++) {
        buf_printf(&ids, "%s%s", i == 0 ? "{" : ",", jobs[i].id);
    }
    buf_puts(&ids, "}");
    if (n > 0 && !ids.failed) {
        unmark_ids(q, ids.data);
    }
    buf_free(&ids);
}

static err_kind_t push_page(queue_t *q, const PGresult *rows, int from, int to, err_t *err) {
    const char *argv[1 + 4 * QUEUE_PAGE];
    int argc = 0;
    argv[argc++] = "back";
    for (int i = from; i < to; i++) {
        argv[argc++] = pg_get(rows, i, "id");
        argv[argc++] = pg_get(rows, i, "model");
        argv[argc++] = pg_get(rows, i, "priority");
        argv[argc++] = pg_get(rows, i, "user_id");
    }
    return queue_eval(q, &q->lua.enqueue, 0, argc, argv, NULL, err);
}

void queue_publish_rows(queue_t *q, const PGresult *rows, int from, int to, job_state_t state) {
    const char *projects[QUEUE_PAGE] = {0};
    const char *jsons[QUEUE_PAGE] = {0};
    char *owned[QUEUE_PAGE] = {0};
    size_t n = 0;
    for (int i = from; i < to; i++) {
        queue_event_t e = row_event(rows, i);
        e.state = state;
        char *json = queue_event_json(&e);
        if (json) {
            projects[n] = e.project_id;
            owned[n] = json;
            jsons[n++] = json;
        }
    }
    events_publish_many(q->rds, n, projects, jsons);
    for (size_t i = 0; i < n; i++) {
        free(owned[i]);
    }
}

err_kind_t queue_push_rows(queue_t *q, const PGresult *rows, bool publish, err_t *err) {
    int n = PQntuples(rows);
    for (int from = 0; from < n; from += QUEUE_PAGE) {
        int to = from + QUEUE_PAGE < n ? from + QUEUE_PAGE : n;
        err_kind_t rc = push_page(q, rows, from, to, err);
        if (rc != ERR_OK) {
            unmark(q, rows, from);
            return rc;
        }
        if (publish) {
            queue_publish_rows(q, rows, from, to, JOB_QUEUED);
        }
    }
    return ERR_OK;
}

static int ask_position(queue_t *q, const char *job_id, const char *model, int priority) {
    char number[8];
    (void)snprintf(number, sizeof number, "%d", priority);
    const char *argv[] = {job_id, model, number};
    redisReply *r = NULL;
    int position = -1;
    if (queue_eval(q, &q->lua.position, 0, 3, argv, &r, NULL) == ERR_OK && r->type == REDIS_REPLY_INTEGER) {
        position = (int)r->integer;
    }
    if (r) {
        freeReplyObject(r);
    }
    return position;
}

void queue_enqueue_inserted(queue_t *q, const queue_inserted_t *job, int *position) {
    int place = -1;
    if (queue_enqueue_group(q, job, 1, &place)) {
        queue_announce_group(q, job, 1, &place);
    }
    if (position) {
        *position = place;
    }
}

err_kind_t queue_enqueue(queue_t *q, const char *job_id, const char *model, int priority, int *position, err_t *err) {
    (void)model;    /* the row is the truth; the parameters are part of the contract so that a later back end may */
    (void)priority; /* push without reading it */
    (void)err;
    if (position) {
        *position = -1;
    }
    const char *params[] = {job_id};
    PGresult *rows = NULL;
    err_t why;
    if (pg_query(q->pg, MARK_PUSHED("id = $1 AND state = 'queued' AND " NO_FLUSH), 1, params, &rows, &why) != ERR_OK) {
        log_error(LOG_WARN, "enqueue: the sweeper will do it", &why);
        return ERR_OK;
    }
    if (PQntuples(rows) == 1) {
        if (push_page(q, rows, 0, 1, &why) == ERR_OK) {
            queue_event_t e = row_event(rows, 0);
            e.position = ask_position(q, job_id, pg_get(rows, 0, "model"), (int)pg_get_int(rows, 0, "priority", 5));
            if (position) {
                *position = e.position;
            }
            queue_event_publish(q, &e);
        } else {
            log_event(LOG_WARN, "enqueue: Redis is away, the sweeper will do it", "jobId", job_id, "detail", why.detail,
                      NULL);
            unmark(q, rows, 0);
        }
    }
    PQclear(rows);
    return ERR_OK;
}

err_kind_t queue_enqueue_batch(queue_t *q, const char *batch_id, int *count, err_t *err) {
    const char *params[] = {batch_id};
    if (count) {
        *count = 0;
    }
    for (;;) {
        PGresult *rows = NULL;
        err_kind_t rc =
            pg_query(q->pg,
                     MARK_PUSHED("id IN (SELECT id FROM jobs WHERE state = 'queued' AND enqueued_at IS NULL "
                                 "AND batch_id = $1 ORDER BY created_at, id LIMIT 500 "
                                 "FOR UPDATE SKIP LOCKED)"),
                     1, params, &rows, err);
        if (rc != ERR_OK) {
            return rc;
        }
        int n = PQntuples(rows);
        err_t why;
        rc = queue_push_rows(q, rows, true, &why);
        PQclear(rows);
        if (rc != ERR_OK) {
            log_event(LOG_WARN, "enqueue batch: Redis is away, the sweeper will do it", "batchId", batch_id, "detail",
                      why.detail, NULL);
            return ERR_OK;
        }
        if (count) {
            *count += n;
        }
        if (n < QUEUE_PAGE) {
            return ERR_OK;
        }
    }
}

/* ---- cancel ---- */

static void cancel_waiting_done(queue_t *q, const PGresult *row) {
    const char *id = pg_get(row, 0, "id");
    const char *argv[] = {id, pg_get(row, 0, "model"), pg_get(row, 0, "priority"), pg_get(row, 0, "user_id")};
    err_t err;
    if (queue_eval(q, &q->lua.remove, 0, 4, argv, NULL, &err) != ERR_OK) {
        log_event(LOG_WARN, "cancel: the id stays in its list until a worker drops it", "jobId", id, "detail",
                  err.detail, NULL);
    }
    queue_event_t e = row_event(row, 0);
    e.state = JOB_CANCELLED;
    queue_event_publish(q, &e);
}

/* tag: of the claim that is to stop. Should the message come late, a younger claim of the job is not meant. */
static void cancel_active_done(queue_t *q, const char *job_id, const char *tag) {
    const char *argv[] = {job_id, tag};
    err_t err;
    if (queue_eval(q, &q->lua.cancel, 0, 2, argv, NULL, &err) != ERR_OK) {
        log_event(LOG_WARN, "cancel: the worker could not be told; its commit will be refused", "jobId", job_id,
                  "detail", err.detail, NULL);
    }
}

/* One try. *done: the job was in a state that this round could deal with. */
static err_kind_t cancel_once(queue_t *q, const char *job_id, job_state_t *state, bool *done, err_t *err) {
    const char *params[] = {job_id};
    PGresult *row = NULL;
    err_kind_t rc = pg_query(q->pg,
                             "UPDATE jobs j SET state = 'cancelled', cancel_requested = true, finished_at = now(), "
                             "seq = seq + 1, error_code = NULL, error_message = NULL, error_detail = NULL "
                             "WHERE id = $1 AND state IN ('queued', 'delayed') RETURNING " QUEUE_PUSH_COLUMNS,
                             1, params, &row, err);
    if (rc != ERR_OK) {
        return rc;
    }
    if (PQntuples(row) == 1) {
        *done = true;
        *state = JOB_CANCELLED;
        cancel_waiting_done(q, row);
    }
    PQclear(row);
    if (*done) {
        return ERR_OK;
    }
    rc = pg_query(q->pg,
                  "UPDATE jobs SET cancel_requested = true WHERE id = $1 AND state = 'active' "
                  "RETURNING id, COALESCE(left(token, 16), '') AS tag",
                  1, params, &row, err);
    if (rc != ERR_OK) {
        return rc;
    }
    *done = PQntuples(row) == 1;
    if (*done) {
        *state = JOB_ACTIVE;
        cancel_active_done(q, job_id, pg_get(row, 0, "tag"));
    }
    PQclear(row);
    if (*done) {
        return ERR_OK;
    }
    rc = pg_query(q->pg, "SELECT state FROM jobs WHERE id = $1", 1, params, &row, err);
    if (rc != ERR_OK) {
        return rc;
    }
    bool known = PQntuples(row) == 1 && job_state_parse(pg_get(row, 0, "state"), state);
    PQclear(row);
    if (!known) {
        return err_set(err, ERR_NOT_FOUND, "job_not_found", "There is no such job.", "%s", job_id);
    }
    if (*state == JOB_COMPLETED || *state == JOB_FAILED || *state == JOB_CANCELLED) {
        return err_set(err, ERR_CONFLICT, "job_finished", "The job has already ended.", "%s is %s", job_id,
                       job_state_name(*state));
    }
    return ERR_OK;
}

err_kind_t queue_cancel(queue_t *q, const char *job_id, job_state_t *state, err_t *err) {
    job_state_t now = JOB_QUEUED;
    bool done = false;
    /* A job may move between two of the statements; it cannot move back and forth for long. */
    for (int i = 0; i < 5; i++) {
        err_kind_t rc = cancel_once(q, job_id, &now, &done, err);
        if (state) {
            *state = now;
        }
        if (rc != ERR_OK || done) {
            return rc;
        }
    }
    return err_set(err, ERR_UNAVAILABLE, "job_busy", "The job is changing its state just now. Try again.", "%s",
                   job_id);
}

err_kind_t queue_retry(queue_t *q, const char *job_id, err_t *err) {
    const char *params[] = {job_id};
    PGresult *row = NULL;
    err_kind_t rc = pg_query(q->pg,
                             "UPDATE jobs SET state = 'queued', attempt = 0, seq = seq + 1, token = NULL, "
                             "worker_id = NULL, cancel_requested = false, run_after = now(), enqueued_at = NULL, "
                             "started_at = NULL, finished_at = NULL, stage = '', error_code = NULL, "
                             "error_message = NULL, error_detail = NULL, object_count = NULL, timings = NULL "
                             "WHERE id = $1 AND state IN ('failed', 'cancelled') RETURNING model, priority",
                             1, params, &row, err);
    if (rc == ERR_CONFLICT) {
        return err_set(err, ERR_CONFLICT, "job_exists", "This image already has an unfinished job.", "%s", job_id);
    }
    if (rc != ERR_OK) {
        return rc;
    }
    if (PQntuples(row) != 1) {
        PQclear(row);
        return err_set(err, ERR_CONFLICT, "job_not_retryable", "Only a failed or cancelled job can be tried again.",
                       "%s", job_id);
    }
    rc = queue_enqueue(q, job_id, pg_get(row, 0, "model"), (int)pg_get_int(row, 0, "priority", 5), NULL, err);
    PQclear(row);
    return rc;
}

/* ---- questions ---- */

int queue_position(queue_t *q, const char *job_id, const char *model, int priority) {
    return ask_position(q, job_id, model, priority);
}

/* The words of a claim in sg:held: "<tag> <worker> … at=<seq>/<progress>/<stage> …". False: it told of none yet. */
static bool read_progress(const char *claim, double *progress, char *stage, int64_t *seq) {
    const char *at = strstr(claim, " at=");
    if (!at) {
        return false;
    }
    char *end = NULL;
    *seq = strtoll(at + 4, &end, 10);
    if (*end != '/') {
        return false;
    }
    *progress = strtod(end + 1, &end);
    if (*end != '/') {
        return false;
    }
    size_t n = strcspn(end + 1, " ");
    (void)snprintf(stage, 24, "%.*s", (int)(n < 24 ? n : 23), end + 1);
    return true;
}

bool queue_progress(queue_t *q, const char *job_id, double *progress, char *stage, int64_t *seq) {
    const char *argv[] = {"HGET", "sg:held", job_id};
    redisReply *r = NULL;
    bool known = rds_run(q->rds, 3, argv, &r, NULL) == ERR_OK && r->type == REDIS_REPLY_STRING &&
                 read_progress(r->str, progress, stage, seq);
    if (r) {
        freeReplyObject(r);
    }
    return known;
}
