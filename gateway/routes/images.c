/*
 * Images: list, read, original file, delete. Uploading is in upload.c and upload_route.c.
 */
#include "images.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/events.h"
#include "common/image/image.h"
#include "common/log.h"
#include "common/timeutil.h"
#include "gateway/derivatives.h"
#include "job_json.h"
#include "jobs.h"
#include "route_util.h"
#include "upload.h"

/* Active jobs of one list whose progress Redis is asked for, and for how long in all; the others show their stored
 * state. */
enum { LIVE_MAX = 64, LIVE_MS = 250 };

#define IMAGE_FROM                                                                                                     \
    " FROM images i JOIN projects p ON p.id = i.project_id LEFT JOIN jobs j ON j.id = i.latest_job_id "                \
    "LEFT JOIN segmentations s ON s.id = i.current_segmentation_id "
#define IMAGE_COLUMNS                                                                                                  \
    "i.id, i.project_id, i.name, i.format, i.byte_size, encode(i.sha256, 'hex') AS sha256, i.width, i.height, "        \
    "i.bit_depth, i.channels, i.pages, i.plane_channels, i.slices, i.times, i.pixel_size_um, " ROUTE_TIME(             \
        "i.created_at") " AS created_at, "                                                                             \
                        "s.object_count AS result_objects"

static void add_count(cJSON *json, const PGresult *res, int row, const char *key, const char *column) {
    cJSON_AddNumberToObject(json, key, (double)pg_get_int(res, row, column, 0));
}

cJSON *image_json(queue_t *q, const PGresult *res, int row, bool live) {
    cJSON *json = cJSON_CreateObject();
    if (!json) {
        return NULL;
    }
    route_add_text(json, "id", pg_get(res, row, "id"));
    route_add_text(json, "projectId", pg_get(res, row, "project_id"));
    route_add_text(json, "name", pg_get(res, row, "name"));
    route_add_text(json, "format", pg_get(res, row, "format"));
    add_count(json, res, row, "byteSize", "byte_size");
    route_add_text(json, "sha256", pg_get(res, row, "sha256"));
    add_count(json, res, row, "width", "width");
    add_count(json, res, row, "height", "height");
    add_count(json, res, row, "bitDepth", "bit_depth");
    add_count(json, res, row, "channels", "channels");
    add_count(json, res, row, "pages", "pages");
    if (pg_get(res, row, "plane_channels")) {
        cJSON *planes = cJSON_AddObjectToObject(json, "planes");
        add_count(planes, res, row, "channels", "plane_channels");
        add_count(planes, res, row, "slices", "slices");
        add_count(planes, res, row, "times", "times");
    } else {
        cJSON_AddNullToObject(json, "planes");
    }
    const double pixel = pg_get_real(res, row, "pixel_size_um", NAN);
    if (isfinite(pixel)) {
        cJSON_AddNumberToObject(json, "pixelSizeUm", pixel);
    } else {
        cJSON_AddNullToObject(json, "pixelSizeUm");
    }
    if (pg_get(res, row, "result_objects")) {
        add_count(json, res, row, "objectCount", "result_objects");
    } else {
        cJSON_AddNullToObject(json, "objectCount");
    }
    cJSON *job = pg_get(res, row, "job_id") ? job_json(q, res, row, live) : NULL;
    cJSON_AddItemToObject(json, "job", job ? job : cJSON_CreateNull());
    route_add_text(json, "createdAt", pg_get(res, row, "created_at"));
    return json;
}

void images_publish(gateway_t *gw, const char *project_id, const char *image_id, const char *change) {
    char json[256];
    snprintf(json, sizeof json, "{\"type\":\"image\",\"projectId\":\"%s\",\"imageId\":\"%s\",\"change\":\"%s\"}",
             project_id, image_id, change);
    events_publish(gw->rds, project_id, json);
}

