/* Rectangles of image files: equal to the same part of the page decoded whole, for every format and choice of plane. */
#include "image_fixture.h"

#include <math.h>

#include "common/image/region.h"

static void reads_any_rectangle_of_a_png(void **state) {
    (void)state;
    uint8_t px[7 * 5 * 3], *png = NULL;
    size_t n = 0;
    for (size_t i = 0; i < sizeof px; i++) {
        px[i] = (uint8_t)(i * 37 + 5);
    }
    assert_int_equal(image_encode_png(px, 7, 5, 3, &png, &n, NULL), ERR_OK);
    image_reader_t *r = NULL;
    assert_int_equal(image_open_memory(png, n, &TEST_LIMITS, &r, NULL), ERR_OK);
    for (int y = 0; y < 5; y++) {
        for (int h = 1; h <= 5 - y; h++) {
            for (int x = 0; x < 7; x++) {
                for (int w = 1; w <= 7 - x; w++) {
                    uint8_t got[sizeof px];
                    float grey[7 * 5];
                    image_rect_t q = {.x = x, .y = y, .w = w, .h = h};
                    assert_int_equal(image_reader_read(r, q, got, sizeof got, NULL), ERR_OK);
                    assert_int_equal(image_reader_read_grey(r, q, grey, NULL), ERR_OK);
                    for (int i = 0; i < w * h; i++) {
                        const uint8_t *want = px + ((y + i / w) * 7 + x + i % w) * 3;
                        assert_memory_equal(got + i * 3, want, 3);
                        assert_true(fabs(grey[i] - (0.299 * want[0] + 0.587 * want[1] + 0.114 * want[2])) < 1e-3);
                    }
                }
            }
        }
    }
    image_close(r);
    free(png);
}

static void mixes_and_chooses_channels(void **state) {
    (void)state;
    const uint8_t px[3] = {10, 20, 60};
    uint8_t *png = NULL;
    size_t n = 0;
    float v = 0;
    image_rect_t one = {.w = 1, .h = 1};
    assert_int_equal(image_encode_png(px, 1, 1, 3, &png, &n, NULL), ERR_OK);
    image_reader_t *r = NULL;
    assert_int_equal(image_open_memory(png, n, &TEST_LIMITS, &r, NULL), ERR_OK);
    assert_int_equal(image_reader_layout(r).channels, 3);
    image_select_t sel = IMAGE_SELECT_DEFAULT;
    for (int c = 0; c < 3; c++) {
        sel.channel = c;
        assert_int_equal(image_reader_select(r, &sel, NULL), ERR_OK);
        assert_int_equal(image_reader_read_grey(r, one, &v, NULL), ERR_OK);
        assert_float_equal(v, px[c], 0);
    }
    sel = (image_select_t){.channel = -1, .z = -1, .t = -1, .weights = 3, .weight = {1, 0, 1}};
    assert_int_equal(image_reader_select(r, &sel, NULL), ERR_OK);
    assert_int_equal(image_reader_read_grey(r, one, &v, NULL), ERR_OK);
    assert_float_equal(v, 35, 1e-6);
    sel.weight[0] = -1; /* a difference */
    assert_int_equal(image_reader_select(r, &sel, NULL), ERR_OK);
    assert_int_equal(image_reader_read_grey(r, one, &v, NULL), ERR_OK);
    assert_float_equal(v, 25, 1e-6);
    err_t err;
    sel = IMAGE_SELECT_DEFAULT;
    sel.channel = 3;
    assert_int_equal(image_reader_select(r, &sel, &err), ERR_INVALID);
    assert_string_equal(err.code, "image_no_such_channel");
    image_close(r);
    free(png);
}

