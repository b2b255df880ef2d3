/* Which corners of a crack ring belong to the object, and which to the pixel grid. Internal to outline.c. Pure. */
#ifndef SG_PIPELINE_CORNER_H
#define SG_PIPELINE_CORNER_H

#include <stddef.h>
#include <stdint.h>

#include "segworker/pipeline/outline.h"

/*
 * Right angles along the axes. fixed[i] = 1 when the corner at the start of crack i is one of the object's: it is not
 * a stair (a stair's neighbour, one crack away, turns the other way), no other piece touches it, and both its sides are
 * at least 3 px long or end in such corners too. order: scratch for n entries. n >= 4: a whole ring.
 */
void corner_find_axis(const crack_t *steps, size_t n, uint32_t *order, uint8_t *fixed);

/*
 * Sharp corners at any angle: where two arms of 12 nodes are straight within the grid's noise and meet at an angle that
 * does not grow with the length of the arms, as it would on a curve. The corner moves to where the arms' lines
 * meet, is marked fixed, and its closest neighbours are taken out of the nodes. Changes wide, tmp and keep.
 */
void corner_fix_sharp(outline_t *o);

#endif
