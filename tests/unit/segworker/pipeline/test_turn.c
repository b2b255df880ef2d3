/* What a network's channels mean, and their mean over turned inputs, for models that point to centres. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "segworker/pipeline/netout.h"
#include "segworker/pipeline/turn.h"

enum { W = 7, H = 5, N = W * H };

static model_spec_t votes_spec(void) {
    model_spec_t m = {.output = MODEL_OUTPUT_FOREGROUND_VOTES};
    m.net.inputs = 1;
    m.net.channels = 3;
    m.net.grid = 1;
    m.net.first = 2; /* any order of channels */
    m.net.second = 0;
    m.net.third = 1;
    return m;
}

static void votes_are_three_maps_by_their_names(void **state) {
    (void)state;
    model_spec_t m = votes_spec();
    netout_t o = netout_of(&m);
    float raw[6] = {1, 2, 3, NAN, 0, 100}, fg[2], down[2], right[2];
    assert_int_equal(o.layers, 3);
    assert_int_equal(netout_floats(&o), 3);
    m.net.activation = MODEL_ACTIVATION_SIGMOID; /* of the foreground only */
    netout_convert(&m, raw, 2, (float *const[]){fg, down, right});
    assert_float_equal(fg[0], 0.5, 1e-6);
    assert_float_equal(fg[1], 1, 1e-6);
    assert_true(down[0] == 1 && down[1] == 2 && right[0] == 3 && right[1] == 0);
}

static void ways_grow_with_the_image(void **state) {
    (void)state;
    model_spec_t m = votes_spec();
    float v[3] = {1, -2, 0.5F};
    netout_resized(&m, 0, 2, 3, v, 3);
    assert_true(v[0] == 1 && v[1] == -2);
    netout_resized(&m, 1, 2, 3, v, 3);
    assert_true(v[0] == 3 && v[1] == -6 && v[2] == 1.5F);
    netout_resized(&m, 2, 2, 3, v, 3);
    assert_true(v[0] == 6 && v[1] == -12 && v[2] == 3);
    m.output = MODEL_OUTPUT_FOREGROUND_DISTANCE;
    netout_resized(&m, 1, 2, 3, v, 3);
    assert_true(v[0] == 6);
}

/* A network for which every pixel points to the brightest one, whichever way the image lies. */
static err_kind_t point_to_the_brightest(void *ctx, const float *in, int w, int h, float *raw, err_t *err) {
    int best = 0;
    (void)err;
    (*(int *)ctx)++;
    for (int i = 1; i < w * h; i++) {
        best = in[i] > in[best] ? i : best;
    }
    for (int i = 0; i < w * h; i++) {
        raw[i] = (float)(best / w - i / w);
        raw[w * h + i] = (float)(best % w - i % w);
        raw[2 * w * h + i] = in[i];
    }
    return ERR_OK;
}

static void turned_ways_are_turned_back(void **state) {
    (void)state;
    model_spec_t m = votes_spec();
    netout_t o = netout_of(&m);
    float in[N], raw[3 * N], fg[N], down[N], right[N];
    int runs = 0;
    err_t err;
    for (int i = 0; i < N; i++) {
        in[i] = (float)(i * 11 % 17) / 40;
    }
    in[1 * W + 5] = 1;
    turn_job_t job = {.spec = &m, .out = &o, .run = point_to_the_brightest, .ctx = &runs};
    for (int all = 0; all < 2; all++) {
        runs = 0;
        model_tta_t tta = all ? MODEL_TTA_ROTATIONS : MODEL_TTA_FLIPS;
        assert_int_equal(turn_run(&job, tta, in, W, H, raw, (float *const[]){fg, down, right}, &err), ERR_OK);
        assert_int_equal(runs, all ? 8 : 4);
        for (int i = 0; i < N; i++) {
            assert_float_equal(fg[i], in[i], 1e-6);
            assert_float_equal(down[i], 1 - i / W, 1e-6);
            assert_float_equal(right[i], 5 - i % W, 1e-6);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(votes_are_three_maps_by_their_names),
        cmocka_unit_test(ways_grow_with_the_image),
        cmocka_unit_test(turned_ways_are_turned_back),
    };
    return cmocka_run_group_tests_name("turn", tests, NULL, NULL);
}
