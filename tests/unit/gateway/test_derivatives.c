/*
 * Thumbnails and tiles against a real storage directory: sizes, pixels, one rendering for many askers, failures that
 * are remembered, deletion.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/image/image.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/timeutil.h"
#include "gateway/derivatives.h"
#include "gateway/pyramid.h"
#include "tests/unit/support/cmocka_all.h"

#define ID "0b8f1f9e-1111-4222-8333-444455556666"
#define ORIGINAL "images/" ID "/original"

typedef struct {
    char dir[64];
    config_t cfg;
    storage_t *st;
    derivatives_t *d;
} world_t;

static int set_up(void **state) {
    static world_t w;
    err_t err = {0};
    memset(&w, 0, sizeof w);
    snprintf(w.dir, sizeof w.dir, "/tmp/sg-derivatives-XXXXXX");
    assert_non_null(mkdtemp(w.dir));
    w.cfg.max_image_pixels = 100000000;
    w.cfg.max_decoded_bytes = 1000000000;
    w.cfg.max_image_pages = 10;
    log_init("test", LOG_ERROR);
    assert_int_equal(storage_open_dir(w.dir, &w.st, &err), ERR_OK);
    assert_int_equal(derivatives_create(&w.cfg, w.st, &w.d, &err), ERR_OK);
    *state = &w;
    return 0;
}

static int tear_down(void **state) {
    world_t *w = *state;
    char command[128];
    derivatives_destroy(w->d);
    storage_close(w->st);
    /* mkdtemp's name holds nothing that a shell would take apart. */
    const int n = snprintf(command, sizeof command, "exec rm -rf %s", w->dir);
    assert_true(n > 0 && (size_t)n < sizeof command);
    FILE *rm = popen(command, "r");
    assert_non_null(rm);
    return pclose(rm);
}

/* A picture whose left half is black, whose right half is white, and whose top row of tiles is grey. */
static void store_picture(world_t *w, const char *key, int width, int height) {
    uint8_t *px = malloc((size_t)width * (size_t)height), *png = NULL;
    size_t n = 0;
    err_t err = {0};
    assert_non_null(px);
    for (int y = 0; y < height; y++) {
        for (int x = 0; x < width; x++) {
            px[(size_t)y * (size_t)width + (size_t)x] = y < 256 ? 128 : (x < width / 2 ? 0 : 255);
        }
    }
    assert_int_equal(image_encode_png(px, width, height, 1, &png, &n, &err), ERR_OK);
    assert_int_equal(storage_put_bytes(w->st, key, png, n, &err), ERR_OK);
    free(png);
    free(px);
}

static void read_image(world_t *w, const char *key, image_t *img) {
    char path[4096];
    err_t err = {0};
    const image_limits_t lim = {1000000, 100000000, 1};
    assert_int_equal(storage_local(w->st, key, path, sizeof path, &err), ERR_OK);
    assert_int_equal(image_decode(path, 0, &lim, img, &err), ERR_OK);
    storage_local_release(w->st, path);
    assert_int_equal(img->info.format, IMAGE_JPEG);
}

static uint64_t decodes(void) {
    buf_t text;
    unsigned long long n = 0;
    buf_init(&text, 1U << 20);
    metrics_render(&text);
    const char *line = text.data ? strstr(text.data, "spheroseg_derivative_seconds_count{kind=\"decode\"} ") : NULL;
    if (line) {
        n = strtoull(strchr(line, '}') + 2, NULL, 10);
    }
    buf_free(&text);
    return n;
}

static void levels_halve_down_to_one_pixel(void **state) {
    (void)state;
    assert_int_equal(derivatives_max_level(1, 1), 0);
    assert_int_equal(derivatives_max_level(2, 1), 1);
    assert_int_equal(derivatives_max_level(256, 256), 8);
    assert_int_equal(derivatives_max_level(257, 3), 9);
    assert_int_equal(derivatives_max_level(20000, 30000), 15);
    for (int w = 1; w < 70; w++) {
        int width = w, height = 70 - w;
        uint8_t px[4900] = {0};
        for (int level = derivatives_max_level(width, height); level > 0; level--) {
            pyramid_halve(px, &width, &height, 1);
        }
        assert_true(width == 1 && height == 1);
    }
}

