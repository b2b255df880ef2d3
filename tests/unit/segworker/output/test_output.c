/* Result files: valid JSON with the agreed members, SVG paths, label images, and no half-written files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <cjson/cJSON.h>

#include "common/image/image.h"
#include "segworker/output/output.h"
#include "segworker/pipeline/contour.h"

/* Two objects on 12×8 pixels: a ring with a hole and a bar. */
static result_t make_result(void) {
    static const char *const rows[] = {"aaaa....bb..", "a..a....bb..", "a..a....bb..", "aaaa........",
                                       "............", "............", "............", "............"};
    result_t r = {.width = 12, .height = 8, .count = 2, .threshold = 0.5, .detect_holes = true, .pixel_size_um = 0.65};
    err_t err;
    (void)snprintf(r.model, sizeof r.model, "nuclei");
    (void)snprintf(r.model_version, sizeof r.model_version, "1.0.0");
    (void)snprintf(r.model_sha256, sizeof r.model_sha256, "%064d", 7);
    (void)snprintf(r.note, sizeof r.note, "only page 1 of \"3\" \\ used\n");
    r.labels = calloc(12 * 8, sizeof *r.labels);
    r.objects = calloc(2, sizeof *r.objects);
    for (int i = 0; i < 12 * 8; i++) {
        char c = rows[i / 12][i % 12];
        r.labels[i] = c == '.' ? 0 : c - 'a' + 1;
    }
    geom_t g[2];
    assert_int_equal(contour_trace(r.labels, 12, 8, 2, NULL, NULL, g, &err), ERR_OK);
    for (uint32_t i = 0; i < 2; i++) {
        r.objects[i].idx = i + 1;
        r.objects[i].geom = g[i];
        r.objects[i].confidence = i ? 0.98765432F : 0.5F;
        assert_int_equal(measure_object(&g[i], NULL, 0, 0, &r.objects[i].m, &err), ERR_OK);
    }
    (void)snprintf(r.stages[0].name, sizeof r.stages[0].name, "decode");
    r.stages[0].seconds = 0.25;
    r.nstages = 1;
    return r;
}

static const cJSON *at(const cJSON *o, const char *path) {
    char key[64];
    while (o != NULL && *path != '\0') {
        size_t n = strcspn(path, ".");
        memcpy(key, path, n);
        key[n] = '\0';
        o = cJSON_IsArray(o) ? cJSON_GetArrayItem(o, (int)strtol(key, NULL, 10))
                             : cJSON_GetObjectItemCaseSensitive(o, key);
        path += n + (path[n] == '.');
    }
    return o;
}

static void want_string(const cJSON *o, const char *path, const char *want) {
    const cJSON *v = at(o, path);
    assert_non_null(v);
    assert_string_equal(v->valuestring, want);
}

static void want_number(const cJSON *o, const char *path, double want) {
    const cJSON *v = at(o, path);
    assert_non_null(v);
    assert_true(cJSON_IsNumber(v) && v->valuedouble == want);
}

static void geojson_is_what_qupath_reads(void **state) {
    (void)state;
    result_t r = make_result();
    output_options_t o = {.object_type = "detection", .classification = "Tumour \"A\"\xff"};
    buf_t buf, again;
    buf_init(&buf, 1 << 20);
    buf_init(&again, 1 << 20);
    output_write_geojson(&r, &o, &buf);
    output_write_geojson(&r, &o, &again);
    assert_string_equal(buf.data, again.data);
    cJSON *doc = cJSON_Parse(buf.data);
    assert_non_null(doc);
    want_string(doc, "type", "FeatureCollection");
    assert_int_equal(cJSON_GetArraySize(at(doc, "features")), 2);
    want_string(doc, "features.0.type", "Feature");
    want_string(doc, "features.0.geometry.type", "Polygon");
    assert_int_equal(cJSON_GetArraySize(at(doc, "features.0.geometry.coordinates")), 2); /* outer ring and hole */
    want_number(doc, "features.1.geometry.coordinates.0.0.0", 8);
    want_string(doc, "features.0.properties.objectType", "detection");
    want_string(doc, "features.0.properties.classification.name", "Tumour \"A\"\xEF\xBF\xBD");
    want_number(doc, "features.1.properties.idx", 2);
    want_number(doc, "features.1.properties.confidence", 0.9877);
    want_number(doc, "features.0.properties.measurements.area", 12);
    want_number(doc, "features.0.properties.measurements.holes", 1);
    const char *id = at(doc, "features.0.id")->valuestring, *id2 = at(doc, "features.1.id")->valuestring;
    assert_int_equal(strlen(id), 36);
    assert_true(id[8] == '-' && id[13] == '-' && id[14] == '8' && id[18] == '-' && id[23] == '-');
    assert_string_not_equal(id, id2);
    cJSON_Delete(doc);
    buf_reset(&buf);
    output_write_geojson(&r, NULL, &buf); /* defaults */
    doc = cJSON_Parse(buf.data);
    want_string(doc, "features.0.properties.objectType", "annotation");
    assert_null(at(doc, "features.0.properties.classification"));
    cJSON_Delete(doc);
    buf_free(&buf);
    buf_free(&again);
    result_free(&r);
}

