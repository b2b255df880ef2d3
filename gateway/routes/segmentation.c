/*
 * Segmentation of one image: its result, and the routing table of everything under "segmentation".
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "images.h"
#include "jobs.h"
#include "route_util.h"
#include "submit_one.h"

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
    cJSON_AddRawToObject(json, "options", pg_get(res, 0, "options"));
    cJSON_AddNumberToObject(json, "width", (double)pg_get_int(res, 0, "width", 0));
    cJSON_AddNumberToObject(json, "height", (double)pg_get_int(res, 0, "height", 0));
    cJSON_AddNumberToObject(json, "objectCount", (double)pg_get_int(res, 0, "object_count", 0));
    cJSON_AddBoolToObject(json, "cached", pg_get_bool(res, 0, "cached"));
    route_add_text(json, "note", pg_get(res, 0, "note"));
    route_add_text(json, "createdAt", pg_get(res, 0, "created_at"));
    return json;
}

static err_kind_t image_result(http_request_t *req, err_t *err) {
    PGresult *res = NULL;
    err_kind_t kind = pg_query(
        req->gw->pg,
        "SELECT s.id, i.id AS image_id, s.job_id, s.model, s.model_version, s.model_sha256, s.threshold, "
        "s.detect_holes, s.options, s.width, s.height, s.object_count, s.note, s.cached_from IS NOT NULL AS "
        "cached, " ROUTE_TIME(
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
    {"POST", "/api/images/{imageId}/segmentation", submit_one_route, 0},
    {"GET", "/api/images/{imageId}/segmentation", image_result, 0},
    {"POST", "/api/projects/{projectId}/segmentation", batch_segment, HTTP_IDEMPOTENT_KEY},
    {"POST", "/api/projects/{projectId}/segmentation/cancel", jobs_cancel_project, 0},
    {"POST", "/api/projects/{projectId}/segmentation/retry-failed", jobs_retry_project, 0},
    {"GET", "/api/segmentation/jobs", jobs_list, 0},
    {"GET", "/api/segmentation/job/{jobId}", jobs_get, 0},
    {"DELETE", "/api/segmentation/job/{jobId}", jobs_cancel, 0},
    {"POST", "/api/segmentation/job/{jobId}/retry", jobs_retry, 0},
    {"GET", "/api/segmentation/job/{jobId}/preview", preview_get, 0},
    {"GET", "/api/segmentation/queue/status", queue_status, 0},
    {NULL, NULL, NULL, 0},
};
