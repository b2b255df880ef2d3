/*
 * Reads model folders. A manifest is other people's input: every field is typed, bounded and named in its error.
 */
#include "segworker/models.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "segworker/bioimage.h"

enum { MODELS_MAX = 1000 };

static err_kind_t invalid(err_t *err, const char *what) {
    return err_setf(err, ERR_INVALID, "model_invalid", "The model's model.json is wrong: %.180s.", what);
}

/* ---- typed access; the first failure stays in *err, later calls do nothing ---- */

typedef struct {
    err_t *err;
    err_kind_t kind;
} check_t;

static void fail(check_t *c, const char *field, const char *what) {
    if (c->kind == ERR_OK) {
        char text[160];
        snprintf(text, sizeof text, "%s %s", field, what);
        c->kind = invalid(c->err, text);
    }
}

static const cJSON *object(check_t *c, const cJSON *in, const char *field) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(in, field);
    if (!cJSON_IsObject(v)) {
        fail(c, field, "must be an object");
        return NULL;
    }
    return v;
}

static void text(check_t *c, const cJSON *in, const char *field, bool required, char *out, size_t size) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(in, field);
    out[0] = '\0';
    if (!v && !required) {
        return;
    }
    if (!v || !cJSON_IsString(v) || (required && v->valuestring[0] == '\0')) {
        fail(c, field, "must be a text");
    } else if (strlen(v->valuestring) >= size) {
        fail(c, field, "is too long");
    } else {
        memcpy(out, v->valuestring, strlen(v->valuestring) + 1);
    }
}

static double number(check_t *c, const cJSON *in, const char *field, double least, double most) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(in, field);
    if (!v || !cJSON_IsNumber(v) || !isfinite(v->valuedouble) || v->valuedouble < least || v->valuedouble > most) {
        char what[80];
        snprintf(what, sizeof what, "must be a number from %g to %g", least, most);
        fail(c, field, what);
        return least;
    }
    return v->valuedouble;
}

static int64_t whole(check_t *c, const cJSON *in, const char *field, double least, double most) {
    double v = number(c, in, field, least, most);
    if (v != floor(v)) {
        fail(c, field, "must be a whole number");
    }
    return (int64_t)v;
}

static bool yes_or_no(check_t *c, const cJSON *in, const char *field) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(in, field);
    if (!cJSON_IsBool(v)) {
        fail(c, field, "must be true or false");
    }
    return cJSON_IsTrue(v);
}

static void must_be(check_t *c, const cJSON *in, const char *field, const char *value) {
    char got[64], what[96];
    text(c, in, field, true, got, sizeof got);
    if (strcmp(got, value) != 0) {
        snprintf(what, sizeof what, "must be \"%s\"", value);
        fail(c, field, what);
    }
}

/* ---- the parts of a manifest ---- */

static bool is_name(const char *s) {
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_-");
    return n > 0 && s[n] == '\0' && s[0] != '-' && s[0] != '_';
}

static void read_scale(check_t *c, const cJSON *input, model_spec_t *m) {
    const cJSON *scale = object(c, input, "scale");
    char kind[32];
    text(c, scale, "kind", true, kind, sizeof kind);
    if (strcmp(kind, "native") == 0) {
        m->scale = MODEL_SCALE_NATIVE;
    } else if (strcmp(kind, "fit_long_side") == 0) {
        m->scale = MODEL_SCALE_FIT_LONG_SIDE;
        m->scale_px = (int)whole(c, scale, "px", 16, 65536);
        m->upscale = yes_or_no(c, scale, "upscale");
    } else if (strcmp(kind, "pixel_size") == 0) {
        m->scale = MODEL_SCALE_PIXEL_SIZE;
        m->scale_um = number(c, scale, "um", 1e-4, 1e4);
    } else {
        fail(c, "scale.kind", "must be \"native\", \"fit_long_side\" or \"pixel_size\"");
    }
}

/* Places in the network's maps are places in the image, and turned inputs can be turned back. */
static void check_turns(check_t *c, const model_spec_t *m) {
    if (c->kind == ERR_OK && (m->divisor % m->net.grid != 0 || m->halo % m->net.grid != 0)) {
        fail(c, "divisor", "and halo must be multiples of output.grid");
    }
    const char *why =
        model_tta_refused(&m->net, m->output == MODEL_OUTPUT_LABELS, m->output == MODEL_OUTPUT_STAR_CONVEX, m->net.tta);
    if (why) {
        char text[120];
        snprintf(text, sizeof text, "cannot be used: %s", why);
        fail(c, "testTimeAugmentation", text);
    }
    if (c->kind == ERR_OK && m->output == MODEL_OUTPUT_LABELS && m->tile < 4 * m->halo) {
        fail(c, "tile", "must be at least four halos for a model that gives labels");
    }
}

