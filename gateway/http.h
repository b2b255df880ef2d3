/*
 * The small layer between civetweb and the routes: one routing table, one request object, one way to answer.
 *
 * A handler runs on the connection's thread, reads what it needs from the request, and answers exactly once with one of
 * http_reply_*. A handler that returns a kind other than ERR_OK without having answered lets the layer answer with
 * problem+json from *err. Everything in the request dies with it; req->arena is for the handler's own small memory.
 */
#ifndef SG_GATEWAY_HTTP_H
#define SG_GATEWAY_HTTP_H

#include <cjson/cJSON.h>
#include <civetweb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/config.h"
#include "common/err.h"
#include "common/pg.h"
#include "common/queue.h"
#include "common/rds.h"
#include "common/storage.h"

/* What every handler may use; made once in main.c, read-only afterwards, all members thread-safe. */
typedef struct {
    const config_t *cfg;
    pg_pool_t *pg;
    rds_pool_t *rds;
    queue_t *queue;
    storage_t *storage;
    struct ws_hub *ws;
    struct derivatives *derivatives;   /* thumbnails and tiles, see derivatives.h */
    struct auth *auth;                 /* who is calling, see auth/auth.h */
    struct server *server;             /* the listening side, see server.h */
    struct proxy_list *proxies;        /* TRUSTED_PROXIES, see proxy.h; NULL: none */
} gateway_t;

typedef struct {
    char id[37];          /* UUID; empty when nobody is signed in */
    char email[256];
    bool is_admin;
} http_user_t;

#define HTTP_MAX_PATH_PARAMS 4

typedef struct http_request {
    gateway_t *gw;
    struct mg_connection *conn;
    const char *method;
    const char *path;                     /* decoded, without the query */
    const char *query;                    /* raw; may be NULL */
    const char *params[HTTP_MAX_PATH_PARAMS];  /* values of {…} in the pattern, in order, checked as UUIDs where named …Id */
    http_user_t user;
    char request_id[37];
    char remote[48];                      /* address of the client: the peer's, or what trusted proxies say of it */
    arena_t *arena;
    bool answered;
    int status;                           /* what was answered */
    int64_t bytes_out;
    bool close_after;                     /* body was not read to its end: close instead of keep-alive */
} http_request_t;

typedef ERR_MUST err_kind_t (*http_handler_t)(http_request_t *req, err_t *err);

enum {
    HTTP_PUBLIC = 1,        /* no sign-in needed; user is filled in when there is one */
    HTTP_IDEMPOTENT_KEY = 2 /* honours Idempotency-Key: the layer replays the stored answer (JSON answers < 256 KiB) */
    /* Without the flag a handler may honour it by itself, see http_key_read. */
};

typedef struct {
    const char *method;     /* "GET" also serves HEAD */
    const char *pattern;    /* "/api/images/{imageId}/tiles/{level}/{column}/{row}" */
    http_handler_t handler;
    unsigned flags;
} http_route_t;

/* Each resource file exports its own table; router.c joins them. Ends with a NULL method. */
extern const http_route_t routes_auth[], routes_projects[], routes_images[], routes_tiles[], routes_segmentation[],
    routes_polygons[], routes_models[], routes_health[];

/* ---- reading the request ---- */
const char *http_header(const http_request_t *req, const char *name);               /* NULL when absent */
/* Decoded query parameter in the arena, NULL when absent. */
const char *http_query(http_request_t *req, const char *name);
/* Bounded integer / bool parameters: ERR_INVALID "parameter_invalid" names the parameter and its bounds. */
ERR_MUST err_kind_t http_query_int(http_request_t *req, const char *name, int64_t def, int64_t min, int64_t max, int64_t *out, err_t *err);
ERR_MUST err_kind_t http_query_bool(http_request_t *req, const char *name, bool def, bool *out, err_t *err);
/* Reads and parses a JSON object body of at most max bytes (ERR_TOO_LARGE, ERR_INVALID "json_invalid", ERR_UNSUPPORTED for another
 * media type). An empty body gives an empty object when allow_empty. The caller deletes *out with cJSON_Delete. */
