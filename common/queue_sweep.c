/*
 * Recovery: what runs every second in each daemon so that no job waits for a person.
 *
 * Many processes call queue_sweep; a short-lived key in Redis lets one of them work at a time. That only saves work:
 * every step starts from a state of the row, or skips rows that another process has locked, so two passes at once are
 * harmless. In order:
 *   1. leases that ran out: recover.lua takes the jobs over, then the row decides (delayed, failed, cancelled, queued);
 *   2. active rows without a lease get one (restore.lua); if nobody renews it, step 1 takes them next time; what is
 *      paused is told to Redis again;
 *   3. delayed jobs that are due, and rows of the outbox, are pushed; before that, new jobs whose push was not ended
 *      join the outbox (queue_pushes.c);
 *   4. now and then, and at once when Redis has lost its memory or a replica has taken over, PostgreSQL is compared
 *      with the lists (queue_audit.c);
 *   5. ends whose news may have been lost are told again (queue_tell.c);
 *   6. now and then, old rows are deleted.
 */
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "log.h"
#include "metrics.h"
#include "queue_finish.h"
#include "queue_internal.h"
#include "queue_models.h"

enum { RECOVER_MOST = 200, RECOVER_PAGES = 50 }; /* claims of one page; pages of one sweep */

static pthread_once_t metrics_once = PTHREAD_ONCE_INIT;
static metric_t *recovered_total, *restored_total, *audited_total;

static void register_metrics(void) {
    recovered_total =
        metrics_counter("spheroseg_queue_recovered_total", "Jobs taken from workers that were lost.", NULL);
    restored_total =
        metrics_counter("spheroseg_queue_leases_restored_total", "Leases made again after Redis lost them.", NULL);
    audited_total =
        metrics_counter("spheroseg_queue_relisted_total", "Waiting jobs that were in no list of Redis.", NULL);
}

/* SET key value NX PX ms: true when it was not there. */
static err_kind_t set_if_absent(queue_t *q, const char *key, int64_t ms, bool *set, err_t *err) {
    char px[24];
    (void)snprintf(px, sizeof px, "%lld", (long long)(ms < 1 ? 1 : ms));
    const char *argv[] = {"SET", key, q->sweeper_id, "NX", "PX", px};
    redisReply *r = NULL;
    err_kind_t rc = rds_run(q->rds, 6, argv, &r, err);
    *set = rc == ERR_OK && r->type == REDIS_REPLY_STATUS;
    if (r) {
        freeReplyObject(r);
    }
    return rc;
}

/* Ends this process's turn: the next may begin after the gap. */
static void end_turn(queue_t *q) {
    char gap[24];
    (void)snprintf(gap, sizeof gap, "%lld", (long long)q->tune.sweep_gap_ms);
    const char *keep[] = {"PEXPIRE", "sg:sweep", gap};
    const char *drop[] = {"DEL", "sg:sweep"};
    err_t err;
    err_kind_t rc =
        q->tune.sweep_gap_ms > 0 ? rds_run(q->rds, 3, keep, NULL, &err) : rds_run(q->rds, 2, drop, NULL, &err);
    if (rc != ERR_OK) {
        log_error(LOG_DEBUG, "end of sweep", &err);
    }
}

/* ---- 1. leases that ran out ---- */

/* What recover.lua gives: claims that are this sweeper's now. */
typedef struct {
    queue_lost_t lost[RECOVER_MOST];
    int n;
    char tag[QUEUE_TAG_SIZE];
} recovered_t;

/* Ids that are none are dropped: a query with them would fail for all. */
static void read_recovered(queue_t *q, const redisReply *r, recovered_t *all) {
    for (size_t i = 0; i + 2 < r->elements && all->n < RECOVER_MOST; i += 3) {
        const char *id = r->element[i]->str;
        if (pg_is_uuid(id)) {
            all->lost[all->n++] = (queue_lost_t){id, r->element[i + 1]->str, r->element[i + 2]->str};
            continue;
        }
        err_t err;
        log_event(LOG_WARN, "dropped something that is no job id from Redis", "id", id, NULL);
        if (queue_release(q, "drop", &(queue_release_t){.id = id, .tag = all->tag}, 1, NULL, &err) != ERR_OK) {
            log_error(LOG_DEBUG, "drop", &err);
        }
    }
}

