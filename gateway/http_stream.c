/*
 * Streamed answers, see http_stream.h (RFC 9112, section 7.1).
 */
#include "http_stream.h"

#include <stdio.h>
#include <string.h>

#include "http_internal.h"

bool http_stream_not_modified(http_request_t *req, const char *etag) {
    const char *quoted = arena_printf(req->arena, "\"%s\"", etag);
    if (!quoted) {
        return false;
    }
    http_add_header(req, "ETag", quoted);
    http_add_header(req, "Cache-Control", "private, no-cache");
    const char *header = http_header(req, "If-None-Match");
    if (!header || !http_etag_listed(header, etag, true)) {
        return false;
    }
    http_write_head(req, 304, NULL, -1, NULL, 0);
    return true;
}

static bool is_chunked(http_request_t *req) {
    const char *version = http_exchange(req)->info->http_version;
    return version && strcmp(version, "1.0") != 0;
}

void http_stream_begin(http_request_t *req, const char *content_type) {
    if (is_chunked(req)) {
        http_add_header(req, "Transfer-Encoding", "chunked");
    } else {
        req->close_after = true;
    }
    http_write_head(req, 200, content_type, -1, NULL, 0);
}

bool http_stream_write(http_request_t *req, const void *data, size_t n) {
    if (http_exchange(req)->head) {
        return false;
    }
    if (n == 0) {
        return true;
    }
    if (!is_chunked(req)) {
        return http_write_all(req, data, n);
    }
    char size[24];
    const int k = snprintf(size, sizeof size, "%zx\r\n", n);
    return http_write_all(req, size, (size_t)k) && http_write_all(req, data, n) && http_write_all(req, "\r\n", 2);
}

void http_stream_end(http_request_t *req, bool complete) {
    if (!complete) {
        req->close_after = true;
    } else if (!http_exchange(req)->head && is_chunked(req)) {
        (void)http_write_all(req, "0\r\n\r\n", 5);
    }
}
