/* See cli_plane.h. */
#include "segworker/cli_plane.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A number from 1 on, as one from 0 on. */
static bool parse_ordinal(const char *s, int32_t *out) {
    const long most = 1000000;
    char *end = NULL;
    errno = 0;
    long v = strtol(s, &end, 10);
    if (errno || end == s || *end || v < 1 || v > most) {
        return false;
    }
    *out = (int32_t)(v - 1);
    return true;
}

static bool parse_weights(const char *s, image_select_t *sel) {
    bool any = false;
    sel->weights = 0;
    while (sel->weights < IMAGE_MAX_WEIGHTS) {
        char *end = NULL;
        errno = 0;
        float v = strtof(s, &end);
        if (errno || end == s || !isfinite(v) || (*end && *end != ',')) {
            return false;
        }
        sel->weight[sel->weights++] = v;
        any = any || v != 0;
        if (!*end) {
            return any;
        }
        s = end + 1;
    }
    return false;
}

const char *cli_plane_set(image_select_t *sel, const char *name, const char *value) {
    if (strcmp(name, "page") == 0) {
        return parse_ordinal(value, &sel->page) ? NULL : "--page takes a number from 1 on";
    }
    if (strcmp(name, "channel") == 0) {
        return parse_ordinal(value, &sel->channel) ? NULL : "--channel takes a number from 1 on";
    }
    if (strcmp(name, "z") == 0) {
        return parse_ordinal(value, &sel->z) ? NULL : "--z takes a number from 1 on";
    }
    if (strcmp(name, "time") == 0) {
        return parse_ordinal(value, &sel->t) ? NULL : "--time takes a number from 1 on";
    }
    return parse_weights(value, sel) ? NULL : "--mix takes up to 16 numbers separated by commas, not all of them 0";
}
