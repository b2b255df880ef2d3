/*
 * Storing a result: see store.h. Objects travel by COPY, row by row from a small buffer, so memory does not grow with
 * their number. The image's row is locked first and the job's second, in the order in which a deletion cascades, so
 * that the two cannot wait for each other.
 */
#include "segworker/pipeline/store.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/log.h"
#include "common/timeutil.h"

enum { COPY_CHUNK = 1 << 16, ROW_MAX = 256 << 20, TRIES = 4, TRY_GAP_MS = 500 };

/* ---- COPY ---- */

static void put_hex(buf_t *row, const buf_t *bytes) {
    static const char digits[] = "0123456789abcdef";
    char pair[512];
    size_t n = 0;
    buf_puts(row, "\\\\x"); /* COPY's text form doubles the backslash of bytea's hex form */
    for (size_t i = 0; i < bytes->len; i++) {
        unsigned char b = (unsigned char)bytes->data[i];
        pair[n++] = digits[b >> 4];
        pair[n++] = digits[b & 15];
        if (n == sizeof pair || i + 1 == bytes->len) {
            buf_append(row, pair, n);
            n = 0;
        }
    }
}

/* One line in COPY's text form. JSON with numbers and plain keys holds nothing that needs escaping. */
static void put_row(buf_t *row, buf_t *scratch, const char *segmentation_id, const result_object_t *o) {
    geom_bbox_t b = geom_bbox(&o->geom);
    buf_printf(row, "%s\t%u\t(%.2f,%.2f),(%.2f,%.2f)\t", segmentation_id, o->idx, (double)b.x1 / GEOM_UNITS_PER_PX,
               (double)b.y1 / GEOM_UNITS_PER_PX, (double)b.x0 / GEOM_UNITS_PER_PX, (double)b.y0 / GEOM_UNITS_PER_PX);
    buf_reset(scratch);
    geom_encode(&o->geom, scratch);
    put_hex(row, scratch);
    buf_printf(row, "\t%.17g\t%.9g\t", o->m.area, (double)o->confidence);
    measure_write_json(&o->m, row);
    buf_puts(row, "\n");
    row->failed = row->failed || scratch->failed;
}

static err_kind_t copy_failed(PGconn *raw, err_t *err) {
    return err_set(err, PQstatus(raw) == CONNECTION_OK ? ERR_INTERNAL : ERR_UNAVAILABLE,
                   PQstatus(raw) == CONNECTION_OK ? "database_error" : "database_unavailable",
                   "The result could not be saved.", "COPY objects: %s", PQerrorMessage(raw));
}

static err_kind_t flush_rows(PGconn *raw, buf_t *rows, err_t *err) {
    if (rows->failed) {
        return err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to save the result.",
                       "COPY row");
    }
    if (rows->len > 0 && PQputCopyData(raw, rows->data, (int)rows->len) != 1) {
        return copy_failed(raw, err);
    }
    buf_reset(rows);
    return ERR_OK;
}

static err_kind_t send_rows(PGconn *raw, const char *segmentation_id, const result_t *r, err_t *err) {
    buf_t rows, scratch;
    buf_init(&rows, ROW_MAX);
    buf_init(&scratch, ROW_MAX / 4);
    err_kind_t rc = ERR_OK;
    for (uint32_t i = 0; rc == ERR_OK && i < r->count; i++) {
        put_row(&rows, &scratch, segmentation_id, &r->objects[i]);
        if (rows.failed || rows.len >= COPY_CHUNK || i + 1 == r->count) {
            rc = flush_rows(raw, &rows, err);
        }
    }
    buf_free(&rows);
    buf_free(&scratch);
    return rc;
}

static err_kind_t copy_objects(pg_conn_t *conn, const char *segmentation_id, const result_t *r, err_t *err) {
    PGconn *raw = pg_raw(conn);
    PGresult *res = PQexec(raw, "COPY objects (segmentation_id, idx, bbox, geometry, area, confidence, measurements) "
                                "FROM STDIN");
    bool begun = PQresultStatus(res) == PGRES_COPY_IN;
    PQclear(res);
    if (!begun) {
        return copy_failed(raw, err);
    }
    err_kind_t rc = send_rows(raw, segmentation_id, r, err);
    if (PQputCopyEnd(raw, rc == ERR_OK ? NULL : "given up") != 1 && rc == ERR_OK) {
        rc = copy_failed(raw, err);
    }
    while ((res = PQgetResult(raw)) != NULL) {
        if (PQresultStatus(res) != PGRES_COMMAND_OK && rc == ERR_OK) {
            rc = copy_failed(raw, err);
        }
        PQclear(res);
    }
    return rc;
}

/* ---- the transaction ---- */

static err_kind_t lock_image(pg_conn_t *conn, const queue_claim_t *c, err_t *err) {
    const char *params[] = {c->image_id};
    PGresult *res = NULL;
    err_kind_t rc = pg_exec(conn, "SELECT 1 FROM images WHERE id = $1 FOR NO KEY UPDATE", 1, params, &res, err);
    if (rc != ERR_OK) {
        return rc;
    }
    bool there = PQntuples(res) == 1;
    PQclear(res);
    return there ? ERR_OK
                 : err_set(err, ERR_CONFLICT, "claim_lost", "The image was deleted.", "image %s of job %s", c->image_id,
                           c->id);
}

