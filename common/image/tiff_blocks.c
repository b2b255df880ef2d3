/*
 * Strips and tiles in memory: chooses how a directory is read, reads blocks, keeps the last ones. A block is a tile, a
 * strip, or (where strips are large) a band of a strip's rows: of compressed strips the rows are decompressed one after
 * the other, of uncompressed ones the bytes are read where they stand. So a rectangle costs the blocks that it touches,
 * whatever the size of the image. Kept blocks are found by a linear search: there are at most some thousand of at least
 * a few kilobytes, so looking is cheap beside decompressing.
 */
#include "tiff_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- plan ---- */

static err_kind_t check_block(uint64_t bytes, const tiff_file_t *f, err_t *err) {
    if (bytes == 0 || bytes > (uint64_t)f->lim.max_decoded_bytes || bytes > SIZE_MAX / 2) {
        return err_set(err, ERR_TOO_LARGE, "image_too_large",
                       "The image is stored in blocks that are larger than the memory allowed for an image.",
                       "block of %llu bytes", (unsigned long long)bytes);
    }
    return ERR_OK;
}

static err_kind_t plan_tiles(tiff_file_t *f, err_t *err) {
    tiff_layout_t *l = &f->l;
    TIFFGetField(f->tif, TIFFTAG_TILEWIDTH, &l->block_w);
    TIFFGetField(f->tif, TIFFTAG_TILELENGTH, &l->block_h);
    if (l->block_w == 0 || l->block_h == 0 || l->block_w > INT32_MAX || l->block_h > INT32_MAX) {
        return image_err_corrupt(err, "tiles without a size");
    }
    uint64_t across = (l->width - 1) / l->block_w + 1, down = (l->height - 1) / l->block_h + 1;
    unsigned planes = l->planar ? l->samples : 1;
    uint64_t bytes = l->through_rgba ? (uint64_t)l->block_w * l->block_h * 4 : TIFFTileSize64(f->tif);
    uint64_t row = l->through_rgba ? (uint64_t)l->block_w * 4 : TIFFTileRowSize64(f->tif);
    err_kind_t k = check_block(bytes, f, err);
    if (k != ERR_OK) {
        return k;
    }
    if (row > bytes / l->block_h || across * down * planes > TIFFNumberOfTiles(f->tif)) {
        return image_err_corrupt(err, "tiles do not fit the image");
    }
    l->way = l->through_rgba ? TIFF_BY_RGBA : TIFF_BY_TILE;
    l->row_bytes = (size_t)row;
    l->block_bytes = (size_t)bytes;
    return ERR_OK;
}

static err_kind_t plan_strips(tiff_file_t *f, err_t *err) {
    tiff_layout_t *l = &f->l;
    uint32_t rows = l->height;
    TIFFGetFieldDefaulted(f->tif, TIFFTAG_ROWSPERSTRIP, &rows);
    if (rows == 0) {
        return image_err_corrupt(err, "no rows per strip");
    }
    l->rows_per_strip = rows = rows > l->height ? l->height : rows;
    l->block_w = l->width;
    l->block_h = rows;
    uint64_t row = l->through_rgba ? (uint64_t)l->width * 4 : TIFFScanlineSize64(f->tif);
    l->way = l->through_rgba ? TIFF_BY_RGBA : TIFF_BY_STRIP;
    err_kind_t k = check_block(row, f, err);
    if (k != ERR_OK) {
        return k;
    }
    bool in_place = l->compression == COMPRESSION_NONE && l->fill_order == FILLORDER_MSB2LSB;
    if (f->stacked) {
        l->way = TIFF_BY_OFFSET;
        l->base = TIFFGetStrileOffset(f->tif, 0) + (uint64_t)f->page * row * l->height;
        l->rows_per_strip = l->height;
    } else if (!l->through_rgba && row * rows > TIFF_BAND_BYTES) {
        l->way = in_place ? TIFF_BY_OFFSET : TIFF_BY_ROWS;
    }
    if (l->way == TIFF_BY_ROWS || l->way == TIFF_BY_OFFSET) {
        uint64_t band = TIFF_BAND_BYTES / row;
        l->block_h = band == 0 ? 1 : band < l->rows_per_strip ? (uint32_t)band : l->rows_per_strip;
    }
    if (row > UINT64_MAX / 2 / l->block_h) {
        return check_block(UINT64_MAX, f, err);
    }
    l->row_bytes = (size_t)row;
    l->block_bytes = (size_t)row * l->block_h;
    return check_block(l->block_bytes, f, err);
}