static void halving_takes_the_mean_of_what_lies_under_a_pixel(void **state) {
    (void)state;
    uint8_t px[] = {10, 20, 30, 40, 50, 60, 70, 80, 91};
    int w = 3, h = 3;
    pyramid_halve(px, &w, &h, 1);
    assert_true(w == 2 && h == 2);
    assert_int_equal(px[0], 30); /* 10 20 40 50 */
    assert_int_equal(px[1], 45); /* 30 60 */
    assert_int_equal(px[2], 75); /* 70 80 */
    assert_int_equal(px[3], 91);
    uint8_t rgb[] = {0, 100, 200, 10, 110, 210};
    w = 2;
    h = 1;
    pyramid_halve(rgb, &w, &h, 3);
    assert_int_equal(rgb[0], 5);
    assert_int_equal(rgb[1], 105);
    assert_int_equal(rgb[2], 205);
}

static void thumbnails_keep_proportions_and_never_grow(void **state) {
    world_t *w = *state;
    static const struct {
        int w, h, tw, th;
    } cases[] = {
        {1000, 500, 256, 128}, {300, 900, 85, 256}, {100, 40, 100, 40}, {256, 256, 256, 256}, {2000, 2, 256, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char id[37], original[128], key[DERIVATIVES_KEY_ROOM];
        image_t img;
        err_t err = {0};
        snprintf(id, sizeof id, "0b8f1f9e-1111-4222-8333-44445555000%zu", i);
        snprintf(original, sizeof original, "images/%s/original", id);
        store_picture(w, original, cases[i].w, cases[i].h);
        assert_int_equal(derivatives_thumbnail(w->d, id, original, key, &err), ERR_OK);
        read_image(w, key, &img);
        assert_int_equal(img.info.width, cases[i].tw);
        assert_int_equal(img.info.height, cases[i].th);
        image_free(&img);
    }
}

static int grey_at(const image_t *img, int x, int y) {
    return ((const uint8_t *)img->data)[((size_t)y * (size_t)img->info.width + (size_t)x) * (size_t)img->info.channels];
}

static void tiles_cover_the_image_without_overlap(void **state) {
    world_t *w = *state;
    const int width = 1100, height = 600;
    err_t err = {0};
    store_picture(w, ORIGINAL, width, height);
    int level_w = width, level_h = height;
    for (int level = derivatives_max_level(width, height); level >= 0; level--) {
        for (int row = 0; row * 256 < level_h; row++) {
            for (int column = 0; column * 256 < level_w; column++) {
                char key[DERIVATIVES_KEY_ROOM];
                image_t img;
                assert_int_equal(derivatives_tile(w->d, ID, ORIGINAL, width, height, level, column, row, key, &err),
                                 ERR_OK);
                read_image(w, key, &img);
                assert_int_equal(img.info.width, level_w - column * 256 < 256 ? level_w - column * 256 : 256);
                assert_int_equal(img.info.height, level_h - row * 256 < 256 ? level_h - row * 256 : 256);
                if (level == derivatives_max_level(width, height)) {
                    const int wanted = row == 0 ? 128 : (column * 256 + 20 < width / 2 ? 0 : 255);
                    assert_in_range(grey_at(&img, 20, 20), wanted > 6 ? wanted - 6 : 0, wanted + 6);
                }
                image_free(&img);
            }
        }
        level_w = (level_w + 1) / 2;
        level_h = (level_h + 1) / 2;
    }
}

static void tiles_outside_are_not_found(void **state) {
    world_t *w = *state;
    static const int outside[][3] = {{-1, 0, 0}, {12, 0, 0},  {11, 5, 0},
                                     {11, 0, 3}, {11, -1, 0}, {11, 0, -1},
                                     {0, 1, 0},  {30, 0, 0},  {11, 1000000, 1000000}};
    store_picture(w, ORIGINAL, 1100, 600);
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        char key[DERIVATIVES_KEY_ROOM];
        err_t err = {0};
        assert_int_equal(
            derivatives_tile(w->d, ID, ORIGINAL, 1100, 600, outside[i][0], outside[i][1], outside[i][2], key, &err),
            ERR_NOT_FOUND);
    }
}

