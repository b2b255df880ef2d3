/*
 * Ends that nobody may have heard of are told again: the part of a sweep that makes up for news lost between two
 * stores.
 *
 * Whoever ends a job commits in PostgreSQL first and publishes then. A claim whose end was not published is found by
 * its lease (queue_sweep.c). Two kinds of ends have no lease that would be found, and this is for them: jobs that were
 * cancelled while nobody ran them (the gateway may die in between), told once more from the commit on; and, when Redis
 * has forgotten its claims, everything that ended shortly before. Telling twice is harmless, because the number of the
 * message is the row's.
 */
#include <stdio.h>

#include "queue_finish.h"
#include "queue_internal.h"

#define MARK                                                                                                           \
    "sg:told" /* the latest end that was looked at, then until when all kinds of ends are told; PostgreSQL's time */
#define MEMORY_S 60   /* snapshots show as much (proto/events.md) */
#define OVERLAP_S "2" /* finished_at is when the transaction began; the next look goes back as far */
#define MOST "20000"

/* What the mark says; "" where there is none. Both are times of PostgreSQL as text, so that nobody else's clock counts.
 */
typedef struct {
    char last[48], all_until[48];
} mark_t;

static err_kind_t read_mark(queue_t *q, mark_t *m, err_t *err) {
    const char *argv[] = {"HMGET", MARK, "last", "allUntil"};
    redisReply *r = NULL;
    err_kind_t rc = rds_run(q->rds, 4, argv, &r, err);
    *m = (mark_t){.last = ""};
    if (rc == ERR_OK && r->type == REDIS_REPLY_ARRAY && r->elements == 2 && r->element[0]->str && r->element[1]->str) {
        (void)snprintf(m->last, sizeof m->last, "%s", r->element[0]->str);
        (void)snprintf(m->all_until, sizeof m->all_until, "%s", r->element[1]->str);
    }
    if (r) {
        freeReplyObject(r);
    }
    return rc;
}

static err_kind_t write_mark(queue_t *q, const PGresult *rows, err_t *err) {
    const char *argv[] = {"HSET", MARK, "last", pg_get(rows, 0, "now"), "allUntil", pg_get(rows, 0, "all_until")};
    return rds_run(q->rds, 6, argv, NULL, err);
}

/* Without a mark: all ends, from now on until every row that was active when Redis forgot it is old enough to have got
 * its lease again (restore_grace_ms), and a second. There is always one row, with or without a job. */
static err_kind_t select_ends(queue_t *q, pg_conn_t *conn, const mark_t *m, PGresult **rows, err_t *err) {
    char grace[24], memory[16];
    (void)snprintf(grace, sizeof grace, "%lld", (long long)q->tune.restore_grace_ms + 1000);
    (void)snprintf(memory, sizeof memory, "%d", MEMORY_S);
    const char *params[] = {m->last[0] ? m->last : NULL, m->last[0] ? m->all_until : NULL, grace, memory};
    return pg_exec(conn,
                   "WITH b AS (SELECT now() AS now, "
                   "COALESCE($2::timestamptz, now() + $3::float8 * interval '1 millisecond') AS all_until) "
                   "SELECT b.now, b.all_until, j.id, j.project_id, j.image_id, j.state, j.seq, j.attempt, "
                   "j.object_count, j.error_code, j.error_message FROM b LEFT JOIN LATERAL (SELECT * FROM jobs "
                   "WHERE finished_at > CASE WHEN b.now <= b.all_until "
                   "THEN b.now - make_interval(secs => $4::float8) "
                   "ELSE GREATEST($1::timestamptz - interval '" OVERLAP_S " seconds', "
                   "b.now - make_interval(secs => $4::float8)) END "
                   "AND (state = 'cancelled' OR (b.now <= b.all_until AND state IN ('completed', 'failed'))) "
                   "ORDER BY finished_at DESC LIMIT " MOST ") j ON true",
                   4, params, rows, err);
}

/* Rows from..to-1 of the answer. */
static err_kind_t tell_page(queue_t *q, const PGresult *rows, int from, int to, err_t *err) {
    queue_news_t news = {0};
    for (int i = from; i < to; i++) {
        queue_news_add_row(&news, rows, i);
    }
    err_kind_t rc = queue_release(q, "drop", NULL, 0, &news, err);
    queue_news_free(&news);
    return rc;
}

err_kind_t queue_tell_ends(queue_t *q, pg_conn_t *conn, err_t *err) {
    mark_t mark;
    PGresult *rows = NULL;
    err_kind_t rc = read_mark(q, &mark, err);
    if (rc == ERR_OK) {
        rc = select_ends(q, conn, &mark, &rows, err);
    }
    if (rc != ERR_OK) {
        return rc;
    }
    int n = PQntuples(rows);
    if (n == 1 && !pg_get(rows, 0, "id")) {
        n = 0;
    }
    for (int from = 0; rc == ERR_OK && from < n; from += QUEUE_PAGE) {
        rc = tell_page(q, rows, from, from + QUEUE_PAGE < n ? from + QUEUE_PAGE : n, err);
    }
    if (rc == ERR_OK) { /* else the next look begins where this one did */
        rc = write_mark(q, rows, err);
    }
    PQclear(rows);
    return rc;
}

err_kind_t queue_tell_all_again(queue_t *q, err_t *err) {
    const char *argv[] = {"DEL", MARK};
    return rds_run(q->rds, 2, argv, NULL, err);
}
