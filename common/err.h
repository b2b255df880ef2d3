/*
 * Errors. Every function that can fail returns err_kind_t and fills *err (which may be NULL when the
 * caller only needs the kind). An error carries words for a person (message), a stable machine word
 * (code) and words for the log (detail); only code and message ever leave the process.
 *
 * Thread-safety: an err_t belongs to its caller. No allocation, so it works when memory is gone.
 */
#ifndef SG_ERR_H
#define SG_ERR_H

#define ERR_MUST __attribute__((warn_unused_result))

typedef enum {
    ERR_OK = 0,
    ERR_INVALID,         /* the request or file is wrong: 400 / 422 */
    ERR_UNAUTHENTICATED, /* 401 */
    ERR_FORBIDDEN,       /* 403 */
    ERR_NOT_FOUND,       /* 404; also "not yours" */
    ERR_CONFLICT,        /* 409 */
    ERR_PRECONDITION,    /* 412 */
    ERR_TOO_LARGE,       /* 413 */
    ERR_UNSUPPORTED,     /* 415: a format or feature we do not read */
    ERR_LIMIT,           /* 429: the caller may try again later */
    ERR_UNAVAILABLE,     /* 503: a dependency is away; try again */
    ERR_TIMEOUT,         /* 504 */
    ERR_CANCELLED,       /* the job was cancelled */
    ERR_NO_MEMORY,       /* 500 */
    ERR_IO,              /* 500: disk or socket */
    ERR_INTERNAL         /* 500: a bug or a broken invariant */
} err_kind_t;

typedef struct {
    err_kind_t kind;
    char code[48];     /* snake_case, stable, documented in proto/openapi.yaml */
    char message[256]; /* for the person: what happened and what to do next */
    char detail[512];  /* for the log: errno, SQLSTATE, offsets */
} err_t;

/* Fills *err (if not NULL) and returns kind. code and message are copied; detail_fmt is printf-style
 * and may be NULL. */
err_kind_t err_set(err_t *err, err_kind_t kind, const char *code, const char *message, const char *detail_fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* The same with a formatted user message and no detail. */
err_kind_t err_setf(err_t *err, err_kind_t kind, const char *code, const char *message_fmt, ...)
    __attribute__((format(printf, 4, 5)));

#ifdef __clang_analyzer__
/* Static analysis sees one file at a time and cannot know that these two return their `kind`; without that it takes
 * every failure for a success with empty results. */
static inline err_kind_t err_returns_kind(err_kind_t returned, err_kind_t kind) {
    (void)returned;
    return kind;
}
#define err_set(err, kind, ...) err_returns_kind((err_set)((err), (kind), __VA_ARGS__), (kind))
#define err_setf(err, kind, ...) err_returns_kind((err_setf)((err), (kind), __VA_ARGS__), (kind))
#endif

void err_clear(err_t *err);

/* HTTP status for a kind (ERR_OK -> 200). */
int err_http_status(err_kind_t kind);

/* May the same work succeed if it is tried again unchanged? (UNAVAILABLE, TIMEOUT, LIMIT, IO, NO_MEMORY, INTERNAL) */
int err_is_retryable(err_kind_t kind);

/* Lower-case English name of a kind, for logs. Never NULL. */
const char *err_kind_name(err_kind_t kind);

#endif
