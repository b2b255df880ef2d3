/*
 * The pixels of one page as the stages want them: float planes in the file's own units, whole in memory or rectangle by
 * rectangle from disk.
 *
 * An input is opened on a file; then it may be loaded, or reduced to a smaller level, which stays in memory. Width and
 * height are those of the level; level pixel (x, y) covers reduce x reduce pixels of the page.
 *
 * An input belongs to one thread.
 */
#ifndef SG_PIPELINE_INPUT_H
#define SG_PIPELINE_INPUT_H

#include "common/err.h"
#include "common/image/region.h"
#include "segworker/pipeline/cancel.h"

enum { INPUT_MAX_CHANNELS = 3 };

typedef struct {
    image_reader_t *reader;
    image_info_t info; /* of the page */
    image_layout_t layout;
    int channels; /* that are read: 1 = the grey plane; 3 = red, green, blue, a grey page giving its plane thrice */
    bool chosen;  /* a channel or a mix was asked for: the grey plane is that, and three channels are it thrice */
    int width, height;
    int reduce;    /* 1 = as it is */
    float *planes; /* channels * width * height; NULL = read from the file */
    float *grey;   /* width * height, with 3 channels; same as planes with 1 */
} input_t;

/* Errors: those of common/image/region.h. */
ERR_MUST err_kind_t input_open(const char *path, const image_select_t *plane, const image_limits_t *limits,
                               int channels, input_t *out, err_t *err);
void input_close(input_t *in); /* a zeroed input is fine */

/* Brings the page into memory, each pixel the mean of `reduce` x `reduce` of the page's (fewer at the right and lower
 * edge); 1 = as it is. ERR_CANCELLED, ERR_NO_MEMORY, and what reading gives. */
ERR_MUST err_kind_t input_load(input_t *in, int reduce, const cancel_t *cancel, err_t *err);

/* Rectangle of the level, inside it. planes: channels * w * h. */
ERR_MUST err_kind_t input_read(input_t *in, image_rect_t rect, float *planes, err_t *err);

/* The grey plane that intensities are measured on: w * h. */
ERR_MUST err_kind_t input_read_grey(input_t *in, image_rect_t rect, float *plane, err_t *err);

/* The grey plane of a rectangle, each value the mean of `factor` x `factor` pixels: ceil(w / factor) * ceil(h /
 * factor).
 */
ERR_MUST err_kind_t input_read_grey_reduced(input_t *in, image_rect_t rect, int factor, float *plane, err_t *err);

#endif
