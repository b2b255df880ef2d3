/*
 * Which pixels lie inside a geometry: those whose centre does, by the even-odd rule over all rings. A centre exactly on
 * an edge belongs to one side only, so two outlines with a common border never both claim a pixel. Thread-safe.
 */
#ifndef SG_GEOMETRY_RASTER_H
#define SG_GEOMETRY_RASTER_H

#include "polygon.h"

/* One run of pixels: row y, columns x0 <= x < x1, within the image. */
typedef void (*raster_span_fn)(void *ctx, int y, int x0, int x1);

/* Calls fn for each run, rows from the top, columns from the left; what lies outside width*height is cut off.
 * Time and memory are proportional to the outline's length. ERR_NO_MEMORY. */
ERR_MUST err_kind_t raster_spans(const geom_t *g, int width, int height, raster_span_fn fn, void *ctx, err_t *err);

#endif
