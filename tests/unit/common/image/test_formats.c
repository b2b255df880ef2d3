/* PNG, JPEG, BMP, GIF, WebP: what they decode to, and what happens when they are cut, damaged or hostile. */
#include "image_fixture.h"

#include <gif_lib.h>
#include <webp/encode.h>

enum { W = 31, H = 17 };

static void fill(uint8_t *px, int channels) {
    for (int y = 0; y < H; y++) {
        for (int x = 0; x < W; x++) {
            for (int c = 0; c < channels; c++) {
                px[(y * W + x) * channels + c] = (uint8_t)(x * 8 + y * 3 * c);
            }
        }
    }
}

static void sniffs_by_content(void **state) {
    (void)state;
    const uint8_t bmp[16] = {'B', 'M', 0, 0, 0, 0, 0, 0, 0, 0, 54, 0, 0, 0, 40, 0};
    assert_int_equal(image_sniff((const uint8_t *)"\x89PNG\r\n\x1a\n", 8), IMAGE_PNG);
    assert_int_equal(image_sniff((const uint8_t *)"\xff\xd8\xff\xe0", 4), IMAGE_JPEG);
    assert_int_equal(image_sniff((const uint8_t *)"MM\0+", 4), IMAGE_TIFF);
    assert_int_equal(image_sniff((const uint8_t *)"GIF89a", 6), IMAGE_GIF);
    assert_int_equal(image_sniff((const uint8_t *)"RIFF....WEBP", 12), IMAGE_WEBP);
    assert_int_equal(image_sniff(bmp, 16), IMAGE_BMP);
    assert_int_equal(image_sniff((const uint8_t *)"BMW is a car company", 20), IMAGE_UNKNOWN);
    assert_int_equal(image_sniff((const uint8_t *)"", 0), IMAGE_UNKNOWN);
    assert_string_equal(image_format_name(IMAGE_WEBP), "webp");
    assert_string_equal(image_format_mime(IMAGE_UNKNOWN), "application/octet-stream");
}

static void empty_file_says_so(void **state) {
    (void)state;
    decode_fails("", 0, ERR_INVALID, "image_empty");
}

static void png_keeps_every_pixel(void **state) {
    (void)state;
    for (int channels = 1; channels <= 3; channels += 2) {
        uint8_t px[W * H * 3];
        fill(px, channels);
        blob_t b;
        assert_int_equal(image_encode_png(px, W, H, channels, &b.data, &b.n, NULL), ERR_OK);
        image_t img = decode_ok(b, 0);
        assert_int_equal(img.info.format, IMAGE_PNG);
        assert_int_equal(img.info.channels, channels);
        assert_int_equal(img.bytes, (size_t)W * H * (size_t)channels);
        assert_memory_equal(img.data, px, img.bytes);
        image_free(&img);
        free(b.data);
    }
}

static void png16_keeps_every_pixel(void **state) {
    (void)state;
    const uint16_t px[4] = {0, 1, 256, 65535};
    char path[64];
    temp_name(path);
    assert_int_equal(image_write_png16(path, px, 2, 2, NULL), ERR_OK);
    image_t img;
    assert_int_equal(image_decode(path, 0, &TEST_LIMITS, &img, NULL), ERR_OK);
    assert_int_equal(img.info.sample, SAMPLE_U16);
    assert_memory_equal(img.data, px, sizeof px);
    image_free(&img);
    unlink(path);
    assert_int_equal(image_write_png16("/nonexistent/x.png", px, 2, 2, NULL), ERR_IO);
}

static void tiff32_keeps_every_pixel(void **state) {
    (void)state;
    const uint32_t px[4] = {0, 1, 70000, 4294967295u};
    char path[64];
    temp_name(path);
    assert_int_equal(image_write_tiff_u32(path, px, 4, 1, NULL), ERR_OK);
    image_t img;
    assert_int_equal(image_decode(path, 0, &TEST_LIMITS, &img, NULL), ERR_OK);
    assert_int_equal(img.info.sample, SAMPLE_U32);
    assert_memory_equal(img.data, px, sizeof px);
    image_free(&img);
    unlink(path);
}

