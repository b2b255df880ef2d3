/* Fuzzes the region reader. The last 8 bytes choose page, channel, mix and rectangle; the rest is the file. What the
 * reader gives must be the same part of the page that is decoded whole. */
#include "tests/fuzz/fuzz_image.h"

enum { TAIL = 8 };

static size_t sample_bytes(image_sample_t s) {
    return s == SAMPLE_U8 ? 1 : s == SAMPLE_U16 ? 2 : 4;
}

static void compare(image_reader_t *r, image_rect_t q, const image_t *whole) {
    size_t unit = (size_t)whole->info.channels * sample_bytes(whole->info.sample), row = (size_t)q.w * unit;
    uint8_t *part = malloc(row * (size_t)q.h);
    err_t err;
    if (part && image_reader_read(r, q, part, row * (size_t)q.h, &err) != ERR_OK) {
        if (strcmp(err.code, "out_of_memory") != 0) {
            abort(); /* the whole page could be read */
        }
        free(part);
        return;
    }
    for (int32_t y = 0; part && y < q.h; y++) {
        size_t at = ((size_t)(q.y + y) * (size_t)whole->info.width + (size_t)q.x) * unit;
        if (memcmp(part + (size_t)y * row, (const uint8_t *)whole->data + at, row) != 0) {
            abort();
        }
    }
    free(part);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < TAIL) {
        return -1;
    }
    size -= TAIL;
    const uint8_t *t = data + size;
    image_reader_t *r = NULL;
    image_t whole;
    err_t err;
    if (image_open_memory(data, size, &FUZZ_LIMITS, &r, &err) != ERR_OK) {
        fuzz_check_error(NULL, &err);
        return 0;
    }
    image_select_t sel = IMAGE_SELECT_DEFAULT;
    sel.page = t[0] & 3;
    sel.channel = (t[1] & 7) - 1;
    sel.z = (t[2] & 3) - 1;
    sel.t = (t[2] >> 2 & 3) - 1;
    sel.weights = t[3] & 3;
    for (int i = 0; i < sel.weights; i++) {
        sel.weight[i] = (float)(t[3] >> 2) - 20.0f;
    }
    if (image_reader_select(r, &sel, &err) != ERR_OK) {
        fuzz_check_error(NULL, &err);
    }
    const image_info_t *i = image_reader_info(r);
    image_rect_t q = {.x = t[4] % i->width, .y = t[5] % i->height};
    q.w = 1 + t[6] % (i->width - q.x);
    q.h = 1 + t[7] % (i->height - q.y);
    float *grey = malloc((size_t)q.w * (size_t)q.h * sizeof *grey);
    if (grey && image_reader_read_grey(r, q, grey, &err) != ERR_OK) {
        fuzz_check_error(NULL, &err);
    }
    free(grey);
    sel = IMAGE_SELECT_DEFAULT;
    sel.page = t[0] & 3;
    if (image_decode_memory(data, size, sel.page, &FUZZ_LIMITS, &whole, &err) == ERR_OK) {
        if (image_reader_select(r, &sel, &err) != ERR_OK) {
            abort();
        }
        q.w = q.x + q.w <= whole.info.width ? q.w : 1;
        q.x = q.x + q.w <= whole.info.width ? q.x : 0;
        q.h = q.y + q.h <= whole.info.height ? q.h : 1;
        q.y = q.y + q.h <= whole.info.height ? q.y : 0;
        compare(r, q, &whole);
        image_free(&whole);
    }
    image_close(r);
    return 0;
}