static err_kind_t insert_segmentation(pg_conn_t *conn, const queue_claim_t *c, const result_t *r, char *id,
                                      err_t *err) {
    char attempt[16], threshold[32], width[16], height[16], count[16];
    (void)snprintf(attempt, sizeof attempt, "%d", c->attempt);
    (void)snprintf(threshold, sizeof threshold, "%.17g", r->threshold);
    (void)snprintf(width, sizeof width, "%d", r->width);
    (void)snprintf(height, sizeof height, "%d", r->height);
    (void)snprintf(count, sizeof count, "%u", r->count);
    const char *params[] = {c->image_id,
                            c->id,
                            attempt,
                            r->model,
                            r->model_version,
                            r->model_sha256,
                            threshold,
                            r->detect_holes ? "t" : "f",
                            width,
                            height,
                            count,
                            r->note,
                            r->recipe,
                            r->options[0] ? r->options : "{}"};
    PGresult *res = NULL;
    err_kind_t rc = pg_exec(conn,
                            "INSERT INTO segmentations (image_id, job_id, attempt, model, model_version, model_sha256, "
                            "threshold, detect_holes, width, height, object_count, note, recipe, options) "
                            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) RETURNING id",
                            14, params, &res, err);
    if (rc == ERR_OK) {
        (void)snprintf(id, JOB_ID_LEN, "%s", pg_get(res, 0, "id"));
        PQclear(res);
    }
    return rc;
}

static err_kind_t show_result(pg_conn_t *conn, const queue_claim_t *c, const char *segmentation_id, err_t *err) {
    const char *params[] = {c->image_id, segmentation_id, c->id};
    return pg_exec(conn, "UPDATE images SET current_segmentation_id = $2, latest_job_id = $3 WHERE id = $1", 3, params,
                   NULL, err);
}

static err_kind_t commit_once(queue_t *q, pg_pool_t *pg, queue_claim_t *c, const result_t *r, const char *timings_json,
                              err_t *err) {
    char segmentation_id[JOB_ID_LEN] = "";
    pg_conn_t *conn = NULL;
    err_kind_t rc = pg_acquire(pg, &conn, err);
    if (rc != ERR_OK) {
        return rc;
    }
    int64_t seq = c->seq;
    rc = pg_begin(conn, err);
    if (rc == ERR_OK) {
        rc = lock_image(conn, c, err);
    }
    if (rc == ERR_OK) { /* the fence first: a lost claim then costs nothing */
        rc = queue_complete_in_tx(q, conn, c, (int)r->count, timings_json, err);
    }
    if (rc == ERR_OK) {
        rc = insert_segmentation(conn, c, r, segmentation_id, err);
    }
    if (rc == ERR_OK && r->count > 0) {
        rc = copy_objects(conn, segmentation_id, r, err);
    }
    if (rc == ERR_OK) {
        rc = show_result(conn, c, segmentation_id, err);
    }
    if (rc == ERR_OK) {
        rc = pg_commit(conn, err);
    } else {
        pg_rollback(conn);
    }
    if (rc != ERR_OK) {
        c->seq = seq;
    }
    pg_release(conn);
    return rc;
}

/* Did an earlier try commit although its answer never came? */
static bool was_committed(pg_pool_t *pg, queue_claim_t *c) {
    char attempt[16];
    (void)snprintf(attempt, sizeof attempt, "%d", c->attempt);
    const char *params[] = {c->id, attempt};
    PGresult *res = NULL;
    bool yes = false;
    if (pg_query(pg,
                 "SELECT j.seq FROM jobs j JOIN segmentations s ON s.job_id = j.id "
                 "WHERE j.id = $1 AND s.attempt = $2 AND j.attempt = $2 AND j.state = 'completed'",
                 2, params, &res, NULL) == ERR_OK) {
        yes = PQntuples(res) == 1;
        if (yes) {
            c->seq = pg_get_int(res, 0, "seq", c->seq);
        }
        PQclear(res);
    }
    return yes;
}

err_kind_t store_commit(queue_t *q, pg_pool_t *pg, const char *worker_id, queue_claim_t *c, const result_t *r,
                        const char *timings_json, err_t *err) {
    err_kind_t rc = ERR_OK;
    for (int i = 0; i < TRIES; i++) {
        rc = commit_once(q, pg, c, r, timings_json, err);
        if (rc == ERR_CONFLICT && i > 0 && was_committed(pg, c)) {
            rc = ERR_OK;
        }
        if (rc != ERR_UNAVAILABLE) {
            break;
        }
        log_error(LOG_WARN, "save the result", err);
        time_sleep_ms((int64_t)TRY_GAP_MS << i);
    }
    if (rc == ERR_OK && worker_id) {
        queue_complete_done(q, worker_id, c, (int)r->count);
    }
    return rc;
}

