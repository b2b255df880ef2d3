/*
 * Answering: status line, security headers, caching, ranges, problem+json. Small answers leave in one write, so in one
 * TLS record; files are sent in blocks, and a client that reads too slowly is cut off.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/timeutil.h"
#include "http_internal.h"
#include "server.h"

#define SEND_BLOCK ((size_t)64 * 1024)
#define SEND_GRACE_MS 60000
#define SEND_MIN_RATE 1024 /* bytes per second after the grace */

/* Fit for a Vite build with OpenSeadragon: scripts from here only, images also as blobs and data, styles inline. */
#define UI_POLICY                                                                                                      \
    "default-src 'self'; script-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "            \
    "font-src 'self' data:; connect-src 'self' wss:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "    \
    "form-action 'self'; frame-ancestors 'none'"

const char *http_reason(int status) {
    static const struct {
        int status;
        const char *reason;
    } table[] = {
        {101, "Switching Protocols"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {304, "Not Modified"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {422, "Unprocessable Content"},
        {426, "Upgrade Required"},
        {428, "Precondition Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (table[i].status == status) {
            return table[i].reason;
        }
    }
    return status < 400 ? "OK" : "Error";
}

/* Header values come from our own code and from checked input; a line break must still never get through. */
static bool header_is_safe(const char *s) {
    for (; *s; s++) {
        if ((unsigned char)*s < 0x20 && *s != '\t') {
            return false;
        }
    }
    return true;
}

void http_add_header(http_request_t *req, const char *name, const char *value) {
    http_exchange_t *ex = http_exchange(req);
    if (!header_is_safe(name) || !header_is_safe(value)) {
        log_event(LOG_ERROR, "header with a control character dropped", "name", name, "requestId", req->request_id,
                  NULL);
        return;
    }
    if (strcasecmp(name, "Cache-Control") == 0) {
        ex->cache_control_set = true;
    } else if (strcasecmp(name, "Content-Security-Policy") == 0) {
        ex->csp_set = true;
    }
    buf_printf(&ex->headers, "%s: %s\r\n", name, value);
}

bool http_write_all(http_request_t *req, const void *data, size_t n) {
    const char *p = data;
    int64_t started = time_mono_ms();
    size_t sent = 0;
    while (sent < n) {
        size_t part = n - sent < SEND_BLOCK ? n - sent : SEND_BLOCK;
        int w = mg_write(req->conn, p + sent, part);
        if (w <= 0) {
            req->close_after = true;
            return false;
        }
        sent += (size_t)w;
        req->bytes_out += w;
        int64_t ms = time_mono_ms() - started;
        if (ms > SEND_GRACE_MS && (int64_t)sent < (ms - SEND_GRACE_MS) * SEND_MIN_RATE / 1000) {
            req->close_after = true;
            return false;
        }
    }
    return true;
}

static void put_common_headers(http_exchange_t *ex, buf_t *out) {
    char date[64];
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    (void)strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    buf_printf(out, "Date: %s\r\n", date);
    buf_printf(out, "X-Request-Id: %s\r\n", ex->req.request_id);
    buf_puts(out, "Strict-Transport-Security: max-age=31536000\r\n"
                  "X-Content-Type-Options: nosniff\r\n"
                  "X-Frame-Options: DENY\r\n"
                  "Referrer-Policy: same-origin\r\n"
                  "Permissions-Policy: camera=(), microphone=(), geolocation=(), payment=(), usb=()\r\n"
                  "Cross-Origin-Opener-Policy: same-origin\r\n");
    if (!ex->csp_set) {
        buf_puts(out, "Content-Security-Policy: " UI_POLICY "\r\n");
    }
    if (!ex->cache_control_set) {
        buf_puts(out, "Cache-Control: no-store\r\n");
    }
    if (ex->cors_origin) {
        buf_printf(out,
                   "Access-Control-Allow-Origin: %s\r\n"
                   "Access-Control-Expose-Headers: ETag, Location, Retry-After, X-Next-After, X-Request-Id\r\n"
                   "Cross-Origin-Resource-Policy: cross-origin\r\n",
                   ex->cors_origin);
    } else {
        buf_puts(out, "Cross-Origin-Resource-Policy: same-origin\r\n");
    }
    buf_puts(out, "Vary: Origin\r\n");
}

void http_write_head(http_request_t *req, int status, const char *content_type, int64_t length, const void *body,
                     size_t n) {
    http_exchange_t *ex = http_exchange(req);
    buf_t out;
    if (req->answered) {
        log_event(LOG_ERROR, "second answer to one request dropped", "requestId", req->request_id, "path", req->path,
                  NULL);
        return;
    }
    req->answered = true;
    req->status = status;
    if (req->gw->server && status != 101 &&
        (server_is_draining(req->gw->server) || server_is_crowded(req->gw->server))) {
        req->close_after = true;
    }
    /* What the client still wants to send and we will not read costs the connection. */
    if (!ex->body_done && (ex->content_length < 0 || ex->content_length - ex->body_read > HTTP_DRAIN_MAX)) {
        req->close_after = true;
    }
    if (req->close_after) {
        mg_disable_connection_keep_alive(req->conn);
    }
    buf_init(&out, n + (size_t)64 * 1024);
    buf_printf(&out, "HTTP/1.1 %d %s\r\n", status, http_reason(status));
    put_common_headers(ex, &out);
    if (content_type) {
        buf_printf(&out, "Content-Type: %s\r\n", content_type);
    }
    if (length >= 0) {
        buf_printf(&out, "Content-Length: %" PRId64 "\r\n", length);
    }
    if (req->close_after) {
        buf_puts(&out, "Connection: close\r\n");
    }
    if (ex->headers.len > 0) {
        buf_append(&out, ex->headers.data, ex->headers.len);
    }
    buf_puts(&out, "\r\n");
    if (!ex->head && n > 0) {
        buf_append(&out, body, n);
    }
    if (out.failed || ex->headers.failed) {
        static const char sorry[] =
            "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        req->status = 500;
        req->close_after = true;
        (void)http_write_all(req, sorry, sizeof sorry - 1);
    } else {
        (void)http_write_all(req, out.data, out.len);
    }
    buf_free(&out);
}

/* ---- JSON ---- */

static err_kind_t reply_no_memory(http_request_t *req) {
    static const char text[] =
        "{\"type\":\"urn:spheroseg:problem:no_memory\",\"title\":\"Internal Server Error\",\"status\":500,"
        "\"code\":\"no_memory\",\"detail\":\"The server is out of memory. Please try again.\"}";
    http_write_head(req, 500, "application/problem+json", (int64_t)sizeof text - 1, text, sizeof text - 1);
    return ERR_OK;
}

static err_kind_t reply_json_as(http_request_t *req, int status, const char *type, cJSON *json) {
    char *text = json ? cJSON_PrintUnformatted(json) : NULL;
    cJSON_Delete(json);
    if (!text) {
        return reply_no_memory(req);
    }
    size_t n = strlen(text);
    idempotency_keep(req, status, text, n);
    http_write_head(req, status, type, (int64_t)n, text, n);
    cJSON_free(text);
    return ERR_OK;
}

err_kind_t http_reply_json(http_request_t *req, int status, cJSON *json) {
    return reply_json_as(req, status, "application/json", json);
}

/* Adds the ETag and answers 304 when the client has that version already. */
static bool not_modified(http_request_t *req, const char *etag) {
    http_exchange_t *ex = http_exchange(req);
    char *quoted = arena_printf(req->arena, "\"%s\"", etag);
    if (!quoted) {
        return false;
    }
    http_add_header(req, "ETag", quoted);
    if (!ex->cache_control_set) {
        http_add_header(req, "Cache-Control", "private, no-cache");
    }
    const char *header = http_header(req, "If-None-Match");
    bool reads = strcmp(req->method, "GET") == 0 || ex->head;
    if (reads && header && http_etag_listed(header, etag, true)) {
        http_write_head(req, 304, NULL, -1, NULL, 0);
        return true;
    }
    return false;
}

err_kind_t http_reply_json_etag(http_request_t *req, int status, cJSON *json, const char *etag) {
    if (status == 200 && not_modified(req, etag)) {
        cJSON_Delete(json);
        return ERR_OK;
    }
    if (status != 200) {
        char *quoted = arena_printf(req->arena, "\"%s\"", etag);
        if (quoted) {
            http_add_header(req, "ETag", quoted);
        }
    }
    return http_reply_json(req, status, json);
}

err_kind_t http_reply_text(http_request_t *req, int status, const char *content_type, const char *body, size_t n) {
    http_write_head(req, status, content_type, (int64_t)n, body, n);
    return ERR_OK;
}

err_kind_t http_reply_empty(http_request_t *req, int status) {
    idempotency_keep(req, status, "", 0);
    bool bodyless = status == 204 || status == 304 || status < 200;
    http_write_head(req, status, NULL, bodyless ? -1 : 0, NULL, 0);
    return ERR_OK;
}

/* ---- bytes and files ---- */

err_kind_t http_reply_bytes(http_request_t *req, const char *content_type, const void *data, size_t n, const char *etag,
                            int max_age_s, const char *extra_headers) {
    http_exchange_t *ex = http_exchange(req);
    if (max_age_s > 0 && !ex->cache_control_set) {
        char *cache =
            arena_printf(req->arena, "private, max-age=%d%s", max_age_s, max_age_s >= 86400 ? ", immutable" : "");
        if (cache) {
            http_add_header(req, "Cache-Control", cache);
        }
    }
    if (extra_headers) {
        buf_puts(&ex->headers, extra_headers);
    }
    if (etag && not_modified(req, etag)) {
        return ERR_OK;
    }
    http_write_head(req, 200, content_type, (int64_t)n, data, n);
    return ERR_OK;
}

static bool parse_offset(const char **p, int64_t *out) {
    if (**p < '0' || **p > '9') {
        return false;
    }
    char *end = NULL;
    errno = 0;
    long long v = strtoll(*p, &end, 10);
    if (errno != 0) {
        return false;
    }
    *p = end;
    *out = v;
    return true;
}

http_range_t http_range_parse(const char *header, int64_t size, int64_t *first, int64_t *last) {
    if (strncasecmp(header, "bytes=", 6) != 0 || strchr(header, ',')) {
        return HTTP_RANGE_NONE;
    }
    const char *p = header + 6;
    p += strspn(p, " \t");
    if (*p == '-') {
        int64_t tail = 0;
        p++;
        if (!parse_offset(&p, &tail) || p[strspn(p, " \t")]) {
            return HTTP_RANGE_NONE;
        }
        if (tail == 0 || size == 0) {
            return HTTP_RANGE_BAD;
        }
        *first = tail >= size ? 0 : size - tail;
        *last = size - 1;
        return HTTP_RANGE_OK;
    }
    if (!parse_offset(&p, first) || *p != '-') {
        return HTTP_RANGE_NONE;
    }
    p++;
    *last = size - 1;
    if (*p && !parse_offset(&p, last)) {
        return HTTP_RANGE_NONE;
    }
    bool open_end = p[-1] == '-';
    if (p[strspn(p, " \t")] || (!open_end && *last < *first)) {
        return HTTP_RANGE_NONE;
    }
    if (*first >= size) {
        return HTTP_RANGE_BAD;
    }
    if (*last >= size) {
        *last = size - 1;
    }
    return HTTP_RANGE_OK;
}

static void send_file(http_request_t *req, int fd, int64_t at, int64_t n) {
    char *block = malloc(SEND_BLOCK);
    if (!block) {
        req->close_after = true;
        return;
    }
    int64_t started = time_mono_ms();
    int64_t sent = 0;
    while (sent < n) {
        size_t want = n - sent < (int64_t)SEND_BLOCK ? (size_t)(n - sent) : SEND_BLOCK;
        ssize_t got = pread(fd, block, want, at + sent);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            /* The length is promised already: all that is left is to break the connection. */
            log_event(LOG_ERROR, "file became shorter while it was sent", "requestId", req->request_id, "path",
                      req->path, NULL);
            req->close_after = true;
            break;
        }
        if (!http_write_all(req, block, (size_t)got)) {
            break;
        }
        sent += got;
        int64_t ms = time_mono_ms() - started;
        if (ms > SEND_GRACE_MS && sent < (ms - SEND_GRACE_MS) * SEND_MIN_RATE / 1000) {
            req->close_after = true;
            break;
        }
    }
    free(block);
}

/* attachment; filename="ascii" and, for the rest of the world, filename*=UTF-8''… (RFC 6266). */
static char *disposition(http_request_t *req, const char *name) {
    size_t n = strlen(name);
    char *ascii = arena_alloc(req->arena, n + 1);
    char *coded = arena_alloc(req->arena, 3 * n + 1);
    if (!ascii || !coded) {
        return NULL;
    }
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)name[i];
        bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || strchr("-._~", c);
        ascii[i] = (char)(plain || c == ' ' ? c : '_');
        if (plain) {
            coded[k++] = (char)c;
        } else {
            static const char hex[] = "0123456789ABCDEF";
            coded[k++] = '%';
            coded[k++] = hex[c >> 4];
            coded[k++] = hex[c & 15];
        }
    }
    ascii[n] = '\0';
    coded[k] = '\0';
    return arena_printf(req->arena, "attachment; filename=\"%s\"; filename*=UTF-8''%s", ascii, coded);
}

