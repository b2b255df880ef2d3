/*
 * Pixels of one TIFF directory: reads strip by strip or tile by tile, unpacks samples of any width, applies the colour
 * map, inverts MINISWHITE, turns CMYK into RGB. Only one strip or tile is held besides the image itself.
 */
#include "tiff_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A strip or tile after decompression, and where it belongs. */
typedef struct {
    const uint8_t *bytes;
    size_t row_bytes;    /* stored bytes per row */
    uint32_t x, y, w, h; /* part of the image that it covers, clipped to the image */
    int first, count;    /* stored samples in it: all of them, or one plane */
} block_t;

/* IEEE 754 half precision; 24-bit floats (1-7-16) follow the same scheme. */
static float small_float(uint32_t v, int exponent_bits, int fraction_bits) {
    int sign = (int)(v >> (exponent_bits + fraction_bits)) & 1;
    int exponent = (int)(v >> fraction_bits) & ((1 << exponent_bits) - 1);
    double fraction = (double)(v & ((1u << fraction_bits) - 1)) / (double)(1u << fraction_bits);
    int bias = (1 << (exponent_bits - 1)) - 1;
    double x;
    if (exponent == (1 << exponent_bits) - 1) {
        return fraction == 0 ? (sign ? -INFINITY : INFINITY) : NAN;
    }
    x = exponent == 0 ? ldexp(fraction, 1 - bias) : ldexp(1 + fraction, exponent - bias);
    return (float)(sign ? -x : x);
}

/* Packed samples are most significant bit first, whatever the byte order of the file. */
static uint32_t packed_bits(const uint8_t *row, size_t bit, unsigned bits) {
    uint64_t v = 0;
    size_t first = bit / 8, last = (bit + bits - 1) / 8;
    for (size_t i = first; i <= last; i++) {
        v = v << 8 | row[i];
    }
    v >>= 7 - (bit + bits - 1) % 8;
    return (uint32_t)(v & (((uint64_t)1 << bits) - 1));
}

static uint32_t native24(const uint8_t *p) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16;
#else
    return (uint32_t)p[2] | (uint32_t)p[1] << 8 | (uint32_t)p[0] << 16;
#endif
}

static uint32_t stored_uint(const uint8_t *row, size_t i, unsigned bits) {
    switch (bits) {
    case 8:
        return row[i];
    case 16: {
        uint16_t v;
        memcpy(&v, row + i * 2, 2);
        return v;
    }
    case 24:
        return native24(row + i * 3);
    case 32: {
        uint32_t v;
        memcpy(&v, row + i * 4, 4);
        return v;
    }
    default:
        return packed_bits(row, i * bits, bits);
    }
}

static float stored_float(const uint8_t *row, size_t i, unsigned bits) {
    if (bits == 64) {
        double v;
        memcpy(&v, row + i * 8, 8);
        return isfinite(v) ? (float)v : 0.0f;
    }
    if (bits == 32) {
        float v;
        memcpy(&v, row + i * 4, 4);
        return v;
    }
    return bits == 24 ? small_float(native24(row + i * 3), 7, 16) : small_float(stored_uint(row, i, 16), 5, 10);
}

static float stored_int(const uint8_t *row, size_t i, unsigned bits) {
    if (bits == 64) {
        int64_t v;
        memcpy(&v, row + i * 8, 8);
        return (float)v;
    }
    uint32_t u = stored_uint(row, i, bits);
    uint32_t sign = (uint32_t)1 << (bits - 1);
    return (float)((int64_t)u - ((u & sign) ? (int64_t)sign * 2 : 0));
}

static float stored_as_float(const tiff_layout_t *l, const uint8_t *row, size_t i) {
    float v;
    if (l->format == SAMPLEFORMAT_IEEEFP) {
        v = stored_float(row, i, l->bits);
    } else if (l->format == SAMPLEFORMAT_INT) {
        v = stored_int(row, i, l->bits);
    } else {
        uint64_t u;
        memcpy(&u, row + i * 8, 8);
        v = (float)u;
    }
    return l->invert ? -v : v;
}

