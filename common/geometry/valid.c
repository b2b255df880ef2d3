/*
 * Does an outline cross itself? All edges of the object are sorted along the longer side of its bounding box and
 * swept with a list of the edges that still reach the sweep position (a plain form of Shamos and Hoey, "Geometric
 * intersection problems", 1976): near n log n for outlines of real objects. All tests are exact (128-bit integers).
 *
 * What counts: edges of one ring may share nothing but the corner between neighbours; different rings may touch in
 * single points as long as they do not pass through each other there; no ring has a zero-length edge or no area.
 */
#include "polygon.h"

#include <stdlib.h>
#include <string.h>

#define NEAR_BITS 31
#define NEAR ((int64_t)1 << (NEAR_BITS - 1)) /* products of such differences need no more than 64 bits */

typedef struct {
    geom_point_t a, b;
    int32_t lo, hi;   /* extent along the sweep axis */
    int32_t lo2, hi2; /* extent across it */
    const geom_ring_t *ring;
    uint32_t pos; /* index of a in its ring */
} edge_t;

typedef struct {
    edge_t *edges;
    uint32_t *order, *active; /* indices of edges: by lo; those that still reach the sweep position */
    size_t edge_count;
} sweep_t;

static int cross_sign(geom_point_t o, geom_point_t p, geom_point_t q) {
    int64_t px = (int64_t)p.x - o.x, py = (int64_t)p.y - o.y, qx = (int64_t)q.x - o.x, qy = (int64_t)q.y - o.y;
    if (((px + NEAR) | (py + NEAR) | (qx + NEAR) | (qy + NEAR)) >> NEAR_BITS == 0) { /* all of them -NEAR..NEAR-1 */
        int64_t small = px * qy - py * qx;
        return (small > 0) - (small < 0);
    }
    __int128 c = (__int128)px * qy - (__int128)py * qx;
    return c > 0 ? 1 : c < 0 ? -1 : 0;
}

static int same_point(geom_point_t p, geom_point_t q) {
    return p.x == q.x && p.y == q.y;
}

/* p is known to be on the line through e. */
static int in_extent(const edge_t *e, geom_point_t p) {
    int32_t x0 = e->a.x < e->b.x ? e->a.x : e->b.x, x1 = e->a.x < e->b.x ? e->b.x : e->a.x;
    int32_t y0 = e->a.y < e->b.y ? e->a.y : e->b.y, y1 = e->a.y < e->b.y ? e->b.y : e->a.y;
    return p.x >= x0 && p.x <= x1 && p.y >= y0 && p.y <= y1;
}

/* Points seen from p in the two directions in which the edge's ring leaves p (p lies on the edge). */
static void ring_directions(const edge_t *e, geom_point_t p, geom_point_t *back, geom_point_t *ahead) {
    const geom_ring_t *r = e->ring;
    *back = e->a;
    *ahead = e->b;
    if (same_point(p, e->a)) {
        *back = r->points[e->pos > 0 ? e->pos - 1 : r->count - 1];
    } else if (same_point(p, e->b)) {
        *ahead = r->points[(e->pos + 2) % r->count];
    }
}

/* Is direction o->q strictly inside the angle swept from o->p to o->r in the positive sense? -1 when along a side. */
static int in_angle(geom_point_t o, geom_point_t p, geom_point_t r, geom_point_t q) {
    int pq = cross_sign(o, p, q), qr = cross_sign(o, q, r), pr = cross_sign(o, p, r);
    __int128 dot_p =
        (__int128)((int64_t)p.x - o.x) * ((int64_t)q.x - o.x) + (__int128)((int64_t)p.y - o.y) * ((int64_t)q.y - o.y);
    __int128 dot_r =
        (__int128)((int64_t)r.x - o.x) * ((int64_t)q.x - o.x) + (__int128)((int64_t)r.y - o.y) * ((int64_t)q.y - o.y);
    if ((pq == 0 && dot_p > 0) || (qr == 0 && dot_r > 0)) {
        return -1;
    }
    if (pr > 0) {
        return pq > 0 && qr > 0;
    }
    if (pr < 0) {
        return pq > 0 || qr > 0;
    }
    return pq > 0; /* p and r opposite */
}

/* Two rings meet at point p: do they pass through each other, or run along each other? */
static int passes_through(const edge_t *e, const edge_t *f, geom_point_t p) {
    geom_point_t e0, e1, f0, f1;
    ring_directions(e, p, &e0, &e1);
    ring_directions(f, p, &f0, &f1);
    int u = in_angle(p, e0, e1, f0), v = in_angle(p, e0, e1, f1);
    return u < 0 || v < 0 || u != v;
}