err_kind_t http_reply_fd(http_request_t *req, const char *content_type, int fd, int64_t size, const char *etag,
                         const char *download_name) {
    int64_t first = 0;
    int64_t last = size - 1;
    char *d = download_name ? disposition(req, download_name) : NULL;
    if (d) {
        http_add_header(req, "Content-Disposition", d);
        /* What a person uploaded must never run as a page of this site. */
        http_add_header(req, "Content-Security-Policy", "default-src 'none'; sandbox");
    }
    http_add_header(req, "Accept-Ranges", "bytes");
    if (etag && not_modified(req, etag)) {
        close(fd);
        return ERR_OK;
    }
    const char *range = http_header(req, "Range");
    const char *if_range = http_header(req, "If-Range");
    http_range_t r = HTTP_RANGE_NONE;
    if (range && (!if_range || (etag && http_etag_listed(if_range, etag, false)))) {
        r = http_range_parse(range, size, &first, &last);
    }
    if (r == HTTP_RANGE_BAD) {
        char *whole = arena_printf(req->arena, "bytes */%" PRId64, size);
        if (whole) {
            http_add_header(req, "Content-Range", whole);
        }
        close(fd);
        err_t err;
        err_set(&err, ERR_INVALID, "range_invalid", "The file is shorter than the part that was asked for.", NULL);
        return http_reply_problem(req, &err);
    }
    if (r == HTTP_RANGE_OK) {
        char *part = arena_printf(req->arena, "bytes %" PRId64 "-%" PRId64 "/%" PRId64, first, last, size);
        if (part) {
            http_add_header(req, "Content-Range", part);
        }
    }
    int64_t n = last - first + 1;
    http_write_head(req, r == HTTP_RANGE_OK ? 206 : 200, content_type, n, NULL, 0);
    if (!http_exchange(req)->head && req->status < 300) {
        send_file(req, fd, first, n);
    }
    close(fd);
    return ERR_OK;
}

