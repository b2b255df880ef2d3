/*
 * From what was asked to what holds, and the text under which results are reused.
 */
#include "tests/unit/support/cmocka_all.h"

#include <math.h>

#include "segworker/pipeline/options.h"

static model_spec_t *a_model(void) {
    static model_spec_t spec;
    spec = (model_spec_t){.name = "m", .threshold = 0.5, .min_area = 20, .max_hole_area = 10};
    return &spec;
}

static void assert_key(const model_spec_t *spec, const char *asked, const char *want) {
    job_choice_t choice;
    run_options_t settled;
    buf_t out;
    buf_init(&out, 4096);
    assert_int_equal(job_choice_parse_text(asked, &choice, NULL), ERR_OK);
    const job_options_t job = options_asked(NAN, true, &choice);
    assert_int_equal(options_settle(spec, &job, &settled, NULL), ERR_OK);
    options_write(&settled, &choice.plane, &out);
    assert_string_equal(out.data, want);
    buf_free(&out);
}

static void test_same_settings_same_key(void **state) {
    (void)state;
    static const char plain[] = "{\"minArea\":20,\"maxArea\":0,\"maxHoleArea\":10,\"augment\":\"none\"}";
    assert_key(a_model(), "{}", plain);
    assert_key(a_model(), "{\"augment\":\"none\",\"maxArea\":0,\"minArea\":20,\"maxHoleArea\":10,\"page\":1}", plain);
    assert_key(a_model(), "{\"minArea\":0,\"maxArea\":77,\"augment\":\"flips\",\"page\":2}",
               "{\"minArea\":0,\"maxArea\":77,\"maxHoleArea\":10,\"augment\":\"flips\",\"page\":2}");
    assert_key(
        a_model(), "{\"z\":2,\"time\":3,\"mix\":[1,0.5]}",
        "{\"minArea\":20,\"maxArea\":0,\"maxHoleArea\":10,\"augment\":\"none\",\"mix\":[1,0.5],\"z\":2,\"time\":3}");
}

static void test_names_of_augmentations_agree(void **state) {
    (void)state;
    for (int i = 0; job_choice_augments[i]; i++) {
        model_tta_t tta = MODEL_TTA_NONE;
        assert_true(model_tta_parse(job_choice_augments[i], &tta) && (int)tta == i);
    }
}

static void test_offer(void **state) {
    (void)state;
    model_spec_t *m = a_model();
    buf_t out;
    buf_init(&out, 4096);
    options_write_offer(m, &out);
    assert_string_equal(out.data,
                        "{\"minArea\":20,\"maxHoleArea\":10,\"augment\":\"none\",\"augments\":[\"none\",\"flips\","
                        "\"rotations\"]}");
    m->output = MODEL_OUTPUT_LABELS;
    buf_reset(&out);
    options_write_offer(m, &out);
    assert_string_equal(out.data, "{\"minArea\":20,\"maxHoleArea\":10,\"augment\":\"none\",\"augments\":[\"none\"]}");
    buf_free(&out);
}

static void test_who_asks_for_fainter_objects_gets_them(void **state) {
    (void)state;
    model_spec_t *m = a_model();
    run_options_t settled;
    m->min_confidence = 0.6;
    static const double cases[][2] = {{NAN, 0.6}, {0.5, 0.6}, {0.8, 0.6}, {0.25, 0.3}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const job_options_t job = options_asked(cases[i][0], true, &JOB_CHOICE_DEFAULT);
        assert_int_equal(options_settle(m, &job, &settled, NULL), ERR_OK);
        assert_float_equal(settled.min_confidence, cases[i][1], 1e-9);
    }
}

static void test_small_objects_shrink_with_the_image(void **state) {
    (void)state;
    const run_options_t o = {.small_area = 200, .seed_min_area = 25, .min_area = 25, .dist_sigma = 0.8};
    const run_options_t r = options_reduced(&o, 2);
    assert_int_equal(r.small_area, 50);
    assert_int_equal(r.min_area, 7);
}

static void test_refused(void **state) {
    (void)state;
    job_choice_t choice;
    run_options_t settled;
    err_t err = {0};
    assert_int_equal(job_choice_parse_text("{\"maxArea\":19}", &choice, NULL),
                     ERR_OK); /* under the model's own least */
    job_options_t job = options_asked(0.5, true, &choice);
    assert_int_equal(options_settle(a_model(), &job, &settled, &err), ERR_INVALID);
    assert_string_equal(err.code, "option_invalid");
    job = options_asked(1, true, &JOB_CHOICE_DEFAULT);
    assert_int_equal(options_settle(a_model(), &job, &settled, &err), ERR_INVALID);
    assert_string_equal(err.code, "threshold_out_of_range");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_settings_same_key),
        cmocka_unit_test(test_names_of_augmentations_agree),
        cmocka_unit_test(test_offer),
        cmocka_unit_test(test_who_asks_for_fainter_objects_gets_them),
        cmocka_unit_test(test_small_objects_shrink_with_the_image),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
