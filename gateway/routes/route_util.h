/*
 * Small things that the resource files share: SQL fragments, checked fields of JSON bodies, keyset paging, ETags made
 * from what is sent. Everything here works on one request and is used on its thread only.
 */
#ifndef SG_GATEWAY_ROUTE_UTIL_H
#define SG_GATEWAY_ROUTE_UTIL_H

#include "gateway/http.h"

/* A timestamptz column as RFC 3339 in UTC, with all its microseconds (so that it can be a keyset cursor). */
#define ROUTE_TIME(column) "to_char(" column " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"

enum { ROUTE_BODY_MAX = 16384, ROUTE_PAGE_MAX = 500, ROUTE_PAGE_DEFAULT = 100 };

/* ---- errors ---- */
/* ERR_NOT_FOUND "not_found": also for what belongs to someone else. what: "project", "image", "job". */
err_kind_t route_not_found(err_t *err, const char *what);
/* Sets Retry-After for the answer to come when kind is ERR_LIMIT or ERR_UNAVAILABLE; returns kind. */
err_kind_t route_retry_after(http_request_t *req, err_kind_t kind, int seconds);
/* Owner check: does the project exist and belong to the user? */
ERR_MUST err_kind_t route_own_project(gateway_t *gw, const char *user_id, const char *project_id, err_t *err);

/* ---- bodies: a field that is absent leaves *out alone and returns ERR_OK ---- */
/* present (may be NULL) tells absent from given. Text is UTF-8 of min..max characters; null gives *out = NULL if
 * nullable. ERR_INVALID "field_invalid" names the field. *out points into the JSON. */
ERR_MUST err_kind_t route_field_text(const cJSON *body, const char *key, size_t min, size_t max, bool nullable,
                                     bool *present, const char **out, err_t *err);
/* A number within [min, max]; whole: without fraction. null gives NaN if nullable. */
ERR_MUST err_kind_t route_field_number(const cJSON *body, const char *key, double min, double max, bool whole,
                                       bool nullable, bool *present, double *out, err_t *err);
ERR_MUST err_kind_t route_field_bool(const cJSON *body, const char *key, bool *present, bool *out, err_t *err);
/* ERR_INVALID "field_unknown" for a key that is not in the NULL-terminated list. */
ERR_MUST err_kind_t route_only_fields(const cJSON *body, const char *const *known, err_t *err);

/* ---- lists ---- */
typedef struct {
    int limit;
    const char *created_at; /* NULL: first page; both in the arena */
    const char *id;
    char limit_plus_one[16]; /* as a parameter: one row more tells whether there is another page */
} route_page_t;
ERR_MUST err_kind_t route_page_parse(http_request_t *req, route_page_t *page, err_t *err);
/* Adds nextAfter: a cursor made of row limit-1 when there are more than limit rows, else null. */
void route_page_next(http_request_t *req, const route_page_t *page, const PGresult *res, const char *created_column,
                     const char *id_column, cJSON *json);

/* ---- answers ---- */
/* Takes json. Its ETag is a hash of its text, after "<version>." when version > 0. */
err_kind_t route_reply_hashed(http_request_t *req, int status, cJSON *json, int64_t version);
uint64_t route_hash(const void *data, size_t n, uint64_t seed); /* FNV-1a, 64 bits */
/* Adds a string or null. */
void route_add_text(cJSON *json, const char *key, const char *text);

#endif
