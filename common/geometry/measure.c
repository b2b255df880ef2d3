/*
 * Measurements of one object (proto/polygons.md). Areas and moments come from the polygon itself by Green's theorem,
 * exact up to rounding: no pixel is counted, except for the intensities.
 */
#include "measure.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hull.h"
#include "inscribed.h"
#include "raster.h"

#define PI 3.14159265358979323846

/* Integrals over the area inside rings: 1, x, y, x², xy, y². */
typedef struct {
    double a, x, y, xx, xy, yy;
} moments_t;

typedef struct {
    moments_t m;
    double filled, outer_length, hole_length;
    size_t outer_points;
} sums_t;

/* Adds one ring; coordinates are taken relative to (ox, oy), in px, to keep the sums small. Outer rings count
 * positive and holes negative whichever way they run. */
static void add_ring(const geom_ring_t *r, int hole, double ox, double oy, sums_t *s) {
    moments_t m = {0};
    double length = 0;
    for (uint32_t j = 0; j < r->count; j++) {
        geom_point_t p = r->points[j], q = r->points[j + 1 < r->count ? j + 1 : 0];
        double x0 = (double)p.x / GEOM_UNITS_PER_PX - ox, y0 = (double)p.y / GEOM_UNITS_PER_PX - oy;
        double x1 = (double)q.x / GEOM_UNITS_PER_PX - ox, y1 = (double)q.y / GEOM_UNITS_PER_PX - oy;
        double c = x0 * y1 - x1 * y0;
        m.a += c / 2;
        m.x += c * (x0 + x1) / 6;
        m.y += c * (y0 + y1) / 6;
        m.xx += c * (x0 * x0 + x0 * x1 + x1 * x1) / 12;
        m.yy += c * (y0 * y0 + y0 * y1 + y1 * y1) / 12;
        m.xy += c * (2 * x0 * y0 + x0 * y1 + x1 * y0 + 2 * x1 * y1) / 24;
        length += sqrt((x1 - x0) * (x1 - x0) + (y1 - y0) * (y1 - y0));
    }
    double sign = (m.a < 0) == (hole != 0) ? 1 : -1;
    s->m.a += sign * m.a;
    s->m.x += sign * m.x;
    s->m.y += sign * m.y;
    s->m.xx += sign * m.xx;
    s->m.yy += sign * m.yy;
    s->m.xy += sign * m.xy;
    if (hole) {
        s->hole_length += length;
    } else {
        s->filled += fabs(m.a);
        s->outer_length += length;
        s->outer_points += r->count;
    }
}

/* Axes of the ellipse with the same second moments: full length = 4·sqrt(eigenvalue of the covariance). */
static void set_axes(const moments_t *m, measurements_t *out) {
    double cx = m->x / m->a, cy = m->y / m->a;
    double vx = m->xx / m->a - cx * cx, vy = m->yy / m->a - cy * cy, vxy = m->xy / m->a - cx * cy;
    double mid = (vx + vy) / 2, dev = hypot((vx - vy) / 2, vxy);
    out->major_axis = 4 * sqrt(fmax(mid + dev, 0));
    out->minor_axis = 4 * sqrt(fmax(mid - dev, 0));
    out->orientation = 0;
    if (dev > 1e-9 * mid) { /* round objects have no direction */
        /* y points down, so the angle seen on the screen has the opposite sign */
        double angle = -0.5 * atan2(2 * vxy, vx - vy) * 180 / PI;
        out->orientation = angle <= -90 ? angle + 180 : angle == 0 ? 0 : angle;
    }
}

typedef struct {
    const float *plane;
    int width;
    double sum;
    uint64_t pixels;
} intensity_t;

/* Several sums at once: each waits for its own last addition only. */
static void add_span(void *ctx, int y, int x0, int x1) {
    enum { SUMS = 4 };
    intensity_t *in = ctx;
    const float *row = in->plane + (size_t)y * (size_t)in->width;
    double sum[SUMS] = {0};
    int x = x0;
    for (; x + SUMS <= x1; x += SUMS) {
        for (int k = 0; k < SUMS; k++) {
            sum[k] += (double)row[x + k];
        }
    }
    for (; x < x1; x++) {
        sum[0] += (double)row[x];
    }
    in->sum += (sum[0] + sum[1]) + (sum[2] + sum[3]);
    in->pixels += (uint64_t)(x1 - x0);
}

static err_kind_t set_intensities(const geom_t *g, const float *plane, int width, int height, measurements_t *out,
                                  err_t *err) {
    out->mean_intensity = out->integrated_intensity = NAN;
    if (plane == NULL) {
        return ERR_OK;
    }
    intensity_t in = {.plane = plane, .width = width};
    err_kind_t kind = raster_spans(g, width, height, add_span, &in, err);
    if (kind == ERR_OK && in.pixels > 0) {
        out->integrated_intensity = in.sum;
        out->mean_intensity = in.sum / (double)in.pixels;
    }
    return kind;
}

static err_kind_t degenerate(err_t *err) {
    return err_set(err, ERR_INVALID, "geometry_degenerate",
                   "The outline encloses no area, so it cannot be measured; draw it again or delete it.", NULL);
}