static void read_input(check_t *c, const cJSON *root, model_spec_t *m) {
    const cJSON *input = object(c, root, "input");
    must_be(c, input, "pixelUnit", "native");
    read_scale(c, input, m);
    m->divisor = (int)whole(c, input, "divisor", 1, 1024);
    m->tile = (int)whole(c, input, "tile", 16, 8192);
    m->halo = (int)whole(c, input, "halo", 0, 2048);
    if (c->kind == ERR_OK && m->tile % m->divisor != 0) {
        fail(c, "tile", "must be a multiple of divisor");
    }
    if (c->kind == ERR_OK && m->tile <= 2 * m->halo) {
        fail(c, "tile", "must be more than two halos");
    }
    const char *what = NULL, *field = model_net_read_input(input, &m->net, &what);
    if (field) {
        fail(c, field, what);
    }
    const model_step_t *s = &m->net.steps[0];
    if (m->net.nsteps > 0 && s->kind == MODEL_STEP_PERCENTILE) {
        m->percentile_low = s->a;
        m->percentile_high = s->b;
        m->clip_min = s->clip_min;
        m->clip_max = s->clip_max;
        m->min_range = s->min_range;
    } else if (m->output == MODEL_OUTPUT_TEST || m->output == MODEL_OUTPUT_CLASSICAL) {
        fail(c, "normalisation.kind", "must be \"percentile\" for a model without a network");
    }
    check_turns(c, m);
}

static bool is_plain_file(const char *name) {
    return !strchr(name, '/') && name[0] != '.';
}

static void read_test(check_t *c, const cJSON *root, model_spec_t *m) {
    const cJSON *test = object(c, root, "test");
    m->test.milliseconds = (int)whole(c, test, "milliseconds", 0, 3600000);
    m->test.jitter = number(c, test, "jitter", 0, 1);
    m->test.fail_rate = number(c, test, "failRate", 0, 1);
    m->test.hang = yes_or_no(c, test, "hang");
    m->test.deaf = yes_or_no(c, test, "deaf");
    text(c, test, "while", false, m->test.condition, sizeof m->test.condition);
    if (c->kind == ERR_OK && !is_plain_file(m->test.condition)) {
        fail(c, "while", "must be a plain file name");
    }
}

static void read_classical(check_t *c, const cJSON *root, model_spec_t *m) {
    const char *what = NULL, *field = classical_parse(root, &m->classical, &what);
    if (field) {
        fail(c, field, what);
    }
}

/* Parts of an image must look the same as the whole. */
static void check_reach(check_t *c, const model_spec_t *m) {
    bool one_tile = m->scale == MODEL_SCALE_FIT_LONG_SIDE && m->scale_px <= m->tile;
    if (c->kind == ERR_OK && m->output == MODEL_OUTPUT_CLASSICAL && !one_tile &&
        m->halo < classical_reach(&m->classical)) {
        fail(c, "halo", "is smaller than what the method looks at around a pixel");
    }
}

/* Which file the model is, and its checksum as stated; a model without a network is its model.json. */
static void read_kind(check_t *c, const cJSON *root, model_spec_t *m, char *file, size_t size) {
    char kind[32];
    text(c, object(c, root, "output"), "kind", true, kind, sizeof kind);
    bool test = strcmp(kind, "test") == 0;
    m->net.grid = 1;
    if (c->kind == ERR_OK && (test || strcmp(kind, "classical") == 0)) {
        m->output = test ? MODEL_OUTPUT_TEST : MODEL_OUTPUT_CLASSICAL;
        snprintf(file, size, "model.json");
        if (cJSON_HasObjectItem(root, "file") || cJSON_HasObjectItem(root, "sha256")) {
            fail(c, "file", "and sha256 have no place in a model without a network");
        }
        if (test) {
            read_test(c, root, m);
        } else {
            read_classical(c, root, m);
        }
        return;
    }
    static const struct {
        const char *word;
        model_output_t output;
    } kinds[] = {{"foreground_distance", MODEL_OUTPUT_FOREGROUND_DISTANCE},
                 {"foreground_boundary", MODEL_OUTPUT_FOREGROUND_BOUNDARY},
                 {"foreground_votes", MODEL_OUTPUT_FOREGROUND_VOTES},
                 {"semantic", MODEL_OUTPUT_SEMANTIC},
                 {"star_convex", MODEL_OUTPUT_STAR_CONVEX},
                 {"labels", MODEL_OUTPUT_LABELS}};
    size_t i = 0, n = sizeof kinds / sizeof kinds[0];
    while (i < n && strcmp(kind, kinds[i].word) != 0) {
        i++;
    }
    if (i == n) {
        fail(c, "output.kind",
             "must be \"foreground_distance\", \"foreground_boundary\", \"foreground_votes\", \"semantic\", "
             "\"star_convex\", \"labels\" or \"classical\"");
        return;
    }
    m->output = kinds[i].output;
    const char *what = NULL;
    const char *field = model_net_read_output(kind, cJSON_GetObjectItemCaseSensitive(root, "output"), &m->net, &what);
    if (field) {
        fail(c, field, what);
    }
    text(c, root, "file", true, file, size);
    text(c, root, "sha256", true, m->sha256, sizeof m->sha256);
    if (c->kind == ERR_OK && !is_plain_file(file)) {
        fail(c, "file", "must be a plain file name");
    }
    if (c->kind == ERR_OK && strspn(m->sha256, "0123456789abcdef") != 64) {
        fail(c, "sha256", "must be 64 lower-case hexadecimal digits");
    }
}

