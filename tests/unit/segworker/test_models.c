/* Model folders: a good one is read whole; each wrong field is named; a wrong checksum is noticed. */
#include "tests/unit/support/cmocka_all.h"

#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "segworker/models.h"

static const char GOOD[] =
    "{\"schema\":1,\"name\":\"cells\",\"version\":\"1.2.0\",\"title\":\"Cells\",\"description\":\"d\","
    "\"license\":\"MIT\",\"file\":\"model.pt\",\"sha256\":\"@SHA@\","
    "\"input\":{\"channels\":1,\"colour\":\"grey\",\"pixelUnit\":\"native\","
    "\"scale\":{\"kind\":\"fit_long_side\",\"px\":768,\"upscale\":false},\"tile\":512,\"halo\":32,\"divisor\":16,"
    "\"normalisation\":{\"kind\":\"percentile\",\"low\":1.0,\"high\":99.8,\"clipMin\":0.0,\"clipMax\":1.0,"
    "\"minRange\":0}},"
    "\"output\":{\"kind\":\"foreground_distance\",\"channels\":[\"foreground\",\"distance\"]},"
    "\"postprocess\":{\"threshold\":0.5,\"seedThreshold\":0.6,\"seedMinArea\":4,\"minArea\":15,\"distSigma\":0.5,"
    "\"maxHoleArea\":9}}";

typedef struct {
    char root[64], dir[96];
} place_t;

static void write_file(const char *dir, const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* text with every `from` replaced by `to`; freed by the caller. */
static char *replaced(const char *text, const char *from, const char *to) {
    char *out = calloc(1, strlen(text) + strlen(to) + 1);
    const char *at = strstr(text, from);
    if (!at) {
        fail_msg("\"%s\" is not in the manifest", from);
        return out;
    }
    memcpy(out, text, (size_t)(at - text));
    memcpy(out + (at - text), to, strlen(to));
    memcpy(out + (at - text) + strlen(to), at + strlen(from), strlen(at + strlen(from)));
    return out;
}

static void write_manifest(const place_t *p, const char *json) {
    unsigned char d[32];
    char hex[65];
    SHA256((const unsigned char *)"weights", 7, d);
    for (int i = 0; i < 32; i++) {
        snprintf(hex + (size_t)i * 2, 3, "%02x", d[i]);
    }
    char *with_sum = strstr(json, "@SHA@") ? replaced(json, "@SHA@", hex) : strdup(json);
    write_file(p->dir, "model.json", with_sum);
    free(with_sum);
}

static int set_up(void **state) {
    place_t *p = calloc(1, sizeof *p);
    snprintf(p->root, sizeof p->root, "/tmp/sg_models_XXXXXX");
    assert_non_null(mkdtemp(p->root));
    snprintf(p->dir, sizeof p->dir, "%s/cells", p->root);
    assert_int_equal(mkdir(p->dir, 0700), 0);
    write_file(p->dir, "model.pt", "weights");
    write_manifest(p, GOOD);
    *state = p;
    return 0;
}

static int tear_down(void **state) {
    place_t *p = *state;
    static const char *const names[] = {"cells/model.json", "cells/model.pt", "cells", "other/model.json", "other", ""};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", p->root, names[i]);
        remove(path);
    }
    free(p);
    return 0;
}

static void reads_a_good_model(void **state) {
    const place_t *p = *state;
    model_spec_t m;
    err_t err;
    assert_int_equal(model_spec_load(p->dir, &m, &err), ERR_OK);
    assert_string_equal(m.name, "cells");
    assert_string_equal(m.version, "1.2.0");
    assert_int_equal(m.scale, MODEL_SCALE_FIT_LONG_SIDE);
    assert_int_equal(m.scale_px, 768);
    assert_false(m.upscale);
    assert_int_equal(m.tile, 512);
    assert_int_equal(m.halo, 32);
    assert_int_equal(m.divisor, 16);
    assert_float_equal(m.percentile_high, 99.8, 0);
    assert_float_equal(m.seed_threshold, 0.6, 0);
    assert_float_equal(m.dist_sigma, 0.5, 0);
    assert_int_equal(m.max_hole_area, 9);
    assert_int_equal(strlen(m.sha256), 64);
}

static void reads_what_may_be_left_out(void **state) {
    const place_t *p = *state;
    model_spec_t m;
    err_t err;
    assert_int_equal(model_spec_load(p->dir, &m, &err), ERR_OK);
    assert_float_equal(m.min_confidence, 0, 0);
    assert_int_equal(m.small_area, 0);
    static const char votes[] = "{\"kind\":\"foreground_votes\",\"channels\":[\"foreground\",\"down\",\"right\"]}";
    char *json = replaced(GOOD, "{\"kind\":\"foreground_distance\",\"channels\":[\"foreground\",\"distance\"]}", votes);
    char *more = replaced(json, "\"maxHoleArea\":9",
                          "\"maxHoleArea\":9,\"smallArea\":200,\"smallSeedThreshold\":0.25,"
                          "\"minConfidence\":0.625");
    write_manifest(p, more);
    assert_int_equal(model_spec_load(p->dir, &m, &err), ERR_OK);
    assert_int_equal(m.small_area, 200);
    assert_float_equal(m.small_seed_threshold, 0.25, 0);
    assert_float_equal(m.min_confidence, 0.625, 0);
    /* one of the pair is not enough */
    char *half = replaced(more, "\"smallSeedThreshold\":0.25,", "");
    write_manifest(p, half);
    assert_int_equal(model_spec_load(p->dir, &m, &err), ERR_INVALID);
    assert_non_null(strstr(err.message, "smallSeedThreshold"));
    free(json);
    free(more);
    free(half);
}