static uint32_t stored_as_uint(const tiff_layout_t *l, const uint8_t *row, size_t i) {
    uint32_t v = stored_uint(row, i, l->bits), most = (uint32_t)(((uint64_t)1 << l->bits) - 1);
    if (l->invert) {
        v = most - v;
    }
    return l->bits < 8 && !l->palette ? v * 255 / most : v;
}

/* Place of stored sample s among the kept ones; -1 when it is dropped. */
static int kept_place(const tiff_layout_t *l, int s) {
    for (int i = 0; i < l->keep; i++) {
        if (l->source_of[i] == s) {
            return i;
        }
    }
    return -1;
}

static void put_palette_row(const tiff_layout_t *l, const uint8_t *row, size_t step, size_t offset, uint32_t w,
                            uint8_t *dst, size_t channels) {
    for (size_t x = 0; x < w; x++) {
        uint32_t v = stored_uint(row, x * step + offset, l->bits);
        for (size_t c = 0; c < 3; c++) {
            dst[x * channels + c] = (uint8_t)(l->map[c][v] >> l->map_shift);
        }
    }
}

/* One stored sample of one row into channel `channel` of the image. */
static void put_row(const tiff_layout_t *l, const uint8_t *row, size_t step, size_t offset, uint32_t w, image_t *img,
                    size_t at, size_t channel, size_t channels) {
    size_t i = at * channels + channel;
    switch (img->info.sample) {
    case SAMPLE_U8: {
        uint8_t *d = (uint8_t *)img->data + i;
        for (size_t x = 0; x < w; x++) {
            d[x * channels] = (uint8_t)stored_as_uint(l, row, x * step + offset);
        }
        break;
    }
    case SAMPLE_U16: {
        uint16_t *d = (uint16_t *)img->data + i;
        for (size_t x = 0; x < w; x++) {
            d[x * channels] = (uint16_t)stored_as_uint(l, row, x * step + offset);
        }
        break;
    }
    case SAMPLE_U32: {
        uint32_t *d = (uint32_t *)img->data + i;
        for (size_t x = 0; x < w; x++) {
            d[x * channels] = stored_as_uint(l, row, x * step + offset);
        }
        break;
    }
    case SAMPLE_F32: {
        float *d = (float *)img->data + i;
        for (size_t x = 0; x < w; x++) {
            d[x * channels] = stored_as_float(l, row, x * step + offset);
        }
        break;
    }
    }
}

static void put_block(const tiff_layout_t *l, const block_t *b, image_t *img) {
    /* CMYK is unpacked with four (or five) samples and turned into RGB at the end. */
    size_t channels = (size_t)img->info.channels;
    for (int s = 0; s < b->count; s++) {
        int place = kept_place(l, b->first + s);
        if (place < 0) {
            continue;
        }
        for (uint32_t y = 0; y < b->h; y++) {
            const uint8_t *row = b->bytes + (size_t)y * b->row_bytes;
            size_t at = (size_t)(b->y + y) * l->width + b->x;
            if (l->palette && place == 0) {
                put_palette_row(l, row, (size_t)b->count, (size_t)s, b->w, (uint8_t *)img->data + at * channels,
                                channels);
            } else {
                size_t channel = (size_t)place + (l->palette ? 2 : 0);
                put_row(l, row, (size_t)b->count, (size_t)s, b->w, img, at, channel, channels);
            }
        }
    }
}

/* A strip or tile with neither place nor length was never written: it reads as zeros. */
static bool is_absent(TIFF *tif, uint32_t index) {
    return TIFFGetStrileOffset(tif, index) == 0 && TIFFGetStrileByteCount(tif, index) == 0;
}

static err_kind_t check_buffer(uint64_t bytes, const image_request_t *req, err_t *err) {
    if (bytes == 0 || bytes > (uint64_t)req->lim->max_decoded_bytes || bytes > SIZE_MAX / 2) {
        return err_set(err, ERR_TOO_LARGE, "image_too_large",
                       "The image is stored in blocks that are larger than the memory allowed for an image.",
                       "block of %llu bytes", (unsigned long long)bytes);
    }
    return ERR_OK;
}

