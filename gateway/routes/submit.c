/*
 * Creating jobs, see submit.h. Every insert is one statement that also moves images.latest_job_id, so that the two
 * cannot differ. Two triggers of one image at the same time meet at the unique index jobs_one_unfinished_per_image:
 * the second inserts nothing and reads the first one's job.
 */
#include "submit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/log.h"
#include "route_util.h"
#include "submit_bounds.h"
#include "submit_sql.h"

enum { BATCH_MAX = 10000 };

void submit_defaults(submit_request_t *sr) {
    *sr = (submit_request_t){.priority = 5,
                             .model = NULL,
                             .threshold = NAN,
                             .detect_holes = -1,
                             .choice = JOB_CHOICE_DEFAULT,
                             .options = "{}"};
}

static err_kind_t parse_options(const cJSON *body, submit_request_t *sr, err_t *err) {
    buf_t text;
    err_kind_t kind = job_choice_parse(cJSON_GetObjectItemCaseSensitive(body, "options"), &sr->choice, err);
    if (kind != ERR_OK) {
        return kind;
    }
    buf_init(&text, sizeof sr->options - 1);
    job_choice_write(&sr->choice, &text);
    if (text.failed) {
        kind = err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    } else {
        snprintf(sr->options, sizeof sr->options, "%s", text.data);
    }
    buf_free(&text);
    return kind;
}

err_kind_t submit_parse(const cJSON *body, submit_request_t *sr, err_t *err) {
    submit_defaults(sr);
    double priority = 5;
    bool given = false, holes = false;
    err_kind_t kind = route_field_number(body, "priority", 1, 10, true, false, NULL, &priority, err);
    if (kind == ERR_OK) {
        kind = route_field_text(body, "model", 1, 63, true, NULL, &sr->model, err);
    }
    if (kind == ERR_OK) {
        kind = route_field_number(body, "threshold", 0.1, 0.9, false, true, NULL, &sr->threshold, err);
    }
    if (kind == ERR_OK) {
        kind = route_field_bool(body, "detectHoles", &given, &holes, err);
    }
    if (kind == ERR_OK) {
        kind = parse_options(body, sr, err);
    }
    sr->priority = (int)priority;
    sr->detect_holes = given ? holes : -1;
    return kind;
}

/* Is there room for `wanted` more jobs of everybody? */
static err_kind_t check_total(gateway_t *gw, pg_conn_t *conn, int wanted, err_t *err) {
    const int64_t max = gw->cfg->max_queued_total;
    if (submit_bounds_far(NULL, max, wanted)) {
        return ERR_OK;
    }
    PGresult *res = NULL;
    err_kind_t kind = pg_exec(conn, "SELECT count(*) AS n FROM jobs WHERE state IN ('queued', 'active', 'delayed')", 0,
                              NULL, &res, err);
    if (kind != ERR_OK) {
        return kind;
    }
    const int64_t total = pg_get_int(res, 0, "n", 0);
    PQclear(res);
    submit_bounds_note(NULL, total);
    return total + wanted > max
               ? err_set(err, ERR_UNAVAILABLE, "queue_full", "The queue is full. Please try again in a minute.", NULL)
               : ERR_OK;
}

