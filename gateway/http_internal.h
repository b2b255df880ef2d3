/*
 * What the HTTP layer's own files share (http.c, http_reply.c, idempotency.c, router.c, static.c): the request with
 * the layer's private state behind it. Routes see only http.h.
 */
#ifndef SG_GATEWAY_HTTP_INTERNAL_H
#define SG_GATEWAY_HTTP_INTERNAL_H

#include "common/buf.h"
#include "http.h"

/* A body that is not read to its end is drained up to this many bytes, so that the client gets to read the answer;
 * a longer rest costs it the connection. */
#define HTTP_DRAIN_MAX ((int64_t)256 * 1024)
/* With more than that to come the connection is closed, but only after so many bytes (and 2 s) of reading on, so that the
 * client gets to read its answer. */
#define HTTP_LINGER_MAX ((int64_t)64 * 1024 * 1024)

/* The slowest body that is put up with, after a grace of BODY_GRACE_MS: bytes per second. */
#define HTTP_BODY_MIN_RATE 1024
#define HTTP_BODY_GRACE_MS 30000

#define HTTP_IDEMPOTENT_BODY_MAX ((size_t)256 * 1024)

/* req must stay the first member: the layer casts from http_request_t * to http_exchange_t *. */
typedef struct {
    http_request_t req;
    const struct mg_request_info *info;
    buf_t headers;           /* of the answer, added by http_add_header */
    bool cache_control_set;  /* a handler chose its own Cache-Control */
    bool csp_set;            /* … and its own Content-Security-Policy */
    bool head;               /* HEAD: everything but the body */
    const char *cors_origin; /* allowed origin of another site, or NULL */
    int64_t content_length;  /* of the request; -1: chunked */
    int64_t body_read;       /* bytes handed out so far */
    int64_t body_started_ms; /* monotonic; 0 before the first read */
    bool body_done;          /* read to its end */
    bool body_failed;
    const char *idem_key; /* Idempotency-Key that this request owns, in the arena; NULL otherwise */
} http_exchange_t;

static inline http_exchange_t *http_exchange(http_request_t *req) {
    return (http_exchange_t *)(void *)req;
}

/* Fills in an exchange from civetweb's view of the request. ERR_INVALID "request_invalid" for a request that cannot be
 * understood without doubt (both Content-Length and Transfer-Encoding, a length that is no number). */
ERR_MUST err_kind_t http_exchange_init(http_exchange_t *ex, gateway_t *gw, struct mg_connection *conn, err_t *err);
/* The address of the client, see proxy.h. */
void http_client_address(const gateway_t *gw, const struct mg_connection *conn, char out[48]);
/* Drains or gives up the rest of the body, and frees everything. */
void http_exchange_finish(http_exchange_t *ex);

/* Decodes %XX (and + as a space when plus is set) into the arena. NULL: malformed, holds a NUL or is not UTF-8. */
char *http_percent_decode(arena_t *arena, const char *s, size_t n, bool plus);

/* Writes everything or fails; counts bytes_out. False: the client is gone or too slow. */
bool http_write_all(http_request_t *req, const void *data, size_t n);
/* Status line and headers. length < 0: no Content-Length (304, 204). */
void http_write_head(http_request_t *req, int status, const char *content_type, int64_t length, const void *body,
                     size_t n);

/* One range of a file of size bytes, as RFC 9110 §14.1.2 has it: first and last byte. NONE: send everything (several
 * ranges at once, another unit or nonsense are ignored, as the RFC allows). BAD: nothing of it is there (416). */
typedef enum { HTTP_RANGE_NONE, HTTP_RANGE_OK, HTTP_RANGE_BAD } http_range_t;
http_range_t http_range_parse(const char *header, int64_t size, int64_t *first, int64_t *last);

const char *http_reason(int status);
int http_problem_status(const err_t *err);

/* Does the If-None-Match or If-Match value (a list) name the etag (without quotes)? weak: W/ prefixes are ignored. */
bool http_etag_listed(const char *header, const char *etag, bool weak);

/* Does this site or one of ALLOWED_ORIGINS have this origin? */
bool http_origin_is_ours(const http_request_t *req, const char *origin);
bool http_origin_is_allowed(const http_request_t *req, const char *origin);

/* idempotency.c. begin: *replayed is set when the stored answer was sent. keep: stores a 2xx answer, before it is sent.
 * end: gives the key back when nothing was kept. */
ERR_MUST err_kind_t idempotency_begin(http_request_t *req, bool *replayed, err_t *err);
void idempotency_keep(http_request_t *req, int answer_status, const char *body, size_t n);
void idempotency_end(http_request_t *req);
/* Deletes keys older than a day. */
ERR_MUST err_kind_t idempotency_sweep(pg_pool_t *pg, err_t *err);

#endif
