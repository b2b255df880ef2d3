/* Pixels grouped by their votes for a centre: objects that touch, noise, thresholds, bad numbers. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "segworker/pipeline/votes.h"

enum { W = 64, H = 48, N = W * H };

static const votes_params_t BASE = {.sigma = 1.0, .saddle = 0.3, .min_votes = 5};

typedef struct {
    uint8_t mask[N];
    float down[N], right[N];
    int32_t want[N], got[N];
    uint32_t count;
} scene_t;

static scene_t *scene_new(void) {
    return calloc(1, sizeof(scene_t));
}

/* A disc whose pixels vote for its centre, give or take `noise` px in a fixed pattern. Later discs lie on top. */
static void add_disc(scene_t *s, int cx, int cy, int radius, float noise, int32_t label) {
    for (int i = 0; i < N; i++) {
        int x = i % W, y = i / W;
        if ((x - cx) * (x - cx) + (y - cy) * (y - cy) > radius * radius) {
            continue;
        }
        s->mask[i] = 1;
        s->down[i] = (float)(cy - y) + noise * (float)(i * 7 % 11 - 5) / 5;
        s->right[i] = (float)(cx - x) + noise * (float)(i * 5 % 13 - 6) / 6;
        s->want[i] = label;
    }
}

static void group(scene_t *s, const votes_params_t *p) {
    err_t err;
    assert_int_equal(votes_group(s->mask, 1, s->down, s->right, W, H, p, NULL, s->got, &s->count, &err), ERR_OK);
}

/* The same partition, whatever the numbers. */
static void expect_partition(const scene_t *s) {
    int32_t to[16] = {0};
    for (int i = 0; i < N; i++) {
        assert_int_equal(s->want[i] == 0, s->got[i] == 0);
        if (s->want[i] != 0) {
            int32_t *t = &to[s->want[i]];
            *t = *t == 0 ? s->got[i] : *t;
            assert_int_equal(s->got[i], *t);
        }
    }
}

static void overlapping_discs_are_told_apart_exactly(void **state) {
    (void)state;
    scene_t *s = scene_new();
    add_disc(s, 15, 20, 10, 1.0F, 1);
    add_disc(s, 28, 22, 9, 1.0F, 2);
    add_disc(s, 24, 33, 7, 0.8F, 3);
    add_disc(s, 52, 10, 3, 0.4F, 4);
    group(s, &BASE);
    assert_int_equal(s->count, 4);
    expect_partition(s);
    free(s);
}

static void scattered_votes_of_one_object_stay_one_heap(void **state) {
    (void)state;
    scene_t *s = scene_new();
    votes_params_t p = BASE;
    add_disc(s, 30, 24, 18, 3.0F, 1);
    p.sigma = 2.0;
    group(s, &p);
    assert_int_equal(s->count, 1);
    expect_partition(s);
    free(s);
}

static void saddle_decides_between_one_and_two(void **state) {
    (void)state;
    scene_t *s = scene_new();
    votes_params_t p = BASE;
    add_disc(s, 24, 24, 8, 0, 1);
    add_disc(s, 30, 24, 8, 0, 2);
    p.sigma = 1.5; /* two single places 6 px apart: the density between them is some way below the peaks */
    p.saddle = 0.95;
    group(s, &p);
    assert_int_equal(s->count, 2);
    p.saddle = 0.05;
    group(s, &p);
    assert_int_equal(s->count, 1);
    free(s);
}

/* The same two places, once with few votes and once with many: only the small pair is held to the other saddle. */
static void small_objects_have_a_saddle_of_their_own(void **state) {
    (void)state;
    for (int radius = 4; radius <= 8; radius += 4) {
        scene_t *s = scene_new();
        votes_params_t p = BASE;
        add_disc(s, 24, 24, radius, 0, 1);
        add_disc(s, 30, 24, radius, 0, 2);
        p.sigma = 1.5;
        p.saddle = 0.05;
        group(s, &p);
        assert_int_equal(s->count, 1);
        p.small_votes = 150; /* two discs of radius 4 have fewer together, two of radius 8 have more */
        p.small_saddle = 0.95;
        group(s, &p);
        assert_int_equal(s->count, radius == 4 ? 2 : 1);
        free(s);
    }
}

