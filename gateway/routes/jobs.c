/*
 * Jobs, see jobs.h.
 */
#include "jobs.h"

#include <stdio.h>
#include <string.h>

#include "common/timeutil.h"
#include "job_json.h"
#include "route_util.h"

/* Jobs of one list that Redis is asked about, and for how long in all; the others show their stored state. */
enum { LIVE_MAX = 64, LIVE_MS = 250 };

static err_kind_t cancel_one(queue_t *q, const char *job_id, err_t *err) {
    job_state_t state = JOB_QUEUED;
    return queue_cancel(q, job_id, &state, err);
}

err_kind_t jobs_cancel_where(gateway_t *gw, jobs_scope_t scope, const char *id, int *cancelled, err_t *err) {
    return queue_cancel_many(gw->queue, scope == JOBS_OF_PROJECT ? QUEUE_OF_PROJECT : QUEUE_OF_IMAGE, id, cancelled,
                             err);
}

err_kind_t jobs_cancel_project(http_request_t *req, err_t *err) {
    int cancelled = 0;
    err_kind_t kind = route_own_project(req->gw, req->user.id, req->params[0], err);
    if (kind == ERR_OK) {
        kind = jobs_cancel_where(req->gw, JOBS_OF_PROJECT, req->params[0], &cancelled, err);
    }
    if (kind != ERR_OK) {
        return kind;
    }
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "cancelled", cancelled);
    return http_reply_json(req, 200, json);
}

err_kind_t jobs_retry_project(http_request_t *req, err_t *err) {
    int retried = 0;
    err_kind_t kind = route_own_project(req->gw, req->user.id, req->params[0], err);
    if (kind == ERR_OK) {
        kind = queue_retry_failed(req->gw->queue, req->params[0], &retried, err);
    }
    if (kind != ERR_OK) {
        return kind;
    }
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "retried", retried);
    return http_reply_json(req, 200, json);
}

/* ---- one job ---- */

/* Answers with the caller's job, or ERR_NOT_FOUND. */
static err_kind_t reply_job(http_request_t *req, int status, err_t *err) {
    PGresult *res = NULL;
    const char *sql = arena_printf(req->arena,
                                   "SELECT %s FROM jobs j JOIN images i ON i.id = j.image_id JOIN projects p ON p.id = "
                                   "j.project_id WHERE j.id = $1 AND p.owner_id = $2",
                                   JOB_COLUMNS);
    if (!sql) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    err_kind_t kind = pg_query(req->gw->pg, sql, 2, (const char *const[]){req->params[0], req->user.id}, &res, err);
    if (kind == ERR_OK && PQntuples(res) == 0) {
        kind = route_not_found(err, "job");
    } else if (kind == ERR_OK) {
        cJSON *json = job_json(req->gw->queue, res, 0, true);
        kind = json ? http_reply_json(req, status, json)
                    : err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    PQclear(res);
    return kind;
}

static err_kind_t own_job(http_request_t *req, err_t *err) {
    PGresult *res = NULL;
    err_kind_t kind = pg_query(req->gw->pg,
                               "SELECT 1 FROM jobs j JOIN projects p ON p.id = j.project_id WHERE j.id = $1 AND "
                               "p.owner_id = $2",
                               2, (const char *const[]){req->params[0], req->user.id}, &res, err);
    if (kind == ERR_OK && PQntuples(res) == 0) {
        kind = route_not_found(err, "job");
    }
    PQclear(res);
    return kind;
}

err_kind_t jobs_get(http_request_t *req, err_t *err) {
    return reply_job(req, 200, err);
}

err_kind_t jobs_cancel(http_request_t *req, err_t *err) {
    err_kind_t kind = own_job(req, err);
    if (kind == ERR_OK) {
        kind = cancel_one(req->gw->queue, req->params[0], err);
    }
    return kind == ERR_OK ? reply_job(req, 202, err) : kind;
}

err_kind_t jobs_retry(http_request_t *req, err_t *err) {
    err_kind_t kind = own_job(req, err);
    if (kind == ERR_OK) {
        kind = queue_retry(req->gw->queue, req->params[0], err);
    }
    return kind == ERR_OK ? reply_job(req, 202, err) : kind;
}

/* ---- the list ---- */

/* "unfinished" or one state; NULL when absent. */
static err_kind_t parse_state(http_request_t *req, const char **array, err_t *err) {
    const char *word = http_query(req, "state");
    job_state_t state = JOB_QUEUED;
    *array = NULL;
    if (!word) {
        return ERR_OK;
    }
    if (strcmp(word, "unfinished") == 0) {
        *array = "{queued,active,delayed}";
        return ERR_OK;
    }
    if (!job_state_parse(word, &state)) {
        return err_set(
            err, ERR_INVALID, "parameter_invalid",
            "The parameter “state” must be queued, active, delayed, completed, failed, cancelled or unfinished.", NULL);
    }
    *array = arena_printf(req->arena, "{%s}", job_state_name(state));
    return *array ? ERR_OK : err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
}

err_kind_t jobs_list(http_request_t *req, err_t *err) {
    route_page_t page;
    const char *states = NULL;
    const char *project = http_query(req, "projectId");
    err_kind_t kind = route_page_parse(req, &page, err);
    if (kind == ERR_OK) {
        kind = parse_state(req, &states, err);
    }
    if (kind == ERR_OK && project && !pg_is_uuid(project)) {
        kind =
            err_set(err, ERR_INVALID, "parameter_invalid", "The parameter “projectId” must be a project's id.", NULL);
    }
    if (kind != ERR_OK) {
        return kind;
    }
    const char *sql = arena_printf(
        req->arena,
        "SELECT %s FROM jobs j JOIN images i ON i.id = j.image_id JOIN projects p ON p.id = j.project_id WHERE "
        "p.owner_id = $1 AND ($2::uuid IS NULL OR j.project_id = $2::uuid) AND ($3::text[] IS NULL OR j.state = ANY "
        "($3::text[])) AND ($4::timestamptz IS NULL OR (j.created_at, j.id) < ($4::timestamptz, $5::uuid)) "
        "ORDER BY j.created_at DESC, j.id DESC LIMIT $6::int",
        JOB_COLUMNS);
    if (!sql) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    PGresult *res = NULL;
    kind = pg_query(req->gw->pg, sql, 6,
                    (const char *const[]){req->user.id, project, states, page.created_at, page.id, page.limit_plus_one},
                    &res, err);
    if (kind != ERR_OK) {
        return kind;
    }
    cJSON *json = cJSON_CreateObject();
    cJSON *items = cJSON_AddArrayToObject(json, "items");
    int live = 0;
    const int64_t until = time_mono_ms() + LIVE_MS;
    for (int i = 0; i < PQntuples(res) && i < page.limit; i++) {
        const char *state = pg_get(res, i, "job_state");
        const bool ask = (strcmp(state, "active") == 0 || strcmp(state, "queued") == 0) && live++ < LIVE_MAX &&
                         time_mono_ms() < until;
        cJSON_AddItemToArray(items, job_json(req->gw->queue, res, i, ask));
    }
    route_page_next(req, &page, res, "job_created_at", "job_id", json);
    PQclear(res);
    return http_reply_json(req, 200, json);
}