static void names_the_field_that_is_wrong(void **state) {
    const place_t *p = *state;
    static const char *const cases[][3] = {
        {"\"schema\":1", "\"schema\":2", "schema"},
        {"\"name\":\"cells\"", "\"name\":\"../cells\"", "name"},
        {"\"title\":\"Cells\"", "\"title\":7", "title"},
        {"\"file\":\"model.pt\"", "\"file\":\"../../etc/passwd\"", "file"},
        {"\"sha256\":\"@SHA@\"", "\"sha256\":\"12\"", "sha256"},
        {"\"channels\":1", "\"channels\":3", "channels"},
        {"\"colour\":\"grey\"", "\"colour\":\"rgb\"", "colour"},
        {"\"kind\":\"fit_long_side\"", "\"kind\":\"magic\"", "scale"},
        {"\"px\":768", "\"px\":0", "px"},
        {"\"tile\":512", "\"tile\":500", "tile"},
        {"\"tile\":512", "\"tile\":64", "tile"},
        {"\"tile\":512", "\"tile\":1e9", "tile"},
        {"\"halo\":32", "\"halo\":-1", "halo"},
        {"\"halo\":32", "\"halo\":1.5", "halo"},
        {"\"divisor\":16", "\"divisor\":0", "divisor"},
        {"\"low\":1.0", "\"low\":99.9", "normalisation"},
        {"\"high\":99.8", "\"high\":101", "high"},
        {"\"kind\":\"foreground_distance\"", "\"kind\":\"flows\"", "kind"},
        {"\"threshold\":0.5", "\"threshold\":\"0.5\"", "threshold"},
        {"\"minArea\":15", "\"minArea\":-3", "minArea"},
        {"\"minArea\":15", "\"minArea\":15,\"minConfidence\":2", "minConfidence"},
        {"\"postprocess\":", "\"post\":", "postprocess"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *json = replaced(GOOD, cases[i][0], cases[i][1]);
        write_manifest(p, json);
        free(json);
        model_spec_t m;
        err_t err;
        err_clear(&err);
        if (model_spec_load(p->dir, &m, &err) != ERR_INVALID || strcmp(err.code, "model_invalid") != 0 ||
            !strstr(err.message, cases[i][2])) {
            fail_msg("%s -> %s: %s", cases[i][1], err.code, err.message);
        }
    }
}

static const char TEST_MODEL[] =
    "{\"schema\":1,\"name\":\"cells\",\"version\":\"1\",\"title\":\"Cells\","
    "\"input\":{\"channels\":1,\"colour\":\"grey\",\"pixelUnit\":\"native\",\"scale\":{\"kind\":\"native\"},"
    "\"tile\":128,\"halo\":16,\"divisor\":16,"
    "\"normalisation\":{\"kind\":\"percentile\",\"low\":1,\"high\":99,\"clipMin\":0,\"clipMax\":1}},"
    "\"output\":{\"kind\":\"test\"},"
    "\"test\":{\"milliseconds\":20,\"jitter\":0.25,\"failRate\":0.5,\"hang\":false,\"deaf\":true,\"while\":\"broken\"},"
    "\"postprocess\":{\"threshold\":0.5,\"seedThreshold\":0.6,\"seedMinArea\":4,\"minArea\":15,\"distSigma\":0,"
    "\"maxHoleArea\":0}}";

static void a_test_model_needs_no_module(void **state) {
    const place_t *p = *state;
    model_spec_t m, changed;
    err_t err;
    write_manifest(p, TEST_MODEL);
    assert_int_equal(model_spec_load(p->dir, &m, &err), ERR_OK);
    assert_int_equal(m.output, MODEL_OUTPUT_TEST);
    assert_int_equal(m.test.milliseconds, 20);
    assert_float_equal(m.test.jitter, 0.25, 0);
    assert_float_equal(m.test.fail_rate, 0.5, 0);
    assert_false(m.test.hang);
    assert_true(m.test.deaf);
    assert_string_equal(m.test.condition, "broken");
    assert_non_null(strstr(m.path, "cells/model.json"));
    assert_int_equal(strspn(m.sha256, "0123456789abcdef"), 64);
    /* another behaviour is another model */
    char *json = replaced(TEST_MODEL, "\"milliseconds\":20", "\"milliseconds\":21");
    write_manifest(p, json);
    free(json);
    assert_int_equal(model_spec_load(p->dir, &changed, &err), ERR_OK);
    assert_string_not_equal(m.sha256, changed.sha256);
    /* and a network is none */
    write_manifest(p, GOOD);
    assert_int_equal(model_spec_load(p->dir, &m, &err), ERR_OK);
    assert_int_equal(m.output, MODEL_OUTPUT_FOREGROUND_DISTANCE);
}

static void names_what_is_wrong_in_a_test_model(void **state) {
    const place_t *p = *state;
    static const char *const cases[][3] = {
        {"\"milliseconds\":20", "\"milliseconds\":-1", "milliseconds"},
        {"\"milliseconds\":20", "\"milliseconds\":1.5", "milliseconds"},
        {"\"milliseconds\":20,", "", "milliseconds"},
        {"\"jitter\":0.25", "\"jitter\":2", "jitter"},
        {"\"failRate\":0.5", "\"failRate\":1.01", "failRate"},
        {"\"hang\":false", "\"hang\":0", "hang"},
        {"\"deaf\":true", "\"deaf\":\"yes\"", "deaf"},
        {"\"while\":\"broken\"", "\"while\":\"../broken\"", "while"},
        {"\"while\":\"broken\"", "\"while\":7", "while"},
        {"\"test\":{", "\"tests\":{", "test"},
        {"\"schema\":1,", "\"schema\":1,\"file\":\"model.pt\",", "file"},
        {"\"threshold\":0.5", "\"threshold\":7", "threshold"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *json = replaced(TEST_MODEL, cases[i][0], cases[i][1]);
        write_manifest(p, json);
        free(json);
        model_spec_t m;
        err_t err;
        err_clear(&err);
        if (model_spec_load(p->dir, &m, &err) != ERR_INVALID || strcmp(err.code, "model_invalid") != 0 ||
            !strstr(err.message, cases[i][2])) {
            fail_msg("%s -> %s: %s", cases[i][1], err.code, err.message);
        }
    }
}

static void refuses_broken_json(void **state) {
    const place_t *p = *state;
    static const char *const texts[] = {"", "{", "[]", "null", "{\"schema\":1}", "\xff\xfe"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        write_file(p->dir, "model.json", texts[i]);
        model_spec_t m;
        err_t err;
        assert_int_equal(model_spec_load(p->dir, &m, &err), ERR_INVALID);
        assert_string_equal(err.code, "model_invalid");
    }
}

static void notices_a_damaged_file(void **state) {
    const place_t *p = *state;
    model_spec_t m;
    err_t err;
    write_file(p->dir, "model.pt", "weighty");
    assert_int_equal(model_spec_load(p->dir, &m, &err), ERR_INVALID);
    assert_string_equal(err.code, "model_damaged");
    char path[256];
    snprintf(path, sizeof path, "%s/model.pt", p->dir);
    unlink(path);
    assert_int_equal(model_spec_load(p->dir, &m, &err), ERR_INVALID);
    assert_string_equal(err.code, "model_damaged");
}

static void registry_keeps_good_models_and_reports_bad_ones(void **state) {
    const place_t *p = *state;
    char other[128];
    snprintf(other, sizeof other, "%s/other", p->root);
    assert_int_equal(mkdir(other, 0700), 0);
    write_file(other, "model.json", "{}");
    model_registry_t r;
    err_t err;
    assert_int_equal(models_load(p->root, NULL, &r, &err), ERR_OK);
    assert_int_equal(r.count, 1);
    assert_non_null(models_find(&r, "cells"));
    assert_null(models_find(&r, "other"));
    assert_int_equal(r.nproblems, 1);
    assert_string_equal(r.problems[0].name, "other");
    assert_string_equal(r.problems[0].err.code, "model_invalid");
    models_free(&r);

    assert_int_equal(models_load(p->root, "cells", &r, &err), ERR_OK);
    assert_int_equal(r.nproblems, 0);
    models_free(&r);
    assert_int_equal(models_load(p->root, "cells,other", &r, &err), ERR_INVALID);
    assert_int_equal(models_load(p->root, "cells, moon", &r, &err), ERR_NOT_FOUND);
    assert_string_equal(err.code, "model_missing");
    assert_int_equal(models_load("/nonexistent", NULL, &r, &err), ERR_NOT_FOUND);
    assert_string_equal(err.code, "models_missing");
}

static void folder_and_name_must_agree(void **state) {
    const place_t *p = *state;
    char *json = replaced(GOOD, "\"name\":\"cells\"", "\"name\":\"spots\"");
    write_manifest(p, json);
    free(json);
    model_registry_t r;
    err_t err;
    assert_int_equal(models_load(p->root, NULL, &r, &err), ERR_NOT_FOUND);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_a_good_model, set_up, tear_down),
        cmocka_unit_test_setup_teardown(reads_what_may_be_left_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(names_the_field_that_is_wrong, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_test_model_needs_no_module, set_up, tear_down),
        cmocka_unit_test_setup_teardown(names_what_is_wrong_in_a_test_model, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_broken_json, set_up, tear_down),
        cmocka_unit_test_setup_teardown(notices_a_damaged_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(registry_keeps_good_models_and_reports_bad_ones, set_up, tear_down),
        cmocka_unit_test_setup_teardown(folder_and_name_must_agree, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
