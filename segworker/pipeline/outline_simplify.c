/* Fewer nodes for a smoothed ring, in one pass along it, and the area that its pixels have. */
#include <math.h>
#include <string.h>

#include "common/vector.h"
#include "segworker/pipeline/outline.h"

/* ---------------------------------------------------------------- simplification */

/* Lines from one node that pass every node since within the tolerance: those between two directions (Imai and Iri,
 * "Computational-geometric methods for polygonal approximations of a curve", 1986, call such a region a funnel). */
typedef struct {
    vec_t from, left, right; /* seen from `from`: left is on the side of positive cross products */
    double farthest2;        /* squared distance of the farthest node since */
    bool narrowed;           /* by any node */
} funnel_t;

static inline double cross(vec_t a, vec_t b) {
    return a.x * b.y - a.y * b.x;
}

/* May a line end here? Not where the curve has turned back by more than the tolerance. */
static inline bool funnel_holds(const funnel_t *f, vec_t d, double r2, double tolerance) {
    if (!f->narrowed) {
        return true;
    }
    return cross(f->right, d) >= 0 && cross(d, f->left) >= 0 &&
           (r2 >= f->farthest2 || sqrt(r2) + tolerance >= sqrt(f->farthest2));
}

/* Lines of the funnel must pass within the tolerance of the node at d, too: between the tangents to the circle around
 * it. */
static inline void funnel_narrow(funnel_t *f, vec_t d, double r2, double tolerance) {
    double along = sqrt(r2 - tolerance * tolerance);
    vec_t left = {d.x * along - d.y * tolerance, d.y * along + d.x * tolerance};
    vec_t right = {d.x * along + d.y * tolerance, d.y * along - d.x * tolerance};
    f->left = f->narrowed && cross(f->left, left) >= 0 ? f->left : left;
    f->right = f->narrowed && cross(f->right, right) <= 0 ? f->right : right;
    f->farthest2 = r2 > f->farthest2 ? r2 : f->farthest2;
    f->narrowed = true;
}

/* Between two nodes to be kept: the farthest node that a line can reach is kept, and the next line begins there. to may
 * lie beyond the ring's end. */
static void simplify_arc(outline_t *o, size_t from, size_t to, double tolerance) {
    const vec_t *p = o->smooth;
    const double tolerance2 = tolerance * tolerance;
    funnel_t f = {.from = p[from]};
    for (size_t i = from + 1; i <= to; i++) {
        vec_t d = {p[i].x - f.from.x, p[i].y - f.from.y};
        double r2 = d.x * d.x + d.y * d.y;
        if (!funnel_holds(&f, d, r2, tolerance)) {
            size_t last = i - 1 < o->nnodes ? i - 1 : i - 1 - o->nnodes;
            o->keep[last] = 1;
            f = (funnel_t){.from = p[i - 1]};
            d = (vec_t){p[i].x - f.from.x, p[i].y - f.from.y};
            r2 = d.x * d.x + d.y * d.y;
        }
        if (r2 > tolerance2) {
            funnel_narrow(&f, d, r2, tolerance);
        }
    }
}

size_t outline_simplify(outline_t *o, double tolerance) {
    size_t n = o->nnodes, kept = 0;
    const uint8_t *corner = memchr(o->fixed, 1, n);
    size_t first = corner != NULL ? (size_t)(corner - o->fixed) : 0;
    memcpy(o->smooth + n, o->smooth, (first + 1) * sizeof *o->smooth);
    memcpy(o->keep, o->fixed, n);
    o->keep[first] = 1;
    for (size_t at = first, end; at < first + n; at = end) {
        const uint8_t *next = at + 1 < n ? memchr(o->fixed + at + 1, 1, n - at - 1) : NULL;
        end = next != NULL ? (size_t)(next - o->fixed) : n + first;
        simplify_arc(o, at, end, tolerance);
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
    const vec_t *last = normal - 1;
    for (size_t i = 0; i < n; i++) {
        vec_t before = last[i], after = normal[i];
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