err_kind_t submit_check(gateway_t *gw, pg_conn_t *conn, const char *user_id, const char *project_id,
                        const submit_request_t *sr, int wanted, err_t *err) {
    static const char sql[] =
        "SELECT COALESCE($3, p.default_model) AS wanted, "
        "EXISTS (SELECT 1 FROM models) AS any_model, "
        "EXISTS (SELECT 1 FROM models m WHERE m.name = COALESCE($3, p.default_model)) AS known, "
        "EXISTS (SELECT 1 FROM models m WHERE m.name = COALESCE($3, p.default_model) AND m.options ? 'augments' AND "
        "NOT m.options->'augments' ? $5::text) AS refused, "
        "(SELECT string_agg(f.name, ', ' ORDER BY f.name) FROM (SELECT name FROM models ORDER BY name LIMIT 8) f) AS "
        "offered, "
        "(SELECT count(*) FROM (SELECT 1 FROM jobs WHERE user_id = $1 AND state IN ('queued', 'active', 'delayed') "
        "LIMIT $4::bigint) q) AS mine FROM projects p WHERE p.id = $2 AND p.owner_id = $1";
    const int64_t bound = gw->cfg->max_queued_per_user;
    const bool far = submit_bounds_far(user_id, bound, wanted);
    char limit[24]; /* 0: not counted */
    snprintf(limit, sizeof limit, "%lld", far ? 0LL : (long long)bound + 1);
    PGresult *res = NULL;
    const char *augment = sr->choice.augment > 0 ? job_choice_augments[sr->choice.augment] : NULL;
    err_kind_t kind =
        pg_exec(conn, sql, 5, (const char *const[]){user_id, project_id, sr->model, limit, augment}, &res, err);
    if (kind != ERR_OK) {
        return kind;
    }
    if (!far && PQntuples(res) == 1) {
        submit_bounds_note(user_id, pg_get_int(res, 0, "mine", 0));
    }
    if (PQntuples(res) == 0) {
        kind = route_not_found(err, "project");
    } else if (!pg_get_bool(res, 0, "any_model")) {
        kind = err_set(err, ERR_UNAVAILABLE, "no_model_available",
                       "No worker has offered a model yet. Start a segworker and try again.", NULL);
    } else if (pg_get(res, 0, "wanted") && !pg_get_bool(res, 0, "known")) {
        kind = err_setf(err, ERR_INVALID, "model_unknown", "There is no model \"%.63s\". There are: %.150s.",
                        pg_get(res, 0, "wanted"), pg_get(res, 0, "offered"));
    } else if (pg_get_bool(res, 0, "refused")) {
        kind =
            err_setf(err, ERR_INVALID, "model_option_refused",
                     "options.augment cannot be \"%s\" with the model \"%.63s\".", augment, pg_get(res, 0, "wanted"));
    } else if (!far && pg_get_int(res, 0, "mine", 0) + wanted > bound) {
        kind = err_setf(
            err, ERR_LIMIT, "queue_full_user",
            "You have %lld jobs waiting and this asks for %d more; %lld are allowed. Wait until some are done.",
            (long long)pg_get_int(res, 0, "mine", 0), wanted, (long long)bound);
    } else {
        kind = check_total(gw, conn, wanted, err);
    }
    PQclear(res);
    return kind;
}

static err_kind_t read_existing(pg_conn_t *conn, const char *image_id, submit_result_t *out, bool *found, err_t *err) {
    PGresult *res = NULL;
    err_kind_t kind = pg_exec(conn,
                              "SELECT i.id AS image_id, j.id AS job_id, j.model, j.state, j.priority FROM images i "
                              "LEFT JOIN jobs j ON j.image_id = i.id AND j.state IN ('queued', 'active', 'delayed') "
                              "WHERE i.id = $1",
                              1, (const char *const[]){image_id}, &res, err);
    if (kind != ERR_OK) {
        return kind;
    }
    if (PQntuples(res) == 0) {
        PQclear(res);
        return route_not_found(err, "image");
    }
    const char *id = pg_get(res, 0, "job_id");
    *found = id != NULL;
    if (id) {
        snprintf(out->job_id, sizeof out->job_id, "%s", id);
        snprintf(out->model, sizeof out->model, "%s", pg_get(res, 0, "model"));
        snprintf(out->state, sizeof out->state, "%s", pg_get(res, 0, "state"));
        out->priority = (int)pg_get_int(res, 0, "priority", 5);
        out->existing = true;
    }
    PQclear(res);
    return ERR_OK;
}

/* Parameters 3.. of both inserts. */
typedef struct {
    char threshold[32], priority[16], attempts[24];
} insert_texts_t;

static void insert_texts(const gateway_t *gw, const submit_request_t *sr, insert_texts_t *t) {
    snprintf(t->threshold, sizeof t->threshold, "%.17g", sr->threshold);
    snprintf(t->priority, sizeof t->priority, "%d", sr->priority);
    snprintf(t->attempts, sizeof t->attempts, "%lld", (long long)gw->cfg->max_attempts);
}

static void take_inserted(const PGresult *res, const char *user_id, const submit_request_t *sr, submit_result_t *out) {
    snprintf(out->job_id, sizeof out->job_id, "%s", pg_get(res, 0, "id"));
    snprintf(out->image_id, sizeof out->image_id, "%s", pg_get(res, 0, "image_id"));
    snprintf(out->project_id, sizeof out->project_id, "%s", pg_get(res, 0, "project_id"));
    snprintf(out->user_id, sizeof out->user_id, "%s", user_id);
    snprintf(out->model, sizeof out->model, "%s", pg_get(res, 0, "model"));
    snprintf(out->state, sizeof out->state, "queued");
    out->priority = sr->priority;
}

