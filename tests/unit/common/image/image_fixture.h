/* Small images made on the spot, for the tests of the decoders. */
#ifndef SG_TEST_IMAGE_FIXTURE_H
#define SG_TEST_IMAGE_FIXTURE_H

#include "tests/unit/support/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tiffio.h>
#include <unistd.h>

#include "common/image/image.h"

static const image_limits_t TEST_LIMITS = {.max_pixels = 4000000, .max_decoded_bytes = 64 << 20, .max_pages = 8};

typedef struct {
    uint8_t *data;
    size_t n;
} blob_t;

static inline blob_t blob_from_file(const char *path) {
    blob_t b = {0};
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    b.n = (size_t)ftell(f);
    rewind(f);
    b.data = malloc(b.n + 1);
    assert_non_null(b.data);
    assert_int_equal(fread(b.data, 1, b.n, f), b.n);
    fclose(f);
    return b;
}

static inline void temp_name(char path[64]) {
    snprintf(path, 64, "/tmp/sg_image_XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
}

/* What a test TIFF is made of; pixels: rows of samples in native byte order, plane by plane when planar. */
typedef struct {
    uint32_t w, h;
    uint16_t bits, samples, format, photometric, orientation;
    bool planar, tiled, big;
    int pages;
    const char *description;
    float cm_resolution; /* 0 = no resolution tags */
    uint16_t *map[3];
} tiff_spec_t;

static inline void write_tiff_page(TIFF *t, const tiff_spec_t *s, const uint8_t *pixels) {
    TIFFSetField(t, TIFFTAG_IMAGEWIDTH, s->w);
    TIFFSetField(t, TIFFTAG_IMAGELENGTH, s->h);
    TIFFSetField(t, TIFFTAG_BITSPERSAMPLE, s->bits);
    TIFFSetField(t, TIFFTAG_SAMPLESPERPIXEL, s->samples);
    TIFFSetField(t, TIFFTAG_SAMPLEFORMAT, s->format ? s->format : SAMPLEFORMAT_UINT);
    TIFFSetField(t, TIFFTAG_PHOTOMETRIC, s->photometric);
    TIFFSetField(t, TIFFTAG_PLANARCONFIG, s->planar ? PLANARCONFIG_SEPARATE : PLANARCONFIG_CONTIG);
    TIFFSetField(t, TIFFTAG_COMPRESSION, COMPRESSION_LZW);
    TIFFSetField(t, TIFFTAG_ORIENTATION, s->orientation ? s->orientation : 1);
    if (s->description) {
        TIFFSetField(t, TIFFTAG_IMAGEDESCRIPTION, s->description);
    }
    if (s->cm_resolution > 0) {
        TIFFSetField(t, TIFFTAG_RESOLUTIONUNIT, RESUNIT_CENTIMETER);
        TIFFSetField(t, TIFFTAG_XRESOLUTION, s->cm_resolution);
    }
    if (s->map[0]) {
        TIFFSetField(t, TIFFTAG_COLORMAP, s->map[0], s->map[1], s->map[2]);
    }
    size_t row = ((size_t)s->w * s->bits * (s->planar ? 1u : s->samples) + 7) / 8;
    int planes = s->planar ? s->samples : 1;
    if (s->tiled) { /* one tile of 16 x 16 pixels; such tests use images that fit it */
        TIFFSetField(t, TIFFTAG_TILEWIDTH, 16);
        TIFFSetField(t, TIFFTAG_TILELENGTH, 16);
        size_t tile_row = (size_t)16 * s->bits * (s->planar ? 1u : s->samples) / 8;
        for (int p = 0; p < planes; p++) {
            uint8_t tile[16 * 16 * 16] = {0};
            for (uint32_t y = 0; y < s->h; y++) {
                memcpy(tile + y * tile_row, pixels + ((size_t)p * s->h + y) * row, row);
            }
            assert_true(TIFFWriteEncodedTile(t, (uint32_t)p, tile, (tmsize_t)(tile_row * 16)) > 0);
        }
        return;
    }
    TIFFSetField(t, TIFFTAG_ROWSPERSTRIP, 3);
    uint8_t *line = malloc(row);
    for (int p = 0; p < planes; p++) {
        for (uint32_t y = 0; y < s->h; y++) {
            memcpy(line, pixels + ((size_t)p * s->h + y) * row, row);
            assert_int_equal(TIFFWriteScanline(t, line, y, (uint16_t)p), 1);
        }
    }
    free(line);
}

static inline blob_t make_tiff(const tiff_spec_t *s, const void *pixels) {
    char path[64];
    temp_name(path);
    TIFF *t = TIFFOpen(path, s->big ? "w8" : "w");
    assert_non_null(t);
    for (int p = 0; p < (s->pages ? s->pages : 1); p++) {
        write_tiff_page(t, s, pixels);
        assert_int_equal(TIFFWriteDirectory(t), 1);
    }
    TIFFClose(t);
    blob_t b = blob_from_file(path);
    unlink(path);
    return b;
}

static inline image_t decode_ok(blob_t b, int page) {
    image_t img;
    err_t err;
    err_clear(&err);
    if (image_decode_memory(b.data, b.n, page, &TEST_LIMITS, &img, &err) != ERR_OK) {
        fail_msg("%s: %s", err.code, err.detail);
    }
    return img;
}

static inline void decode_fails(const void *data, size_t n, err_kind_t kind, const char *code) {
    image_t img;
    err_t err;
    err_clear(&err);
    assert_int_equal(image_decode_memory(data, n, 0, &TEST_LIMITS, &img, &err), kind);
    assert_string_equal(err.code, code);
    assert_true(strlen(err.message) > 20);
    assert_null(img.data);
}

#endif
