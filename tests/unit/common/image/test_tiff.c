/* TIFF: depths, layouts, colour models, pages, orientation, pixel size, and files that lie. */
#include "image_fixture.h"

static void reads_sixteen_bit_grey(void **state) {
    (void)state;
    uint16_t px[5 * 7];
    for (int i = 0; i < 35; i++) {
        px[i] = (uint16_t)(i * 1800 + 3);
    }
    for (int big = 0; big < 2; big++) {
        tiff_spec_t s = {.w = 7, .h = 5, .bits = 16, .samples = 1, .photometric = PHOTOMETRIC_MINISBLACK, .big = big};
        blob_t b = make_tiff(&s, px);
        image_t img = decode_ok(b, 0);
        assert_int_equal(img.info.format, IMAGE_TIFF);
        assert_int_equal(img.info.width, 7);
        assert_int_equal(img.info.height, 5);
        assert_int_equal(img.info.channels, 1);
        assert_int_equal(img.info.bit_depth, 16);
        assert_int_equal(img.info.sample, SAMPLE_U16);
        assert_memory_equal(img.data, px, sizeof px);
        float *grey = NULL;
        assert_int_equal(image_to_grey(&img, &grey, NULL), ERR_OK);
        assert_true(grey[34] == (float)px[34]);
        free(grey);
        image_free(&img);
        free(b.data);
    }
}

static void reads_float_int_and_packed_samples(void **state) {
    (void)state;
    float f[4] = {-1.5f, 0.0f, 2.25f, 1e30f};
    tiff_spec_t s = {.w = 4, .h = 1, .bits = 32, .samples = 1, .format = SAMPLEFORMAT_IEEEFP};
    s.photometric = PHOTOMETRIC_MINISBLACK;
    blob_t b = make_tiff(&s, f);
    image_t img = decode_ok(b, 0);
    assert_int_equal(img.info.sample, SAMPLE_F32);
    assert_memory_equal(img.data, f, sizeof f);
    image_free(&img);
    free(b.data);

    int16_t i16[3] = {-5, 0, 300};
    s = (tiff_spec_t){.w = 3, .h = 1, .bits = 16, .samples = 1, .format = SAMPLEFORMAT_INT};
    s.photometric = PHOTOMETRIC_MINISBLACK;
    b = make_tiff(&s, i16);
    img = decode_ok(b, 0);
    const float *v = img.data;
    assert_true(v[0] == -5 && v[1] == 0 && v[2] == 300);
    image_free(&img);
    free(b.data);

    const uint8_t packed12[3] = {0x12, 0x3a, 0xbc}; /* 0x123, 0xabc */
    s = (tiff_spec_t){.w = 2, .h = 1, .bits = 12, .samples = 1, .photometric = PHOTOMETRIC_MINISBLACK};
    b = make_tiff(&s, packed12);
    img = decode_ok(b, 0);
    assert_int_equal(((uint16_t *)img.data)[0], 0x123);
    assert_int_equal(((uint16_t *)img.data)[1], 0xabc);
    image_free(&img);
    free(b.data);
}

static void widens_bits_and_inverts_min_is_white(void **state) {
    (void)state;
    const uint8_t bits[1] = {0xa0}; /* 1 0 1 0 */
    tiff_spec_t s = {.w = 4, .h = 1, .bits = 1, .samples = 1, .photometric = PHOTOMETRIC_MINISWHITE};
    blob_t b = make_tiff(&s, bits);
    image_t img = decode_ok(b, 0);
    const uint8_t white[4] = {0, 255, 0, 255};
    assert_memory_equal(img.data, white, 4);
    image_free(&img);
    free(b.data);

    const uint16_t deep[2] = {0, 65535};
    s = (tiff_spec_t){.w = 2, .h = 1, .bits = 16, .samples = 1, .photometric = PHOTOMETRIC_MINISWHITE};
    b = make_tiff(&s, deep);
    img = decode_ok(b, 0);
    assert_int_equal(((uint16_t *)img.data)[0], 65535);
    assert_int_equal(((uint16_t *)img.data)[1], 0);
    image_free(&img);
    free(b.data);
}

/* Chunky, planar and tiled files of the same RGB pixels decode to the same bytes. */
static void layouts_agree(void **state) {
    (void)state;
    enum { W = 9, H = 7 };
    uint8_t chunky[W * H * 3], planar[W * H * 3];
    for (int i = 0; i < W * H; i++) {
        for (int c = 0; c < 3; c++) {
            planar[c * W * H + i] = chunky[i * 3 + c] = (uint8_t)(i * 3 + c * 40);
        }
    }
    for (int k = 0; k < 4; k++) {
        tiff_spec_t s = {.w = W, .h = H, .bits = 8, .samples = 3, .photometric = PHOTOMETRIC_RGB};
        s.planar = k & 1;
        s.tiled = k & 2;
        blob_t b = make_tiff(&s, s.planar ? planar : chunky);
        image_t img = decode_ok(b, 0);
        assert_int_equal(img.info.channels, 3);
        assert_int_equal(img.bytes, sizeof chunky);
        assert_memory_equal(img.data, chunky, sizeof chunky);
        image_free(&img);
        free(b.data);
    }
}

