/* See bioimage.h. The first thing that is not understood is named, and nothing after it is looked at. */
#include "segworker/bioimage.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "segworker/pipeline/star.h"
#include "segworker/yaml_tree.h"

enum { TILE_PX = 256, DEFAULT_HALO = 32, LARGEST = 8192 };

typedef struct {
    const yaml_tree_t *t;
    model_spec_t *m;
    err_t *err;
    err_kind_t kind;
    int size, step; /* of the input along y and x; step 0: only this size */
} reader_t;

static bool fail(reader_t *r, const char *what, const char *detail) {
    if (r->kind == ERR_OK) {
        r->kind = err_setf(r->err, ERR_INVALID, "model_invalid", "The model's rdf.yaml cannot be used: %.110s%s%.60s.",
                           what, detail ? ": " : "", detail ? detail : "");
    }
    return false;
}

static const yaml_value_t *get(const reader_t *r, const yaml_value_t *v, const char *key) {
    return yaml_get(r->t, v, key);
}

static const char *get_text(const reader_t *r, const yaml_value_t *v, const char *key) {
    return yaml_text(get(r, v, key));
}

static double number_or(const reader_t *r, const yaml_value_t *v, const char *key, double otherwise) {
    double d = otherwise;
    return yaml_number(get(r, v, key), &d) ? d : otherwise;
}

static bool is_word(const char *s, const char *word) {
    return s && strcmp(s, word) == 0;
}

/* ---- axes ---- */

/* 0.4: the letters "bcyx"; 0.5: a list of batch, channel, y, x. */
static bool check_axes(reader_t *r, const yaml_value_t *tensor, const char *which) {
    const yaml_value_t *axes = get(r, tensor, "axes");
    const char *letters = yaml_text(axes);
    static const char *const types[] = {"batch", "channel", "space", "space"};
    bool good = is_word(letters, "bcyx") || (yaml_is_list(axes) && yaml_count(axes) == 4);
    for (size_t i = 0; good && yaml_is_list(axes) && i < 4; i++) {
        const yaml_value_t *a = yaml_at(r->t, axes, i);
        good =
            (i < 2 || is_word(get_text(r, a, "id"), i == 2 ? "y" : "x")) && is_word(get_text(r, a, "type"), types[i]);
    }
    return good || fail(r, which, letters ? letters : "must be batch, channel, y, x");
}

/* Element i (0 b, 1 c, 2 y, 3 x) of a shape in either format. step 0: a fixed size. False: it follows another tensor.
 */
static bool read_size(const reader_t *r, const yaml_value_t *tensor, size_t i, double *least, double *step) {
    const yaml_value_t *shape = get(r, tensor, "shape"), *axis = yaml_at(r->t, get(r, tensor, "axes"), i);
    const yaml_value_t *size = get(r, axis, "size");
    *step = 0;
    if (yaml_number(size, least) || yaml_number(yaml_at(r->t, shape, i), least)) {
        return true;
    }
    if (get(r, size, "min") && get(r, size, "step")) {
        return yaml_number(get(r, size, "min"), least) && yaml_number(get(r, size, "step"), step);
    }
    return yaml_number(yaml_at(r->t, get(r, shape, "min"), i), least) &&
           yaml_number(yaml_at(r->t, get(r, shape, "step"), i), step);
}

static size_t names_of(const reader_t *r, const yaml_value_t *tensor, const yaml_value_t **names) {
    *names = get(r, yaml_at(r->t, get(r, tensor, "axes"), 1), "channel_names");
    return yaml_is_list(*names) ? yaml_count(*names) : 0;
}

static int channels_of(const reader_t *r, const yaml_value_t *tensor) {
    const yaml_value_t *names = NULL;
    double n = (double)names_of(r, tensor, &names), step = 0;
    if (n == 0 && !read_size(r, tensor, 1, &n, &step)) {
        const yaml_value_t *shape = get(r, tensor, "shape"); /* 0.4: scale 0 and twice the channels as offset */
        double offset = 0;
        n = yaml_number(yaml_at(r->t, get(r, shape, "offset"), 1), &offset) ? 2 * offset : 0;
    }
    return n >= 1 && n <= 1 + STAR_MAX_RAYS && n == floor(n) ? (int)n : 0;
}

/* ---- input ---- */