static void read_postprocess(check_t *c, const cJSON *root, model_spec_t *m) {
    const cJSON *post = object(c, root, "postprocess");
    m->threshold = 0.5; /* label images have none */
    if (m->output != MODEL_OUTPUT_LABELS) {
        m->threshold = number(c, post, "threshold", 0, 1);
    }
    if (m->output == MODEL_OUTPUT_STAR_CONVEX) {
        m->nms_threshold = number(c, post, "nmsThreshold", 0, 1);
    } else if (m->output != MODEL_OUTPUT_LABELS && m->output != MODEL_OUTPUT_SEMANTIC) {
        m->seed_threshold = number(c, post, "seedThreshold", 0, 1);
        m->dist_sigma = number(c, post, "distSigma", 0, 100);
        m->seed_min_area = whole(c, post, "seedMinArea", 0, 1e12);
    }
    if (m->output == MODEL_OUTPUT_FOREGROUND_VOTES && cJSON_GetObjectItemCaseSensitive(post, "smallArea")) {
        m->small_area = whole(c, post, "smallArea", 0, 1e12);
        m->small_seed_threshold = number(c, post, "smallSeedThreshold", 0, 1);
    }
    if (cJSON_GetObjectItemCaseSensitive(post, "minConfidence")) {
        m->min_confidence = number(c, post, "minConfidence", 0, 1);
    }
    m->object_size = MODEL_OBJECT_SIZE;
    if (cJSON_GetObjectItemCaseSensitive(post, "objectSize")) {
        m->object_size = (int)whole(c, post, "objectSize", 16, 1024);
    }
    m->min_area = whole(c, post, "minArea", 0, 1e12);
    m->max_hole_area = whole(c, post, "maxHoleArea", 0, 1e12);
    if (cJSON_GetObjectItemCaseSensitive(post, "dropBorder")) {
        m->drop_border = yes_or_no(c, post, "dropBorder");
    }
}

static err_kind_t parse(const cJSON *root, const char *dir, model_spec_t *m, err_t *err) {
    check_t c = {.err = err, .kind = ERR_OK};
    char file[256] = "";
    if (!cJSON_IsObject(root)) {
        return invalid(err, "it is no JSON object");
    }
    (void)whole(&c, root, "schema", 1, 1);
    text(&c, root, "name", true, m->name, sizeof m->name);
    text(&c, root, "version", true, m->version, sizeof m->version);
    text(&c, root, "title", true, m->title, sizeof m->title);
    text(&c, root, "description", false, m->description, sizeof m->description);
    text(&c, root, "license", false, m->license, sizeof m->license);
    if (c.kind == ERR_OK && !is_name(m->name)) {
        fail(&c, "name", "may hold only a-z, 0-9, _ and -");
    }
    if (c.kind == ERR_OK) {
        read_kind(&c, root, m, file, sizeof file);
        read_input(&c, root, m);
        read_postprocess(&c, root, m);
        check_reach(&c, m);
    }
    int n = snprintf(m->path, sizeof m->path, "%s/%s", dir, file);
    if (c.kind == ERR_OK && (n < 0 || (size_t)n >= sizeof m->path)) {
        fail(&c, "file", "has too long a path");
    }
    return c.kind;
}

/* ---- files ---- */

