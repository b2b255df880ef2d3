/*
 * The JSON of a Job, see job_json.h. The columns carry the prefix job_, so that they can stand next to an image's.
 */
#include "job_json.h"

#include <math.h>
#include <string.h>

#include "route_util.h"

const char *const JOB_COLUMNS =
    "j.id AS job_id, j.project_id AS job_project_id, j.image_id AS job_image_id, i.name AS job_image_name, "
    "j.state AS job_state, j.seq AS job_seq, j.stage AS job_stage, j.priority AS job_priority, j.model AS job_model, "
    "j.threshold AS job_threshold, j.detect_holes AS job_detect_holes, j.options AS job_options, j.attempt AS "
    "job_attempt, "
    "j.max_attempts AS job_max_attempts, j.error_code AS job_error_code, j.error_message AS job_error_message, "
    "j.object_count AS job_object_count, " ROUTE_TIME("j.created_at") " AS job_created_at, " ROUTE_TIME(
        "j.started_at") " AS job_started_at, " ROUTE_TIME("j.finished_at") " AS job_finished_at";

static void add_number(cJSON *json, const char *key, double v) {
    if (isfinite(v)) {
        cJSON_AddNumberToObject(json, key, v);
    } else {
        cJSON_AddNullToObject(json, key);
    }
}

cJSON *job_json(queue_t *q, const PGresult *res, int row, bool live) {
    cJSON *json = cJSON_CreateObject();
    if (!json) {
        return NULL;
    }
    const char *id = pg_get(res, row, "job_id");
    const char *state = pg_get(res, row, "job_state");
    const char *model = pg_get(res, row, "job_model");
    if (!id || !state || !model) {
        cJSON_Delete(json);
        return NULL;
    }
    const int priority = (int)pg_get_int(res, row, "job_priority", 5);
    const char *stage = pg_get(res, row, "job_stage");
    char live_stage[24] = "";
    double progress = strcmp(state, "completed") == 0 ? 1.0 : 0.0;
    int64_t seq = pg_get_int(res, row, "job_seq", 1), live_seq = 0;
    int position = -1;
    double eta = NAN;
    if (live && strcmp(state, "active") == 0) {
        double live_progress = 0;
        /* A leftover of an earlier attempt has a smaller number and is not believed. */
        if (queue_progress(q, id, &live_progress, live_stage, &live_seq) && live_seq >= seq) {
            seq = live_seq;
            progress = live_progress;
            stage = live_stage;
        }
        eta = queue_eta_active(q, model, progress);
    } else if (live && strcmp(state, "queued") == 0) {
        position = queue_position(q, id, model, priority);
        eta = queue_eta_waiting(q, model, position);
    }

    cJSON_AddStringToObject(json, "id", id);
    route_add_text(json, "projectId", pg_get(res, row, "job_project_id"));
    route_add_text(json, "imageId", pg_get(res, row, "job_image_id"));
    const char *image_name = pg_get(res, row, "job_image_name");
    if (image_name) {
        cJSON_AddStringToObject(json, "imageName", image_name);
    }
    cJSON_AddStringToObject(json, "state", state);
    cJSON_AddNumberToObject(json, "seq", (double)seq);
    cJSON_AddStringToObject(json, "stage", stage ? stage : "");
    cJSON_AddNumberToObject(json, "progress", fmin(1.0, fmax(0.0, progress)));
    cJSON_AddNumberToObject(json, "priority", priority);
    cJSON_AddStringToObject(json, "model", model);
    add_number(json, "threshold", pg_get_real(res, row, "job_threshold", NAN));
    cJSON_AddBoolToObject(json, "detectHoles", pg_get_bool(res, row, "job_detect_holes"));
    const char *options = pg_get(res, row, "job_options");
    cJSON_AddRawToObject(json, "options", options ? options : "{}");
    cJSON_AddNumberToObject(json, "attempt", (double)pg_get_int(res, row, "job_attempt", 0));
    cJSON_AddNumberToObject(json, "maxAttempts", (double)pg_get_int(res, row, "job_max_attempts", 3));
    add_number(json, "position", position >= 0 ? position : NAN);
    add_number(json, "etaSeconds", eta);
    const char *code = pg_get(res, row, "job_error_code");
    if (code) {
        const char *message = pg_get(res, row, "job_error_message");
        cJSON *error = cJSON_AddObjectToObject(json, "error");
        cJSON_AddStringToObject(error, "code", code);
        cJSON_AddStringToObject(error, "message", message ? message : "");
    } else {
        cJSON_AddNullToObject(json, "error");
    }
    const int64_t objects = pg_get_int(res, row, "job_object_count", -1);
    add_number(json, "objectCount", objects >= 0 ? (double)objects : NAN);
    route_add_text(json, "createdAt", pg_get(res, row, "job_created_at"));
    route_add_text(json, "startedAt", pg_get(res, row, "job_started_at"));
    route_add_text(json, "finishedAt", pg_get(res, row, "job_finished_at"));
    return json;
}