static err_kind_t insert_one(gateway_t *gw, pg_conn_t *conn, const char *user_id, const char *image_id,
                             const submit_request_t *sr, submit_result_t *out, bool *inserted, err_t *err) {
    static const char sql[] =
        "WITH pick AS (SELECT i.id, i.project_id, p.default_threshold, p.detect_holes, " SUBMIT_MODEL_FOR(
            "$3") " AS model FROM images i JOIN projects p ON p.id = i.project_id WHERE i.id = $2), "
                  "ins AS (INSERT INTO jobs (user_id, project_id, image_id, model, threshold, detect_holes, priority, "
                  "max_attempts, options) SELECT $1::uuid, pick.project_id, pick.id, pick.model, "
                  "COALESCE($4::float8, pick.default_threshold), COALESCE($5::boolean, pick.detect_holes), $6::int, "
                  "$7::int, $8::jsonb FROM pick" SUBMIT_ON_CONFLICT "RETURNING id, image_id, project_id, model), "
                  "upd AS (UPDATE images SET latest_job_id = ins.id FROM ins WHERE images.id = ins.image_id) "
                  "SELECT id, image_id, project_id, model FROM ins";
    insert_texts_t t = {0};
    insert_texts(gw, sr, &t);
    const char *const params[] = {user_id,
                                  image_id,
                                  sr->model,
                                  isnan(sr->threshold) ? NULL : t.threshold,
                                  sr->detect_holes < 0 ? NULL : (sr->detect_holes ? "true" : "false"),
                                  t.priority,
                                  t.attempts,
                                  sr->options};
    PGresult *res = NULL;
    err_kind_t kind = pg_exec(conn, sql, 8, params, &res, err);
    *inserted = kind == ERR_OK && PQntuples(res) == 1;
    if (*inserted) {
        take_inserted(res, user_id, sr, out);
    }
    PQclear(res);
    return kind;
}

err_kind_t submit_image(gateway_t *gw, pg_conn_t *conn, const char *user_id, const char *image_id,
                        const submit_request_t *sr, submit_result_t *out, err_t *err) {
    memset(out, 0, sizeof *out);
    snprintf(out->image_id, sizeof out->image_id, "%s", image_id);
    /* The unfinished job may end between the insert that met it and the read: then there is room for a new one. */
    for (int round = 0; round < 5; round++) {
        bool found = false;
        err_kind_t kind = insert_one(gw, conn, user_id, image_id, sr, out, &found, err);
        if (kind == ERR_OK && !found) {
            kind = read_existing(conn, image_id, out, &found, err);
        }
        if (kind != ERR_OK || found) {
            return kind;
        }
    }
    return err_set(err, ERR_UNAVAILABLE, "image_busy", "The image's jobs change too fast. Please try again.", NULL);
}

/* How many images are meant, how many of them have an unfinished job, and whether all the ids are the project's. */
static err_kind_t batch_count(pg_conn_t *conn, const char *project_id, const char *uuid_array, int distinct_ids,
                              bool only_missing, int64_t *meant, int64_t *busy, err_t *err) {
    static const char sql[] =
        "WITH want AS (" SUBMIT_IMAGES ") SELECT (SELECT count(*) FROM want) AS meant, "
        "(SELECT count(*) FROM want w JOIN jobs j ON j.image_id = w.id AND j.state IN ('queued', 'active', 'delayed')) "
        "AS busy, (SELECT count(*) FROM images i WHERE i.project_id = $1 AND i.id = ANY ($2::uuid[])) AS known";
    PGresult *res = NULL;
    err_kind_t kind = pg_exec(
        conn, sql, 3, (const char *const[]){project_id, uuid_array, only_missing ? "true" : "false"}, &res, err);
    if (kind != ERR_OK) {
        return kind;
    }
    *meant = pg_get_int(res, 0, "meant", 0);
    *busy = pg_get_int(res, 0, "busy", 0);
    if (uuid_array && pg_get_int(res, 0, "known", 0) != distinct_ids) {
        kind = err_setf(err, ERR_NOT_FOUND, "not_found", "%lld of the %d images are not in this project.",
                        (long long)(distinct_ids - pg_get_int(res, 0, "known", 0)), distinct_ids);
    }
    PQclear(res);
    return kind;
}

