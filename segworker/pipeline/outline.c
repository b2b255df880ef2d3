/*
 * One ring, from cracks to outline: nodes on its cracks, corners that belong to the object, then smoothing
 * (outline_smooth.c) and simplification (outline_simplify.c), and the 1/100 px grid.
 */
#include "segworker/pipeline/outline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "segworker/pipeline/corner.h"

#define PINCH_CUT 10 /* 1/100 px */

enum { MARGIN = 512 }; /* nodes beyond both ends that smoothing works on */

static const int STEP_X[4] = {1, 0, -1, 0}, STEP_Y[4] = {0, 1, 0, -1};

void outline_free(outline_t *o) {
    free(o->at);
    free(o->smooth);
    free(o->tmp);
    free(o->wide);
    free(o->fixed);
    free(o->dir);
    free(o->order);
    free(o->keep);
    free(o->levels);
    free(o->rest);
    free(o->shift);
    memset(o, 0, sizeof *o);
}

static bool reserve(outline_t *o, size_t cracks) {
    if (cracks <= o->room) {
        return true;
    }
    size_t room = cracks + cracks / 2 + 64, nodes = 2 * room;
    outline_free(o);
    o->at = malloc(2 * nodes * sizeof *o->at);
    o->smooth = malloc(2 * nodes * sizeof *o->smooth);
    o->tmp = malloc((nodes + MARGIN) * sizeof *o->tmp);
    o->wide = malloc((nodes + MARGIN) * sizeof *o->wide);
    o->levels = malloc((nodes + nodes / 2 + MARGIN) * sizeof *o->levels);
    o->rest = malloc(nodes * sizeof *o->rest);
    o->shift = malloc(nodes * sizeof *o->shift);
    o->fixed = malloc(nodes);
    o->dir = malloc(2 * nodes);
    o->order = malloc((nodes + 4) * sizeof *o->order);
    o->keep = malloc(nodes);
    if (o->at == NULL || o->smooth == NULL || o->tmp == NULL || o->wide == NULL || o->levels == NULL ||
        o->rest == NULL || o->shift == NULL || o->fixed == NULL || o->dir == NULL || o->order == NULL ||
        o->keep == NULL) {
        outline_free(o);
        return false;
    }
    o->room = room;
    return true;
}

/* Counted from where the ring begins: an outline does not depend, by rounding, on where its object lies. */
static void make_nodes(outline_t *o, const crack_t *steps, size_t cracks) {
    static const double half_x[4] = {0.5, 0, -0.5, 0}, half_y[4] = {0, 0.5, 0, -0.5};
    int x = 0, y = 0;
    size_t n = 0;
    uint8_t *corner = o->keep;
    corner_find_axis(steps, cracks, o->order, corner);
    for (size_t i = 0; i < cracks; i++) {
        int dir = steps[i] & CRACK_DIRECTION;
        if (corner[i]) {
            o->at[n] = (vec_t){x, y};
            o->fixed[n] = 1;
            o->dir[n++] = (uint8_t)dir;
        }
        o->at[n] = (vec_t){x + half_x[dir], y + half_y[dir]};
        o->fixed[n] = 0;
        o->dir[n++] = (uint8_t)dir;
        x += STEP_X[dir];
        y += STEP_Y[dir];
    }
    o->nnodes = n;
}

/* ---------------------------------------------------------------- output */

/* To the nearest unit, halves away from zero. */
static int32_t to_units(double v, int32_t origin, int32_t limit) {
    v = v < -origin ? -origin : v > limit - origin ? limit - origin : v;
    return (int32_t)(v * GEOM_UNITS_PER_PX + (v < 0 ? -0.5 : 0.5)) + origin * GEOM_UNITS_PER_PX;
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

static bool copy_points(const geom_point_t *p, size_t n, geom_ring_t *out) {
    out->points = malloc((n > 0 ? n : 1) * sizeof *out->points);
    if (out->points == NULL) {
        return false;
    }
    memcpy(out->points, p, n * sizeof *p);
    out->count = (uint32_t)n;
    return true;
}

/* Corners of the crack ring. Where the label touches itself in a corner, the corner is cut. */
static bool build_from_cracks(const crack_ring_t *ring, const crack_t *steps, geom_ring_t *out) {
    geom_point_t *points = malloc((size_t)ring->cracks * 2 * sizeof *points);
    size_t n = 0;
    int32_t x = ring->x * GEOM_UNITS_PER_PX, y = ring->y * GEOM_UNITS_PER_PX;
    int before = ring->hole ? CRACK_DOWN : CRACK_UP;
    for (uint32_t i = 0; points != NULL && i < ring->cracks; i++) {
        int dir = steps[i] & CRACK_DIRECTION;
        if ((steps[i] & CRACK_PINCH) != 0) {
            points[n++] = (geom_point_t){x - PINCH_CUT * STEP_X[before], y - PINCH_CUT * STEP_Y[before]};
            points[n++] = (geom_point_t){x + PINCH_CUT * STEP_X[dir], y + PINCH_CUT * STEP_Y[dir]};
        } else if (dir != before) {
            points[n++] = (geom_point_t){x, y};
        }
        x += STEP_X[dir] * GEOM_UNITS_PER_PX;
        y += STEP_Y[dir] * GEOM_UNITS_PER_PX;
        before = dir;
    }
    bool ok = points != NULL && copy_points(points, n, out);
    free(points);
    return ok;
}

static bool build_smooth(outline_t *o, int width, int height, const crack_ring_t *ring, const crack_t *steps,
                         outline_level_t level, double tolerance, geom_ring_t *out) {
    if (!reserve(o, ring->cracks)) {
        return false;
    }
    make_nodes(o, steps, ring->cracks);
    size_t n = o->nnodes;
    if (level == OUTLINE_MIDPOINTS) {
        memcpy(o->smooth, o->at, n * sizeof *o->at);
    } else {
        corner_fix_sharp(o);
        outline_smooth(o, level == OUTLINE_GENTLE);
        n = outline_simplify(o, level == OUTLINE_GENTLE ? tolerance / 2 : tolerance);
    }
    outline_match_area(o, n, (double)ring->area);
    geom_point_t *points = (geom_point_t *)(void *)o->tmp;
    for (size_t i = 0; i < n; i++) {
        points[i].x = to_units(o->smooth[i].x, ring->x, width);
        points[i].y = to_units(o->smooth[i].y, ring->y, height);
    }
    return copy_points(points, clean_ring(points, (uint32_t)n), out);
}

err_kind_t outline_build(outline_t *o, int width, int height, const crack_ring_t *ring, const crack_t *steps,
                         outline_level_t level, double tolerance, geom_ring_t *out, err_t *err) {
    bool pixels = level == OUTLINE_CRACKS || ring->cracks > OUTLINE_MAX_SMOOTH_CRACKS;
    steps += ring->first;
    bool ok = pixels ? build_from_cracks(ring, steps, out)
                     : build_smooth(o, width, height, ring, steps, level, tolerance, out);
    return ok ? ERR_OK
              : err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.", "outline");
}