static void every_truncation_of_a_png_is_an_error(void **state) {
    (void)state;
    uint8_t px[W * H * 3];
    fill(px, 3);
    blob_t b;
    assert_int_equal(image_encode_png(px, W, H, 3, &b.data, &b.n, NULL), ERR_OK);
    const size_t iend = 12; /* the closing chunk carries no pixels */
    for (size_t n = 8; n < b.n - iend - 4; n++) {
        uint8_t *cut = malloc(n);
        memcpy(cut, b.data, n);
        decode_fails(cut, n, ERR_INVALID, "image_truncated");
        free(cut);
    }
    b.data[b.n - iend - 12] ^= 0x55; /* pixel data: the checksum tells */
    decode_fails(b.data, b.n, ERR_INVALID, "image_corrupt");
    free(b.data);
}

/* The header of a PNG with that size, with right checksum, and nothing else. */
static size_t png_header(uint8_t *out, uint32_t w, uint32_t h) {
    const uint8_t head[33] = {0x89, 'P', 'N', 'G', 13, 10, 26, 10, 0, 0, 0, 13, 'I', 'H', 'D', 'R'};
    memcpy(out, head, sizeof head);
    for (int i = 0; i < 4; i++) {
        out[16 + i] = (uint8_t)(w >> (24 - 8 * i));
        out[20 + i] = (uint8_t)(h >> (24 - 8 * i));
    }
    out[24] = 8;
    uint32_t crc = 0xffffffffu;
    for (int i = 12; i < 29; i++) {
        crc ^= out[i];
        for (int k = 0; k < 8; k++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        }
    }
    crc = ~crc;
    for (int i = 0; i < 4; i++) {
        out[29 + i] = (uint8_t)(crc >> (24 - 8 * i));
    }
    memcpy(out + 33, "\0\0\0\0IDAT\x35\xaf\x06\x1e", 12);
    return 45;
}

static void huge_png_header_is_refused(void **state) {
    (void)state;
    uint8_t b[64];
    size_t n = png_header(b, 60000, 60000);
    decode_fails(b, n, ERR_TOO_LARGE, "image_too_large");
    n = png_header(b, 1999, 1999); /* within the limits, but the file cannot hold it */
    decode_fails(b, n, ERR_INVALID, "image_truncated");
}

/* The most that the process has had of its address space, in kB. */
static long most_memory(void) {
    char line[256];
    long kb = -1;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && kb < 0 && fgets(line, sizeof line, f)) {
        kb = strncmp(line, "VmPeak:", 7) == 0 ? strtol(line + 7, NULL, 10) : kb;
    }
    if (f) {
        fclose(f);
    }
    return kb;
}

static void a_png_chunk_takes_no_more_memory_than_it_may(void **state) {
    (void)state;
    static const char *const chunks[] = {"eXIf", "iCCP", "tEXt", "sPLT", "abCd"};
    for (size_t i = 0; i < sizeof chunks / sizeof chunks[0]; i++) {
        uint8_t b[64];
        size_t n = png_header(b, 8, 8);
        long before = most_memory();
        b[33] = 0x70; /* 1.9 GB, it says */
        memcpy(b + 37, chunks[i], 4);
        b[41] = 'M';
        b[42] = 'M';
        decode_fails(b, n, ERR_INVALID, "image_truncated");
        assert_true(before > 0 && most_memory() < before + (256 << 10));
    }
}

static void jpeg_comes_close_and_notices_damage(void **state) {
    (void)state;
    uint8_t px[W * H * 3];
    fill(px, 1);
    blob_t b;
    assert_int_equal(image_encode_jpeg(px, W, H, 1, 95, &b.data, &b.n, NULL), ERR_OK);
    image_t img = decode_ok(b, 0);
    assert_int_equal(img.info.channels, 1);
    for (int i = 0; i < W * H; i++) {
        assert_in_range(abs(((uint8_t *)img.data)[i] - px[i]), 0, 12);
    }
    image_free(&img);
    decode_fails(b.data, b.n / 2, ERR_INVALID, "image_truncated");
    decode_fails(b.data, 20, ERR_INVALID, "image_truncated");
    free(b.data);
}

static void put32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++) {
        p[i] = (uint8_t)(v >> (8 * i));
    }
}

/* A BMP header for 54 bytes, no palette. */
static void bmp_header(uint8_t *b, size_t size, int32_t w, int32_t h, uint16_t bits, uint32_t compression,
                       uint32_t data) {
    memset(b, 0, 54);
    b[0] = 'B';
    b[1] = 'M';
    put32(b + 2, (uint32_t)size);
    put32(b + 10, data);
    put32(b + 14, 40);
    put32(b + 18, (uint32_t)w);
    put32(b + 22, (uint32_t)h);
    b[26] = 1;
    b[28] = (uint8_t)bits;
    put32(b + 30, compression);
}

