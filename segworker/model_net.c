/* Reading of what a network takes and gives. Each field is typed and bounded; see model_net.h. */
#include "segworker/model_net.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "segworker/pipeline/star.h"

static bool get_text(const cJSON *in, const char *field, const char **out) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(in, field);
    *out = cJSON_IsString(v) ? v->valuestring : NULL;
    return *out != NULL;
}

static bool get_number(const cJSON *in, const char *field, double least, double most, double *out) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(in, field);
    if (!cJSON_IsNumber(v) || !(v->valuedouble >= least && v->valuedouble <= most)) {
        return false;
    }
    *out = v->valuedouble;
    return true;
}

static bool get_whole(const cJSON *in, const char *field, int least, int most, int *out) {
    double v = 0;
    if (!get_number(in, field, least, most, &v) || v != floor(v)) {
        return false;
    }
    *out = (int)v;
    return true;
}

/* ---- output ---- */

/* Index of the name in the list of channels; -1: not there. */
static int find_channel(const cJSON *channels, const char *name) {
    int i = 0;
    const cJSON *c;
    cJSON_ArrayForEach(c, channels) {
        if (cJSON_IsString(c) && strcmp(c->valuestring, name) == 0) {
            return i;
        }
        i++;
    }
    return -1;
}

static const char *read_channels(const cJSON *output, model_net_t *n, const cJSON **channels, const char **what) {
    *channels = cJSON_GetObjectItemCaseSensitive(output, "channels");
    n->channels = cJSON_GetArraySize(*channels);
    const cJSON *c;
    bool named = cJSON_IsArray(*channels) && n->channels >= 1 && n->channels <= MODEL_MAX_CHANNELS;
    for (c = named ? (*channels)->child : NULL; c != NULL; c = c->next) {
        named = named && cJSON_IsString(c) && find_channel(*channels, c->valuestring) >= 0;
    }
    *what = "must be a list of 1 to 16 names";
    return named ? NULL : "output.channels";
}

static const char *read_activation(const cJSON *output, model_net_t *n, bool softmax, const char **what) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(output, "activation");
    const char *word = v == NULL ? "none" : cJSON_IsString(v) ? v->valuestring : "";
    *what = softmax ? "must be \"none\", \"sigmoid\" or \"softmax\"" : "must be \"none\" or \"sigmoid\"";
    if (strcmp(word, "none") == 0) {
        n->activation = MODEL_ACTIVATION_NONE;
    } else if (strcmp(word, "sigmoid") == 0) {
        n->activation = MODEL_ACTIVATION_SIGMOID;
    } else if (softmax && strcmp(word, "softmax") == 0) {
        n->activation = MODEL_ACTIVATION_SOFTMAX;
    } else {
        return "output.activation";
    }
    return NULL;
}

/* Two maps by name. */
static const char *read_pair(const cJSON *output, const char *second, model_net_t *n, const char **what) {
    const cJSON *channels = NULL;
    const char *wrong = read_channels(output, n, &channels, what);
    if (!wrong) {
        n->first = find_channel(channels, "foreground");
        n->second = find_channel(channels, second);
        *what = strcmp(second, "distance") == 0 ? "must name \"foreground\" and \"distance\""
                                                : "must name \"foreground\" and \"boundary\"";
        wrong = n->first < 0 || n->second < 0 ? "output.channels" : NULL;
    }
    return wrong ? wrong : read_activation(output, n, false, what);
}

/* A map and the two parts of a way. */
static const char *read_votes(const cJSON *output, model_net_t *n, const char **what) {
    const cJSON *channels = NULL;
    const char *wrong = read_channels(output, n, &channels, what);
    if (!wrong) {
        n->first = find_channel(channels, "foreground");
        n->second = find_channel(channels, "down");
        n->third = find_channel(channels, "right");
        *what = "must name \"foreground\", \"down\" and \"right\"";
        wrong = n->first < 0 || n->second < 0 || n->third < 0 ? "output.channels" : NULL;
    }
    return wrong ? wrong : read_activation(output, n, false, what); /* of the foreground */
}

