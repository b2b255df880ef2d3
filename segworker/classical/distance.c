/* Distances by lower envelopes of parabolas. All in integers: crossings are compared as fractions. */
#include "segworker/classical/distance.h"

#include <stdlib.h>

enum { ASK_EVERY = 64 };

/* Of one column: distance to the nearest set pixel above or below; far (> height) when there is none. */
static void scan_columns(const uint8_t *mask, int width, int height, int32_t *g) {
    size_t w = (size_t)width;
    int32_t far = width + height; /* farther than anything in the plane */
    for (size_t x = 0; x < w; x++) {
        g[x] = mask[x] ? 0 : far;
    }
    for (int y = 1; y < height; y++) {
        const uint8_t *m = mask + (size_t)y * w;
        int32_t *at = g + (size_t)y * w, *above = at - w;
        for (size_t x = 0; x < w; x++) {
            at[x] = m[x] ? 0 : above[x] < far ? above[x] + 1 : far;
        }
    }
    for (int y = height - 2; y >= 0; y--) {
        int32_t *at = g + (size_t)y * w, *below = at + w;
        for (size_t x = 0; x < w; x++) {
            at[x] = below[x] + 1 < at[x] ? below[x] + 1 : at[x];
        }
    }
}

typedef struct {
    int32_t *g;     /* copy of the row's column distances */
    int32_t *at;    /* columns whose parabola is part of the envelope */
    int32_t *start; /* where it begins */
} envelope_t;

/* The first column at which the parabola of b lies below that of a; a < b. */
static int64_t crossing(const int32_t *g, int64_t a, int64_t b) {
    int64_t num = b * b - a * a + (int64_t)g[b] * g[b] - (int64_t)g[a] * g[a], den = 2 * (b - a);
    return num >= 0 ? num / den + 1 : -((-num + den - 1) / den) + 1;
}

static void scan_row(int32_t *row, int width, int32_t far, envelope_t *e) {
    int n = 0;
    for (int x = 0; x < width; x++) {
        e->g[x] = row[x];
    }
    for (int x = 0; x < width; x++) {
        int64_t from = 0;
        if (e->g[x] >= far) {
            continue;
        }
        while (n > 0 && (from = crossing(e->g, e->at[n - 1], x)) <= e->start[n - 1]) {
            n--;
        }
        if (n == 0) {
            from = 0;
        }
        if (from < width) {
            e->at[n] = x;
            e->start[n++] = (int32_t)from;
        }
    }
    for (int x = 0, k = 0; x < width; x++) {
        if (n == 0) {
            row[x] = DISTANCE_NONE;
            continue;
        }
        while (k + 1 < n && e->start[k + 1] <= x) {
            k++;
        }
        int64_t dx = x - e->at[k], dy = e->g[e->at[k]], d = dx * dx + dy * dy;
        row[x] = d < DISTANCE_NONE ? (int32_t)d : DISTANCE_NONE - 1;
    }
}

err_kind_t distance_to(const uint8_t *mask, int width, int height, const cancel_t *cancel, int32_t *out, err_t *err) {
    int32_t *lines = malloc(3 * (size_t)width * sizeof *lines);
    err_kind_t kind = ERR_OK;
    if (lines == NULL) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.", "distance");
    }
    envelope_t e = {lines, lines + width, lines + 2 * (size_t)width};
    scan_columns(mask, width, height, out);
    for (int y = 0; y < height && kind == ERR_OK; y++) {
        if (y % ASK_EVERY == 0 && cancel_asked(cancel)) {
            kind = err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", "distance");
        } else {
            scan_row(out + (size_t)y * (size_t)width, width, width + height, &e);
        }
    }
    free(lines);
    return kind;
}

err_kind_t distance_open_close(uint8_t *mask, int width, int height, int radius, int on, const cancel_t *cancel,
                               int32_t *work, err_t *err) {
    size_t n = (size_t)width * (size_t)height;
    int32_t r2 = radius * radius;
    /* first away from the values to be thinned out: pixels within the disc of the others change; then back */
    for (size_t i = 0; i < n; i++) {
        mask[i] = (mask[i] != 0) != (on != 0);
    }
    err_kind_t kind = distance_to(mask, width, height, cancel, work, err);
    for (size_t i = 0; kind == ERR_OK && i < n; i++) {
        mask[i] = work[i] > r2;
    }
    if (kind == ERR_OK) {
        kind = distance_to(mask, width, height, cancel, work, err);
    }
    for (size_t i = 0; kind == ERR_OK && i < n; i++) {
        mask[i] = (work[i] <= r2) == (on != 0);
    }
    return kind;
}
