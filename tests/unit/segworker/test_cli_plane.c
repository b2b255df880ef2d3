/* The options that choose what of a file is segmented. */
#include "tests/unit/support/cmocka_all.h"

#include "segworker/cli_plane.h"

static void counts_from_one(void **state) {
    (void)state;
    image_select_t sel = IMAGE_SELECT_DEFAULT;
    assert_null(cli_plane_set(&sel, "page", "1"));
    assert_int_equal(sel.page, 0);
    assert_null(cli_plane_set(&sel, "channel", "3"));
    assert_int_equal(sel.channel, 2);
    assert_null(cli_plane_set(&sel, "z", "12"));
    assert_int_equal(sel.z, 11);
    assert_null(cli_plane_set(&sel, "time", "2"));
    assert_int_equal(sel.t, 1);
}

static void reads_weights(void **state) {
    (void)state;
    image_select_t sel = IMAGE_SELECT_DEFAULT;
    assert_null(cli_plane_set(&sel, "mix", "1,0,-0.5"));
    assert_int_equal(sel.weights, 3);
    assert_float_equal(sel.weight[2], -0.5, 0);
    assert_null(cli_plane_set(&sel, "mix", "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1"));
    assert_int_equal(sel.weights, 16);
}

static void refuses_nonsense(void **state) {
    (void)state;
    static const char *const wrong[][2] = {
        {"page", "0"},  {"page", "-1"},      {"page", "x"},  {"channel", "1.5"},
        {"z", ""},      {"time", "2000000"}, {"mix", ""},    {"mix", "1,"},
        {"mix", "0,0"}, {"mix", "1;2"},      {"mix", "nan"}, {"mix", "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        image_select_t sel = IMAGE_SELECT_DEFAULT;
        assert_non_null(cli_plane_set(&sel, wrong[i][0], wrong[i][1]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_from_one),
        cmocka_unit_test(reads_weights),
        cmocka_unit_test(refuses_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
