/* File names from a browser: what comes out is a short piece of UTF-8 that names no other folder. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "gateway/names.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char out[NAMES_ROOM], again[NAMES_ROOM];
    names_sanitise((const char *)data, size, out);
    size_t n = strnlen(out, sizeof out);
    if (n == 0 || n >= sizeof out || strpbrk(out, "/\\") || strcmp(out, ".") == 0 || strcmp(out, "..") == 0 ||
        !utf8_is_valid(out, n)) {
        abort();
    }
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)out[i] < 0x20 || out[i] == 0x7f) {
            abort();
        }
    }
    names_sanitise(out, n, again); /* a good name stays as it is */
    if (strcmp(out, again) != 0) {
        abort();
    }
    return 0;
}
