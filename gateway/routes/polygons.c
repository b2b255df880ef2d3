/*
 * The objects of an image's current result, by viewport and page, as GeoJSON or in the binary form of
 * proto/polygons.md.
 *
 * A page may hold 20,000 objects, tens of megabytes: it is read from the database in small portions, each written to
 * the client before the next is read, and no connection of the pool is held while a slow client reads. That is safe
 * because the objects of a segmentation never change; if the result is deleted half-way, the answer breaks off.
 *
 * For the same reason a page that was made once is kept in Redis (common/cache.h) under its ETag, if it is not large:
 * result and parameters are all that it depends on. Whether the image is the caller's is looked up each time.
 */
#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/cache.h"
#include "common/geometry/polygon.h"
#include "common/hash.h"
#include "common/log.h"
#include "gateway/http_stream.h"
#include "images.h"
#include "route_util.h"

enum { PORTION = 256, LIMIT_MAX = 20000, LIMIT_DEFAULT = 1000, KEEPERS_MAX = 8 };
#define FLUSH_AT ((size_t)65536)
#define BUFFER_CAP ((size_t)256 << 20)

typedef struct {
    char segmentation_id[37];
    bool binary, measurements, has_bbox;
    double pixel_um;            /* 0: unknown */
    int64_t limit, after, last; /* idx of the page's last object */
    int64_t count;              /* objects of this page */
    int64_t total;              /* objects of the whole result */
    bool more;
    char bbox[4][32];
} query_t;

#define IN_PAGE                                                                                                        \
    " FROM objects WHERE segmentation_id = $1 AND idx > $2::int AND ($3::float8 IS NULL OR bbox && "                   \
    "box(point($3::float8, $4::float8), point($5::float8, $6::float8))) "

static err_kind_t parse_bbox(const char *text, query_t *q, err_t *err) {
    double v[4];
    const char *p = text;
    for (int i = 0; i < 4; i++) {
        char *end = NULL;
        v[i] = strtod(p, &end);
        if (end == p || !(fabs(v[i]) <= 1e9) || *end != (i < 3 ? ',' : '\0')) {
            return err_set(err, ERR_INVALID, "parameter_invalid", "The parameter “bbox” must be x0,y0,x1,y1 in px.",
                           NULL);
        }
        p = end + 1;
        snprintf(q->bbox[i], sizeof q->bbox[i], "%.17g", v[i]);
    }
    if (v[0] > v[2] || v[1] > v[3]) {
        return err_set(err, ERR_INVALID, "parameter_invalid", "The parameter “bbox” must have x0 <= x1 and y0 <= y1.",
                       NULL);
    }
    q->has_bbox = true;
    return ERR_OK;
}

static err_kind_t parse_query(http_request_t *req, query_t *q, err_t *err) {
    const char *format = http_query(req, "format");
    const char *bbox = http_query(req, "bbox");
    memset(q, 0, sizeof *q);
    if (format && strcmp(format, "geojson") != 0 && strcmp(format, "binary") != 0) {
        return err_set(err, ERR_INVALID, "parameter_invalid", "The parameter “format” must be geojson or binary.",
                       NULL);
    }
    q->binary = format && strcmp(format, "binary") == 0;
    err_kind_t kind = http_query_int(req, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX, &q->limit, err);
    if (kind == ERR_OK) {
        kind = http_query_int(req, "after", 0, 0, INT32_MAX, &q->after, err);
    }
    if (kind == ERR_OK) {
        kind = http_query_bool(req, "measurements", true, &q->measurements, err);
    }
    if (kind == ERR_OK && bbox) {
        kind = parse_bbox(bbox, q, err);
    }
    return kind;
}

/* Which objects make up this page? */
static err_kind_t find_page(http_request_t *req, query_t *q, err_t *err) {
    static const char sql[] =
        "WITH page AS (SELECT idx, row_number() OVER (ORDER BY idx) AS n" IN_PAGE
        "ORDER BY idx LIMIT $7::bigint + 1) SELECT count(*) FILTER (WHERE n <= $7::bigint) AS n, "
        "max(idx) FILTER (WHERE n <= $7::bigint) AS last, COALESCE(bool_or(n > $7::bigint), false) AS more, "
        "(SELECT object_count FROM segmentations WHERE id = $1) AS total FROM page";
    char after[24], limit[24];
    snprintf(after, sizeof after, "%" PRId64, q->after);
    snprintf(limit, sizeof limit, "%" PRId64, q->limit);
    const bool b = q->has_bbox;
    const char *const params[] = {
        q->segmentation_id,    after, b ? q->bbox[0] : NULL, b ? q->bbox[1] : NULL, b ? q->bbox[2] : NULL,
        b ? q->bbox[3] : NULL, limit};
    PGresult *res = NULL;
    err_kind_t kind = pg_query(req->gw->pg, sql, 7, params, &res, err);
    if (kind == ERR_OK) {
        q->count = pg_get_int(res, 0, "n", 0);
        q->last = pg_get_int(res, 0, "last", 0);
        q->more = pg_get_bool(res, 0, "more");
        q->total = pg_get_int(res, 0, "total", 0);
    }
    PQclear(res);
    return kind;
}

