/*
 * What concerns a whole model: pausing and resuming it. PostgreSQL (models.paused) is the truth; the set sg:paused,
 * which claim.lua asks, is made equal to it after each change and by every sweep, so a Redis that forgets is told
 * again.
 */
#include "queue_models.h"

#include "log.h"

enum { MODELS_MAX = 1000 };

err_kind_t queue_sync_paused(queue_t *q, pg_conn_t *conn, err_t *err) {
    PGresult *rows = NULL;
    err_kind_t rc = pg_exec(conn, "SELECT name FROM models WHERE paused ORDER BY name LIMIT 1000", 0, NULL, &rows, err);
    if (rc != ERR_OK) {
        return rc;
    }
    const char *argv[1 + MODELS_MAX];
    int n = PQntuples(rows) < MODELS_MAX ? PQntuples(rows) : MODELS_MAX;
    argv[0] = "sg:paused";
    for (int i = 0; i < n; i++) {
        argv[1 + i] = pg_get(rows, i, "name");
    }
    rc = queue_eval(q, &q->lua.pause, 1, 1 + n, argv, NULL, err);
    PQclear(rows);
    return rc;
}

err_kind_t queue_pause_model(queue_t *q, const char *model, bool paused, err_t *err) {
    pg_conn_t *conn = NULL;
    err_kind_t rc = pg_acquire(q->pg, &conn, err);
    if (rc != ERR_OK) {
        return rc;
    }
    const char *params[] = {model, paused ? "true" : "false"};
    PGresult *row = NULL;
    rc = pg_exec(conn, "UPDATE models SET paused = $2::boolean WHERE name = $1 RETURNING name", 2, params, &row, err);
    bool known = rc == ERR_OK && PQntuples(row) == 1;
    if (rc == ERR_OK) {
        PQclear(row);
        if (!known) {
            rc = err_set(err, ERR_NOT_FOUND, "not_found", "There is no such model.", "%s", model);
        }
    }
    if (rc == ERR_OK) {
        err_t why;
        log_event(LOG_INFO, paused ? "a model is paused" : "a model is resumed", "model", model, NULL);
        if (queue_sync_paused(q, conn, &why) != ERR_OK) {
            log_event(LOG_WARN, "pause: Redis is away, the sweeper will tell it", "model", model, "detail", why.detail,
                      NULL);
        }
    }
    pg_release(conn);
    return rc;
}
