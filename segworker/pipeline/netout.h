/*
 * What a network's channels mean: from its raw output to the layers that decoding works on.
 *
 *   foreground_distance, classical, test   2 layers of 1: foreground, distance
 *   foreground_boundary                    2 layers of 1: foreground, 1 - boundary
 *   foreground_votes                       3 layers of 1: foreground, way to the object's centre down and right in px
 *   semantic                               1 layer of 1: foreground
 *   star_convex                            1 of 1: probability, and 1 of `rays`: the distances side by side
 *   labels                                 1 of 1: the label
 */
#ifndef SG_PIPELINE_NETOUT_H
#define SG_PIPELINE_NETOUT_H

#include <stddef.h>

#include "segworker/models.h"

enum { NETOUT_LAYERS = 3 };

typedef struct {
    int inputs;               /* planes that the network takes */
    int channels;             /* that it gives */
    int layers;               /* kept */
    int depth[NETOUT_LAYERS]; /* floats per point */
    int grid;                 /* px between points */
} netout_t;

netout_t netout_of(const model_spec_t *m);

/* Floats per point over all layers. */
int netout_floats(const netout_t *o);

/* raw: `channels` planes of n points, changed; out[l]: n * depth[l]. */
void netout_convert(const model_spec_t *m, float *raw, size_t n, float *const *out);

/* A layer of n points was resized by these factors: what is in px is brought to the new px. */
void netout_resized(const model_spec_t *m, int layer, double across, double down, float *values, size_t n);

/* Points that an axis of n px has. */
int netout_points(const netout_t *o, int n);

#endif