static err_kind_t read_strips(tiff_layout_t *l, uint8_t *buf, uint64_t size, image_t *img, err_t *err) {
    uint32_t rows = l->height;
    TIFFGetFieldDefaulted(l->tif, TIFFTAG_ROWSPERSTRIP, &rows);
    if (rows == 0) {
        return image_err_corrupt(err, "no rows per strip");
    }
    rows = rows > l->height ? l->height : rows;
    uint32_t per_plane = (l->height - 1) / rows + 1;
    int planes = l->planar ? l->samples : 1;
    size_t row_bytes = (size_t)TIFFScanlineSize64(l->tif);
    for (int p = 0; p < planes; p++) {
        for (uint32_t i = 0; i < per_plane; i++) {
            uint32_t index = (uint32_t)p * per_plane + i, y = i * rows;
            uint32_t h = l->height - y < rows ? l->height - y : rows;
            size_t want = (size_t)h * row_bytes;
            if (want > size || index >= TIFFNumberOfStrips(l->tif)) {
                return image_err_corrupt(err, "strips do not fit the image");
            }
            if (is_absent(l->tif, index)) {
                memset(buf, 0, want);
            } else {
                tmsize_t got = TIFFReadEncodedStrip(l->tif, index, buf, (tmsize_t)want);
                if (got < 0 || (size_t)got < want) {
                    return image_tiff_fail(l, err);
                }
            }
            block_t b = {.bytes = buf, .row_bytes = row_bytes, .y = y, .w = l->width, .h = h, .first = p, .count = 1};
            b.first = l->planar ? p : 0;
            b.count = l->planar ? 1 : l->samples;
            put_block(l, &b, img);
        }
    }
    return ERR_OK;
}

static err_kind_t read_tiles(tiff_layout_t *l, uint8_t *buf, uint64_t size, image_t *img, err_t *err) {
    uint32_t tw = 0, th = 0;
    TIFFGetField(l->tif, TIFFTAG_TILEWIDTH, &tw);
    TIFFGetField(l->tif, TIFFTAG_TILELENGTH, &th);
    if (tw == 0 || th == 0) {
        return image_err_corrupt(err, "tiles without a size");
    }
    size_t row_bytes = (size_t)TIFFTileRowSize64(l->tif);
    uint32_t across = (l->width - 1) / tw + 1, down = (l->height - 1) / th + 1;
    int planes = l->planar ? l->samples : 1;
    if ((uint64_t)row_bytes * th > size || (uint64_t)across * down * (unsigned)planes > TIFFNumberOfTiles(l->tif)) {
        return image_err_corrupt(err, "tiles do not fit the image");
    }
    for (int p = 0; p < planes; p++) {
        for (uint64_t i = 0; i < (uint64_t)across * down; i++) {
            uint32_t index = (uint32_t)((uint64_t)(unsigned)p * across * down + i);
            uint32_t x = (uint32_t)(i % across) * tw, y = (uint32_t)(i / across) * th;
            if (is_absent(l->tif, index)) {
                memset(buf, 0, (size_t)size);
            } else {
                tmsize_t got = TIFFReadEncodedTile(l->tif, index, buf, (tmsize_t)size);
                if (got < 0 || (uint64_t)got < size) {
                    return image_tiff_fail(l, err);
                }
            }
            block_t b = {.bytes = buf, .row_bytes = row_bytes, .x = x, .y = y};
            b.w = l->width - x < tw ? l->width - x : tw;
            b.h = l->height - y < th ? l->height - y : th;
            b.first = l->planar ? p : 0;
            b.count = l->planar ? 1 : l->samples;
            put_block(l, &b, img);
        }
    }
    return ERR_OK;
}

