/* Fewer nodes for a smoothed ring (Douglas and Peucker, 1973), and the area that its pixels have. */
#include <math.h>
#include <string.h>

#include "common/vector.h"
#include "segworker/pipeline/outline.h"

enum { LANES = 8, WORTH_VECTORS = 2 * LANES };

/* ---------------------------------------------------------------- simplification */

typedef struct {
    double x, y, dx, dy, inverse; /* start, direction, 1 / squared length */
} segment_t;

static inline double distance2(vec_t p, segment_t s) {
    double px = p.x - s.x, py = p.y - s.y, t = (px * s.dx + py * s.dy) * s.inverse;
    t = t > 0 ? t : 0;
    t = t < 1 ? t : 1;
    double ex = px - t * s.dx, ey = py - t * s.dy;
    return ex * ex + ey * ey;
}

/* Squared distances of n nodes into d2, a multiple of LANES; returns the greatest. */
VECTOR_LOOPS static double distances2(const vec_t *restrict p, size_t n, segment_t s, double *restrict d2) {
    double most[LANES] = {0};
    for (size_t i = 0; i < n; i += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            double d = distance2(p[i + k], s);
            d2[i + k] = d;
            most[k] = d > most[k] ? d : most[k];
        }
    }
    double best = most[0];
    for (int k = 1; k < LANES; k++) {
        best = most[k] > best ? most[k] : best;
    }
    return best;
}

/* The first of the nodes between from and end that is farthest from their line, and farther than `worst`; 0: none. */
static size_t find_split(const outline_t *o, size_t from, size_t end, double worst) {
    const vec_t *p = o->smooth;
    double dx = p[end].x - p[from].x, dy = p[end].y - p[from].y, len2 = dx * dx + dy * dy;
    segment_t s = {p[from].x, p[from].y, dx, dy, len2 > 0 ? 1 / len2 : 0};
    size_t split = 0, i = from + 1;
    if (end - i >= WORTH_VECTORS) {
        size_t n = (end - i) / LANES * LANES;
        double *d2 = &o->tmp->x, most = distances2(p + i, n, s, d2);
        for (size_t k = 0; most > worst; k++) {
            if (d2[k] >= most) {
                worst = most;
                split = i + k;
            }
        }
        i += n;
    }
    for (; i < end; i++) {
        double d = distance2(p[i], s);
        if (d > worst) {
            worst = d;
            split = i;
        }
    }
    return split;
}

/* Between two nodes to be kept, with a stack of its own; to may lie beyond the ring's end. */
static void simplify_arc(outline_t *o, size_t from, size_t to, double tolerance2) {
    size_t n = o->nnodes, depth = 0;
    uint32_t *stack = o->order;
    stack[depth++] = (uint32_t)to;
    while (depth > 0) {
        size_t end = stack[depth - 1], split = find_split(o, from, end, tolerance2);
        if (split > 0) {
            o->keep[split < n ? split : split - n] = 1;
            stack[depth++] = (uint32_t)split;
        } else {
            from = end;
            depth--;
        }
    }
}

static size_t farthest_from(const outline_t *o, size_t from) {
    double best = -1;
    size_t at = from;
    const vec_t *p = o->smooth, centre = p[from];
    for (size_t i = 0; i < o->nnodes; i++) {
        double dx = p[i].x - centre.x, dy = p[i].y - centre.y, d = dx * dx + dy * dy;
        if (d > best) {
            best = d;
            at = i;
        }
    }
    return at;
}

size_t outline_simplify(outline_t *o, double tolerance) {
    size_t n = o->nnodes, anchors = 0, first = 0, kept = 0;
    memcpy(o->smooth + n, o->smooth, n * sizeof *o->smooth);
    memcpy(o->keep, o->fixed, n);
    for (size_t i = n; i-- > 0;) {
        if (o->fixed[i]) {
            anchors++;
            first = i;
        }
    }
    if (anchors == 0) {
        first = farthest_from(o, 0);
        o->keep[first] = 1;
    }
    if (anchors < 2) {
        o->keep[farthest_from(o, first)] = 1;
    }
    for (size_t at = first, next; at < first + n; at = next) {
        next = at + 1;
        while (!o->keep[next < n ? next : next - n]) {
            next++;
        }
        simplify_arc(o, at, next, tolerance * tolerance);
    }
    for (size_t i = 0; i < n; i++) {
        if (o->keep[i]) {
            o->smooth[kept++] = o->smooth[i];
        }
    }
    return kept;
}

/* ---------------------------------------------------------------- area */

/* Of each edge i..i+1 (p[n] is p[0]): its outward normal of length 1, and its length and share of twice the area. */
VECTOR_LOOPS static void measure_edges(const vec_t *restrict p, size_t n, vec_t *restrict normal,
                                       vec_t *restrict length_and_area) {
    double x0 = p[0].x, y0 = p[0].y;
    for (size_t i = 0; i < n; i++) {
        double dx = p[i + 1].x - p[i].x, dy = p[i + 1].y - p[i].y, length = sqrt(dx * dx + dy * dy);
        double inverse = length > 0 ? 1 / length : 0;
        normal[i].x = dy * inverse;
        normal[i].y = -dx * inverse;
        length_and_area[i].x = length;
        length_and_area[i].y = (p[i].x - x0) * dy - dx * (p[i].y - y0);
    }
}

/* Moves every edge by delta away from the object; corners stay sharp (mitred, within bounds). normal[-1]: the last. */
VECTOR_LOOPS static void offset_edges(vec_t *restrict p, size_t n, const vec_t *restrict normal, double delta) {
    for (size_t i = 0; i < n; i++) {
        vec_t before = normal[i - 1], after = normal[i];
        double d = 1 + before.x * after.x + before.y * after.y, step = delta / (d > 0.3 ? d : 0.3);
        p[i].x += step * (before.x + after.x);
        p[i].y += step * (before.y + after.y);
    }
}

void outline_match_area(outline_t *o, size_t n, double area) {
    enum { ROUNDS = 6 };
    vec_t *p = o->smooth, *normal = o->tmp + 1;
    for (int round = 0; round < ROUNDS; round++) {
        double length = 0, twice = 0;
        p[n] = p[0];
        measure_edges(p, n, normal, o->wide);
        for (size_t i = 0; i < n; i++) {
            length += o->wide[i].x;
            twice += o->wide[i].y;
        }
        double missing = area - twice / 2;
        if (length <= 0 || fabs(missing) < 1e-4 * length) {
            return;
        }
        double delta = missing / length;
        normal[-1] = normal[n - 1];
        offset_edges(p, n, normal, delta > 0.25 ? 0.25 : delta < -0.25 ? -0.25 : delta);
    }
}