static void undecodable_images_are_explained_and_remembered(void **state) {
    world_t *w = *state;
    char key[DERIVATIVES_KEY_ROOM], message[256];
    err_t err = {0};
    assert_int_equal(storage_put_bytes(w->st, ORIGINAL, "no image", 8, &err), ERR_OK);
    assert_int_equal(derivatives_thumbnail(w->d, ID, ORIGINAL, key, &err), ERR_INVALID);
    assert_string_equal(err.code, "image_unknown_format");
    assert_true(strlen(err.message) > 10);
    snprintf(message, sizeof message, "%s", err.message);
    /* Remembered: even a good file under the same key is not looked at again. */
    store_picture(w, ORIGINAL, 300, 300);
    err_clear(&err);
    assert_int_equal(derivatives_tile(w->d, ID, ORIGINAL, 300, 300, 0, 0, 0, key, &err), ERR_INVALID);
    assert_string_equal(err.code, "image_unknown_format");
    assert_string_equal(err.message, message);
}

static void missing_originals_are_not_found_and_not_remembered(void **state) {
    world_t *w = *state;
    char key[DERIVATIVES_KEY_ROOM];
    err_t err = {0};
    assert_int_equal(derivatives_thumbnail(w->d, ID, ORIGINAL, key, &err), ERR_NOT_FOUND);
    store_picture(w, ORIGINAL, 300, 300);
    assert_int_equal(derivatives_thumbnail(w->d, ID, ORIGINAL, key, &err), ERR_OK);
}

static void a_file_that_a_power_cut_emptied_is_made_again(void **state) {
    world_t *w = *state;
    char key[DERIVATIVES_KEY_ROOM];
    image_t img;
    err_t err = {0};
    store_picture(w, ORIGINAL, 300, 300);
    assert_int_equal(derivatives_tile(w->d, ID, ORIGINAL, 300, 300, 9, 1, 1, key, &err), ERR_OK);
    assert_int_equal(storage_put_bytes(w->st, key, "", 0, &err), ERR_OK);
    assert_int_equal(derivatives_tile(w->d, ID, ORIGINAL, 300, 300, 9, 1, 1, key, &err), ERR_OK);
    read_image(w, key, &img);
    assert_int_equal(img.info.width, 300 - 256);
    image_free(&img);
}

typedef struct {
    world_t *w;
    int column;
    err_kind_t kind;
} asker_t;

static void *ask(void *arg) {
    asker_t *a = arg;
    char key[DERIVATIVES_KEY_ROOM];
    a->kind = a->column < 0 ? derivatives_thumbnail(a->w->d, ID, ORIGINAL, key, NULL)
                            : derivatives_tile(a->w->d, ID, ORIGINAL, 1500, 1500, 11, a->column, 1, key, NULL);
    return NULL;
}

static void many_askers_cost_one_rendering(void **state) {
    world_t *w = *state;
    pthread_t threads[12];
    asker_t askers[12];
    store_picture(w, ORIGINAL, 1500, 1500);
    const uint64_t before = decodes();
    for (int i = 0; i < 12; i++) {
        askers[i] = (asker_t){w, i % 6 - 1, ERR_INTERNAL};
        assert_int_equal(pthread_create(&threads[i], NULL, ask, &askers[i]), 0);
    }
    for (int i = 0; i < 12; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(askers[i].kind, ERR_OK);
    }
    assert_int_equal(decodes() - before, 1);
}

typedef struct {
    atomic_int called, ok;
} outcome_t;