/* ---- an earlier result ---- */

/* Only results of the same person's images are looked at: a result says something about the image it was made of. */
static err_kind_t find_earlier(pg_conn_t *conn, const queue_claim_t *c, const store_key_t *key, char *id, int *count,
                               err_t *err) {
    char threshold[32];
    (void)snprintf(threshold, sizeof threshold, "%.17g", key->threshold);
    const char *params[] = {
        c->image_id, c->model, key->recipe, threshold, c->detect_holes ? "t" : "f", key->options ? key->options : "{}"};
    PGresult *res = NULL;
    err_kind_t rc =
        pg_exec(conn,
                "SELECT s.id, s.object_count FROM images mine JOIN projects mp ON mp.id = mine.project_id "
                "JOIN images i ON i.sha256 = mine.sha256 AND i.byte_size = mine.byte_size "
                "JOIN projects p ON p.id = i.project_id AND p.owner_id = mp.owner_id "
                "JOIN segmentations s ON s.image_id = i.id WHERE mine.id = $1 AND s.model = $2 AND s.recipe = $3 "
                "AND s.recipe <> '' AND s.threshold = $4 AND s.detect_holes = $5 AND s.options = $6::jsonb "
                "ORDER BY s.created_at DESC, s.id LIMIT 1",
                6, params, &res, err);
    id[0] = '\0';
    if (rc == ERR_OK && PQntuples(res) == 1) {
        (void)snprintf(id, JOB_ID_LEN, "%s", pg_get(res, 0, "id"));
        *count = (int)pg_get_int(res, 0, "object_count", 0);
    }
    if (rc == ERR_OK) {
        PQclear(res);
    }
    return rc;
}

/* The rows of the earlier segmentation and its objects once more, for this job. *whole = false: it was deleted
 * meanwhile. */
static err_kind_t repeat_earlier(pg_conn_t *conn, const queue_claim_t *c, const char *earlier, int count, bool *whole,
                                 err_t *err) {
    char attempt[16], id[JOB_ID_LEN] = "";
    (void)snprintf(attempt, sizeof attempt, "%d", c->attempt);
    const char *params[] = {c->image_id, c->id, attempt, earlier};
    PGresult *res = NULL;
    err_kind_t rc =
        pg_exec(conn,
                "INSERT INTO segmentations (image_id, job_id, attempt, model, model_version, model_sha256, "
                "threshold, detect_holes, width, height, object_count, note, recipe, options, cached_from) "
                "SELECT $1, $2, $3, model, model_version, model_sha256, threshold, detect_holes, width, "
                "height, object_count, note, recipe, options, id FROM segmentations WHERE id = $4 RETURNING id",
                4, params, &res, err);
    *whole = rc == ERR_OK && PQntuples(res) == 1;
    if (*whole) {
        (void)snprintf(id, sizeof id, "%s", pg_get(res, 0, "id"));
    }
    if (rc == ERR_OK) {
        PQclear(res);
    }
    if (*whole) {
        const char *both[] = {id, earlier};
        rc = pg_exec(conn,
                     "WITH copied AS (INSERT INTO objects (segmentation_id, idx, bbox, geometry, area, confidence, "
                     "measurements) SELECT $1, idx, bbox, geometry, area, confidence, measurements FROM objects "
                     "WHERE segmentation_id = $2 RETURNING 1) SELECT count(*) AS n FROM copied",
                     2, both, &res, err);
        *whole = rc == ERR_OK && pg_get_int(res, 0, "n", -1) == count;
        if (rc == ERR_OK) {
            PQclear(res);
        }
    }
    return *whole ? show_result(conn, c, id, err) : rc;
}

err_kind_t store_cached(queue_t *q, pg_pool_t *pg, queue_claim_t *c, const store_key_t *key, int *count, bool *found,
                        err_t *err) {
    char earlier[JOB_ID_LEN] = "";
    pg_conn_t *conn = NULL;
    int64_t seq = c->seq;
    bool whole = false;
    *found = false;
    *count = 0;
    err_kind_t rc = pg_acquire(pg, &conn, err);
    if (rc != ERR_OK) {
        return rc;
    }
    rc = find_earlier(conn, c, key, earlier, count, err);
    if (rc != ERR_OK || !earlier[0]) {
        pg_release(conn);
        return rc;
    }
    rc = pg_begin(conn, err);
    if (rc == ERR_OK) {
        rc = lock_image(conn, c, err);
    }
    if (rc == ERR_OK) {
        rc = queue_complete_in_tx(q, conn, c, *count, "{}", err);
    }
    if (rc == ERR_OK) {
        rc = repeat_earlier(conn, c, earlier, *count, &whole, err);
    }
    if (rc == ERR_OK && whole) {
        rc = pg_commit(conn, err);
    } else {
        pg_rollback(conn);
    }
    *found = rc == ERR_OK && whole;
    if (!*found) {
        c->seq = seq;
    }
    pg_release(conn);
    return rc;
}
