/* Largest inscribed circle by best-first search over square cells. */
#include "inscribed.h"

#include <math.h>
#include <stdlib.h>

enum {
    MAX_CELLS = 20000,           /* for shapes whose widest place is a long strip */
    MAX_SEGMENT_TESTS = 40000000 /* cells times segments */
};

typedef struct {
    double x, y, half; /* centre and half side, 1/100 px */
    double d;          /* signed distance of the centre to the outline */
    double bound;      /* no point of the cell is farther inside than that */
} cell_t;

typedef struct {
    double ax, ay, dx, dy, inv; /* start, direction, 1/length² */
} seg_t;

typedef struct {
    seg_t *segs;
    size_t nsegs;
    cell_t *heap;
    size_t len, room;
    double best;
} search_t;

static double signed_distance(const search_t *s, double x, double y) {
    double best = INFINITY;
    int inside = 0;
    for (size_t i = 0; i < s->nsegs; i++) {
        const seg_t *e = &s->segs[i];
        double px = x - e->ax, py = y - e->ay;
        double t = (px * e->dx + py * e->dy) * e->inv;
        t = t < 0 ? 0 : t > 1 ? 1 : t;
        double qx = px - t * e->dx, qy = py - t * e->dy, d = qx * qx + qy * qy;
        best = d < best ? d : best;
        /* even-odd rule over all rings: x of the crossing compared without a division */
        if ((py < 0) != (py < e->dy) && ((px * e->dy < py * e->dx) == (e->dy > 0))) {
            inside = !inside;
        }
    }
    return inside ? sqrt(best) : -sqrt(best);
}

static int heap_push(search_t *s, cell_t c) {
    if (s->len == s->room) {
        size_t room = s->room > 0 ? s->room * 2 : 64;
        cell_t *p = realloc(s->heap, room * sizeof *p);
        if (p == NULL) {
            return 0;
        }
        s->heap = p;
        s->room = room;
    }
    size_t i = s->len++;
    while (i > 0 && s->heap[(i - 1) / 2].bound < c.bound) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = c;
    return 1;
}

static cell_t heap_pop(search_t *s) {
    cell_t top = s->heap[0], last = s->heap[--s->len];
    size_t i = 0;
    for (;;) {
        size_t k = 2 * i + 1;
        if (k >= s->len) {
            break;
        }
        if (k + 1 < s->len && s->heap[k + 1].bound > s->heap[k].bound) {
            k++;
        }
        if (s->heap[k].bound <= last.bound) {
            break;
        }
        s->heap[i] = s->heap[k];
        i = k;
    }
    s->heap[i] = last;
    return top;
}

static int try_cell(search_t *s, double x, double y, double half, double precision) {
    cell_t c = {x, y, half, signed_distance(s, x, y), 0};
    c.bound = c.d + half * 1.4142135623730951;
    s->best = c.d > s->best ? c.d : s->best;
    return c.bound <= s->best + precision || heap_push(s, c);
}

static int search_cells(search_t *s, geom_bbox_t box) {
    double w = (double)box.x1 - box.x0, h = (double)box.y1 - box.y0, side = w < h ? w : h;
    double precision = side * 1e-3 > 1 ? side * 1e-3 : 1;
    double half = side / 2;
    int nx = (int)fmin(ceil(w / side), 64), ny = (int)fmin(ceil(h / side), 64);
    half = fmax(half, fmax(w / nx, h / ny) / 2);
    for (int j = 0; j < ny; j++) {
        for (int i = 0; i < nx; i++) {
            if (!try_cell(s, box.x0 + w * (i + 0.5) / nx, box.y0 + h * (j + 0.5) / ny, half, precision)) {
                return 0;
            }
        }
    }
    /* Bounds the time for hostile outlines: a real object needs some hundred cells. */
    size_t budget = MAX_SEGMENT_TESTS / 4 / s->nsegs, most = budget < 200         ? 200
                                                             : budget < MAX_CELLS ? budget
                                                                                  : MAX_CELLS;
    for (size_t seen = 0; s->len > 0 && seen < most; seen++) {
        cell_t c = heap_pop(s);
        if (c.bound <= s->best + precision) {
            break; /* nothing left can be better: the heap gives the greatest bound first */
        }
        double q = c.half / 2;
        for (int k = 0; k < 4; k++) {
            if (!try_cell(s, c.x + (k & 1 ? q : -q), c.y + (k & 2 ? q : -q), q, precision)) {
                return 0;
            }
        }
    }
    return 1;
}

static size_t count_points(const geom_t *g) {
    size_t n = 0;
    for (uint32_t i = 0; i < g->count; i++) {
        for (uint32_t k = 0; k < g->polygons[i].count; k++) {
            n += g->polygons[i].rings[k].count;
        }
    }
    return n;
}

err_kind_t inscribed_radius(const geom_t *g, double *radius, err_t *err) {
    search_t s = {0};
    geom_bbox_t box = geom_bbox(g);
    size_t total = count_points(g);
    int ok = 1;
    *radius = 0;
    if (total < 3 || box.x0 == box.x1 || box.y0 == box.y1) {
        return ERR_OK;
    }
    s.segs = malloc(total * sizeof *s.segs);
    if (s.segs == NULL) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is short of memory; please try again.", "segments");
    }
    for (uint32_t i = 0; i < g->count; i++) {
        for (uint32_t k = 0; k < g->polygons[i].count; k++) {
            const geom_ring_t *r = &g->polygons[i].rings[k];
            for (uint32_t j = 0; j < r->count; j++) {
                geom_point_t a = r->points[j], b = r->points[j + 1 < r->count ? j + 1 : 0];
                double dx = (double)b.x - a.x, dy = (double)b.y - a.y, len2 = dx * dx + dy * dy;
                s.segs[s.nsegs++] = (seg_t){a.x, a.y, dx, dy, len2 > 0 ? 1 / len2 : 0};
            }
        }
    }
    ok = search_cells(&s, box);
    *radius = s.best > 0 ? s.best / GEOM_UNITS_PER_PX : 0;
    free(s.heap);
    free(s.segs);
    return ok ? ERR_OK
              : err_set(err, ERR_NO_MEMORY, "no_memory", "The server is short of memory; please try again.", "cells");
}
