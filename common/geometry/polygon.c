/*
 * Memory, binary form and GeoJSON of a geom_t (proto/polygons.md). Bytes from outside are never trusted: a count
 * is believed only when enough bytes follow to hold that many of the smallest possible elements.
 */
#include "polygon.h"

#include <stdlib.h>
#include <string.h>

enum {
    GEOM_VERSION = 1,
    POINT_BYTES = 8,
    RING_MIN_BYTES = 4 + 3 * POINT_BYTES,
    POLYGON_MIN_BYTES = 2 + RING_MIN_BYTES
};

static void polygon_clear(geom_polygon_t *p) {
    for (uint32_t i = 0; p->rings != NULL && i < p->count; i++) {
        free(p->rings[i].points);
    }
    free(p->rings);
    p->rings = NULL;
    p->count = 0;
}

void geom_free(geom_t *g) {
    if (g == NULL) {
        return;
    }
    for (uint32_t i = 0; g->polygons != NULL && i < g->count; i++) {
        polygon_clear(&g->polygons[i]);
    }
    free(g->polygons);
    g->polygons = NULL;
    g->count = 0;
}

geom_bbox_t geom_bbox(const geom_t *g) {
    geom_bbox_t b = {INT32_MAX, INT32_MAX, INT32_MIN, INT32_MIN};
    int any = 0;
    for (uint32_t i = 0; i < g->count; i++) {
        for (uint32_t k = 0; k < g->polygons[i].count; k++) {
            const geom_ring_t *r = &g->polygons[i].rings[k];
            for (uint32_t j = 0; j < r->count; j++) {
                geom_point_t q = r->points[j];
                any = 1;
                b.x0 = q.x < b.x0 ? q.x : b.x0;
                b.y0 = q.y < b.y0 ? q.y : b.y0;
                b.x1 = q.x > b.x1 ? q.x : b.x1;
                b.y1 = q.y > b.y1 ? q.y : b.y1;
            }
        }
    }
    return any ? b : (geom_bbox_t){0, 0, 0, 0};
}

int64_t geom_ring_area2(const geom_ring_t *r) {
    __int128 sum = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        geom_point_t a = r->points[i], b = r->points[i + 1 < r->count ? i + 1 : 0];
        sum += (__int128)a.x * b.y - (__int128)b.x * a.y;
    }
    /* Only a ring that spans the whole int32 range can be larger than int64: it is held at the limit. */
    if (sum > INT64_MAX) {
        return INT64_MAX;
    }
    return sum < INT64_MIN ? INT64_MIN : (int64_t)sum;
}

/* ---------------------------------------------------------------- binary form */

void geom_encode(const geom_t *g, buf_t *out) {
    if (g->count > UINT16_MAX) {
        out->failed = true;
        return;
    }
    buf_put_u8(out, GEOM_VERSION);
    buf_put_u8(out, 0);
    buf_put_u16le(out, (uint16_t)g->count);
    for (uint32_t i = 0; i < g->count; i++) {
        const geom_polygon_t *p = &g->polygons[i];
        if (p->count > UINT16_MAX) {
            out->failed = true;
            return;
        }
        buf_put_u16le(out, (uint16_t)p->count);
        for (uint32_t k = 0; k < p->count; k++) {
            const geom_ring_t *r = &p->rings[k];
            buf_put_u32le(out, r->count);
            for (uint32_t j = 0; j < r->count; j++) {
                buf_put_u32le(out, (uint32_t)r->points[j].x);
                buf_put_u32le(out, (uint32_t)r->points[j].y);
            }
        }
    }
}

typedef struct {
    const uint8_t *p;
    size_t left;
} reader_t;

static uint16_t read_u16(reader_t *in) {
    uint16_t v = (uint16_t)(in->p[0] | in->p[1] << 8);
    in->p += 2;
    in->left -= 2;
    return v;
}

static uint32_t read_u32(reader_t *in) {
    uint32_t v = (uint32_t)in->p[0] | (uint32_t)in->p[1] << 8 | (uint32_t)in->p[2] << 16 | (uint32_t)in->p[3] << 24;
    in->p += 4;
    in->left -= 4;
    return v;
}

static err_kind_t corrupt(const reader_t *in, size_t n, const char *what, err_t *err) {
    return err_set(err, ERR_INVALID, "geometry_corrupt", "The stored outline is damaged and cannot be read.",
                   "%s at byte %zu of %zu", what, n - in->left, n);
}

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is short of memory; please try again.", "geometry");
}

