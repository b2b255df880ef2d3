/*
 * Measurements of one object (H5), defined once here for editor, API and export. proto/polygons.md gives the
 * definition of each number. Everything but the intensities depends on the geometry alone. Pure functions.
 */
#ifndef SG_GEOMETRY_MEASURE_H
#define SG_GEOMETRY_MEASURE_H

#include "polygon.h"

typedef struct {
    double area, area_filled;                                                 /* px² */
    double perimeter, perimeter_with_holes;                                   /* px */
    double equivalent_diameter;                                               /* px */
    double circularity, compactness, convexity, solidity, extent, sphericity; /* no unit */
    double feret_max, feret_min, feret_orthogonal;                            /* px */
    double feret_aspect_ratio;
    double major_axis, minor_axis;                  /* px, full length */
    double orientation;                             /* degrees in (-90, 90] */
    double bbox_x, bbox_y, bbox_width, bbox_height; /* px */
    double centroid_x, centroid_y;                  /* px */
    uint32_t holes;
    double mean_intensity, integrated_intensity; /* file units; NaN when no pixels were given */
} measurements_t;

/* plane: width*height grey values or NULL. A degenerate geometry (no area) gives ERR_INVALID "geometry_degenerate". */
ERR_MUST err_kind_t measure_object(const geom_t *g, const float *plane, int width, int height, measurements_t *out,
                                   err_t *err);

/* Appends the JSON object of proto/polygons.md; numbers are rounded to 6 significant digits or 1e-4, whichever is
 * finer, NaN fields are left out. Deterministic: equal input gives equal bytes. */
void measure_write_json(const measurements_t *m, buf_t *out);

#endif
