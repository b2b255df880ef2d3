/*
 * Image decoding: PNG, JPEG, TIFF (libtiff; strips, tiles, BigTIFF), BMP, GIF, WebP, 8/16/32-bit, by content and
 * never by file name. Every limit is checked against the header before anything is allocated.
 *
 * A decoded image is interleaved samples, row by row from the top, without row padding. Palettes are expanded,
 * 1/2/4-bit greys are widened to 8 bits, alpha is kept as the last channel and `has_alpha` set, CMYK becomes RGB,
 * MINISWHITE is inverted so that greater is brighter, EXIF/TIFF orientation is applied.
 *
 * Errors (kind, code): ERR_UNSUPPORTED "image_unknown_format", "image_unsupported"; ERR_INVALID "image_corrupt",
 * "image_truncated", "image_empty"; ERR_TOO_LARGE "image_too_large" (pixels, bytes or pages). Messages are for
 * biologists. Thread-safe: no global state (library warnings are routed to the log at debug).
 */
#ifndef SG_IMAGE_H
#define SG_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../err.h"

typedef enum { IMAGE_UNKNOWN = 0, IMAGE_PNG, IMAGE_JPEG, IMAGE_TIFF, IMAGE_BMP, IMAGE_GIF, IMAGE_WEBP } image_format_t;
typedef enum { SAMPLE_U8 = 1, SAMPLE_U16 = 2, SAMPLE_U32 = 3, SAMPLE_F32 = 4 } image_sample_t;

typedef struct {
    int64_t max_pixels;        /* width x height of one page */
    int64_t max_decoded_bytes; /* of one page */
    int32_t max_pages;
} image_limits_t;

typedef struct {
    image_format_t format;
    int32_t width, height; /* px, after orientation */
    int32_t channels;      /* samples per pixel as decoded (palette = 3), alpha included */
    int32_t bit_depth;     /* bits per sample in the file */
    image_sample_t sample; /* type that decoding gives */
    int32_t pages;         /* TIFF directories that are full images, GIF frames; else 1 */
    bool has_alpha;
    int32_t colours;      /* first channels that make the default grey plane and the rendition; 0 = all but alpha */
    double pixel_size_um; /* from OME-XML, ImageJ or resolution tags in a metric unit; 0 = unknown */
} image_info_t;

typedef struct {
    image_info_t info;
    void *data; /* owned; free with image_free */
    size_t bytes;
} image_t;

/* Looks at the first bytes (16 are enough). */
image_format_t image_sniff(const uint8_t *head, size_t n);
const char *image_format_name(image_format_t f); /* "png" … ; "unknown" */
const char *image_format_mime(image_format_t f);

/* Reads headers only: cheap, allocates nothing big. */
ERR_MUST err_kind_t image_probe(const char *path, const image_limits_t *lim, image_info_t *out, err_t *err);
/* Decodes one page (0 = first). */
ERR_MUST err_kind_t image_decode(const char *path, int page, const image_limits_t *lim, image_t *out, err_t *err);
/* The same from memory, for fuzzing and tests. */
ERR_MUST err_kind_t image_decode_memory(const uint8_t *data, size_t n, int page, const image_limits_t *lim,
                                        image_t *out, err_t *err);
void image_free(image_t *img);

/* One float plane, width*height, in the file's own units: grey as is; RGB as 0.299 R + 0.587 G + 0.114 B; other channel
 * counts: the mean of the colour channels. Alpha is ignored, and so are channels beyond info.colours. Caller frees
 * *plane with free(). NaN and infinities become 0. */
ERR_MUST err_kind_t image_to_grey(const image_t *img, float **plane, err_t *err);

/* 8-bit rendition for people: channels 1 or 3 (*out_channels); U8 as is, deeper samples stretched between the 0.1 and
 * 99.9 percentiles over all colour channels; alpha composed over black. Caller frees *pixels. */
ERR_MUST err_kind_t image_to_display(const image_t *img, uint8_t **pixels, int *out_channels, err_t *err);

/* Separable triangle filter, support max(1, in/out) source pixels, half-pixel centres, normalised weights (area-like
 * when shrinking, bilinear when growing). src and dst are w*h planes; dst is allocated by the caller. */
ERR_MUST err_kind_t image_resize_f32(const float *src, int sw, int sh, float *dst, int dw, int dh, err_t *err);
ERR_MUST err_kind_t image_resize_u8(const uint8_t *src, int sw, int sh, int channels, uint8_t *dst, int dw, int dh,
                                    err_t *err);

/* Encoders; *out is freed by the caller. channels: 1 or 3. */
ERR_MUST err_kind_t image_encode_jpeg(const uint8_t *px, int w, int h, int channels, int quality, uint8_t **out,
                                      size_t *n, err_t *err);
ERR_MUST err_kind_t image_encode_png(const uint8_t *px, int w, int h, int channels, uint8_t **out, size_t *n,
                                     err_t *err);
ERR_MUST err_kind_t image_write_png16(const char *path, const uint16_t *px, int w, int h, err_t *err); /* grey */
ERR_MUST err_kind_t image_write_tiff_u32(const char *path, const uint32_t *px, int w, int h,
                                         err_t *err); /* grey, deflate */

#endif