static err_kind_t read_manifest(const char *dir, char **text_out, err_t *err) {
    char path[4096];
    *text_out = NULL;
    if ((size_t)snprintf(path, sizeof path, "%s/model.json", dir) >= sizeof path) {
        return invalid(err, "its path is too long");
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        return err_set(err, ERR_NOT_FOUND, "model_missing", "The folder holds no model.json.", "%.300s: errno %d", path,
                       errno);
    }
    struct stat st;
    char *buf = NULL;
    err_kind_t k = ERR_OK;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > MODEL_MANIFEST_MAX) {
        k = invalid(err, "it is no file or larger than 1 MiB");
    } else {
        buf = calloc(1, (size_t)st.st_size + 1);
        if (!buf) {
            k = err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to read the models.", NULL);
        } else if (read(fd, buf, (size_t)st.st_size) != st.st_size) {
            k = err_set(err, ERR_IO, "model_unreadable", "The model.json cannot be read.", "%.300s", path);
        }
    }
    close(fd);
    if (k != ERR_OK) {
        free(buf);
        buf = NULL;
    }
    *text_out = buf;
    return k;
}

/* Hex SHA-256 of a file; false when it cannot be read. */
static bool hash_file(const char *path, char hex[65]) {
    enum { CHUNK = 1 << 16 };
    FILE *f = fopen(path, "rbe");
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    unsigned char *buf = malloc(CHUNK), digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    bool ok = f && ctx && buf && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;
    while (ok) {
        size_t got = fread(buf, 1, CHUNK, f);
        if (got == 0) {
            break;
        }
        ok = EVP_DigestUpdate(ctx, buf, got) == 1;
    }
    ok = ok && !ferror(f) && EVP_DigestFinal_ex(ctx, digest, &len) == 1 && len == 32;
    for (unsigned i = 0; ok && i < len; i++) {
        snprintf(hex + (size_t)i * 2, 3, "%02x", digest[i]);
    }
    if (f) {
        fclose(f);
    }
    EVP_MD_CTX_free(ctx);
    free(buf);
    return ok;
}

static err_kind_t check_file(model_spec_t *m, err_t *err) {
    char hex[65] = "";
    if (!hash_file(m->path, hex)) {
        return err_set(err, ERR_INVALID, "model_damaged", "The model's file named in model.json cannot be read.",
                       "%.300s", m->path);
    }
    /* a model without a network is what it says; a package need not state a checksum */
    if (m->output == MODEL_OUTPUT_TEST || m->output == MODEL_OUTPUT_CLASSICAL || (m->package && !m->sha256[0])) {
        memcpy(m->sha256, hex, sizeof hex);
        return ERR_OK;
    }
    if (strcmp(hex, m->sha256) != 0) {
        return err_set(err, ERR_INVALID, "model_damaged",
                       "The model's file does not match the checksum in its model.json. Copy the model again.",
                       "%.200s: expected %s, found %s", m->path, m->sha256, hex);
    }
    return ERR_OK;
}

/* A package has the name of its folder. */
static err_kind_t load_package(const char *dir, model_spec_t *out, err_t *err) {
    char name[sizeof out->name];
    size_t end = strlen(dir);
    while (end > 1 && dir[end - 1] == '/') {
        end--;
    }
    size_t begin = end;
    while (begin > 0 && dir[begin - 1] != '/') {
        begin--;
    }
    snprintf(name, sizeof name, "%.*s", (int)(end - begin < sizeof name ? end - begin : sizeof name - 1), dir + begin);
    err_kind_t k = bioimage_read(dir, is_name(name) ? name : "package", out, err);
    return k == ERR_OK ? check_file(out, err) : k;
}

err_kind_t models_manifest(const model_spec_t *m, char **text, err_t *err) {
    *text = NULL;
    if (m->package) {
        *text = bioimage_describe(m);
        return *text ? ERR_OK
                     : err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to read the models.",
                               NULL);
    }
    char dir[sizeof m->path];
    snprintf(dir, sizeof dir, "%s", m->path);
    char *slash = strrchr(dir, '/');
    if (slash) {
        *slash = '\0';
    }
    return read_manifest(slash ? dir : ".", text, err);
}

err_kind_t model_spec_load(const char *dir, model_spec_t *out, err_t *err) {
    memset(out, 0, sizeof *out);
    char *json = NULL;
    err_kind_t k = read_manifest(dir, &json, err);
    if (k == ERR_NOT_FOUND) {
        return load_package(dir, out, err);
    }
    if (k != ERR_OK) {
        return k;
    }
    cJSON *root = cJSON_Parse(json);
    k = root ? parse(root, dir, out, err) : invalid(err, "it is no valid JSON");
    if (k == ERR_OK) {
        k = check_file(out, err);
    }
    cJSON_Delete(root);
    free(json);
    return k;
}

/* ---- the registry ---- */

