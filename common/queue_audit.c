/*
 * The slow parts of a sweep: comparing PostgreSQL with the lists of Redis, and deleting what nobody needs any more.
 *
 * The comparison reads every list and every claim into a sorted table of ids, then asks PostgreSQL for the
 * waiting rows and pushes those that are not in the table. enqueue.lua looks again before it pushes, so a job that
 * moved while the lists were read is not doubled.
 */
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "log.h"
#include "queue_internal.h"

enum { LIST_PAGE = 1000, MAX_IDS = 4000000 };

typedef struct {
    char (*ids)[JOB_ID_LEN];
    size_t count, room;
} id_table_t;

static int compare_ids(const void *a, const void *b) {
    return memcmp(a, b, JOB_ID_LEN);
}

static err_kind_t table_add(id_table_t *t, const char *id, size_t len, err_t *err) {
    if (len != JOB_ID_LEN - 1) {
        return ERR_OK; /* not ours */
    }
    if (t->count == t->room) {
        size_t room = t->room ? t->room * 2 : 1024;
        void *more = room <= MAX_IDS ? realloc(t->ids, room * sizeof *t->ids) : NULL;
        if (!more) {
            return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", "audit of %zu ids",
                           t->count);
        }
        t->ids = more;
        t->room = room;
    }
    memcpy(t->ids[t->count], id, len);
    t->ids[t->count++][len] = '\0';
    return ERR_OK;
}

static bool table_has(const id_table_t *t, const char *id) {
    return t->count > 0 && bsearch(id, t->ids, t->count, sizeof *t->ids, compare_ids) != NULL;
}

/* Reads one list. From the left: ids are pushed there, so a list that changes meanwhile shows ids twice, not never. */
static err_kind_t read_list(queue_t *q, const char *key, id_table_t *t, err_t *err) {
    for (long long from = 0;; from += LIST_PAGE) {
        char a[24], b[24];
        (void)snprintf(a, sizeof a, "%lld", from);
        (void)snprintf(b, sizeof b, "%lld", from + LIST_PAGE - 1);
        const char *argv[] = {"LRANGE", key, a, b};
        redisReply *r = NULL;
        err_kind_t rc = rds_run(q->rds, 4, argv, &r, err);
        size_t n = rc == ERR_OK && r->type == REDIS_REPLY_ARRAY ? r->elements : 0;
        for (size_t i = 0; rc == ERR_OK && i < n; i++) {
            rc = table_add(t, r->element[i]->str, r->element[i]->len, err);
        }
        if (r) {
            freeReplyObject(r);
        }
        if (rc != ERR_OK || n < LIST_PAGE) {
            return rc;
        }
    }
}

/* A user whose place in line was lost would never be served: "sg:q:<model>:<priority>:<user>" is written into
 * sg:turns:<model> again. Where it is still there nothing changes; where the list has emptied meanwhile, the next claim
 * takes the place away. */
static err_kind_t note_place(queue_t *q, const char *key, err_t *err) {
    char turns[96], score[32];
    const char *model = key + strlen("sg:q:"), *priority = strchr(model, ':');
    if (!priority) {
        return ERR_OK; /* not ours */
    }
    (void)snprintf(turns, sizeof turns, "sg:turns:%.*s", (int)(priority - model), model);
    (void)snprintf(score, sizeof score, "%lld", (10 - strtoll(priority + 1, NULL, 10)) * QUEUE_TURNS_BAND);
    const char *argv[] = {"ZADD", turns, "NX", score, priority + 1};
    return rds_run(q->rds, 5, argv, NULL, err);
}

/* The ids of all claims. */
static err_kind_t read_held(queue_t *q, id_table_t *t, err_t *err) {
    const char *argv[] = {"HKEYS", "sg:held"};
    redisReply *r = NULL;
    err_kind_t rc = rds_run(q->rds, 2, argv, &r, err);
    for (size_t i = 0; rc == ERR_OK && r->type == REDIS_REPLY_ARRAY && i < r->elements; i++) {
        rc = table_add(t, r->element[i]->str, r->element[i]->len, err);
    }
    if (r) {
        freeReplyObject(r);
    }
    return rc;
}

static err_kind_t read_lists(queue_t *q, id_table_t *t, err_t *err) {
    char cursor[24] = "0";
    do {
        const char *argv[] = {"SCAN", cursor, "MATCH", "sg:q:*", "COUNT", "1000"};
        redisReply *r = NULL;
        err_kind_t rc = rds_run(q->rds, 6, argv, &r, err);
        if (rc == ERR_OK && (r->type != REDIS_REPLY_ARRAY || r->elements != 2)) {
            rc = err_set(err, ERR_INTERNAL, "redis_error", "The queue gave an unexpected answer.", "SCAN");
        }
        for (size_t i = 0; rc == ERR_OK && i < r->element[1]->elements; i++) {
            const char *key = r->element[1]->element[i]->str;
            rc = read_list(q, key, t, err);
            if (rc == ERR_OK) {
                rc = note_place(q, key, err);
            }
        }
        if (rc == ERR_OK) {
            (void)snprintf(cursor, sizeof cursor, "%s", r->element[0]->str);
        }
        if (r) {
            freeReplyObject(r);
        }
        if (rc != ERR_OK) {
            return rc;
        }
    } while (strcmp(cursor, "0") != 0);
    return ERR_OK;
}

