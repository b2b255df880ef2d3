/*
 * The end of a claim: complete, fail, hand back, and what recovery does to a row whose worker is gone.
 *
 * Every statement is fenced by token and attempt (a worker) or by the worker's id (recovery), and starts from state
 * 'active': a worker that was thought dead changes nothing (I2). PostgreSQL first, Redis after it: should the second
 * step fail, the lease runs out and the sweeper finds a row that is not active any more.
 */
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "queue_finish.h"
#include "queue_internal.h"
#include "timeutil.h"

/* active -> cancelled | failed | delayed. FENCE picks the row; $2 back-off ms, $3 code, $4 message, $5 detail,
 * $6 message at the last attempt, $7 permanent, $8 cancelled; SEQ the new number. Full jitter: a random time between
 * nothing and the step, which doubles with each attempt (at most five minutes). */
#define END_BADLY(fence, sequence)                                                                                     \
    "WITH n AS (SELECT id, CASE WHEN $8::boolean OR cancel_requested THEN 'cancelled' "                                \
    "WHEN $7::boolean OR attempt >= max_attempts THEN 'failed' ELSE 'delayed' END AS next "                            \
    "FROM jobs WHERE id = $1 AND state = 'active' AND " fence " FOR UPDATE) "                                          \
    "UPDATE jobs j SET state = n.next, token = NULL, stage = '', enqueued_at = NULL, seq = " sequence ", "             \
    "run_after = CASE n.next WHEN 'delayed' THEN now() + random() * "                                                  \
    "LEAST(300000, $2::float8 * power(2, LEAST(j.attempt, 30) - 1)) * interval '1 millisecond' ELSE j.run_after END, " \
    "finished_at = CASE n.next WHEN 'delayed' THEN NULL ELSE now() END, "                                              \
    "error_code = CASE n.next WHEN 'cancelled' THEN NULL ELSE $3 END, "                                                \
    "error_message = CASE n.next WHEN 'cancelled' THEN NULL WHEN 'failed' THEN $6 ELSE $4 END, "                       \
    "error_detail = CASE n.next WHEN 'cancelled' THEN NULL ELSE $5 END "                                               \
    "FROM n WHERE n.id = j.id "                                                                                        \
    "RETURNING j.id, j.project_id, j.image_id, j.state, j.seq, j.attempt, j.model, j.error_code, j.error_message"

void queue_publish_row(queue_t *q, const PGresult *row) {
    bool counted = PQfnumber(row, "object_count") >= 0;
    queue_event_t e = {.project_id = pg_get(row, 0, "project_id"),
                       .image_id = pg_get(row, 0, "image_id"),
                       .job_id = pg_get(row, 0, "id"),
                       .seq = pg_get_int(row, 0, "seq", 0),
                       .attempt = (int)pg_get_int(row, 0, "attempt", 0),
                       .position = -1,
                       .object_count = counted ? (int)pg_get_int(row, 0, "object_count", -1) : -1,
                       .error_code = pg_get(row, 0, "error_code"),
                       .error_message = pg_get(row, 0, "error_message")};
    if (job_state_parse(pg_get(row, 0, "state"), &e.state)) {
        queue_event_publish(q, &e);
    }
}

err_kind_t queue_complete_in_tx(queue_t *q, pg_conn_t *conn, queue_claim_t *c, int object_count,
                                const char *timings_json, err_t *err) {
    (void)q;
    char attempt[16], seq[24], objects[16];
    (void)snprintf(attempt, sizeof attempt, "%d", c->attempt);
    (void)snprintf(seq, sizeof seq, "%lld", (long long)c->seq + 1);
    (void)snprintf(objects, sizeof objects, "%d", object_count);
    const char *params[] = {c->id, c->token, attempt, seq, objects, timings_json};
    PGresult *res = NULL;
    err_kind_t rc =
        pg_exec(conn,
                "UPDATE jobs SET state = 'completed', finished_at = now(), token = NULL, stage = '', seq = $4, "
                "object_count = $5, timings = $6::jsonb, error_code = NULL, error_message = NULL, "
                "error_detail = NULL WHERE id = $1 AND token = $2 AND attempt = $3 AND state = 'active' "
                "AND NOT cancel_requested",
                6, params, &res, err);
    if (rc != ERR_OK) {
        return rc;
    }
    bool ours = pg_affected(res) == 1;
    PQclear(res);
    if (ours) {
        c->seq++;
        return ERR_OK;
    }
    rc = pg_exec(conn, "SELECT 1 FROM jobs WHERE id = $1 AND token = $2 AND attempt = $3 AND cancel_requested", 3,
                 params, &res, err);
    if (rc != ERR_OK) {
        return rc;
    }
    bool cancelled = PQntuples(res) == 1;
    PQclear(res);
    if (cancelled) {
        return err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", "%s", c->id);
    }
    return err_set(err, ERR_CONFLICT, "claim_lost", "Another worker took this job over.", "%s attempt %d", c->id,
                   c->attempt);
}