ERR_MUST err_kind_t http_read_json(http_request_t *req, size_t max, bool allow_empty, cJSON **out, err_t *err);
/* Body as a stream: bytes read, 0 at the end, -1 on a broken connection or time-out. */
int http_read_body(http_request_t *req, void *dst, size_t n);
int64_t http_content_length(const http_request_t *req);                             /* -1: chunked or unknown */

/* ---- answering: exactly once; all return ERR_OK so that a handler can end with `return http_reply_…` ---- */
err_kind_t http_reply_json(http_request_t *req, int status, cJSON *json);            /* takes json and deletes it */
/* The same with an ETag: answers 304 when If-None-Match matches. etag without quotes, made of what changes. */
err_kind_t http_reply_json_etag(http_request_t *req, int status, cJSON *json, const char *etag);
err_kind_t http_reply_text(http_request_t *req, int status, const char *content_type, const char *body, size_t n);
err_kind_t http_reply_empty(http_request_t *req, int status);
/* Bytes with ETag and cache time; 304 when it matches. extra_headers: "Name: value\r\n…" or NULL. */
err_kind_t http_reply_bytes(http_request_t *req, const char *content_type, const void *data, size_t n, const char *etag,
                            int max_age_s, const char *extra_headers);
/* A file from an open fd (closed by the call), with Range support and download name (may be NULL). */
err_kind_t http_reply_fd(http_request_t *req, const char *content_type, int fd, int64_t size, const char *etag,
                         const char *download_name);
/* The status is err_http_status(kind), with three refinements by code: what is wrong with the bytes of an image or with what
 * a valid request names ("image_…", "model_…", "unprocessable…") is 422, "if_match_required" is 428, "range_invalid" is 416. */
err_kind_t http_reply_problem(http_request_t *req, const err_t *err);
/* The same with another status. */
err_kind_t http_reply_problem_status(http_request_t *req, int status, const err_t *err);
/* Adds a header to the answer that is still to come (Set-Cookie, Retry-After, Location…). */
void http_add_header(http_request_t *req, const char *name, const char *value);

/* If-Match against the current version: ERR_PRECONDITION "version_mismatch" (412) or "if_match_required" (428). */
ERR_MUST err_kind_t http_check_if_match(http_request_t *req, const char *etag, err_t *err);

/* ---- cursors: opaque text from (created_at, id) and back ---- */
char *http_cursor_make(http_request_t *req, const char *created_at, const char *id);
ERR_MUST err_kind_t http_cursor_parse(http_request_t *req, const char *cursor, char created_at[64], char id[37], err_t *err);

/* ---- Idempotency-Key in the transaction of what is made, for handlers whose route lacks HTTP_IDEMPOTENT_KEY ---- */
typedef struct {
    const char *key;  /* NULL: the request has none */
    const char *what; /* method and path: the same key means nothing for another request */
} http_key_t;
typedef struct {
    int status; /* 0: nothing is kept, the key is this request's now */
    const char *body;
} http_kept_t;
/* ERR_INVALID "idempotency_key_invalid". Both texts are in the arena. */
ERR_MUST err_kind_t http_key_read(http_request_t *req, http_key_t *out, err_t *err);
/* Inside the caller's transaction; waits for one that has the key at the moment. ERR_CONFLICT "idempotency_key_reused",
 * "idempotency_in_progress". A rollback gives the key back. */
ERR_MUST err_kind_t http_key_claim(http_request_t *req, pg_conn_t *conn, const http_key_t *key, http_kept_t *kept,
                                   err_t *err);
/* Keeps the answer of a claimed key. */
ERR_MUST err_kind_t http_key_store(http_request_t *req, pg_conn_t *conn, const http_key_t *key, int status,
                                   const char *body, err_t *err);
/* Sends the answer that was kept. */
err_kind_t http_key_replay(http_request_t *req, const http_kept_t *kept);

#endif