static err_kind_t read_portion(http_request_t *req, const query_t *q, int64_t after_idx, PGresult **res, err_t *err) {
    static const char sql[] = "SELECT idx, area, confidence, encode(geometry, 'hex') AS geometry, "
                              "CASE WHEN $9::boolean THEN measurements END AS measurements" IN_PAGE
                              "AND idx <= $7::int ORDER BY idx LIMIT $8::int";
    char after[24], last[24], portion[16];
    snprintf(after, sizeof after, "%" PRId64, after_idx);
    snprintf(last, sizeof last, "%" PRId64, q->last);
    snprintf(portion, sizeof portion, "%d", PORTION);
    const bool b = q->has_bbox;
    const char *const params[] = {q->segmentation_id,
                                  after,
                                  b ? q->bbox[0] : NULL,
                                  b ? q->bbox[1] : NULL,
                                  b ? q->bbox[2] : NULL,
                                  b ? q->bbox[3] : NULL,
                                  last,
                                  portion,
                                  q->measurements && !q->binary ? "true" : "false"};
    return pg_query(req->gw->pg, sql, 9, params, res, err);
}

/* Lengths and areas in µm and µm², under the same keys; what has no unit of length is not repeated. */
static void write_um(const char *measurements, double um, buf_t *out) {
    static const char *const lengths[] = {
        "perimeter",       "perimeterWithHoles", "equivalentDiameter", "feretMax", "feretMin",
        "feretOrthogonal", "majorAxis",          "minorAxis",          "bboxX",    "bboxY",
        "bboxWidth",       "bboxHeight",         "centroidX",          "centroidY"};
    static const char *const areas[] = {"area", "areaFilled"};
    cJSON *json = cJSON_Parse(measurements);
    const char *comma = "";
    buf_puts(out, ",\"measurementsUm\":{");
    for (size_t i = 0; i < sizeof areas / sizeof areas[0] + sizeof lengths / sizeof lengths[0]; i++) {
        const bool area = i < sizeof areas / sizeof areas[0];
        const char *key = area ? areas[i] : lengths[i - sizeof areas / sizeof areas[0]];
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
        if (cJSON_IsNumber(item)) {
            buf_printf(out, "%s\"%s\":%.7g", comma, key, item->valuedouble * (area ? um * um : um));
            comma = ",";
        }
    }
    buf_puts(out, "}");
    cJSON_Delete(json);
}

static err_kind_t write_feature(const query_t *q, const PGresult *res, int row, const uint8_t *bytes, size_t n,
                                bool first, buf_t *out, err_t *err) {
    geom_t g = {0};
    const char *idx = pg_get(res, row, "idx");
    const char *measurements = pg_get(res, row, "measurements");
    err_kind_t kind = geom_decode(bytes, n, &g, err);
    if (kind != ERR_OK) {
        return kind;
    }
    buf_printf(out, "%s{\"type\":\"Feature\",\"id\":%s,\"geometry\":", first ? "" : ",", idx);
    geom_write_geojson(&g, out);
    geom_free(&g);
    buf_printf(out, ",\"properties\":{\"idx\":%s,\"confidence\":%s", idx, pg_get(res, row, "confidence"));
    if (measurements) {
        buf_puts(out, ",\"measurements\":");
        buf_puts(out, measurements);
        if (q->pixel_um > 0) {
            write_um(measurements, q->pixel_um, out);
        }
    }
    buf_puts(out, "}}");
    return ERR_OK;
}

