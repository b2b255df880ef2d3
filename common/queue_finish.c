/*
 * The end of a claim: complete, fail, hand back, and what recovery does to a row whose worker is gone.
 *
 * Every statement is fenced by the claim's token (a worker) or its first digits (recovery, which Redis told them), and
 * starts from state 'active': a worker that was thought dead changes nothing (I2), and recovery that comes late does
 * not end a younger claim, not even one of the same worker. PostgreSQL first, Redis after it, where the end of the
 * claim and the news of it are one step: should that fail, the lease runs out, and the sweeper finds a row that is not
 * active any more and tells of it.
 */
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "json_util.h"
#include "log.h"
#include "queue_finish.h"
#include "queue_internal.h"
#include "timeutil.h"

/* active -> cancelled | failed | delayed, for each element of the array $2. token: as many digits of the claim's token
 * as are known; at_last: the message if this was the last attempt; seq: the new number, or null when only PostgreSQL
 * knows the old one; lost: the worker is gone. $1 back-off, ms. Full jitter: a random time between nothing and the
 * step, which doubles with each attempt (at most five minutes). Rows are locked in the order of their ids, so that two
 * such statements cannot wait for each other.
 *
 * active -> queued, and the attempt is given back: a lost claim that had not begun. A worker begins what it claimed
 * together one after the other, each when the one before has ended in PostgreSQL, so of those only the first that is
 * active can have begun; the tokens tell which were claimed together and their order (QUEUE_TOKEN_TURN_TEXT). */
#define END_BADLY                                                                                                      \
    "WITH x AS (SELECT * FROM jsonb_to_recordset($2::jsonb) AS x(id uuid, token text, seq bigint, code text, "         \
    "message text, at_last text, detail text, permanent boolean, cancelled boolean, lost boolean)), "                  \
    "n AS (SELECT j.id, CASE WHEN x.cancelled OR j.cancel_requested THEN 'cancelled' "                                 \
    "WHEN x.lost AND EXISTS (SELECT 1 FROM jobs o WHERE o.state = 'active' AND o.worker_id = j.worker_id "             \
    "AND left(o.token, " QUEUE_TOKEN_TURN_TEXT ") = left(j.token, " QUEUE_TOKEN_TURN_TEXT ") "                         \
    "AND left(o.token, " QUEUE_TOKEN_PLACE_TEXT ") COLLATE \"C\" < left(j.token, " QUEUE_TOKEN_PLACE_TEXT ")) "        \
    "THEN 'queued' "                                                                                                   \
    "WHEN x.permanent OR j.attempt >= j.max_attempts THEN 'failed' ELSE 'delayed' END AS next, x.seq AS new_seq, "     \
    "x.code, x.message, x.at_last, x.detail FROM jobs j JOIN x ON x.id = j.id "                                        \
    "WHERE j.state = 'active' AND length(x.token) >= 16 AND left(j.token, length(x.token)) = x.token "                 \
    "ORDER BY j.id FOR UPDATE OF j) "                                                                                  \
    "UPDATE jobs j SET state = n.next, token = NULL, stage = '', "                                                     \
    "enqueued_at = CASE n.next WHEN 'queued' THEN now() END, "                                                         \
    "attempt = j.attempt - CASE n.next WHEN 'queued' THEN 1 ELSE 0 END, "                                              \
    "worker_id = CASE n.next WHEN 'queued' THEN NULL ELSE j.worker_id END, "                                           \
    "started_at = CASE n.next WHEN 'queued' THEN NULL ELSE j.started_at END, "                                         \
    "seq = COALESCE(n.new_seq, j.seq + " QUEUE_SEQ_SKIP_TEXT "), "                                                     \
    "run_after = CASE n.next WHEN 'delayed' THEN now() + random() * "                                                  \
    "LEAST(300000, $1::float8 * power(2, LEAST(j.attempt, 30) - 1)) * interval '1 millisecond' ELSE j.run_after END, " \
    "finished_at = CASE WHEN n.next IN ('delayed', 'queued') THEN NULL ELSE now() END, "                               \
    "error_code = CASE WHEN n.next IN ('cancelled', 'queued') THEN NULL ELSE n.code END, "                             \
    "error_message = CASE n.next WHEN 'failed' THEN n.at_last WHEN 'delayed' THEN n.message END, "                     \
    "error_detail = CASE WHEN n.next IN ('cancelled', 'queued') THEN NULL ELSE n.detail END "                          \
    "FROM n WHERE n.id = j.id "                                                                                        \
    "RETURNING j.id, j.project_id, j.image_id, j.state, j.seq, j.attempt, j.model, j.error_code, j.error_message"

