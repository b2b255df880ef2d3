/*
 * One star-convex polygon: its corners, its area, what it shares with another and which pixels it covers. Internal to
 * star.c. Pure functions.
 */
#ifndef SG_PIPELINE_STAR_SHAPE_H
#define SG_PIPELINE_STAR_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

#include "segworker/pipeline/star.h"

/* Bounds, sizes and centre of a shape; its corners are kept beside it. Coordinates in px, origin at the image's
 * corner. */
typedef struct {
    float cx, cy, x0, y0, x1, y1;
    float inner; /* radius of a circle around the centre that lies inside */
    float area;
} star_shape_t;

typedef struct {
    int rays;
    float cosine[STAR_MAX_RAYS], sine[STAR_MAX_RAYS];
    float inner_factor; /* shortest ray -> inner */
    float sector;       /* area of the triangle of two neighbouring rays of length 1 */
} star_rays_t;

void star_rays_init(star_rays_t *r, int rays);

/* lengths: rays values. corners: 2 * rays values x, y. */
void star_shape_init(const star_rays_t *r, float cx, float cy, const float *lengths, star_shape_t *s, float *corners);

/* Does b share more than `share` of the smaller area with a? */
bool star_shapes_overlap(const star_rays_t *r, const star_shape_t *a, const float *a_corners, const star_shape_t *b,
                         const float *b_corners, float share);

/* Gives label to the pixels with value 0 whose centre is inside. */
void star_shape_draw(const star_rays_t *r, const star_shape_t *s, const float *corners, int32_t label, int width,
                     int height, int32_t *labels);

#endif