static err_kind_t select_rows(pg_conn_t *conn, const recovered_t *all, PGresult **rows, err_t *err) {
    buf_t ids;
    buf_init(&ids, 1 << 20);
    for (int i = 0; i < all->n; i++) {
        buf_printf(&ids, "%s%s", i ? "," : "{", all->lost[i].id);
    }
    buf_puts(&ids, "}");
    const char *params[] = {ids.data};
    err_kind_t rc = ids.failed
                        ? err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", "recovery")
                        : pg_exec(conn,
                                  "SELECT id, project_id, image_id, state, seq, attempt, object_count, error_code, "
                                  "error_message, model, priority, user_id FROM jobs WHERE id = ANY($1::uuid[])",
                                  1, params, rows, err);
    buf_free(&ids);
    return rc;
}

static int find_row(const PGresult *rows, const char *id) {
    for (int i = 0; i < PQntuples(rows); i++) {
        if (strcmp(pg_get(rows, i, "id"), id) == 0) {
            return i;
        }
    }
    return -1;
}

/* The rows decide. Those that are not active are told of once more: who ended the claim may not have reached Redis. */
static err_kind_t release_recovered(queue_t *q, const recovered_t *all, const PGresult *rows, err_t *err) {
    queue_release_t front[RECOVER_MOST], drop[RECOVER_MOST];
    queue_news_t news = {0};
    int nfront = 0, ndrop = 0;
    for (int i = 0; i < all->n; i++) {
        int row = find_row(rows, all->lost[i].id);
        queue_release_t one = {.id = all->lost[i].id, .tag = all->tag};
        if (row >= 0) {
            one.model = pg_get(rows, row, "model");
            one.priority = pg_get(rows, row, "priority");
            one.user = pg_get(rows, row, "user_id");
        }
        if (row >= 0 && strcmp(pg_get(rows, row, "state"), "active") != 0) {
            queue_news_add_row(&news, rows, row);
        }
        if (row >= 0 && strcmp(pg_get(rows, row, "state"), "queued") == 0) {
            front[nfront++] = one;
        } else {
            drop[ndrop++] = one;
        }
    }
    err_kind_t rc = queue_release(q, "drop", drop, ndrop, &news, err);
    if (rc == ERR_OK && nfront > 0) {
        rc = queue_release(q, "front", front, nfront, NULL, err);
    }
    queue_news_free(&news);
    return rc;
}

/* One page. Should a step fail, the sweeper's own leases run out and the jobs are found again. */
static err_kind_t recover_page(queue_t *q, pg_conn_t *conn, int *found, err_t *err) {
    recovered_t all = {0};
    char lease[24], silence[24], most[16];
    (void)snprintf(lease, sizeof lease, "%lld", (long long)q->tune.sweeper_lease_ms);
    (void)snprintf(silence, sizeof silence, "%lld", (long long)q->lease_ms * 2);
    (void)snprintf(most, sizeof most, "%d", RECOVER_MOST);
    redisReply *r = NULL;
    PGresult *changed = NULL, *rows = NULL;
    err_kind_t rc = queue_random_hex(all.tag, (QUEUE_TAG_SIZE - 1) / 2, err);
    if (rc == ERR_OK) {
        const char *argv[] = {q->sweeper_id, all.tag, lease, most, silence};
        rc = queue_eval(q, &q->lua.recover, 0, 5, argv, &r, err);
    }
    if (rc == ERR_OK && r->type == REDIS_REPLY_ARRAY) {
        read_recovered(q, r, &all);
    }
    *found = all.n;
    if (rc == ERR_OK && all.n > 0) {
        rc = queue_lose_claims(q, conn, all.lost, all.n, &changed, err);
        if (rc == ERR_OK) {
            metrics_add(recovered_total, NULL, PQntuples(changed));
            PQclear(changed);
            rc = select_rows(conn, &all, &rows, err);
        }
        if (rc == ERR_OK) {
            rc = release_recovered(q, &all, rows, err);
            PQclear(rows);
        }
    }
    if (r) {
        freeReplyObject(r);
    }
    return rc;
}

