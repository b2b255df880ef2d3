/* The object "classical" of a model.json: every field typed and bounded. */
#include <math.h>
#include <string.h>

#include "segworker/classical/classical.h"

typedef struct {
    const cJSON *in;
    const char *field, *what; /* the first that is wrong */
} reader_t;

static void fail(reader_t *r, const char *field, const char *what) {
    if (r->field == NULL) {
        r->field = field;
        r->what = what;
    }
}

static double number(reader_t *r, const char *field, double least, double most, const char *what) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(r->in, field);
    if (!cJSON_IsNumber(v) || !(v->valuedouble >= least && v->valuedouble <= most)) {
        fail(r, field, what);
        return least;
    }
    return v->valuedouble;
}

static int whole(reader_t *r, const char *field, int least, int most, const char *what) {
    double v = number(r, field, least, most, what);
    if (v != floor(v)) {
        fail(r, field, what);
    }
    return (int)v;
}

/* Index of the field's text in words. */
static int choice(reader_t *r, const char *field, const char *const *words, int n, const char *what) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(r->in, field);
    for (int i = 0; cJSON_IsString(v) && i < n; i++) {
        if (strcmp(v->valuestring, words[i]) == 0) {
            return i;
        }
    }
    fail(r, field, what);
    return 0;
}

const char *classical_parse(const cJSON *root, classical_params_t *out, const char **what) {
    static const char *const methods[] = {"sauvola", "niblack", "gaussian"}, *const sides[] = {"auto", "dark",
                                                                                               "bright"};
    reader_t r = {.in = cJSON_GetObjectItemCaseSensitive(root, "classical")};
    memset(out, 0, sizeof *out);
    *what = "must be an object";
    if (!cJSON_IsObject(r.in)) {
        return "classical";
    }
    out->method = (classical_method_t)choice(&r, "method", methods, 3,
                                             "must be \"sauvola\", \"niblack\" or "
                                             "\"gaussian\"");
    out->polarity = (classical_polarity_t)choice(&r, "polarity", sides, 3, "must be \"auto\", \"dark\" or \"bright\"");
    out->window = whole(&r, "window", 3, 4001, "must be an odd whole number from 3 to 4001");
    if (out->window % 2 == 0) {
        fail(&r, "window", "must be an odd whole number from 3 to 4001");
    }
    out->k = number(&r, "k", -1, 1, "must be a number from -1 to 1");
    out->offset = number(&r, "offset", -1, 1, "must be a number from -1 to 1");
    out->smooth = number(&r, "smooth", 0, 20, "must be a number from 0 to 20");
    out->open = whole(&r, "open", 0, 100, "must be a whole number from 0 to 100");
    out->close = whole(&r, "close", 0, 100, "must be a whole number from 0 to 100");
    out->fill = whole(&r, "fill", 0, INT32_MAX, "must be a whole number of px");
    out->edge_contrast = number(&r, "edgeContrast", 0, 1, "must be a number from 0 to 1");
    out->neck = number(&r, "neck", 0, 1, "must be a number from 0 to 1; 0 separates nothing");
    out->split = out->neck > 0;
    *what = r.what;
    return r.field;
}