/* CMYK in the buffer becomes RGB, in place: three values are written where four were read. */
static void ink_to_rgb(image_t *img, size_t stored) {
    size_t n = (size_t)img->info.width * (size_t)img->info.height, channels = stored - 1;
    uint8_t *p8 = img->data;
    uint16_t *p16 = img->data;
    bool deep = img->info.sample == SAMPLE_U16;
    uint32_t most = deep ? 65535 : 255;
    for (size_t i = 0; i < n; i++) {
        uint32_t v[5] = {0};
        for (size_t c = 0; c < stored; c++) {
            v[c] = deep ? p16[i * stored + c] : p8[i * stored + c];
        }
        uint32_t black = most - v[3];
        for (size_t c = 0; c < channels; c++) {
            uint32_t x = c < 3 ? (uint32_t)(((uint64_t)(most - v[c]) * black + most / 2) / most) : v[4];
            if (deep) {
                p16[i * channels + c] = (uint16_t)x;
            } else {
                p8[i * channels + c] = (uint8_t)x;
            }
        }
    }
    img->info.channels = (int32_t)channels;
    img->bytes = n * channels * (deep ? 2 : 1);
}

static err_kind_t read_through_rgba(tiff_layout_t *l, const image_request_t *req, image_t *img, err_t *err) {
    char why[1024] = "";
    TIFFRGBAImage rgba;
    image_info_t four = img->info;
    four.channels = 4;
    size_t bytes = 0;
    err_kind_t k = image_check_size(&four, req->lim, &bytes, err);
    if (k != ERR_OK) {
        return k;
    }
    if (!TIFFRGBAImageBegin(&rgba, l->tif, 1, why)) {
        return image_err_unsupported(err, "an unusual colour model", why);
    }
    rgba.req_orientation = rgba.orientation; /* turning is our own, and complete */
    img->data = calloc(1, bytes);
    if (!img->data) {
        TIFFRGBAImageEnd(&rgba);
        return image_err_memory(err);
    }
    int ok = TIFFRGBAImageGet(&rgba, img->data, l->width, l->height);
    TIFFRGBAImageEnd(&rgba);
    if (!ok) {
        return image_tiff_fail(l, err);
    }
    size_t n = bytes / 4;
    const uint32_t *src = img->data;
    uint8_t *dst = img->data;
    for (size_t i = 0; i < n; i++) {
        uint32_t v = src[i];
        dst[i * 3] = (uint8_t)TIFFGetR(v);
        dst[i * 3 + 1] = (uint8_t)TIFFGetG(v);
        dst[i * 3 + 2] = (uint8_t)TIFFGetB(v);
    }
    img->bytes = n * 3;
    return ERR_OK;
}

/* Uncompressed pixels cannot be more than the file holds; saying so early saves the memory. */
static bool is_plausible(const tiff_layout_t *l, const image_request_t *req) {
    if (l->compression != COMPRESSION_NONE) {
        return true;
    }
    uint64_t need = 0, blocks = l->tiled ? TIFFNumberOfTiles(l->tif) : TIFFNumberOfStrips(l->tif);
    for (uint64_t i = 0; i < blocks; i++) {
        if (is_absent(l->tif, (uint32_t)i)) {
            return true;
        }
    }
    need = (uint64_t)l->width * l->height / 8 * l->bits * l->samples;
    return need / 2 <= req->src->size;
}

err_kind_t image_tiff_read_pixels(tiff_layout_t *l, const image_request_t *req, image_t *img, err_t *err) {
    if (l->through_rgba) {
        return read_through_rgba(l, req, img, err);
    }
    uint64_t size = l->tiled ? TIFFTileSize64(l->tif) : TIFFStripSize64(l->tif);
    err_kind_t k = check_buffer(size, req, err);
    if (k != ERR_OK) {
        return k;
    }
    if (!is_plausible(l, req)) {
        return image_err_truncated(err, "the file is smaller than its pixels");
    }
    img->info.channels += l->ink ? 1 : 0; /* as stored, until ink_to_rgb */
    k = image_allocate(img, req->lim, err);
    if (k != ERR_OK) {
        return k;
    }
    uint8_t *buf = malloc((size_t)size);
    if (!buf) {
        return image_err_memory(err);
    }
    k = l->tiled ? read_tiles(l, buf, size, img, err) : read_strips(l, buf, size, img, err);
    free(buf);
    if (k == ERR_OK && l->ink) {
        ink_to_rgb(img, (size_t)img->info.channels);
    }
    return k;
}