static bool read_input_size(reader_t *r, const yaml_value_t *input) {
    double y = 0, x = 0, ystep = 0, xstep = 0;
    if (!read_size(r, input, 2, &y, &ystep) || !read_size(r, input, 3, &x, &xstep)) {
        return fail(r, "the input says no size for y and x", NULL);
    }
    if (y != x || ystep != xstep || !(y >= 1 && y <= LARGEST) || !(ystep >= 0 && ystep <= LARGEST)) {
        return fail(r, "the input's size must be the same along y and x, and at most 8192", NULL);
    }
    if (ystep > 0 && fmod(y, ystep) != 0) {
        return fail(r, "the input's least size is no multiple of its step", NULL);
    }
    r->size = (int)y;
    r->step = (int)ystep;
    return true;
}

/* A number, or a list with one for each channel. */
static bool per_channel(const reader_t *r, const yaml_value_t *v, double otherwise, double out[MODEL_MAX_INPUTS]) {
    double one = otherwise;
    if (v && !yaml_is_list(v) && !yaml_number(v, &one)) {
        return false;
    }
    for (size_t c = 0; c < MODEL_MAX_INPUTS; c++) {
        out[c] = one;
        if (yaml_is_list(v) && !yaml_number(yaml_at(r->t, v, c < yaml_count(v) ? c : yaml_count(v) - 1), &out[c])) {
            return false;
        }
    }
    return true;
}

/* Statistics over all channels, not each one's own? */
static bool over_channels(const reader_t *r, const yaml_value_t *kwargs) {
    const yaml_value_t *axes = get(r, kwargs, "axes");
    const char *letters = yaml_text(axes);
    bool found = letters && strchr(letters, 'c');
    for (size_t i = 0; i < yaml_count(axes) && yaml_is_list(axes); i++) {
        const char *a = yaml_text(yaml_at(r->t, axes, i));
        found = found || is_word(a, "channel") || is_word(a, "c");
    }
    return found;
}

static bool read_fixed(reader_t *r, const yaml_value_t *kwargs, model_step_t *s) {
    double mean[MODEL_MAX_INPUTS], deviation[MODEL_MAX_INPUTS];
    if (!per_channel(r, get(r, kwargs, "mean"), 0, mean) || !per_channel(r, get(r, kwargs, "std"), 1, deviation)) {
        return fail(r, "mean and std of the preprocessing must be numbers", NULL);
    }
    s->kind = MODEL_STEP_LINEAR;
    for (int c = 0; c < MODEL_MAX_INPUTS; c++) {
        if (!(deviation[c] > 0)) {
            return fail(r, "std of the preprocessing must be above 0", NULL);
        }
        s->gain[c] = 1 / deviation[c];
        s->offset[c] = -mean[c] / deviation[c];
    }
    return true;
}

static bool read_scale_range(reader_t *r, const yaml_value_t *kwargs, model_step_t *s) {
    const char *mode = get_text(r, kwargs, "mode");
    if ((mode && !is_word(mode, "per_sample")) || get(r, kwargs, "reference_tensor")) {
        return fail(r, "scale_range is understood per sample only", mode);
    }
    s->kind = MODEL_STEP_PERCENTILE;
    s->a = number_or(r, kwargs, "min_percentile", 0);
    s->b = number_or(r, kwargs, "max_percentile", 100);
    s->clip_min = -1e6; /* it does not clip */
    s->clip_max = 1e6;
    s->together = over_channels(r, kwargs);
    return (s->a >= 0 && s->a < s->b && s->b <= 100) || fail(r, "scale_range has wrong percentiles", NULL);
}

static bool read_zero_mean(reader_t *r, const yaml_value_t *kwargs, model_step_t *s) {
    const char *mode = get_text(r, kwargs, "mode");
    if (is_word(mode, "fixed")) {
        return read_fixed(r, kwargs, s);
    }
    if (mode && !is_word(mode, "per_sample")) {
        return fail(r, "zero_mean_unit_variance has a mode that is not understood", mode);
    }
    s->kind = MODEL_STEP_MEAN_STD;
    s->a = number_or(r, kwargs, "eps", 1e-6);
    s->together = over_channels(r, kwargs);
    return true;
}

