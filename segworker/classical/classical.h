/*
 * Segmentation without a network: a grey plane becomes the same two maps that a network gives, a foreground and a
 * distance map, so that everything after it (tiles, labels, outlines) is shared.
 *
 *   smooth -> local threshold (Sauvola, Niblack or Gaussian, local.h) -> opening and closing -> holes filled -> edge
 *   filter: objects without a clear border are dropped -> distance to the border, with one seed per object (split.h).
 *
 * Inside, objects are dark on a bright background; classical_run takes care of the other case. Time is linear in the
 * pixels whatever the window; memory about 32 bytes per pixel. Equal pixels in the windows give equal maps, bit for
 * bit, so that a plane may be run in overlapping parts: a pixel's result depends on pixels up to classical_reach away
 * (the edge filter and the split look at whole objects: one that is cut by the part is judged by what is seen of it).
 * Thread-safe: no state.
 */
#ifndef SG_CLASSICAL_CLASSICAL_H
#define SG_CLASSICAL_CLASSICAL_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "common/err.h"
#include "segworker/pipeline/cancel.h"

typedef enum { CLASSICAL_SAUVOLA = 0, CLASSICAL_NIBLACK, CLASSICAL_GAUSSIAN } classical_method_t;
typedef enum { CLASSICAL_AUTO = 0, CLASSICAL_DARK, CLASSICAL_BRIGHT } classical_polarity_t;

typedef struct {
    classical_method_t method;
    classical_polarity_t polarity; /* of the objects against their surroundings */
    int window;                    /* px, odd; of the local threshold */
    double k;                      /* weight of the local deviation; not used by CLASSICAL_GAUSSIAN */
    double offset;                 /* subtracted from the threshold, in the plane's range 0..1 */
    double smooth;                 /* px, sigma of a Gaussian before the threshold; 0 = none */
    int open, close;               /* px, radius of the disc; 0 = none */
    int64_t fill;         /* px: a hole up to this area is filled, as windows smaller than an object hollow it */
    double edge_contrast; /* mean step across an object's border, in 0..1, below which it is dropped */
    bool split;           /* separate touching objects at their necks */
    double neck;          /* 0..1: a neck narrower than this share of the smaller part's width separates */
} classical_params_t;

/* Reads the object "classical" of a model.json. Returns NULL, or the name of the first wrong field and in *what why. */
const char *classical_parse(const cJSON *root, classical_params_t *out, const char **what);

/* Pixels around a part that must be known for its own pixels to be right. */
int classical_reach(const classical_params_t *p);

/* Are the objects bright? From the polarity asked for, or from the plane: what most of its outer frame belongs to, on
 * either side of Otsu's threshold, is the background. plane: width*height in 0..1. */
bool classical_is_bright(const float *plane, int width, int height, classical_polarity_t polarity);

/* plane: width*height in 0..1 (values beyond are clipped). bright: see classical_is_bright. fg: 0.5 where the plane is
 * at the local threshold, 1 where it is 0.2 or more beyond it, below 0.5 outside objects; dist: 1 on the seeds, else
 * 0..0.49, growing with the distance to the border. Both width*height, the caller's. ERR_CANCELLED, ERR_NO_MEMORY. */
ERR_MUST err_kind_t classical_run(const float *plane, int width, int height, bool bright, const classical_params_t *p,
                                  const cancel_t *cancel, float *fg, float *dist, err_t *err);

#endif