err_kind_t image_tiff_plan_blocks(tiff_file_t *f, err_t *err) {
    f->next_plane = -1;
    return f->l.tiled ? plan_tiles(f, err) : plan_strips(f, err);
}

/* ---- reading one block ---- */

/* A strip or tile with neither place nor length was never written: it reads as zeros. */
static bool is_absent(TIFF *tif, uint32_t index) {
    return TIFFGetStrileOffset(tif, index) == 0 && TIFFGetStrileByteCount(tif, index) == 0;
}

/* Decoders of truncated streams may report success without having written everything (deflate by libdeflate does): the
 * last bytes are marked beforehand with a pattern that no image holds, the rest is zeroed. */
static const uint8_t UNWRITTEN[8] = {0xd3, 0x1c, 0x86, 0x5b, 0xe9, 0x72, 0x0f, 0xa4};

static void mark(uint8_t *buf, size_t n) {
    memset(buf, 0, n);
    if (n >= sizeof UNWRITTEN) {
        memcpy(buf + n - sizeof UNWRITTEN, UNWRITTEN, sizeof UNWRITTEN);
    }
}

static bool is_marked(const uint8_t *buf, size_t n) {
    return n >= sizeof UNWRITTEN && memcmp(buf + n - sizeof UNWRITTEN, UNWRITTEN, sizeof UNWRITTEN) == 0;
}

static err_kind_t check_read(const tiff_file_t *f, tmsize_t got, const uint8_t *buf, size_t want, err_t *err) {
    if (got < 0 || (size_t)got < want) {
        return image_tiff_fail(f, err);
    }
    return is_marked(buf, want) ? image_err_truncated(err, "strip or tile with too few samples") : ERR_OK;
}

static err_kind_t read_tile(tiff_file_t *f, uint32_t index, uint8_t *buf, err_t *err) {
    const size_t want = f->l.block_bytes;
    mark(buf, want);
    if (is_absent(f->tif, index)) {
        memset(buf, 0, want);
        return ERR_OK;
    }
    return check_read(f, TIFFReadEncodedTile(f->tif, index, buf, (tmsize_t)want), buf, want, err);
}

static err_kind_t read_strip(tiff_file_t *f, uint32_t index, uint32_t rows, uint8_t *buf, err_t *err) {
    const size_t want = (size_t)rows * f->l.row_bytes;
    mark(buf, want);
    return check_read(f, TIFFReadEncodedStrip(f->tif, index, buf, (tmsize_t)want), buf, want, err);
}

/* Rows y to y + rows of one strip, decompressed in turn. Going on from the last call costs these rows only; going back
 * begins the strip anew. */
static err_kind_t read_rows(tiff_file_t *f, int plane, uint32_t y, uint32_t rows, uint8_t *buf, err_t *err) {
    const tiff_layout_t *l = &f->l;
    uint32_t begin = y - y % l->rows_per_strip;
    if (plane != f->next_plane || f->next_row > y || f->next_row < begin) {
        f->next_row = begin;
    }
    f->next_plane = -1; /* until it has gone well */
    for (uint32_t r = f->next_row; r < y + rows; r++) {
        uint8_t *to = r < y ? buf : buf + (size_t)(r - y) * l->row_bytes;
        if (TIFFReadScanline(f->tif, to, r, (uint16_t)plane) < 0) {
            return image_tiff_fail(f, err);
        }
    }
    f->next_plane = plane;
    f->next_row = y + rows;
    return ERR_OK;
}

static err_kind_t read_in_place(tiff_file_t *f, uint32_t index, uint32_t y, uint32_t rows, uint8_t *buf, err_t *err) {
    const tiff_layout_t *l = &f->l;
    uint64_t base = f->stacked ? l->base : TIFFGetStrileOffset(f->tif, index);
    size_t want = (size_t)rows * l->row_bytes;
    if (image_source_read_at(f->src, base + (uint64_t)(y % l->rows_per_strip) * l->row_bytes, buf, want) != want) {
        return image_err_truncated(err, "uncompressed pixels missing");
    }
    if (TIFFIsByteSwapped(f->tif)) {
        switch (l->bits) {
        case 16:
            TIFFSwabArrayOfShort((uint16_t *)(void *)buf, (tmsize_t)(want / 2));
            break;
        case 24:
            TIFFSwabArrayOfTriples(buf, (tmsize_t)(want / 3));
            break;
        case 32:
            TIFFSwabArrayOfLong((uint32_t *)(void *)buf, (tmsize_t)(want / 4));
            break;
        case 64:
            TIFFSwabArrayOfDouble((double *)(void *)buf, (tmsize_t)(want / 8));
            break;
        default:
            break;
        }
    }
    return ERR_OK;
}

