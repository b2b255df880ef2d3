/*
 * Pixels of one TIFF directory: goes through the blocks that a rectangle touches, unpacks samples of any width, applies
 * the colour map, inverts MINISWHITE, turns CMYK into RGB.
 */
#include "tiff_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

/* 24-bit integers are bytes to TIFF 6.0 (section Compression), most significant first; libtiff reverses those of a file
 * of the other byte order. */
static uint32_t stored_uint(const tiff_layout_t *l, const uint8_t *row, size_t i) {
    switch (l->bits) {
    case 8:
        return row[i];
    case 16: {
        uint16_t v;
        memcpy(&v, row + i * 2, 2);
        return v;
    }
    case 24: {
        const uint8_t *p = row + i * 3;
        return (uint32_t)p[1] << 8 | (l->reversed ? (uint32_t)p[2] << 16 | p[0] : (uint32_t)p[0] << 16 | p[2]);
    }
    case 32: {
        uint32_t v;
        memcpy(&v, row + i * 4, 4);
        return v;
    }
    default:
        return packed_bits(row, i * l->bits, l->bits);
    }
}

static float stored_float(const tiff_layout_t *l, const uint8_t *row, size_t i) {
    const unsigned bits = l->bits;
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
    return bits == 24 ? small_float(native24(row + i * 3), 7, 16) : small_float(stored_uint(l, row, i), 5, 10);
}

static float stored_int(const tiff_layout_t *l, const uint8_t *row, size_t i) {
    const unsigned bits = l->bits;
    if (bits == 64) {
        int64_t v;
        memcpy(&v, row + i * 8, 8);
        return (float)v;
    }
    uint32_t u = stored_uint(l, row, i);
    uint32_t sign = (uint32_t)1 << (bits - 1);
    return (float)((int64_t)u - ((u & sign) ? (int64_t)sign * 2 : 0));
}

static float stored_as_float(const tiff_layout_t *l, const uint8_t *row, size_t i) {
    float v;
    if (l->format == SAMPLEFORMAT_IEEEFP) {
        v = stored_float(l, row, i);
    } else if (l->format == SAMPLEFORMAT_INT) {
        v = stored_int(l, row, i);
    } else {
        uint64_t u;
        memcpy(&u, row + i * 8, 8);
        v = (float)u;
    }
    return l->invert ? -v : v;
}

static uint32_t stored_as_uint(const tiff_layout_t *l, const uint8_t *row, size_t i) {
    uint32_t v = stored_uint(l, row, i), most = (uint32_t)(((uint64_t)1 << l->bits) - 1);
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
        uint32_t v = stored_uint(l, row, x * step + offset);
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

/* May the stored bytes of a row be taken as they are? */
static bool is_plain(const tiff_layout_t *l, const image_t *img, const tiff_block_t *b) {
    if (l->invert || l->palette || b->count != l->keep || l->keep != img->info.channels ||
        l->bits != 8 * image_sample_bytes(img->info.sample)) {
        return false;
    }
    for (int i = 0; i < l->keep; i++) {
        if (l->source_of[i] != i) {
            return false;
        }
    }
    return img->info.sample != SAMPLE_F32 || l->format == SAMPLEFORMAT_IEEEFP;
}

/* Where block and rectangle overlap. */
typedef struct {
    uint32_t x, y, w, h; /* px of the page */
} overlap_t;

static overlap_t overlap_of(const tiff_block_t *b, image_rect_t q) {
    uint32_t qx = (uint32_t)q.x, qy = (uint32_t)q.y;
    overlap_t o = {.x = b->x > qx ? b->x : qx, .y = b->y > qy ? b->y : qy};
    uint32_t right = b->x + b->w < qx + (uint32_t)q.w ? b->x + b->w : qx + (uint32_t)q.w;
    uint32_t bottom = b->y + b->h < qy + (uint32_t)q.h ? b->y + b->h : qy + (uint32_t)q.h;
    o.w = right - o.x;
    o.h = bottom - o.y;
    return o;
}

/* The part of a block that lies in the rectangle. */
static void put_block(const tiff_layout_t *l, const tiff_block_t *b, image_rect_t q, image_t *img) {
    /* CMYK is unpacked with four (or five) samples and turned into RGB at the end. */
    size_t channels = (size_t)img->info.channels, unit = channels * image_sample_bytes(img->info.sample);
    const overlap_t o = overlap_of(b, q);
    const size_t skip = o.x - b->x, count = (size_t)b->count;
    const bool plain = is_plain(l, img, b);
    for (uint32_t y = 0; y < o.h; y++) {
        const uint8_t *row = b->bytes + (size_t)(o.y - b->y + y) * b->row_bytes;
        size_t at = (size_t)(o.y - (uint32_t)q.y + y) * (size_t)q.w + (o.x - (uint32_t)q.x);
        if (plain) {
            memcpy((uint8_t *)img->data + at * unit, row + skip * unit, o.w * unit);
            continue;
        }
        for (int s = 0; s < b->count; s++) {
            int place = kept_place(l, b->first + s);
            if (place < 0) {
                continue;
            }
            size_t offset = skip * count + (size_t)s;
            if (l->palette && place == 0) {
                put_palette_row(l, row, count, offset, o.w, (uint8_t *)img->data + at * channels, channels);
            } else {
                put_row(l, row, count, offset, o.w, img, at, (size_t)place + (l->palette ? 2 : 0), channels);
            }
        }
    }
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

err_kind_t image_tiff_read_rect(tiff_file_t *f, image_rect_t q, image_t *part, err_t *err) {
    const tiff_layout_t *l = &f->l;
    memset(part, 0, sizeof *part);
    part->info = f->info;
    part->info.width = q.w;
    part->info.height = q.h;
    part->info.channels += l->ink ? 1 : 0; /* as stored, until ink_to_rgb */
    err_kind_t k = image_allocate(part, &f->lim, err);
    const int planes = l->planar ? l->samples : 1;
    const uint32_t right = (uint32_t)q.x + (uint32_t)q.w, bottom = (uint32_t)q.y + (uint32_t)q.h;
    for (int p = 0; k == ERR_OK && p < planes; p++) {
        if (l->planar && kept_place(l, p) < 0) {
            continue;
        }
        tiff_block_t b = {0};
        for (uint32_t y = (uint32_t)q.y; k == ERR_OK && y < bottom; y = b.y + b.h) {
            for (uint32_t x = (uint32_t)q.x; k == ERR_OK && x < right; x = b.x + b.w) {
                k = image_tiff_block_at(f, p, x, y, &b, err);
                if (k == ERR_OK) {
                    put_block(l, &b, q, part);
                }
            }
        }
    }
    if (k == ERR_OK && l->ink) {
        ink_to_rgb(part, (size_t)part->info.channels);
    }
    return k;
}