static int neighbours(const edge_t *e, const edge_t *f) {
    if (e->ring != f->ring) {
        return 0;
    }
    uint32_t last = e->ring->count - 1;
    return f->pos == (e->pos < last ? e->pos + 1 : 0) || e->pos == (f->pos < last ? f->pos + 1 : 0);
}

/* Neighbouring edges meet in their corner; they must not fold back onto each other. */
static int folds_back(const edge_t *e, const edge_t *f) {
    geom_point_t corner = same_point(e->b, f->a) ? e->b : e->a;
    geom_point_t p = same_point(e->b, f->a) ? e->a : e->b;
    geom_point_t q = same_point(e->b, f->a) ? f->b : f->a;
    if (cross_sign(corner, p, q) != 0) {
        return 0;
    }
    __int128 dot = (__int128)((int64_t)p.x - corner.x) * ((int64_t)q.x - corner.x) +
                   (__int128)((int64_t)p.y - corner.y) * ((int64_t)q.y - corner.y);
    return dot > 0;
}

static int edges_conflict(const edge_t *e, const edge_t *f) {
    if (neighbours(e, f)) {
        return folds_back(e, f);
    }
    int d1 = cross_sign(e->a, e->b, f->a), d2 = cross_sign(e->a, e->b, f->b);
    int d3 = cross_sign(f->a, f->b, e->a), d4 = cross_sign(f->a, f->b, e->b);
    if (d1 * d2 > 0 || d3 * d4 > 0) {
        return 0;
    }
    if (d1 * d2 < 0 && d3 * d4 < 0) {
        return 1;
    }
    geom_point_t touch[4] = {{0, 0}};
    int n = 0;
    if (d1 == 0 && in_extent(e, f->a)) {
        touch[n++] = f->a;
    }
    if (d2 == 0 && in_extent(e, f->b)) {
        touch[n++] = f->b;
    }
    if (d3 == 0 && in_extent(f, e->a)) {
        touch[n++] = e->a;
    }
    if (d4 == 0 && in_extent(f, e->b)) {
        touch[n++] = e->b;
    }
    for (int i = 0; i < n; i++) {
        if (e->ring == f->ring || passes_through(e, f, touch[i])) {
            return 1;
        }
    }
    return 0;
}

static int by_value(const void *pa, const void *pb) {
    uint64_t a = *(const uint64_t *)pa, b = *(const uint64_t *)pb;
    return (a > b) - (a < b);
}

/* Sorts few keys, of which most stand nearly where they belong, quickly: outlines are made of rising and falling
 * stretches, and merging those takes one pass for each doubling of their length. keys and other hold n each; the result
 * is in keys. */
static void merge_stretches(uint64_t *keys, uint64_t *other, size_t n) {
    size_t stretches = 2;
    while (stretches > 1) {
        stretches = 0;
        for (size_t i = 0; i < n; stretches++) {
            size_t mid = i + 1, end;
            while (mid < n && keys[mid - 1] <= keys[mid]) {
                mid++;
            }
            for (end = mid < n ? mid + 1 : n; end < n && keys[end - 1] <= keys[end]; end++) {
            }
            for (size_t a = i, b = mid, k = i; k < end; k++) {
                other[k] = b >= end || (a < mid && keys[a] <= keys[b]) ? keys[a++] : keys[b++];
            }
            i = end;
        }
        memcpy(keys, other, n * sizeof *keys);
    }
}

/* Edges in the order of lo. */
static int sort_edges(sweep_t *s) {
    enum { FEW = 512 };
    uint64_t few[2 * FEW], *keys = few;
    size_t n = s->edge_count;
    if (n > FEW) {
        keys = calloc(n, sizeof *keys);
    }
    for (size_t i = 0; keys != NULL && i < n; i++) {
        keys[i] = (uint64_t)((int64_t)s->edges[i].lo - INT32_MIN) << 32 | i;
    }
    if (keys != NULL && n > FEW) {
        qsort(keys, n, sizeof *keys, by_value);
    } else if (keys != NULL) {
        merge_stretches(keys, few + FEW, n);
    }
    for (size_t i = 0; keys != NULL && i < n; i++) {
        s->order[i] = (uint32_t)keys[i];
    }
    if (keys != few) {
        free(keys);
    }
    return keys != NULL;
}

