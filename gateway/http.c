/*
 * Reading requests: headers, query parameters, bodies, preconditions and cursors.
 *
 * Bodies are read so that no client can hold a thread by trickling: civetweb's own read waits until the whole buffer is
 * full, with a time-out that starts again at every byte. So a byte is awaited first and then only what TLS has already
 * decrypted is taken; between such reads the average rate is checked.
 */
#include <ctype.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/timeutil.h"
#include "common/utf8.h"
#include "http_internal.h"
#include "proxy.h"
#include "server.h"

#define ARENA_CAP ((size_t)8 * 1024 * 1024)
#define QUERY_VALUE_MAX 4096
#define JSON_DEPTH_MAX 64

static bool all_digits(const char *s) {
    if (!*s) {
        return false;
    }
    for (; *s; s++) {
        if (!isdigit((unsigned char)*s)) {
            return false;
        }
    }
    return true;
}

void http_client_address(const gateway_t *gw, const struct mg_connection *conn, char out[PROXY_ADDRESS_ROOM]) {
    const struct mg_request_info *info = mg_get_request_info(conn);
    const char *forwarded[MG_MAX_HEADERS];
    size_t n = 0;
    for (int i = 0; gw->proxies && i < info->num_headers && i < MG_MAX_HEADERS; i++) {
        if (strcasecmp(info->http_headers[i].name, "X-Forwarded-For") == 0) {
            forwarded[n++] = info->http_headers[i].value;
        }
    }
    proxy_client_address(gw->proxies, info->remote_addr, forwarded, n, out);
}

err_kind_t http_exchange_init(http_exchange_t *ex, gateway_t *gw, struct mg_connection *conn, err_t *err) {
    memset(ex, 0, sizeof *ex);
    ex->info = mg_get_request_info(conn);
    ex->req.gw = gw;
    ex->req.conn = conn;
    ex->req.method = ex->info->request_method;
    ex->req.query = ex->info->query_string;
    ex->req.path = "";
    ex->head = strcmp(ex->req.method, "HEAD") == 0;
    buf_init(&ex->headers, (size_t)16 * 1024);
    http_client_address(gw, conn, ex->req.remote);
    ex->req.arena = arena_create(ARENA_CAP);
    if (!ex->req.arena) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory. Please try again.", NULL);
    }
    const char *length = mg_get_header(conn, "Content-Length");
    const char *coding = mg_get_header(conn, "Transfer-Encoding");
    if ((length && coding) || (length && !all_digits(length)) || (coding && strcasecmp(coding, "chunked") != 0)) {
        ex->body_failed = true; /* nobody can tell where this request ends */
        ex->req.close_after = true;
        return err_set(err, ERR_INVALID, "request_invalid", "The request's length is ambiguous.", NULL);
    }
    ex->content_length = coding ? -1 : ex->info->content_length;
    if (!coding && ex->content_length <= 0) {
        ex->content_length = 0;
        ex->body_done = true;
    }
    return ERR_OK;
}

/* Reads on for a while after the answer: a connection closed while its client still sends is reset, and the client
 * never sees why it was refused. */
static void drain_body(http_exchange_t *ex) {
    char scratch[16384];
    int64_t left = HTTP_LINGER_MAX;
    int64_t until = time_mono_ms() + 2000;
    while (!ex->body_done && !ex->body_failed && left > 0 && time_mono_ms() < until) {
        int n = http_read_body(&ex->req, scratch, sizeof scratch);
        if (n <= 0) {
            break;
        }
        left -= n;
    }
}

void http_exchange_finish(http_exchange_t *ex) {
    if (!ex->body_done) {
        drain_body(ex);
    }
    if (!ex->body_done || ex->req.close_after) {
        ex->req.close_after = true;
        mg_disable_connection_keep_alive(ex->req.conn);
    }
    buf_free(&ex->headers);
    arena_destroy(ex->req.arena);
    ex->req.arena = NULL;
}

const char *http_header(const http_request_t *req, const char *name) {
    return mg_get_header(req->conn, name);
}

/* ---- parameters ---- */