/* ---- problems ---- */

int http_problem_status(const err_t *err) {
    static const char *const unprocessable[] = {"image_", "model_", "unprocessable"};
    if (strcmp(err->code, "if_match_required") == 0) {
        return 428;
    }
    if (strcmp(err->code, "range_invalid") == 0) {
        return 416;
    }
    if (err->kind == ERR_INVALID) {
        for (size_t i = 0; i < sizeof unprocessable / sizeof unprocessable[0]; i++) {
            if (strncmp(err->code, unprocessable[i], strlen(unprocessable[i])) == 0) {
                return 422;
            }
        }
    }
    return err_http_status(err->kind);
}

err_kind_t http_reply_problem_status(http_request_t *req, int status, const err_t *err) {
    if (status >= 500) {
        log_event(LOG_WARN, "request failed", "requestId", req->request_id, "path", req->path, "code", err->code,
                  "detail", err->detail, "message", err->message, NULL);
    }
    if (req->answered) {
        return ERR_OK;
    }
    cJSON *json = cJSON_CreateObject();
    char *type = arena_printf(req->arena, "urn:spheroseg:problem:%s", err->code[0] ? err->code : "unknown");
    cJSON_AddStringToObject(json, "type", type ? type : "about:blank");
    cJSON_AddStringToObject(json, "title", http_reason(status));
    cJSON_AddNumberToObject(json, "status", status);
    cJSON_AddStringToObject(json, "code", err->code[0] ? err->code : "unknown");
    cJSON_AddStringToObject(json, "detail", err->message);
    cJSON_AddStringToObject(json, "requestId", req->request_id);
    if ((status == 429 || status == 503) &&
        (!http_exchange(req)->headers.data || !strcasestr(http_exchange(req)->headers.data, "Retry-After:"))) {
        http_add_header(req, "Retry-After", status == 429 ? "10" : "3");
    }
    if (status == 401) {
        http_add_header(req, "WWW-Authenticate", "Bearer realm=\"spheroseg\"");
    }
    return reply_json_as(req, status, "application/problem+json", json);
}

err_kind_t http_reply_problem(http_request_t *req, const err_t *err) {
    return http_reply_problem_status(req, http_problem_status(err), err);
}
