/*
 * Orientation: finds the tag in an EXIF block and turns or mirrors pixels so that row 0 is the top.
 * The eight values are those of the TIFF 6.0 specification, tag 274.
 */
#include "image_internal.h"

#include <stdlib.h>
#include <string.h>

static uint32_t exif_u16(const uint8_t *p, bool big) {
    return big ? (uint32_t)p[0] << 8 | p[1] : (uint32_t)p[1] << 8 | p[0];
}

static uint32_t exif_u32(const uint8_t *p, bool big) {
    return big ? exif_u16(p, big) << 16 | exif_u16(p + 2, big) : exif_u16(p + 2, big) << 16 | exif_u16(p, big);
}

int image_exif_orientation(const uint8_t *p, size_t n) {
    enum { TAG_ORIENTATION = 274, TYPE_SHORT = 3 };
    if (n < 14 || (memcmp(p, "II*\0", 4) != 0 && memcmp(p, "MM\0*", 4) != 0)) {
        return 1;
    }
    bool big = p[0] == 'M';
    size_t ifd = exif_u32(p + 4, big);
    if (ifd > n - 2) {
        return 1;
    }
    size_t entries = exif_u16(p + ifd, big);
    for (size_t i = 0; i < entries; i++) {
        size_t at = ifd + 2 + i * 12;
        if (at + 12 > n) {
            break;
        }
        if (exif_u16(p + at, big) == TAG_ORIENTATION && exif_u16(p + at + 2, big) == TYPE_SHORT) {
            uint32_t v = exif_u16(p + at + 8, big);
            return v >= 1 && v <= 8 ? (int)v : 1;
        }
    }
    return 1;
}

void image_orient_info(image_info_t *info, int orientation) {
    if (orientation >= 5 && orientation <= 8) {
        int32_t t = info->width;
        info->width = info->height;
        info->height = t;
    }
}

static void mirror_rows(uint8_t *px, size_t w, size_t h, size_t unit) {
    uint8_t tmp[256];
    for (size_t y = 0; y < h; y++) {
        uint8_t *row = px + y * w * unit;
        for (size_t a = 0, b = w - 1; a < b; a++, b--) {
            for (size_t off = 0; off < unit; off += sizeof tmp) {
                size_t n = unit - off < sizeof tmp ? unit - off : sizeof tmp;
                memcpy(tmp, row + a * unit + off, n);
                memcpy(row + a * unit + off, row + b * unit + off, n);
                memcpy(row + b * unit + off, tmp, n);
            }
        }
    }
}

static void flip_rows(uint8_t *px, size_t w, size_t h, size_t unit) {
    uint8_t tmp[4096];
    size_t stride = w * unit;
    for (size_t a = 0, b = h - 1; a < b; a++, b--) {
        for (size_t off = 0; off < stride; off += sizeof tmp) {
            size_t n = stride - off < sizeof tmp ? stride - off : sizeof tmp;
            memcpy(tmp, px + a * stride + off, n);
            memcpy(px + a * stride + off, px + b * stride + off, n);
            memcpy(px + b * stride + off, tmp, n);
        }
    }
}

/* Exchanges rows and columns; the caller mirrors afterwards. */
static err_kind_t transpose(image_t *img, size_t unit, err_t *err) {
    size_t w = (size_t)img->info.width, h = (size_t)img->info.height;
    uint8_t *dst = malloc(img->bytes);
    if (!dst) {
        return image_err_memory(err);
    }
    const uint8_t *src = img->data;
    const size_t block = 32; /* keeps source rows and destination rows of one block in the cache */
    for (size_t y0 = 0; y0 < h; y0 += block) {
        for (size_t x0 = 0; x0 < w; x0 += block) {
            for (size_t y = y0; y < h && y < y0 + block; y++) {
                for (size_t x = x0; x < w && x < x0 + block; x++) {
                    memcpy(dst + (x * h + y) * unit, src + (y * w + x) * unit, unit);
                }
            }
        }
    }
    free(img->data);
    img->data = dst;
    return ERR_OK;
}

err_kind_t image_orient(image_t *img, int orientation, err_t *err) {
    if (orientation < 2 || orientation > 8) {
        return ERR_OK;
    }
    size_t unit = (size_t)img->info.channels * image_sample_bytes(img->info.sample);
    if (orientation >= 5) {
        err_kind_t k = transpose(img, unit, err);
        if (k != ERR_OK) {
            return k;
        }
        image_orient_info(&img->info, orientation);
    }
    size_t w = (size_t)img->info.width, h = (size_t)img->info.height;
    bool mirror = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
    bool flip = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
    if (mirror) {
        mirror_rows(img->data, w, h, unit);
    }
    if (flip) {
        flip_rows(img->data, w, h, unit);
    }
    return ERR_OK;
}