/* One step; *used = false when it asks for nothing. */
static bool read_step(reader_t *r, const yaml_value_t *step, model_step_t *s, bool *used) {
    const char *name = get_text(r, step, "id") ? get_text(r, step, "id") : get_text(r, step, "name");
    const yaml_value_t *kwargs = get(r, step, "kwargs");
    *used = true;
    if (is_word(name, "zero_mean_unit_variance")) {
        return read_zero_mean(r, kwargs, s);
    }
    if (is_word(name, "fixed_zero_mean_unit_variance")) {
        return read_fixed(r, kwargs, s);
    }
    if (is_word(name, "scale_range")) {
        return read_scale_range(r, kwargs, s);
    }
    if (is_word(name, "scale_linear")) {
        s->kind = MODEL_STEP_LINEAR;
        return (per_channel(r, get(r, kwargs, "gain"), 1, s->gain) &&
                per_channel(r, get(r, kwargs, "offset"), 0, s->offset)) ||
               fail(r, "gain and offset of scale_linear must be numbers", NULL);
    }
    if (is_word(name, "clip")) {
        s->kind = MODEL_STEP_CLIP;
        s->a = number_or(r, kwargs, "min", -1e30);
        s->b = number_or(r, kwargs, "max", 1e30);
        return true;
    }
    if (is_word(name, "binarize")) {
        s->kind = MODEL_STEP_BINARIZE;
        return yaml_number(get(r, kwargs, "threshold"), &s->a) || fail(r, "binarize has no threshold", NULL);
    }
    if (is_word(name, "ensure_dtype")) {
        const char *type = get_text(r, kwargs, "dtype");
        *used = false;
        return is_word(type, "float32") || fail(r, "ensure_dtype is understood for float32 only", type);
    }
    return fail(r, "its preprocessing is not understood", name ? name : "no name");
}

static bool read_input(reader_t *r) {
    const yaml_value_t *inputs = get(r, yaml_root(r->t), "inputs"), *input = yaml_at(r->t, inputs, 0);
    model_net_t *net = &r->m->net;
    if (yaml_count(inputs) != 1 || !input) {
        return fail(r, "it must have exactly one input", NULL);
    }
    if (!check_axes(r, input, "the input's axes are not understood") || !read_input_size(r, input)) {
        return false;
    }
    net->inputs = channels_of(r, input);
    if (net->inputs != 1 && net->inputs != MODEL_MAX_INPUTS) {
        return fail(r, "the input must have 1 or 3 channels", NULL);
    }
    const yaml_value_t *steps = get(r, input, "preprocessing");
    for (size_t i = 0; i < yaml_count(steps) && yaml_is_list(steps); i++) {
        bool used = false;
        if (net->nsteps == MODEL_MAX_STEPS) {
            return fail(r, "it has more than 8 steps of preprocessing", NULL);
        }
        if (!read_step(r, yaml_at(r->t, steps, i), &net->steps[net->nsteps], &used)) {
            return false;
        }
        net->nsteps += used;
    }
    return true;
}

/* ---- output ---- */

static bool read_postprocessing(reader_t *r, const yaml_value_t *output) {
    const yaml_value_t *steps = get(r, output, "postprocessing");
    for (size_t i = 0; yaml_is_list(steps) && i < yaml_count(steps); i++) {
        const yaml_value_t *step = yaml_at(r->t, steps, i);
        const char *name = get_text(r, step, "id") ? get_text(r, step, "id") : get_text(r, step, "name");
        if (is_word(name, "sigmoid")) {
            r->m->net.activation = MODEL_ACTIVATION_SIGMOID;
        } else if (is_word(name, "softmax")) {
            r->m->net.activation = MODEL_ACTIVATION_SOFTMAX;
        } else if (is_word(name, "binarize")) {
            r->m->threshold = number_or(r, get(r, step, "kwargs"), "threshold", r->m->threshold);
        } else if (!is_word(name, "ensure_dtype")) {
            return fail(r, "its postprocessing is not understood", name ? name : "no name");
        }
    }
    return true;
}