static const char *read_semantic(const cJSON *output, model_net_t *n, const char **what) {
    const cJSON *channels = NULL, *fg = cJSON_GetObjectItemCaseSensitive(output, "foreground");
    const char *wrong = read_channels(output, n, &channels, what);
    if (!wrong) {
        wrong = read_activation(output, n, true, what);
    }
    if (wrong) {
        return wrong;
    }
    *what = "must be one of the channels' names, or a list of them";
    const cJSON *name = cJSON_IsArray(fg) ? fg->child : fg;
    int found = 0;
    for (; name != NULL; name = cJSON_IsArray(fg) ? name->next : NULL) {
        int i = cJSON_IsString(name) ? find_channel(channels, name->valuestring) : -1;
        if (i < 0) {
            return "output.foreground";
        }
        n->foreground[i] = true;
        found++;
    }
    return found > 0 ? NULL : "output.foreground";
}

static const char *read_star(const cJSON *output, model_net_t *n, const char **what) {
    *what = "must be a whole number from 3 to 256";
    if (!get_whole(output, "rays", STAR_MIN_RAYS, STAR_MAX_RAYS, &n->rays)) {
        return "output.rays";
    }
    *what = "must be 1, 2, 4, 8 or 16";
    if (!get_whole(output, "grid", 1, MODEL_MAX_GRID, &n->grid) || (n->grid & (n->grid - 1)) != 0) {
        return "output.grid";
    }
    n->channels = 1 + n->rays;
    return read_activation(output, n, false, what); /* of the probability */
}

static const char *read_labels(const cJSON *output, model_net_t *n, const char **what) {
    const cJSON *channels = NULL;
    if (!cJSON_HasObjectItem(output, "channels")) {
        n->channels = 1;
        return NULL;
    }
    const char *wrong = read_channels(output, n, &channels, what), *use = NULL;
    if (!wrong && get_text(output, "use", &use)) {
        n->first = find_channel(channels, use);
        *what = "must be one of the channels' names";
        wrong = n->first < 0 ? "output.use" : NULL;
    }
    return wrong;
}

const char *model_net_read_output(const char *kind, const cJSON *output, model_net_t *out, const char **what) {
    out->grid = 1;
    if (strcmp(kind, "foreground_distance") == 0) {
        return read_pair(output, "distance", out, what);
    }
    if (strcmp(kind, "foreground_boundary") == 0) {
        return read_pair(output, "boundary", out, what);
    }
    if (strcmp(kind, "foreground_votes") == 0) {
        return read_votes(output, out, what);
    }
    if (strcmp(kind, "semantic") == 0) {
        return read_semantic(output, out, what);
    }
    if (strcmp(kind, "star_convex") == 0) {
        return read_star(output, out, what);
    }
    return read_labels(output, out, what);
}

/* ---- input ---- */

static const char *read_percentile(const cJSON *norm, model_step_t *s, const char **what) {
    *what = "must be a number from 0 to 100";
    if (!get_number(norm, "low", 0, 100, &s->a)) {
        return "normalisation.low";
    }
    if (!get_number(norm, "high", 0, 100, &s->b)) {
        return "normalisation.high";
    }
    *what = "must be a number";
    if (!get_number(norm, "clipMin", -1e6, 1e6, &s->clip_min)) {
        return "normalisation.clipMin";
    }
    if (!get_number(norm, "clipMax", -1e6, 1e6, &s->clip_max)) {
        return "normalisation.clipMax";
    }
    *what = "must be a number from 0 on";
    if (cJSON_HasObjectItem(norm, "minRange") && !get_number(norm, "minRange", 0, 1e12, &s->min_range)) {
        return "normalisation.minRange";
    }
    *what = "must have low < high and clipMin < clipMax";
    return s->a < s->b && s->clip_min < s->clip_max ? NULL : "normalisation";
}

