/*
 * GeoJSON as QuPath reads it: a FeatureCollection in pixel units whose features carry objectType, classification
 * and measurements. QuPath wants UUIDs as ids; they are derived from the object's number and outline, so that the
 * same result gives the same file.
 */
#include "segworker/output/text.h"

/* FNV-1a (Fowler, Noll, Vo), 64 bit: no secret is involved, only a stable name is needed. */
static uint64_t hash_bytes(uint64_t h, const void *data, size_t n) {
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ p[i]) * 0x100000001b3U;
    }
    return h;
}

static uint64_t hash_object(uint64_t seed, const result_object_t *obj) {
    uint64_t h = hash_bytes(0xcbf29ce484222325U ^ seed, &obj->idx, sizeof obj->idx);
    for (uint32_t i = 0; i < obj->geom.count; i++) {
        for (uint32_t k = 0; k < obj->geom.polygons[i].count; k++) {
            const geom_ring_t *ring = &obj->geom.polygons[i].rings[k];
            h = hash_bytes(h, &ring->count, sizeof ring->count);
            h = hash_bytes(h, ring->points, ring->count * sizeof *ring->points);
        }
    }
    return h;
}

/* A version 8 (vendor-defined) UUID, RFC 9562. */
static void write_id(const result_object_t *obj, buf_t *out) {
    uint64_t a = hash_object(0, obj), b = hash_object(0x9e3779b97f4a7c15U, obj);
    buf_printf(out, "\"%08x-%04x-8%03x-%04x-%04x%08x\"", (unsigned)(a >> 32), (unsigned)(a >> 16 & 0xFFFF),
               (unsigned)(a & 0xFFF), (unsigned)(0x8000 | (b >> 48 & 0x3FFF)), (unsigned)(b >> 32 & 0xFFFF),
               (unsigned)(b & 0xFFFFFFFF));
}

static void write_feature(const result_object_t *obj, const output_options_t *o, buf_t *out) {
    buf_puts(out, "{\"type\":\"Feature\",\"id\":");
    write_id(obj, out);
    buf_puts(out, ",\"geometry\":");
    geom_write_geojson(&obj->geom, out);
    buf_puts(out, ",\"properties\":{\"objectType\":");
    text_json_string(o->object_type != NULL ? o->object_type : "annotation", out);
    if (o->classification != NULL) {
        buf_puts(out, ",\"classification\":{\"name\":");
        text_json_string(o->classification, out);
        buf_puts(out, "}");
    }
    buf_printf(out, ",\"idx\":%u,\"confidence\":", (unsigned)obj->idx);
    text_number(obj->confidence, 4, out);
    buf_puts(out, ",\"measurements\":");
    measure_write_json(&obj->m, out);
    buf_puts(out, "}}");
}

void text_write_geojson(const result_t *r, const output_options_t *o, text_sink_t *s) {
    buf_puts(s->buf, "{\"type\":\"FeatureCollection\",\"features\":[");
    for (uint32_t i = 0; i < r->count; i++) {
        buf_puts(s->buf, i > 0 ? ",\n" : "\n");
        write_feature(&r->objects[i], o, s->buf);
        text_flush(s, false);
    }
    buf_puts(s->buf, "\n]}\n");
    text_flush(s, true);
}