/* The output must lie on the input: factor 1, or 1/grid, and no border cut off. */
static bool read_geometry(reader_t *r, const yaml_value_t *output) {
    const yaml_value_t *shape = get(r, output, "shape"), *axis = yaml_at(r->t, get(r, output, "axes"), 2);
    double scale = 1, offset = 0, halo = 0;
    (void)yaml_number(yaml_at(r->t, get(r, shape, "scale"), 2), &scale);
    (void)yaml_number(get(r, axis, "scale"), &scale); /* in px of the image */
    (void)yaml_number(yaml_at(r->t, get(r, shape, "offset"), 2), &offset);
    (void)yaml_number(get(r, get(r, axis, "size"), "offset"), &offset);
    if (offset != 0) {
        return fail(r, "the output must be as large as the input: shapes with an offset are not understood", NULL);
    }
    double grid = scale < 1 ? 1 / scale : scale;
    if (!(scale > 0) || (grid != 1 && grid != 2 && grid != 4 && grid != 8 && grid != 16)) {
        return fail(r, "the output's scale must be 1, 1/2, 1/4, 1/8 or 1/16", NULL);
    }
    r->m->net.grid = (int)grid;
    bool given =
        yaml_number(yaml_at(r->t, get(r, output, "halo"), 2), &halo) || yaml_number(get(r, axis, "halo"), &halo);
    r->m->halo = given && halo >= 0 && halo <= 1024 ? (int)halo : DEFAULT_HALO;
    r->m->halo = (r->m->halo + r->m->net.grid - 1) / r->m->net.grid * r->m->net.grid;
    return true;
}

static int find_name(const reader_t *r, const yaml_value_t *names, const char *const *words) {
    for (size_t i = 0; yaml_is_list(names) && i < yaml_count(names); i++) {
        const char *s = yaml_text(yaml_at(r->t, names, i));
        for (int w = 0; words[w]; w++) {
            if (is_word(s, words[w])) {
                return (int)i;
            }
        }
    }
    return -1;
}

static bool read_star(reader_t *r, const yaml_value_t *stardist) {
    const yaml_value_t *config = get(r, stardist, "config"), *thresholds = get(r, stardist, "thresholds");
    double rays = number_or(r, config ? config : stardist, "n_rays", r->m->net.channels - 1);
    double grid = r->m->net.grid;
    (void)yaml_number(yaml_at(r->t, get(r, config ? config : stardist, "grid"), 0), &grid);
    if (rays != r->m->net.channels - 1 || rays < STAR_MIN_RAYS || rays > STAR_MAX_RAYS) {
        return fail(r, "a StarDist output must have one channel more than there are rays", NULL);
    }
    if (grid != r->m->net.grid) {
        return fail(r, "StarDist's grid and the output's scale differ", NULL);
    }
    r->m->output = MODEL_OUTPUT_STAR_CONVEX;
    r->m->net.rays = (int)rays;
    r->m->threshold = number_or(r, thresholds, "prob", r->m->threshold);
    r->m->nms_threshold = number_or(r, thresholds, "nms", r->m->nms_threshold);
    return true;
}

/* What the channels mean. */
static bool read_meaning(reader_t *r, const yaml_value_t *output, const yaml_value_t *own) {
    static const char *const fg[] = {"foreground", "fg", "mask", "nuclei", "cells", NULL};
    static const char *const bd[] = {"boundary", "boundaries", "border", "edges", NULL};
    static const char *const dt[] = {"distance", "distances", "dist", NULL};
    model_net_t *net = &r->m->net;
    const yaml_value_t *names = NULL;
    bool named = names_of(r, output, &names) > 0;
    const char *kind = get_text(r, own, "kind"), *type = get_text(r, output, "data_type");
    type = type ? type : get_text(r, get(r, output, "data"), "type");
    int first = find_name(r, names, fg), boundary = find_name(r, names, bd), distance = find_name(r, names, dt);
    net->first = first >= 0 ? first : 0;
    net->second = net->first == 0 ? 1 : 0;
    if (is_word(kind, "labels") || (!kind && net->channels == 1 && type && (type[0] == 'i' || type[0] == 'u'))) {
        r->m->output = MODEL_OUTPUT_LABELS;
    } else if (is_word(kind, "semantic") || (!kind && net->channels == 1)) {
        r->m->output = MODEL_OUTPUT_SEMANTIC;
        net->foreground[net->channels == 1 ? 0 : first >= 0 ? first : net->channels - 1] = true;
    } else if (is_word(kind, "foreground_distance") || (!kind && first >= 0 && distance >= 0)) {
        r->m->output = MODEL_OUTPUT_FOREGROUND_DISTANCE;
        net->second = distance >= 0 ? distance : net->second;
    } else if (is_word(kind, "foreground_boundary") || (!kind && first >= 0 && boundary >= 0) ||
               (!kind && !named && net->channels == 2)) {
        r->m->output = MODEL_OUTPUT_FOREGROUND_BOUNDARY;
        net->second = boundary >= 0 ? boundary : net->second;
    } else {
        return fail(r, "it does not say what its output's channels mean", kind);
    }
    if (net->second >= net->channels && net->channels == 1 && r->m->output != MODEL_OUTPUT_LABELS &&
        r->m->output != MODEL_OUTPUT_SEMANTIC) {
        return fail(r, "this kind needs two channels", kind);
    }
    return net->grid == 1 || fail(r, "an output smaller than the input is understood for StarDist only", NULL);
}

