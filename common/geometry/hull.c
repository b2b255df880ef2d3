/* Convex hull, calipers and smallest enclosing circle of integer points. */
#include "hull.h"

#include <math.h>
#include <stdlib.h>

static int by_xy(const void *pa, const void *pb) {
    const geom_point_t *a = pa, *b = pb;
    if (a->x != b->x) {
        return a->x < b->x ? -1 : 1;
    }
    return a->y < b->y ? -1 : a->y > b->y;
}

static int turns_positive(geom_point_t o, geom_point_t a, geom_point_t b) {
    return (__int128)((int64_t)a.x - o.x) * ((int64_t)b.y - o.y) -
               (__int128)((int64_t)a.y - o.y) * ((int64_t)b.x - o.x) >
           0;
}

size_t hull_compute(geom_point_t *points, size_t n, geom_point_t *hull) {
    size_t distinct = 0, k = 0;
    qsort(points, n, sizeof *points, by_xy);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || by_xy(&points[i], &points[distinct - 1]) != 0) {
            points[distinct++] = points[i];
        }
    }
    if (distinct < 3) {
        for (size_t i = 0; i < distinct; i++) {
            hull[i] = points[i];
        }
        return distinct;
    }
    for (size_t i = 0; i < distinct; i++) { /* there … */
        while (k >= 2 && !turns_positive(hull[k - 2], hull[k - 1], points[i])) {
            k--;
        }
        hull[k++] = points[i];
    }
    size_t half = k + 1;
    for (size_t i = distinct - 1; i-- > 0;) { /* … and back */
        while (k >= half && !turns_positive(hull[k - 2], hull[k - 1], points[i])) {
            k--;
        }
        hull[k++] = points[i];
    }
    return k - 1; /* the last point is the first again */
}

static double cross(geom_point_t o, geom_point_t a, geom_point_t b) {
    return ((double)a.x - o.x) * ((double)b.y - o.y) - ((double)a.y - o.y) * ((double)b.x - o.x);
}

static double distance(geom_point_t a, geom_point_t b) {
    double dx = (double)b.x - a.x, dy = (double)b.y - a.y;
    return sqrt(dx * dx + dy * dy);
}

static double width_across(const geom_point_t *hull, size_t n, geom_point_t from, geom_point_t to) {
    double low = 0, high = 0;
    for (size_t i = 0; i < n; i++) {
        double c = cross(from, to, hull[i]);
        low = c < low ? c : low;
        high = c > high ? c : high;
    }
    return (high - low) / distance(from, to);
}

typedef struct {
    geom_point_t a, b;
    double length;
} diameter_t;

static void consider_pair(diameter_t *d, geom_point_t p, geom_point_t q) {
    double length = distance(p, q);
    if (length > d->length) {
        *d = (diameter_t){p, q, length};
    }
}

void hull_measure(const geom_point_t *hull, size_t n, hull_measures_t *out) {
    double area2 = 0, perimeter = 0, narrowest = INFINITY;
    diameter_t longest = {hull[0], hull[1], 0};
    size_t far = 1;
    for (size_t i = 0; i < n; i++) {
        geom_point_t a = hull[i], b = hull[(i + 1) % n];
        /* The corner farthest from edge a-b only ever moves forward. Every corner that it passes is opposite to a. */
        while (cross(a, b, hull[(far + 1) % n]) > cross(a, b, hull[far])) {
            consider_pair(&longest, a, hull[far]);
            far = (far + 1) % n;
        }
        for (size_t k = 0; k < 2; k++) { /* the next corner too: it ties when the sides are parallel */
            consider_pair(&longest, a, hull[(far + k) % n]);
            consider_pair(&longest, b, hull[(far + k) % n]);
        }
        double length = distance(a, b), width = cross(a, b, hull[far]) / length;
        narrowest = width < narrowest ? width : narrowest;
        area2 += cross(hull[0], a, b);
        perimeter += length;
    }
    out->area = area2 / 2 / (GEOM_UNITS_PER_PX * GEOM_UNITS_PER_PX);
    out->perimeter = perimeter / GEOM_UNITS_PER_PX;
    out->feret_max = longest.length / GEOM_UNITS_PER_PX;
    out->feret_min = narrowest / GEOM_UNITS_PER_PX;
    out->feret_orthogonal = width_across(hull, n, longest.a, longest.b) / GEOM_UNITS_PER_PX;
}

/* ---------------------------------------------------------------- smallest enclosing circle */

typedef struct {
    double x, y, r;
} circle_t;

static int outside(const circle_t *c, geom_point_t p) {
    double dx = p.x - c->x, dy = p.y - c->y, most = c->r * (1 + 1e-12) + 1e-9;
    return dx * dx + dy * dy > most * most;
}

static circle_t circle_two(geom_point_t a, geom_point_t b) {
    return (circle_t){((double)a.x + b.x) / 2, ((double)a.y + b.y) / 2, distance(a, b) / 2};
}

static circle_t circle_three(geom_point_t a, geom_point_t b, geom_point_t c) {
    double bx = (double)b.x - a.x, by = (double)b.y - a.y, cx = (double)c.x - a.x, cy = (double)c.y - a.y;
    double d = 2 * (bx * cy - by * cx);
    if (d == 0) { /* cannot happen for corners of a hull; the longest side is right for collinear points */
        circle_t ab = circle_two(a, b), ac = circle_two(a, c), bc = circle_two(b, c);
        circle_t best = ab.r > ac.r ? ab : ac;
        return best.r > bc.r ? best : bc;
    }
    double b2 = bx * bx + by * by, c2 = cx * cx + cy * cy;
    double ux = (cy * b2 - by * c2) / d, uy = (bx * c2 - cx * b2) / d;
    return (circle_t){a.x + ux, a.y + uy, sqrt(ux * ux + uy * uy)};
}

double hull_enclosing_radius(geom_point_t *hull, size_t n) {
    uint32_t state = 12345;
    for (size_t i = n; i > 1; i--) {
        state = state * 1664525U + 1013904223U;
        size_t k = (size_t)(((uint64_t)state * i) >> 32);
        geom_point_t t = hull[i - 1];
        hull[i - 1] = hull[k];
        hull[k] = t;
    }
    circle_t c = {hull[0].x, hull[0].y, 0};
    for (size_t i = 1; i < n; i++) {
        if (!outside(&c, hull[i])) {
            continue;
        }
        c = (circle_t){hull[i].x, hull[i].y, 0};
        for (size_t j = 0; j < i; j++) {
            if (!outside(&c, hull[j])) {
                continue;
            }
            c = circle_two(hull[i], hull[j]);
            for (size_t k = 0; k < j; k++) {
                if (outside(&c, hull[k])) {
                    c = circle_three(hull[i], hull[j], hull[k]);
                }
            }
        }
    }
    return c.r / GEOM_UNITS_PER_PX;
}
