/* The test backend: its maps are the grey values, its waits can be stopped, its failures repeat, and a file switches
 * its trouble on and off. */
#include "tests/unit/support/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/timeutil.h"
#include "segworker/pipeline/infer.h"

enum { SIDE = 16, PIXELS = SIDE * SIDE };

static bool never(void *ctx) {
    (void)ctx;
    return false;
}

static bool at_time(void *ctx) {
    return time_mono_ms() >= *(const int64_t *)ctx;
}

static const cancel_t GO_ON = {.fn = never};

static infer_t open_model(const model_test_t *set, const char *path) {
    static model_spec_t spec;
    memset(&spec, 0, sizeof spec);
    spec.output = MODEL_OUTPUT_TEST;
    spec.test = *set;
    (void)snprintf(spec.path, sizeof spec.path, "%s", path);
    infer_t net;
    err_t err;
    assert_ptr_equal(infer_backend_for(&spec), &infer_test);
    assert_int_equal(infer_open(infer_backend_for(&spec), &spec, "auto", SIDE, 2, &net, &err), ERR_OK);
    return net;
}

static err_kind_t run(const infer_t *net, const cancel_t *stop, float *out, err_t *err) {
    float in[PIXELS];
    for (int i = 0; i < PIXELS; i++) {
        in[i] = (float)i / 100 - 0.5F;
    }
    return net->backend->run(net->state, in, SIDE, SIDE, out, 2, stop, err);
}

static void both_maps_are_the_grey_values(void **state) {
    (void)state;
    static float out[2 * PIXELS];
    err_t err;
    infer_t net = open_model(&(model_test_t){.milliseconds = 30}, "model.json");
    int64_t before = time_mono_ms();
    assert_int_equal(run(&net, &GO_ON, out, &err), ERR_OK);
    assert_true(time_mono_ms() - before >= 30);
    assert_float_equal(out[0], 0, 0); /* kept within 0..1 */
    assert_float_equal(out[80], 0.3, 1e-6);
    assert_float_equal(out[200], 1, 0);
    assert_memory_equal(out, out + PIXELS, PIXELS * sizeof *out);
    assert_string_equal(net.backend->device(net.state), "cpu");
    infer_close(&net);
}

static void a_wait_can_be_stopped_unless_it_is_deaf(void **state) {
    (void)state;
    static float out[2 * PIXELS];
    err_t err;
    infer_t net = open_model(&(model_test_t){.hang = true}, "model.json");
    int64_t end = time_mono_ms() + 50;
    const cancel_t stop = {.fn = at_time, .ctx = &end};
    assert_int_equal(run(&net, &stop, out, &err), ERR_CANCELLED);
    assert_true(time_mono_ms() - end < 500);
    infer_close(&net);
    net = open_model(&(model_test_t){.milliseconds = 100, .deaf = true}, "model.json");
    end = time_mono_ms();
    assert_int_equal(run(&net, &stop, out, &err), ERR_OK);
    infer_close(&net);
}

static int failures(double rate, int runs, char *pattern) {
    static float out[2 * PIXELS];
    infer_t net = open_model(&(model_test_t){.fail_rate = rate}, "model.json");
    int failed = 0;
    for (int i = 0; i < runs; i++) {
        err_t err;
        err_kind_t k = run(&net, &GO_ON, out, &err);
        assert_true(k == ERR_OK || (k == ERR_INTERNAL && strcmp(err.code, "inference_failed") == 0));
        pattern[i] = k == ERR_OK ? '.' : 'x';
        failed += k != ERR_OK;
    }
    pattern[runs] = '\0';
    infer_close(&net);
    return failed;
}

static void failures_have_their_rate_and_repeat(void **state) {
    (void)state;
    char a[2001], b[2001];
    assert_int_equal(failures(0, 200, a), 0);
    assert_int_equal(failures(1, 200, a), 200);
    int n = failures(0.2, 2000, a);
    assert_in_range(n, 320, 480);
    assert_int_equal(failures(0.2, 2000, b), n);
    assert_string_equal(a, b);
}

static void trouble_lasts_while_the_file_exists(void **state) {
    (void)state;
    static float out[2 * PIXELS];
    char dir[] = "/tmp/sg_infer_XXXXXX", manifest[64], flag[64];
    err_t err;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(manifest, sizeof manifest, "%s/model.json", dir);
    (void)snprintf(flag, sizeof flag, "%s/broken", dir);
    infer_t net = open_model(&(model_test_t){.fail_rate = 1, .condition = "broken"}, manifest);
    assert_int_equal(run(&net, &GO_ON, out, &err), ERR_OK);
    FILE *f = fopen(flag, "w");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(run(&net, &GO_ON, out, &err), ERR_INTERNAL);
    unlink(flag);
    assert_int_equal(run(&net, &GO_ON, out, &err), ERR_OK);
    infer_close(&net);
    rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_maps_are_the_grey_values),
        cmocka_unit_test(a_wait_can_be_stopped_unless_it_is_deaf),
        cmocka_unit_test(failures_have_their_rate_and_repeat),
        cmocka_unit_test(trouble_lasts_while_the_file_exists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