static void refuses_what_lies_outside(void **state) {
    (void)state;
    const uint8_t px[4] = {1, 2, 3, 4};
    static const image_rect_t wrong[] = {{0, 0, 3, 1},  {0, 0, 1, 3},         {-1, 0, 1, 1},
                                         {0, -1, 1, 1}, {2, 0, 1, 1},         {0, 0, 0, 1},
                                         {0, 0, 1, -1}, {1, 1, INT32_MAX, 1}, {INT32_MAX, 0, INT32_MAX, 1}};
    uint8_t *png = NULL;
    size_t n = 0;
    assert_int_equal(image_encode_png(px, 2, 2, 1, &png, &n, NULL), ERR_OK);
    image_reader_t *r = NULL;
    assert_int_equal(image_open_memory(png, n, &TEST_LIMITS, &r, NULL), ERR_OK);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        uint8_t got[64];
        err_t err;
        assert_int_equal(image_reader_read(r, wrong[i], got, sizeof got, &err), ERR_INVALID);
        assert_string_equal(err.code, "image_region_outside");
    }
    image_close(r);
    assert_int_equal(image_open_memory((const uint8_t *)"no image", 8, &TEST_LIMITS, &r, NULL), ERR_UNSUPPORTED);
    assert_null(r);
    free(png);
}

/* Reads a rectangle through a reader and compares it with the same part of the page decoded whole. */
static void same_as_whole(image_reader_t *r, const image_t *whole, image_rect_t q) {
    static const size_t bytes[] = {0, 1, 2, 4, 4};
    size_t unit = (size_t)whole->info.channels * bytes[whole->info.sample], row = (size_t)q.w * unit;
    uint8_t *part = malloc(row * (size_t)q.h);
    assert_non_null(part);
    assert_int_equal(image_reader_read(r, q, part, row * (size_t)q.h, NULL), ERR_OK);
    for (int32_t y = 0; y < q.h; y++) {
        size_t at = ((size_t)(q.y + y) * (size_t)whole->info.width + (size_t)q.x) * unit;
        assert_memory_equal(part + (size_t)y * row, (const uint8_t *)whole->data + at, row);
    }
    free(part);
}

static void turned_tiffs_read_alike_whole_and_in_parts(void **state) {
    (void)state;
    uint16_t px[15 * 13 * 3];
    for (size_t i = 0; i < sizeof px / sizeof px[0]; i++) {
        px[i] = (uint16_t)(i * 2654435761u >> 13);
    }
    for (int o = 1; o <= 8; o++) {
        for (int way = 0; way < 4; way++) {
            tiff_spec_t spec = {.w = 15, .h = 13, .bits = 16, .samples = 3, .photometric = PHOTOMETRIC_RGB};
            spec.orientation = (uint16_t)o;
            spec.tiled = way & 1;
            spec.planar = way >> 1;
            blob_t b = make_tiff(&spec, px);
            image_t whole = decode_ok(b, 0);
            image_reader_t *r = NULL;
            assert_int_equal(image_open_memory(b.data, b.n, &TEST_LIMITS, &r, NULL), ERR_OK);
            assert_true(image_reader_layout(r).direct);
            assert_int_equal(image_reader_info(r)->width, o >= 5 ? 13 : 15);
            for (int i = 0; i < 40; i++) {
                image_rect_t q = {.x = i * 7 % 13, .y = i * 5 % 13};
                q.w = 1 + i * 3 % (whole.info.width - q.x);
                q.h = 1 + i * 11 % (whole.info.height - q.y);
                same_as_whole(r, &whole, q);
            }
            image_close(r);
            image_free(&whole);
            free(b.data);
        }
    }
}

