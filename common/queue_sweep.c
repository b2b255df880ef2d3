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
 *   5. now and then, old rows are deleted.
 */
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "metrics.h"
#include "queue_finish.h"
#include "queue_internal.h"
#include "queue_models.h"

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

static err_kind_t release_recovered(queue_t *q, const char *job_id, const PGresult *row, err_t *err) {
    char proc[192];
    (void)snprintf(proc, sizeof proc, "sg:proc:%s", q->sweeper_id);
    bool queued = PQntuples(row) == 1 && strcmp(pg_get(row, 0, "state"), "queued") == 0;
    const char *argv[] = {proc,
                          "sg:procs",
                          "sg:lease",
                          q->sweeper_id,
                          job_id,
                          queued ? "front" : "drop",
                          queued ? pg_get(row, 0, "model") : "",
                          queued ? pg_get(row, 0, "priority") : "",
                          queued ? pg_get(row, 0, "user_id") : ""};
    return queue_eval(q, &q->lua.release, 3, 9, argv, NULL, err);
}

static err_kind_t recover_one(queue_t *q, pg_conn_t *conn, const char *job_id, const char *worker_id, err_t *err) {
    bool changed = false;
    if (!pg_is_uuid(job_id)) {
        log_event(LOG_WARN, "dropped something that is no job id from Redis", "id", job_id, NULL);
        (void)queue_release_drop(q, q->sweeper_id, job_id);
        return ERR_OK;
    }
    err_kind_t rc = queue_lose_claim(q, conn, job_id, worker_id, &changed, err);
    if (rc != ERR_OK) {
        return rc; /* the sweeper's own lease runs out and the job is found again */
    }
    if (changed) {
        metrics_add(recovered_total, NULL, 1);
    }
    const char *params[] = {job_id};
    PGresult *row = NULL;
    rc =
        pg_exec(conn,
                "SELECT id, project_id, image_id, state, seq, attempt, object_count, error_code, error_message, model, "
                "priority, user_id FROM jobs WHERE id = $1",
                1, params, &row, err);
    if (rc == ERR_OK) {
        if (!changed && PQntuples(row) == 1 && strcmp(pg_get(row, 0, "state"), "active") != 0) {
            queue_publish_row(q, row); /* who ended the claim did not reach Redis, so perhaps nobody was told */
        }
        rc = release_recovered(q, job_id, row, err);
        PQclear(row);
    }
    return rc;
}

static err_kind_t recover_leases(queue_t *q, pg_conn_t *conn, err_t *err) {
    char lease[24], silence[24];
    (void)snprintf(lease, sizeof lease, "%lld", (long long)q->tune.sweeper_lease_ms);
    (void)snprintf(silence, sizeof silence, "%lld", (long long)q->lease_ms * 2);
    const char *argv[] = {"sg:lease", "sg:procs", "sg:workers", q->sweeper_id, lease, "200", silence};
    redisReply *r = NULL;
    err_kind_t rc = queue_eval(q, &q->lua.recover, 3, 7, argv, &r, err);
    if (rc == ERR_OK && r->type == REDIS_REPLY_ARRAY) {
        for (size_t i = 0; rc == ERR_OK && i + 1 < r->elements; i += 2) {
            rc = recover_one(q, conn, r->element[i]->str, r->element[i + 1]->str, err);
        }
    }
    if (r) {
        freeReplyObject(r);
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
                            "SELECT id, COALESCE(worker_id, 'unknown') AS worker_id FROM jobs WHERE state = 'active' "
                            "AND started_at < now() - $1::float8 * interval '1 millisecond'",
                            1, params, &rows, err);
    int n = rc == ERR_OK ? PQntuples(rows) : 0;
    for (int from = 0; rc == ERR_OK && from < n; from += QUEUE_PAGE) {
        const char *argv[3 + 2 * QUEUE_PAGE];
        int argc = 0;
        argv[argc++] = "sg:lease";
        argv[argc++] = "sg:procs";
        argv[argc++] = lease;
        for (int i = from; i < n && i < from + QUEUE_PAGE; i++) {
            argv[argc++] = pg_get(rows, i, "id");
            argv[argc++] = pg_get(rows, i, "worker_id");
        }
        redisReply *r = NULL;
        rc = queue_eval(q, &q->lua.restore, 2, argc, argv, &r, err);
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

/* ---- 4. and 5. ---- */

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
        rc = primary[0] != '\0' ? rds_run(q->rds, 4, note, NULL, err) : ERR_OK;
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
        rc = clean_if_due(q, conn, err);
    }
    pg_release(conn);
    end_turn(q);
    return rc;
}
