/*
 * Thumbnail and tiles, see pyramid.h. Levels are halved with a 2×2 mean, which for a factor of two is the exact area
 * average, and the reason that one buffer is enough: pixel (x, y) of the smaller level lies in memory before every
 * pixel that is still to be read.
 */
#include "pyramid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/image/image.h"
#include "derivatives.h"

static err_kind_t write_jpeg(storage_t *st, const char *key, const uint8_t *px, int w, int h, int channels, int quality,
                             err_t *err) {
    uint8_t *jpeg = NULL;
    size_t n = 0;
    err_kind_t kind = image_encode_jpeg(px, w, h, channels, quality, &jpeg, &n, err);
    if (kind == ERR_OK) {
        kind = storage_put_bytes_relaxed(st, key, jpeg, n, err);
    }
    free(jpeg);
    return kind;
}

err_kind_t pyramid_write_thumbnail(storage_t *st, const char *key, const uint8_t *px, int width, int height,
                                   int channels, err_t *err) {
    const int longer = width > height ? width : height;
    if (longer <= PYRAMID_THUMBNAIL_SIDE) {
        return write_jpeg(st, key, px, width, height, channels, PYRAMID_THUMBNAIL_QUALITY, err);
    }
    const double scale = (double)PYRAMID_THUMBNAIL_SIDE / longer;
    int w = (int)(width * scale + 0.5), h = (int)(height * scale + 0.5);
    w = w < 1 ? 1 : w;
    h = h < 1 ? 1 : h;
    uint8_t *small = malloc((size_t)w * (size_t)h * (size_t)channels);
    if (!small) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    err_kind_t kind = image_resize_u8(px, width, height, channels, small, w, h, err);
    if (kind == ERR_OK) {
        kind = write_jpeg(st, key, small, w, h, channels, PYRAMID_THUMBNAIL_QUALITY, err);
    }
    free(small);
    return kind;
}

void pyramid_halve(uint8_t *px, int *width, int *height, int channels) {
    const size_t sw = (size_t)*width, sh = (size_t)*height, c = (size_t)channels;
    const size_t dw = (sw + 1) / 2, dh = (sh + 1) / 2;
    for (size_t y = 0; y < dh; y++) {
        const uint8_t *top = px + 2 * y * sw * c;
        const uint8_t *bottom = 2 * y + 1 < sh ? top + sw * c : top;
        uint8_t *out = px + y * dw * c;
        for (size_t x = 0; x < dw; x++) {
            const size_t left = 2 * x * c, right = 2 * x + 1 < sw ? left + c : left;
            for (size_t k = 0; k < c; k++) {
                const unsigned sum = (unsigned)top[left + k] + top[right + k] + bottom[left + k] + bottom[right + k];
                out[x * c + k] = (uint8_t)((sum + 2) / 4);
            }
        }
    }
    *width = (int)dw;
    *height = (int)dh;
}

static err_kind_t write_level(storage_t *st, const char *prefix, int level, const uint8_t *px, int width, int height,
                              int channels, uint8_t *tile, const atomic_bool *stop, err_t *err) {
    const size_t c = (size_t)channels;
    for (int top = 0; top < height; top += DERIVATIVES_TILE) {
        for (int left = 0; left < width; left += DERIVATIVES_TILE) {
            if (atomic_load(stop)) {
                return err_set(err, ERR_CANCELLED, "image_deleted", "The image was deleted.", NULL);
            }
            const int w = width - left < DERIVATIVES_TILE ? width - left : DERIVATIVES_TILE;
            const int h = height - top < DERIVATIVES_TILE ? height - top : DERIVATIVES_TILE;
            for (int y = 0; y < h; y++) {
                memcpy(tile + (size_t)y * (size_t)w * c, px + ((size_t)(top + y) * (size_t)width + (size_t)left) * c,
                       (size_t)w * c);
            }
            char key[DERIVATIVES_KEY_ROOM];
            snprintf(key, sizeof key, "%s/%d/%d_%d.jpg", prefix, level, left / DERIVATIVES_TILE,
                     top / DERIVATIVES_TILE);
            err_kind_t kind = write_jpeg(st, key, tile, w, h, channels, PYRAMID_TILE_QUALITY, err);
            if (kind != ERR_OK) {
                return kind;
            }
        }
    }
    return ERR_OK;
}

err_kind_t pyramid_write_tiles(storage_t *st, const char *prefix, uint8_t *px, int width, int height, int channels,
                               const atomic_bool *stop, err_t *err) {
    uint8_t *tile = malloc((size_t)DERIVATIVES_TILE * DERIVATIVES_TILE * (size_t)channels);
    if (!tile) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    err_kind_t kind = ERR_OK;
    for (int level = derivatives_max_level(width, height); level >= 0 && kind == ERR_OK; level--) {
        kind = write_level(st, prefix, level, px, width, height, channels, tile, stop, err);
        pyramid_halve(px, &width, &height, channels);
    }
    if (kind == ERR_OK) {
        char key[DERIVATIVES_KEY_ROOM];
        snprintf(key, sizeof key, "%s/done", prefix);
        kind = storage_put_bytes_relaxed(st, key, "1\n", 2, err);
    }
    free(tile);
    return kind;
}