static err_kind_t read_rgba(tiff_file_t *f, const tiff_block_t *b, uint8_t *buf, err_t *err) {
    char why[1024] = "";
    TIFFRGBAImage rgba;
    if (!TIFFRGBAImageBegin(&rgba, f->tif, 1, why)) {
        return image_err_unsupported(err, "an unusual colour model", why);
    }
    rgba.req_orientation = rgba.orientation; /* turning is our own, and complete */
    rgba.col_offset = (int)b->x;
    rgba.row_offset = (int)b->y;
    int ok = TIFFRGBAImageGet(&rgba, (uint32_t *)(void *)buf, b->w, b->h);
    TIFFRGBAImageEnd(&rgba);
    if (!ok) {
        return image_tiff_fail(f, err);
    }
    size_t n = (size_t)b->w * b->h;
    for (size_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, buf + i * 4, 4);
        buf[i * 4] = (uint8_t)TIFFGetR(v);
        buf[i * 4 + 1] = (uint8_t)TIFFGetG(v);
        buf[i * 4 + 2] = (uint8_t)TIFFGetB(v);
        buf[i * 4 + 3] = (uint8_t)TIFFGetA(v);
    }
    return ERR_OK;
}

static err_kind_t read_stored(tiff_file_t *f, int plane, const tiff_block_t *b, uint8_t *buf, err_t *err) {
    const tiff_layout_t *l = &f->l;
    if (l->way == TIFF_BY_RGBA) {
        return read_rgba(f, b, buf, err);
    }
    if (l->way == TIFF_BY_TILE) {
        uint64_t across = (l->width - 1) / l->block_w + 1, down = (l->height - 1) / l->block_h + 1;
        uint64_t index = (uint64_t)plane * across * down + b->y / l->block_h * across + b->x / l->block_w;
        return read_tile(f, (uint32_t)index, buf, err);
    }
    uint64_t per_plane = (l->height - 1) / l->rows_per_strip + 1;
    uint64_t index = (uint64_t)plane * per_plane + b->y / l->rows_per_strip;
    if (!f->stacked && index >= TIFFNumberOfStrips(f->tif)) {
        return image_err_corrupt(err, "strips do not fit the image");
    }
    if (!f->stacked && is_absent(f->tif, (uint32_t)index)) {
        memset(buf, 0, (size_t)b->h * l->row_bytes);
        return ERR_OK;
    }
    switch (l->way) {
    case TIFF_BY_ROWS:
        return read_rows(f, plane, b->y, b->h, buf, err);
    case TIFF_BY_OFFSET:
        return read_in_place(f, (uint32_t)index, b->y, b->h, buf, err);
    default:
        return read_strip(f, (uint32_t)index, b->h, buf, err);
    }
}

/* Some codecs report damage, skip it and call what they made of the rest a success: samples that nobody measured. */
static err_kind_t read_block(tiff_file_t *f, int plane, const tiff_block_t *b, uint8_t *buf, err_t *err) {
    f->words[0] = '\0';
    err_kind_t k = read_stored(f, plane, b, buf, err);
    if (k == ERR_OK && f->words[0]) {
        f->next_plane = -1;
        return image_tiff_fail(f, err);
    }
    return k;
}

/* ---- keeping blocks ---- */

static bool is_block(const tiff_cached_t *c, int page, int plane, uint32_t number) {
    return c->bytes && c->page == page && c->plane == plane && c->number == number;
}

static tiff_cached_t *find_kept(tiff_file_t *f, int plane, uint32_t number) {
    if (is_block(&f->last, f->page, plane, number)) {
        return &f->last;
    }
    for (int i = 0; i < f->ncache; i++) {
        if (is_block(&f->cache[i], f->page, plane, number)) {
            return &f->cache[i];
        }
    }
    return NULL;
}

