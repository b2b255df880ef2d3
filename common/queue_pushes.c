/*
 * Pushes that did not come to an end. A gateway that accepts jobs notes them in a row of the table `pushes`, in their
 * own transaction, and overwrites the row with its next ones. A row that nobody overwrote for a moment belongs to a
 * lane that is idle (its jobs are in Redis long since) or to a gateway that died, or lost Redis, between commit and
 * push: Redis is asked for each of its jobs that still waits, and those that it does not know become part of the outbox
 * at once. Without this they would wait for the next audit.
 */
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "log.h"
#include "queue_internal.h"

static bool read_flag(redisContext *c, bool *flag) {
    void *reply = NULL;
    bool ok = redisGetReply(c, &reply) == REDIS_OK;
    const redisReply *r = reply;
    ok = ok && r->type == REDIS_REPLY_INTEGER;
    *flag = ok && r->integer == 1;
    if (reply) {
        freeReplyObject(reply);
    }
    return ok;
}

/* Asks for the jobs of `rows` (id, model, priority) in one round trip; those that neither wait nor are held are written
 * to ids as an array. */
static err_kind_t ask(rds_conn_t *conn, const PGresult *rows, buf_t *ids, int *missing, err_t *err) {
    redisContext *c = rds_raw(conn);
    const int n = PQntuples(rows);
    bool ok = c->err == 0;
    for (int i = 0; ok && i < n; i++) {
        const char *id = pg_get(rows, i, "id");
        ok = redisAppendCommand(c, "HEXISTS sg:waiting:%s:%s %s", pg_get(rows, i, "model"), pg_get(rows, i, "priority"),
                                id) == REDIS_OK &&
             redisAppendCommand(c, "HEXISTS sg:held %s", id) == REDIS_OK;
    }
    for (int i = 0; ok && i < n; i++) {
        bool waits = false, held = false;
        ok = read_flag(c, &waits) && read_flag(c, &held);
        if (ok && !waits && !held) {
            buf_printf(ids, "%s%s", (*missing)++ ? "," : "{", pg_get(rows, i, "id"));
        }
    }
    if (!ok) {
        rds_fail(conn);
        return err_set(err, ERR_UNAVAILABLE, "redis_unavailable", "The job queue is not ready. Try again in a moment.",
                       "pushes: %.200s", c->err ? c->errstr : "unexpected answer");
    }
    buf_puts(ids, "}");
    return ERR_OK;
}

err_kind_t queue_pushes_run(queue_t *q, pg_conn_t *pg, int64_t grace_ms, int *lost, err_t *err) {
    char grace[24];
    (void)snprintf(grace, sizeof grace, "%lld", (long long)grace_ms);
    const char *params[] = {grace};
    PGresult *rows = NULL;
    rds_conn_t *conn = NULL;
    buf_t ids;
    buf_init(&ids, (size_t)4 * 1024 * 1024);
    err_kind_t rc = pg_begin(pg, err);
    if (rc == ERR_OK) {
        rc = pg_exec(pg,
                     "WITH old AS (DELETE FROM pushes WHERE (gateway, lane) IN (SELECT gateway, lane FROM pushes WHERE "
                     "at < now() - $1::float8 * interval '1 millisecond' ORDER BY at LIMIT 100 FOR UPDATE SKIP LOCKED) "
                     "RETURNING ids) SELECT j.id, j.model, j.priority FROM jobs j WHERE j.id IN (SELECT unnest(ids) "
                     "FROM old) AND "
                     "j.state = 'queued' AND j.enqueued_at IS NOT NULL",
                     1, params, &rows, err);
    }
    if (rc == ERR_OK && PQntuples(rows) > 0) {
        rc = rds_acquire(q->rds, &conn, err);
    }
    if (conn) {
        rc = ask(conn, rows, &ids, lost, err);
        rds_release(conn);
    }
    if (rc == ERR_OK && *lost > 0) {
        const char *array[] = {ids.failed ? "{}" : ids.data};
        rc = pg_exec(pg, "UPDATE jobs SET enqueued_at = NULL WHERE id = ANY($1::uuid[]) AND state = 'queued'", 1, array,
                     NULL, err);
    }
    if (rc == ERR_OK) {
        rc = pg_commit(pg, err);
    } else {
        pg_rollback(pg); /* the rows stay, and are looked at again */
    }
    PQclear(rows);
    buf_free(&ids);
    return rc;
}