err_kind_t submit_batch(gateway_t *gw, pg_conn_t *conn, const char *user_id, const char *project_id,
                        const char *uuid_array, int distinct_ids, bool only_missing, const submit_request_t *sr,
                        submit_batch_t *out, err_t *err) {
    /* The images are locked first, so that submitted groups leave them out instead of waiting for this transaction
     * (submit_group_sql.c). Times differ by a microsecond each, so that the oldest image comes first wherever jobs are
     * put in order. */
    static const char sql[] =
        "WITH b AS (SELECT gen_random_uuid() AS id), want AS (" SUBMIT_IMAGES " AND NOT EXISTS (SELECT 1 FROM jobs j "
        "WHERE j.image_id = i.id AND j.state IN ('queued', 'active', 'delayed')) ORDER BY i.created_at, i.id LIMIT "
        "10000 FOR NO KEY UPDATE OF i), ins AS (INSERT INTO jobs (user_id, project_id, image_id, batch_id, model, "
        "threshold, detect_holes, "
        "priority, max_attempts, options, created_at) SELECT $4::uuid, i.project_id, i.id, b.id, " SUBMIT_MODEL_FOR(
            "$5") ", "
                  "COALESCE($6::float8, p.default_threshold), COALESCE($7::boolean, p.detect_holes), $8::int, $9::int, "
                  "$10::jsonb, now() + "
                  "row_number() OVER (ORDER BY i.created_at, i.id) * interval '1 microsecond' FROM b, want w JOIN "
                  "images i ON "
                  "i.id = w.id JOIN projects p ON p.id = i.project_id" SUBMIT_ON_CONFLICT "RETURNING id, image_id), "
                  "upd AS (UPDATE images SET latest_job_id = ins.id FROM ins WHERE images.id = ins.image_id) "
                  "SELECT (SELECT id FROM b) AS batch_id, (SELECT count(*) FROM ins) AS accepted";
    int64_t meant = 0, busy = 0;
    memset(out, 0, sizeof *out);
    err_kind_t kind = batch_count(conn, project_id, uuid_array, distinct_ids, only_missing, &meant, &busy, err);
    if (kind != ERR_OK) {
        return kind;
    }
    const int64_t wanted = meant - busy < BATCH_MAX ? meant - busy : BATCH_MAX;
    kind = submit_check(gw, conn, user_id, project_id, sr, (int)wanted, err);
    if (kind == ERR_OK) {
        kind = submit_check_plane(conn, project_id, uuid_array, only_missing, sr, err);
    }
    if (kind != ERR_OK) {
        return kind;
    }
    insert_texts_t t = {0};
    insert_texts(gw, sr, &t);
    const char *const params[] = {project_id,
                                  uuid_array,
                                  only_missing ? "true" : "false",
                                  user_id,
                                  sr->model,
                                  isnan(sr->threshold) ? NULL : t.threshold,
                                  sr->detect_holes < 0 ? NULL : (sr->detect_holes ? "true" : "false"),
                                  t.priority,
                                  t.attempts,
                                  sr->options};
    PGresult *res = NULL;
    kind = pg_exec(conn, sql, 10, params, &res, err);
    if (kind == ERR_OK) {
        snprintf(out->batch_id, sizeof out->batch_id, "%s", pg_get(res, 0, "batch_id"));
        out->accepted = (int)pg_get_int(res, 0, "accepted", 0);
        out->already_queued = (int)(busy + (wanted - out->accepted));
    }
    PQclear(res);
    return kind;
}

void submit_enqueue(gateway_t *gw, const submit_result_t *result, int *position) {
    *position = -1;
    if (result->existing) {
        if (strcmp(result->state, "queued") == 0) {
            *position = queue_position(gw->queue, result->job_id, result->model, result->priority);
        }
        return;
    }
    err_t err;
    if (queue_enqueue(gw->queue, result->job_id, result->model, result->priority, position, &err) != ERR_OK) {
        log_error(LOG_WARN, "enqueue", &err);
    }
}
