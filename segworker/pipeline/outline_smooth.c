/*
 * Smoothing of one ring. The mid-points of the cracks lie within half a pixel of the true border, so a smooth curve
 * near them is a far better border than the staircase. The filter is 2G - G*G for a Gaussian G ("twicing", Tukey
 * 1977): it removes the staircase, but unlike G alone it hardly shrinks curves. Corners that belong to the object stay
 * where they are; each arc between two of them is smoothed on its own.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/vector.h"
#include "segworker/pipeline/outline.h"

#define MAX_NORMAL_SHIFT 0.45 /* px; below 0.5 no pixel centre can change sides */
#define MAX_TRUE_SHIFT 0.55   /* px; how far the true border may be from a crack, and a little for the filter's bias */
#define MAX_TANGENT_SHIFT 1.0 /* px */
#define LEAST_WIDTH 0.7

/* Widths of the smoothing in nodes. Each is used wherever its curve agrees with the pixels; see outline_smooth. */
static const int WIDTHS[] = {2, 4, 8, 16, 32};

enum {
    NWIDTHS = sizeof WIDTHS / sizeof *WIDTHS,
    NODES_PER_WIDTH = 20, /* a ring shorter than this many nodes per unit of width is too small for that width */
    NARROW = 2 * NODES_PER_WIDTH, /* rings of fewer nodes have a filter of their own, by their number of nodes */
    G_RADIUS_MAX = 3 * 32,
    K_RADIUS_MAX = 2 * G_RADIUS_MAX,
    NARROW_RADIUS_MAX = 2 * 3 * 2
};

/* One half of each filter; radius 0: not made yet. */
struct kernels {
    struct {
        int radius;
        double k[NARROW_RADIUS_MAX + 1];
    } narrow[NARROW];
    struct {
        int radius;
        double k[K_RADIUS_MAX + 1];
    } wide[NWIDTHS];
};

typedef struct {
    size_t radius;
    const double *k;
} kernel_t;

void outline_kernels_free(kernels_t *k) {
    free(k);
}

static int make_kernel(double sigma, double *k) {
    double g[2 * K_RADIUS_MAX + 1] = {0}, sum = 0;
    int reach = (int)ceil(3 * sigma), radius = 2 * reach;
    for (int i = -reach; i <= reach; i++) {
        g[i + K_RADIUS_MAX] = exp(-0.5 * i * i / (sigma * sigma));
        sum += g[i + K_RADIUS_MAX];
    }
    for (int i = 0; i <= radius; i++) {
        double twice = 0;
        for (int j = i - reach; j <= reach; j++) {
            twice += g[j + K_RADIUS_MAX] * g[i - j + K_RADIUS_MAX];
        }
        k[i] = 2 * g[i + K_RADIUS_MAX] / sum - twice / (sum * sum);
    }
    return radius;
}

/* The narrowest filter for a ring of n nodes; 0: that of the least width. */
static kernel_t narrow_kernel(kernels_t *all, size_t n) {
    if (n >= NARROW) {
        if (all->wide[0].radius == 0) {
            all->wide[0].radius = make_kernel(WIDTHS[0], all->wide[0].k);
        }
        return (kernel_t){(size_t)all->wide[0].radius, all->wide[0].k};
    }
    if (all->narrow[n].radius == 0) {
        all->narrow[n].radius = make_kernel(fmax((double)n / NODES_PER_WIDTH, LEAST_WIDTH), all->narrow[n].k);
    }
    return (kernel_t){(size_t)all->narrow[n].radius, all->narrow[n].k};
}