static void json_holds_the_whole_run(void **state) {
    (void)state;
    result_t r = make_result();
    output_options_t o = {.image_name = "a/b \xC3\xA9.tif"};
    buf_t buf;
    buf_init(&buf, 1 << 20);
    output_write_json(&r, &o, &buf);
    cJSON *doc = cJSON_Parse(buf.data);
    assert_non_null(doc);
    want_string(doc, "image.name", "a/b \xC3\xA9.tif");
    want_number(doc, "image.width", 12);
    want_number(doc, "image.height", 8);
    want_number(doc, "image.pixelSizeUm", 0.65);
    want_string(doc, "model.name", "nuclei");
    want_string(doc, "model.version", "1.0.0");
    assert_int_equal(strlen(at(doc, "model.sha256")->valuestring), 64);
    want_number(doc, "parameters.threshold", 0.5);
    assert_true(cJSON_IsTrue(at(doc, "parameters.detectHoles")));
    want_string(doc, "note", "only page 1 of \"3\" \\ used\n");
    want_number(doc, "count", 2);
    want_number(doc, "objects.1.idx", 2);
    want_number(doc, "objects.1.measurements.area", 6);
    want_string(doc, "objects.1.geometry.type", "Polygon");
    assert_null(at(doc, "stages")); /* would differ from run to run */
    cJSON_Delete(doc);
    o.stage_times = true;
    r.pixel_size_um = 0;
    buf_reset(&buf);
    output_write_json(&r, &o, &buf);
    doc = cJSON_Parse(buf.data);
    want_string(doc, "stages.0.name", "decode");
    want_number(doc, "stages.0.seconds", 0.25);
    assert_true(cJSON_IsNull(at(doc, "image.pixelSizeUm")));
    cJSON_Delete(doc);
    buf_free(&buf);
    result_free(&r);
}

static void svg_has_one_even_odd_path_per_object(void **state) {
    (void)state;
    result_t r = make_result();
    output_options_t o = {.image_name = "<a&b>.tif"};
    buf_t buf;
    buf_init(&buf, 1 << 20);
    output_write_svg(&r, &o, &buf);
    assert_non_null(strstr(buf.data, "viewBox=\"0 0 12 8\""));
    assert_non_null(strstr(buf.data, "<title>&lt;a&amp;b&gt;.tif</title>"));
    assert_non_null(strstr(buf.data, "fill-rule=\"evenodd\""));
    assert_non_null(strstr(buf.data, "<path id=\"object-2\" d=\"M8 0L10 0L10 3L8 3Z\"/>"));
    const char *first = strstr(buf.data, "<path id=\"object-1\" d=\"M"), *end = strchr(first, '>');
    int subpaths = 0;
    for (const char *p = first; p < end; p++) {
        subpaths += *p == 'M';
    }
    assert_int_equal(subpaths, 2);
    assert_non_null(strstr(buf.data, "</svg>"));
    buf_free(&buf);
    result_free(&r);
}

static void formats_follow_the_name(void **state) {
    (void)state;
    assert_int_equal(output_format_of("a.geojson"), OUTPUT_GEOJSON);
    assert_int_equal(output_format_of("/x.y/a.JSON"), OUTPUT_JSON);
    assert_int_equal(output_format_of("a.b.svg"), OUTPUT_SVG);
    assert_int_equal(output_format_of("a.Png"), OUTPUT_PNG);
    assert_int_equal(output_format_of("a.tif"), OUTPUT_TIFF);
    assert_int_equal(output_format_of("a.tiff"), OUTPUT_TIFF);
    assert_int_equal(output_format_of("a"), OUTPUT_UNKNOWN);
    assert_int_equal(output_format_of("x.svg/a"), OUTPUT_UNKNOWN);
    assert_int_equal(output_format_of("a.jpg"), OUTPUT_UNKNOWN);
}

