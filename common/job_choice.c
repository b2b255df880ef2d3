/* See job_choice.h. */
#include "job_choice.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "utf8.h"

#define ORDINAL_MAX 1000000
#define WEIGHT_MAX 1e6

const char *const job_choice_augments[] = {"none", "flips", "rotations", NULL};

static err_kind_t wrong(err_t *err, const char *words) {
    return err_set(err, ERR_INVALID, "field_invalid", words, NULL);
}

/* Absent and null leave *out alone. */
static err_kind_t read_whole(const cJSON *item, double min, double max, int64_t *out, err_t *err) {
    const double v = cJSON_IsNumber(item) ? item->valuedouble : NAN;
    if (cJSON_IsNull(item)) {
        return ERR_OK;
    }
    if (!(v >= min && v <= max) || floor(v) != v) {
        return err_setf(err, ERR_INVALID, "field_invalid", "options.%s must be a whole number from %.0f to %.0f.",
                        item->string, min, max);
    }
    *out = (int64_t)v;
    return ERR_OK;
}

/* From 1 on outside, from 0 on inside. */
static err_kind_t read_ordinal(const cJSON *item, int32_t *out, err_t *err) {
    int64_t v = (int64_t)*out + 1;
    err_kind_t kind = read_whole(item, 1, ORDINAL_MAX, &v, err);
    *out = (int32_t)(v - 1);
    return kind;
}

static err_kind_t read_augment(const cJSON *item, int *out, err_t *err) {
    if (cJSON_IsNull(item)) {
        return ERR_OK;
    }
    for (int i = 0; cJSON_IsString(item) && job_choice_augments[i]; i++) {
        if (strcmp(item->valuestring, job_choice_augments[i]) == 0) {
            *out = i;
            return ERR_OK;
        }
    }
    return wrong(err, "options.augment must be \"none\", \"flips\" or \"rotations\".");
}

static err_kind_t read_mix(const cJSON *item, image_select_t *plane, err_t *err) {
    const int n = cJSON_IsArray(item) ? cJSON_GetArraySize(item) : 0;
    bool fine = n >= 1 && n <= IMAGE_MAX_WEIGHTS;
    int used = 0, i = 0;
    const cJSON *weight = NULL;
    if (cJSON_IsNull(item)) {
        return ERR_OK;
    }
    const cJSON *list = fine ? item : NULL;
    cJSON_ArrayForEach(weight, list) {
        fine = fine && cJSON_IsNumber(weight) && fabs(weight->valuedouble) <= WEIGHT_MAX;
        plane->weight[i] = fine ? (float)weight->valuedouble : 0;
        used = plane->weight[i] != 0 ? i + 1 : used; /* zeros at the end say nothing */
        i++;
    }
    plane->weights = used;
    return fine && used > 0
               ? ERR_OK
               : err_setf(err, ERR_INVALID, "field_invalid",
                          "options.mix must be a list of 1 to %d weights from %.0f to %.0f, not all of them 0.",
                          (int)IMAGE_MAX_WEIGHTS, -WEIGHT_MAX, WEIGHT_MAX);
}

static err_kind_t read_field(const cJSON *item, job_choice_t *c, err_t *err) {
    const char *key = item->string;
    if (strcmp(key, "minArea") == 0) {
        return read_whole(item, 0, JOB_CHOICE_AREA_MAX, &c->min_area, err);
    }
    if (strcmp(key, "maxArea") == 0) {
        return read_whole(item, 0, JOB_CHOICE_AREA_MAX, &c->max_area, err);
    }
    if (strcmp(key, "maxHoleArea") == 0) {
        return read_whole(item, 0, JOB_CHOICE_AREA_MAX, &c->max_hole_area, err);
    }
    if (strcmp(key, "augment") == 0) {
        return read_augment(item, &c->augment, err);
    }
    if (strcmp(key, "page") == 0) {
        return read_ordinal(item, &c->plane.page, err);
    }
    if (strcmp(key, "channel") == 0) {
        return read_ordinal(item, &c->plane.channel, err);
    }
    if (strcmp(key, "mix") == 0) {
        return read_mix(item, &c->plane, err);
    }
    if (strcmp(key, "z") == 0) {
        return read_ordinal(item, &c->plane.z, err);
    }
    if (strcmp(key, "time") == 0) {
        return read_ordinal(item, &c->plane.t, err);
    }
    const bool printable = strlen(key) <= 64 && utf8_is_valid(key, strlen(key));
    return err_setf(err, ERR_INVALID, "field_unknown", "There is no field \"options.%s\" here.", printable ? key : "…");
}

