/*
 * Smoothing of one ring. The mid-points of the cracks lie within half a pixel of the true border, so a smooth curve
 * near them is a far better border than the staircase. The filter is 2G - G*G for a Gaussian G ("twicing", Tukey
 * 1977): it removes the staircase, but unlike G alone it hardly shrinks curves. Corners that belong to the object stay
 * where they are; each arc between two of them is smoothed on its own.
 *
 * A border that the pixels were sampled from passes within half a pixel of every crack. The wider a filter, the better
 * its curve where it keeps to that; so the widest is tried first, and each narrower one has the nodes that are left
 * over (tight bends), with a soft transition. Wide filters work on every second, fourth or eighth node of a line that a
 * small filter has prepared (Burt, "Fast filter transforms for image processing", 1981); the nodes between are
 * interpolated. So each costs about as much as a narrow one.
 */
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "common/vector.h"
#include "segworker/pipeline/outline.h"

#define MAX_NORMAL_SHIFT 0.45 /* px; below 0.5 no pixel centre can change sides */
#define MAX_TRUE_SHIFT 0.55   /* px; how far the true border may be from a crack, and a little for the filter's bias */
#define MAX_TANGENT_SHIFT 1.0 /* px */
#define LEAST_WIDTH 0.7

/* Widths of the smoothing in nodes, and after how many halvings of the line they are applied: from 8 on, a width is
 * 4 of its steps. */
static const int WIDTHS[] = {2, 4, 8, 16, 32}, HALVINGS[] = {0, 0, 1, 2, 3};

enum {
    NWIDTHS = sizeof WIDTHS / sizeof *WIDTHS,
    NODES_PER_WIDTH = 20, /* a ring shorter than this many nodes per unit of width is too small for that width */
    LEAST_PER_WIDTH = 4,  /* and so is an arc that is shorter than this */
    NARROW = 2 * NODES_PER_WIDTH, /* rings of fewer nodes have a filter of their own, by their number of nodes */
    RADIUS_PER_WIDTH = 5,
    RADIUS_MAX = 4 * RADIUS_PER_WIDTH,
    LEVELS = 4,
    STEP_MAX = 1 << (LEVELS - 1),
    LANES = 32
};

/* One half of each filter. */
typedef struct {
    size_t radius;
    double k[RADIUS_MAX + 1];
} kernel_t;

static kernel_t narrow_kernels[NARROW], kernels[NWIDTHS];
static double between[LEVELS][4][STEP_MAX]; /* cubic interpolation of the nodes between the samples of a level */
static pthread_once_t tables_made = PTHREAD_ONCE_INIT;

/* For a line that a filter of the variance `before` went over. */
static void make_kernel(double sigma, double before, kernel_t *k) {
    double once = 2 * (sigma * sigma - before), twice = 2 * (2 * sigma * sigma - before), sum1 = 0, sum2 = 0;
    int radius = (int)ceil(RADIUS_PER_WIDTH * sigma);
    for (int i = -radius; i <= radius; i++) {
        sum1 += exp(-i * i / once);
        sum2 += exp(-i * i / twice);
    }
    for (int i = 0; i <= radius; i++) {
        k->k[i] = 2 * exp(-i * i / once) / sum1 - exp(-i * i / twice) / sum2;
    }
    k->radius = (size_t)radius;
}

static void make_tables(void) {
    for (int n = 0; n < NARROW; n++) {
        make_kernel(fmax((double)n / NODES_PER_WIDTH, LEAST_WIDTH), 0, &narrow_kernels[n]);
    }
    for (int w = 0; w < NWIDTHS; w++) {
        double before = 0;
        for (int h = 0; h < HALVINGS[w]; h++) {
            before = (before + 1) / 4; /* the filter of halve_line has the variance 1, in steps before halving */
        }
        make_kernel((double)WIDTHS[w] / (1 << HALVINGS[w]), before, &kernels[w]);
    }
    for (int level = 1; level < LEVELS; level++) {
        for (int i = 0; i < 1 << level; i++) {
            double t = (double)i / (1 << level);
            between[level][0][i] = -t * (t - 1) * (t - 2) / 6;
            between[level][1][i] = (t + 1) * (t - 1) * (t - 2) / 2;
            between[level][2][i] = -(t + 1) * t * (t - 2) / 2;
            between[level][3][i] = (t + 1) * t * (t - 1) / 6;
        }
    }
}

/* ---------------------------------------------------------------- filters */

