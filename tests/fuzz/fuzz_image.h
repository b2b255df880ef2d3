/* What the image fuzz targets share: decodes with small limits and uses every pixel, so that sanitizers see them. */
#ifndef SG_FUZZ_IMAGE_H
#define SG_FUZZ_IMAGE_H

#include <stdlib.h>

#include "common/image/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline int fuzz_image(const uint8_t *data, size_t size, image_format_t wanted) {
    const image_limits_t limits = {.max_pixels = 1 << 20, .max_decoded_bytes = 16 << 20, .max_pages = 16};
    if (image_sniff(data, size) != wanted) {
        return -1; /* keeps the corpus to the format */
    }
    for (int page = 0; page < 2; page++) {
        image_t img;
        err_t err;
        if (image_decode_memory(data, size, page, &limits, &img, &err) != ERR_OK) {
            if (img.data || !err.code[0] || !err.message[0]) {
                abort(); /* an error leaves nothing behind and has words */
            }
            continue;
        }
        if ((int64_t)img.info.width * img.info.height > limits.max_pixels) {
            abort();
        }
        float *grey = NULL;
        uint8_t *px = NULL;
        int channels = 0;
        if (image_to_grey(&img, &grey, &err) == ERR_OK) {
            free(grey);
        }
        if (image_to_display(&img, &px, &channels, &err) == ERR_OK) {
            free(px);
        }
        image_free(&img);
    }
    return 0;
}

#endif
