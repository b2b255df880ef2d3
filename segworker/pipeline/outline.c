/*
 * One ring, from cracks to outline. The mid-points of the cracks lie within half a pixel of the true border, so a
 * smooth curve near them is a far better border than the staircase. The filter is 2G - G*G for a Gaussian G ("twicing",
 * Tukey 1977): it removes the staircase, but unlike G alone it hardly shrinks curves. Corners that belong to the object
 * are found first and stay where they are; each arc between two of them is smoothed on its own.
 */
#include "segworker/pipeline/outline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/vector.h"
#include "segworker/pipeline/corner.h"

#define MAX_NORMAL_SHIFT 0.45 /* px; below 0.5 no pixel centre can change sides */
#define MAX_TRUE_SHIFT 0.55   /* px; how far the true border may be from a crack, and a little for the filter's bias */
#define MAX_TANGENT_SHIFT 1.0 /* px */
#define LEAST_WIDTH 0.7
#define PINCH_CUT 10 /* 1/100 px */

/* Widths of the smoothing in nodes. Each is used wherever its curve agrees with the pixels; see smooth_nodes. */
static const int WIDTHS[] = {2, 4, 8, 16, 32};

enum {
    NODES_PER_WIDTH = 20, /* a ring shorter than this many nodes per unit of width is too small for that width */
    G_RADIUS_MAX = 3 * 32,
    K_RADIUS_MAX = 2 * G_RADIUS_MAX
};

typedef struct {
    int radius;
    double k[K_RADIUS_MAX + 1]; /* one half */
} kernel_t;

void outline_free(outline_t *o) {
    free(o->cracks);
    free(o->at);
    free(o->smooth);
    free(o->tmp);
    free(o->wide);
    free(o->fixed);
    free(o->dir);
    free(o->order);
    free(o->keep);
    memset(o, 0, sizeof *o);
}

static bool reserve(outline_t *o, size_t cracks) {
    if (cracks <= o->room) {
        return true;
    }
    size_t room = cracks + cracks / 2 + 64, nodes = 2 * room;
    outline_free(o);
    o->cracks = malloc(room * sizeof *o->cracks);
    o->at = malloc(nodes * sizeof *o->at);
    o->smooth = malloc(nodes * sizeof *o->smooth);
    o->tmp = malloc((nodes + 2 * K_RADIUS_MAX + 1) * sizeof *o->tmp);
    o->wide = malloc(nodes * sizeof *o->wide);
    o->fixed = malloc(nodes);
    o->dir = malloc(nodes);
    o->order = malloc((nodes + 4) * sizeof *o->order);
    o->keep = malloc(nodes);
    if (o->cracks == NULL || o->at == NULL || o->smooth == NULL || o->tmp == NULL || o->wide == NULL ||
        o->fixed == NULL || o->dir == NULL || o->order == NULL || o->keep == NULL) {
        outline_free(o);
        return false;
    }
    o->room = room;
    return true;
}

static void collect_crack(void *ctx, const crack_t *c) {
    outline_t *o = ctx;
    o->cracks[o->ncracks++] = *c;
}

/* ---------------------------------------------------------------- smoothing */

static void make_nodes(outline_t *o) {
    o->nnodes = 0;
    corner_find_axis(o->cracks, o->ncracks, o->order, o->keep);
    for (size_t i = 0; i < o->ncracks; i++) {
        static const double half_x[4] = {0.5, 0, -0.5, 0}, half_y[4] = {0, 0.5, 0, -0.5};
        const crack_t *c = &o->cracks[i];
        for (int mid = o->keep[i] ? 0 : 1; mid < 2; mid++) {
            size_t n = o->nnodes++;
            o->at[n] = mid ? (vec_t){c->x + half_x[c->dir], c->y + half_y[c->dir]} : (vec_t){c->x, c->y};
            o->fixed[n] = mid ? 0 : 1;
            o->dir[n] = c->dir;
        }
    }
}

