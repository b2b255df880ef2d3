/*
 * Signed requests to an S3 server, by libcurl: one call sends one request, again where that can help, and says what
 * came of it. storage_s3.c makes a storage of it.
 *
 * Requests are signed with AWS Signature Version 4 by libcurl (CURLOPT_AWS_SIGV4); the SHA-256 of the body is part of
 * the signature, so the server refuses bytes that were damaged or cut on the way. Thread-safe; connections are kept and
 * shared.
 */
#ifndef SG_STORAGE_S3_HTTP_H
#define SG_STORAGE_S3_HTTP_H

#include "buf.h"
#include "storage_s3.h"

typedef struct s3_http s3_http_t;

typedef struct {
    const char *method; /* GET, HEAD, PUT, POST, DELETE */
    const char *path;   /* of the object, without its leading slash and not escaped; "" is the bucket */
    const char *query;  /* as it is sent: names in alphabetical order, each with "="; NULL: none */
    const char *header; /* one more, "Name: value"; NULL: none */
    /* what is sent: memory, or a piece of a file */
    const void *data;
    int fd; /* used where data is NULL and size > 0 */
    int64_t offset, size;
    /* where an answer of 2xx goes: a file (from its beginning), or a buffer; an interrupted file is continued */
    int to_fd; /* -1: to_buf */
    buf_t *to_buf;
    bool once; /* do not try again: whoever asks will ask again */
    /* out */
    char etag[128];
    int64_t received; /* bytes in to_fd */
} s3_request_t;

ERR_MUST err_kind_t s3_http_open(const storage_s3_t *settings, s3_http_t **out, err_t *err);
void s3_http_close(s3_http_t *h);

/* ERR_NOT_FOUND "object_missing" for 404; ERR_IO "storage_denied" for 401 and 403; ERR_IO "storage_error" for the rest.
 * Lost connections, 429 and 5xx are tried again, five times in all within about four seconds of waiting. */
ERR_MUST err_kind_t s3_http_send(s3_http_t *h, s3_request_t *r, err_t *err);

#endif