static inline void filter_block(const double *p, const kernel_t *k, double *out) {
    double s[LANES];
    for (size_t l = 0; l < LANES; l++) {
        s[l] = k->k[0] * p[l];
    }
    for (size_t t = 1; t <= k->radius; t++) {
        const double *before = p - 2 * t, *after = p + 2 * t, f = k->k[t];
        for (size_t l = 0; l < LANES; l++) {
            s[l] += f * (before[l] + after[l]);
        }
    }
    memcpy(out, s, sizeof s);
}

/* n values x, y, x, y, … of which k->radius pairs more must be there on both sides. */
VECTOR_LOOPS static void filter_values(const double *restrict p, size_t n, const kernel_t *restrict k,
                                       double *restrict out) {
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        filter_block(p + i, k, out + i);
    }
    if (i < n && n >= LANES) {
        filter_block(p + n - LANES, k, out + n - LANES);
        return;
    }
    for (; i < n; i++) {
        double s = k->k[0] * p[i];
        for (size_t t = 1; t <= k->radius; t++) {
            s += k->k[t] * (*(p + i - 2 * t) + p[i + 2 * t]);
        }
        out[i] = s;
    }
}

/* Every second node, after the filter 1 4 6 4 1. Reads p[-2] to p[2 * n]. */
VECTOR_LOOPS static void halve_line(const vec_t *restrict p, size_t n, vec_t *restrict out) {
    for (size_t i = 0; i < n; i++, p += 2) {
        out[i].x = 0.375 * p[0].x + 0.25 * (p[-1].x + p[1].x) + 0.0625 * (p[-2].x + p[2].x);
        out[i].y = 0.375 * p[0].y + 0.25 * (p[-1].y + p[1].y) + 0.0625 * (p[-2].y + p[2].y);
    }
}

static inline void interpolate(const vec_t *restrict p, size_t n, size_t step, double (*restrict c)[STEP_MAX],
                               double *restrict out) {
    for (size_t j = 0; j < n; j++, p++, out += 2 * step) {
        for (size_t i = 0; i < step; i++) {
            out[2 * i] = c[0][i] * p[-1].x + c[1][i] * p[0].x + c[2][i] * p[1].x + c[3][i] * p[2].x;
            out[2 * i + 1] = c[0][i] * p[-1].y + c[1][i] * p[0].y + c[2][i] * p[1].y + c[3][i] * p[2].y;
        }
    }
}

/* n * 2^level nodes from p[-1..n+1]. */
VECTOR_LOOPS static void fill_between(const vec_t *p, size_t n, int level, double *out) {
    if (level == 1) {
        interpolate(p, n, 2, between[1], out);
    } else if (level == 2) {
        interpolate(p, n, 4, between[2], out);
    } else {
        interpolate(p, n, 8, between[3], out);
    }
}

/* ---------------------------------------------------------------- arcs */

/* A whole ring without corners, or the nodes from one corner to the next, both included. */
typedef struct {
    size_t from, count; /* at[from..from+count-1] */
    bool closed;
    vec_t *level[LEVELS]; /* its nodes, continued on both sides, and the same halved */
    vec_t *room;          /* behind the last level */
} arc_t;

static vec_t mirrored(vec_t about, vec_t p) {
    return (vec_t){2 * about.x - p.x, 2 * about.y - p.y};
}

/* A ring goes on round and round; an arc by its point reflection at either end, which keeps straight arcs straight up
 * to the corner. */
static void lay_line(outline_t *o, arc_t *a, size_t margin) {
    vec_t *line = a->level[0] = o->tmp + margin, *last = line + a->count - 1;
    memcpy(line, o->at + a->from, a->count * sizeof *line);
    for (ptrdiff_t i = 1; i <= (ptrdiff_t)margin; i++) {
        *(line - i) = a->closed ? *(last + 1 - i) : mirrored(*line, line[i]);
        last[i] = a->closed ? line[i - 1] : mirrored(*last, *(last - i));
    }
}

static void lay_levels(outline_t *o, arc_t *a, size_t margin, int levels) {
    size_t before = margin, after = a->count - 1 + margin; /* nodes on both sides of the first */
    a->room = o->levels;
    for (int l = 1; l <= levels; l++) {
        before = before / 2 - 1;
        after = after / 2 - 1;
        a->level[l] = a->room + before;
        halve_line(a->level[l - 1] - 2 * before, before + after + 1, a->room);
        a->room += before + after + 1;
    }
}

/* The narrower filters only work where no wider one has taken over; elsewhere o->wide is the line itself. */
static void filter_rest(outline_t *o, const arc_t *a, const kernel_t *k) {
    enum { BLOCK = LANES / 2 };
    size_t n = a->count, begin = 0;
    memcpy(o->wide, a->level[0], n * sizeof *o->wide);
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t end = i + BLOCK < n ? i + BLOCK : n;
        double rest = 0;
        for (size_t j = i; j < end; j++) {
            rest += o->rest[j];
        }
        if (rest <= 0) {
            filter_values(&a->level[0][begin].x, 2 * (i - begin), k, &o->wide[begin].x);
            begin = end;
        }
    }
    if (begin < n) {
        filter_values(&a->level[0][begin].x, 2 * (n - begin), k, &o->wide[begin].x);
    }
}

