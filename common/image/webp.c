/*
 * WebP through libwebp, lossy and lossless. libwebp needs the whole file in memory, so the file's own size is held
 * against the limit too. Animations are refused with words.
 */
#include "image_internal.h"

#include <stdlib.h>
#include <string.h>

#include <webp/decode.h>

/* Walks the chunks of the RIFF file for an EXIF block. */
static int find_orientation(const uint8_t *p, size_t n) {
    size_t at = 12;
    while (at + 8 <= n) {
        size_t len = (size_t)p[at + 4] | (size_t)p[at + 5] << 8 | (size_t)p[at + 6] << 16 | (size_t)p[at + 7] << 24;
        if (len > n - at - 8) {
            break;
        }
        if (memcmp(p + at, "EXIF", 4) == 0) {
            const uint8_t *e = p + at + 8;
            bool prefixed = len >= 6 && memcmp(e, "Exif\0\0", 6) == 0;
            return image_exif_orientation(e + (prefixed ? 6 : 0), len - (prefixed ? 6 : 0));
        }
        at += 8 + len + (len & 1);
    }
    return 1;
}

static err_kind_t webp_fail(VP8StatusCode status, err_t *err) {
    char detail[48];
    snprintf(detail, sizeof detail, "libwebp status %d", (int)status);
    switch (status) {
    case VP8_STATUS_OUT_OF_MEMORY:
        return image_err_memory(err);
    case VP8_STATUS_NOT_ENOUGH_DATA:
    case VP8_STATUS_SUSPENDED:
        return image_err_truncated(err, detail);
    case VP8_STATUS_UNSUPPORTED_FEATURE:
        return image_err_unsupported(err, "a rare WebP feature", detail);
    default:
        return image_err_corrupt(err, detail);
    }
}

static err_kind_t decode_pixels(const uint8_t *file, size_t n, const image_request_t *req, image_t *out, err_t *err) {
    err_kind_t k = image_allocate(out, req->lim, err);
    if (k != ERR_OK) {
        return k;
    }
    WebPDecoderConfig config;
    if (!WebPInitDecoderConfig(&config)) {
        return image_err_corrupt(err, "libwebp is of another version than its header");
    }
    config.output.colorspace = out->info.has_alpha ? MODE_RGBA : MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = out->data;
    config.output.u.RGBA.stride = out->info.width * out->info.channels;
    config.output.u.RGBA.size = out->bytes;
    VP8StatusCode status = WebPDecode(file, n, &config);
    WebPFreeDecBuffer(&config.output);
    return status == VP8_STATUS_OK ? ERR_OK : webp_fail(status, err);
}

err_kind_t image_webp_read(const image_request_t *req, image_t *out, err_t *err) {
    image_source_t *src = req->src;
    if (src->size > (uint64_t)req->lim->max_decoded_bytes || src->size > UINT32_MAX) {
        return err_set(err, ERR_TOO_LARGE, "image_too_large", "The WebP file is larger than any valid one.", NULL);
    }
    size_t n = (size_t)src->size;
    uint8_t *copy = NULL;
    const uint8_t *file = src->mem;
    err_kind_t k = ERR_OK;
    if (!file) {
        copy = malloc(n);
        if (!copy) {
            return image_err_memory(err);
        }
        n = image_source_read_at(src, 0, copy, n);
        file = copy;
    }
    WebPBitstreamFeatures f;
    VP8StatusCode status = WebPGetFeatures(file, n, &f);
    if (status != VP8_STATUS_OK) {
        k = webp_fail(status, err);
        goto out;
    }
    if (f.has_animation) {
        k = image_err_unsupported(err, "animation", "animated WebP");
        goto out;
    }
    out->info = (image_info_t){.format = IMAGE_WEBP, .width = f.width, .height = f.height, .bit_depth = 8, .pages = 1};
    out->info.has_alpha = f.has_alpha != 0;
    out->info.channels = f.has_alpha ? 4 : 3;
    out->info.sample = SAMPLE_U8;
    size_t bytes = 0;
    k = image_check_page(req->page, 1, req->lim, err);
    if (k == ERR_OK) {
        k = image_check_size(&out->info, req->lim, &bytes, err);
    }
    if (k != ERR_OK) {
        goto out;
    }
    int orientation = find_orientation(file, n);
    if (req->header_only) {
        image_orient_info(&out->info, orientation);
    } else {
        k = decode_pixels(file, n, req, out, err);
        if (k == ERR_OK) {
            k = image_orient(out, orientation, err);
        }
    }
out:
    free(copy);
    return k;
}
