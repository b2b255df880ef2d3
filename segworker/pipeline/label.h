/*
 * From network maps to a label image: which pixel belongs to which object.
 *
 * label_from_maps   foreground probability + distance map -> one label per object, touching objects split by a
 *                   seeded watershed (flooding by priority: Meyer, "Un algorithme optimal pour la ligne de partage
 *                   des eaux", 1991) of the negated distance map inside the foreground mask.
 * label_from_votes  foreground probability + the way to the object's centre -> pixels that point to one place are
 *                   one object.
 * label_from_foreground   one map only: connected components of the mask.
 *
 * All components are 4-connected. Equal input gives equal output, bit for bit, on every machine.
 * Time O(pixels x log(flooding front)). Memory besides the caller's maps and the result: 5 bytes per pixel, 4 more
 * while dist_sigma > 0, up to 6 more for tables when the mask is pure noise, and 12 bytes (24 while growing) per pixel
 * of the flooding front, which is never larger than the mask. Images of more than 2^30 pixels are refused
 * (ERR_TOO_LARGE "image_too_large"). Thread-safe: no state.
 */
#ifndef SG_PIPELINE_LABEL_H
#define SG_PIPELINE_LABEL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "segworker/pipeline/cancel.h"

typedef struct {
    float threshold;            /* a pixel is foreground when fg >= threshold */
    float seed_threshold;       /* a foreground pixel is seed when dist >= seed_threshold */
    float dist_sigma;           /* px; > 0 smooths dist first (Gaussian cut off at 4 sigma, reflected borders) */
    float small_seed_threshold; /* for votes: votes_params_t's small_saddle ... */
    int64_t small_area;         /* ... and its small_votes, 0 = no such difference */
    int64_t seed_min_area;      /* px; smaller seeds are dropped */
    int64_t min_area;           /* px; smaller objects are dropped */
    int64_t max_hole_area;      /* px; holes up to this size are always filled */
    bool detect_holes;          /* false: every hole is filled */
    bool drop_border;           /* true: objects with a pixel on the image's edge are dropped */
    bool part;            /* the maps are part of an image: min_area and drop_border are left to who joins the parts */
    uint32_t max_objects; /* more than that: ERR_INVALID "too_many_objects" */
} label_params_t;

/*
 * fg, dist: width*height each, row by row. A mask component without a seed becomes one object when it has at least
 * min_area pixels. A hole is a background region (4-connected, not touching the image's edge) that borders on one
 * object only: the gap between three touching objects, or around an object inside a ring, is not a hole to fill.
 * Objects are numbered 1..*count in the order of their first pixel. *labels (width*height, 0 = background) is freed
 * by the caller with free(). Errors: the ones above, ERR_INVALID "image_empty", ERR_CANCELLED, ERR_NO_MEMORY; then
 * *labels is NULL.
 */
ERR_MUST err_kind_t label_from_maps(const float *fg, const float *dist, int width, int height, const label_params_t *p,
                                    const cancel_t *cancel, int32_t **labels, uint32_t *count, err_t *err);

/*
 * The same with votes in place of a distance map (votes.h): down, right: px from each pixel to its object's centre. The
 * largest part of each group of pixels that agree is a seed; the other pixels of the mask fall to the seeds by falling
 * fg. Here seed_threshold is votes_params_t's saddle, dist_sigma the smoothing of the counted votes and seed_min_area
 * the votes that an object needs. Memory: 17 bytes per pixel more while the votes are grouped.
 */
ERR_MUST err_kind_t label_from_votes(const float *fg, const float *down, const float *right, int width, int height,
                                     const label_params_t *p, const cancel_t *cancel, int32_t **labels, uint32_t *count,
                                     err_t *err);

/* The same without a distance map: seed_threshold, dist_sigma and seed_min_area are not used. */
ERR_MUST err_kind_t label_from_foreground(const float *fg, int width, int height, const label_params_t *p,
                                          const cancel_t *cancel, int32_t **labels, uint32_t *count, err_t *err);

/* A label image from elsewhere: ids are any values of at most 2^24, <= 0.5 and NaN are background, pixels of one value
 * are one object. Holes, small objects, order and limit as above. ERR_INVALID "model_output": an id is too large. */
ERR_MUST err_kind_t label_from_ids(const float *ids, int width, int height, const label_params_t *p,
                                   const cancel_t *cancel, int32_t **labels, uint32_t *count, err_t *err);

/* Mean of plane over the pixels of each object, into means[0..count-1] (means[k] belongs to label k+1): the confidence
 * of an object is the mean foreground probability of its pixels. */
ERR_MUST err_kind_t label_mean_of(const int32_t *labels, int width, int height, uint32_t count, const float *plane,
                                  float *means, err_t *err);

#endif
