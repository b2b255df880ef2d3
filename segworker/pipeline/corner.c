/* Corners of the object in a ring of cracks. */
#include "segworker/pipeline/corner.h"

#include <math.h>
#include <stdbool.h>

enum {
    SHORT_ARM = 6,
    LONG_ARM = 12,
    LONGEST_ARM = 48,
    MIN_NODES = 96, /* smaller objects have no room for two arms: round and angular cannot be told apart */
    MIN_RUN = 3
};

#define RAD (3.14159265358979323846 / 180)
#define MIN_TURN (45 * RAD)
#define MAX_GROWTH (18 * RAD)
#define MAX_BEND 0.75 /* px an arm may deviate from its line */
#define MAX_REACH 1.5 /* px from the outline to where the lines meet */

typedef struct {
    const crack_t *cracks;
    const uint32_t *order;
    size_t n, corners;
} ring_view_t;

static size_t run_before(const ring_view_t *v, size_t k) {
    size_t a = v->order[k > 0 ? k - 1 : v->corners - 1], b = v->order[k];
    return (b + v->n - a) % v->n;
}

static int turn_at(const ring_view_t *v, size_t k) {
    size_t i = v->order[k];
    return (v->cracks[i].dir - v->cracks[i > 0 ? i - 1 : v->n - 1].dir) & 3;
}

static bool is_stair(const ring_view_t *v, size_t k) {
    size_t prev = k > 0 ? k - 1 : v->corners - 1, next = k + 1 < v->corners ? k + 1 : 0;
    return (run_before(v, k) == 1 && turn_at(v, prev) != turn_at(v, k)) ||
           (run_before(v, next) == 1 && turn_at(v, next) != turn_at(v, k));
}

void corner_find_axis(const crack_t *cracks, size_t n, uint32_t *order, uint8_t *fixed) {
    ring_view_t v = {cracks, order, n, 0};
    for (size_t i = 0; i < n; i++) {
        fixed[i] = 0;
        if (cracks[i].dir != cracks[i > 0 ? i - 1 : n - 1].dir) {
            order[v.corners++] = (uint32_t)i;
        }
    }
    for (size_t k = 0; k < v.corners; k++) {
        size_t prev = k > 0 ? k - 1 : v.corners - 1, next = k + 1 < v.corners ? k + 1 : 0;
        if (is_stair(&v, k) || cracks[order[k]].pinch) {
            continue;
        }
        bool long_sides = run_before(&v, k) >= MIN_RUN && run_before(&v, next) >= MIN_RUN;
        fixed[order[k]] = long_sides || (!is_stair(&v, prev) && !is_stair(&v, next));
    }
}

static double turn_over(const vec_t *at, size_t n, size_t i, size_t arm) {
    vec_t a = at[(i + n - arm) % n], b = at[i], c = at[(i + arm) % n];
    double ux = b.x - a.x, uy = b.y - a.y, vx = c.x - b.x, vy = c.y - b.y;
    return fabs(atan2(ux * vy - uy * vx, ux * vx + uy * vy));
}

typedef struct {
    double cx, cy, dx, dy, bend; /* centre, unit direction, greatest deviation */
} line_t;

/* Least-squares line through the nodes 2..arm steps from i (the first one is rounded by the grid). */
static line_t fit_arm(const vec_t *at, size_t n, size_t i, int step, int arm) {
    double sx = 0, sy = 0, xx = 0, xy = 0, yy = 0;
    int count = arm - 1;
    for (int k = 2; k <= arm; k++) {
        vec_t p = at[(i + n + (size_t)((int)n + step * k)) % n];
        sx += p.x - at[i].x;
        sy += p.y - at[i].y;
    }
    line_t l = {.cx = at[i].x + sx / count, .cy = at[i].y + sy / count};
    for (int k = 2; k <= arm; k++) {
        vec_t p = at[(i + n + (size_t)((int)n + step * k)) % n];
        xx += (p.x - l.cx) * (p.x - l.cx);
        xy += (p.x - l.cx) * (p.y - l.cy);
        yy += (p.y - l.cy) * (p.y - l.cy);
    }
    double angle = 0.5 * atan2(2 * xy, xx - yy);
    l.dx = cos(angle);
    l.dy = sin(angle);
    for (int k = 2; k <= arm; k++) {
        vec_t p = at[(i + n + (size_t)((int)n + step * k)) % n];
        l.bend = fmax(l.bend, fabs((p.x - l.cx) * l.dy - (p.y - l.cy) * l.dx));
    }
    return l;
}

