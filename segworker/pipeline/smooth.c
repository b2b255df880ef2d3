/* Gaussian smoothing: columns first, then each row in place. */
#include "segworker/pipeline/smooth.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

/* Index of a border reflected at the pixels' outer edges: d c b a | a b c d | d c b a. */
static int reflect(int64_t i, int64_t n) {
    i %= 2 * n;
    i = i < 0 ? i + 2 * n : i;
    return (int)(i < n ? i : 2 * n - 1 - i);
}

/* Half a Gaussian kernel, weights[0] at the centre; the whole kernel sums to 1. */
static double *make_kernel(double sigma, int *radius) {
    *radius = (int)(4 * sigma + 0.5);
    double *w = calloc((size_t)*radius + 1, sizeof *w), sum = 0;
    if (w == NULL) {
        return NULL;
    }
    for (int k = 0; k <= *radius; k++) {
        w[k] = exp(-0.5 * k * k / (sigma * sigma));
        sum += k == 0 ? w[k] : 2 * w[k];
    }
    for (int k = 0; k <= *radius; k++) {
        w[k] /= sum;
    }
    return w;
}

static void smooth_column_row(const float *src, int width, int height, int y, const double *w, int radius, double *acc,
                              float *dst) {
    for (int x = 0; x < width; x++) {
        acc[x] = w[0] * src[(size_t)y * (size_t)width + (size_t)x];
    }
    for (int k = 1; k <= radius; k++) {
        const float *a = src + (size_t)reflect((int64_t)y - k, height) * (size_t)width;
        const float *b = src + (size_t)reflect((int64_t)y + k, height) * (size_t)width;
        for (int x = 0; x < width; x++) {
            acc[x] += w[k] * ((double)a[x] + b[x]);
        }
    }
    for (int x = 0; x < width; x++) {
        dst[x] = (float)acc[x];
    }
}

/* In place; line holds width + 2*radius values. */
static void smooth_line(float *row, int width, const double *w, int radius, double *line) {
    for (int i = -radius; i < width + radius; i++) {
        line[i + radius] = row[reflect(i, width)];
    }
    for (int x = 0; x < width; x++) {
        const double *at = line + x + radius;
        double sum = w[0] * at[0];
        for (int k = 1; k <= radius; k++) {
            sum += w[k] * (at[-k] + at[k]);
        }
        row[x] = (float)sum;
    }
}

err_kind_t smooth_gaussian(const float *src, int width, int height, double sigma, const cancel_t *cancel, float *dst,
                           err_t *err) {
    int radius = 0;
    err_kind_t kind = ERR_OK;
    double *w = make_kernel(fmin(sigma, 1000), &radius);
    double *line = calloc((size_t)width + 2 * (size_t)radius, sizeof *line);
    if (w == NULL || line == NULL) {
        kind = err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.", "smooth");
        goto out;
    }
    for (int y = 0; y < height; y++) {
        if (y % 32 == 0 && cancel_asked(cancel)) {
            kind = err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", "smooth");
            goto out;
        }
        float *row = dst + (size_t)y * (size_t)width;
        smooth_column_row(src, width, height, y, w, radius, line, row);
        smooth_line(row, width, w, radius, line);
    }
out:
    free(w);
    free(line);
    return kind;
}
