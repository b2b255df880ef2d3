/*
 * BMP, parsed here: the format is small and no library of ours reads it. Windows headers 1 to 5 and OS/2 headers; 1, 2,
 * 4, 8, 16, 24 and 32 bits; palettes, RLE4, RLE8, bit fields; bottom-up and top-down. Every offset and count from the
 * file is checked before use; pixels that a run-length stream skips stay at palette entry 0.
 */
#include "image_internal.h"

#include <stdlib.h>
#include <string.h>

enum { BMP_RGB = 0, BMP_RLE8 = 1, BMP_RLE4 = 2, BMP_BITFIELDS = 3, BMP_ALPHAFIELDS = 6 };

typedef struct {
    image_source_t *src;
    int64_t width, height;
    bool top_down;
    uint32_t header, bits, compression, colours;
    uint64_t data;    /* offset of the pixels */
    uint32_t mask[4]; /* red, green, blue, alpha */
    uint8_t palette[256][3];
    bool grey; /* every palette entry has equal parts */
} bmp_t;

static uint32_t le16(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t le32(const uint8_t *p) {
    return le16(p) | le16(p + 2) << 16;
}

static bool bits_allowed(const bmp_t *b) {
    static const uint8_t plain[] = {1, 2, 4, 8, 16, 24, 32};
    switch (b->compression) {
    case BMP_RGB:
        return memchr(plain, (int)b->bits, sizeof plain) != NULL;
    case BMP_RLE8:
        return b->bits == 8 && !b->top_down;
    case BMP_RLE4:
        return b->bits == 4 && !b->top_down;
    case BMP_BITFIELDS:
    case BMP_ALPHAFIELDS:
        return b->bits == 16 || b->bits == 32;
    default:
        return false;
    }
}

static void default_masks(bmp_t *b) {
    if (b->bits == 16) {
        b->mask[0] = 0x7c00;
        b->mask[1] = 0x03e0;
        b->mask[2] = 0x001f;
    } else {
        b->mask[0] = 0xff0000;
        b->mask[1] = 0x00ff00;
        b->mask[2] = 0x0000ff;
    }
    b->mask[3] = 0;
}

/* Bit fields stand in the header from version 2 on, and right behind it before. Returns the bytes behind it. */
static err_kind_t read_masks(bmp_t *b, uint32_t *behind, err_t *err) {
    *behind = 0;
    default_masks(b);
    if (b->compression != BMP_BITFIELDS && b->compression != BMP_ALPHAFIELDS) {
        return ERR_OK;
    }
    uint32_t count = b->compression == BMP_ALPHAFIELDS || b->header >= 56 ? 4 : 3;
    uint8_t m[16] = {0};
    if (image_source_read_at(b->src, 14 + 40, m, count * 4) != count * 4) {
        return image_err_truncated(err, "bit fields missing");
    }
    *behind = b->header == 40 ? count * 4 : 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t v = le32(m + i * 4), low = v & (~v + 1);
        if (v != 0 && ((v / low) & (v / low + 1)) != 0) {
            return image_err_corrupt(err, "bit field with gaps");
        }
        b->mask[i] = v;
    }
    if (b->mask[0] == 0 && b->mask[1] == 0 && b->mask[2] == 0) {
        return image_err_corrupt(err, "no bit fields");
    }
    return ERR_OK;
}

static err_kind_t read_palette(bmp_t *b, uint32_t behind, err_t *err) {
    if (b->bits > 8) {
        return ERR_OK;
    }
    uint32_t entry = b->header == 12 ? 3 : 4, most = 1u << b->bits;
    uint32_t n = b->colours == 0 || b->colours > most ? most : b->colours;
    uint64_t at = 14 + (uint64_t)b->header + behind;
    if (b->header == 12 && b->data > at && (b->data - at) / 3 < n) {
        n = (uint32_t)((b->data - at) / 3); /* OS/2 files may hold fewer entries than the depth allows */
    }
    uint8_t raw[256 * 4] = {0};
    if (image_source_read_at(b->src, at, raw, (size_t)n * entry) != (size_t)n * entry) {
        return image_err_truncated(err, "palette missing");
    }
    b->grey = true;
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *p = raw + (size_t)i * entry;
        b->palette[i][0] = p[2];
        b->palette[i][1] = p[1];
        b->palette[i][2] = p[0];
        b->grey = b->grey && p[0] == p[1] && p[1] == p[2];
    }
    return ERR_OK;
}

