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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_any_rectangle_of_a_png),
        cmocka_unit_test(mixes_and_chooses_channels),
        cmocka_unit_test(refuses_what_lies_outside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
