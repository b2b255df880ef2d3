/* Largest inscribed circle by best-first search over square cells; a cell knows the segments that may matter in it. */
#include "inscribed.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "../vector.h"

enum {
    MAX_CELLS = 20000,            /* for shapes whose widest place is a long strip */
    MAX_SEGMENT_TESTS = 40000000, /* cells times segments */
    SPARE_SEGMENTS = 1 << 16,   /* copied into lists besides four times the outline; then cells share their parent's */
    LANES = 8,                  /* lists are filled up to a multiple of this */
    WORTH_FILTERING = 8 * LANES /* looking at so few again costs less than sorting them out */
};

/* The segments of which one may be the nearest to some point of a cell: a part of the search's columns. */
typedef struct {
    size_t first, count; /* multiples of LANES */
} list_t;

typedef struct {
    double x, y, half; /* centre and half side, 1/100 px */
    double d;          /* signed distance of the centre to the outline */
    double bound;      /* no point of the cell is farther inside than that */
    list_t near;
} cell_t;

/* Segments by columns, so that the arithmetic runs on several at once. */
enum { START_X, START_Y, DELTA_X, DELTA_Y, INVERSE /* of the squared length */, COLUMNS };

typedef struct {
    double *column[COLUMNS];
    double *d2; /* per segment of a list: squared distance of the centre looked at */
    list_t all; /* the whole outline */
    size_t used, room, most;
    cell_t *heap;
    size_t len, heap_room;
    double best;
} search_t;

/* Squared distances of n segments, a multiple of LANES, into d2; returns the least. */
VECTOR_LOOPS static double nearest2(double *const *column, size_t first, size_t n, double x, double y,
                                    double *restrict d2) {
    const double *restrict ax = column[START_X] + first, *restrict ay = column[START_Y] + first;
    const double *restrict dx = column[DELTA_X] + first, *restrict dy = column[DELTA_Y] + first;
    const double *restrict inv = column[INVERSE] + first;
    double least[LANES];
    for (int k = 0; k < LANES; k++) {
        least[k] = INFINITY;
    }
    for (size_t i = 0; i < n; i += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            double px = x - ax[i + k], py = y - ay[i + k];
            double t = (px * dx[i + k] + py * dy[i + k]) * inv[i + k];
            t = t > 0 ? t : 0;
            t = t < 1 ? t : 1;
            double qx = px - t * dx[i + k], qy = py - t * dy[i + k], d = qx * qx + qy * qy;
            d2[i + k] = d;
            least[k] = d < least[k] ? d : least[k];
        }
    }
    double best = least[0];
    for (int k = 1; k < LANES; k++) {
        best = least[k] < best ? least[k] : best;
    }
    return best;
}

/* Even-odd rule over all rings: x of the crossing compared without a division. n: a multiple of LANES. */
VECTOR_LOOPS static int is_inside(double *const *column, size_t n, double x, double y) {
    const double *restrict ax = column[START_X], *restrict ay = column[START_Y];
    const double *restrict dx = column[DELTA_X], *restrict dy = column[DELTA_Y];
    int64_t crossed[LANES] = {0};
    for (size_t i = 0; i < n; i += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            double py = y - ay[i + k];
            int64_t crosses = (py < 0) != (py < dy[i + k]);
            int64_t beyond = ((x - ax[i + k]) * dy[i + k] < py * dx[i + k]) == (dy[i + k] > 0);
            crossed[k] += crosses & beyond;
        }
    }
    int64_t sum = 0;
    for (int k = 0; k < LANES; k++) {
        sum += crossed[k];
    }
    return (int)(sum & 1);
}

static int reserve_segments(search_t *s, size_t more) {
    if (s->used + more <= s->room) {
        return 1;
    }
    size_t room = (s->used + more) * 2;
    for (int c = 0; c < COLUMNS; c++) {
        double *p = realloc(s->column[c], room * sizeof *p);
        if (p == NULL) {
            return 0;
        }
        s->column[c] = p;
    }
    s->room = room;
    return 1;
}

static void add_segment(search_t *s, const double values[COLUMNS]) {
    for (int c = 0; c < COLUMNS; c++) {
        s->column[c][s->used] = values[c];
    }
    s->used++;
}

/* Ends a list that began at `first`: points far away make up the number. */
static list_t end_list(search_t *s, size_t first) {
    static const double nowhere[COLUMNS] = {1e12, 1e12, 0, 0, 0};
    while ((s->used - first) % LANES != 0) {
        add_segment(s, nowhere);
    }
    return (list_t){first, s->used - first};
}

/* Copies the segments of a list that are within reach (squared) of the centre looked at last. */
static int keep_near(search_t *s, list_t from, double reach2, list_t *out) {
    size_t first = s->used;
    *out = from;
    if (from.count <= WORTH_FILTERING || s->used + from.count > s->most) {
        return 1;
    }
    if (!reserve_segments(s, from.count)) {
        return 0;
    }
    for (size_t i = 0; i < from.count; i++) {
        if (s->d2[i] <= reach2) {
            double values[COLUMNS];
            for (int c = 0; c < COLUMNS; c++) {
                values[c] = s->column[c][from.first + i];
            }
            add_segment(s, values);
        }
    }
    *out = end_list(s, first);
    return 1;
}

