/* Tiling: every pixel comes from exactly the right place, for any size and however many rows are asked for at a time;
 * cancelling and errors stop between tiles. */
#include "tests/unit/support/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include "segworker/pipeline/band.h"

/* A network in plain C. Map 0 is its input; map 1 is the sum over a (2R+1)² window, so a tile border that shows within
 * the halo changes it. */
enum { R = 2 };

typedef struct {
    int runs, fail_at, largest;
} fake_t;

static err_kind_t fake_run(void *state, const float *in, int h, int w, float *out, int channels, const cancel_t *stop,
                           err_t *err) {
    fake_t *f = state;
    (void)stop;
    assert_int_equal(channels, 2);
    f->runs++;
    if (w > f->largest) {
        f->largest = w;
    }
    if (f->fail_at && f->runs == f->fail_at) {
        return err_set(err, ERR_INTERNAL, "inference_failed", "The model failed.", NULL);
    }
    memcpy(out, in, (size_t)w * (size_t)h * sizeof *out);
    for (int y = 0; y < h; y++) {
        for (int x = 0; x < w; x++) {
            float sum = 0;
            for (int v = y - R; v <= y + R; v++) {
                for (int u = x - R; u <= x + R; u++) {
                    if (u >= 0 && v >= 0 && u < w && v < h) {
                        sum += in[v * w + u];
                    }
                }
            }
            out[(size_t)w * (size_t)h + (size_t)(y * w + x)] = sum;
        }
    }
    return ERR_OK;
}

static const infer_backend_t FAKE = {.name = "fake", .run = fake_run};

static lanes_t *on_lanes; /* NULL: the network runs on the thread of the run */

/* The whole plane through a band, `rows` rows at a time, each time with two rows of the time before. */
static err_kind_t run_plane(infer_t *net, const float *plane, int width, int height, const tile_params_t *p, int rows,
                            float *const *maps, const tile_hooks_t *hooks, err_t *err) {
    static model_spec_t spec;
    spec.output = MODEL_OUTPUT_TEST;
    spec.net = (model_net_t){.inputs = 1, .grid = 1};
    input_t in = {.channels = 1, .width = width, .height = height, .reduce = 1, .planes = (float *)(uintptr_t)plane};
    const prepare_t prepare = {.net = &spec.net};
    band_source_t src = {.net = net, .lanes = on_lanes, .spec = &spec, .input = &in, .prepare = &prepare, .tile = *p};
    src.hooks = hooks ? *hooks : (tile_hooks_t){{0}, NULL, NULL, NULL, NULL};
    band_t *band = NULL;
    err_kind_t k = band_create(&src, rows + 2, &band, err);
    for (int y = 0; k == ERR_OK && y < height; y += rows) {
        int from = y >= 2 ? y - 2 : 0, to = y + rows < height ? y + rows : height;
        band_window_t w;
        bool part = width > 4; /* else the whole width, which is lent */
        image_rect_t rect = {part ? 1 : 0, from, part ? width - 1 : width, to - from};
        k = band_window(band, rect, &w, err);
        for (int c = 0; k == ERR_OK && c < 2; c++) {
            assert_true(w.lent == !part);
            for (int r = 0; r < rect.h; r++) {
                memcpy(maps[c] + (size_t)(from + r) * (size_t)width + rect.x, w.layer[c] + (size_t)r * (size_t)rect.w,
                       (size_t)rect.w * sizeof(float));
            }
        }
        band_window_free(&w);
        if (k == ERR_OK && part) { /* the first column, by a window of the whole width */
            k = band_window(band, (image_rect_t){0, from, width, to - from}, &w, err);
            for (int c = 0; k == ERR_OK && c < 2; c++) {
                for (int r = 0; r < rect.h; r++) {
                    maps[c][(size_t)(from + r) * (size_t)width] = w.layer[c][(size_t)r * (size_t)width];
                }
            }
            band_window_free(&w);
        }
    }
    band_free(band);
    return k;
}

static float pixel(int x, int y) {
    return (float)((x * 7 + y * 13) % 31);
}

static void check_size(int w, int h, int rows, const tile_params_t *p) {
    size_t n = (size_t)w * (size_t)h;
    float *plane = calloc(n, sizeof *plane), *maps[2] = {calloc(n, sizeof(float)), calloc(n, sizeof(float))};
    for (int y = 0; y < h; y++) {
        for (int x = 0; x < w; x++) {
            plane[y * w + x] = pixel(x, y);
        }
    }
    fake_t f = {0};
    infer_t net = {.backend = &FAKE, .state = &f, .inputs = 1, .grid = 1, .fixed = true};
    assert_int_equal(run_plane(&net, plane, w, h, p, rows, maps, NULL, NULL), ERR_OK);
    assert_memory_equal(maps[0], plane, n * sizeof *plane);
    assert_true(f.largest <= p->tile);
    /* windows inside the image see no tile border; those at its padded edge see reflected pixels */
    for (int y = R; y < h - R; y++) {
        for (int x = R; x < w - R; x++) {
            float sum = 0;
            for (int v = y - R; v <= y + R; v++) {
                for (int u = x - R; u <= x + R; u++) {
                    sum += pixel(u, v);
                }
            }
            if (maps[1][y * w + x] != sum) {
                fail_msg("%dx%d: seam at %d,%d", w, h, x, y);
            }
        }
    }
    free(plane);
    free(maps[0]);
    free(maps[1]);
}