err_kind_t job_choice_parse(const cJSON *options, job_choice_t *out, err_t *err) {
    *out = JOB_CHOICE_DEFAULT;
    if (!options || cJSON_IsNull(options)) {
        return ERR_OK;
    }
    if (!cJSON_IsObject(options)) {
        return wrong(err, "options must be an object.");
    }
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, options) {
        err_kind_t kind = read_field(item, out, err);
        if (kind != ERR_OK) {
            return kind;
        }
    }
    if (out->max_area == 0) {
        out->max_area = -1;
    }
    if (out->max_area > 0 && out->min_area > out->max_area) {
        return wrong(err, "options.maxArea must be 0 (no limit) or at least options.minArea.");
    }
    if (out->plane.channel >= 0 && out->plane.weights > 0) {
        return wrong(err, "options.channel and options.mix cannot be given together.");
    }
    if (out->plane.page > 0 && (out->plane.z >= 0 || out->plane.t >= 0)) {
        return wrong(err, "options.page cannot be given together with options.z or options.time.");
    }
    return ERR_OK;
}

err_kind_t job_choice_parse_text(const char *json, job_choice_t *out, err_t *err) {
    *out = JOB_CHOICE_DEFAULT;
    if (!json || !*json) {
        return ERR_OK;
    }
    cJSON *parsed = cJSON_Parse(json);
    err_kind_t kind = parsed ? job_choice_parse(parsed, out, err) : wrong(err, "options must be an object.");
    cJSON_Delete(parsed);
    return kind;
}

bool job_choice_has_plane(const job_choice_t *c) {
    return c->plane.page > 0 || c->plane.channel >= 0 || c->plane.weights > 0 || c->plane.z >= 0 || c->plane.t >= 0;
}

void job_choice_write_plane(const image_select_t *plane, buf_t *out) {
    if (plane->page > 0) {
        buf_printf(out, ",\"page\":%" PRId32, plane->page + 1);
    }
    if (plane->channel >= 0) {
        buf_printf(out, ",\"channel\":%" PRId32, plane->channel + 1);
    }
    for (int i = 0; i < plane->weights; i++) {
        buf_printf(out, "%s%.9g", i == 0 ? ",\"mix\":[" : ",", (double)plane->weight[i]);
    }
    buf_puts(out, plane->weights > 0 ? "]" : "");
    if (plane->z >= 0) {
        buf_printf(out, ",\"z\":%" PRId32, plane->z + 1);
    }
    if (plane->t >= 0) {
        buf_printf(out, ",\"time\":%" PRId32, plane->t + 1);
    }
}

void job_choice_write(const job_choice_t *c, buf_t *out) {
    const struct {
        const char *key;
        int64_t value;
    } areas[] = {{"minArea", c->min_area}, {"maxArea", c->max_area}, {"maxHoleArea", c->max_hole_area}};
    const size_t from = out->len;
    for (size_t i = 0; i < sizeof areas / sizeof areas[0]; i++) {
        if (areas[i].value >= 0) {
            buf_printf(out, ",\"%s\":%" PRId64, areas[i].key, areas[i].value);
        }
    }
    if (c->augment >= 0) {
        buf_printf(out, ",\"augment\":\"%s\"", job_choice_augments[c->augment]);
    }
    job_choice_write_plane(&c->plane, out);
    if (out->len == from) {
        buf_puts(out, "{}");
    } else if (!out->failed) {
        out->data[from] = '{';
        buf_puts(out, "}");
    }
}
