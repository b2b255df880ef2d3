/*
 * Convex hull and what follows from it: caliper widths and the smallest enclosing circle. Internal to measure.c, and
 * of use to whoever needs a hull. Pure functions, exact in the choice of hull points (integer arithmetic).
 */
#ifndef SG_GEOMETRY_HULL_H
#define SG_GEOMETRY_HULL_H

#include <stddef.h>

#include "polygon.h"

/* Sorts points in place and moves the hull's corners (positive orientation, nothing collinear) to the front; returns
 * their number: 1 or 2 when the points have no area. Monotone chain: Andrew, 1979. hull must hold n + 1 points. */
size_t hull_compute(geom_point_t *points, size_t n, geom_point_t *hull);

typedef struct {
    double area, perimeter;
    double feret_max, feret_min, feret_orthogonal;
} hull_measures_t; /* px, px² */

/* Rotating calipers (Shamos, 1978) over a hull of at least 3 corners. */
void hull_measure(const geom_point_t *hull, size_t n, hull_measures_t *out);

/* Radius in px of the smallest circle around the hull; corners are reordered. Move-to-front form of Welzl's
 * algorithm (1991), with a fixed shuffle, so that equal input gives equal output. */
double hull_enclosing_radius(geom_point_t *hull, size_t n);

#endif