static void on_done(void *arg, const char *image_id, int ok) {
    outcome_t *o = arg;
    assert_int_equal(strlen(image_id), 36);
    atomic_fetch_add(&o->ok, ok);
    atomic_fetch_add(&o->called, 1);
}

static void wait_for(atomic_int *n, int wanted) {
    const int64_t until = time_mono_ms() + 30000;
    while (atomic_load(n) < wanted && time_mono_ms() < until) {
        time_sleep_ms(5);
    }
    assert_int_equal(atomic_load(n), wanted);
}

static void preparing_reports_once_when_the_thumbnail_is_there(void **state) {
    world_t *w = *state;
    outcome_t good = {0}, bad = {0};
    store_picture(w, ORIGINAL, 700, 300);
    derivatives_prepare(w->d, ID, ORIGINAL, on_done, &good);
    wait_for(&good.called, 1);
    assert_int_equal(atomic_load(&good.ok), 1);
    assert_true(storage_exists(w->st, "images/" ID "/thumbnail.jpg"));
    derivatives_prepare(w->d, "0b8f1f9e-1111-4222-8333-000000000000",
                        "images/0b8f1f9e-1111-4222-8333-000000000000/original", on_done, &bad);
    wait_for(&bad.called, 1);
    assert_int_equal(atomic_load(&bad.ok), 0);
}

static void every_preparation_is_answered_though_the_queue_is_full_and_closed(void **state) {
    world_t *w = *state;
    outcome_t o = {0};
    char id[37], key[128];
    for (int i = 0; i < 1100; i++) {
        snprintf(id, sizeof id, "0b8f1f9e-1111-4222-8333-%012d", i);
        snprintf(key, sizeof key, "images/%s/original", id);
        if (i < 4) {
            store_picture(w, key, 1200, 1200);
        }
        derivatives_prepare(w->d, id, key, on_done, &o);
    }
    err_t err = {0};
    derivatives_destroy(w->d);
    assert_int_equal(atomic_load(&o.called), 1100);
    assert_int_equal(derivatives_create(&w->cfg, w->st, &w->d, &err), ERR_OK);
}

static void forgetting_leaves_nothing(void **state) {
    world_t *w = *state;
    char key[DERIVATIVES_KEY_ROOM];
    err_t err = {0};
    outcome_t o = {0};
    for (int round = 0; round < 8; round++) {
        store_picture(w, ORIGINAL, 1500, 900);
        derivatives_prepare(w->d, ID, ORIGINAL, on_done, &o);
        if (round == 0) {
            assert_int_equal(derivatives_tile(w->d, ID, ORIGINAL, 1500, 900, 0, 0, 0, key, &err), ERR_OK);
        } else {
            time_sleep_ms(round * 7); /* caught waiting, decoding or writing tiles */
        }
        assert_int_equal(derivatives_forget(w->d, ID, &err), ERR_OK);
        assert_false(storage_exists(w->st, ORIGINAL));
        assert_false(storage_exists(w->st, "images/" ID "/thumbnail.jpg"));
        assert_false(storage_exists(w->st, "images/" ID "/tiles/11/0_0.jpg"));
        assert_false(storage_exists(w->st, "images/" ID "/tiles/done"));
    }
    wait_for(&o.called, 8);
    assert_int_equal(derivatives_forget(w->d, ID, &err), ERR_OK);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_halve_down_to_one_pixel),
        cmocka_unit_test(halving_takes_the_mean_of_what_lies_under_a_pixel),
        TEST(thumbnails_keep_proportions_and_never_grow),
        TEST(tiles_cover_the_image_without_overlap),
        TEST(tiles_outside_are_not_found),
        TEST(undecodable_images_are_explained_and_remembered),
        TEST(missing_originals_are_not_found_and_not_remembered),
        TEST(a_file_that_a_power_cut_emptied_is_made_again),
        TEST(many_askers_cost_one_rendering),
        TEST(preparing_reports_once_when_the_thumbnail_is_there),
        TEST(every_preparation_is_answered_though_the_queue_is_full_and_closed),
        TEST(forgetting_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