static void bmp_bottom_up_and_top_down(void **state) {
    (void)state;
    uint8_t b[54 + 16];
    /* 2 x 2, 24 bits: rows are padded to 8 bytes */
    const uint8_t rows[16] = {1, 2, 3, 4, 5, 6, 0, 0, 7, 8, 9, 10, 11, 12, 0, 0};
    const uint8_t up[12] = {9, 8, 7, 12, 11, 10, 3, 2, 1, 6, 5, 4}, down[12] = {3, 2, 1, 6, 5, 4, 9, 8, 7, 12, 11, 10};
    for (int k = 0; k < 2; k++) {
        bmp_header(b, sizeof b, 2, k ? -2 : 2, 24, 0, 54);
        memcpy(b + 54, rows, 16);
        image_t img = decode_ok((blob_t){b, sizeof b}, 0);
        assert_int_equal(img.info.height, 2);
        assert_memory_equal(img.data, k ? down : up, 12);
        image_free(&img);
    }
    decode_fails(b, sizeof b - 8, ERR_INVALID, "image_truncated");
    bmp_header(b, sizeof b, 0, 2, 24, 0, 54);
    decode_fails(b, sizeof b, ERR_INVALID, "image_corrupt");
    bmp_header(b, sizeof b, 60000, 60000, 24, 0, 54);
    decode_fails(b, sizeof b, ERR_TOO_LARGE, "image_too_large");
}

static void bmp_run_lengths(void **state) {
    (void)state;
    uint8_t b[54 + 1024 + 32];
    memset(b, 0, sizeof b);
    bmp_header(b, sizeof b, 4, 2, 8, 1, 54 + 1024);
    for (int i = 0; i < 256; i++) {
        memset(b + 54 + i * 4, i, 3);
    }
    /* lower row: three times 5, then 9; upper row: literal 1 2 3 (padded), then end: the last pixel stays entry 0 */
    const uint8_t runs[] = {3, 5, 1, 9, 0, 0, 0, 3, 1, 2, 3, 0, 0, 1};
    const uint8_t want[8] = {1, 2, 3, 0, 5, 5, 5, 9};
    memcpy(b + 54 + 1024, runs, sizeof runs);
    image_t img = decode_ok((blob_t){b, sizeof b}, 0);
    assert_int_equal(img.info.channels, 1); /* a grey palette */
    assert_memory_equal(img.data, want, 8);
    image_free(&img);
    const uint8_t wild[] = {255, 7, 0, 2, 255, 255, 200, 9}; /* runs and jumps beyond the image, then nothing */
    memset(b + 54 + 1024, 0, 32);
    memcpy(b + 54 + 1024, wild, sizeof wild);
    image_free(&img);
    err_t err;
    if (image_decode_memory(b, 54 + 1024 + sizeof wild, 0, &TEST_LIMITS, &img, &err) == ERR_OK) {
        image_free(&img);
    }
}

static void bmp_bit_fields(void **state) {
    (void)state;
    uint8_t b[54 + 12 + 4];
    bmp_header(b, sizeof b, 2, 1, 16, 3, 66);
    put32(b + 54, 0xf800);
    put32(b + 58, 0x07e0);
    put32(b + 62, 0x001f);
    b[66] = 0x00, b[67] = 0xf8; /* pure red */
    b[68] = 0xff, b[69] = 0xff; /* white */
    const uint8_t want[6] = {255, 0, 0, 255, 255, 255};
    image_t img = decode_ok((blob_t){b, sizeof b}, 0);
    assert_memory_equal(img.data, want, 6);
    image_free(&img);
}

static int gif_to_blob(GifFileType *gif, const GifByteType *p, int n) {
    blob_t *b = gif->UserData;
    b->data = realloc(b->data, b->n + (size_t)n);
    memcpy(b->data + b->n, p, (size_t)n);
    b->n += (size_t)n;
    return n;
}