static err_kind_t write_object(const query_t *q, const PGresult *res, int row, bool first, buf_t *scratch, buf_t *out,
                               err_t *err) {
    const char *hex = pg_get(res, row, "geometry");
    const size_t n = strlen(hex) / 2;
    static const char zeros[4096] = {0};
    buf_reset(scratch);
    for (size_t room = 0; room < n; room += sizeof zeros) {
        buf_append(scratch, zeros, sizeof zeros);
    }
    if (scratch->failed) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    uint8_t *bytes = (uint8_t *)scratch->data;
    if (n == 0 || !hash_hex_decode(hex, bytes, n)) {
        return err_set(err, ERR_INTERNAL, "geometry_corrupt", "The stored outline is damaged and cannot be read.",
                       NULL);
    }
    if (!q->binary) {
        return write_feature(q, res, row, bytes, n, first, out, err);
    }
    buf_put_u32le(out, (uint32_t)pg_get_int(res, row, "idx", 0));
    buf_put_f32le(out, (float)pg_get_real(res, row, "area", 0));
    buf_put_f32le(out, (float)pg_get_real(res, row, "confidence", 0));
    buf_put_u32le(out, (uint32_t)n);
    buf_append(out, bytes, n);
    return ERR_OK;
}

static void write_head(const query_t *q, buf_t *out) {
    if (q->binary) {
        buf_append(out, "SGP1", 4);
        buf_put_u32le(out, (uint32_t)q->count);
        return;
    }
    buf_printf(out, "{\"type\":\"FeatureCollection\",\"segmentationId\":\"%s\",\"total\":%" PRId64 ",\"nextAfter\":",
               q->segmentation_id, q->total);
    if (q->more) {
        buf_printf(out, "%" PRId64, q->last);
    } else {
        buf_puts(out, "null");
    }
    buf_puts(out, ",\"features\":[");
}

/* Writes what is in out, and remembers it as long as it is small enough to be kept. */
static bool emit(http_request_t *req, const buf_t *out, buf_t *kept) {
    buf_append(kept, out->data, out->len);
    if (kept->failed) {
        buf_free(kept); /* a part of a page must never be taken for it */
        kept->failed = true;
    }
    return http_stream_write(req, out->data, out->len);
}

/* Writes one portion; *after is the last idx written. */
static err_kind_t send_portion(http_request_t *req, const query_t *q, const PGresult *res, int64_t *sent,
                               buf_t *scratch, buf_t *kept, buf_t *out, err_t *err) {
    for (int i = 0; i < PQntuples(res); i++) {
        err_kind_t kind = write_object(q, res, i, *sent == 0, scratch, out, err);
        if (kind == ERR_OK && out->failed) {
            kind = err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
        }
        if (kind != ERR_OK) {
            return kind;
        }
        ++*sent;
        if (out->len >= FLUSH_AT) {
            if (!emit(req, out, kept)) {
                return err_set(err, ERR_IO, "client_gone", "The client went away.", NULL);
            }
            buf_reset(out);
        }
    }
    return ERR_OK;
}

/* first: the first portion, read before the answer began so that a database that is away still gives a 503. name: under
 * which the page is kept; NULL: it is not. */
static void send_page(http_request_t *req, const query_t *q, PGresult *first, const char *name) {
    buf_t out, scratch, kept;
    err_t err = {0};
    err_kind_t kind = ERR_OK;
    int64_t sent = 0;
    PGresult *res = first;
    buf_init(&out, BUFFER_CAP);
    buf_init(&scratch, BUFFER_CAP);
    buf_init(&kept, name ? CACHE_ENTRY_MAX : 0);
    buf_printf(&kept, "%" PRId64 "\n", q->more ? q->last : (int64_t)-1);
    write_head(q, &out);
    while (kind == ERR_OK && res && PQntuples(res) > 0) {
        kind = send_portion(req, q, res, &sent, &scratch, &kept, &out, &err);
        const int64_t after = pg_get_int(res, PQntuples(res) - 1, "idx", q->last);
        if (res != first) {
            PQclear(res);
        }
        res = NULL;
        if (kind == ERR_OK && after < q->last) {
            kind = read_portion(req, q, after, &res, &err);
        }
    }
    if (res != first) {
        PQclear(res);
    }
    if (kind == ERR_OK && sent != q->count) {
        kind = err_set(&err, ERR_CONFLICT, "result_deleted", "The result was deleted while it was read.", NULL);
    }
    if (kind == ERR_OK) {
        buf_puts(&out, q->binary ? "" : "]}");
        kind = !out.failed && emit(req, &out, &kept) ? ERR_OK : ERR_IO;
    }
    const bool is_head = strcmp(req->method, "HEAD") == 0;
    if (kind != ERR_OK && kind != ERR_IO && !is_head) {
        log_error(LOG_WARN, "polygons broke off", &err);
    }
    http_stream_end(req, kind == ERR_OK || is_head);
    if (kind == ERR_OK && name && !kept.failed) {
        cache_put(req->gw->cfg, req->gw->rds, name, kept.data, kept.len);
    }
    buf_free(&kept);
    buf_free(&scratch);
    buf_free(&out);
}

