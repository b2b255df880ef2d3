/*
 * What the readers of the single formats share: a byte source that is either memory or a file, the checks that stand
 * before every allocation, the wording of errors. Private to this folder.
 */
#ifndef SG_IMAGE_INTERNAL_H
#define SG_IMAGE_INTERNAL_H

#include "image.h"

#include <stdio.h>

/* Random access to the bytes of one image file. Files are read with pread and never mapped: a file that shrinks while
 * it is read gives a short read instead of SIGBUS. */
typedef struct {
    const uint8_t *mem; /* not owned; NULL when fd is used */
    int fd;             /* owned by whoever opened the source */
    uint64_t size;      /* bytes */
    uint64_t pos;       /* next byte of image_source_read */
} image_source_t;

/* Both return the number of bytes that were there, less than n only at the end of the file (or on a read error). */
size_t image_source_read_at(const image_source_t *s, uint64_t off, void *buf, size_t n);
size_t image_source_read(image_source_t *s, void *buf, size_t n);

/* Opens a file, which must be a regular one; the descriptor is released with image_source_close. */
ERR_MUST err_kind_t image_source_open(const char *path, image_source_t *src, err_t *err);
void image_source_close(image_source_t *src);

/* Recognises the format and runs its reader. On failure out is empty. */
ERR_MUST err_kind_t image_read_source(image_source_t *src, int page, const image_limits_t *lim, bool header_only,
                                      image_t *out, err_t *err);

/* One job of a format reader. Readers fill out->info completely; with header_only they stop there. On failure the
 * caller frees out, so a reader may leave a half-filled out->data behind. page has been checked to be >= 0. */
typedef struct {
    image_source_t *src;
    int page;
    const image_limits_t *lim;
    bool header_only;
} image_request_t;

ERR_MUST err_kind_t image_png_read(const image_request_t *req, image_t *out, err_t *err);
ERR_MUST err_kind_t image_jpeg_read(const image_request_t *req, image_t *out, err_t *err);
ERR_MUST err_kind_t image_tiff_read(const image_request_t *req, image_t *out, err_t *err);
ERR_MUST err_kind_t image_bmp_read(const image_request_t *req, image_t *out, err_t *err);
ERR_MUST err_kind_t image_gif_read(const image_request_t *req, image_t *out, err_t *err);
ERR_MUST err_kind_t image_webp_read(const image_request_t *req, image_t *out, err_t *err);

size_t image_sample_bytes(image_sample_t s); /* 1, 2, 4, 4 */

/* Checks width, height, channels and sample of *info against the limits and gives the decoded size in bytes. */
ERR_MUST err_kind_t image_check_size(const image_info_t *info, const image_limits_t *lim, size_t *bytes, err_t *err);
/* The same, then allocates img->data (zeroed). */
ERR_MUST err_kind_t image_allocate(image_t *img, const image_limits_t *lim, err_t *err);
/* ERR_TOO_LARGE for more pages than allowed, ERR_INVALID "image_no_such_page" when page is not below pages. */
ERR_MUST err_kind_t image_check_page(int page, int64_t pages, const image_limits_t *lim, err_t *err);

/* EXIF/TIFF orientation 1..8. image_orient_info swaps width and height where needed; image_orient moves the pixels of
 * an image whose info still describes the stored pixels, and then calls it. Other values change nothing. */
void image_orient_info(image_info_t *info, int orientation);
ERR_MUST err_kind_t image_orient(image_t *img, int orientation, err_t *err);

/* Orientation in an EXIF block (the bytes that start with "II" or "MM"); 1 when there is none. */
int image_exif_orientation(const uint8_t *p, size_t n);

/* A resolution in pixels per metre as a pixel size in µm; 0 when it is no microscope's (print resolutions such as
 * 72 or 300 dpi stand in most files and mean nothing). */
double image_pixel_size_from_resolution(double pixels_per_metre);

/* Sample number i (counted over all channels) as float; NaN and infinities become 0. */
float image_sample_at(const image_t *img, size_t i);

/* Errors in the words of the contract; detail is for the log. */
err_kind_t image_err_truncated(err_t *err, const char *detail);
err_kind_t image_err_corrupt(err_t *err, const char *detail);
err_kind_t image_err_memory(err_t *err);
err_kind_t image_err_unsupported(err_t *err, const char *what, const char *detail);

#endif