/* release.lua with 'drop' for all of them; should it fail, their leases run out. */
static void drop_many(queue_t *q, const char *worker_id, const queue_claim_t *c, int n) {
    char proc[192];
    const char *argv[9 + QUEUE_CLAIM_MAX];
    int argc = 0;
    (void)snprintf(proc, sizeof proc, "sg:proc:%s", worker_id);
    argv[argc++] = proc;
    argv[argc++] = "sg:procs";
    argv[argc++] = "sg:lease";
    argv[argc++] = worker_id;
    argv[argc++] = c[0].id;
    argv[argc++] = "drop";
    argv[argc++] = ""; /* model, priority and user matter only to what waits again */
    argv[argc++] = "";
    argv[argc++] = "";
    for (int i = 1; i < n; i++) {
        argv[argc++] = c[i].id;
    }
    err_t err;
    if (queue_eval(q, &q->lua.release, 3, argc, argv, NULL, &err) != ERR_OK) {
        log_event(LOG_WARN, "could not release jobs in Redis; their leases will run out", "jobId", c[0].id, "detail",
                  err.detail, NULL);
    }
}

void queue_complete_done_many(queue_t *q, const char *worker_id, const queue_claim_t *c, const int *object_counts,
                              int n) {
    const char *projects[QUEUE_CLAIM_MAX], *jsons[QUEUE_CLAIM_MAX];
    char *owned[QUEUE_CLAIM_MAX];
    size_t count = 0;
    n = n < QUEUE_CLAIM_MAX ? n : QUEUE_CLAIM_MAX;
    if (n <= 0) {
        return;
    }
    for (int i = 0; i < n; i++) {
        queue_held_remove(q, c[i].id);
    }
    for (int i = 0; i < n; i++) {
        queue_event_t e = {.project_id = c[i].project_id,
                           .image_id = c[i].image_id,
                           .job_id = c[i].id,
                           .seq = c[i].seq,
                           .state = JOB_COMPLETED,
                           .progress = 1,
                           .attempt = c[i].attempt,
                           .position = -1,
                           .object_count = object_counts[i]};
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
    /* The claims last: should Redis be away for both, recovery finds them and publishes the ends again. */
    drop_many(q, worker_id, c, n);
}

void queue_complete_done(queue_t *q, const char *worker_id, const queue_claim_t *c, int object_count) {
    queue_complete_done_many(q, worker_id, c, &object_count, 1);
}

err_kind_t queue_fail(queue_t *q, const char *worker_id, queue_claim_t *c, const err_t *why, err_t *err) {
    char attempt[16], seq[24], backoff[24];
    (void)snprintf(attempt, sizeof attempt, "%d", c->attempt);
    (void)snprintf(seq, sizeof seq, "%lld", (long long)c->seq + 1);
    (void)snprintf(backoff, sizeof backoff, "%lld", (long long)q->backoff_ms);
    const char *permanent = err_is_retryable(why->kind) ? "false" : "true";
    const char *cancelled = why->kind == ERR_CANCELLED ? "true" : "false";
    const char *params[] = {c->id,     backoff,   why->code, why->message, why->detail, why->message,
                            permanent, cancelled, c->token,  attempt,      seq};
    PGresult *row = NULL;
    err_kind_t rc = pg_query(q->pg, END_BADLY("token = $9 AND attempt = $10", "$11"), 11, params, &row, err);
    if (rc != ERR_OK) {
        return rc; /* the caller may try again: the claim is still held */
    }
    bool ours = PQntuples(row) == 1;
    queue_held_remove(q, c->id);
    (void)queue_release_drop(q, worker_id, c->id);
    if (ours) {
        c->seq++;
        queue_publish_row(q, row);
    }
    PQclear(row);
    if (!ours) {
        return err_set(err, ERR_CONFLICT, "claim_lost", "Another worker took this job over.", "%s attempt %d", c->id,
                       c->attempt);
    }
    return ERR_OK;
}

err_kind_t queue_hand_back(queue_t *q, const char *worker_id, queue_claim_t *c, err_t *err) {
    char attempt[16], seq[24], priority[8], proc[192];
    (void)snprintf(attempt, sizeof attempt, "%d", c->attempt);
    (void)snprintf(seq, sizeof seq, "%lld", (long long)c->seq + 1);
    (void)snprintf(priority, sizeof priority, "%d", c->priority);
    (void)snprintf(proc, sizeof proc, "sg:proc:%s", worker_id);
    const char *params[] = {c->id, c->token, attempt, seq};
    PGresult *row = NULL;
    err_kind_t rc = pg_query(q->pg,
                             "UPDATE jobs j SET state = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'queued' END, "
                             "finished_at = CASE WHEN cancel_requested THEN now() END, attempt = attempt - 1, "
                             "token = NULL, worker_id = NULL, started_at = NULL, stage = '', enqueued_at = now(), "
                             "seq = $4 WHERE id = $1 AND token = $2 AND attempt = $3 AND state = 'active' "
                             "RETURNING j.id, j.project_id, j.image_id, j.state, j.seq, j.attempt, j.model, "
                             "j.error_code, j.error_message",
                             4, params, &row, err);
    if (rc != ERR_OK) {
        return rc;
    }
    bool ours = PQntuples(row) == 1;
    bool queued = ours && strcmp(pg_get(row, 0, "state"), "queued") == 0;
    queue_held_remove(q, c->id);
    const char *argv[] = {proc,     "sg:procs", "sg:lease", worker_id, c->id, queued ? "front" : "drop",
                          c->model, priority,   c->user_id};
    err_t why;
    if (queue_eval(q, &q->lua.release, 3, 9, argv, NULL, &why) != ERR_OK) {
        log_event(LOG_WARN, "hand back: Redis is away, the sweeper will do it", "jobId", c->id, "detail", why.detail,
                  NULL);
    }
    if (ours) {
        c->seq++;
        queue_publish_row(q, row);
    }
    PQclear(row);
    if (!ours) {
        return err_set(err, ERR_CONFLICT, "claim_lost", "Another worker took this job over.", "%s attempt %d", c->id,
                       c->attempt);
    }
    return ERR_OK;
}

err_kind_t queue_lose_claim(queue_t *q, pg_conn_t *conn, const char *job_id, const char *worker_id, bool *changed,
                            err_t *err) {
    char backoff[24], skip[24];
    (void)snprintf(backoff, sizeof backoff, "%lld", (long long)q->backoff_ms);
    (void)snprintf(skip, sizeof skip, "%d", QUEUE_SEQ_SKIP);
    static const char again[] = "The program that processed this image stopped unexpectedly. It will be tried again.";
    static const char given_up[] =
        "The program stopped unexpectedly each time it processed this image, so the image was "
        "given up. It may be too large for the server's memory.";
    const char *params[] = {job_id,   backoff, "worker_lost", again,     worker_id,
                            given_up, "false", "false",       worker_id, skip};
    PGresult *row = NULL;
    err_kind_t rc =
        pg_exec(conn, END_BADLY("($9 = '' OR worker_id = $9)", "j.seq + $10::bigint"), 10, params, &row, err);
    if (rc != ERR_OK) {
        return rc;
    }
    *changed = PQntuples(row) == 1;
    if (*changed) {
        log_event(LOG_WARN, "a worker lost a job", "jobId", job_id, "workerId", worker_id, "state",
                  pg_get(row, 0, "state"), NULL);
        queue_publish_row(q, row);
    }
    PQclear(row);
    return ERR_OK;
}

void queue_unregister(queue_t *q, const char *worker_id) {
    const char *argv[] = {"HDEL", "sg:workers", worker_id};
    err_t err;
    if (rds_run(q->rds, 3, argv, NULL, &err) != ERR_OK) {
        log_event(LOG_WARN, "could not leave the registry of workers; the entry will age out", "detail", err.detail,
                  NULL);
    }
}