/* The result's id and everything that shapes the answer. */
static const char *make_etag(http_request_t *req, const query_t *q) {
    char text[256];
    snprintf(text, sizeof text, "%d %d %.17g %" PRId64 " %" PRId64 " %s,%s,%s,%s", q->binary, q->measurements,
             q->pixel_um, q->limit, q->after, q->bbox[0], q->bbox[1], q->bbox[2], q->bbox[3]);
    return arena_printf(req->arena, "%s-%016" PRIx64, q->segmentation_id, route_hash(text, strlen(text), 0));
}

static const char *media_type(const query_t *q) {
    return q->binary ? "application/vnd.spheroseg.polygons" : "application/geo+json";
}

/* Whole pages in memory: no more than KEEPERS_MAX at a time in this gateway, others go past the cache. */
static atomic_int keepers;

static bool keepers_enter(const config_t *cfg) {
    if (!cache_is_on(cfg)) {
        return false;
    }
    if (atomic_fetch_add(&keepers, 1) < KEEPERS_MAX) {
        return true;
    }
    atomic_fetch_sub(&keepers, 1);
    return false;
}

/* Answers with the page that was kept under the name. False: there is none. */
static bool reply_kept(http_request_t *req, const query_t *q, const char *name) {
    buf_t kept;
    char *body = NULL;
    buf_init(&kept, CACHE_ENTRY_MAX);
    const bool found = cache_get(req->gw->cfg, req->gw->rds, "polygons", name, &kept);
    const int64_t next = found ? strtoll(kept.data, &body, 10) : 0;
    const bool fine = found && body != kept.data && *body == '\n';
    if (fine) {
        char text[24];
        http_add_header(req, "X-Cache", "HIT");
        snprintf(text, sizeof text, "%" PRId64, next);
        if (next >= 0) {
            http_add_header(req, "X-Next-After", text);
        }
        body++;
        (void)http_reply_text(req, 200, media_type(q), body, kept.len - (size_t)(body - kept.data));
    }
    buf_free(&kept);
    return fine;
}

/* name: NULL = the page is not kept. */
static err_kind_t make_page(http_request_t *req, query_t *q, const char *name, err_t *err) {
    PGresult *res = NULL;
    err_kind_t kind = find_page(req, q, err);
    if (kind == ERR_OK) {
        kind = read_portion(req, q, q->after, &res, err);
    }
    if (kind == ERR_OK) {
        char next[24];
        if (q->more) {
            snprintf(next, sizeof next, "%" PRId64, q->last);
            http_add_header(req, "X-Next-After", next);
        }
        if (cache_is_on(req->gw->cfg)) {
            http_add_header(req, "X-Cache", "MISS");
        }
        http_stream_begin(req, media_type(q));
        send_page(req, q, res, name);
    }
    PQclear(res);
    return kind;
}

static err_kind_t image_polygons(http_request_t *req, err_t *err) {
    query_t q;
    PGresult *image = NULL;
    err_kind_t kind = images_find_file(req, req->params[0], &image, err);
    if (kind == ERR_OK) {
        kind = parse_query(req, &q, err);
    }
    if (kind == ERR_OK && !pg_get(image, 0, "current_segmentation_id")) {
        kind = err_set(err, ERR_NOT_FOUND, "not_segmented", "This image has no result yet.", NULL);
    }
    if (kind == ERR_OK) {
        snprintf(q.segmentation_id, sizeof q.segmentation_id, "%s", pg_get(image, 0, "current_segmentation_id"));
        q.pixel_um = pg_get_real(image, 0, "pixel_size_um", 0);
    }
    PQclear(image);
    if (kind != ERR_OK) {
        return kind;
    }
    const char *etag = make_etag(req, &q);
    if (!etag) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    if (http_stream_not_modified(req, etag)) {
        return ERR_OK;
    }
    const bool keeps = keepers_enter(req->gw->cfg);
    if (!keeps || !reply_kept(req, &q, etag)) {
        kind = make_page(req, &q, keeps ? etag : NULL, err);
    }
    if (keeps) {
        atomic_fetch_sub(&keepers, 1);
    }
    return kind;
}

const http_route_t routes_polygons[] = {
    {"GET", "/api/images/{imageId}/polygons", image_polygons, 0},
    {NULL, NULL, NULL, 0},
};
