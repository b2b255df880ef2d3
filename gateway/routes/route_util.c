/*
 * Helpers of the resource files, see route_util.h.
 */
#include "route_util.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/timeutil.h"
#include "common/utf8.h"

err_kind_t route_not_found(err_t *err, const char *what) {
    return err_setf(err, ERR_NOT_FOUND, "not_found", "There is no such %s here.", what);
}

err_kind_t route_retry_after(http_request_t *req, err_kind_t kind, int seconds) {
    if (kind == ERR_LIMIT || kind == ERR_UNAVAILABLE) {
        char text[16];
        snprintf(text, sizeof text, "%d", seconds);
        http_add_header(req, "Retry-After", text);
    }
    return kind;
}

err_kind_t route_own_project(gateway_t *gw, const char *user_id, const char *project_id, err_t *err) {
    PGresult *res = NULL;
    err_kind_t kind = pg_query(gw->pg, "SELECT 1 FROM projects WHERE id = $1 AND owner_id = $2", 2,
                               (const char *const[]){project_id, user_id}, &res, err);
    if (kind == ERR_OK && PQntuples(res) == 0) {
        kind = route_not_found(err, "project");
    }
    PQclear(res);
    return kind;
}

/* ---- bodies ---- */

static size_t characters(const char *s) {
    size_t n = 0;
    for (; *s; s++) {
        n += ((unsigned char)*s & 0xC0U) != 0x80U;
    }
    return n;
}

err_kind_t route_field_text(const cJSON *body, const char *key, size_t min, size_t max, bool nullable, bool *present,
                            const char **out, err_t *err) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(body, key);
    if (present) {
        *present = item != NULL;
    }
    if (!item) {
        return ERR_OK;
    }
    if (nullable && cJSON_IsNull(item)) {
        *out = NULL;
        return ERR_OK;
    }
    if (!cJSON_IsString(item) || !utf8_is_valid(item->valuestring, strlen(item->valuestring)) ||
        characters(item->valuestring) < min || characters(item->valuestring) > max) {
        return err_setf(err, ERR_INVALID, "field_invalid", "%s must be a text of %zu to %zu characters.", key, min,
                        max);
    }
    *out = item->valuestring;
    return ERR_OK;
}

err_kind_t route_field_number(const cJSON *body, const char *key, double min, double max, bool whole, bool nullable,
                              bool *present, double *out, err_t *err) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(body, key);
    if (present) {
        *present = item != NULL;
    }
    if (!item) {
        return ERR_OK;
    }
    if (nullable && cJSON_IsNull(item)) {
        *out = NAN;
        return ERR_OK;
    }
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= min && item->valuedouble <= max) ||
        (whole && floor(item->valuedouble) != item->valuedouble)) {
        return err_setf(err, ERR_INVALID, "field_invalid", "%s must be a %snumber from %g to %g.", key,
                        whole ? "whole " : "", min, max);
    }
    *out = item->valuedouble;
    return ERR_OK;
}

err_kind_t route_field_bool(const cJSON *body, const char *key, bool *present, bool *out, err_t *err) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(body, key);
    if (present) {
        *present = item != NULL;
    }
    if (!item) {
        return ERR_OK;
    }
    if (!cJSON_IsBool(item)) {
        return err_setf(err, ERR_INVALID, "field_invalid", "%s must be true or false.", key);
    }
    *out = cJSON_IsTrue(item);
    return ERR_OK;
}

err_kind_t route_only_fields(const cJSON *body, const char *const *known, err_t *err) {
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, body) {
        bool found = false;
        for (const char *const *k = known; *k && !found; k++) {
            found = strcmp(item->string, *k) == 0;
        }
        if (!found) {
            bool printable = utf8_is_valid(item->string, strlen(item->string)) && strlen(item->string) <= 64;
            return err_setf(err, ERR_INVALID, "field_unknown", "There is no field \"%s\" here.",
                            printable ? item->string : "…");
        }
    }
    return ERR_OK;
}

/* ---- lists ---- */

/* A cursor is made by us, but nobody has to send back what we made: only this exact shape goes to the database. */
static bool is_cursor_time(const char *s) {
    static const char shape[] = "dddd-dd-ddTdd:dd:dd.ddddddZ";
    if (strlen(s) != sizeof shape - 1) {
        return false;
    }
    for (size_t i = 0; i < sizeof shape - 1; i++) {
        if (shape[i] == 'd' ? !isdigit((unsigned char)s[i]) : s[i] != shape[i]) {
            return false;
        }
    }
    int64_t ms = 0;
    return strncmp(s, "0000", 4) != 0 && time_parse_rfc3339(s, &ms);
}

err_kind_t route_page_parse(http_request_t *req, route_page_t *page, err_t *err) {
    memset(page, 0, sizeof *page);
    int64_t limit = 0;
    err_kind_t kind = http_query_int(req, "limit", ROUTE_PAGE_DEFAULT, 1, ROUTE_PAGE_MAX, &limit, err);
    if (kind != ERR_OK) {
        return kind;
    }
    page->limit = (int)limit;
    snprintf(page->limit_plus_one, sizeof page->limit_plus_one, "%d", page->limit + 1);
    const char *after = http_query(req, "after");
    if (!after || !*after) {
        return ERR_OK;
    }
    char created_at[64], id[37];
    kind = http_cursor_parse(req, after, created_at, id, err);
    if (kind != ERR_OK) {
        return kind;
    }
    if (!is_cursor_time(created_at) || !pg_is_uuid(id)) {
        return err_set(err, ERR_INVALID, "parameter_invalid", "after must be a nextAfter that the list before gave.",
                       NULL);
    }
    page->created_at = arena_strdup(req->arena, created_at);
    page->id = arena_strdup(req->arena, id);
    return page->created_at && page->id
               ? ERR_OK
               : err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
}

void route_page_next(http_request_t *req, const route_page_t *page, const PGresult *res, const char *created_column,
                     const char *id_column, cJSON *json) {
    const char *next = NULL;
    if (PQntuples(res) > page->limit) {
        const int last = page->limit - 1;
        next = http_cursor_make(req, pg_get(res, last, created_column), pg_get(res, last, id_column));
    }
    route_add_text(json, "nextAfter", next);
}

/* ---- answers ---- */

uint64_t route_hash(const void *data, size_t n, uint64_t seed) {
    const unsigned char *p = data;
    uint64_t h = 14695981039346656037ULL ^ seed;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ p[i]) * 1099511628211ULL;
    }
    return h;
}

err_kind_t route_reply_hashed(http_request_t *req, int status, cJSON *json, int64_t version) {
    char *text = cJSON_PrintUnformatted(json);
    if (!text) {
        return http_reply_json(req, status, json);
    }
    char etag[64];
    const uint64_t hash = route_hash(text, strlen(text), 0);
    if (version > 0) {
        snprintf(etag, sizeof etag, "%" PRId64 ".%016" PRIx64, version, hash);
    } else {
        snprintf(etag, sizeof etag, "%016" PRIx64, hash);
    }
    cJSON_free(text);
    return http_reply_json_etag(req, status, json, etag);
}

void route_add_text(cJSON *json, const char *key, const char *text) {
    if (text) {
        cJSON_AddStringToObject(json, key, text);
    } else {
        cJSON_AddNullToObject(json, key);
    }
}