static void make_kernel(double sigma, kernel_t *kernel) {
    double g[2 * K_RADIUS_MAX + 1] = {0}, sum = 0;
    int reach = (int)ceil(3 * sigma);
    kernel->radius = 2 * reach;
    for (int i = -reach; i <= reach; i++) {
        g[i + K_RADIUS_MAX] = exp(-0.5 * i * i / (sigma * sigma));
        sum += g[i + K_RADIUS_MAX];
    }
    for (int i = 0; i <= kernel->radius; i++) {
        double twice = 0;
        for (int j = i - reach; j <= reach; j++) {
            twice += g[j + K_RADIUS_MAX] * g[i - j + K_RADIUS_MAX];
        }
        kernel->k[i] = 2 * g[i + K_RADIUS_MAX] / sum - twice / (sum * sum);
    }
}

static double clamp(double v, double limit) {
    return v > limit ? limit : v < -limit ? -limit : v;
}

/* n values x, y, x, y, … of which radius pairs more must be there on both sides. */
VECTOR_LOOPS static void filter_values(const double *restrict p, size_t n, const double *restrict k, size_t radius,
                                       double *restrict out) {
    enum { LANES = 32 };
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        double s[LANES];
        for (size_t l = 0; l < LANES; l++) {
            s[l] = k[0] * p[i + l];
        }
        for (size_t t = 1; t <= radius; t++) {
            const double *before = p + i - 2 * t, *after = p + i + 2 * t;
            for (size_t l = 0; l < LANES; l++) {
                s[l] += k[t] * (before[l] + after[l]);
            }
        }
        memcpy(out + i, s, sizeof s);
    }
    for (; i < n; i++) {
        double s = k[0] * p[i];
        for (size_t t = 1; t <= radius; t++) {
            s += k[t] * (*(p + i - 2 * t) + p[i + 2 * t]);
        }
        out[i] = s;
    }
}

static void filter_nodes(const vec_t *p, size_t n, const kernel_t *kernel, vec_t *out) {
    filter_values(&p->x, 2 * n, kernel->k, (size_t)kernel->radius, &out->x);
}

/* Nodes from..from+length (indices taken round the ring), both ends fixed: beyond an end the arc is continued by its
 * point reflection, which keeps straight arcs straight up to the corner. */
static void smooth_arc(outline_t *o, size_t from, size_t length, const kernel_t *k, vec_t *out) {
    size_t n = o->nnodes, reach = (size_t)k->radius;
    vec_t *line = o->tmp + reach, first = o->at[from % n], last = o->at[(from + length) % n];
    for (size_t i = 0; i <= length; i++) {
        line[i] = o->at[(from + i) % n];
    }
    for (size_t i = 1; i <= reach; i++) {
        vec_t a = o->at[(from + (i < length ? i : length)) % n];
        vec_t b = o->at[(from + (i < length ? length - i : 0)) % n];
        *(line - i) = (vec_t){2 * first.x - a.x, 2 * first.y - a.y};
        line[length + i] = (vec_t){2 * last.x - b.x, 2 * last.y - b.y};
    }
    out[from % n] = first;
    out[(from + length) % n] = last;
    size_t begin = (from + 1) % n, room = n - begin, inner = length - 1;
    size_t straight = inner < room ? inner : room; /* the rest lies beyond the ring's last node */
    filter_nodes(line + 1, straight, k, out + begin);
    filter_nodes(line + 1 + straight, inner - straight, k, out);
}

static void smooth_closed(outline_t *o, const kernel_t *k, vec_t *out) {
    size_t n = o->nnodes, reach = (size_t)k->radius;
    for (size_t i = 0, from = (n * reach - reach) % n; i < n + 2 * reach; i++) {
        o->tmp[i] = o->at[from];
        from = from + 1 < n ? from + 1 : 0;
    }
    filter_nodes(o->tmp + reach, n, k, out);
}

static void smooth_with(outline_t *o, double sigma, vec_t *out) {
    kernel_t k = {0};
    size_t n = o->nnodes, first = n;
    if (n == 0) {
        return;
    }
    make_kernel(sigma, &k);
    for (size_t i = 0; i < n && first == n; i++) {
        first = o->fixed[i] ? i : n;
    }
    if (first == n) {
        smooth_closed(o, &k, out);
        return;
    }
    for (size_t at = first, length = 1; at < first + n; at += length) {
        length = 1;
        while (!o->fixed[(at + length) % n]) {
            length++;
        }
        smooth_arc(o, at, length, &k, out);
    }
}

/* How far a node has moved across its crack. */
static double normal_shift(const outline_t *o, const vec_t *moved, size_t i) {
    return (o->dir[i] & 1) == 0 ? fabs(moved[i].y - o->at[i].y) : fabs(moved[i].x - o->at[i].x);
}