static int hex_value(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

char *http_percent_decode(arena_t *arena, const char *s, size_t n, bool plus) {
    char *out = arena_alloc(arena, n + 1);
    if (!out) {
        return NULL;
    }
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (c == '%') {
            int hi = i + 2 < n ? hex_value(s[i + 1]) : -1;
            int lo = i + 2 < n ? hex_value(s[i + 2]) : -1;
            if (hi < 0 || lo < 0) {
                return NULL;
            }
            c = (char)(hi * 16 + lo);
            if (c == '\0') {
                return NULL;
            }
            i += 2;
        } else if (plus && c == '+') {
            c = ' ';
        }
        out[k++] = c;
    }
    out[k] = '\0';
    return utf8_is_valid(out, k) ? out : NULL;
}

const char *http_query(http_request_t *req, const char *name) {
    const char *p = req->query;
    size_t want = strlen(name);
    while (p && *p) {
        size_t n = strcspn(p, "&");
        const char *eq = memchr(p, '=', n);
        size_t klen = eq ? (size_t)(eq - p) : n;
        if (klen == want && strncmp(p, name, want) == 0) {
            size_t vlen = eq ? n - klen - 1 : 0;
            if (vlen > QUERY_VALUE_MAX) {
                return "";
            }
            char *value = http_percent_decode(req->arena, eq ? eq + 1 : "", vlen, true);
            return value ? value : "";
        }
        p += n;
        if (*p == '&') {
            p++;
        }
    }
    return NULL;
}

err_kind_t http_query_int(http_request_t *req, const char *name, int64_t def, int64_t min, int64_t max, int64_t *out,
                          err_t *err) {
    *out = def;
    const char *text = http_query(req, name);
    if (!text) {
        return ERR_OK;
    }
    char *end = NULL;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    bool plain = isdigit((unsigned char)text[0]) || (text[0] == '-' && isdigit((unsigned char)text[1]));
    if (!plain || errno != 0 || *end != '\0' || v < min || v > max) {
        return err_setf(err, ERR_INVALID, "parameter_invalid",
                        "The parameter “%s” must be a whole number from %lld to %lld.", name, (long long)min,
                        (long long)max);
    }
    *out = v;
    return ERR_OK;
}

err_kind_t http_query_bool(http_request_t *req, const char *name, bool def, bool *out, err_t *err) {
    *out = def;
    const char *text = http_query(req, name);
    if (!text) {
        return ERR_OK;
    }
    if (strcmp(text, "true") == 0 || strcmp(text, "1") == 0) {
        *out = true;
    } else if (strcmp(text, "false") == 0 || strcmp(text, "0") == 0) {
        *out = false;
    } else {
        return err_setf(err, ERR_INVALID, "parameter_invalid", "The parameter “%s” must be true or false.", name);
    }
    return ERR_OK;
}

/* ---- body ---- */

int64_t http_content_length(const http_request_t *req) {
    return ((const http_exchange_t *)(const void *)req)->content_length;
}

/* How much can be read now without waiting? For a chunked body the framing is in the same bytes: at worst 64 bytes of
 * chunk header come with one byte of content, so only a part of what is there is certain to be content. */
static size_t readable_now(const http_exchange_t *ex, size_t room) {
    SSL *tls = server_connection_tls(ex->req.conn);
    int pending = tls ? SSL_pending(tls) : 0;
    size_t sure = pending > 0 ? (size_t)pending : 0;
    if (ex->content_length < 0) {
        sure /= 72;
    }
    return sure < room ? sure : room;
}

static bool body_too_slow(http_exchange_t *ex) {
    int64_t ms = time_mono_ms() - ex->body_started_ms;
    return ms > HTTP_BODY_GRACE_MS && ex->body_read < (ms - HTTP_BODY_GRACE_MS) * HTTP_BODY_MIN_RATE / 1000;
}

