/*
 * Projects: list, make, read, change, delete, and the sample project. Deleting goes in the order jobs, rows, files, so
 * that whatever stops it half-way leaves nothing that a person can see broken.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/events.h"
#include "common/log.h"
#include "gateway/derivatives.h"
#include "gateway/sample.h"
#include "jobs.h"
#include "projects.h"
#include "route_util.h"

static const char PROJECT_SELECT[] =
    "SELECT p.id, p.title, p.description, p.default_model, p.default_threshold, p.detect_holes, p.is_sample, "
    "p.version, " ROUTE_TIME("p.created_at") " AS created_at, " ROUTE_TIME(
        "p.updated_at") " AS updated_at, "
                        "(SELECT c.id FROM images c WHERE c.project_id = p.id ORDER BY c.created_at DESC, c.id DESC "
                        "LIMIT 1) AS cover, s.* "
                        "FROM projects p CROSS JOIN LATERAL (SELECT count(*) AS images, count(*) FILTER (WHERE j.id IS "
                        "NULL) AS none, "
                        "count(*) FILTER (WHERE j.state IN ('queued', 'delayed')) AS queued, "
                        "count(*) FILTER (WHERE j.state = 'active') AS active, "
                        "count(*) FILTER (WHERE j.state = 'completed') AS completed, "
                        "count(*) FILTER (WHERE j.state = 'failed') AS failed, "
                        "count(*) FILTER (WHERE j.state = 'cancelled') AS cancelled "
                        "FROM images i LEFT JOIN jobs j ON j.id = i.latest_job_id WHERE i.project_id = p.id) s ";

static cJSON *project_json(const PGresult *res, int row) {
    static const char *const states[] = {"none", "queued", "active", "completed", "failed", "cancelled"};
    cJSON *json = cJSON_CreateObject();
    if (!json) {
        return NULL;
    }
    route_add_text(json, "id", pg_get(res, row, "id"));
    route_add_text(json, "title", pg_get(res, row, "title"));
    route_add_text(json, "description", pg_get(res, row, "description"));
    route_add_text(json, "defaultModel", pg_get(res, row, "default_model"));
    const double threshold = pg_get_real(res, row, "default_threshold", NAN);
    if (isfinite(threshold)) {
        cJSON_AddNumberToObject(json, "defaultThreshold", threshold);
    } else {
        cJSON_AddNullToObject(json, "defaultThreshold");
    }
    cJSON_AddBoolToObject(json, "detectHoles", pg_get_bool(res, row, "detect_holes"));
    cJSON_AddBoolToObject(json, "isSample", pg_get_bool(res, row, "is_sample"));
    cJSON_AddNumberToObject(json, "imageCount", (double)pg_get_int(res, row, "images", 0));
    route_add_text(json, "coverImageId", pg_get(res, row, "cover"));
    cJSON *jobs = cJSON_AddObjectToObject(json, "jobs");
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        cJSON_AddNumberToObject(jobs, states[i], (double)pg_get_int(res, row, states[i], 0));
    }
    cJSON_AddNumberToObject(json, "version", (double)pg_get_int(res, row, "version", 1));
    route_add_text(json, "createdAt", pg_get(res, row, "created_at"));
    route_add_text(json, "updatedAt", pg_get(res, row, "updated_at"));
    return json;
}

/* Answers with the caller's project and its ETag ("<version>.<hash>"), or returns ERR_NOT_FOUND. */
static err_kind_t project_reply(http_request_t *req, int status, const char *project_id, err_t *err) {
    const char *sql = arena_printf(req->arena, "%s WHERE p.id = $1 AND p.owner_id = $2", PROJECT_SELECT);
    if (!sql) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    PGresult *res = NULL;
    err_kind_t kind = pg_query(req->gw->pg, sql, 2, (const char *const[]){project_id, req->user.id}, &res, err);
    if (kind != ERR_OK) {
        return kind;
    }
    if (PQntuples(res) == 0) {
        kind = route_not_found(err, "project");
    } else {
        cJSON *json = project_json(res, 0);
        kind = json ? route_reply_hashed(req, status, json, pg_get_int(res, 0, "version", 1))
                    : err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    PQclear(res);
    return kind;
}

static err_kind_t project_list(http_request_t *req, err_t *err) {
    route_page_t page;
    err_kind_t kind = route_page_parse(req, &page, err);
    if (kind != ERR_OK) {
        return kind;
    }
    const char *sql = arena_printf(req->arena,
                                   "%s WHERE p.owner_id = $1 AND ($2::timestamptz IS NULL OR (p.created_at, p.id) < "
                                   "($2::timestamptz, $3::uuid)) ORDER BY p.created_at DESC, p.id DESC LIMIT $4::int",
                                   PROJECT_SELECT);
    if (!sql) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    PGresult *res = NULL;
    kind = pg_query(req->gw->pg, sql, 4,
                    (const char *const[]){req->user.id, page.created_at, page.id, page.limit_plus_one}, &res, err);
    if (kind != ERR_OK) {
        return kind;
    }
    cJSON *json = cJSON_CreateObject();
    cJSON *items = cJSON_AddArrayToObject(json, "items");
    for (int i = 0; i < PQntuples(res) && i < page.limit; i++) {
        cJSON_AddItemToArray(items, project_json(res, i));
    }
    route_page_next(req, &page, res, "created_at", "id", json);
    PQclear(res);
    return http_reply_json(req, 200, json);
}

/* Fields of ProjectCreate and ProjectUpdate; given tells which were there. */
typedef struct {
    const char *title, *description, *model;
    double threshold;
    bool holes;
    struct {
        bool title, description, model, threshold, holes;
    } given;
} project_fields_t;

static err_kind_t parse_fields(const cJSON *body, project_fields_t *f, err_t *err) {
    static const char *const known[] = {"title",       "description", "defaultModel", "defaultThreshold",
                                        "detectHoles", NULL};
    *f = (project_fields_t){.threshold = NAN, .holes = true, .description = ""};
    err_kind_t kind = route_only_fields(body, known, err);
    if (kind == ERR_OK) {
        kind = route_field_text(body, "title", 1, 255, false, &f->given.title, &f->title, err);
    }
    if (kind == ERR_OK) {
        kind = route_field_text(body, "description", 0, 1000, false, &f->given.description, &f->description, err);
    }
    if (kind == ERR_OK) {
        kind = route_field_text(body, "defaultModel", 1, 63, true, &f->given.model, &f->model, err);
    }
    if (kind == ERR_OK) {
        kind = route_field_number(body, "defaultThreshold", 0.1, 0.9, false, true, &f->given.threshold, &f->threshold,
                                  err);
    }
    if (kind == ERR_OK) {
        kind = route_field_bool(body, "detectHoles", &f->given.holes, &f->holes, err);
    }
    return kind;
}

static err_kind_t project_create(http_request_t *req, err_t *err) {
    cJSON *body = NULL;
    err_kind_t kind = http_read_json(req, ROUTE_BODY_MAX, false, &body, err);
    if (kind != ERR_OK) {
        return kind;
    }
    PGresult *res = NULL;
    project_fields_t f;
    kind = parse_fields(body, &f, err);
    if (kind == ERR_OK && !f.given.title) {
        kind = err_set(err, ERR_INVALID, "field_invalid", "title is missing.", NULL);
    }
    char threshold[32];
    snprintf(threshold, sizeof threshold, "%.17g", f.threshold);
    if (kind == ERR_OK) {
        kind = pg_query(req->gw->pg,
                        "INSERT INTO projects (owner_id, title, description, default_model, default_threshold, "
                        "detect_holes) VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
                        6,
                        (const char *const[]){req->user.id, f.title, f.description, f.model,
                                              isnan(f.threshold) ? NULL : threshold, f.holes ? "true" : "false"},
                        &res, err);
    }
    if (kind == ERR_OK) {
        const char *location = arena_printf(req->arena, "/api/projects/%s", pg_get(res, 0, "id"));
        if (location) {
            http_add_header(req, "Location", location);
        }
        kind = project_reply(req, 201, pg_get(res, 0, "id"), err);
    }
    PQclear(res);
    cJSON_Delete(body);
    return kind;
}

static err_kind_t project_get(http_request_t *req, err_t *err) {
    return project_reply(req, 200, req->params[0], err);
}

/* The ETag of a project is "<version>.<hash of the answer>", because the answer also counts jobs. An edit must be based
 * on the current version only, so the part behind the dot is taken as the client sent it. */
static const char *etag_to_match(http_request_t *req, const char *version) {
    const char *sent = http_header(req, "If-Match");
    const char *prefix = arena_printf(req->arena, "\"%s.", version);
    const char *at = sent && prefix ? strstr(sent, prefix) : NULL;
    const char *close = at ? strchr(at + 1, '"') : NULL;
    const char *etag = close ? arena_strndup(req->arena, at + 1, (size_t)(close - at - 1)) : NULL;
    return etag ? etag : version;
}

static void project_publish(gateway_t *gw, const char *project_id, const char *change) {
    char json[160];
    snprintf(json, sizeof json, "{\"type\":\"project\",\"projectId\":\"%s\",\"change\":\"%s\"}", project_id, change);
    events_publish(gw->rds, project_id, json);
}

static err_kind_t update_locked(http_request_t *req, pg_conn_t *conn, const project_fields_t *f, err_t *err) {
    PGresult *res = NULL;
    err_kind_t kind = pg_exec(conn, "SELECT version FROM projects WHERE id = $1 AND owner_id = $2 FOR UPDATE", 2,
                              (const char *const[]){req->params[0], req->user.id}, &res, err);
    if (kind == ERR_OK && PQntuples(res) == 0) {
        kind = route_not_found(err, "project");
    }
    if (kind == ERR_OK) {
        kind = http_check_if_match(req, etag_to_match(req, pg_get(res, 0, "version")), err);
    }
    PQclear(res);
    if (kind != ERR_OK) {
        return kind;
    }
    char threshold[32];
    snprintf(threshold, sizeof threshold, "%.17g", f->threshold);
    const char *const params[] = {req->params[0],
                                  f->given.title ? f->title : NULL,
                                  f->given.description ? f->description : NULL,
                                  f->given.model ? "true" : "false",
                                  f->model,
                                  f->given.threshold ? "true" : "false",
                                  isnan(f->threshold) ? NULL : threshold,
                                  f->given.holes ? (f->holes ? "true" : "false") : NULL};
    return pg_exec(conn,
                   "UPDATE projects SET title = COALESCE($2, title), description = COALESCE($3, description), "
                   "default_model = CASE WHEN $4::boolean THEN $5 ELSE default_model END, "
                   "default_threshold = CASE WHEN $6::boolean THEN $7::float8 ELSE default_threshold END, "
                   "detect_holes = COALESCE($8::boolean, detect_holes), version = version + 1, updated_at = now() "
                   "WHERE id = $1",
                   8, params, NULL, err);
}

static err_kind_t project_update(http_request_t *req, err_t *err) {
    cJSON *body = NULL;
    pg_conn_t *conn = NULL;
    err_kind_t kind = http_read_json(req, ROUTE_BODY_MAX, false, &body, err);
    if (kind != ERR_OK) {
        return kind;
    }
    project_fields_t f;
    kind = parse_fields(body, &f, err);
    if (kind == ERR_OK) {
        kind = pg_acquire(req->gw->pg, &conn, err);
    }
    if (kind == ERR_OK) {
        kind = pg_begin(conn, err);
    }
    if (kind == ERR_OK) {
        kind = update_locked(req, conn, &f, err);
        if (kind == ERR_OK) {
            kind = pg_commit(conn, err);
        } else {
            pg_rollback(conn);
        }
    }
    pg_release(conn);
    cJSON_Delete(body);
    if (kind != ERR_OK) {
        return kind;
    }
    project_publish(req->gw, req->params[0], "updated");
    return project_reply(req, 200, req->params[0], err);
}

/* Deletes the rows and lists the images that there were. The lock keeps uploads out: an image is either listed or
 * refused because its project is gone. */
static err_kind_t delete_rows(pg_conn_t *conn, const char *user_id, const char *id, PGresult **images, err_t *err) {
    PGresult *res = NULL;
    err_kind_t kind = pg_exec(conn, "SELECT 1 FROM projects WHERE id = $1 AND owner_id = $2 FOR UPDATE", 2,
                              (const char *const[]){id, user_id}, &res, err);
    if (kind == ERR_OK && PQntuples(res) == 0) {
        kind = route_not_found(err, "project");
    }
    PQclear(res);
    if (kind == ERR_OK) {
        kind = pg_exec(conn, "SELECT id FROM images WHERE project_id = $1", 1, &id, images, err);
    }
    if (kind == ERR_OK) {
        kind = pg_exec(conn, "DELETE FROM projects WHERE id = $1", 1, &id, NULL, err);
    }
    return kind;
}

err_kind_t projects_remove(gateway_t *gw, const char *user_id, const char *project_id, err_t *err) {
    PGresult *images = NULL;
    pg_conn_t *conn = NULL;
    int cancelled = 0;
    err_kind_t kind = route_own_project(gw, user_id, project_id, err);
    if (kind == ERR_OK) {
        kind = jobs_cancel_where(gw, JOBS_OF_PROJECT, project_id, &cancelled, err);
    }
    if (kind == ERR_OK) {
        kind = pg_acquire(gw->pg, &conn, err);
    }
    if (kind == ERR_OK) {
        kind = pg_begin(conn, err);
    }
    if (kind == ERR_OK) {
        kind = delete_rows(conn, user_id, project_id, &images, err);
        if (kind == ERR_OK) {
            kind = pg_commit(conn, err);
        } else {
            pg_rollback(conn);
        }
    }
    pg_release(conn);
    if (kind == ERR_OK) {
        for (int i = 0; i < PQntuples(images); i++) {
            err_t ignored = {0};
            if (derivatives_forget(gw->derivatives, pg_get(images, i, "id"), &ignored) != ERR_OK) {
                log_error(LOG_WARN, "files of a deleted image were left behind", &ignored);
            }
        }
        project_publish(gw, project_id, "deleted");
    }
    PQclear(images);
    return kind;
}

static err_kind_t project_delete(http_request_t *req, err_t *err) {
    err_kind_t kind = projects_remove(req->gw, req->user.id, req->params[0], err);
    return kind == ERR_OK ? http_reply_empty(req, 204) : kind;
}

static err_kind_t project_sample(http_request_t *req, err_t *err) {
    char id[37];
    bool created = false;
    err_kind_t kind = sample_create(req->gw, req->user.id, id, &created, err);
    if (kind != ERR_OK) {
        return route_retry_after(req, kind, 5);
    }
    return project_reply(req, created ? 201 : 200, id, err);
}

const http_route_t routes_projects[] = {
    {"GET", "/api/projects", project_list, 0},
    {"POST", "/api/projects", project_create, HTTP_IDEMPOTENT_KEY},
    {"POST", "/api/projects/sample", project_sample, 0},
    {"GET", "/api/projects/{projectId}", project_get, 0},
    {"PATCH", "/api/projects/{projectId}", project_update, 0},
    {"DELETE", "/api/projects/{projectId}", project_delete, 0},
    {NULL, NULL, NULL, 0},
};
