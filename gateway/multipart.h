/*
 * multipart/form-data (RFC 7578) as a push parser: bytes go in as they arrive, the contents of the parts come out
 * through callbacks, and nothing but one header block (8 KiB at most) and the length of a boundary is ever held.
 *
 * Strict: the body must begin with the boundary (a preamble of CRLF alone is accepted), header lines end in CRLF,
 * names must be present, at most 16 parts, and the closing boundary must be there. What follows it is ignored.
 * Not thread-safe: one parser, one thread.
 */
#ifndef SG_GATEWAY_MULTIPART_H
#define SG_GATEWAY_MULTIPART_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

enum { MULTIPART_MAX_BOUNDARY = 70, MULTIPART_MAX_HEADERS = 8192, MULTIPART_MAX_PARTS = 16 };

typedef struct {
    const char *name;      /* of the form field; never NULL */
    const char *file_name; /* NULL when the part is no file */
    size_t file_name_len;
} multipart_part_t;

/* Each returns ERR_OK or stops the parser with its error. part lives only during the call. */
typedef struct {
    err_kind_t (*begin)(void *arg, const multipart_part_t *part, err_t *err);
    err_kind_t (*data)(void *arg, const char *bytes, size_t n, err_t *err);
    err_kind_t (*end)(void *arg, err_t *err);
    void *arg;
} multipart_handler_t;

typedef struct {
    multipart_handler_t on;
    char delimiter[MULTIPART_MAX_BOUNDARY + 5]; /* CR LF - - boundary */
    size_t delimiter_len, matched;              /* matched: bytes of the delimiter seen and held back */
    char headers[MULTIPART_MAX_HEADERS + 1];
    size_t headers_len;
    int parts, state;
} multipart_t;

/* Takes the value of a Content-Type header: ERR_UNSUPPORTED "media_type_unsupported" when it is not
 * multipart/form-data, ERR_INVALID "multipart_invalid" when its boundary is missing or wrong. */
ERR_MUST err_kind_t multipart_init(multipart_t *m, const char *content_type, const multipart_handler_t *on, err_t *err);
/* ERR_INVALID "multipart_invalid", or what a callback returned. After an error the parser must not be used again. */
ERR_MUST err_kind_t multipart_feed(multipart_t *m, const char *bytes, size_t n, err_t *err);
/* Was the closing boundary seen? Call at the end of the body. */
ERR_MUST err_kind_t multipart_finish(const multipart_t *m, err_t *err);

#endif
