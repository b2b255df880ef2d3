/*
 * The list of names that an S3 server sends before they are deleted. Only names that begin with the prefix come
 * through, and none that would be more than text in the request that is made of them.
 */
#include <stdint.h>
#include <string.h>

#include "common/storage_s3.c" /* the parser is its own */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char open[] = "<Object><Key>p/", close[] = "</Key></Object>";
    buf_t xml, out;
    err_t err;
    buf_init(&xml, 1 << 20);
    buf_init(&out, 1 << 20);
    buf_append(&xml, data, size);
    page_t page = {.prefix = "p/", .out = &out};
    if (!xml.failed && parse_page(&page, &xml, &err) == ERR_OK) {
        const char *at = out.data ? out.data : "";
        for (int i = 0; i < page.found; i++) {
            if (strncmp(at, open, sizeof open - 1) != 0) {
                abort();
            }
            at += sizeof open - 1;
            at += strcspn(at, "<>&\"'");
            if (strncmp(at, close, sizeof close - 1) != 0) {
                abort();
            }
            at += sizeof close - 1;
        }
        if (*at != '\0') {
            abort();
        }
    }
    buf_free(&xml);
    buf_free(&out);
    return 0;
}