static int sweep_finds_conflict(sweep_t *s) {
    size_t live = 0;
    for (size_t i = 0; i < s->edge_count; i++) {
        const edge_t *e = &s->edges[s->order[i]];
        size_t kept = 0;
        for (size_t k = 0; k < live; k++) {
            const edge_t *f = &s->edges[s->active[k]];
            if (f->hi < e->lo) {
                continue;
            }
            s->active[kept++] = s->active[k];
            if (f->lo2 <= e->hi2 && e->lo2 <= f->hi2 && edges_conflict(e, f)) {
                return 1;
            }
        }
        live = kept;
        s->active[live++] = s->order[i];
    }
    return 0;
}

/* Adds the edges of a ring; 0 when one has no length. */
static int collect_ring(sweep_t *s, const geom_ring_t *r, int along_y) {
    for (uint32_t j = 0; j < r->count; j++) {
        edge_t e = {.a = r->points[j], .b = r->points[j + 1 < r->count ? j + 1 : 0], .ring = r, .pos = j};
        int32_t xlo = e.a.x < e.b.x ? e.a.x : e.b.x, xhi = e.a.x < e.b.x ? e.b.x : e.a.x;
        int32_t ylo = e.a.y < e.b.y ? e.a.y : e.b.y, yhi = e.a.y < e.b.y ? e.b.y : e.a.y;
        if (same_point(e.a, e.b)) {
            return 0;
        }
        e.lo = along_y ? ylo : xlo;
        e.hi = along_y ? yhi : xhi;
        e.lo2 = along_y ? xlo : ylo;
        e.hi2 = along_y ? xhi : yhi;
        s->edges[s->edge_count++] = e;
    }
    return 1;
}

static int collect_edges(sweep_t *s, const geom_t *g) {
    geom_bbox_t box = geom_bbox(g);
    int along_y = (int64_t)box.y1 - box.y0 > (int64_t)box.x1 - box.x0;
    for (uint32_t i = 0; i < g->count; i++) {
        for (uint32_t k = 0; k < g->polygons[i].count; k++) {
            if (!collect_ring(s, &g->polygons[i].rings[k], along_y)) {
                return 0;
            }
        }
    }
    return 1;
}

/* 1 inside, 0 outside, -1 on the ring. */
static int point_in_ring(const geom_ring_t *r, geom_point_t p) {
    int inside = 0;
    for (uint32_t j = 0; j < r->count; j++) {
        geom_point_t a = r->points[j], b = r->points[j + 1 < r->count ? j + 1 : 0];
        if ((a.y > p.y && b.y > p.y) || (a.y < p.y && b.y < p.y)) {
            continue;
        }
        edge_t e = {.a = a, .b = b};
        int side = cross_sign(a, b, p);
        if (side == 0 && in_extent(&e, p)) {
            return -1;
        }
        if ((a.y > p.y) != (b.y > p.y) && ((b.y > a.y) == (side > 0))) {
            inside = !inside;
        }
    }
    return inside;
}

/* The rings do not cross, so one corner of the hole that is not on the outer ring speaks for all. */
static int hole_is_inside(const geom_ring_t *outer, const geom_ring_t *hole) {
    for (uint32_t j = 0; j < hole->count; j++) {
        int where = point_in_ring(outer, hole->points[j]);
        if (where >= 0) {
            return where;
        }
    }
    return 0;
}

static int holes_are_inside(const geom_t *g) {
    for (uint32_t i = 0; i < g->count; i++) {
        const geom_polygon_t *p = &g->polygons[i];
        for (uint32_t k = 1; k < p->count; k++) {
            if (!hole_is_inside(&p->rings[0], &p->rings[k])) {
                return 0;
            }
        }
    }
    return 1;
}

/* Number of edges; 0 when there is none, or a ring that cannot enclose anything. */
static size_t count_edges(const geom_t *g) {
    size_t n = 0;
    for (uint32_t i = 0; i < g->count; i++) {
        if (g->polygons[i].count < 1) {
            return 0;
        }
        for (uint32_t k = 0; k < g->polygons[i].count; k++) {
            const geom_ring_t *r = &g->polygons[i].rings[k];
            if (r->count < 3 || geom_ring_area2(r) == 0) {
                return 0;
            }
            n += r->count;
        }
    }
    return n < UINT32_MAX ? n : 0;
}

int geom_is_valid(const geom_t *g) {
    sweep_t s = {0};
    size_t n = count_edges(g);
    s.edges = n > 0 ? calloc(n, sizeof *s.edges + sizeof *s.order + sizeof *s.active) : NULL;
    if (s.edges == NULL) {
        return 0; /* not known to be valid */
    }
    s.order = (uint32_t *)(void *)(s.edges + n);
    s.active = s.order + n;
    int ok = collect_edges(&s, g) && sort_edges(&s) && !sweep_finds_conflict(&s) && holes_are_inside(g);
    free(s.edges);
    return ok;
}