int http_read_body(http_request_t *req, void *dst, size_t n) {
    http_exchange_t *ex = http_exchange(req);
    char *p = dst;
    if (ex->body_failed) {
        return -1;
    }
    if (ex->body_done || n == 0) {
        return 0;
    }
    if (ex->body_started_ms == 0) {
        ex->body_started_ms = time_mono_ms();
        const char *expect = http_header(req, "Expect");
        if (expect && strcasecmp(expect, "100-continue") == 0) {
            static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
            (void)mg_write(req->conn, go_on, sizeof go_on - 1);
        }
    }
    if (body_too_slow(ex)) {
        ex->body_failed = true;
        return -1;
    }
    int got = mg_read(req->conn, p, 1);
    if (got == 1 && n > 1) {
        size_t more = readable_now(ex, n - 1);
        if (more > 0) {
            int r = mg_read(req->conn, p + 1, more);
            got += r > 0 ? r : 0;
        }
    }
    bool whole = ex->content_length >= 0 && got > 0 && ex->body_read + got >= ex->content_length;
    if (got > 0) {
        ex->body_read += got;
        ex->body_done = whole;
        return got;
    }
    if (got == 0 && ex->content_length < 0) {
        ex->body_done = true;
        return 0;
    }
    ex->body_failed = true;
    return -1;
}

static bool media_type_is_json(const char *type) {
    size_t n = strcspn(type, "; \t");
    return (n == 16 && strncasecmp(type, "application/json", n) == 0) ||
           (n > 5 && strncasecmp(type + n - 5, "+json", 5) == 0);
}

/* cJSON recurses once per level: look at the depth before it does. */
static bool json_too_deep(const char *s, size_t n) {
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        if (in_string) {
            if (s[i] == '\\') {
                i++;
            } else if (s[i] == '"') {
                in_string = false;
            }
        } else if (s[i] == '"') {
            in_string = true;
        } else if (s[i] == '{' || s[i] == '[') {
            if (++depth > JSON_DEPTH_MAX) {
                return true;
            }
        } else if (s[i] == '}' || s[i] == ']') {
            depth--;
        }
    }
    return false;
}

static err_kind_t json_invalid(err_t *err, const char *why) {
    return err_setf(err, ERR_INVALID, "json_invalid", "The request body is not valid JSON: %s.", why);
}

