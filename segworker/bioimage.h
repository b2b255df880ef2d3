/*
 * Reads a bioimage.io package: a folder with rdf.yaml (or bioimageio.yaml), format 0.4 or 0.5, and TorchScript weights.
 *
 * What is understood: one input with axes b, c, y, x of 1 or 3 channels; preprocessing zero_mean_unit_variance (per
 * sample or fixed), fixed_zero_mean_unit_variance, scale_range with percentiles, scale_linear, clip, binarize and
 * ensure_dtype float32; one output (b, c, y, x) of the input's size or, for StarDist, a fraction of it, with
 * postprocessing sigmoid, softmax or binarize. Everything else gives an error that names it.
 *
 * What the output means: config.stardist (n_rays, grid, thresholds) -> star-convex; channels named foreground and
 * boundary or distance -> these; two channels without names -> foreground and boundary, as the zoo's models have them;
 * one channel -> foreground, or labels when its data type is a whole number. config.spheroseg may say otherwise and set
 * what the format has no words for: kind (foreground_distance, foreground_boundary, semantic, labels), threshold,
 * seedThreshold, nmsThreshold, minArea, maxHoleArea, objectSize.
 *
 * The model's name is that of its folder, its title the package's name.
 */
#ifndef SG_SEGWORKER_BIOIMAGE_H
#define SG_SEGWORKER_BIOIMAGE_H

#include "segworker/models.h"

/* ERR_NOT_FOUND "model_missing": the folder holds no package; ERR_INVALID "model_invalid" with the reason; ERR_IO
 * "model_unreadable". Of the checksum only what the package states is filled in ("" = nothing). */
ERR_MUST err_kind_t bioimage_read(const char *dir, const char *name, model_spec_t *out, err_t *err);

/* What was understood, as a model.json would say it; freed by the caller. NULL: no memory. */
char *bioimage_describe(const model_spec_t *m);

#endif