static bool lines_meet(const line_t *a, const line_t *b, vec_t near, vec_t *where) {
    double d = a->dx * b->dy - a->dy * b->dx;
    if (fabs(d) < 0.3) {
        return false;
    }
    double t = ((b->cx - a->cx) * b->dy - (b->cy - a->cy) * b->dx) / d;
    *where = (vec_t){a->cx + t * a->dx, a->cy + t * a->dy};
    return hypot(where->x - near.x, where->y - near.y) <= MAX_REACH;
}

static bool is_sharp(const vec_t *at, size_t n, size_t i, vec_t *where) {
    double small = turn_over(at, n, i, SHORT_ARM);
    if (small < MIN_TURN || turn_over(at, n, i, LONG_ARM) > small + MAX_GROWTH) {
        return false;
    }
    line_t a = fit_arm(at, n, i, -1, LONG_ARM), b = fit_arm(at, n, i, 1, LONG_ARM);
    if (a.bend > MAX_BEND || b.bend > MAX_BEND || !lines_meet(&a, &b, at[i], where)) {
        return false;
    }
    /* Longer arms, where they are as straight, put the corner more exactly. */
    for (int arm = LONGEST_ARM; arm > LONG_ARM; arm /= 2) {
        vec_t better;
        if ((size_t)arm > n / 4) {
            continue;
        }
        a = fit_arm(at, n, i, -1, arm);
        b = fit_arm(at, n, i, 1, arm);
        if (a.bend <= MAX_BEND && b.bend <= MAX_BEND && lines_meet(&a, &b, at[i], &better)) {
            *where = better;
            break;
        }
    }
    return true;
}

/* The sharpest node of the run of candidates from i on; *end: the first node after the run. */
static size_t sharpest(const vec_t *at, size_t n, size_t i, const vec_t *where, size_t *end) {
    double best = 0;
    size_t at_best = i, k = i;
    for (; k < n && !isnan(where[k].x); k++) {
        /* closest to where its own lines meet, and turning most */
        double score = turn_over(at, n, k, SHORT_ARM) - hypot(where[k].x - at[k].x, where[k].y - at[k].y);
        if (k == i || score > best) {
            best = score;
            at_best = k;
        }
    }
    *end = k;
    return at_best;
}

size_t corner_fix_sharp(vec_t *at, uint8_t *fixed, uint8_t *dir, size_t n, vec_t *work) {
    enum { DROP = 2 };
    size_t found = 0, kept = 0;
    if (n < MIN_NODES) {
        return n;
    }
    for (size_t i = 0; i < n; i++) {
        bool busy = false; /* an axis corner nearby already does the work */
        for (size_t k = 0; k <= 2 * SHORT_ARM && !busy; k++) {
            busy = fixed[(i + n + k - SHORT_ARM) % n] != 0;
        }
        if (busy || !is_sharp(at, n, i, &work[i])) {
            work[i].x = NAN;
        } else {
            found++;
        }
    }
    if (found == 0) {
        return n;
    }
    for (size_t i = 0; i < n; i++) {
        size_t end = i + 1;
        if (isnan(work[i].x)) {
            continue;
        }
        size_t best = sharpest(at, n, i, work, &end);
        at[best] = work[best];
        fixed[best] = 1;
        for (size_t k = 1; k <= DROP; k++) {
            fixed[(best + k) % n] = fixed[(best + n - k) % n] = 2; /* to be taken out */
        }
        i = end - 1;
    }
    for (size_t i = 0; i < n; i++) {
        if (fixed[i] != 2) {
            at[kept] = at[i];
            dir[kept] = dir[i];
            fixed[kept++] = fixed[i];
        }
    }
    return kept;
}
