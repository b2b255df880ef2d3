/*
 * Thumbnails and deep-zoom tiles. What belongs to an image never changes, so browsers may keep it; the ETag is the
 * hash of the original.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/derivatives.h"
#include "images.h"
#include "route_util.h"

static err_kind_t reply_object(http_request_t *req, const char *key, const char *sha256, const char *kind_of_file,
                               err_t *err) {
    int fd = -1;
    int64_t size = 0;
    err_kind_t kind = storage_get(req->gw->storage, key, &fd, &size, err);
    if (kind != ERR_OK) {
        return kind;
    }
    const char *etag = arena_printf(req->arena, "%.32s-%s", sha256, kind_of_file);
    http_add_header(req, "Cache-Control", "private, max-age=86400, immutable");
    return http_reply_fd(req, "image/jpeg", fd, size, etag, NULL);
}

static err_kind_t image_thumbnail(http_request_t *req, err_t *err) {
    PGresult *res = NULL;
    char key[DERIVATIVES_KEY_ROOM];
    err_kind_t kind = images_find_file(req, req->params[0], &res, err);
    if (kind == ERR_OK) {
        kind =
            derivatives_thumbnail(req->gw->derivatives, pg_get(res, 0, "id"), pg_get(res, 0, "storage_key"), key, err);
    }
    if (kind == ERR_OK) {
        kind = reply_object(req, key, pg_get(res, 0, "sha256"), "thumbnail", err);
    }
    PQclear(res);
    return route_retry_after(req, kind, 3);
}

static err_kind_t tile_info(http_request_t *req, err_t *err) {
    PGresult *res = NULL;
    err_kind_t kind = images_find_file(req, req->params[0], &res, err);
    if (kind == ERR_OK) {
        const int width = (int)pg_get_int(res, 0, "width", 1), height = (int)pg_get_int(res, 0, "height", 1);
        cJSON *json = cJSON_CreateObject();
        cJSON_AddNumberToObject(json, "width", width);
        cJSON_AddNumberToObject(json, "height", height);
        cJSON_AddNumberToObject(json, "tileSize", DERIVATIVES_TILE);
        cJSON_AddNumberToObject(json, "maxLevel", derivatives_max_level(width, height));
        kind = route_reply_hashed(req, 200, json, 0);
    }
    PQclear(res);
    return kind;
}

/* A whole number without sign; -1 for anything else, which no pyramid has. */
static int tile_number(const char *text) {
    char *end = NULL;
    errno = 0;
    const long v = strtol(text, &end, 10);
    const bool plain = text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0;
    return plain && v <= 1000000 ? (int)v : -1;
}

static err_kind_t image_tile(http_request_t *req, err_t *err) {
    PGresult *res = NULL;
    char key[DERIVATIVES_KEY_ROOM];
    const int level = tile_number(req->params[1]), column = tile_number(req->params[2]),
              row = tile_number(req->params[3]);
    err_kind_t kind = images_find_file(req, req->params[0], &res, err);
    if (kind == ERR_OK) {
        kind = derivatives_tile(req->gw->derivatives, pg_get(res, 0, "id"), pg_get(res, 0, "storage_key"),
                                (int)pg_get_int(res, 0, "width", 1), (int)pg_get_int(res, 0, "height", 1), level,
                                column, row, key, err);
    }
    if (kind == ERR_OK) {
        const char *name = arena_printf(req->arena, "%d-%d-%d", level, column, row);
        kind = name ? reply_object(req, key, pg_get(res, 0, "sha256"), name, err)
                    : err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    PQclear(res);
    return route_retry_after(req, kind, 3);
}

const http_route_t routes_tiles[] = {
    {"GET", "/api/images/{imageId}/thumbnail", image_thumbnail, 0},
    {"GET", "/api/images/{imageId}/tiles", tile_info, 0},
    {"GET", "/api/images/{imageId}/tiles/{level}/{column}/{row}", image_tile, 0},
    {NULL, NULL, NULL, 0},
};