static err_kind_t decode_ring(reader_t *in, size_t n, geom_ring_t *r, err_t *err) {
    if (in->left < RING_MIN_BYTES) {
        return corrupt(in, n, "ring cut short", err);
    }
    uint32_t count = read_u32(in);
    if (count < 3 || count > in->left / POINT_BYTES) {
        return corrupt(in, n, "point count", err);
    }
    r->points = malloc(count * sizeof *r->points);
    if (r->points == NULL) {
        return no_memory(err);
    }
    r->count = count;
    for (uint32_t j = 0; j < count; j++) {
        r->points[j].x = (int32_t)read_u32(in);
        r->points[j].y = (int32_t)read_u32(in);
    }
    return ERR_OK;
}

static err_kind_t decode_polygon(reader_t *in, size_t n, geom_polygon_t *p, err_t *err) {
    if (in->left < POLYGON_MIN_BYTES) {
        return corrupt(in, n, "polygon cut short", err);
    }
    uint16_t count = read_u16(in);
    if (count < 1 || count > in->left / RING_MIN_BYTES) {
        return corrupt(in, n, "ring count", err);
    }
    p->rings = calloc(count, sizeof *p->rings);
    if (p->rings == NULL) {
        return no_memory(err);
    }
    p->count = count;
    for (uint32_t k = 0; k < count; k++) {
        err_kind_t kind = decode_ring(in, n, &p->rings[k], err);
        if (kind != ERR_OK) {
            return kind;
        }
    }
    return ERR_OK;
}

err_kind_t geom_decode(const uint8_t *data, size_t n, geom_t *out, err_t *err) {
    reader_t in = {data, n};
    *out = (geom_t){NULL, 0};
    if (n < 4) {
        return corrupt(&in, n, "header cut short", err);
    }
    if (data[0] != GEOM_VERSION || data[1] != 0) {
        return corrupt(&in, n, "version", err);
    }
    in.p += 2;
    in.left -= 2;
    uint16_t count = read_u16(&in);
    if (count > in.left / POLYGON_MIN_BYTES) {
        return corrupt(&in, n, "polygon count", err);
    }
    if (count > 0) {
        out->polygons = calloc(count, sizeof *out->polygons);
        if (out->polygons == NULL) {
            return no_memory(err);
        }
        out->count = count;
    }
    err_kind_t kind = ERR_OK;
    for (uint32_t i = 0; i < count && kind == ERR_OK; i++) {
        kind = decode_polygon(&in, n, &out->polygons[i], err);
    }
    if (kind == ERR_OK && in.left != 0) {
        kind = corrupt(&in, n, "bytes after the end", err);
    }
    if (kind != ERR_OK) {
        geom_free(out);
    }
    return kind;
}

/* ---------------------------------------------------------------- GeoJSON */

/* By integers only: several times faster than printf. */
size_t geom_format_units(int32_t v, char out[16]) {
    char digits[16];
    size_t n = 0, len = 0;
    uint32_t u = v < 0 ? 0U - (uint32_t)v : (uint32_t)v;
    uint32_t whole = u / GEOM_UNITS_PER_PX, part = u % GEOM_UNITS_PER_PX;
    if (v < 0) {
        out[len++] = '-';
    }
    do {
        digits[n++] = (char)('0' + whole % 10);
        whole /= 10;
    } while (whole > 0);
    while (n > 0) {
        out[len++] = digits[--n];
    }
    if (part > 0) {
        out[len++] = '.';
        out[len++] = (char)('0' + part / 10);
        if (part % 10 > 0) {
            out[len++] = (char)('0' + part % 10);
        }
    }
    return len;
}

static void write_point(geom_point_t p, int comma, buf_t *out) {
    char text[48];
    size_t len = 0;
    if (comma) {
        text[len++] = ',';
    }
    text[len++] = '[';
    len += geom_format_units(p.x, text + len);
    text[len++] = ',';
    len += geom_format_units(p.y, text + len);
    text[len++] = ']';
    buf_append(out, text, len);
}

static void write_polygon(const geom_polygon_t *p, buf_t *out) {
    buf_puts(out, "[");
    for (uint32_t k = 0; k < p->count; k++) {
        const geom_ring_t *r = &p->rings[k];
        buf_puts(out, k > 0 ? ",[" : "[");
        for (uint32_t j = 0; j < r->count; j++) {
            write_point(r->points[j], j > 0, out);
        }
        if (r->count > 0) {
            write_point(r->points[0], 1, out);
        }
        buf_puts(out, "]");
    }
    buf_puts(out, "]");
}

void geom_write_geojson(const geom_t *g, buf_t *out) {
    if (g->count == 1) {
        buf_puts(out, "{\"type\":\"Polygon\",\"coordinates\":");
        write_polygon(&g->polygons[0], out);
    } else {
        buf_puts(out, "{\"type\":\"MultiPolygon\",\"coordinates\":[");
        for (uint32_t i = 0; i < g->count; i++) {
            if (i > 0) {
                buf_puts(out, ",");
            }
            write_polygon(&g->polygons[i], out);
        }
        buf_puts(out, "]");
    }
    buf_puts(out, "}");
}