static err_kind_t read_header(bmp_t *b, err_t *err) {
    uint8_t h[64] = {0};
    size_t got = image_source_read_at(b->src, 0, h, 14 + 40);
    if (got < 14 + 12) {
        return image_err_truncated(err, "header missing");
    }
    b->data = le32(h + 10);
    b->header = le32(h + 14);
    if (got < 14 + (size_t)(b->header < 40 ? b->header : 40)) {
        return image_err_truncated(err, "header missing");
    }
    if (b->header == 12) {
        b->width = le16(h + 18);
        b->height = le16(h + 20);
        b->bits = le16(h + 24);
    } else {
        b->width = (int32_t)le32(h + 18);
        b->height = (int32_t)le32(h + 22);
        b->bits = le16(h + 28);
    }
    if (b->header >= 40) {
        b->compression = le32(h + 30);
        b->colours = le32(h + 46);
    }
    b->top_down = b->height < 0;
    b->height = b->top_down ? -b->height : b->height;
    if (b->width <= 0 || b->height <= 0 || b->height > INT32_MAX) {
        return image_err_corrupt(err, "width or height out of range");
    }
    if (!bits_allowed(b)) {
        char detail[64];
        snprintf(detail, sizeof detail, "%u bits, compression %u", b->bits, b->compression);
        return image_err_unsupported(err, "a rare BMP variant", detail);
    }
    uint32_t behind = 0;
    err_kind_t k = read_masks(b, &behind, err);
    return k == ERR_OK ? read_palette(b, behind, err) : k;
}

/* A masked field as 8 bits. */
static uint8_t field(uint32_t v, uint32_t mask) {
    if (mask == 0) {
        return 0;
    }
    uint32_t low = mask & (~mask + 1), most = mask / low;
    return (uint8_t)(((uint64_t)((v & mask) / low) * 255 + most / 2) / most);
}

static void put_index(const bmp_t *b, uint8_t *dst, uint32_t v) {
    memcpy(dst, b->palette[v & 255], b->grey ? 1 : 3);
}

static void unpack_row(const bmp_t *b, const uint8_t *row, uint8_t *dst, size_t channels) {
    for (size_t x = 0; x < (size_t)b->width; x++, dst += channels) {
        if (b->bits <= 8) {
            size_t bit = x * b->bits;
            uint32_t v = (uint32_t)row[bit / 8] >> (8 - b->bits - bit % 8);
            put_index(b, dst, v & ((1u << b->bits) - 1));
        } else if (b->bits == 24) {
            dst[0] = row[x * 3 + 2];
            dst[1] = row[x * 3 + 1];
            dst[2] = row[x * 3];
        } else {
            uint32_t v = b->bits == 16 ? le16(row + x * 2) : le32(row + x * 4);
            for (size_t c = 0; c < channels; c++) {
                dst[c] = field(v, b->mask[c]);
            }
        }
    }
}

static err_kind_t read_plain(const bmp_t *b, image_t *img, err_t *err) {
    size_t stride = (((size_t)b->width * b->bits + 31) / 32) * 4, channels = (size_t)img->info.channels;
    uint8_t *row = malloc(stride);
    err_kind_t k = ERR_OK;
    if (!row) {
        return image_err_memory(err);
    }
    /* The padding of the last row may be missing. */
    size_t needed = ((size_t)b->width * b->bits + 7) / 8;
    for (int64_t y = 0; y < b->height; y++) {
        if (image_source_read_at(b->src, b->data + (uint64_t)y * stride, row, stride) < needed) {
            k = image_err_truncated(err, "pixels missing");
            break;
        }
        int64_t target = b->top_down ? y : b->height - 1 - y;
        unpack_row(b, row, (uint8_t *)img->data + (size_t)target * (size_t)b->width * channels, channels);
    }
    free(row);
    return k;
}

/* Reads bytes of the run-length stream through a small buffer. */
typedef struct {
    const bmp_t *b;
    uint64_t at;
    uint8_t buf[4096];
    size_t len, used;
} rle_stream_t;

static int rle_byte(rle_stream_t *s) {
    if (s->used == s->len) {
        s->len = image_source_read_at(s->b->src, s->at, s->buf, sizeof s->buf);
        s->at += s->len;
        s->used = 0;
        if (s->len == 0) {
            return -1;
        }
    }
    return s->buf[s->used++];
}

