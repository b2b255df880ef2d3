/*
 * Separable resampling with a triangle filter. Shrinking widens the triangle to the size of a target pixel, so every
 * source pixel counts; growing is bilinear interpolation. Rows first, then columns, sums in double: the same order and
 * precision as Pillow's BILINEAR filter on 32-bit float images, which the training code uses, so both agree to the bit.
 */
#include "image_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Weights of one axis: target i takes sources first[i] … first[i]+count[i]-1 with weights w[i*taps …]. */
typedef struct {
    int taps;
    int *first, *count;
    double *w;
} axis_t;

static void axis_free(axis_t *a) {
    free(a->first);
    free(a->count);
    free(a->w);
}

static bool axis_create(axis_t *a, int in, int out) {
    double scale = (double)in / out;
    double stretch = scale < 1.0 ? 1.0 : scale;
    double support = stretch; /* the unit triangle reaches 1 */
    double inverse = 1.0 / stretch;
    a->taps = (int)ceil(support) * 2 + 1;
    a->first = malloc((size_t)out * sizeof *a->first);
    a->count = malloc((size_t)out * sizeof *a->count);
    a->w = malloc((size_t)out * (size_t)a->taps * sizeof *a->w);
    if (!a->first || !a->count || !a->w) {
        return false;
    }
    for (int i = 0; i < out; i++) {
        double centre = (i + 0.5) * scale;
        int lo = (int)(centre - support + 0.5), hi = (int)(centre + support + 0.5);
        lo = lo < 0 ? 0 : lo;
        hi = hi > in ? in : hi;
        double *w = a->w + (size_t)i * (size_t)a->taps, sum = 0;
        for (int j = 0; j < hi - lo; j++) {
            double d = fabs((j + lo - centre + 0.5) * inverse);
            w[j] = d < 1.0 ? 1.0 - d : 0.0;
            sum += w[j];
        }
        for (int j = 0; j < hi - lo && sum != 0; j++) {
            w[j] /= sum;
        }
        a->first[i] = lo;
        a->count[i] = hi - lo;
    }
    return true;
}

static err_kind_t check_sizes(int sw, int sh, int dw, int dh, err_t *err) {
    if (sw < 1 || sh < 1 || dw < 1 || dh < 1) {
        return err_set(err, ERR_INTERNAL, "resize_size", "An image cannot be scaled to nothing.", "%dx%d to %dx%d", sw,
                       sh, dw, dh);
    }
    return ERR_OK;
}

static void resize_rows_f32(const float *src, int sw, int rows, float *dst, int dw, const axis_t *ax) {
    for (int y = 0; y < rows; y++) {
        const float *s = src + (size_t)y * (size_t)sw;
        float *d = dst + (size_t)y * (size_t)dw;
        for (int x = 0; x < dw; x++) {
            const double *w = ax->w + (size_t)x * (size_t)ax->taps;
            const float *p = s + ax->first[x];
            double sum = 0;
            for (int j = 0; j < ax->count[x]; j++) {
                sum += (double)p[j] * w[j];
            }
            d[x] = (float)sum;
        }
    }
}

static void resize_columns_f32(const float *src, int width, float *dst, int dh, const axis_t *ay, double *sum) {
    for (int y = 0; y < dh; y++) {
        const double *w = ay->w + (size_t)y * (size_t)ay->taps;
        memset(sum, 0, (size_t)width * sizeof *sum);
        for (int j = 0; j < ay->count[y]; j++) {
            const float *s = src + (size_t)(ay->first[y] + j) * (size_t)width;
            for (int x = 0; x < width; x++) {
                sum[x] += (double)s[x] * w[j];
            }
        }
        float *d = dst + (size_t)y * (size_t)width;
        for (int x = 0; x < width; x++) {
            d[x] = (float)sum[x];
        }
    }
}

