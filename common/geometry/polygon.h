/*
 * Polygons with holes on a grid of 1/100 px (proto/polygons.md): types, the binary form, GeoJSON, validity.
 * A geom_t is one object: one or more polygons, each an outer ring and its holes. Memory belongs to the geom_t.
 * Thread-safe as long as one geom_t is used by one thread.
 */
#ifndef SG_GEOMETRY_POLYGON_H
#define SG_GEOMETRY_POLYGON_H

#include <stddef.h>
#include <stdint.h>

#include "../buf.h"
#include "../err.h"

#define GEOM_UNITS_PER_PX 100

typedef struct {
    int32_t x, y;
} geom_point_t; /* 1/100 px */
typedef struct {
    geom_point_t *points;
    uint32_t count;
} geom_ring_t; /* open: the first point is not repeated */
typedef struct {
    geom_ring_t *rings;
    uint32_t count;
} geom_polygon_t; /* rings[0] outer, the others holes */
typedef struct {
    geom_polygon_t *polygons;
    uint32_t count;
} geom_t;

void geom_free(geom_t *g);

/* Bounds in 1/100 px; an empty geometry gives zeros. */
typedef struct {
    int32_t x0, y0, x1, y1;
} geom_bbox_t;
geom_bbox_t geom_bbox(const geom_t *g);

/* Twice the signed area of a ring, in (1/100 px)². Exact (128-bit inside); positive = outer orientation. */
int64_t geom_ring_area2(const geom_ring_t *r);

void geom_encode(const geom_t *g, buf_t *out);
/* Bounded: refuses sizes that the bytes cannot hold. ERR_INVALID "geometry_corrupt". */
ERR_MUST err_kind_t geom_decode(const uint8_t *data, size_t n, geom_t *out, err_t *err);

/* v/100 as text with at most two decimals and no needless zeros ("-0.5", "12", "3.07"); exact. out holds 16 bytes and
 * gets no NUL; returns the length (at most 12). */
size_t geom_format_units(int32_t v, char out[16]);

/* Writes {"type":"Polygon"|"MultiPolygon","coordinates":…} with closed rings and at most two decimals. */
void geom_write_geojson(const geom_t *g, buf_t *out);

/* True when no ring crosses itself or another of the object, and holes lie inside their outer ring. O(n log n) typical.
 */
int geom_is_valid(const geom_t *g);

#endif
