/* What the image fuzz targets share: decodes with small limits and uses every pixel, so that sanitizers see them. */
#ifndef SG_FUZZ_IMAGE_H
#define SG_FUZZ_IMAGE_H

#include <stdlib.h>
#include <string.h>

#include "common/image/region.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const image_limits_t FUZZ_LIMITS = {.max_pixels = 1 << 13, .max_decoded_bytes = 1 << 17, .max_pages = 8};

/* An error leaves nothing behind and has words. */
static inline void fuzz_check_error(const image_t *img, const err_t *err) {
    if ((img && img->data) || !err->code[0] || !err->message[0]) {
        abort();
    }
}

static inline void fuzz_use(const image_t *img) {
    float *grey = NULL;
    uint8_t *px = NULL;
    int channels = 0;
    err_t err;
    if (img->info.width < 1 || img->info.height < 1 || img->info.channels < 1 ||
        (int64_t)img->info.width * img->info.height > FUZZ_LIMITS.max_pixels) {
        abort();
    }
    if (image_to_grey(img, &grey, &err) == ERR_OK) {
        free(grey);
    }
    if (image_to_display(img, &px, &channels, &err) == ERR_OK) {
        free(px);
    }
}

static inline int fuzz_image(const uint8_t *data, size_t size, image_format_t wanted) {
    if (image_sniff(data, size) != wanted) {
        return -1; /* keeps the corpus to the format */
    }
    const int pages = wanted == IMAGE_TIFF || wanted == IMAGE_GIF ? 2 : 1;
    for (int page = 0; page < pages; page++) {
        image_t img;
        err_t err;
        if (image_decode_memory(data, size, page, &FUZZ_LIMITS, &img, &err) != ERR_OK) {
            fuzz_check_error(&img, &err);
            continue;
        }
        fuzz_use(&img);
        image_free(&img);
    }
    return 0;
}

#endif
