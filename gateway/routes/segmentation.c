/*
 * Segmentation of one image: trigger and result, and the routing table of everything under "segmentation".
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "images.h"
#include "jobs.h"
#include "route_util.h"
#include "submit.h"

static err_kind_t accept_one(http_request_t *req, const submit_request_t *sr, submit_result_t *job, err_t *err) {
    gateway_t *gw = req->gw;
    PGresult *res = NULL;
    pg_conn_t *conn = NULL;
    bool done = false;
    err_kind_t kind = pg_acquire(gw->pg, &conn, err);
    if (kind == ERR_OK) {
        kind = submit_image_fast(gw, conn, req->user.id, req->params[0], sr, job, &done, err);
        if (kind != ERR_OK || done) {
            pg_release(conn);
            return kind;
        }
    }
    if (kind == ERR_OK) {
        kind =
            pg_exec(conn,
                    "SELECT p.id, EXISTS (SELECT 1 FROM jobs j WHERE j.image_id = i.id AND j.state IN ('queued', "
                    "'active', 'delayed')) AS busy FROM images i JOIN projects p ON p.id = i.project_id WHERE i.id = "
                    "$1 AND p.owner_id = $2",
                    2, (const char *const[]){req->params[0], req->user.id}, &res, err);
    }
    if (kind == ERR_OK && PQntuples(res) == 0) {
        kind = route_not_found(err, "image");
    }
    if (kind == ERR_OK) {
        /* An image that has an unfinished job gets no further one, so a full queue is no reason to refuse. */
        const int wanted = pg_get_bool(res, 0, "busy") ? 0 : 1;
        kind = submit_check(gw, conn, req->user.id, pg_get(res, 0, "id"), sr, wanted, err);
    }
    if (kind == ERR_OK) {
        kind = submit_image(gw, conn, req->user.id, req->params[0], sr, job, err);
    }
    PQclear(res);
    pg_release(conn);
    return kind;
}

static err_kind_t image_segment(http_request_t *req, err_t *err) {
    cJSON *body = NULL;
    submit_request_t sr;
    submit_result_t job;
    err_kind_t kind = http_read_json(req, ROUTE_BODY_MAX, true, &body, err);
    if (kind == ERR_OK) {
        kind = submit_parse(body, &sr, err);
    }
    if (kind == ERR_OK) {
        kind = accept_one(req, &sr, &job, err);
    }
    cJSON_Delete(body);
    if (kind != ERR_OK) {
        return route_retry_after(req, kind, 5);
    }
    int position = -1;
    submit_enqueue(req->gw, &job, &position);
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "jobId", job.job_id);
    cJSON_AddStringToObject(json, "imageId", job.image_id);
    cJSON_AddStringToObject(json, "state", job.state);
    if (position >= 0) {
        cJSON_AddNumberToObject(json, "position", position);
    } else {
        cJSON_AddNullToObject(json, "position");
    }
    cJSON_AddBoolToObject(json, "existing", job.existing);
    const char *location = arena_printf(req->arena, "/api/segmentation/job/%s", job.job_id);
    if (location) {
        http_add_header(req, "Location", location);
    }
    return http_reply_json(req, 202, json);
}

static cJSON *segmentation_json(const PGresult *res) {
    cJSON *json = cJSON_CreateObject();
    route_add_text(json, "id", pg_get(res, 0, "id"));
    route_add_text(json, "imageId", pg_get(res, 0, "image_id"));
    route_add_text(json, "jobId", pg_get(res, 0, "job_id"));
    route_add_text(json, "model", pg_get(res, 0, "model"));
    route_add_text(json, "modelVersion", pg_get(res, 0, "model_version"));
    route_add_text(json, "modelSha256", pg_get(res, 0, "model_sha256"));
    cJSON_AddNumberToObject(json, "threshold", pg_get_real(res, 0, "threshold", 0));
    cJSON_AddBoolToObject(json, "detectHoles", pg_get_bool(res, 0, "detect_holes"));
    cJSON_AddNumberToObject(json, "width", (double)pg_get_int(res, 0, "width", 0));
    cJSON_AddNumberToObject(json, "height", (double)pg_get_int(res, 0, "height", 0));
    cJSON_AddNumberToObject(json, "objectCount", (double)pg_get_int(res, 0, "object_count", 0));
    route_add_text(json, "note", pg_get(res, 0, "note"));
    route_add_text(json, "createdAt", pg_get(res, 0, "created_at"));
    return json;
}

static err_kind_t image_result(http_request_t *req, err_t *err) {
    PGresult *res = NULL;
    err_kind_t kind = pg_query(
        req->gw->pg,
        "SELECT s.id, i.id AS image_id, s.job_id, s.model, s.model_version, s.model_sha256, s.threshold, "
        "s.detect_holes, s.width, s.height, s.object_count, s.note, " ROUTE_TIME(
            "s.created_at") " AS created_at "
                            "FROM images i JOIN projects p ON p.id = i.project_id LEFT JOIN segmentations s ON s.id = "
                            "i.current_segmentation_id WHERE i.id = $1 AND p.owner_id = $2",
        2, (const char *const[]){req->params[0], req->user.id}, &res, err);
    if (kind == ERR_OK && PQntuples(res) == 0) {
        kind = route_not_found(err, "image");
    } else if (kind == ERR_OK && !pg_get(res, 0, "id")) {
        kind = err_set(err, ERR_NOT_FOUND, "not_segmented", "This image has no result yet.", NULL);
    } else if (kind == ERR_OK) {
        kind = route_reply_hashed(req, 200, segmentation_json(res), 0);
    }
    PQclear(res);
    return kind;
}

static err_kind_t queue_status(http_request_t *req, err_t *err) {
    char *json = NULL;
    err_kind_t kind = queue_status_json(req->gw->queue, &json, err);
    if (kind == ERR_OK) {
        kind = http_reply_text(req, 200, "application/json", json, strlen(json));
        free(json);
    }
    return kind;
}

const http_route_t routes_segmentation[] = {
    {"POST", "/api/images/{imageId}/segmentation", image_segment, HTTP_IDEMPOTENT_KEY},
    {"GET", "/api/images/{imageId}/segmentation", image_result, 0},
    {"POST", "/api/projects/{projectId}/segmentation", batch_segment, HTTP_IDEMPOTENT_KEY},
    {"POST", "/api/projects/{projectId}/segmentation/cancel", jobs_cancel_project, 0},
    {"POST", "/api/projects/{projectId}/segmentation/retry-failed", jobs_retry_project, 0},
    {"GET", "/api/segmentation/jobs", jobs_list, 0},
    {"GET", "/api/segmentation/job/{jobId}", jobs_get, 0},
    {"DELETE", "/api/segmentation/job/{jobId}", jobs_cancel, 0},
    {"POST", "/api/segmentation/job/{jobId}/retry", jobs_retry, 0},
    {"GET", "/api/segmentation/queue/status", queue_status, 0},
    {NULL, NULL, NULL, 0},
};