static int heap_push(search_t *s, cell_t c) {
    if (s->len == s->heap_room) {
        size_t room = s->heap_room > 0 ? s->heap_room * 2 : 64;
        cell_t *p = realloc(s->heap, room * sizeof *p);
        if (p == NULL) {
            return 0;
        }
        s->heap = p;
        s->heap_room = room;
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

/* A cell inside parent (NULL: none). Where the parent's centre is farther from the outline than from the cell's, both
 * lie on the same side of it. */
static int try_cell(search_t *s, double x, double y, double half, const cell_t *parent, double precision) {
    const double diagonal = half * 1.4142135623730951;
    list_t near = parent ? parent->near : s->all;
    double d = sqrt(nearest2(s->column, near.first, near.count, x, y, s->d2));
    if (d + diagonal <= s->best + precision) {
        return 1; /* on whichever side of the outline it lies */
    }
    int inside =
        parent && fabs(parent->d) > diagonal * 1.0001 ? parent->d > 0 : is_inside(s->column, s->all.count, x, y);
    cell_t c = {x, y, half, inside ? d : -d, 0, near};
    c.bound = c.d + diagonal;
    s->best = c.d > s->best ? c.d : s->best;
    if (c.bound <= s->best + precision) {
        return 1;
    }
    /* No point of the cell is farther than d + diagonal from the outline. */
    double reach = (d + 2 * diagonal) * 1.0001;
    return keep_near(s, near, reach * reach, &c.near) && heap_push(s, c);
}

static int search_cells(search_t *s, geom_bbox_t box) {
    double w = (double)box.x1 - box.x0, h = (double)box.y1 - box.y0, side = w < h ? w : h;
    double precision = side * 1e-3 > 1 ? side * 1e-3 : 1;
    double half = side / 2;
    int nx = (int)fmin(ceil(w / side), 64), ny = (int)fmin(ceil(h / side), 64);
    half = fmax(half, fmax(w / nx, h / ny) / 2);
    for (int j = 0; j < ny; j++) {
        for (int i = 0; i < nx; i++) {
            if (!try_cell(s, box.x0 + w * (i + 0.5) / nx, box.y0 + h * (j + 0.5) / ny, half, NULL, precision)) {
                return 0;
            }
        }
    }
    /* Bounds the time for hostile outlines: a real object needs some hundred cells. */
    size_t budget = MAX_SEGMENT_TESTS / 4 / s->all.count, most = budget < 200         ? 200
                                                                 : budget < MAX_CELLS ? budget
                                                                                      : MAX_CELLS;
    for (size_t seen = 0; s->len > 0 && seen < most; seen++) {
        cell_t c = heap_pop(s);
        if (c.bound <= s->best + precision) {
            break; /* nothing left can be better: the heap gives the greatest bound first */
        }
        double q = c.half / 2;
        for (int k = 0; k < 4; k++) {
            if (!try_cell(s, c.x + (k & 1 ? q : -q), c.y + (k & 2 ? q : -q), q, &c, precision)) {
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

static void add_ring(search_t *s, const geom_ring_t *r) {
    for (uint32_t j = 0; j < r->count; j++) {
        geom_point_t a = r->points[j], b = r->points[j + 1 < r->count ? j + 1 : 0];
        double dx = (double)b.x - a.x, dy = (double)b.y - a.y, len2 = dx * dx + dy * dy;
        add_segment(s, (const double[COLUMNS]){a.x, a.y, dx, dy, len2 > 0 ? 1 / len2 : 0});
    }
}

err_kind_t inscribed_radius(const geom_t *g, double *radius, err_t *err) {
    search_t s = {0};
    geom_bbox_t box = geom_bbox(g);
    size_t total = count_points(g);
    *radius = 0;
    if (total < 3 || box.x0 == box.x1 || box.y0 == box.y1) {
        return ERR_OK;
    }
    s.most = 4 * total + SPARE_SEGMENTS;
    s.d2 = malloc((total + LANES) * sizeof *s.d2);
    int ok = s.d2 != NULL && reserve_segments(&s, total + LANES);
    for (uint32_t i = 0; ok && i < g->count; i++) {
        for (uint32_t k = 0; k < g->polygons[i].count; k++) {
            add_ring(&s, &g->polygons[i].rings[k]);
        }
    }
    if (ok) {
        s.all = end_list(&s, 0);
        ok = search_cells(&s, box);
    }
    *radius = s.best > 0 ? s.best / GEOM_UNITS_PER_PX : 0;
    for (int c = 0; c < COLUMNS; c++) {
        free(s.column[c]);
    }
    free(s.heap);
    free(s.d2);
    return ok ? ERR_OK
              : err_set(err, ERR_NO_MEMORY, "no_memory", "The server is short of memory; please try again.", "cells");
}