static const char *image_select(http_request_t *req, const char *where, err_t *err) {
    const char *sql = arena_printf(req->arena, "SELECT " IMAGE_COLUMNS ", %s" IMAGE_FROM "%s", JOB_COLUMNS, where);
    if (!sql) {
        (void)err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    return sql;
}

static err_kind_t found_one(err_kind_t kind, PGresult **res, err_t *err) {
    if (kind == ERR_OK && PQntuples(*res) == 0) {
        PQclear(*res);
        *res = NULL;
        return route_not_found(err, "image");
    }
    return kind;
}

err_kind_t images_reply(http_request_t *req, int status, const char *image_id, err_t *err) {
    PGresult *res = NULL;
    const char *sql = image_select(req, "WHERE i.id = $1 AND p.owner_id = $2", err);
    if (!sql) {
        return ERR_NO_MEMORY;
    }
    err_kind_t kind = pg_query(req->gw->pg, sql, 2, (const char *const[]){image_id, req->user.id}, &res, err);
    kind = found_one(kind, &res, err);
    if (kind == ERR_OK) {
        cJSON *json = image_json(req->gw->queue, res, 0, true);
        kind = json ? route_reply_hashed(req, status, json, 0)
                    : err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    PQclear(res);
    return kind;
}

err_kind_t images_find_file(http_request_t *req, const char *image_id, PGresult **res, err_t *err) {
    *res = NULL;
    err_kind_t kind = pg_query(req->gw->pg,
                               "SELECT i.id, i.project_id, i.name, i.format, i.storage_key, i.width, i.height, "
                               "i.pixel_size_um, i.current_segmentation_id, encode(i.sha256, 'hex') AS sha256 FROM "
                               "images i JOIN projects p ON p.id = i.project_id WHERE i.id = $1 AND p.owner_id = $2",
                               2, (const char *const[]){image_id, req->user.id}, res, err);
    return found_one(kind, res, err);
}

/* The page and the number of images in the project, in one snapshot. */
static err_kind_t image_list(http_request_t *req, err_t *err) {
    static const char where[] = "WHERE i.project_id = $1 AND ($2::timestamptz IS NULL OR (i.created_at, i.id) < "
                                "($2::timestamptz, $3::uuid)) ORDER BY i.created_at DESC, i.id DESC LIMIT $4::int";
    route_page_t page;
    PGresult *total = NULL, *res = NULL;
    err_kind_t kind = route_page_parse(req, &page, err);
    if (kind == ERR_OK) {
        kind = pg_query(req->gw->pg,
                        "SELECT (SELECT count(*) FROM images i WHERE i.project_id = p.id) AS n FROM projects p WHERE "
                        "p.id = $1 AND p.owner_id = $2",
                        2, (const char *const[]){req->params[0], req->user.id}, &total, err);
    }
    if (kind == ERR_OK && PQntuples(total) == 0) {
        kind = route_not_found(err, "project");
    }
    const char *sql = kind == ERR_OK ? image_select(req, where, err) : NULL;
    if (kind == ERR_OK && !sql) {
        kind = ERR_NO_MEMORY;
    }
    if (kind == ERR_OK) {
        kind =
            pg_query(req->gw->pg, sql, 4,
                     (const char *const[]){req->params[0], page.created_at, page.id, page.limit_plus_one}, &res, err);
    }
    if (kind == ERR_OK) {
        cJSON *json = cJSON_CreateObject();
        cJSON *items = cJSON_AddArrayToObject(json, "items");
        int live = 0;
        const int64_t until = time_mono_ms() + LIVE_MS;
        for (int i = 0; i < PQntuples(res) && i < page.limit; i++) {
            const char *state = pg_get(res, i, "job_state");
            const bool active = state && strcmp(state, "active") == 0 && live++ < LIVE_MAX && time_mono_ms() < until;
            cJSON_AddItemToArray(items, image_json(req->gw->queue, res, i, active));
        }
        route_page_next(req, &page, res, "created_at", "id", json);
        cJSON_AddNumberToObject(json, "total", (double)pg_get_int(total, 0, "n", 0));
        kind = http_reply_json(req, 200, json);
    }
    PQclear(total);
    PQclear(res);
    return kind;
}

static err_kind_t image_get(http_request_t *req, err_t *err) {
    return images_reply(req, 200, req->params[0], err);
}

static image_format_t format_by_name(const char *name) {
    static const image_format_t all[] = {IMAGE_PNG, IMAGE_JPEG, IMAGE_TIFF, IMAGE_BMP, IMAGE_GIF, IMAGE_WEBP};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(image_format_name(all[i]), name) == 0) {
            return all[i];
        }
    }
    return IMAGE_UNKNOWN;
}

static err_kind_t image_original(http_request_t *req, err_t *err) {
    PGresult *res = NULL;
    int fd = -1;
    int64_t size = 0;
    err_kind_t kind = images_find_file(req, req->params[0], &res, err);
    if (kind == ERR_OK) {
        kind = storage_get(req->gw->storage, pg_get(res, 0, "storage_key"), &fd, &size, err);
    }
    if (kind == ERR_OK) {
        const image_format_t format = format_by_name(pg_get(res, 0, "format"));
        const char *type = format == IMAGE_UNKNOWN ? "application/octet-stream" : image_format_mime(format);
        kind = http_reply_fd(req, type, fd, size, pg_get(res, 0, "sha256"), pg_get(res, 0, "name"));
    }
    PQclear(res);
    return kind;
}

static err_kind_t image_delete(http_request_t *req, err_t *err) {
    gateway_t *gw = req->gw;
    const char *const id = req->params[0];
    PGresult *res = NULL, *gone = NULL;
    int cancelled = 0;
    err_kind_t kind = images_find_file(req, id, &res, err);
    if (kind == ERR_OK) {
        kind = jobs_cancel_where(gw, JOBS_OF_IMAGE, id, &cancelled, err);
    }
    if (kind == ERR_OK) {
        kind = pg_query(
            gw->pg, "DELETE FROM images i USING projects p WHERE i.id = $1 AND p.id = i.project_id AND p.owner_id = $2",
            2, (const char *const[]){id, req->user.id}, &gone, err);
    }
    if (kind == ERR_OK && pg_affected(gone) == 0) {
        kind = route_not_found(err, "image");
    }
    if (kind == ERR_OK) {
        err_t ignored = {0};
        if (derivatives_forget(gw->derivatives, id, &ignored) != ERR_OK) {
            log_error(LOG_WARN, "files of a deleted image were left behind", &ignored);
        }
        images_publish(gw, pg_get(res, 0, "project_id"), id, "deleted");
        kind = http_reply_empty(req, 204);
    }
    PQclear(gone);
    PQclear(res);
    return kind;
}

const http_route_t routes_images[] = {
    {"GET", "/api/projects/{projectId}/images", image_list, 0},
    {"POST", "/api/projects/{projectId}/images", upload_route, HTTP_IDEMPOTENT_KEY},
    {"GET", "/api/images/{imageId}", image_get, 0},
    {"DELETE", "/api/images/{imageId}", image_delete, 0},
    {"GET", "/api/images/{imageId}/original", image_original, 0},
    {NULL, NULL, NULL, 0},
};
