/* Corners of the object in a ring of cracks. */
#include "segworker/pipeline/corner.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "common/vector.h"

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

/* A corner of the ring: where it is, what leads to it and which way it turns. */
typedef struct {
    size_t at, run; /* index of its crack; cracks since the corner before */
    int turn;
} ring_corner_t;

static ring_corner_t corner_at(const crack_t *steps, size_t n, const uint32_t *order, size_t corners, size_t k) {
    size_t at = order[k], before = order[k > 0 ? k - 1 : corners - 1];
    int turn = (steps[at] - steps[at > 0 ? at - 1 : n - 1]) & CRACK_DIRECTION;
    return (ring_corner_t){at, at > before ? at - before : at + n - before, turn};
}

/* A pair of corners one crack apart that turn different ways are the two ends of a stair. */
static bool is_stair(const ring_corner_t *a, const ring_corner_t *b) {
    return b->run == 1 && a->turn != b->turn;
}

void corner_find_axis(const crack_t *steps, size_t n, uint32_t *order, uint8_t *fixed) {
    enum { LAST2, LAST, AT, NEXT, NEXT2, WINDOW };
    size_t corners = 0;
    memset(fixed, 0, n);
    for (size_t i = 0, before = n - 1; i < n; before = i++) {
        order[corners] = (uint32_t)i;
        corners += ((steps[i] ^ steps[before]) & CRACK_DIRECTION) != 0;
    }
    ring_corner_t c[WINDOW];
    if (corners < 4) {
        return; /* never so: a ring has at least four corners */
    }
    for (size_t k = 0; k + 1 < WINDOW; k++) {
        c[k + 1] = corner_at(steps, n, order, corners, (corners + k - 2) % corners);
    }
    for (size_t k = 0; k < corners; k++) {
        memmove(c, c + 1, (WINDOW - 1) * sizeof *c);
        c[NEXT2] = corner_at(steps, n, order, corners, k + 2 < corners ? k + 2 : k + 2 - corners);
        bool before = is_stair(&c[LAST], &c[AT]), after = is_stair(&c[AT], &c[NEXT]);
        if (before || after || (steps[c[AT].at] & CRACK_PINCH) != 0) {
            continue;
        }
        bool last_is = is_stair(&c[LAST2], &c[LAST]), next_is = is_stair(&c[NEXT], &c[NEXT2]);
        bool long_sides = c[AT].run >= MIN_RUN && c[NEXT].run >= MIN_RUN;
        fixed[c[AT].at] = long_sides || (!last_is && !next_is);
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
static size_t sharpest(const outline_t *o, size_t i, const vec_t *where, size_t *end) {
    double best = 0;
    size_t at_best = i, k = i;
    for (; k < o->nnodes && o->keep[k]; k++) {
        /* closest to where its own lines meet, and turning most */
        double score =
            turn_over(o->at, o->nnodes, k, SHORT_ARM) - hypot(where[k].x - o->at[k].x, where[k].y - o->at[k].y);
        if (k == i || score > best) {
            best = score;
            at_best = k;
        }
    }
    *end = k;
    return at_best;
}

/* Not negative where the line turns by MIN_TURN, which is 45 degrees, or more over the arms at node i + SHORT_ARM. */
VECTOR_LOOPS static void find_bends(const vec_t *restrict at, size_t n, double *restrict bend) {
    for (size_t i = 0; i < n; i++) {
        double ux = at[i + SHORT_ARM].x - at[i].x, uy = at[i + SHORT_ARM].y - at[i].y;
        double vx = at[i + 2 * SHORT_ARM].x - at[i + SHORT_ARM].x, vy = at[i + 2 * SHORT_ARM].y - at[i + SHORT_ARM].y;
        bend[i] = fabs(ux * vy - uy * vx) - (ux * vx + uy * vy);
    }
}

/* Is an axis corner nearby, which already does the work? */
static bool is_busy(const outline_t *o, size_t i) {
    bool busy = false;
    for (size_t k = 0; k <= 2 * SHORT_ARM && !busy; k++) {
        busy = o->fixed[(i + o->nnodes + k - SHORT_ARM) % o->nnodes] != 0;
    }
    return busy;
}

/* Marks candidates in keep, and where each would move to. */
static size_t find_candidates(outline_t *o, vec_t *where) {
    size_t n = o->nnodes, found = 0;
    double *bend = &o->wide->x;
    memcpy(o->at + n, o->at, n * sizeof *o->at);
    find_bends(o->at, n, bend);
    memset(o->keep, 0, n);
    for (size_t k = 0; k < n; k++) {
        size_t i = k + SHORT_ARM < n ? k + SHORT_ARM : k + SHORT_ARM - n;
        if (bend[k] >= 0 && !is_busy(o, i) && is_sharp(o->at, n, i, &where[i])) {
            o->keep[i] = 1;
            found++;
        }
    }
    return found;
}

void corner_fix_sharp(outline_t *o) {
    enum { DROP = 2 };
    size_t n = o->nnodes, kept = 0;
    vec_t *where = o->tmp;
    if (n < MIN_NODES || find_candidates(o, where) == 0) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        size_t end = i + 1;
        if (!o->keep[i]) {
            continue;
        }
        size_t best = sharpest(o, i, where, &end);
        o->at[best] = where[best];
        o->fixed[best] = 1;
        for (size_t k = 1; k <= DROP; k++) {
            o->fixed[(best + k) % n] = o->fixed[(best + n - k) % n] = 2; /* to be taken out */
        }
        i = end - 1;
    }
    for (size_t i = 0; i < n; i++) {
        if (o->fixed[i] != 2) {
            o->at[kept] = o->at[i];
            o->dir[kept] = o->dir[i];
            o->fixed[kept++] = o->fixed[i];
        }
    }
    o->nnodes = kept;
}