static bool read_output(reader_t *r) {
    const yaml_value_t *root = yaml_root(r->t), *outputs = get(r, root, "outputs");
    const yaml_value_t *output = yaml_at(r->t, outputs, 0), *config = get(r, root, "config");
    const yaml_value_t *own = get(r, config, "spheroseg"), *stardist = get(r, config, "stardist");
    if (yaml_count(outputs) != 1 || !output) {
        return fail(r, "it must have exactly one output", NULL);
    }
    if (!check_axes(r, output, "the output's axes are not understood") || !read_geometry(r, output) ||
        !read_postprocessing(r, output)) {
        return false;
    }
    r->m->net.channels = channels_of(r, output);
    if (r->m->net.channels == 0) {
        return fail(r, "the output does not say how many channels it has", NULL);
    }
    if (stardist && !get_text(r, own, "kind")) {
        return read_star(r, stardist);
    }
    return (r->m->net.channels <= MODEL_MAX_CHANNELS || fail(r, "the output has more than 16 channels", NULL)) &&
           read_meaning(r, output, own);
}

/* ---- the rest ---- */

static bool read_weights(reader_t *r, const char *dir) {
    const yaml_value_t *weights = get(r, yaml_root(r->t), "weights"), *ts = get(r, weights, "torchscript");
    const char *source = get_text(r, ts, "source"), *sha256 = get_text(r, ts, "sha256");
    if (!ts) {
        return fail(r, "it has no TorchScript weights, but",
                    yaml_count(weights) > 0 ? yaml_key(r->t, weights, 0) : "none");
    }
    if (!source || strchr(source, '/') || source[0] == '.' || source[0] == '\0') {
        return fail(r, "weights.torchscript.source must be a file of the package; fetch it into the folder", source);
    }
    if (sha256 && strspn(sha256, "0123456789abcdef") != 64) {
        return fail(r, "weights.torchscript.sha256 is no checksum", NULL);
    }
    snprintf(r->m->sha256, sizeof r->m->sha256, "%.64s", sha256 ? sha256 : "");
    int n = snprintf(r->m->path, sizeof r->m->path, "%s/%s", dir, source);
    return (n > 0 && (size_t)n < sizeof r->m->path) || fail(r, "the path is too long", NULL);
}

/* Tiles are multiples of what the network takes, at least as large as it needs. */
static bool choose_tile(reader_t *r) {
    model_spec_t *m = r->m;
    m->divisor = r->step == 0 || r->size > r->step ? r->size : r->step;
    m->tile = m->divisor;
    while (r->step > 0 && (m->tile < TILE_PX || m->tile < 5 * m->halo) && m->tile + m->divisor <= LARGEST) {
        m->tile += m->divisor;
    }
    if (r->step == 0 && m->tile < 5 * m->halo) { /* a network of one size: the halo has to give way */
        m->halo = m->tile / 5 / m->net.grid * m->net.grid;
    }
    return m->divisor % m->net.grid == 0 || fail(r, "the input's step is no multiple of the output's grid", NULL);
}

static bool read_own(reader_t *r) {
    const yaml_value_t *own = get(r, get(r, yaml_root(r->t), "config"), "spheroseg");
    model_spec_t *m = r->m;
    double threshold = number_or(r, own, "threshold", m->threshold), seed = number_or(r, own, "seedThreshold", 0.5);
    double nms = number_or(r, own, "nmsThreshold", m->nms_threshold), min = number_or(r, own, "minArea", 15);
    double hole = number_or(r, own, "maxHoleArea", 10), size = number_or(r, own, "objectSize", MODEL_OBJECT_SIZE);
    bool good = threshold > 0 && threshold < 1 && seed >= 0 && seed <= 1 && nms >= 0 && nms <= 1 && min >= 0 &&
                min <= 1e12 && hole >= 0 && hole <= 1e12 && size >= 16 && size <= 1024;
    m->threshold = threshold;
    m->seed_threshold = seed;
    m->nms_threshold = nms;
    m->seed_min_area = 6;
    m->min_area = (int64_t)min;
    m->max_hole_area = (int64_t)hole;
    m->object_size = (int)size;
    return good || fail(r, "config.spheroseg, or a threshold, is out of range", NULL);
}