/* Everything that rests on the convex hull and the two circles. */
static err_kind_t set_hull_measures(const geom_t *g, size_t npoints, measurements_t *out, err_t *err) {
    err_kind_t kind = ERR_OK;
    geom_point_t *points = malloc((2 * npoints + 1) * sizeof *points);
    if (points == NULL) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is short of memory; please try again.", "hull");
    }
    geom_point_t *hull = points + npoints;
    size_t n = 0;
    for (uint32_t i = 0; i < g->count; i++) {
        const geom_ring_t *r = &g->polygons[i].rings[0];
        memcpy(points + n, r->points, r->count * sizeof *points);
        n += r->count;
    }
    n = hull_compute(points, n, hull);
    if (n < 3) {
        kind = degenerate(err);
        goto out;
    }
    hull_measures_t h;
    double inside = 0;
    hull_measure(hull, n, &h);
    kind = inscribed_radius(g, &inside, err);
    if (kind != ERR_OK) {
        goto out;
    }
    out->feret_max = h.feret_max;
    out->feret_min = h.feret_min;
    out->feret_orthogonal = h.feret_orthogonal;
    out->feret_aspect_ratio = h.feret_max / h.feret_min;
    out->convexity = h.perimeter / out->perimeter;
    out->solidity = out->area / h.area;
    out->sphericity = inside / hull_enclosing_radius(hull, n);
out:
    free(points);
    return kind;
}

err_kind_t measure_object(const geom_t *g, const float *plane, int width, int height, measurements_t *out, err_t *err) {
    geom_bbox_t box = geom_bbox(g);
    double ox = (double)box.x0 / GEOM_UNITS_PER_PX, oy = (double)box.y0 / GEOM_UNITS_PER_PX;
    sums_t s = {0};
    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < g->count; i++) {
        if (g->polygons[i].count < 1) {
            return degenerate(err);
        }
        for (uint32_t k = 0; k < g->polygons[i].count; k++) {
            add_ring(&g->polygons[i].rings[k], k > 0, ox, oy, &s);
        }
        out->holes += g->polygons[i].count - 1;
    }
    if (!(s.m.a > 0)) {
        return degenerate(err);
    }
    out->area = s.m.a;
    out->area_filled = s.filled;
    out->perimeter = s.outer_length;
    out->perimeter_with_holes = s.outer_length + s.hole_length;
    out->equivalent_diameter = 2 * sqrt(out->area / PI);
    out->circularity = fmin(1, 4 * PI * s.filled / (s.outer_length * s.outer_length));
    out->compactness = fmax(1, s.outer_length * s.outer_length / (4 * PI * s.filled));
    out->bbox_x = ox;
    out->bbox_y = oy;
    out->bbox_width = ((double)box.x1 - box.x0) / GEOM_UNITS_PER_PX;
    out->bbox_height = ((double)box.y1 - box.y0) / GEOM_UNITS_PER_PX;
    out->extent = out->area / (out->bbox_width * out->bbox_height);
    out->centroid_x = ox + s.m.x / s.m.a;
    out->centroid_y = oy + s.m.y / s.m.a;
    set_axes(&s.m, out);
    err_kind_t kind = set_hull_measures(g, s.outer_points, out, err);
    return kind == ERR_OK ? set_intensities(g, plane, width, height, out, err) : kind;
}

/* ---------------------------------------------------------------- JSON */

static void write_number(const char *key, double v, int *first, buf_t *out) {
    char text[400];
    if (!isfinite(v)) {
        return;
    }
    /* six significant digits or four decimals, whichever is finer */
    int decimals = 4;
    if (v != 0) {
        int lead = (int)floor(log10(fabs(v)));
        decimals = 5 - lead > 4 ? 5 - lead : 4;
        decimals = decimals > 15 ? 15 : decimals;
    }
    int len = snprintf(text, sizeof text, "%.*f", decimals, v);
    while (len > 0 && text[len - 1] == '0') {
        len--;
    }
    if (len > 0 && text[len - 1] == '.') {
        len--;
    }
    text[len] = '\0';
    buf_printf(out, "%s\"%s\":%s", *first ? "" : ",", key, strcmp(text, "-0") == 0 ? "0" : text);
    *first = 0;
}

void measure_write_json(const measurements_t *m, buf_t *out) {
    const struct {
        const char *key;
        double value;
    } fields[] = {
        {"area", m->area},
        {"areaFilled", m->area_filled},
        {"perimeter", m->perimeter},
        {"perimeterWithHoles", m->perimeter_with_holes},
        {"equivalentDiameter", m->equivalent_diameter},
        {"circularity", m->circularity},
        {"feretMax", m->feret_max},
        {"feretMin", m->feret_min},
        {"feretOrthogonal", m->feret_orthogonal},
        {"feretAspectRatio", m->feret_aspect_ratio},
        {"majorAxis", m->major_axis},
        {"minorAxis", m->minor_axis},
        {"orientation", m->orientation},
        {"bboxX", m->bbox_x},
        {"bboxY", m->bbox_y},
        {"bboxWidth", m->bbox_width},
        {"bboxHeight", m->bbox_height},
        {"extent", m->extent},
        {"compactness", m->compactness},
        {"convexity", m->convexity},
        {"solidity", m->solidity},
        {"sphericity", m->sphericity},
        {"centroidX", m->centroid_x},
        {"centroidY", m->centroid_y},
        {"holes", m->holes},
        {"meanIntensity", m->mean_intensity},
        {"integratedIntensity", m->integrated_intensity},
    };
    int first = 1;
    buf_puts(out, "{");
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        write_number(fields[i].key, fields[i].value, &first, out);
    }
    buf_puts(out, "}");
}
