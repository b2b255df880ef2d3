/*
 * Largest circle that fits into an object, holes and gaps respected. Quadtree search with a bound on every cell
 * (after Agafonkin, "A new algorithm for finding a visual center of a polygon", 2016): the result is never too
 * large, and at most 0.01 px or 0.1 % of the object's smaller side too small. Internal to measure.c.
 */
#ifndef SG_GEOMETRY_INSCRIBED_H
#define SG_GEOMETRY_INSCRIBED_H

#include "polygon.h"

/* Radius in px; 0 for an object without area. ERR_NO_MEMORY. */
ERR_MUST err_kind_t inscribed_radius(const geom_t *g, double *radius, err_t *err);

#endif
