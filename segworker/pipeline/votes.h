/*
 * Grouping of pixels by where they say their object's centre is.
 *
 * Every pixel of the mask votes for the place that its two offsets point to. The votes are counted per pixel and
 * smoothed; pixels of one object heap up in one place, also where objects touch or overlap. The heaps are told apart by
 * height: going down from the highest place, each place joins the heap of its highest neighbour, and where two heaps
 * meet they stay two only if the saddle is clearly lower than the lower peak (persistence-based clustering as in
 * Chazal, Guibas, Oudot and Skraba, "Persistence-based clustering in Riemannian manifolds", J. ACM 60, 2013). A pixel
 * belongs to the heap that its vote went to.
 *
 * Time linear in the pixels but for the near-constant factor of the union-find; memory 17 bytes per pixel and 16 per
 * pixel near votes. Deterministic; thread-safe: no state.
 */
#ifndef SG_PIPELINE_VOTES_H
#define SG_PIPELINE_VOTES_H

#include <stdint.h>

#include "common/err.h"
#include "segworker/pipeline/cancel.h"

typedef struct {
    double sigma;        /* px; smoothing of the counted votes, 0 = none */
    double saddle;       /* 0..1: heaps stay apart when the saddle is lower than this share of the lower peak */
    int64_t min_votes;   /* a smaller heap joins the one it touches, or is dropped */
    int64_t small_votes; /* two heaps that have fewer votes than this together ... */
    double small_saddle; /* ... are told apart by this saddle instead: of small objects the smoothing blurs the votes
                            of neighbours into each other */
} votes_params_t;

/*
 * A pixel is in the mask when (mask[i] & bits) != 0. down, right: px from the pixel to its object's centre; targets
 * outside the image count at its edge, a target that is no number stays where it is. labels (width*height): 0, or the
 * object 1..*count of the pixel. Of the 4-connected parts of an object only the largest (of equals the first) is
 * labelled: a few pixels with a wrong vote are left to the caller. ERR_CANCELLED, ERR_NO_MEMORY.
 */
ERR_MUST err_kind_t votes_group(const uint8_t *mask, uint8_t bits, const float *down, const float *right, int width,
                                int height, const votes_params_t *p, const cancel_t *cancel, int32_t *labels,
                                uint32_t *count, err_t *err);

#endif