static err_kind_t json_parse(const buf_t *body, bool allow_empty, cJSON **out, err_t *err) {
    if (body->len == 0) {
        if (!allow_empty) {
            return json_invalid(err, "it is empty");
        }
        *out = cJSON_CreateObject();
        return *out ? ERR_OK : err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    if (memchr(body->data, '\0', body->len) || !utf8_is_valid(body->data, body->len)) {
        return json_invalid(err, "it is not UTF-8 text");
    }
    if (json_too_deep(body->data, body->len)) {
        return json_invalid(err, "it is nested too deeply");
    }
    const char *end = NULL;
    cJSON *json = cJSON_ParseWithLengthOpts(body->data, body->len, &end, 0);
    if (!json) {
        return err_setf(err, ERR_INVALID, "json_invalid", "The request body is not valid JSON (near byte %zu).",
                        end ? (size_t)(end - body->data) : (size_t)0);
    }
    while (end < body->data + body->len && strchr(" \t\r\n", *end) && *end) {
        end++;
    }
    if (end != body->data + body->len || !cJSON_IsObject(json)) {
        cJSON_Delete(json);
        return json_invalid(err, "it must be one object");
    }
    *out = json;
    return ERR_OK;
}

err_kind_t http_read_json(http_request_t *req, size_t max, bool allow_empty, cJSON **out, err_t *err) {
    http_exchange_t *ex = http_exchange(req);
    char chunk[8192];
    buf_t body;
    *out = NULL;
    if (ex->content_length > 0 && (uint64_t)ex->content_length > max) {
        return err_setf(err, ERR_TOO_LARGE, "body_too_large", "The request body may have at most %zu bytes.", max);
    }
    const char *type = http_header(req, "Content-Type");
    if (ex->content_length != 0 && (!type || !media_type_is_json(type))) {
        return err_set(err, ERR_UNSUPPORTED, "media_type_unsupported", "Send the request body as application/json.",
                       NULL);
    }
    buf_init(&body, max);
    err_kind_t k = ERR_OK;
    int n;
    while ((n = http_read_body(req, chunk, sizeof chunk)) > 0) {
        buf_append(&body, chunk, (size_t)n);
        if (body.failed) {
            k = err_setf(err, ERR_TOO_LARGE, "body_too_large", "The request body may have at most %zu bytes.", max);
            goto out;
        }
    }
    if (n < 0) {
        k = err_set(err, ERR_INVALID, "body_incomplete", "The request body did not arrive completely.", NULL);
        goto out;
    }
    k = json_parse(&body, allow_empty, out, err);
out:
    buf_free(&body);
    return k;
}

/* ---- preconditions ---- */

bool http_etag_listed(const char *header, const char *etag, bool weak) {
    size_t want = strlen(etag);
    const char *p = header;
    while (*p) {
        p += strspn(p, ", \t");
        if (*p == '*') {
            return true;
        }
        bool is_weak = strncmp(p, "W/", 2) == 0;
        if (is_weak) {
            p += 2;
        }
        if (*p != '"') {
            /* Some clients send the tag without quotes. */
            size_t n = strcspn(p, ", \t");
            if (n == want && strncmp(p, etag, n) == 0) {
                return true;
            }
            p += n;
            continue;
        }
        p++;
        size_t n = strcspn(p, "\"");
        if (n == want && strncmp(p, etag, n) == 0 && (weak || !is_weak)) {
            return true;
        }
        p += n;
        if (*p == '"') {
            p++;
        }
    }
    return false;
}

err_kind_t http_check_if_match(http_request_t *req, const char *etag, err_t *err) {
    const char *header = http_header(req, "If-Match");
    if (!header || !*header) {
        return err_set(err, ERR_PRECONDITION, "if_match_required",
                       "Send the ETag that you read in an If-Match header, so that no other change is lost.", NULL);
    }
    if (!http_etag_listed(header, etag, true)) {
        return err_set(err, ERR_PRECONDITION, "version_mismatch",
                       "This was changed in the meantime. Load it again and repeat your change.", NULL);
    }
    return ERR_OK;
}

/* ---- cursors: base64url of "created_at|id" ---- */

char *http_cursor_make(http_request_t *req, const char *created_at, const char *id) {
    char *plain = arena_printf(req->arena, "%s|%s", created_at, id);
    if (!plain) {
        return NULL;
    }
    size_t n = strlen(plain);
    char *out = arena_alloc(req->arena, 4 * ((n + 2) / 3) + 1);
    if (!out) {
        return NULL;
    }
    int len = EVP_EncodeBlock((unsigned char *)out, (const unsigned char *)plain, (int)n);
    while (len > 0 && out[len - 1] == '=') {
        out[--len] = '\0';
    }
    for (char *p = out; *p; p++) {
        *p = (char)(*p == '+' ? '-' : *p == '/' ? '_' : *p);
    }
    return out;
}

/* Timestamps as PostgreSQL and RFC 3339 print them; nothing else reaches SQL. */
static bool looks_like_time(const char *s) {
    size_t n = strlen(s);
    return n >= 10 && n < 64 && strspn(s, "0123456789-:.+TZ ") == n && isdigit((unsigned char)s[0]);
}

err_kind_t http_cursor_parse(http_request_t *req, const char *cursor, char created_at[64], char id[37], err_t *err) {
    (void)req;
    char text[256];
    unsigned char plain[192];
    size_t n = strlen(cursor);
    if (n == 0 || n > 200 || strspn(cursor, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != n) {
        goto bad;
    }
    for (size_t i = 0; i < n; i++) {
        text[i] = (char)(cursor[i] == '-' ? '+' : cursor[i] == '_' ? '/' : cursor[i]);
    }
    size_t padded = n;
    while (padded % 4 != 0) {
        text[padded++] = '=';
    }
    int len = EVP_DecodeBlock(plain, (const unsigned char *)text, (int)padded);
    if (len < 0) {
        goto bad;
    }
    len -= (int)(padded - n);
    if (len <= 37 || (size_t)len >= sizeof plain) {
        goto bad;
    }
    plain[len] = '\0';
    char *bar = strchr((char *)plain, '|');
    if (!bar) {
        goto bad;
    }
    *bar = '\0';
    if (!looks_like_time((char *)plain) || !pg_is_uuid(bar + 1)) {
        goto bad;
    }
    memcpy(created_at, plain, strlen((char *)plain) + 1);
    memcpy(id, bar + 1, 37);
    return ERR_OK;
bad:
    return err_set(err, ERR_INVALID, "cursor_invalid",
                   "The “after” parameter is not a cursor that this server gave out.", NULL);
}
