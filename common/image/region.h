/*
 * Rectangles of an image file, for images that are too large to be decoded whole, and the choice of the plane that is
 * measured: page, channel, mix of channels, depth and time.
 *
 * Direct files (image_layout_t.direct): strips and tiles are read from disk as rectangles ask for them; memory is the
 * cache (IMAGE_READER_CACHE_BYTES) plus the one or two blocks at hand, whatever the size of the image. All others are
 * decoded whole by the first read and held until another page is chosen or the reader is closed; limits.max_pixels and
 * limits.max_decoded_bytes bound that. For direct files max_pixels bounds width x height of a page, too, and
 * max_decoded_bytes bounds one rectangle and one block.
 *
 * Reading order: from left to right, then downwards, costs least; going back up is correct but may decode again.
 *
 * Channels. A file has either several samples per pixel, or planes of one sample in pages that OME-XML or ImageJ's
 * description arranges as channel, z and t; both count as channels here. Without a choice the grey plane is
 * that of image_to_grey for page 0: grey as is, RGB as 0.299 R + 0.587 G + 0.114 B, other channel counts of one page
 * the mean, alpha ignored; of channels in pages of their own the first.
 *
 * Ownership: image_close frees everything. Thread-safety: one reader belongs to one thread at a time; several readers
 * of one file may run side by side. Errors: those of image.h, and ERR_INVALID "image_no_such_page",
 * "image_no_such_channel", "image_no_such_plane", "image_region_outside". A reader is still usable after an error.
 */
#ifndef SG_IMAGE_REGION_H
#define SG_IMAGE_REGION_H

#include "image.h"

enum { IMAGE_MAX_WEIGHTS = 16, IMAGE_READER_CACHE_BYTES = 64 << 20 };

typedef struct image_reader image_reader_t;

typedef struct {
    int32_t x, y, w, h; /* px of the page after orientation; w and h at least 1 */
} image_rect_t;

/* Which plane is read. IMAGE_SELECT_DEFAULT is page 0 with the default mix. */
typedef struct {
    int32_t page;                    /* 0 = first; not used when z, t or (with channels in pages) channel is given */
    int32_t channel;                 /* 0 = first; -1 = the mix */
    int32_t z, t;                    /* 0 = first; -1 = not given */
    int32_t weights;                 /* entries of weight; 0 = the default mix */
    float weight[IMAGE_MAX_WEIGHTS]; /* grey = sum(weight * channel) / sum(|weight|); one per channel, missing ones 0 */
} image_select_t;
#define IMAGE_SELECT_DEFAULT ((image_select_t){.page = 0, .channel = -1, .z = -1, .t = -1})

typedef struct {
    bool direct;                       /* rectangles come from disk; false: the page is decoded whole */
    int32_t block_width, block_height; /* px that are decoded together: rectangles of this grid are the cheapest */
    int32_t channels, slices, times;   /* pages of unknown meaning count as slices */
} image_layout_t;

/* Opens a file and chooses IMAGE_SELECT_DEFAULT. Reads headers only. lim is copied. */
ERR_MUST err_kind_t image_open(const char *path, const image_limits_t *lim, image_reader_t **out, err_t *err);
/* The same from memory, which must outlive the reader. */
ERR_MUST err_kind_t image_open_memory(const uint8_t *data, size_t n, const image_limits_t *lim, image_reader_t **out,
                                      err_t *err);
void image_close(image_reader_t *r); /* NULL is allowed */

/* Chooses the plane. The size of the page may differ from that of the one before. On error the old choice stays. */
ERR_MUST err_kind_t image_reader_select(image_reader_t *r, const image_select_t *sel, err_t *err);

/* Of the chosen page: size after orientation, samples per pixel, bit depth, type, pages of the file, pixel size. Valid
 * until the next select or close. */
const image_info_t *image_reader_info(const image_reader_t *r);
image_layout_t image_reader_layout(const image_reader_t *r);

/* The samples of the chosen page as image_decode gives them: interleaved, w*h*info->channels of info->sample, row by
 * row without padding. bytes is the size of the buffer. The choice of channel and the weights do not matter here. */
ERR_MUST err_kind_t image_reader_read(image_reader_t *r, image_rect_t rect, void *samples, size_t bytes, err_t *err);

/* The chosen plane, w*h floats in the file's own units; NaN and infinities become 0. Equal, bit by bit, to the same
 * rectangle of the plane that is read at once. */
ERR_MUST err_kind_t image_reader_read_grey(image_reader_t *r, image_rect_t rect, float *plane, err_t *err);

#endif