/* Screen 3 x 2; frame 1 fills it with colour 1, frame 2 puts colour 2 into its middle column. */
static blob_t make_gif(void) {
    blob_t b = {0};
    int code = 0;
    const GifColorType colours[4] = {{0, 0, 0}, {200, 0, 0}, {0, 100, 0}, {0, 0, 50}};
    ColorMapObject *map = GifMakeMapObject(4, colours);
    GifFileType *g = EGifOpen(&b, gif_to_blob, &code);
    assert_non_null(g);
    EGifSetGifVersion(g, true);
    assert_int_equal(EGifPutScreenDesc(g, 3, 2, 2, 0, map), GIF_OK);
    GifByteType one[6] = {1, 1, 1, 1, 1, 1}, two[2] = {2, 2};
    assert_int_equal(EGifPutImageDesc(g, 0, 0, 3, 2, false, NULL), GIF_OK);
    assert_int_equal(EGifPutLine(g, one, 6), GIF_OK);
    assert_int_equal(EGifPutImageDesc(g, 1, 0, 1, 2, false, NULL), GIF_OK);
    assert_int_equal(EGifPutLine(g, two, 2), GIF_OK);
    EGifCloseFile(g, &code);
    GifFreeMapObject(map);
    return b;
}

static void gif_draws_frames_on_the_screen(void **state) {
    (void)state;
    blob_t b = make_gif();
    image_t img = decode_ok(b, 1);
    assert_int_equal(img.info.pages, 2);
    assert_int_equal(img.info.channels, 3);
    const uint8_t row[9] = {200, 0, 0, 0, 100, 0, 200, 0, 0};
    assert_memory_equal(img.data, row, 9);
    assert_memory_equal((uint8_t *)img.data + 9, row, 9);
    image_free(&img);
    img = decode_ok(b, 0);
    assert_int_equal(((uint8_t *)img.data)[3], 200);
    image_free(&img);
    decode_fails(b.data, 30, ERR_INVALID, "image_truncated");
    free(b.data);
}

static void webp_keeps_every_pixel(void **state) {
    (void)state;
    uint8_t px[W * H * 3];
    fill(px, 3);
    blob_t b;
    b.n = WebPEncodeLosslessRGB(px, W, H, W * 3, &b.data);
    assert_true(b.n > 0);
    image_t img = decode_ok(b, 0);
    assert_int_equal(img.info.format, IMAGE_WEBP);
    assert_memory_equal(img.data, px, sizeof px);
    image_free(&img);
    decode_fails(b.data, b.n / 2, ERR_INVALID, "image_truncated");
    WebPFree(b.data);
}

static void display_composes_and_stretches(void **state) {
    (void)state;
    uint16_t deep[4] = {1000, 1000, 3000, 5000};
    image_t img = {.info = {.width = 4, .height = 1, .channels = 1, .sample = SAMPLE_U16}, .data = deep, .bytes = 8};
    uint8_t *px = NULL;
    int channels = 0;
    assert_int_equal(image_to_display(&img, &px, &channels, NULL), ERR_OK);
    assert_int_equal(channels, 1);
    assert_int_equal(px[0], 0);
    assert_int_equal(px[2], 128);
    assert_int_equal(px[3], 255);
    free(px);
    uint8_t half[4] = {200, 100, 50, 128};
    img = (image_t){.info = {.width = 1, .height = 1, .channels = 4, .sample = SAMPLE_U8, .has_alpha = true},
                    .data = half,
                    .bytes = 4};
    assert_int_equal(image_to_display(&img, &px, &channels, NULL), ERR_OK);
    assert_int_equal(channels, 3);
    assert_in_range(px[0], 99, 101);
    free(px);
    float *grey = NULL;
    assert_int_equal(image_to_grey(&img, &grey, NULL), ERR_OK);
    assert_float_equal(grey[0], 0.299 * 200 + 0.587 * 100 + 0.114 * 50, 1e-4);
    free(grey);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sniffs_by_content),
        cmocka_unit_test(empty_file_says_so),
        cmocka_unit_test(png_keeps_every_pixel),
        cmocka_unit_test(png16_keeps_every_pixel),
        cmocka_unit_test(tiff32_keeps_every_pixel),
        cmocka_unit_test(every_truncation_of_a_png_is_an_error),
        cmocka_unit_test(huge_png_header_is_refused),
        cmocka_unit_test(a_png_chunk_takes_no_more_memory_than_it_may),
        cmocka_unit_test(jpeg_comes_close_and_notices_damage),
        cmocka_unit_test(bmp_bottom_up_and_top_down),
        cmocka_unit_test(bmp_run_lengths),
        cmocka_unit_test(bmp_bit_fields),
        cmocka_unit_test(gif_draws_frames_on_the_screen),
        cmocka_unit_test(webp_keeps_every_pixel),
        cmocka_unit_test(display_composes_and_stretches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
