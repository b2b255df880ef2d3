/* Fuzzes the TIFF reader. */
#include "tests/fuzz/fuzz_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    return fuzz_image(data, size, IMAGE_TIFF);
}
