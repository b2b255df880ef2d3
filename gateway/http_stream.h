/*
 * Answers whose length nobody knows beforehand: sent in pieces (chunked for HTTP/1.1, until the end of the connection
 * for 1.0). An answer that breaks off leaves its last chunk out, so that a client never takes a part for the whole.
 */
#ifndef SG_GATEWAY_HTTP_STREAM_H
#define SG_GATEWAY_HTTP_STREAM_H

#include "http.h"

/* Adds the ETag (without quotes) and "private, no-cache"; answers 304 and returns true when the client has it. Call
 * before http_stream_begin. */
bool http_stream_not_modified(http_request_t *req, const char *etag);
/* Status 200 and the headers. */
void http_stream_begin(http_request_t *req, const char *content_type);
/* False: the client is gone or the request was HEAD; stop. */
bool http_stream_write(http_request_t *req, const void *data, size_t n);
/* complete = false breaks the connection. */
void http_stream_end(http_request_t *req, bool complete);

#endif