static void drop_oldest(tiff_file_t *f) {
    int oldest = 0;
    for (int i = 1; i < f->ncache; i++) {
        oldest = f->cache[i].used < f->cache[oldest].used ? i : oldest;
    }
    tiff_cached_t *gone = &f->cache[oldest], *last = &f->cache[--f->ncache];
    free(gone->bytes); /* NOLINT(clang-analyzer-unix.Malloc): each entry owns its bytes, which the analyser loses track
                          of */
    f->cache_bytes -= gone->size;
    *gone = *last;
    last->bytes = NULL;
}

/* A place for a block: in the cache when it fits, else the one that holds a single block. */
static tiff_cached_t *make_room(tiff_file_t *f, size_t size) {
    if (size <= f->cache_limit) {
        if (!f->cache) {
            f->cache = calloc(TIFF_CACHE_BLOCKS, sizeof *f->cache);
        }
        while (f->cache && f->ncache > 0 &&
               (f->ncache == TIFF_CACHE_BLOCKS || f->cache_bytes + size > f->cache_limit)) {
            drop_oldest(f);
        }
        uint8_t *bytes = f->cache ? malloc(size) : NULL;
        if (bytes) {
            tiff_cached_t *c = &f->cache[f->ncache++];
            *c = (tiff_cached_t){.bytes = bytes, .size = size};
            f->cache_bytes += size;
            return c;
        }
        return NULL;
    }
    if (f->last.size < size) {
        free(f->last.bytes);
        f->last = (tiff_cached_t){.bytes = malloc(size), .size = size};
        f->last.size = f->last.bytes ? size : 0;
    }
    return f->last.bytes ? &f->last : NULL;
}

void image_tiff_forget_blocks(tiff_file_t *f) {
    for (int i = 0; i < f->ncache; i++) {
        free(f->cache[i].bytes);
    }
    free(f->cache);
    free(f->last.bytes);
    f->cache = NULL;
    f->ncache = 0;
    f->cache_bytes = 0;
    f->last = (tiff_cached_t){0};
}

/* Which block holds the pixel? Its number is unique within a plane. */
static uint32_t locate(const tiff_layout_t *l, uint32_t x, uint32_t y, tiff_block_t *b) {
    uint32_t number;
    if (l->tiled) {
        uint32_t across = (l->width - 1) / l->block_w + 1;
        b->x = x - x % l->block_w;
        b->y = y - y % l->block_h;
        b->h = l->height - b->y < l->block_h ? l->height - b->y : l->block_h;
        number = b->y / l->block_h * across + b->x / l->block_w;
    } else {
        uint32_t strip = y / l->rows_per_strip, in_strip = y % l->rows_per_strip;
        uint32_t end = l->height - strip * l->rows_per_strip;
        end = end < l->rows_per_strip ? end : l->rows_per_strip; /* rows of this strip */
        b->x = 0;
        b->y = y - in_strip % l->block_h;
        in_strip -= in_strip % l->block_h;
        b->h = end - in_strip < l->block_h ? end - in_strip : l->block_h;
        number = b->y;
    }
    b->w = l->width - b->x < l->block_w ? l->width - b->x : l->block_w;
    return number;
}

err_kind_t image_tiff_block_at(tiff_file_t *f, int plane, uint32_t x, uint32_t y, tiff_block_t *b, err_t *err) {
    const tiff_layout_t *l = &f->l;
    uint32_t number = locate(l, x, y, b);
    /* RGBA comes packed to the part that is inside the image */
    b->row_bytes = l->way == TIFF_BY_RGBA ? (size_t)b->w * 4 : l->row_bytes;
    b->first = l->planar ? plane : 0;
    b->count = l->planar ? 1 : l->samples;
    tiff_cached_t *c = find_kept(f, plane, number);
    if (!c) {
        c = make_room(f, l->block_bytes);
        if (!c) {
            return image_err_memory(err);
        }
        c->page = -1;                                          /* until it has been read */
        err_kind_t k = read_block(f, plane, b, c->bytes, err); /* NOLINT(clang-analyzer-unix.Malloc): as above */
        if (k != ERR_OK) {
            return k;
        }
        c->page = f->page;
        c->plane = plane;
        c->number = number;
    }
    c->used = ++f->clock;
    b->bytes = c->bytes;
    return ERR_OK;
}
