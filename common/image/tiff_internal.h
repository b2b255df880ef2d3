/*
 * What the parts of the TIFF reader share: tiff.c opens files and lists their pages, tiff_tags.c reads the tags that
 * say what the pixels mean, tiff_planes.c arranges pages as channels, slices and times, tiff_blocks.c brings strips and
 * tiles into memory, tiff_pixels.c turns them into samples. Private to this folder.
 */
#ifndef SG_IMAGE_TIFF_INTERNAL_H
#define SG_IMAGE_TIFF_INTERNAL_H

#include "image_internal.h"
#include "region.h"

#include <tiffio.h>

enum {
    TIFF_MAX_CHANNELS = 256,
    TIFF_BAND_BYTES = 4 << 20, /* strips larger than this are read in bands of rows */
    TIFF_CACHE_BLOCKS = 4096,
    TIFF_COMPRESSION_PIXTIFF = 50013,
};

/* How blocks of a directory come into memory. */
typedef enum {
    TIFF_BY_TILE,
    TIFF_BY_STRIP,
    TIFF_BY_ROWS,   /* bands of a strip that is large: rows are decompressed one after the other */
    TIFF_BY_OFFSET, /* bands of a strip that is large and not compressed: read where they stand */
    TIFF_BY_RGBA,   /* libtiff itself converts to 8-bit RGBA, block by block */
} tiff_way_t;

/* How one directory stores its pixels, and what becomes of them. */
typedef struct {
    uint32_t width, height;
    uint16_t bits, samples, format, photometric, compression, fill_order;
    bool planar, tiled;
    bool reversed;     /* libtiff turns the bytes of samples round: the file's order is not the machine's */
    bool through_rgba; /* afterwards bits, samples and planar describe RGBA */
    int orientation;   /* 1..8 */
    int keep;          /* stored samples that are kept */
    uint16_t source_of[TIFF_MAX_CHANNELS]; /* kept sample -> stored sample */
    bool palette, invert, ink;
    uint16_t *map[3]; /* colour map, owned by libtiff */
    int map_shift;    /* 8 for the usual 16-bit maps, 0 for old 8-bit ones */

    tiff_way_t way;
    uint32_t block_w, block_h; /* px; the last ones are cut off by the image */
    uint32_t rows_per_strip;   /* strips only; at most the height */
    size_t row_bytes;          /* of one row of a block */
    size_t block_bytes;
    uint64_t base; /* TIFF_BY_OFFSET of a page without a directory of its own: where its pixels begin */
} tiff_layout_t;

/* A decoded block that is kept. */
typedef struct {
    int page, plane;
    uint32_t number;
    uint64_t used; /* by the file's clock */
    uint8_t *bytes;
    size_t size;
} tiff_cached_t;

typedef struct {
    uint64_t offset; /* of the directory */
    uint32_t ifd;    /* its number in the main chain */
} tiff_page_t;

typedef struct {
    image_source_t *src; /* not owned */
    image_limits_t lim;
    TIFF *tif;
    char words[256]; /* the library's last error, for the log */
    tiff_page_t *pages;
    int npages;
    bool stacked; /* ImageJ: one directory, the pages' pixels stand one behind the other */
    int page;     /* the chosen one */
    tiff_layout_t l;
    image_info_t info; /* of the chosen page as stored, before orientation */

    int32_t size_c, size_z, size_t_; /* of the pages: samples of one page do not count */
    int32_t *plane_page;             /* c + size_c * (z + size_z * t) -> page, -1 = none; NULL = z is the page */
    double pixel_um;                 /* of the first page */

    size_t cache_limit; /* bytes; 0 = only the last block is kept */
    size_t cache_bytes;
    uint64_t clock;
    tiff_cached_t *cache; /* TIFF_CACHE_BLOCKS entries */
    int ncache;
    tiff_cached_t last; /* a block that is not in the cache; size is the room */
    uint32_t next_row;  /* TIFF_BY_ROWS: the row that libtiff gives next */
    int next_plane;     /* -1 = not begun */
} tiff_file_t;

/* Opens the file, lists its pages and chooses none. cache_limit: bytes of decoded blocks to keep. */
ERR_MUST err_kind_t image_tiff_open(image_source_t *src, const image_limits_t *lim, size_t cache_limit,
                                    tiff_file_t **out, err_t *err);
void image_tiff_close(tiff_file_t *f); /* NULL is allowed */

/* Makes a page the current one and plans how it is read. On error no page is chosen. */
ERR_MUST err_kind_t image_tiff_select(tiff_file_t *f, int page, err_t *err);

/* Reads a rectangle of the chosen page, in stored coordinates, into part, which is filled completely: free it with
 * image_free, after errors too. */
ERR_MUST err_kind_t image_tiff_read_rect(tiff_file_t *f, image_rect_t q, image_t *part, err_t *err);

/* The page that holds a plane; -1 when there is none. */
int32_t image_tiff_plane(const tiff_file_t *f, int32_t c, int32_t z, int32_t t);

/* The library's error as ours: a read past the end is a truncated file. */
err_kind_t image_tiff_fail(const tiff_file_t *f, err_t *err);

/* ---- between the parts ---- */

/* Tags of the current directory to layout and info. */
ERR_MUST err_kind_t image_tiff_read_tags(tiff_file_t *f, err_t *err);
/* Descriptions of the first directory (current): pixel size, planes, pages without directories. */
ERR_MUST err_kind_t image_tiff_arrange(tiff_file_t *f, err_t *err);
double image_tiff_pixel_size(TIFF *tif);
/* Is the current directory an image of its own, and no mask or smaller version? */
bool image_tiff_is_full(TIFF *tif);
/* Chooses way, block size and buffer. */
ERR_MUST err_kind_t image_tiff_plan_blocks(tiff_file_t *f, err_t *err);
/* The decoded bytes of the block of one plane that holds pixel (x, y), and the part of the image that it covers. */
typedef struct {
    const uint8_t *bytes; /* valid until the next block */
    size_t row_bytes;
    uint32_t x, y, w, h;
    int first, count; /* stored samples in it: all of them, or one plane */
} tiff_block_t;
ERR_MUST err_kind_t image_tiff_block_at(tiff_file_t *f, int plane, uint32_t x, uint32_t y, tiff_block_t *b, err_t *err);
void image_tiff_forget_blocks(tiff_file_t *f);

#endif