static void small_heaps_join_or_vanish(void **state) {
    (void)state;
    scene_t *s = scene_new();
    votes_params_t p = BASE;
    add_disc(s, 30, 24, 9, 0, 1);
    add_disc(s, 8, 8, 1, 0, 2); /* 5 votes, on its own */
    s->down[24 * W + 38] += 3;  /* one pixel strays, within reach of the heap */
    p.min_votes = 6;
    group(s, &p);
    assert_int_equal(s->count, 1);
    assert_int_equal(s->got[8 * W + 8], 0);
    assert_int_equal(s->got[24 * W + 38], s->got[24 * W + 30]);
    free(s);
}

static void only_the_largest_part_is_kept(void **state) {
    (void)state;
    scene_t *s = scene_new();
    add_disc(s, 20, 24, 8, 0, 1);
    for (int x = 50; x < 54; x++) { /* far away, yet votes for the disc */
        s->mask[24 * W + x] = 1;
        s->right[24 * W + x] = (float)(20 - x);
    }
    group(s, &BASE);
    assert_int_equal(s->count, 1);
    expect_partition(s);
    free(s);
}

static void wild_offsets_do_no_harm(void **state) {
    (void)state;
    const float wild[] = {NAN, INFINITY, -INFINITY, 1e30F, -1e30F};
    scene_t *s = scene_new();
    add_disc(s, 30, 24, 12, 0.5F, 1);
    for (int k = 0; k < 200; k++) {
        int i = (k * 37) % N;
        s->mask[i] = 1;
        s->down[i] = wild[k % 5];
        s->right[i] = wild[k / 5 % 5];
    }
    group(s, &BASE);
    assert_true(s->count >= 1);
    for (int i = 0; i < N; i++) {
        assert_true(s->got[i] >= 0 && s->got[i] <= (int32_t)s->count && (s->mask[i] || s->got[i] == 0));
    }
    free(s);
}

static void empty_mask_and_no_smoothing(void **state) {
    (void)state;
    scene_t *s = scene_new();
    votes_params_t p = BASE;
    group(s, &p);
    assert_int_equal(s->count, 0);
    add_disc(s, 12, 12, 6, 0, 1);
    add_disc(s, 23, 12, 6, 0, 2);
    p.sigma = 0;
    group(s, &p);
    assert_int_equal(s->count, 2);
    expect_partition(s);
    free(s);
}

static bool stop_at(void *ctx) {
    int *left = ctx;
    return (*left)-- <= 0;
}

static void cancelling_stops_at_any_question(void **state) {
    (void)state;
    scene_t *s = scene_new();
    add_disc(s, 30, 24, 12, 0.5F, 1);
    err_t err;
    for (int after = 0; after < 3; after++) {
        int left = after;
        cancel_t stop = {.fn = stop_at, .ctx = &left};
        err_kind_t k = votes_group(s->mask, 1, s->down, s->right, W, H, &BASE, &stop, s->got, &s->count, &err);
        assert_int_equal(k, ERR_CANCELLED);
    }
    free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overlapping_discs_are_told_apart_exactly),
        cmocka_unit_test(scattered_votes_of_one_object_stay_one_heap),
        cmocka_unit_test(saddle_decides_between_one_and_two),
        cmocka_unit_test(small_objects_have_a_saddle_of_their_own),
        cmocka_unit_test(small_heaps_join_or_vanish),
        cmocka_unit_test(only_the_largest_part_is_kept),
        cmocka_unit_test(wild_offsets_do_no_harm),
        cmocka_unit_test(empty_mask_and_no_smoothing),
        cmocka_unit_test(cancelling_stops_at_any_question),
    };
    return cmocka_run_group_tests_name("votes", tests, NULL, NULL);
}