static void rle_put(const bmp_t *b, image_t *img, int64_t x, int64_t y, uint32_t v) {
    if (x < b->width && y < b->height) {
        size_t at = (size_t)(b->height - 1 - y) * (size_t)b->width + (size_t)x;
        put_index(b, (uint8_t *)img->data + at * (size_t)img->info.channels, v);
    }
}

/* A run of literal pixels, padded to an even number of bytes; false at the end of the file. */
static bool rle_literal(rle_stream_t *s, image_t *img, int64_t *x, int64_t y, int n) {
    bool nibbles = s->b->bits == 4;
    int bytes = nibbles ? (n + 1) / 2 : n;
    for (int i = 0; i < bytes; i++) {
        int v = rle_byte(s);
        if (v < 0) {
            return false;
        }
        if (nibbles) {
            rle_put(s->b, img, (*x)++, y, (uint32_t)v >> 4);
            if (i * 2 + 1 < n) {
                rle_put(s->b, img, (*x)++, y, (uint32_t)v & 15);
            }
        } else {
            rle_put(s->b, img, (*x)++, y, (uint32_t)v);
        }
    }
    return (bytes & 1) == 0 || rle_byte(s) >= 0;
}

static err_kind_t read_rle(const bmp_t *b, image_t *img, err_t *err) {
    rle_stream_t *s = calloc(1, sizeof *s);
    if (!s) {
        return image_err_memory(err);
    }
    s->b = b;
    s->at = b->data;
    size_t n = (size_t)b->width * (size_t)b->height, channels = (size_t)img->info.channels;
    for (size_t i = 0; i < n; i++) {
        put_index(b, (uint8_t *)img->data + i * channels, 0);
    }
    int64_t x = 0, y = 0;
    bool end = false, good = true;
    while (good && !end && y < b->height) {
        int count = rle_byte(s), v = rle_byte(s);
        if (count < 0 || v < 0) {
            good = false;
        } else if (count > 0) {
            for (int i = 0; i < count; i++) {
                rle_put(b, img, x++, y, b->bits == 4 ? (uint32_t)(i & 1 ? v & 15 : v >> 4) : (uint32_t)v);
            }
        } else if (v == 0) {
            x = 0;
            y++;
        } else if (v == 1) {
            end = true;
        } else if (v == 2) {
            int dx = rle_byte(s), dy = rle_byte(s);
            good = dx >= 0 && dy >= 0;
            x += dx;
            y += dy;
        } else {
            good = rle_literal(s, img, &x, y, v);
        }
    }
    free(s);
    return good ? ERR_OK : image_err_truncated(err, "run-length data end early");
}

/* A plain file cannot be smaller than its pixels. */
static bool is_plausible(const bmp_t *b) {
    bool rle = b->compression == BMP_RLE8 || b->compression == BMP_RLE4;
    uint64_t stride = (((uint64_t)b->width * b->bits + 31) / 32) * 4;
    uint64_t need = rle ? 2 : stride * (uint64_t)(b->height - 1) + 1;
    return b->data <= b->src->size && need <= b->src->size - b->data;
}

err_kind_t image_bmp_read(const image_request_t *req, image_t *out, err_t *err) {
    bmp_t *b = calloc(1, sizeof *b);
    if (!b) {
        return image_err_memory(err);
    }
    b->src = req->src;
    err_kind_t k = read_header(b, err);
    if (k != ERR_OK) {
        goto out;
    }
    image_info_t *info = &out->info;
    info->format = IMAGE_BMP;
    info->width = (int32_t)b->width;
    info->height = (int32_t)b->height;
    info->sample = SAMPLE_U8;
    info->bit_depth = b->bits <= 8 ? (int32_t)b->bits : 8;
    info->pages = 1;
    info->has_alpha = b->bits > 8 && b->mask[3] != 0;
    info->channels = b->bits <= 8 && b->grey ? 1 : info->has_alpha ? 4 : 3;
    size_t bytes = 0;
    k = image_check_page(req->page, 1, req->lim, err);
    if (k == ERR_OK) {
        k = image_check_size(info, req->lim, &bytes, err);
    }
    if (k != ERR_OK || req->header_only) {
        goto out;
    }
    if (!is_plausible(b)) {
        k = image_err_truncated(err, "the file is smaller than its pixels");
        goto out;
    }
    k = image_allocate(out, req->lim, err);
    if (k == ERR_OK) {
        bool rle = b->compression == BMP_RLE8 || b->compression == BMP_RLE4;
        k = rle ? read_rle(b, out, err) : read_plain(b, out, err);
    }
out:
    free(b);
    return k;
}