static void expands_palettes_and_converts_inks(void **state) {
    (void)state;
    uint16_t r[256] = {0}, g[256] = {0}, bl[256] = {0};
    r[1] = 0xff00;
    g[2] = 0x8000;
    bl[2] = 0xffff;
    const uint8_t index[3] = {0, 1, 2}, rgb[9] = {0, 0, 0, 255, 0, 0, 0, 128, 255};
    tiff_spec_t s = {.w = 3, .h = 1, .bits = 8, .samples = 1, .photometric = PHOTOMETRIC_PALETTE, .map = {r, g, bl}};
    blob_t b = make_tiff(&s, index);
    image_t img = decode_ok(b, 0);
    assert_int_equal(img.info.channels, 3);
    assert_memory_equal(img.data, rgb, sizeof rgb);
    image_free(&img);
    free(b.data);

    const uint8_t inks[8] = {255, 0, 0, 0, 0, 0, 0, 255}, out[6] = {0, 255, 255, 0, 0, 0};
    s = (tiff_spec_t){.w = 2, .h = 1, .bits = 8, .samples = 4, .photometric = PHOTOMETRIC_SEPARATED};
    b = make_tiff(&s, inks);
    img = decode_ok(b, 0);
    assert_int_equal(img.info.channels, 3);
    assert_memory_equal(img.data, out, sizeof out);
    image_free(&img);
    free(b.data);
}

static void turns_by_orientation(void **state) {
    (void)state;
    const uint8_t px[6] = {1, 2, 3, 4, 5, 6}; /* two rows of three */
    static const uint8_t want[9][6] = {{0},
                                       {1, 2, 3, 4, 5, 6},
                                       {3, 2, 1, 6, 5, 4},
                                       {6, 5, 4, 3, 2, 1},
                                       {4, 5, 6, 1, 2, 3},
                                       {1, 4, 2, 5, 3, 6},
                                       {4, 1, 5, 2, 6, 3},
                                       {6, 3, 5, 2, 4, 1},
                                       {3, 6, 2, 5, 1, 4}};
    for (uint16_t o = 1; o <= 8; o++) {
        tiff_spec_t s = {.w = 3, .h = 2, .bits = 8, .samples = 1, .photometric = PHOTOMETRIC_MINISBLACK};
        s.orientation = o;
        blob_t b = make_tiff(&s, px);
        image_t img = decode_ok(b, 0);
        assert_int_equal(img.info.width, o >= 5 ? 2 : 3);
        assert_int_equal(img.info.height, o >= 5 ? 3 : 2);
        assert_memory_equal(img.data, want[o], 6);
        image_free(&img);
        free(b.data);
    }
}

static void counts_pages(void **state) {
    (void)state;
    const uint8_t px[4] = {9, 8, 7, 6};
    tiff_spec_t s = {.w = 2, .h = 2, .bits = 8, .samples = 1, .photometric = PHOTOMETRIC_MINISBLACK, .pages = 3};
    blob_t b = make_tiff(&s, px);
    image_t img = decode_ok(b, 2);
    assert_int_equal(img.info.pages, 3);
    assert_memory_equal(img.data, px, 4);
    image_free(&img);
    err_t err;
    assert_int_equal(image_decode_memory(b.data, b.n, 3, &TEST_LIMITS, &img, &err), ERR_INVALID);
    assert_string_equal(err.code, "image_no_such_page");
    free(b.data);

    s.pages = 9; /* one more than the limit */
    b = make_tiff(&s, px);
    decode_fails(b.data, b.n, ERR_TOO_LARGE, "image_too_large");
    free(b.data);
}

/* A directory chain that bites its own tail ends, with one page or an error, but ends. */
static void survives_a_directory_loop(void **state) {
    (void)state;
    const uint8_t px[1] = {1};
    tiff_spec_t s = {.w = 1, .h = 1, .bits = 8, .samples = 1, .photometric = PHOTOMETRIC_MINISBLACK};
    blob_t b = make_tiff(&s, px);
    uint32_t ifd = 0;
    memcpy(&ifd, b.data + 4, 4);
    uint16_t entries = 0;
    memcpy(&entries, b.data + ifd, 2);
    memcpy(b.data + ifd + 2 + (size_t)entries * 12, &ifd, 4);
    image_t img;
    err_t err;
    if (image_decode_memory(b.data, b.n, 0, &TEST_LIMITS, &img, &err) == ERR_OK) {
        assert_true(img.info.pages <= 2);
    }
    image_free(&img);
    free(b.data);
}