/* Those without a network after the others: the first is what is used when nobody chooses. */
static int by_name(const void *pa, const void *pb) {
    const model_spec_t *a = pa, *b = pb;
    int plain = (a->output == MODEL_OUTPUT_CLASSICAL) - (b->output == MODEL_OUTPUT_CLASSICAL);
    return plain ? plain : strcmp(a->name, b->name);
}

static bool is_wanted(const char *wanted, const char *name) {
    if (!wanted || !wanted[0]) {
        return true;
    }
    size_t len = strlen(name);
    for (const char *p = wanted; *p;) {
        p += strspn(p, ", ");
        size_t n = strcspn(p, ", ");
        if (n == len && strncmp(p, name, n) == 0) {
            return true;
        }
        p += n;
    }
    return false;
}

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to read the models.", NULL);
}

static err_kind_t add_problem(model_registry_t *r, const char *folder, const err_t *why, err_t *err) {
    void *more = realloc(r->problems, (size_t)(r->nproblems + 1) * sizeof *r->problems);
    if (!more) {
        return no_memory(err);
    }
    r->problems = more;
    snprintf(r->problems[r->nproblems].name, sizeof r->problems[0].name, "%s", folder);
    r->problems[r->nproblems++].err = *why;
    return ERR_OK;
}

static err_kind_t add_folder(model_registry_t *r, const char *dir, const char *folder, err_t *err) {
    char path[4096];
    err_t why;
    err_clear(&why);
    if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, folder) >= sizeof path) {
        return ERR_OK;
    }
    model_spec_t *more = realloc(r->models, (size_t)(r->count + 1) * sizeof *more);
    if (!more) {
        return no_memory(err);
    }
    r->models = more;
    model_spec_t *m = &r->models[r->count];
    err_kind_t k = model_spec_load(path, m, &why);
    if (k == ERR_OK && strcmp(m->name, folder) != 0) {
        k = invalid(&why, "name differs from the name of the folder");
    }
    if (k == ERR_OK) {
        r->count++;
        return ERR_OK;
    }
    return k == ERR_NOT_FOUND ? ERR_OK : add_problem(r, folder, &why, err);
}

/* Every wanted name must be there, and something at all. */
static err_kind_t check_wanted(const model_registry_t *r, const char *dir, const char *wanted, err_t *err) {
    for (const char *p = wanted ? wanted : ""; *p;) {
        p += strspn(p, ", ");
        size_t n = strcspn(p, ", ");
        char name[128];
        if (n == 0) {
            break;
        }
        snprintf(name, sizeof name, "%.*s", (int)(n < 100 ? n : 100), p);
        p += n;
        if (models_find(r, name)) {
            continue;
        }
        for (int i = 0; i < r->nproblems; i++) {
            if (strcmp(r->problems[i].name, name) == 0) {
                return err_set(err, r->problems[i].err.kind, r->problems[i].err.code, r->problems[i].err.message,
                               "model %s: %s", name, r->problems[i].err.detail);
            }
        }
        return err_setf(err, ERR_NOT_FOUND, "model_missing", "There is no model \"%s\" in %.120s.", name, dir);
    }
    if (r->count == 0) {
        return err_setf(err, ERR_NOT_FOUND, "models_missing", "The folder %.150s holds no usable model.", dir);
    }
    return ERR_OK;
}

err_kind_t models_load(const char *dir, const char *wanted, model_registry_t *out, err_t *err) {
    memset(out, 0, sizeof *out);
    DIR *d = opendir(dir);
    if (!d) {
        return err_setf(err, ERR_NOT_FOUND, "models_missing", "The folder of models, %.150s, cannot be opened.", dir);
    }
    err_kind_t k = ERR_OK;
    const struct dirent *e;
    while (k == ERR_OK && (e = readdir(d)) != NULL) {
        if (e->d_name[0] != '.' && is_wanted(wanted, e->d_name) && out->count + out->nproblems < MODELS_MAX) {
            k = add_folder(out, dir, e->d_name, err);
        }
    }
    closedir(d);
    if (k == ERR_OK && out->count > 1) {
        qsort(out->models, (size_t)out->count, sizeof *out->models, by_name);
    }
    if (k == ERR_OK) {
        k = check_wanted(out, dir, wanted, err);
    }
    if (k != ERR_OK) {
        models_free(out);
    }
    return k;
}

void models_free(model_registry_t *r) {
    free(r->models);
    free(r->problems);
    memset(r, 0, sizeof *r);
}

const model_spec_t *models_find(const model_registry_t *r, const char *name) {
    for (int i = 0; i < r->count; i++) {
        if (strcmp(r->models[i].name, name) == 0) {
            return &r->models[i];
        }
    }
    return NULL;
}