static const char *read_normalisation(const cJSON *norm, model_net_t *n, const char **what) {
    model_step_t *s = &n->steps[0];
    const char *kind = NULL;
    n->nsteps = 1;
    *what = "must be an object";
    if (!cJSON_IsObject(norm)) {
        return "normalisation";
    }
    *what = "must be \"percentile\", \"mean_std\", \"linear\" or \"none\"";
    if (!get_text(norm, "kind", &kind)) {
        return "normalisation.kind";
    }
    s->together = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(norm, "together"));
    if (strcmp(kind, "percentile") == 0) {
        s->kind = MODEL_STEP_PERCENTILE;
        return read_percentile(norm, s, what);
    }
    if (strcmp(kind, "mean_std") == 0) {
        s->kind = MODEL_STEP_MEAN_STD;
        s->a = 1e-6;
        return NULL;
    }
    if (strcmp(kind, "linear") == 0) {
        double gain = 1, offset = 0;
        *what = "must be a number";
        s->kind = MODEL_STEP_LINEAR;
        if (!get_number(norm, "gain", -1e12, 1e12, &gain)) {
            return "normalisation.gain";
        }
        if (!get_number(norm, "offset", -1e12, 1e12, &offset)) {
            return "normalisation.offset";
        }
        for (int c = 0; c < MODEL_MAX_INPUTS; c++) {
            s->gain[c] = gain;
            s->offset[c] = offset;
        }
        return NULL;
    }
    n->nsteps = 0;
    return strcmp(kind, "none") == 0 ? NULL : "normalisation.kind";
}

const char *model_net_read_input(const cJSON *input, model_net_t *out, const char **what) {
    const char *colour = NULL;
    *what = "must be \"grey\" (1 channel) or \"rgb\" (3 channels)";
    if (!get_text(input, "colour", &colour) || (strcmp(colour, "grey") != 0 && strcmp(colour, "rgb") != 0)) {
        return "input.colour";
    }
    *what = "must be 1 and \"grey\", or 3 and \"rgb\"";
    bool rgb = strcmp(colour, "rgb") == 0;
    if (!get_whole(input, "channels", rgb ? 3 : 1, rgb ? 3 : 1, &out->inputs)) {
        return "input.channels and colour";
    }
    const cJSON *tta = cJSON_GetObjectItemCaseSensitive(input, "testTimeAugmentation");
    *what = "must be \"none\", \"flips\" or \"rotations\"";
    if (tta != NULL && !(cJSON_IsString(tta) && model_tta_parse(tta->valuestring, &out->tta))) {
        return "input.testTimeAugmentation";
    }
    return read_normalisation(cJSON_GetObjectItemCaseSensitive(input, "normalisation"), out, what);
}

/* ---- test-time augmentation ---- */

static const char *const TTA_NAMES[] = {"none", "flips", "rotations"};

bool model_tta_parse(const char *word, model_tta_t *out) {
    for (int i = 0; i < 3; i++) {
        if (strcmp(word, TTA_NAMES[i]) == 0) {
            *out = (model_tta_t)i;
            return true;
        }
    }
    return false;
}

const char *model_tta_name(model_tta_t tta) {
    return TTA_NAMES[tta];
}

const char *model_tta_refused(const model_net_t *net, bool labels, bool star, model_tta_t tta) {
    if (tta == MODEL_TTA_NONE) {
        return NULL;
    }
    if (labels) {
        return "label maps cannot be averaged";
    }
    if (net->grid > 1) {
        return "a grid of more than 1 px does not lie on itself when it is turned";
    }
    if (star && net->rays % (tta == MODEL_TTA_FLIPS ? 2 : 4) != 0) {
        return "the rays do not lie on each other when they are turned";
    }
    return NULL;
}