static double pixel_size(const char *description, float per_cm) {
    const uint8_t px[1] = {1};
    tiff_spec_t s = {.w = 1, .h = 1, .bits = 8, .samples = 1, .photometric = PHOTOMETRIC_MINISBLACK};
    s.description = description;
    s.cm_resolution = per_cm;
    blob_t b = make_tiff(&s, px);
    image_t img = decode_ok(b, 0);
    double um = img.info.pixel_size_um;
    image_free(&img);
    free(b.data);
    return um;
}

static void finds_the_pixel_size(void **state) {
    (void)state;
    assert_float_equal(pixel_size("<OME><Image><Pixels PhysicalSizeX=\"0.65\"/></Image></OME>", 0), 0.65, 1e-9);
    assert_float_equal(pixel_size("<OME><Pixels PhysicalSizeX=\"650\" PhysicalSizeXUnit=\"nm\"/></OME>", 0), 0.65,
                       1e-9);
    assert_float_equal(pixel_size("ImageJ=1.53\nunit=micron\n", 4.0f), 0.25, 1e-9);
    assert_float_equal(pixel_size(NULL, 20000.0f), 0.5, 1e-9);
    assert_float_equal(pixel_size(NULL, 28.35f), 0, 0); /* 72 dpi is a printer's number */
    assert_float_equal(pixel_size("<OME><Pixels PhysicalSizeX=\"nan\"/></OME>", 0), 0, 0);
}

static void refuses_what_is_too_large_before_reading_it(void **state) {
    (void)state;
    const uint8_t px[4] = {1, 2, 3, 4};
    tiff_spec_t s = {.w = 2, .h = 2, .bits = 8, .samples = 1, .photometric = PHOTOMETRIC_MINISBLACK};
    blob_t b = make_tiff(&s, px);
    uint32_t ifd = 0;
    memcpy(&ifd, b.data + 4, 4);
    for (size_t at = ifd + 2; at + 12 <= b.n; at += 12) { /* width and height become 60,000 */
        uint16_t tag = 0, value = 60000;
        memcpy(&tag, b.data + at, 2);
        if (tag == TIFFTAG_IMAGEWIDTH || tag == TIFFTAG_IMAGELENGTH) {
            memcpy(b.data + at + 8, &value, 2);
        }
    }
    decode_fails(b.data, b.n, ERR_TOO_LARGE, "image_too_large");
    free(b.data);
}

static void every_truncation_is_an_error_or_the_image(void **state) {
    (void)state;
    enum { W = 40, H = 30 };
    uint16_t px[W * H];
    for (int i = 0; i < W * H; i++) {
        px[i] = (uint16_t)(i * 2654435761u >> 16);
    }
    tiff_spec_t s = {.w = W, .h = H, .bits = 16, .samples = 1, .photometric = PHOTOMETRIC_MINISBLACK};
    blob_t b = make_tiff(&s, px);
    for (size_t n = 0; n < b.n; n += 7) {
        image_t img;
        err_t err;
        uint8_t *cut = malloc(n + 1); /* its own allocation, so that a read beyond it is seen */
        memcpy(cut, b.data, n);
        if (image_decode_memory(cut, n, 0, &TEST_LIMITS, &img, &err) == ERR_OK) {
            assert_memory_equal(img.data, px, sizeof px);
        } else {
            assert_true(err.kind == ERR_INVALID || err.kind == ERR_UNSUPPORTED);
        }
        image_free(&img);
        free(cut);
    }
    free(b.data);
}

static void text_named_tif_is_no_image(void **state) {
    (void)state;
    char path[64];
    temp_name(path);
    FILE *f = fopen(path, "wb");
    fputs("These are my notes about the second plate.\n", f);
    fclose(f);
    image_t img;
    image_info_t info;
    err_t err;
    assert_int_equal(image_decode(path, 0, &TEST_LIMITS, &img, &err), ERR_UNSUPPORTED);
    assert_string_equal(err.code, "image_unknown_format");
    assert_int_equal(image_probe(path, &TEST_LIMITS, &info, &err), ERR_UNSUPPORTED);
    unlink(path);
    assert_int_equal(image_probe(path, &TEST_LIMITS, &info, &err), ERR_NOT_FOUND);
    assert_int_equal(image_probe("/tmp", &TEST_LIMITS, &info, &err), ERR_INVALID);
}

int main(void) {
    TIFFSetWarningHandler(NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_sixteen_bit_grey),
        cmocka_unit_test(reads_float_int_and_packed_samples),
        cmocka_unit_test(widens_bits_and_inverts_min_is_white),
        cmocka_unit_test(layouts_agree),
        cmocka_unit_test(expands_palettes_and_converts_inks),
        cmocka_unit_test(turns_by_orientation),
        cmocka_unit_test(counts_pages),
        cmocka_unit_test(survives_a_directory_loop),
        cmocka_unit_test(finds_the_pixel_size),
        cmocka_unit_test(refuses_what_is_too_large_before_reading_it),
        cmocka_unit_test(every_truncation_is_an_error_or_the_image),
        cmocka_unit_test(text_named_tif_is_no_image),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
