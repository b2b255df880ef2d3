/*
 * What the two halves of the TIFF reader share: tiff.c opens files, walks directories and reads tags, tiff_pixels.c
 * turns strips and tiles into samples.
 */
#ifndef SG_IMAGE_TIFF_INTERNAL_H
#define SG_IMAGE_TIFF_INTERNAL_H

#include "image_internal.h"

#include <tiffio.h>

enum { TIFF_MAX_CHANNELS = 256 };

/* How one directory stores its pixels, and what becomes of them. */
typedef struct {
    TIFF *tif;
    char words[256]; /* the library's last error, for the log */
    uint32_t width, height;
    uint16_t bits, samples, format, photometric, compression;
    bool planar, tiled;
    bool through_rgba;                     /* libtiff itself converts this directory to 8-bit RGBA */
    int orientation;                       /* 1..8 */
    int keep;                              /* stored samples that are kept */
    uint16_t source_of[TIFF_MAX_CHANNELS]; /* kept sample -> stored sample */
    bool palette, invert, ink;
    uint16_t *map[3]; /* colour map, owned by libtiff */
    int map_shift;    /* 8 for the usual 16-bit maps, 0 for old 8-bit ones */
} tiff_layout_t;

/* Reads the pixels of the current directory into img, whose info has been filled from the layout. */
ERR_MUST err_kind_t image_tiff_read_pixels(tiff_layout_t *l, const image_request_t *req, image_t *img, err_t *err);

/* The library's error as ours: a read past the end is a truncated file. */
err_kind_t image_tiff_fail(const tiff_layout_t *l, err_t *err);

#endif