/* Number of set flags in the 2*reach+1 nodes around each node. */
static void count_around(const uint8_t *flag, size_t n, size_t reach, uint32_t *count) {
    uint32_t sum = 0;
    if (n <= 2 * reach) {
        return; /* never so: wide filters need rings many times their width */
    }
    for (size_t k = 0; k < 2 * reach + 1; k++) {
        sum += flag[(n - reach + k) % n];
    }
    for (size_t i = 0, in = reach + 1, out = n - reach; i < n; i++) {
        count[i] = sum;
        sum += flag[in];
        sum -= flag[out];
        in = in + 1 < n ? in + 1 : 0;
        out = out + 1 < n ? out + 1 : 0;
    }
}

/* Takes over the wider curve where it and all its surroundings agree with the pixels, with a soft transition. */
static void blend_wide(outline_t *o, size_t reach) {
    size_t n = o->nnodes;
    uint32_t full = (uint32_t)(2 * reach + 1);
    for (size_t i = 0; i < n; i++) {
        o->keep[i] = normal_shift(o, o->wide, i) <= MAX_TRUE_SHIFT;
    }
    count_around(o->keep, n, reach, o->order);
    for (size_t i = 0; i < n; i++) {
        o->keep[i] = o->order[i] == full;
    }
    count_around(o->keep, n, reach, o->order);
    for (size_t i = 0; i < n; i++) {
        double w = (double)o->order[i] / full;
        o->smooth[i].x += w * (o->wide[i].x - o->smooth[i].x);
        o->smooth[i].y += w * (o->wide[i].y - o->smooth[i].y);
    }
}

/* A border that the pixels were sampled from passes within half a pixel of every crack. A wide filter gives the better
 * curve where it keeps to that; where it does not (tight bends), the narrower one stands. */
static void smooth_nodes(outline_t *o, bool gently) {
    size_t n = o->nnodes;
    double narrow = clamp((double)n / NODES_PER_WIDTH, WIDTHS[0]);
    smooth_with(o, gently || narrow < LEAST_WIDTH ? LEAST_WIDTH : narrow, o->smooth);
    for (size_t w = 1;
         !gently && w < sizeof WIDTHS / sizeof *WIDTHS && n >= (size_t)NODES_PER_WIDTH * (size_t)WIDTHS[w]; w++) {
        smooth_with(o, WIDTHS[w], o->wide);
        blend_wide(o, (size_t)WIDTHS[w]);
    }
    for (size_t i = 0; i < n; i++) {
        bool horizontal = (o->dir[i] & 1) == 0;
        vec_t from = o->at[i], *to = &o->smooth[i];
        to->x = from.x + clamp(to->x - from.x, horizontal ? MAX_TANGENT_SHIFT : MAX_NORMAL_SHIFT);
        to->y = from.y + clamp(to->y - from.y, horizontal ? MAX_NORMAL_SHIFT : MAX_TANGENT_SHIFT);
    }
}

/* ---------------------------------------------------------------- simplification */

static double segment_distance2(vec_t p, vec_t a, vec_t b) {
    double dx = b.x - a.x, dy = b.y - a.y, len2 = dx * dx + dy * dy;
    double t = len2 > 0 ? ((p.x - a.x) * dx + (p.y - a.y) * dy) / len2 : 0;
    t = t < 0 ? 0 : t > 1 ? 1 : t;
    double ex = p.x - a.x - t * dx, ey = p.y - a.y - t * dy;
    return ex * ex + ey * ey;
}

static size_t farthest_from(const outline_t *o, size_t from) {
    double best = -1;
    size_t at = from;
    for (size_t i = 0; i < o->nnodes; i++) {
        double dx = o->smooth[i].x - o->smooth[from].x, dy = o->smooth[i].y - o->smooth[from].y, d = dx * dx + dy * dy;
        if (d > best) {
            best = d;
            at = i;
        }
    }
    return at;
}