/* As much as fits, not ending inside a character. */
static void copy_words(char *out, size_t size, const char *words) {
    size_t n = strlen(words);
    if (n >= size) {
        n = size - 1;
        while (n > 0 && ((unsigned char)words[n] & 0xC0) == 0x80) {
            n--;
        }
    }
    memcpy(out, words, n);
    out[n] = '\0';
}

static bool read_package(reader_t *r, const char *dir, const char *name) {
    const yaml_value_t *root = yaml_root(r->t);
    model_spec_t *m = r->m;
    const char *title = get_text(r, root, "name"), *words = get_text(r, root, "description");
    const char *license = get_text(r, root, "license"), *version = get_text(r, root, "version");
    const char *format = get_text(r, root, "format_version");
    if (!format || (strncmp(format, "0.4.", 4) != 0 && strncmp(format, "0.5.", 4) != 0)) {
        return fail(r, "its format_version is not 0.4 or 0.5", format);
    }
    copy_words(m->name, sizeof m->name, name);
    copy_words(m->title, sizeof m->title, title && title[0] ? title : name);
    copy_words(m->description, sizeof m->description, words ? words : "");
    copy_words(m->license, sizeof m->license, license ? license : "");
    copy_words(m->version, sizeof m->version, version && version[0] ? version : "1");
    m->package = true;
    m->threshold = 0.5;
    m->nms_threshold = 0.4;
    return read_weights(r, dir) && read_input(r) && read_output(r) && read_own(r) && choose_tile(r);
}

err_kind_t bioimage_read(const char *dir, const char *name, model_spec_t *out, err_t *err) {
    char path[4200];
    yaml_tree_t *t = NULL;
    (void)snprintf(path, sizeof path, "%.4090s/rdf.yaml", dir);
    if (access(path, F_OK) != 0) {
        (void)snprintf(path, sizeof path, "%.4090s/bioimageio.yaml", dir);
    }
    err_kind_t k = yaml_tree_read(path, &t, err);
    if (k != ERR_OK) {
        return k;
    }
    reader_t r = {.t = t, .m = out, .err = err, .kind = ERR_OK};
    memset(out, 0, sizeof *out);
    (void)read_package(&r, dir, name);
    yaml_tree_free(t);
    return r.kind;
}

/* ---- telling ---- */

static const char *output_word(model_output_t output) {
    static const char *const words[] = {
        [MODEL_OUTPUT_FOREGROUND_DISTANCE] = "foreground_distance",
        [MODEL_OUTPUT_FOREGROUND_BOUNDARY] = "foreground_boundary",
        [MODEL_OUTPUT_SEMANTIC] = "semantic",
        [MODEL_OUTPUT_STAR_CONVEX] = "star_convex",
        [MODEL_OUTPUT_LABELS] = "labels",
    };
    return (size_t)output < sizeof words / sizeof words[0] && words[output] ? words[output] : "other";
}

char *bioimage_describe(const model_spec_t *m) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddNumberToObject(root, "schema", 1);
    cJSON_AddStringToObject(root, "source", "bioimage.io");
    cJSON_AddStringToObject(root, "name", m->name);
    cJSON_AddStringToObject(root, "version", m->version);
    cJSON_AddStringToObject(root, "title", m->title);
    cJSON_AddStringToObject(root, "description", m->description);
    cJSON_AddStringToObject(root, "license", m->license);
    cJSON_AddStringToObject(root, "sha256", m->sha256);
    cJSON *input = cJSON_AddObjectToObject(root, "input");
    cJSON_AddNumberToObject(input, "channels", m->net.inputs);
    cJSON_AddNumberToObject(input, "tile", m->tile);
    cJSON_AddNumberToObject(input, "halo", m->halo);
    cJSON_AddNumberToObject(input, "divisor", m->divisor);
    cJSON *output = cJSON_AddObjectToObject(root, "output");
    cJSON_AddStringToObject(output, "kind", output_word(m->output));
    cJSON *post = cJSON_AddObjectToObject(root, "postprocess");
    cJSON_AddNumberToObject(post, "threshold", m->threshold);
    cJSON_AddNumberToObject(post, "minArea", (double)m->min_area);
    cJSON_AddNumberToObject(post, "maxHoleArea", (double)m->max_hole_area);
    char *text = root ? cJSON_PrintUnformatted(root) : NULL;
    cJSON_Delete(root);
    return text;
}