void queue_news_add_row(queue_news_t *news, const PGresult *rows, int i) {
    bool counted = PQfnumber(rows, "object_count") >= 0;
    queue_event_t e = {.project_id = pg_get(rows, i, "project_id"),
                       .image_id = pg_get(rows, i, "image_id"),
                       .job_id = pg_get(rows, i, "id"),
                       .seq = pg_get_int(rows, i, "seq", 0),
                       .attempt = (int)pg_get_int(rows, i, "attempt", 0),
                       .position = -1,
                       .object_count = counted ? (int)pg_get_int(rows, i, "object_count", -1) : -1,
                       .error_code = pg_get(rows, i, "error_code"),
                       .error_message = pg_get(rows, i, "error_message")};
    if (job_state_parse(pg_get(rows, i, "state"), &e.state)) {
        queue_news_add(news, &e);
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

/* release.lua with the news; should it fail, the leases run out, and recovery tells instead. */
static void release_and_tell(queue_t *q, const char *how, const queue_release_t *jobs, int n,
                             const queue_news_t *news) {
    err_t err;
    if (n > 0 && queue_release(q, how, jobs, n, news, &err) != ERR_OK) {
        log_event(LOG_WARN, "could not release jobs in Redis; their leases will run out", "jobId", jobs[0].id, "detail",
                  err.detail, NULL);
    }
}

void queue_complete_done_many(queue_t *q, const char *worker_id, const queue_claim_t *c, const int *object_counts,
                              int n) {
    (void)worker_id;
    queue_release_t jobs[QUEUE_CLAIM_MAX];
    queue_news_t news = {0};
    n = n < QUEUE_CLAIM_MAX ? n : QUEUE_CLAIM_MAX;
    for (int i = 0; i < n; i++) {
        queue_held_remove(q, c[i].id, c[i].token);
        jobs[i] = (queue_release_t){c[i].id, c[i].token, c[i].model, NULL, NULL};
        queue_news_add(&news, &(queue_event_t){.project_id = c[i].project_id,
                                               .image_id = c[i].image_id,
                                               .job_id = c[i].id,
                                               .seq = c[i].seq,
                                               .state = JOB_COMPLETED,
                                               .progress = 1,
                                               .attempt = c[i].attempt,
                                               .position = -1,
                                               .object_count = object_counts[i]});
    }
    release_and_tell(q, "drop", jobs, n, &news);
    queue_news_free(&news);
}

void queue_complete_done(queue_t *q, const char *worker_id, const queue_claim_t *c, int object_count) {
    queue_complete_done_many(q, worker_id, c, &object_count, 1);
}

/* ---- fail and hand back ---- */

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", "end of claims");
}

static void put_pair(buf_t *b, const char *name, const char *text) {
    buf_printf(b, ",\"%s\":", name);
    json_put_string(b, text);
}

static int find_row(const PGresult *rows, const char *id) {
    for (int i = 0; i < PQntuples(rows); i++) {
        if (strcmp(pg_get(rows, i, "id"), id) == 0) {
            return i;
        }
    }
    return -1;
}

static err_kind_t claim_lost(const queue_claim_t *c, err_t *err) {
    return err_set(err, ERR_CONFLICT, "claim_lost", "Another worker took this job over.", "%s attempt %d", c->id,
                   c->attempt);
}

/* What follows the statement, for claims that stay ended and for those that wait again: the process's table, the claims
 * in Redis and the news in one step. A claim whose row was not changed was lost, and is let go of as well. */
static void end_claims(queue_t *q, queue_claim_t *const *c, int n, const PGresult *rows, err_kind_t *results) {
    queue_release_t drop[QUEUE_CLAIM_MAX], front[QUEUE_CLAIM_MAX];
    char priorities[QUEUE_CLAIM_MAX][8];
    queue_news_t dropped = {0}, returned = {0};
    int ndrop = 0, nfront = 0;
    for (int i = n - 1; i >= 0; i--) { /* the last first: each goes to the head of its list */
        int row = find_row(rows, c[i]->id);
        bool waits = row >= 0 && strcmp(pg_get(rows, row, "state"), "queued") == 0;
        results[i] = row >= 0 ? ERR_OK : ERR_CONFLICT;
        c[i]->seq += row >= 0;
        (void)snprintf(priorities[i], sizeof priorities[i], "%d", c[i]->priority);
        const queue_release_t r = {c[i]->id, c[i]->token, c[i]->model, priorities[i], c[i]->user_id};
        queue_held_remove(q, c[i]->id, c[i]->token);
        if (row >= 0) {
            queue_news_add_row(waits ? &returned : &dropped, rows, row);
        }
        if (waits) {
            front[nfront++] = r;
        } else {
            drop[ndrop++] = r;
        }
    }
    release_and_tell(q, "drop", drop, ndrop, &dropped);
    release_and_tell(q, "front", front, nfront, &returned);
    queue_news_free(&dropped);
    queue_news_free(&returned);
}

err_kind_t queue_fail_many(queue_t *q, const char *worker_id, queue_claim_t *const *c, const err_t *const *why, int n,
                           err_kind_t *results, err_t *err) {
    (void)worker_id;
    char backoff[24];
    (void)snprintf(backoff, sizeof backoff, "%lld", (long long)q->backoff_ms);
    if (n < 1 || n > QUEUE_CLAIM_MAX) {
        return n == 0 ? ERR_OK : err_set(err, ERR_INVALID, "claims_invalid", "Too many jobs at once.", "%d", n);
    }
    buf_t list;
    buf_init(&list, 1 << 22);
    for (int i = 0; i < n; i++) {
        buf_printf(&list, "%s{\"id\":\"%s\",\"token\":\"%s\",\"seq\":%lld", i ? "," : "[", c[i]->id, c[i]->token,
                   (long long)c[i]->seq + 1);
        put_pair(&list, "code", why[i]->code);
        put_pair(&list, "message", why[i]->message);
        put_pair(&list, "at_last", why[i]->message);
        put_pair(&list, "detail", why[i]->detail);
        buf_printf(&list, ",\"permanent\":%s,\"cancelled\":%s}", err_is_retryable(why[i]->kind) ? "false" : "true",
                   why[i]->kind == ERR_CANCELLED ? "true" : "false");
    }
    buf_puts(&list, "]");
    const char *params[] = {backoff, list.data};
    PGresult *rows = NULL;
    err_kind_t rc = list.failed ? no_memory(err) : pg_query(q->pg, END_BADLY, 2, params, &rows, err);
    buf_free(&list);
    if (rc == ERR_OK) { /* else the caller may try again: the claims are still held */
        end_claims(q, c, n, rows, results);
        PQclear(rows);
    }
    return rc;
}

err_kind_t queue_fail(queue_t *q, const char *worker_id, queue_claim_t *c, const err_t *why, err_t *err) {
    err_kind_t result = ERR_OK, rc = queue_fail_many(q, worker_id, &c, &why, 1, &result, err);
    return rc == ERR_OK && result == ERR_CONFLICT ? claim_lost(c, err) : rc;
}

err_kind_t queue_hand_back_many(queue_t *q, const char *worker_id, queue_claim_t *const *c, int n, err_kind_t *results,
                                err_t *err) {
    (void)worker_id;
    if (n < 1 || n > QUEUE_CLAIM_MAX) {
        return n == 0 ? ERR_OK : err_set(err, ERR_INVALID, "claims_invalid", "Too many jobs at once.", "%d", n);
    }
    buf_t list;
    buf_init(&list, 1 << 20);
    for (int i = 0; i < n; i++) {
        buf_printf(&list, "%s{\"id\":\"%s\",\"token\":\"%s\",\"seq\":%lld}", i ? "," : "[", c[i]->id, c[i]->token,
                   (long long)c[i]->seq + 1);
    }
    buf_puts(&list, "]");
    const char *params[] = {list.data};
    PGresult *rows = NULL;
    err_kind_t rc = list.failed ? no_memory(err)
                                : pg_query(q->pg,
                                           "WITH n AS (SELECT j.id, x.seq AS new_seq FROM jobs j "
                                           "JOIN jsonb_to_recordset($1::jsonb) AS x(id uuid, token text, seq bigint) "
                                           "ON x.id = j.id AND x.token = j.token WHERE j.state = 'active' "
                                           "ORDER BY j.id FOR UPDATE OF j) "
                                           "UPDATE jobs j SET "
                                           "state = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'queued' END, "
                                           "finished_at = CASE WHEN cancel_requested THEN now() END, "
                                           "attempt = attempt - 1, token = NULL, worker_id = NULL, started_at = NULL, "
                                           "stage = '', enqueued_at = now(), seq = n.new_seq FROM n WHERE n.id = j.id "
                                           "RETURNING j.id, j.project_id, j.image_id, j.state, j.seq, j.attempt, "
                                           "j.model, j.error_code, j.error_message",
                                           1, params, &rows, err);
    buf_free(&list);
    if (rc == ERR_OK) {
        end_claims(q, c, n, rows, results);
        PQclear(rows);
    }
    return rc;
}

err_kind_t queue_hand_back(queue_t *q, const char *worker_id, queue_claim_t *c, err_t *err) {
    err_kind_t result = ERR_OK, rc = queue_hand_back_many(q, worker_id, &c, 1, &result, err);
    return rc == ERR_OK && result == ERR_CONFLICT ? claim_lost(c, err) : rc;
}

/* ---- recovery ---- */

err_kind_t queue_lose_claims(queue_t *q, pg_conn_t *conn, const queue_lost_t *lost, int n, PGresult **rows,
                             err_t *err) {
    char backoff[24];
    (void)snprintf(backoff, sizeof backoff, "%lld", (long long)q->backoff_ms);
    static const char again[] = "The program that processed this image stopped unexpectedly. It will be tried again.";
    static const char given_up[] =
        "The program stopped unexpectedly each time it processed this image, so the image was "
        "given up. It may be too large for the server's memory.";
    buf_t list;
    buf_init(&list, 1 << 22);
    for (int i = 0; i < n; i++) {
        buf_printf(&list, "%s{\"id\":\"%s\"", i ? "," : "[", lost[i].id);
        put_pair(&list, "token", lost[i].tag);
        put_pair(&list, "code", "worker_lost");
        put_pair(&list, "message", again);
        put_pair(&list, "at_last", given_up);
        put_pair(&list, "detail", lost[i].worker);
        buf_puts(&list, ",\"permanent\":false,\"cancelled\":false,\"lost\":true}");
    }
    buf_puts(&list, "]");
    const char *params[] = {backoff, list.data};
    err_kind_t rc = list.failed ? no_memory(err) : pg_exec(conn, END_BADLY, 2, params, rows, err);
    buf_free(&list);
    for (int i = 0; rc == ERR_OK && i < PQntuples(*rows); i++) {
        log_event(LOG_WARN, "a worker lost a job", "jobId", pg_get(*rows, i, "id"), "state", pg_get(*rows, i, "state"),
                  NULL);
    }
    return rc;
}

void queue_unregister(queue_t *q, const char *worker_id) {
    const char *argv[] = {"HDEL", "sg:workers", worker_id};
    err_t err;
    if (rds_run(q->rds, 3, argv, NULL, &err) != ERR_OK) {
        log_event(LOG_WARN, "could not leave the registry of workers; the entry will age out", "detail", err.detail,
                  NULL);
    }
}
