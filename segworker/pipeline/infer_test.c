/*
 * The backend of test models (models.h, output.kind "test"): waits instead of computing. Both maps are the normalised
 * grey values, so what follows has real objects to work on. The wait is cut into small steps between which the job may
 * be stopped, as between the tiles of a network.
 *
 * What a run does depends on its number only: a repeated load meets the same waits and the same failures.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/timeutil.h"
#include "segworker/pipeline/infer.h"

enum { STEP_MS = 5 };

typedef struct {
    model_test_t set;
    char condition[4200]; /* path of the file that switches trouble on; "" = always on */
    uint64_t runs;
} test_state_t;

/* A number in 0..1 from the run's number and a salt. The mixing constants are those of SplitMix64 (Steele, Lea and
 * Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014). */
static double draw(uint64_t run, uint64_t salt) {
    uint64_t z = (run * 2 + salt + 1) * 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return (double)((z ^ (z >> 31)) >> 11) / (double)(1ULL << 53);
}

static err_kind_t test_load(const model_spec_t *spec, const char *device, void **state, err_t *err) {
    (void)device;
    test_state_t *t = calloc(1, sizeof *t);
    if (!t) {
        return err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to load the model.", NULL);
    }
    t->set = spec->test;
    if (spec->test.condition[0]) {
        const char *slash = strrchr(spec->path, '/');
        (void)snprintf(t->condition, sizeof t->condition, "%.*s/%s", slash ? (int)(slash - spec->path) : 1,
                       slash ? spec->path : ".", spec->test.condition);
    }
    *state = t;
    return ERR_OK;
}

/* Waits until the time is over, or for ever. False: the job should stop. */
static bool wait_for(int64_t ms, bool forever, bool deaf, const cancel_t *stop) {
    int64_t until = time_mono_ms() + ms;
    for (;;) {
        if (!deaf && cancel_asked(stop)) {
            return false;
        }
        int64_t left = until - time_mono_ms();
        if (!forever && left <= 0) {
            return true;
        }
        time_sleep_ms(forever || left > STEP_MS ? STEP_MS : left);
    }
}

static void fill(const float *input, size_t n, float *output, int channels) {
    for (int c = 0; c < channels; c++) {
        for (size_t i = 0; i < n; i++) {
            float v = input[i];
            output[(size_t)c * n + i] = v > 1 ? 1 : v > 0 ? v : 0;
        }
    }
}

static err_kind_t test_run(void *state, const float *input, int h, int w, float *output, int channels,
                           const cancel_t *stop, err_t *err) {
    test_state_t *t = state;
    fill(input, (size_t)h * (size_t)w, output, channels);
    if (!stop) {
        return ERR_OK; /* warming up */
    }
    uint64_t run = t->runs++;
    bool trouble = !t->condition[0] || access(t->condition, F_OK) == 0;
    double wait = t->set.milliseconds * (1 + t->set.jitter * (2 * draw(run, 0) - 1));
    if (!wait_for((int64_t)(wait + 0.5), trouble && t->set.hang, trouble && t->set.deaf, stop)) {
        return err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", NULL);
    }
    if (trouble && draw(run, 1) < t->set.fail_rate) {
        return err_set(err, ERR_INTERNAL, "inference_failed", "The model failed on this image.",
                       "the test model's run %llu is one of its failures", (unsigned long long)run);
    }
    return ERR_OK;
}

static const char *test_device(void *state) {
    (void)state;
    return "cpu";
}

const infer_backend_t infer_test = {
    .name = "test", .load = test_load, .run = test_run, .device = test_device, .unload = free};