/* Douglas and Peucker, 1973, with its own stack; from < to, indices taken round the ring. */
static void simplify_arc(outline_t *o, size_t from, size_t to, double tolerance2) {
    size_t n = o->nnodes, depth = 0;
    uint32_t *stack = o->order;
    stack[depth++] = (uint32_t)to;
    while (depth > 0) {
        size_t end = stack[depth - 1], split = 0;
        double worst = tolerance2;
        for (size_t i = from + 1; i < end; i++) {
            double d = segment_distance2(o->smooth[i % n], o->smooth[from % n], o->smooth[end % n]);
            if (d > worst) {
                worst = d;
                split = i;
            }
        }
        if (split > 0) {
            o->keep[split % n] = 1;
            stack[depth++] = (uint32_t)split;
        } else {
            from = end;
            depth--;
        }
    }
}

static void simplify_nodes(outline_t *o, double tolerance) {
    size_t n = o->nnodes, anchors = 0, first = 0;
    for (size_t i = n; i-- > 0;) {
        o->keep[i] = o->fixed[i];
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
        while (!o->keep[next % n]) {
            next++;
        }
        simplify_arc(o, at, next, tolerance * tolerance);
    }
}

/* Moves the kept nodes to the front of smooth; returns their number. */
static size_t gather_kept(outline_t *o) {
    size_t n = 0;
    for (size_t i = 0; i < o->nnodes; i++) {
        if (o->keep[i]) {
            o->smooth[n++] = o->smooth[i];
        }
    }
    return n;
}

/* ---------------------------------------------------------------- area */

static double polygon_area(const vec_t *p, size_t n, double *perimeter) {
    double area = 0, length = 0;
    for (size_t i = 0; i < n; i++) {
        vec_t a = p[i], b = p[i + 1 < n ? i + 1 : 0];
        area += (a.x - p[0].x) * (b.y - p[0].y) - (b.x - p[0].x) * (a.y - p[0].y);
        length += sqrt((b.x - a.x) * (b.x - a.x) + (b.y - a.y) * (b.y - a.y));
    }
    *perimeter = length;
    return area / 2;
}

static vec_t edge_normal(vec_t a, vec_t b) {
    double dx = b.x - a.x, dy = b.y - a.y, len = sqrt(dx * dx + dy * dy);
    return len > 0 ? (vec_t){dy / len, -dx / len} : (vec_t){0, 0};
}

/* Moves every edge by delta away from the object; corners stay sharp (mitred, within bounds). */
static void offset_polygon(vec_t *p, size_t n, double delta, vec_t *out) {
    for (size_t i = 0; i < n; i++) {
        vec_t before = edge_normal(p[i > 0 ? i - 1 : n - 1], p[i]), after = edge_normal(p[i], p[i + 1 < n ? i + 1 : 0]);
        double d = fmax(1 + before.x * after.x + before.y * after.y, 0.3);
        out[i] = (vec_t){p[i].x + delta * (before.x + after.x) / d, p[i].y + delta * (before.y + after.y) / d};
    }
    memcpy(p, out, n * sizeof *p);
}

static void match_area(vec_t *p, size_t n, double target, vec_t *work) {
    for (int round = 0; round < 6; round++) {
        double length, missing = target - polygon_area(p, n, &length);
        if (length <= 0 || fabs(missing) < 1e-4 * length) {
            return;
        }
        offset_polygon(p, n, clamp(missing / length, 0.25), work);
    }
}

/* ---------------------------------------------------------------- output */

static int32_t to_units(double v, int32_t origin, int32_t limit) {
    v = v < -origin ? -origin : v > limit - origin ? limit - origin : v;
    return (int32_t)lround(v * GEOM_UNITS_PER_PX) + origin * GEOM_UNITS_PER_PX;
}

static bool is_straight(geom_point_t a, geom_point_t b, geom_point_t c) {
    int64_t ux = (int64_t)b.x - a.x, uy = (int64_t)b.y - a.y, vx = (int64_t)c.x - b.x, vy = (int64_t)c.y - b.y;
    return ux * vy == uy * vx && ux * vx + uy * vy >= 0;
}

/* Drops repeated and straight-through points, round the ring. */
static uint32_t clean_ring(geom_point_t *p, uint32_t n) {
    uint32_t m = 0, skip = 0;
    for (uint32_t i = 0; i < n; i++) {
        while (m >= 2 && is_straight(p[m - 2], p[m - 1], p[i])) {
            m--;
        }
        if (m == 1 && p[0].x == p[i].x && p[0].y == p[i].y) {
            continue;
        }
        p[m++] = p[i];
    }
    while (m >= 3 && is_straight(p[m - 2], p[m - 1], p[0])) {
        m--;
    }
    while (m - skip >= 3 && is_straight(p[m - 1], p[skip], p[skip + 1])) {
        skip++;
    }
    memmove(p, p + skip, (m - skip) * sizeof *p);
    return m - skip;
}

