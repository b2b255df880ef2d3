/*
 * Models: what workers have registered, which of them a live worker offers now, and pausing them.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "route_util.h"

/* Names of the models that live workers offer, as the queue's status tells; NULL when that is not known now. */
static cJSON *read_workers(http_request_t *req) {
    char *text = NULL;
    err_t err = {0};
    if (queue_status_json(req->gw->queue, &text, &err) != ERR_OK) {
        log_error(LOG_WARN, "it is not known which models are available", &err);
        return NULL;
    }
    cJSON *status = cJSON_Parse(text);
    free(text);
    return status;
}

static bool is_offered(const cJSON *status, const char *model) {
    const cJSON *worker = NULL, *name = NULL;
    cJSON_ArrayForEach(worker, cJSON_GetObjectItemCaseSensitive(status, "workers")) {
        cJSON_ArrayForEach(name, cJSON_GetObjectItemCaseSensitive(worker, "models")) {
            if (cJSON_IsString(name) && strcmp(name->valuestring, model) == 0) {
                return true;
            }
        }
    }
    return false;
}

static cJSON *model_json(const PGresult *res, int row, const cJSON *status) {
    cJSON *json = cJSON_CreateObject();
    const char *name = pg_get(res, row, "name");
    route_add_text(json, "name", name);
    route_add_text(json, "version", pg_get(res, row, "version"));
    route_add_text(json, "title", pg_get(res, row, "title"));
    route_add_text(json, "description", pg_get(res, row, "description"));
    cJSON_AddNumberToObject(json, "threshold", pg_get_real(res, row, "threshold", 0.5));
    route_add_text(json, "sha256", pg_get(res, row, "sha256"));
    const char *scores = pg_get(res, row, "scores");
    cJSON *parsed = scores ? cJSON_Parse(scores) : NULL;
    if (cJSON_IsObject(parsed)) {
        cJSON_AddItemToObject(json, "scores", parsed);
    } else {
        cJSON_Delete(parsed);
    }
    const char *options = pg_get(res, row, "options");
    if (options && strcmp(options, "{}") != 0) {
        cJSON_AddRawToObject(json, "options", options);
    }
    cJSON_AddBoolToObject(json, "paused", pg_get_bool(res, row, "paused"));
    if (status) {
        cJSON_AddBoolToObject(json, "available", is_offered(status, name));
    }
    return json;
}

#define MODEL_COLUMNS                                                                                                  \
    "name, version, title, description, sha256, paused, options, manifest->'scores' AS scores, CASE WHEN "             \
    "jsonb_typeof(manifest#>'{postprocess,threshold}') = 'number' THEN "                                               \
    "(manifest#>>'{postprocess,threshold}')::float8 END AS threshold"

/* What an operator may do: pause and resume. Answers with the model as it is then. */
static err_kind_t set_paused(http_request_t *req, bool paused, err_t *err) {
    if (!req->user.is_admin) {
        return err_set(err, ERR_FORBIDDEN, "admin_only", "Only an administrator may pause or resume a model.", NULL);
    }
    err_kind_t kind = queue_pause_model(req->gw->queue, req->params[0], paused, err);
    PGresult *res = NULL;
    if (kind == ERR_OK) {
        kind = pg_query(req->gw->pg, "SELECT " MODEL_COLUMNS " FROM models WHERE name = $1", 1,
                        (const char *const[]){req->params[0]}, &res, err);
    }
    if (kind == ERR_OK && PQntuples(res) == 0) {
        kind = route_not_found(err, "model");
    }
    if (kind == ERR_OK) {
        cJSON *status = read_workers(req);
        cJSON *json = model_json(res, 0, status);
        cJSON_Delete(status);
        kind = http_reply_json(req, 200, json);
    }
    PQclear(res);
    return kind;
}

static err_kind_t model_pause(http_request_t *req, err_t *err) {
    return set_paused(req, true, err);
}

static err_kind_t model_resume(http_request_t *req, err_t *err) {
    return set_paused(req, false, err);
}

static err_kind_t model_list(http_request_t *req, err_t *err) {
    PGresult *res = NULL;
    err_kind_t kind =
        pg_query(req->gw->pg,
                 "SELECT " MODEL_COLUMNS
                 " FROM models ORDER BY COALESCE(manifest #>> '{output,kind}', '') = 'classical', name LIMIT 256",
                 0, NULL, &res, err);
    if (kind != ERR_OK) {
        return kind;
    }
    cJSON *status = PQntuples(res) > 0 ? read_workers(req) : NULL;
    cJSON *json = cJSON_CreateObject();
    cJSON *items = cJSON_AddArrayToObject(json, "items");
    for (int i = 0; i < PQntuples(res); i++) {
        cJSON_AddItemToArray(items, model_json(res, i, status));
    }
    cJSON_Delete(status);
    PQclear(res);
    return http_reply_json(req, 200, json);
}

const http_route_t routes_models[] = {
    {"GET", "/api/models", model_list, 0},
    {"POST", "/api/models/{name}/pause", model_pause, 0},
    {"POST", "/api/models/{name}/resume", model_resume, 0},
    {NULL, NULL, NULL, 0},
};