static err_kind_t recover_leases(queue_t *q, pg_conn_t *conn, err_t *err) {
    int found = RECOVER_MOST;
    err_kind_t rc = ERR_OK;
    for (int page = 0; rc == ERR_OK && found == RECOVER_MOST && page < RECOVER_PAGES; page++) {
        rc = recover_page(q, conn, &found, err);
    }
    return rc;
}

/* ---- 2. active rows without a lease ---- */

static err_kind_t restore_leases(queue_t *q, pg_conn_t *conn, err_t *err) {
    char lease[24], grace[24];
    (void)snprintf(lease, sizeof lease, "%lld", (long long)q->lease_ms);
    (void)snprintf(grace, sizeof grace, "%lld", (long long)q->tune.restore_grace_ms);
    const char *params[] = {grace};
    PGresult *rows = NULL;
    err_kind_t rc = pg_exec(conn,
                            "SELECT id, COALESCE(worker_id, 'unknown') AS worker_id, left(token, 16) AS tag, model, "
                            "priority FROM jobs WHERE state = 'active' AND token IS NOT NULL "
                            "AND started_at < now() - $1::float8 * interval '1 millisecond'",
                            1, params, &rows, err);
    int n = rc == ERR_OK ? PQntuples(rows) : 0;
    for (int from = 0; rc == ERR_OK && from < n; from += QUEUE_PAGE) {
        const char *argv[1 + 5 * QUEUE_PAGE];
        int argc = 0;
        argv[argc++] = lease;
        for (int i = from; i < n && i < from + QUEUE_PAGE; i++) {
            argv[argc++] = pg_get(rows, i, "id");
            argv[argc++] = pg_get(rows, i, "worker_id");
            argv[argc++] = pg_get(rows, i, "tag");
            argv[argc++] = pg_get(rows, i, "model");
            argv[argc++] = pg_get(rows, i, "priority");
        }
        redisReply *r = NULL;
        rc = queue_eval(q, &q->lua.restore, 0, argc, argv, &r, err);
        if (rc == ERR_OK && r->type == REDIS_REPLY_INTEGER && r->integer > 0) {
            metrics_add(restored_total, NULL, (double)r->integer);
            log_msgf(LOG_WARN, "%lld active jobs had no lease in Redis", r->integer);
        }
        if (r) {
            freeReplyObject(r);
        }
    }
    if (rows) {
        PQclear(rows);
    }
    return rc;
}

/* ---- 3. delayed jobs that are due; the outbox ---- */

#define PUSH_SQL(extra, condition)                                                                                     \
    "WITH j AS (UPDATE jobs SET state = 'queued', enqueued_at = now()" extra                                           \
    " WHERE id IN (SELECT id FROM jobs WHERE " condition                                                               \
    " LIMIT 500 FOR UPDATE SKIP LOCKED) RETURNING *) SELECT " QUEUE_PUSH_COLUMNS " FROM j ORDER BY j.created_at, j.id"

static err_kind_t push_all(queue_t *q, pg_conn_t *conn, const char *sql, err_t *err) {
    for (;;) {
        PGresult *rows = NULL;
        err_kind_t rc = pg_exec(conn, sql, 0, NULL, &rows, err);
        if (rc != ERR_OK) {
            return rc;
        }
        int n = PQntuples(rows);
        rc = queue_push_rows(q, rows, true, err);
        PQclear(rows);
        if (rc != ERR_OK || n < QUEUE_PAGE) {
            return rc;
        }
    }
}

/* A push that was noted and not ended puts its jobs into the outbox. */
static err_kind_t end_pushes(queue_t *q, pg_conn_t *conn, err_t *err) {
    int lost = 0;
    err_kind_t rc = queue_pushes_run(q, conn, q->tune.push_grace_ms, &lost, err);
    if (rc == ERR_OK && lost > 0) {
        metrics_add(audited_total, NULL, lost);
        log_msgf(LOG_WARN, "%d new jobs had not reached Redis", lost);
    }
    return rc;
}

static err_kind_t push_due(queue_t *q, pg_conn_t *conn, err_t *err) {
    err_kind_t rc = push_all(
        q, conn, PUSH_SQL(", seq = seq + 1", "state = 'delayed' AND run_after <= now() ORDER BY run_after"), err);
    if (rc == ERR_OK) {
        rc = push_all(q, conn, PUSH_SQL("", "state = 'queued' AND enqueued_at IS NULL ORDER BY created_at"), err);
    }
    return rc;
}