/* How far a node has moved across its crack. */
static inline double shift_of(vec_t at, vec_t moved, int dir) {
    return (dir & 1) == 0 ? fabs(moved.y - at.y) : fabs(moved.x - at.x);
}

/* The same for n nodes, 0 where a wider filter has taken over; returns the greatest. */
VECTOR_LOOPS static double find_shifts(const vec_t *restrict at, const vec_t *restrict moved,
                                       const uint8_t *restrict dir, const double *restrict rest, size_t n,
                                       double *restrict shift) {
    enum { GROUP = 8 };
    double most[GROUP] = {0}, greatest = 0;
    size_t i = 0;
    for (; i + GROUP <= n; i += GROUP) {
        for (size_t k = 0; k < GROUP; k++) {
            double dx = fabs(moved[i + k].x - at[i + k].x), dy = fabs(moved[i + k].y - at[i + k].y);
            double d = (dir[i + k] & 1) == 0 ? dy : dx;
            d = rest[i + k] > 0 ? d : 0;
            shift[i + k] = d;
            most[k] = d > most[k] ? d : most[k];
        }
    }
    for (; i < n; i++) {
        shift[i] = rest[i] > 0 ? shift_of(at[i], moved[i], dir[i]) : 0;
        greatest = shift[i] > greatest ? shift[i] : greatest;
    }
    for (int k = 0; k < GROUP; k++) {
        greatest = most[k] > greatest ? most[k] : greatest;
    }
    return greatest;
}

/* The arc through the filter of width w > 0, in o->wide. False where it is clear before the nodes between the samples
 * are filled in that blend_run would take nothing of it: its runs hold eight samples, or a corner. */
static bool widen(outline_t *o, const arc_t *a, size_t w) {
    enum { RUN = 8 };
    int level = HALVINGS[w];
    if (level == 0) {
        filter_rest(o, a, &kernels[w]);
        return true;
    }
    size_t step = (size_t)1 << level, last = (a->count - 1) / step, run = a->closed ? 0 : RUN;
    vec_t *samples = a->room + 1;
    filter_values(&(a->level[level] - 1)->x, 2 * (last + 4), &kernels[w], &a->room->x);
    for (size_t k = 0; k <= 2 * last + 1 && run < RUN; k++) { /* twice round the ring */
        size_t j = k <= last ? k : k - last - 1, i = j * step;
        double shift = shift_of(a->level[0][i], samples[j], o->dir[a->from + i]);
        run = shift <= MAX_TRUE_SHIFT || o->rest[i] <= 0 ? run + 1 : 0;
    }
    if (run >= RUN) {
        fill_between(samples, last + 1, level, &o->wide->x);
    }
    return run >= RUN;
}

/* Node i of n takes over as much of `wide` as the share of the nodes first..end-1 in the reach around it. */
VECTOR_LOOPS static void blend_run(const vec_t *restrict line, const vec_t *restrict wide, vec_t *restrict smooth,
                                   double *restrict rest, int n, double first, double end, double reach) {
    double full = 2 * reach + 1;
    for (int i = 0; i < n; i++) {
        double from = i - reach > first ? i - reach : first, to = i + reach + 1 < end ? i + reach + 1 : end;
        double within = to > from ? to - from : 0, share = rest[i] * (within / full);
        rest[i] -= share;
        smooth[i].x += share * (wide[i].x - line[i].x);
        smooth[i].y += share * (wide[i].y - line[i].y);
    }
}

typedef struct {
    ptrdiff_t begin, end;
} run_t;

/* A run of nodes that fit takes over the wider curve, softly at both ends: run `whole` of which `part` is meant. */
static void take_run(outline_t *o, const arc_t *a, run_t part, run_t whole, size_t w) {
    ptrdiff_t b = part.begin, first = whole.begin + WIDTHS[w], end = whole.end - WIDTHS[w];
    if (first < end && b < part.end) {
        blend_run(a->level[0] + b, o->wide + b, o->smooth + (ptrdiff_t)a->from + b, o->rest + b, (int)(part.end - b),
                  (double)(first - b), (double)(end - b), WIDTHS[w]);
    }
}