static void no_seams_at_any_size(void **state) {
    (void)state;
    const tile_params_t p = {.tile = 32, .halo = 4, .divisor = 8}, no_overlap = {.tile = 8, .halo = 2, .divisor = 8};
    static const int sizes[] = {1, 2, 7, 8, 31, 32, 33, 40, 56, 57, 100, 131};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (size_t j = 0; j < sizeof sizes / sizeof sizes[0]; j++) {
            check_size(sizes[i], sizes[j], 200, &p);
            check_size(sizes[j], sizes[i], 5 + (int)i, &no_overlap);
        }
    }
}

static void spans_cover_the_axis(void **state) {
    (void)state;
    const tile_params_t p = {.tile = 64, .halo = 8, .divisor = 16};
    for (int n = 16; n <= 1024; n += 16) {
        int covered = 0, count = tile_count(n, &p);
        for (int i = 0; i < count; i++) {
            tile_span_t s = tile_span(n, &p, i);
            assert_true(s.start >= 0 && s.stop <= n && s.stop - s.start <= p.tile);
            assert_true(s.core_start <= covered && s.core_stop > covered);
            assert_true(i == 0 || s.core_start >= s.start + p.halo);
            covered = s.core_stop;
        }
        assert_int_equal(covered, n);
        int step = p.tile - 2 * p.halo;
        assert_int_equal(count, n <= p.tile ? 1 : (n - 2 * p.halo + step - 1) / step);
    }
}

static void evened_tiles_overlap_no_more_than_they_must(void **state) {
    (void)state;
    const tile_params_t p = {.tile = 64, .halo = 8, .divisor = 4};
    for (int n = 4; n <= 1024; n += 4) {
        const tile_params_t even = tile_evened(n, &p);
        int count = tile_count(n, &even), all = 0;
        assert_int_equal(count, tile_count(n, &p));
        assert_true(even.tile <= p.tile && even.tile % p.divisor == 0);
        for (int i = 0; i < count; i++) {
            tile_span_t s = tile_span(n, &even, i);
            assert_true(s.core_stop > s.core_start);
            all += s.stop - s.start;
        }
        assert_true(all <= n + (count - 1) * 2 * p.halo + count * p.divisor); /* halos, and what the divisor asks for */
    }
}

static void reflects_without_repeating_the_edge(void **state) {
    (void)state;
    static const int want[] = {0, 1, 2, 1, 0, 1, 2, 1};
    for (int i = 0; i < 8; i++) {
        assert_int_equal(tile_reflect(i, 3), want[i]);
        assert_int_equal(tile_reflect(i, 1), 0);
    }
}

static bool stop_after(void *ctx) {
    return --*(int *)ctx < 0;
}

static void on_progress(void *arg, double done) {
    double *last = arg;
    assert_true(done > *last && done <= 1);
    *last = done;
}

static void stops_between_tiles(void **state) {
    (void)state;
    const tile_params_t p = {.tile = 16, .halo = 2, .divisor = 8};
    float plane[64 * 64] = {0}, a[64 * 64], b[64 * 64], *maps[2] = {a, b};
    fake_t f = {0};
    infer_t net = {.backend = &FAKE, .state = &f};
    int left = 3;
    double last = 0;
    tile_hooks_t hooks = {.stop = {.fn = stop_after, .ctx = &left}, .progress = on_progress, .arg = &last};
    err_t err;
    assert_int_equal(run_plane(&net, plane, 64, 64, &p, 64, maps, &hooks, &err), ERR_CANCELLED);
    assert_int_equal(f.runs, 3);
    f = (fake_t){.fail_at = 2};
    assert_int_equal(run_plane(&net, plane, 64, 64, &p, 64, maps, NULL, &err), ERR_INTERNAL);
    assert_int_equal(f.runs, 2);
    left = 1000;
    last = 0;
    f = (fake_t){0};
    assert_int_equal(run_plane(&net, plane, 64, 64, &p, 64, maps, &hooks, &err), ERR_OK);
    assert_true(last == 1.0);
}

/* The same with tiles handed in ahead; one lane, since the network counts. */
static void runs_ahead_on_lanes(void **state) {
    const tile_params_t p = {.tile = 16, .halo = 2, .divisor = 8};
    float plane[64 * 64] = {0}, a[64 * 64], b[64 * 64], *maps[2] = {a, b};
    fake_t f = {0};
    infer_t net = {.backend = &FAKE, .state = &f, .inputs = 1, .grid = 1};
    int left = 3;
    double last = 0;
    tile_hooks_t hooks = {.stop = {.fn = stop_after, .ctx = &left}, .progress = on_progress, .arg = &last};
    err_t err;
    lanes_set_up(&(lanes_setup_t){.threads = 1});
    assert_int_equal(lanes_open("cpu", &on_lanes, &err), ERR_OK);
    no_seams_at_any_size(state);
    assert_int_equal(run_plane(&net, plane, 64, 64, &p, 64, maps, &hooks, &err), ERR_CANCELLED);
    assert_true(last < 0.5);  /* at most three tiles of 25 were waited for */
    assert_true(f.runs <= 5); /* and two were ahead */
    f = (fake_t){.fail_at = 2};
    assert_int_equal(run_plane(&net, plane, 64, 64, &p, 64, maps, NULL, &err), ERR_INTERNAL);
    left = 1 << 20;
    last = 0;
    f = (fake_t){0};
    assert_int_equal(run_plane(&net, plane, 64, 64, &p, 64, maps, &hooks, &err), ERR_OK);
    assert_true(last == 1.0);
    assert_int_equal(f.runs, 25);
    lanes_close(on_lanes);
    on_lanes = NULL;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_seams_at_any_size),
        cmocka_unit_test(spans_cover_the_axis),
        cmocka_unit_test(evened_tiles_overlap_no_more_than_they_must),
        cmocka_unit_test(reflects_without_repeating_the_edge),
        cmocka_unit_test(stops_between_tiles),
        cmocka_unit_test(runs_ahead_on_lanes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
