/*
 * Many jobs at once: cancel all of a project or image, retry all that failed. Pages of QUEUE_PAGE jobs, each one SQL
 * statement, one script call and one pipeline of events, so that neither server is held up for long and memory is
 * bounded. PostgreSQL first, as for single jobs (queue_enqueue.c).
 */
#include "queue_internal.h"

#include "log.h"

/* A job may go from active back to waiting between two statements; not for ever. */
enum { ROUNDS = 5 };

static const char *const CANCEL_WAITING[] = {
#define CANCEL_WAITING_OF(column)                                                                                      \
    "WITH w AS (SELECT id FROM jobs WHERE " column " = $1 AND state IN ('queued', 'delayed') "                         \
    "ORDER BY created_at, id LIMIT 500 FOR UPDATE), "                                                                  \
    "j AS (UPDATE jobs SET state = 'cancelled', cancel_requested = true, finished_at = now(), seq = seq + 1, "         \
    "error_code = NULL, error_message = NULL, error_detail = NULL FROM w WHERE jobs.id = w.id RETURNING jobs.*) "      \
    "SELECT " QUEUE_PUSH_COLUMNS " FROM j ORDER BY j.created_at, j.id"
    [QUEUE_OF_PROJECT] = CANCEL_WAITING_OF("project_id"),
    [QUEUE_OF_IMAGE] = CANCEL_WAITING_OF("image_id"),
};

static const char *const CANCEL_ACTIVE[] = {
#define CANCEL_ACTIVE_OF(column)                                                                                       \
    "UPDATE jobs SET cancel_requested = true WHERE id IN (SELECT id FROM jobs WHERE " column " = $1 "                  \
    "AND state = 'active' AND NOT cancel_requested ORDER BY id LIMIT 500 FOR UPDATE) AND state = 'active' RETURNING "  \
    "id, COALESCE(left(token, 16), '') AS tag"
    [QUEUE_OF_PROJECT] = CANCEL_ACTIVE_OF("project_id"),
    [QUEUE_OF_IMAGE] = CANCEL_ACTIVE_OF("image_id"),
};

/* Runs remove.lua or cancel.lua for the jobs of a page, with these columns of theirs. */
static void tell_redis(queue_t *q, const rds_script_t *script, const PGresult *rows, const char *const *columns,
                       int ncolumns) {
    queue_args_t a = {0};
    for (int i = 0; i < PQntuples(rows); i++) {
        for (int k = 0; k < ncolumns; k++) {
            queue_args_put(&a, pg_get(rows, i, columns[k]));
        }
    }
    err_t err;
    if (queue_eval_args(q, script, &a, NULL, &err) != ERR_OK) {
        /* ids that stay in a list are dropped by the worker that claims them; a running job's commit is refused */
        log_error(LOG_WARN, "cancel many: Redis was not told", &err);
    }
    queue_args_free(&a);
}

static err_kind_t cancel_page(queue_t *q, const char *sql, bool active, const char *id, int *n, err_t *err) {
    PGresult *rows = NULL;
    err_kind_t rc = pg_query(q->pg, sql, 1, (const char *const[]){id}, &rows, err);
    *n = 0;
    if (rc == ERR_OK) {
        *n = PQntuples(rows);
        if (*n > 0 && active) {
            tell_redis(q, &q->lua.cancel, rows, (const char *const[]){"id", "tag"}, 2);
        } else if (*n > 0) {
            tell_redis(q, &q->lua.remove, rows, (const char *const[]){"id", "model", "priority", "user_id"}, 4);
        }
        if (*n > 0 && !active) {
            queue_publish_rows(q, rows, 0, *n, JOB_CANCELLED);
        }
        PQclear(rows);
    }
    return rc;
}

static err_kind_t cancel_pages(queue_t *q, const char *sql, bool active, const char *id, int *cancelled, err_t *err) {
    err_kind_t rc = ERR_OK;
    int n = QUEUE_PAGE;
    while (rc == ERR_OK && n == QUEUE_PAGE) {
        rc = cancel_page(q, sql, active, id, &n, err);
        *cancelled += n;
    }
    return rc;
}

err_kind_t queue_cancel_many(queue_t *q, queue_scope_t scope, const char *id, int *cancelled, err_t *err) {
    *cancelled = 0;
    err_kind_t rc = ERR_OK;
    for (int round = 0; rc == ERR_OK && round < ROUNDS; round++) {
        int before = *cancelled;
        rc = cancel_pages(q, CANCEL_WAITING[scope], false, id, cancelled, err);
        if (rc == ERR_OK && (round == 0 || *cancelled > before)) {
            rc = cancel_pages(q, CANCEL_ACTIVE[scope], true, id, cancelled, err);
        }
        if (*cancelled == before) {
            break;
        }
    }
    return rc;
}

err_kind_t queue_retry_failed(queue_t *q, const char *project_id, int *retried, err_t *err) {
    /* An image whose latest job failed has no unfinished one, unless it was triggered this moment. */
    static const char sql[] =
        "WITH w AS (SELECT f.id FROM images i JOIN jobs f ON f.id = i.latest_job_id WHERE i.project_id = $1 "
        "AND f.state = 'failed' AND NOT EXISTS (SELECT 1 FROM jobs u WHERE u.image_id = i.id "
        "AND u.state IN ('queued', 'active', 'delayed')) ORDER BY f.created_at, f.id LIMIT 500 FOR UPDATE OF f), "
        "j AS (UPDATE jobs SET state = 'queued', attempt = 0, seq = seq + 1, token = NULL, worker_id = NULL, "
        "cancel_requested = false, run_after = now(), enqueued_at = now(), started_at = NULL, finished_at = NULL, "
        "stage = '', error_code = NULL, error_message = NULL, error_detail = NULL, object_count = NULL, timings = NULL "
        "FROM w WHERE jobs.id = w.id AND jobs.state = 'failed' RETURNING jobs.*) "
        "SELECT " QUEUE_PUSH_COLUMNS " FROM j ORDER BY j.created_at, j.id";
    *retried = 0;
    for (int conflicts = 0;;) {
        PGresult *rows = NULL;
        err_kind_t rc = pg_query(q->pg, sql, 1, (const char *const[]){project_id}, &rows, err);
        if (rc == ERR_CONFLICT && ++conflicts < ROUNDS) {
            continue; /* that moment: the next look leaves the image out */
        }
        if (rc != ERR_OK) {
            return rc;
        }
        int n = PQntuples(rows);
        err_t why;
        if (queue_push_rows(q, rows, true, &why) != ERR_OK) {
            log_event(LOG_WARN, "retry: Redis is away, the sweeper will do it", "projectId", project_id, "detail",
                      why.detail, NULL);
        }
        PQclear(rows);
        *retried += n;
        if (n < QUEUE_PAGE) {
            return ERR_OK;
        }
    }
}
