/*
 * A request as the gateway's own layer sees it, on arbitrary headers and bodies: "query \n headers \n\n body". The web
 * server underneath is replaced by the functions below. Checked are the lengths, the headers that the layer takes apart
 * itself, query parameters, cursors, and a JSON body down to the fields of a segmentation request.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "gateway/http_internal.h"
#include "gateway/proxy.h"
#include "gateway/routes/route_util.h"
#include "gateway/routes/submit.h"
#include "gateway/server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- the web server ---- */

static struct mg_request_info info;
static const char *body;
static size_t body_len;

const struct mg_request_info *mg_get_request_info(const struct mg_connection *conn) {
    (void)conn;
    return &info;
}

const char *mg_get_header(const struct mg_connection *conn, const char *name) {
    (void)conn;
    for (int i = 0; i < info.num_headers; i++) {
        if (strcasecmp(info.http_headers[i].name, name) == 0) {
            return info.http_headers[i].value;
        }
    }
    return NULL;
}

int mg_read(struct mg_connection *conn, void *buf, size_t len) {
    (void)conn;
    size_t n = len < body_len ? len : body_len;
    memcpy(buf, body, n);
    body += n;
    body_len -= n;
    return (int)n;
}

int mg_write(struct mg_connection *conn, const void *buf, size_t len) {
    (void)conn;
    (void)buf;
    return (int)len;
}

void mg_disable_connection_keep_alive(struct mg_connection *conn) {
    (void)conn;
}

SSL *server_connection_tls(const struct mg_connection *conn) {
    (void)conn;
    return NULL;
}

bool server_is_draining(const server_t *s) {
    (void)s;
    return false;
}

bool server_is_crowded(const server_t *s) {
    (void)s;
    return false;
}

/* ---- the checks ---- */

static void check_headers(http_request_t *req) {
    int64_t first = 0;
    int64_t last = 0;
    const char *range = http_header(req, "Range");
    if (range && http_range_parse(range, 1000, &first, &last) == HTTP_RANGE_OK &&
        (first < 0 || first > last || last >= 1000)) {
        abort();
    }
    const char *match = http_header(req, "If-None-Match");
    if (match) {
        (void)http_etag_listed(match, "abc", true);
        (void)http_etag_listed(match, "abc", false);
    }
    (void)!http_check_if_match(req, "abc", NULL);
}

static void check_query(http_request_t *req) {
    int64_t number = 0;
    bool yes = false;
    char created[64];
    char id[37];
    route_page_t page;
    err_t err;
    if (http_query_int(req, "n", 3, -5, 5, &number, &err) == ERR_OK && (number < -5 || number > 5)) {
        abort();
    }
    (void)!http_query_bool(req, "b", false, &yes, &err);
    const char *after = http_query(req, "after");
    if (after && http_cursor_parse(req, after, created, id, &err) == ERR_OK && !pg_is_uuid(id)) {
        abort();
    }
    if (route_page_parse(req, &page, &err) == ERR_OK && (page.limit < 1 || page.limit > ROUTE_PAGE_MAX)) {
        abort();
    }
}

static void check_body(http_request_t *req) {
    static const char *const known[] = {"a", "b", NULL};
    cJSON *json = NULL;
    submit_request_t sr;
    const char *text = NULL;
    double number = NAN;
    bool present = false;
    bool yes = false;
    err_t err;
    if (http_read_json(req, ROUTE_BODY_MAX, true, &json, &err) != ERR_OK) {
        if (json || err.code[0] == '\0') {
            abort();
        }
        return;
    }
    submit_defaults(&sr);
    if (submit_parse(json, &sr, &err) == ERR_OK &&
        (sr.priority < 1 || sr.priority > 10 || (!isnan(sr.threshold) && !(sr.threshold >= 0 && sr.threshold <= 1)) ||
         sr.detect_holes < -1 || sr.detect_holes > 1)) {
        abort();
    }
    if (route_field_text(json, "a", 2, 5, false, &present, &text, &err) == ERR_OK && present && strlen(text) > 20) {
        abort();
    }
    if (route_field_number(json, "b", -1, 1, true, false, &present, &number, &err) == ERR_OK && present &&
        (number < -1 || number > 1 || number != floor(number))) {
        abort();
    }
    (void)!route_field_bool(json, "c", &present, &yes, &err);
    (void)!route_only_fields(json, known, &err);
    cJSON_Delete(json);
}

static void serve(void) {
    static config_t cfg;
    static proxy_list_t *proxies;
    static gateway_t gw;
    http_exchange_t ex;
    err_t err;
    if (!proxies && proxy_list_parse("10.0.0.0/8", &proxies, &err) != ERR_OK) {
        abort();
    }
    gw.cfg = &cfg;
    gw.proxies = proxies;
    if (http_exchange_init(&ex, &gw, (struct mg_connection *)(void *)&info, &err) == ERR_OK) {
        if (ex.req.remote[0] == '\0') {
            abort();
        }
        ex.req.path = "/";
        if (info.query_string) {
            (void)http_percent_decode(ex.req.arena, info.query_string, strlen(info.query_string), true);
            check_query(&ex.req);
        }
        check_headers(&ex.req);
        check_body(&ex.req);
    }
    http_exchange_finish(&ex);
}

/* Cuts one line off *text. */
static char *line_of(char **text) {
    char *line = *text;
    char *end = strchr(line, '\n');
    *text = end ? end + 1 : line + strlen(line);
    if (end) {
        *end = '\0';
    }
    return line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *copy = malloc(size + 1);
    if (!copy) {
        return 0;
    }
    memcpy(copy, data, size);
    copy[size] = '\0';
    char *text = copy;
    memset(&info, 0, sizeof info);
    info.request_method = "POST";
    info.content_length = -1;
    memcpy(info.remote_addr, "10.0.0.1", 9);
    info.query_string = line_of(&text);
    while (info.num_headers < MG_MAX_HEADERS) {
        char *line = line_of(&text);
        char *colon = strchr(line, ':');
        if (!colon) {
            break;
        }
        *colon = '\0';
        info.http_headers[info.num_headers].name = line;
        info.http_headers[info.num_headers++].value = colon + 1 + (colon[1] == ' ');
        if (strcasecmp(line, "Content-Length") == 0) {
            info.content_length = strtoll(colon + 1, NULL, 10);
        }
    }
    body = text;
    body_len = size - (size_t)(text - copy);
    serve();
    free(copy);
    return 0;
}
