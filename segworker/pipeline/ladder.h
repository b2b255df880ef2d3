/*
 * What is done when memory runs out while a network runs: half of the batch, then half of the tile, then the CPU; each
 * step is counted (spheroseg_inference_memory_steps_total{step}) and logged.
 *
 *   batch  a batch that does not fit is run in two halves, and later batches of the network are no larger
 *   alone  on the CPU the lanes are the batch: the tile is run again with no other beside it (lanes.c)
 *   tile   the tile is cut into four that overlap by its model's halo, and so on down to the least that the halo
 *          allows. Not for networks that give labels: parts of a tile could not be numbered as one
 *   cpu    a network on an accelerator runs this tile on the CPU
 *
 * A moment without memory says nothing about the next image, so each tile begins at the top of the ladder again; the
 * batch alone is remembered. Thread-safe.
 */
#ifndef SG_PIPELINE_LADDER_H
#define SG_PIPELINE_LADDER_H

#include "common/err.h"
#include "segworker/pipeline/infer.h"

/* The steps are counted from 0 on. */
void ladder_register_metrics(void);

/* The tile once more in parts, or on the CPU, after it failed for memory with nothing beside it. ERR_NO_MEMORY
 * when no step helped, else what the network gives. err keeps what it says when there is no step at all. */
ERR_MUST err_kind_t ladder_go_down(infer_t *net, const float *input, int h, int w, float *output, int channels,
                                   err_t *err);

/* Counts and logs a step. */
void ladder_note(const char *step, int h, int w);

#endif