static kernel_t wide_kernel(kernels_t *all, size_t w) {
    if (all->wide[w].radius == 0) {
        all->wide[w].radius = make_kernel(WIDTHS[w], all->wide[w].k);
    }
    return (kernel_t){(size_t)all->wide[w].radius, all->wide[w].k};
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

static void filter_nodes(const vec_t *p, size_t n, kernel_t k, vec_t *out) {
    filter_values(&p->x, 2 * n, k.k, k.radius, &out->x);
}

static vec_t mirrored(vec_t about, vec_t p) {
    return (vec_t){2 * about.x - p.x, 2 * about.y - p.y};
}

/* Nodes from..from+length, both ends fixed: beyond an end the arc is continued by its point reflection, which keeps
 * straight arcs straight up to the corner. */
static void smooth_arc(outline_t *o, size_t from, size_t length, kernel_t k, vec_t *out) {
    size_t n = o->nnodes, reach = k.radius;
    vec_t *line = o->tmp + reach;
    const vec_t *arc = o->at + from, first = arc[0], last = arc[length];
    memcpy(line, arc, (length + 1) * sizeof *line);
    for (size_t i = 1; i <= reach; i++) {
        *(line - i) = mirrored(first, arc[i < length ? i : length]);
        line[length + i] = mirrored(last, arc[i < length ? length - i : 0]);
    }
    size_t begin = from + 1 < n ? from + 1 : 0, room = n - begin, inner = length - 1, end = from + length;
    out[from] = first;
    out[end < n ? end : end - n] = last;
    size_t straight = inner < room ? inner : room; /* the rest lies beyond the ring's last node */
    filter_nodes(line + 1, straight, k, out + begin);
    filter_nodes(line + 1 + straight, inner - straight, k, out);
}

static void smooth_closed(outline_t *o, kernel_t k, vec_t *out) {
    size_t n = o->nnodes, reach = k.radius;
    size_t from = reach % n > 0 ? n - reach % n : 0;
    for (size_t i = 0, some; i < n + 2 * reach; i += some) { /* round the ring as often as the filter reaches */
        some = n + 2 * reach - i < n ? n + 2 * reach - i : n;
        memcpy(o->tmp + i, o->at + from, some * sizeof *o->tmp);
    }
    filter_nodes(o->tmp + reach, n, k, out);
}

static void smooth_with(outline_t *o, kernel_t k, vec_t *out) {
    size_t n = o->nnodes;
    const uint8_t *found = memchr(o->fixed, 1, n);
    if (found == NULL) {
        smooth_closed(o, k, out);
        return;
    }
    size_t first = (size_t)(found - o->fixed);
    for (size_t at = first, length = 1; at < n; at += length) {
        const uint8_t *next = memchr(o->fixed + at + 1, 1, n - at - 1);
        length = next != NULL ? (size_t)(next - o->fixed) - at : n - at + first;
        smooth_arc(o, at, length, k, out);
    }
}

/* Number of set flags in the 2*reach+1 nodes around each node. */
static void count_around(const uint8_t *flag, size_t n, size_t reach, uint32_t *count) {
    uint32_t sum = 0;
    for (size_t k = 0, at = n - reach; k < 2 * reach + 1; k++) {
        sum += flag[at];
        at = at + 1 < n ? at + 1 : 0;
    }
    for (size_t i = 0, in = reach + 1, out = n - reach; i < n; i++) {
        count[i] = sum;
        sum += flag[in];
        sum -= flag[out];
        in = in + 1 < n ? in + 1 : 0;
        out = out + 1 < n ? out + 1 : 0;
    }
}

/* How far each node has moved across its crack; returns the greatest. */
VECTOR_LOOPS static double find_shifts(const vec_t *restrict at, const vec_t *restrict moved,
                                       const uint8_t *restrict dir, size_t n, double *restrict shift) {
    enum { LANES = 8 };
    double most[LANES] = {0}, greatest = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            double dx = fabs(moved[i + k].x - at[i + k].x), dy = fabs(moved[i + k].y - at[i + k].y);
            double d = (dir[i + k] & 1) == 0 ? dy : dx;
            shift[i + k] = d;
            most[k] = d > most[k] ? d : most[k];
        }
    }
    for (; i < n; i++) {
        shift[i] = (dir[i] & 1) == 0 ? fabs(moved[i].y - at[i].y) : fabs(moved[i].x - at[i].x);
        greatest = shift[i] > greatest ? shift[i] : greatest;
    }
    for (int k = 0; k < LANES; k++) {
        greatest = most[k] > greatest ? most[k] : greatest;
    }
    return greatest;
}

/* Takes over the wider curve where it and all its surroundings agree with the pixels, with a soft transition. Rings are
 * many times longer than reach. */
static void blend_wide(outline_t *o, size_t reach) {
    size_t n = o->nnodes;
    uint32_t full = (uint32_t)(2 * reach + 1);
    double *shift = &o->tmp->x;
    if (find_shifts(o->at, o->wide, o->dir, n, shift) <= MAX_TRUE_SHIFT) {
        memcpy(o->smooth, o->wide, n * sizeof *o->smooth);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        o->keep[i] = shift[i] <= MAX_TRUE_SHIFT;
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

static inline double clamp(double v, double limit) {
    v = v > limit ? limit : v;
    return v < -limit ? -limit : v;
}

/* Keeps each node near its crack. */
VECTOR_LOOPS static void hold_nodes(const vec_t *restrict at, const uint8_t *restrict dir, size_t n,
                                    vec_t *restrict smooth) {
    for (size_t i = 0; i < n; i++) {
        double limit_x = (dir[i] & 1) == 0 ? MAX_TANGENT_SHIFT : MAX_NORMAL_SHIFT;
        double limit_y = (dir[i] & 1) == 0 ? MAX_NORMAL_SHIFT : MAX_TANGENT_SHIFT;
        smooth[i].x = at[i].x + clamp(smooth[i].x - at[i].x, limit_x);
        smooth[i].y = at[i].y + clamp(smooth[i].y - at[i].y, limit_y);
    }
}

/* A border that the pixels were sampled from passes within half a pixel of every crack. A wide filter gives the better
 * curve where it keeps to that; where it does not (tight bends), the narrower one stands. */
bool outline_smooth(outline_t *o, bool gently) {
    size_t n = o->nnodes;
    if (o->kernels == NULL) {
        o->kernels = calloc(1, sizeof *o->kernels);
    }
    if (o->kernels == NULL || n == 0) {
        return n == 0;
    }
    memcpy(o->at + n, o->at, n * sizeof *o->at);
    smooth_with(o, narrow_kernel(o->kernels, gently ? 0 : n), o->smooth);
    for (size_t w = 1; !gently && w < NWIDTHS && n >= (size_t)NODES_PER_WIDTH * (size_t)WIDTHS[w]; w++) {
        smooth_with(o, wide_kernel(o->kernels, w), o->wide);
        blend_wide(o, (size_t)WIDTHS[w]);
    }
    hold_nodes(o->at, o->dir, n, o->smooth);
    return true;
}
