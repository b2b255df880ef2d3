/*
 * A job's options: what is understood, what is refused with the field's name, and the canonical text.
 */
#include "tests/unit/support/cmocka_all.h"

#include <string.h>

#include "common/job_choice.h"

static void assert_written(const char *json, const char *want) {
    job_choice_t c;
    err_t err = {0};
    buf_t out;
    buf_init(&out, 4096);
    if (job_choice_parse_text(json, &c, &err) != ERR_OK) {
        fail_msg("%s: %s", json, err.message);
    }
    job_choice_write(&c, &out);
    assert_false(out.failed);
    assert_string_equal(out.data, want);
    buf_free(&out);
}

static void test_canonical_form(void **state) {
    (void)state;
    assert_written(NULL, "{}");
    assert_written("", "{}");
    assert_written("null", "{}");
    assert_written("{\"page\":1,\"maxArea\":0,\"minArea\":null,\"mix\":null,\"augment\":null}", "{}");
    assert_written("{\"time\":2,\"maxArea\":900,\"z\":1,\"minArea\":0}",
                   "{\"minArea\":0,\"maxArea\":900,\"z\":1,\"time\":2}");
    assert_written("{\"augment\":\"rotations\",\"page\":7,\"channel\":1,\"maxHoleArea\":1e12}",
                   "{\"maxHoleArea\":1000000000000,\"augment\":\"rotations\",\"page\":7,\"channel\":1}");
    assert_written("{\"mix\":[0.25,-1,0,0]}", "{\"mix\":[0.25,-1]}");
}

static void test_what_it_means(void **state) {
    (void)state;
    job_choice_t c;
    assert_int_equal(job_choice_parse_text("{}", &c, NULL), ERR_OK);
    assert_true(c.min_area == -1 && c.max_area == -1 && c.max_hole_area == -1 && c.augment == -1);
    assert_false(job_choice_has_plane(&c));
    assert_int_equal(job_choice_parse_text("{\"page\":3,\"channel\":2,\"augment\":\"flips\"}", &c, NULL), ERR_OK);
    assert_true(c.plane.page == 2 && c.plane.channel == 1 && c.plane.z == -1 && c.augment == 1);
    assert_true(job_choice_has_plane(&c));
    assert_int_equal(job_choice_parse_text("{\"minArea\":5}", &c, NULL), ERR_OK);
    assert_false(job_choice_has_plane(&c));
}

static void test_refusals_name_the_field(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"[]", "options must"},
        {"7", "options must"},
        {"{\"minArea\":-1}", "options.minArea"},
        {"{\"minArea\":2e12}", "options.minArea"},
        {"{\"maxArea\":0.5}", "options.maxArea"},
        {"{\"maxHoleArea\":true}", "options.maxHoleArea"},
        {"{\"minArea\":2,\"maxArea\":1}", "options.maxArea"},
        {"{\"augment\":1}", "options.augment"},
        {"{\"page\":1000001}", "options.page"},
        {"{\"channel\":0}", "options.channel"},
        {"{\"z\":\"1\"}", "options.z"},
        {"{\"time\":0}", "options.time"},
        {"{\"mix\":[]}", "options.mix"},
        {"{\"mix\":[0]}", "options.mix"},
        {"{\"mix\":[1,\"x\"]}", "options.mix"},
        {"{\"mix\":[1e39]}", "options.mix"},
        {"{\"mix\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}", "options.mix"},
        {"{\"mix\":[1],\"channel\":1}", "options.mix"},
        {"{\"page\":2,\"time\":1}", "options.page"},
        {"{\"what\":1}", "options.what"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        job_choice_t c;
        err_t err = {0};
        assert_int_equal(job_choice_parse_text(cases[i][0], &c, &err), ERR_INVALID);
        if (!strstr(err.message, cases[i][1])) {
            fail_msg("%s: %s", cases[i][0], err.message);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_canonical_form),
        cmocka_unit_test(test_what_it_means),
        cmocka_unit_test(test_refusals_name_the_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