static bool alloc_points(geom_ring_t *out, size_t n) {
    out->points = malloc((n > 0 ? n : 1) * sizeof *out->points);
    out->count = 0;
    return out->points != NULL;
}

typedef struct {
    geom_ring_t *out;
    uint8_t dir; /* of the crack before */
    size_t room;
} crack_ring_writer_t;

/* Corners of the crack ring. Where the label touches itself in a corner, the corner is cut. */
static void write_corner(void *ctx, const crack_t *c) {
    static const int32_t sx[4] = {1, 0, -1, 0}, sy[4] = {0, 1, 0, -1};
    crack_ring_writer_t *w = ctx;
    geom_ring_t *r = w->out;
    geom_point_t p = {c->x * GEOM_UNITS_PER_PX, c->y * GEOM_UNITS_PER_PX};
    if (c->pinch && r->count + 2 <= w->room) {
        r->points[r->count++] = (geom_point_t){p.x - PINCH_CUT * sx[w->dir], p.y - PINCH_CUT * sy[w->dir]};
        r->points[r->count++] = (geom_point_t){p.x + PINCH_CUT * sx[c->dir], p.y + PINCH_CUT * sy[c->dir]};
    } else if (c->dir != w->dir && r->count < w->room) {
        r->points[r->count++] = p;
    }
    w->dir = c->dir;
}

static bool build_from_cracks(const int32_t *labels, int width, int height, const crack_ring_t *ring,
                              geom_ring_t *out) {
    crack_ring_writer_t w = {.out = out, .dir = ring->hole ? 1 : 3, .room = (size_t)ring->cracks * 2};
    if (!alloc_points(out, w.room)) {
        return false;
    }
    crack_walk(labels, width, height, ring, write_corner, &w);
    geom_point_t *fitted = realloc(out->points, out->count * sizeof *fitted); /* a ring has at least four corners */
    if (fitted != NULL) {
        out->points = fitted;
    }
    return true;
}

err_kind_t outline_build(outline_t *o, const int32_t *labels, int width, int height, const crack_ring_t *ring,
                         outline_level_t level, double tolerance, geom_ring_t *out, err_t *err) {
    bool ok = true;
    if (level == OUTLINE_CRACKS || ring->cracks > OUTLINE_MAX_SMOOTH_CRACKS) {
        ok = build_from_cracks(labels, width, height, ring, out);
        goto out;
    }
    ok = reserve(o, ring->cracks);
    if (!ok) {
        goto out;
    }
    o->ncracks = 0;
    crack_walk(labels, width, height, ring, collect_crack, o);
    /* Counted from where the ring begins: an outline does not depend, by rounding, on where its object lies. */
    int32_t x0 = o->cracks[0].x, y0 = o->cracks[0].y;
    for (size_t i = 0; i < o->ncracks; i++) {
        o->cracks[i].x -= x0;
        o->cracks[i].y -= y0;
    }
    make_nodes(o);
    size_t n = o->nnodes;
    if (level == OUTLINE_SMOOTH || level == OUTLINE_GENTLE) {
        o->nnodes = corner_fix_sharp(o->at, o->fixed, o->dir, o->nnodes, o->tmp);
        smooth_nodes(o, level == OUTLINE_GENTLE);
        simplify_nodes(o, level == OUTLINE_GENTLE ? tolerance / 2 : tolerance);
        n = gather_kept(o);
    } else {
        memcpy(o->smooth, o->at, n * sizeof *o->at);
    }
    match_area(o->smooth, n, (double)ring->area, o->tmp);
    ok = alloc_points(out, n);
    for (size_t i = 0; ok && i < n; i++) {
        out->points[i] = (geom_point_t){to_units(o->smooth[i].x, x0, width), to_units(o->smooth[i].y, y0, height)};
    }
    out->count = ok ? clean_ring(out->points, (uint32_t)n) : 0;
out:
    return ok ? ERR_OK
              : err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.", "outline");
}