static void large_strips_are_read_in_bands(void **state) {
    (void)state;
    enum { W = 1500, H = 1500 };
    static const uint16_t compressions[] = {COMPRESSION_NONE, COMPRESSION_ADOBE_DEFLATE, COMPRESSION_PACKBITS};
    uint16_t *px = malloc((size_t)W * H * 2);
    assert_non_null(px);
    for (size_t i = 0; i < (size_t)W * H; i++) {
        px[i] = (uint16_t)(i / 3 ^ i >> 9);
    }
    for (size_t c = 0; c < 3; c++) {
        char path[64];
        temp_name(path);
        TIFF *t = TIFFOpen(path, c == 0 ? "wb" : "wl"); /* one of them in the other byte order */
        assert_non_null(t);
        TIFFSetField(t, TIFFTAG_IMAGEWIDTH, W);
        TIFFSetField(t, TIFFTAG_IMAGELENGTH, H);
        TIFFSetField(t, TIFFTAG_BITSPERSAMPLE, 16);
        TIFFSetField(t, TIFFTAG_SAMPLESPERPIXEL, 1);
        TIFFSetField(t, TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_MINISBLACK);
        TIFFSetField(t, TIFFTAG_ROWSPERSTRIP, H);
        TIFFSetField(t, TIFFTAG_COMPRESSION, compressions[c]);
        for (uint32_t y = 0; y < H; y++) {
            uint16_t line[W];
            memcpy(line, px + (size_t)y * W, sizeof line);
            assert_int_equal(TIFFWriteScanline(t, line, y, 0), 1);
        }
        TIFFClose(t);
        image_reader_t *r = NULL;
        assert_int_equal(image_open(path, &TEST_LIMITS, &r, NULL), ERR_OK);
        assert_true(image_reader_layout(r).block_height < H);
        static const image_rect_t asked[] = {
            {3, 1400, 50, 100}, {1450, 0, 50, 7}, {700, 690, 10, 800}, {0, 1499, W, 1}};
        for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) { /* down, back up, across bands, the last row */
            const image_rect_t q = asked[i];
            uint16_t *got = malloc((size_t)q.w * (size_t)q.h * 2);
            assert_int_equal(image_reader_read(r, q, got, (size_t)q.w * (size_t)q.h * 2, NULL), ERR_OK);
            for (int y = 0; y < q.h; y++) {
                assert_memory_equal(got + (size_t)y * (size_t)q.w, px + (size_t)(q.y + y) * W + q.x, (size_t)q.w * 2);
            }
            free(got);
        }
        image_close(r);
        unlink(path);
    }
    free(px);
}

static void channels_in_pages_are_chosen_by_number(void **state) {
    (void)state;
    const uint8_t px[4] = {10, 20, 30, 40};
    const char *ome =
        "<OME><Image><Pixels DimensionOrder='XYCZT' SizeC='2' SizeZ='1' SizeT='2'>"
        "<TiffData IFD='0' FirstC='1' FirstT='1'/><TiffData IFD='2' PlaneCount='2'/></Pixels></Image></OME>";
    tiff_spec_t spec = {.w = 2, .h = 2, .bits = 8, .samples = 1, .photometric = PHOTOMETRIC_MINISBLACK, .pages = 4};
    spec.description = ome;
    blob_t b = make_tiff(&spec, px);
    image_reader_t *r = NULL;
    assert_int_equal(image_open_memory(b.data, b.n, &TEST_LIMITS, &r, NULL), ERR_OK);
    image_layout_t l = image_reader_layout(r);
    assert_int_equal(l.channels, 2);
    assert_int_equal(l.times, 2);
    image_select_t sel = {.channel = 1, .z = 0, .t = 1};
    assert_int_equal(image_reader_select(r, &sel, NULL), ERR_OK);
    sel.channel = 0; /* of which the file has no plane */
    err_t err;
    assert_int_equal(image_reader_select(r, &sel, &err), ERR_INVALID);
    assert_string_equal(err.code, "image_no_such_plane");
    float v = 0;
    assert_int_equal(image_reader_read_grey(r, (image_rect_t){1, 1, 1, 1}, &v, NULL),
                     ERR_OK); /* the old choice stays */
    assert_float_equal(v, 40, 0);
    image_close(r);
    free(b.data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_any_rectangle_of_a_png),   cmocka_unit_test(mixes_and_chooses_channels),
        cmocka_unit_test(refuses_what_lies_outside),      cmocka_unit_test(turned_tiffs_read_alike_whole_and_in_parts),
        cmocka_unit_test(large_strips_are_read_in_bands), cmocka_unit_test(channels_in_pages_are_chosen_by_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