static void check_labels(const char *path, const result_t *r, int bytes) {
    image_limits_t lim = {1000000, 8000000, 1};
    image_t img;
    err_t err;
    assert_int_equal(image_decode(path, 0, &lim, &img, &err), ERR_OK);
    assert_int_equal(img.info.width, r->width);
    assert_int_equal(img.info.height, r->height);
    assert_int_equal(img.info.sample, bytes == 2 ? SAMPLE_U16 : SAMPLE_U32);
    static const char *const want[] = {"1111", "1001", "1001", "1111"};
    for (int i = 0; i < r->width * r->height; i++) {
        int x = i % r->width, y = i / r->width;
        uint32_t expected = x < 4 && y < 4 ? (uint32_t)(want[y][x] - '0') : x >= 8 && x < 10 && y < 3 ? 2 : 0;
        uint32_t v = bytes == 2 ? ((const uint16_t *)img.data)[i] : ((const uint32_t *)img.data)[i];
        assert_int_equal(v, expected);
    }
    image_free(&img);
}

static void files_are_written_whole(void **state) {
    (void)state;
    char dir[] = "/tmp/sg_output_XXXXXX", path[128];
    err_t err;
    result_t r = make_result();
    assert_non_null(mkdtemp(dir));
    static const char *const names[] = {"a.geojson", "a.json", "a.svg", "a.png", "a.tif"};
    for (int pass = 0; pass < 2; pass++) { /* with the label image, then drawn from the outlines */
        for (size_t i = 0; i < 5; i++) {
            struct stat st;
            (void)snprintf(path, sizeof path, "%s/%s", dir, names[i]);
            assert_int_equal(output_write_file(&r, path, NULL, &err), ERR_OK);
            assert_int_equal(stat(path, &st), 0);
            assert_true(st.st_size > 50);
            if (i >= 3) {
                check_labels(path, &r, i == 3 ? 2 : 4);
            }
            assert_int_equal(unlink(path), 0);
        }
        free(r.labels);
        r.labels = NULL;
    }
    (void)snprintf(path, sizeof path, "%s/none/a.json", dir);
    assert_int_equal(output_write_file(&r, path, NULL, &err), ERR_IO);
    assert_string_equal(err.code, "output_write_failed");
    (void)snprintf(path, sizeof path, "%s/a.jpg", dir);
    assert_int_equal(output_write_file(&r, path, NULL, &err), ERR_UNSUPPORTED);
    (void)snprintf(path, sizeof path, "%s/a.png", dir);
    uint32_t count = r.count;
    r.count = 70000;
    assert_int_equal(output_write_file(&r, path, NULL, &err), ERR_INVALID);
    assert_string_equal(err.code, "output_too_many_labels");
    r.count = count;
    assert_int_equal(rmdir(dir), 0); /* no temporary file was left behind */
    result_free(&r);
}

static void an_empty_result_is_a_valid_file(void **state) {
    (void)state;
    result_t r = {.width = 5, .height = 5};
    buf_t buf;
    buf_init(&buf, 1 << 20);
    output_write_geojson(&r, NULL, &buf);
    cJSON *doc = cJSON_Parse(buf.data);
    assert_int_equal(cJSON_GetArraySize(at(doc, "features")), 0);
    cJSON_Delete(doc);
    buf_reset(&buf);
    output_write_json(&r, NULL, &buf);
    doc = cJSON_Parse(buf.data);
    want_number(doc, "count", 0);
    cJSON_Delete(doc);
    buf_free(&buf);
    result_free(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(geojson_is_what_qupath_reads),
        cmocka_unit_test(json_holds_the_whole_run),
        cmocka_unit_test(svg_has_one_even_odd_path_per_object),
        cmocka_unit_test(formats_follow_the_name),
        cmocka_unit_test(files_are_written_whole),
        cmocka_unit_test(an_empty_result_is_a_valid_file),
    };
    return cmocka_run_group_tests_name("output", tests, NULL, NULL);
}
