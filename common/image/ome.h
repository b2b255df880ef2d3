/*
 * The part of an OME-XML header that says how a TIFF's pages are arranged: sizes, order, which directory holds which
 * plane, size of a pixel. After the OME data model 2016-06, https://docs.openmicroscopy.org/ome-model/ (only the first
 * Pixels element; files of several images keep the others as plain pages). Parsed with expat; entity declarations end
 * the parsing, so nothing is expanded or fetched. Private to this folder and its tests.
 */
#ifndef SG_IMAGE_OME_H
#define SG_IMAGE_OME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Planes count on from the first one in the order of the dimensions. */
typedef struct {
    int32_t ifd, c, z, t;
    int32_t planes; /* 0 = not given */
    bool has_ifd;
} ome_block_t;

typedef struct {
    char order[6]; /* XYZCT and so on; XYCZT when missing or wrong */
    int32_t size_c, size_z, size_t_;
    int32_t samples; /* samples per pixel of the first channel; 0 = not given */
    double pixel_um; /* 0 = unknown */
    ome_block_t *blocks;
    size_t nblocks;
} ome_t;

/* A length unit of OME or ImageJ in µm; 0 when it is not one of length. */
double image_unit_in_um(const char *unit);

/* Reads the n bytes of xml; at most max_blocks TiffData elements are kept. False when there is no Pixels element with
 * usable sizes: only pixel_um may then be set. Sizes are >= 1. Release with ome_free in either case. */
bool ome_parse(const char *xml, size_t n, size_t max_blocks, ome_t *out);
void ome_free(ome_t *o);

#endif