/* ---- 4. and 6. ---- */

/* Does Redis still know what it was told? Not after a wipe, and perhaps not the last of it when a replica became the
 * primary: `primary` ("" without Sentinels) is then another than the one that was audited. */
static err_kind_t ask_memory(queue_t *q, const char *primary, bool *remembers, err_t *err) {
    const char *exists[] = {"EXISTS", "sg:epoch"}, *get[] = {"HGET", "sg:primary", "at"};
    redisReply *r = NULL;
    err_kind_t rc = rds_run(q->rds, 2, exists, &r, err);
    *remembers = rc == ERR_OK && r->type == REDIS_REPLY_INTEGER && r->integer == 1;
    if (r) {
        freeReplyObject(r);
        r = NULL;
    }
    if (*remembers && primary[0] != '\0') {
        rc = rds_run(q->rds, 3, get, &r, err);
        *remembers = rc == ERR_OK && r->type == REDIS_REPLY_STRING && strcmp(r->str, primary) == 0;
        if (r) {
            freeReplyObject(r);
        }
    }
    return rc;
}

static err_kind_t audit_if_due(queue_t *q, pg_conn_t *conn, err_t *err) {
    char primary[RDS_PRIMARY_NAME_SIZE];
    rds_primary_name(q->rds, primary);
    bool remembers;
    err_kind_t rc = ask_memory(q, primary, &remembers, err);
    bool due = false;
    if (rc == ERR_OK) {
        rc = set_if_absent(q, "sg:audit", q->tune.audit_ms, &due, err);
    }
    if (rc != ERR_OK || (!due && remembers)) {
        return rc;
    }
    int relisted = 0;
    /* when everything is lost, so are the youngest */
    rc = queue_audit_run(q, conn, remembers ? q->tune.audit_grace_ms : 0, &relisted, err);
    if (relisted > 0) {
        metrics_add(audited_total, NULL, relisted);
        log_msgf(LOG_WARN, "%d waiting jobs were in no list of Redis and wait again", relisted);
    }
    if (rc == ERR_OK && !remembers) {
        const char *set[] = {"SET", "sg:epoch", q->sweeper_id}, *note[] = {"HSET", "sg:primary", "at", primary};
        rc = queue_tell_all_again(q, err);
        if (rc == ERR_OK && primary[0] != '\0') {
            rc = rds_run(q->rds, 4, note, NULL, err);
        }
        if (rc == ERR_OK) {
            rc = rds_run(q->rds, 3, set, NULL, err);
        }
    }
    return rc;
}

static err_kind_t clean_if_due(queue_t *q, pg_conn_t *conn, err_t *err) {
    bool due = false;
    err_kind_t rc = set_if_absent(q, "sg:housekeeping", q->tune.housekeeping_ms, &due, err);
    return rc == ERR_OK && due ? queue_housekeeping_run(q, conn, err) : rc;
}

err_kind_t queue_sweep(queue_t *q, err_t *err) {
    (void)pthread_once(&metrics_once, register_metrics);
    bool mine = false;
    err_kind_t rc = set_if_absent(q, "sg:sweep", q->tune.turn_ms, &mine, err);
    if (rc != ERR_OK || !mine) {
        return rc;
    }
    pg_conn_t *conn = NULL;
    rc = pg_acquire(q->pg, &conn, err);
    if (rc == ERR_OK) {
        rc = recover_leases(q, conn, err);
    }
    if (rc == ERR_OK) {
        rc = restore_leases(q, conn, err);
    }
    if (rc == ERR_OK) {
        rc = queue_sync_paused(q, conn, err); /* before jobs are pushed: Redis may have forgotten it */
    }
    if (rc == ERR_OK) {
        rc = end_pushes(q, conn, err);
    }
    if (rc == ERR_OK) {
        rc = push_due(q, conn, err);
    }
    if (rc == ERR_OK) {
        rc = audit_if_due(q, conn, err);
    }
    if (rc == ERR_OK) {
        rc = queue_tell_ends(q, conn, err);
    }
    if (rc == ERR_OK) {
        rc = clean_if_due(q, conn, err);
    }
    pg_release(conn);
    end_turn(q);
    return rc;
}