/* Takes over the curve of width w where it and all its surroundings agree with the pixels; true: everywhere. */
static bool take_width(outline_t *o, const arc_t *a, size_t w) {
    const ptrdiff_t n = (ptrdiff_t)a->count, far = 2 * n + 4 * WIDTHS[NWIDTHS - 1];
    const double *shift = o->shift;
    if (!widen(o, a, w)) {
        return false;
    }
    if (find_shifts(a->level[0], o->wide, o->dir + a->from, o->rest, a->count, o->shift) <= MAX_TRUE_SHIFT) {
        take_run(o, a, (run_t){0, n}, (run_t){-far, far}, w);
        return true;
    }
    ptrdiff_t head = 0, tail = n, end;
    while (shift[head] <= MAX_TRUE_SHIFT) {
        head++;
    }
    while (shift[tail - 1] <= MAX_TRUE_SHIFT) {
        tail--;
    }
    for (ptrdiff_t begin = head; begin < tail; begin = end) {
        for (end = begin; shift[end] <= MAX_TRUE_SHIFT; end++) { /* the last one before the tail is greater */
        }
        take_run(o, a, (run_t){begin, end}, (run_t){begin, end}, w);
        while (end < tail && shift[end] > MAX_TRUE_SHIFT) {
            end++;
        }
    }
    run_t round_end = {tail, n + head}; /* of a ring: over its beginning */
    take_run(o, a, (run_t){tail, n}, a->closed ? round_end : (run_t){tail, far}, w);
    take_run(o, a, (run_t){0, head}, a->closed ? (run_t){tail - n, head} : (run_t){-far, head}, w);
    return false;
}

/* The rest for the narrowest filter. */
VECTOR_LOOPS static void take_rest(const vec_t *restrict line, const vec_t *restrict narrow,
                                   const double *restrict rest, size_t n, vec_t *restrict smooth) {
    for (size_t i = 0; i < n; i++) {
        smooth[i].x += rest[i] * (narrow[i].x - line[i].x);
        smooth[i].y += rest[i] * (narrow[i].y - line[i].y);
    }
}

/* widest: of the ring; the arc may be too short for it. */
static void smooth_arc(outline_t *o, arc_t *a, const kernel_t *narrow, size_t widest) {
    size_t w = widest, margin = narrow->radius;
    while (w > 0 && a->count < (size_t)LEAST_PER_WIDTH * (size_t)WIDTHS[w]) {
        w--;
    }
    if (w > 0) { /* what reaches the samples that are interpolated between at both ends, through all levels */
        size_t reach = HALVINGS[w] > 0 ? (size_t)(RADIUS_MAX + 4) << HALVINGS[w] : kernels[w].radius;
        margin = reach > margin ? reach : margin;
    }
    lay_line(o, a, margin);
    lay_levels(o, a, margin, HALVINGS[w]);
    const vec_t *line = a->level[0];
    vec_t *smooth = o->smooth + a->from;
    if (w == 0) {
        filter_values(&line->x, 2 * a->count, narrow, &smooth->x);
    } else {
        memcpy(smooth, line, a->count * sizeof *smooth);
        for (size_t i = 0; i < a->count; i++) {
            o->rest[i] = 1;
        }
        while (w > 0 && !take_width(o, a, w)) {
            w--;
        }
        if (w == 0) {
            filter_rest(o, a, narrow);
            take_rest(line, o->wide, o->rest, a->count, smooth);
        }
    }
    if (!a->closed) {
        smooth[0] = line[0];
        smooth[a->count - 1] = line[a->count - 1];
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

void outline_smooth(outline_t *o, bool gently) {
    size_t n = o->nnodes, widest = 0;
    pthread_once(&tables_made, make_tables);
    const kernel_t *narrow = gently ? &narrow_kernels[0] : n < NARROW ? &narrow_kernels[n] : &kernels[0];
    while (!gently && widest + 1 < NWIDTHS && n >= (size_t)NODES_PER_WIDTH * (size_t)WIDTHS[widest + 1]) {
        widest++;
    }
    const uint8_t *corner = memchr(o->fixed, 1, n);
    if (corner == NULL) {
        smooth_arc(o, &(arc_t){.from = 0, .count = n, .closed = true}, narrow, widest);
    } else {
        size_t first = (size_t)(corner - o->fixed);
        memcpy(o->at + n, o->at, n * sizeof *o->at);
        memcpy(o->dir + n, o->dir, n);
        for (size_t at = first, length; at < n; at += length) {
            const uint8_t *next = memchr(o->fixed + at + 1, 1, n - at - 1);
            length = next != NULL ? (size_t)(next - o->fixed) - at : n - at + first;
            smooth_arc(o, &(arc_t){.from = at, .count = length + 1}, narrow, widest);
        }
        memcpy(o->smooth, o->smooth + n, first * sizeof *o->smooth);
    }
    hold_nodes(o->at, o->dir, n, o->smooth);
}
