/*
 * The sample images: real files of the formats they claim, the same each time, and with the objects they promise.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"
#include "common/image/image.h"
#include "gateway/sample.h"
#include "gateway/sample_image.h"
#include "tests/unit/support/cmocka_all.h"

static const image_limits_t limits = {10000000, 100000000, 1};

static void each_file_is_what_its_name_says(void **state) {
    (void)state;
    int tiffs = 0, sizes[SAMPLE_IMAGES];
    for (int i = 0; i < SAMPLE_IMAGES; i++) {
        const char *name = NULL;
        uint8_t *bytes = NULL;
        size_t n = 0;
        image_t img;
        err_t err = {0};
        assert_int_equal(sample_render(i, &name, &bytes, &n, &err), ERR_OK);
        assert_int_equal(image_decode_memory(bytes, n, 0, &limits, &img, &err), ERR_OK);
        free(bytes);
        const char *dot = strrchr(name, '.');
        assert_non_null(dot);
        switch (img.info.format) {
        case IMAGE_TIFF:
            assert_string_equal(dot, ".tif");
            assert_int_equal(img.info.bit_depth, 16);
            assert_true(fabs(img.info.pixel_size_um - 0.65) < 1e-4);
            assert_non_null(strstr(name, "Nuclei"));
            tiffs++;
            break;
        case IMAGE_PNG:
            assert_string_equal(dot, ".png");
            break;
        default:
            assert_int_equal(img.info.format, IMAGE_JPEG);
            assert_string_equal(dot, ".jpg");
            assert_int_equal(img.info.channels, 3);
        }
        sizes[i] = img.info.width * img.info.height;
        for (int k = 0; k < i; k++) {
            assert_int_not_equal(sizes[k], sizes[i]);
        }
        image_free(&img);
    }
    assert_int_equal(tiffs, 4);
    const char *name = NULL;
    uint8_t *bytes = NULL;
    size_t n = 0;
    err_t err = {0};
    assert_int_equal(sample_render(SAMPLE_IMAGES, &name, &bytes, &n, &err), ERR_NOT_FOUND);
    assert_int_equal(sample_render(-1, &name, &bytes, &n, &err), ERR_NOT_FOUND);
}

static void the_same_bytes_each_time(void **state) {
    (void)state;
    uint8_t sha[2][HASH_SHA256_SIZE];
    for (int round = 0; round < 2; round++) {
        const char *name = NULL;
        uint8_t *bytes = NULL;
        size_t n = 0;
        err_t err = {0};
        assert_int_equal(sample_render(0, &name, &bytes, &n, &err), ERR_OK);
        assert_true(hash_sha256(bytes, n, sha[round]));
        free(bytes);
    }
    assert_memory_equal(sha[0], sha[1], HASH_SHA256_SIZE);
}

/* Bright pixels of a nuclei field over a level halfway to the contrast: about objects * pi * radius^2 of them. */
static void nuclei_are_bright_on_dark(void **state) {
    (void)state;
    const sample_field_t f = {400, 400, 20, 15, 0.1, 1000, 5, 9};
    uint16_t *px = malloc(400 * 400 * sizeof *px);
    assert_non_null(px);
    assert_int_equal(sample_draw_nuclei(&f, px), 0);
    int bright = 0;
    for (int i = 0; i < 400 * 400; i++) {
        assert_true(px[i] <= 4095);
        bright += px[i] > 450;
    }
    free(px);
    assert_in_range(bright, 10 * 3.14 * 225, 24 * 3.14 * 225);
}

static void spheroids_are_dark_on_bright(void **state) {
    (void)state;
    const sample_field_t f = {400, 300, 1, 80, 0.01, 0.75, 1, 11};
    uint8_t *px = malloc(400 * 300);
    assert_non_null(px);
    assert_int_equal(sample_draw_spheroids(&f, 1, px), 0);
    int dark = 0;
    for (int i = 0; i < 400 * 300; i++) {
        dark += px[i] < 125;
    }
    free(px);
    assert_in_range(dark, 0.8 * 3.14 * 6400, 1.2 * 3.14 * 6400);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_file_is_what_its_name_says),
        cmocka_unit_test(the_same_bytes_each_time),
        cmocka_unit_test(nuclei_are_bright_on_dark),
        cmocka_unit_test(spheroids_are_dark_on_bright),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