/* The ids of `rows` (first column) that are in no list, as an array for PostgreSQL. Returns their number. */
static int missing_ids(const PGresult *rows, const id_table_t *t, int *from, buf_t *out) {
    int n = 0;
    buf_reset(out);
    buf_puts(out, "{");
    for (; *from < PQntuples(rows) && n < QUEUE_PAGE; (*from)++) {
        const char *id = PQgetvalue(rows, *from, 0);
        if (!table_has(t, id)) {
            buf_printf(out, "%s%s", n ? "," : "", id);
            n++;
        }
    }
    buf_puts(out, "}");
    return n;
}

static err_kind_t push_missing(queue_t *q, pg_conn_t *conn, const PGresult *waiting, const id_table_t *t, int *relisted,
                               err_t *err) {
    buf_t ids;
    buf_init(&ids, (QUEUE_PAGE + 1) * 40);
    err_kind_t rc = ERR_OK;
    for (int from = 0; rc == ERR_OK && from < PQntuples(waiting);) {
        int n = missing_ids(waiting, t, &from, &ids);
        if (n == 0 || ids.failed) {
            continue;
        }
        const char *params[] = {ids.data};
        PGresult *rows = NULL;
        rc = pg_exec(conn,
                     "WITH j AS (UPDATE jobs SET enqueued_at = now() WHERE id = ANY($1::uuid[]) AND state = 'queued' "
                     "RETURNING *) SELECT " QUEUE_PUSH_COLUMNS " FROM j ORDER BY j.created_at, j.id",
                     1, params, &rows, err);
        if (rc == ERR_OK) {
            rc = queue_push_rows(q, rows, false, err);
            *relisted += PQntuples(rows);
            PQclear(rows);
        }
    }
    buf_free(&ids);
    return rc;
}

err_kind_t queue_audit_run(queue_t *q, pg_conn_t *conn, int64_t grace_ms, int *relisted, err_t *err) {
    id_table_t t = {0};
    char grace[24];
    (void)snprintf(grace, sizeof grace, "%lld", (long long)grace_ms);
    const char *params[] = {grace};
    PGresult *waiting = NULL;
    /* PostgreSQL first: what is pushed after this question cannot be missing from its answer and from the lists. */
    err_kind_t rc = pg_exec(conn,
                            "SELECT id FROM jobs WHERE state = 'queued' "
                            "AND enqueued_at < now() - $1::float8 * interval '1 millisecond' "
                            "ORDER BY priority DESC, created_at",
                            1, params, &waiting, err);
    if (rc == ERR_OK) {
        rc = read_lists(q, &t, err);
    }
    if (rc == ERR_OK) { /* after the lists: a job that is claimed meanwhile shows twice, not never */
        rc = read_held(q, &t, err);
    }
    if (rc == ERR_OK) {
        if (t.count > 0) {
            qsort(t.ids, t.count, sizeof *t.ids, compare_ids);
        }
        rc = push_missing(q, conn, waiting, &t, relisted, err);
    }
    if (waiting) {
        PQclear(waiting);
    }
    free(t.ids);
    return rc;
}

/* ---- clean-up ---- */

static err_kind_t delete_rows(pg_conn_t *conn, const char *what, const char *sql, int nparams,
                              const char *const *params, err_t *err) {
    int64_t total = 0, n = 0;
    do {
        PGresult *res = NULL;
        err_kind_t rc = pg_exec(conn, sql, nparams, params, &res, err);
        if (rc != ERR_OK) {
            return rc;
        }
        n = pg_affected(res);
        total += n;
        PQclear(res);
    } while (n >= 1000);
    if (total > 0) {
        log_msgf(LOG_INFO, "deleted %lld old %s", (long long)total, what);
    }
    return ERR_OK;
}

err_kind_t queue_housekeeping_run(queue_t *q, pg_conn_t *conn, err_t *err) {
    char days[24];
    (void)snprintf(days, sizeof days, "%lld", (long long)q->retention_days);
    const char *params[] = {days};
    /* A job that produced a segmentation is the history of its image, and the latest job explains its present state:
     * both stay. */
    err_kind_t rc =
        delete_rows(conn, "jobs",
                    "DELETE FROM jobs WHERE id IN (SELECT j.id FROM jobs j JOIN images i ON i.id = j.image_id "
                    "WHERE j.finished_at < now() - make_interval(days => $1::int) "
                    "AND j.state IN ('completed', 'failed', 'cancelled') "
                    "AND i.latest_job_id IS DISTINCT FROM j.id "
                    "AND NOT EXISTS (SELECT 1 FROM segmentations s WHERE s.job_id = j.id) "
                    "LIMIT 1000 FOR UPDATE OF j SKIP LOCKED)",
                    1, params, err);
    if (rc == ERR_OK) {
        rc = delete_rows(
            conn, "refresh tokens",
            "DELETE FROM refresh_tokens WHERE id IN (SELECT id FROM refresh_tokens WHERE expires_at < now() "
            "LIMIT 1000 FOR UPDATE SKIP LOCKED)",
            0, NULL, err);
    }
    if (rc == ERR_OK) {
        rc = delete_rows(
            conn, "idempotency keys",
            "DELETE FROM idempotency_keys WHERE (user_id, key) IN (SELECT user_id, key FROM idempotency_keys "
            "WHERE created_at < now() - interval '24 hours' LIMIT 1000 FOR UPDATE SKIP LOCKED)",
            0, NULL, err);
    }
    if (rc == ERR_OK) { /* of claims that ended without their worker's doing */
        rc = delete_rows(conn, "previews",
                         "DELETE FROM previews WHERE (job_id, claim, part) IN (SELECT p.job_id, p.claim, p.part FROM "
                         "previews p JOIN jobs j ON j.id = p.job_id WHERE (j.state = 'active' AND "
                         "left(j.token, 16) = p.claim) IS NOT TRUE LIMIT 1000)",
                         0, NULL, err);
    }
    return rc;
}