err_kind_t image_resize_f32(const float *src, int sw, int sh, float *dst, int dw, int dh, err_t *err) {
    err_kind_t k = check_sizes(sw, sh, dw, dh, err);
    if (k != ERR_OK) {
        return k;
    }
    axis_t ax = {0}, ay = {0};
    float *wide = NULL; /* dw x sh, when both axes change */
    double *sum = NULL;
    const float *rows = src;
    if (dw == sw && dh == sh) {
        memcpy(dst, src, (size_t)sw * (size_t)sh * sizeof *dst);
        return ERR_OK;
    }
    if (dw != sw) {
        wide = dh == sh ? dst : malloc((size_t)dw * (size_t)sh * sizeof *wide);
        if (!wide || !axis_create(&ax, sw, dw)) {
            k = image_err_memory(err);
            goto out;
        }
        resize_rows_f32(src, sw, sh, wide, dw, &ax);
        rows = wide;
    }
    if (dh != sh) {
        sum = malloc((size_t)dw * sizeof *sum);
        if (!sum || !axis_create(&ay, sh, dh)) {
            k = image_err_memory(err);
            goto out;
        }
        resize_columns_f32(rows, dw, dst, dh, &ay, sum);
    }
out:
    if (wide != dst) {
        free(wide);
    }
    free(sum);
    axis_free(&ax);
    axis_free(&ay);
    return k;
}

static uint8_t to_byte(double v) {
    return v <= 0 ? 0 : v >= 255 ? 255 : (uint8_t)lround(v);
}

/* One source row, resampled to dw pixels as float. */
static void row_u8(const uint8_t *s, int channels, float *d, int dw, const axis_t *ax) {
    for (int x = 0; x < dw; x++) {
        const double *w = ax->w + (size_t)x * (size_t)ax->taps;
        const uint8_t *p = s + (size_t)ax->first[x] * (size_t)channels;
        for (int c = 0; c < channels; c++) {
            double sum = 0;
            for (int j = 0; j < ax->count[x]; j++) {
                sum += p[(size_t)j * (size_t)channels + (size_t)c] * w[j];
            }
            d[(size_t)x * (size_t)channels + (size_t)c] = (float)sum;
        }
    }
}

/* Only the source rows that one target row needs are held, as floats, in a ring: memory is taps x target width. */
err_kind_t image_resize_u8(const uint8_t *src, int sw, int sh, int channels, uint8_t *dst, int dw, int dh, err_t *err) {
    err_kind_t k = check_sizes(sw, sh, dw, dh, err);
    if (k != ERR_OK) {
        return k;
    }
    axis_t ax = {0}, ay = {0};
    float *ring = NULL;
    double *sum = NULL;
    size_t stride = (size_t)dw * (size_t)channels;
    if (!axis_create(&ax, sw, dw) || !axis_create(&ay, sh, dh)) {
        k = image_err_memory(err);
        goto out;
    }
    ring = malloc((size_t)ay.taps * stride * sizeof *ring);
    sum = malloc(stride * sizeof *sum);
    if (!ring || !sum) {
        k = image_err_memory(err);
        goto out;
    }
    int have = 0; /* source rows below this one are, or were, in the ring */
    for (int y = 0; y < dh; y++) {
        const double *w = ay.w + (size_t)y * (size_t)ay.taps;
        int first = ay.first[y], end = first + ay.count[y];
        for (have = have < first ? first : have; have < end; have++) {
            const uint8_t *s = src + (size_t)have * (size_t)sw * (size_t)channels;
            row_u8(s, channels, ring + (size_t)(have % ay.taps) * stride, dw, &ax);
        }
        memset(sum, 0, stride * sizeof *sum);
        for (int j = 0; j < ay.count[y]; j++) {
            const float *s = ring + (size_t)((first + j) % ay.taps) * stride;
            for (size_t x = 0; x < stride; x++) {
                sum[x] += (double)s[x] * w[j];
            }
        }
        for (size_t x = 0; x < stride; x++) {
            dst[(size_t)y * stride + x] = to_byte(sum[x]);
        }
    }
out:
    free(ring);
    free(sum);
    axis_free(&ax);
    axis_free(&ay);
    return k;
}
