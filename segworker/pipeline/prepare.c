/* See prepare.h. Percentiles are exact (normalise.h), means and deviations in double (Welford's merge of bands). */
#include "segworker/pipeline/prepare.h"

#include <math.h>
#include <stdlib.h>

#include "segworker/pipeline/normalise.h"

enum { BAND_PIXELS = 1 << 21, SAMPLE_SIDE = 2048 };

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to normalise the image.", NULL);
}

/* ---- applying ---- */

static void apply_step(const prepare_t *p, int i, int c, float *v, size_t n) {
    const model_step_t *s = &p->net->steps[i];
    const normalise_params_t np = {.clip_min = s->clip_min, .clip_max = s->clip_max};
    float mean = (float)p->low[i][c], deviation = (float)(p->high[i][c] + s->a);
    float gain = (float)s->gain[c], offset = (float)s->offset[c], a = (float)s->a, b = (float)s->b;
    switch (s->kind) {
    case MODEL_STEP_PERCENTILE:
        normalise_apply(v, n, &np, p->low[i][c], p->high[i][c]);
        break;
    case MODEL_STEP_MEAN_STD:
        for (size_t k = 0; k < n; k++) {
            v[k] = (v[k] - mean) / deviation;
        }
        break;
    case MODEL_STEP_LINEAR:
        for (size_t k = 0; k < n; k++) {
            v[k] = v[k] * gain + offset;
        }
        break;
    case MODEL_STEP_CLIP:
        for (size_t k = 0; k < n; k++) {
            v[k] = v[k] < a ? a : v[k] > b ? b : v[k];
        }
        break;
    case MODEL_STEP_BINARIZE:
        for (size_t k = 0; k < n; k++) {
            v[k] = v[k] > a ? 1 : 0;
        }
        break;
    }
}

void prepare_apply(const prepare_t *p, float *planes, size_t n) {
    for (int c = 0; c < p->net->inputs; c++) {
        float *v = planes + (size_t)c * n;
        for (int i = 0; i < p->steps; i++) {
            apply_step(p, i, c, v, n);
        }
        for (size_t k = 0; p->invert && k < n; k++) {
            v[k] = 1 - v[k];
        }
    }
}

/* ---- statistics ---- */

typedef struct {
    const prepare_t *p; /* the steps before */
    percentile_scan_t *scan[MODEL_MAX_INPUTS];
    double n[MODEL_MAX_INPUTS], mean[MODEL_MAX_INPUTS], squares[MODEL_MAX_INPUTS];
    bool together;
} statistics_t;

static void feed_mean(statistics_t *s, int c, const float *v, size_t n) {
    double sum = 0, squares = 0;
    for (size_t k = 0; k < n; k++) {
        sum += v[k];
    }
    double mean = sum / (double)n;
    for (size_t k = 0; k < n; k++) {
        squares += ((double)v[k] - mean) * ((double)v[k] - mean);
    }
    double total = s->n[c] + (double)n, apart = mean - s->mean[c];
    s->squares[c] += squares + apart * apart * s->n[c] * (double)n / total;
    s->mean[c] += apart * (double)n / total;
    s->n[c] = total;
}

static void feed(statistics_t *s, float *planes, size_t n) {
    prepare_apply(s->p, planes, n);
    for (int c = 0; c < s->p->net->inputs; c++) {
        int to = s->together ? 0 : c;
        if (s->scan[to]) {
            percentile_scan_feed(s->scan[to], planes + (size_t)c * n, n);
        } else {
            feed_mean(s, to, planes + (size_t)c * n, n);
        }
    }
}

/* The image once, in bands of rows. */
static err_kind_t feed_image(statistics_t *s, input_t *in, const cancel_t *cancel, err_t *err) {
    int rows = BAND_PIXELS / in->width;
    rows = rows < 1 ? 1 : rows > in->height ? in->height : rows;
    if (!in->planes && in->layout.block_height > 1) { /* whole blocks of the file */
        int blocks = rows / in->layout.block_height;
        rows = blocks > 0 ? blocks * in->layout.block_height : rows;
    }
    float *planes = malloc((size_t)rows * (size_t)in->width * (size_t)in->channels * sizeof *planes);
    err_kind_t k = planes ? ERR_OK : no_memory(err);
    for (int y = 0; k == ERR_OK && y < in->height; y += rows) {
        int h = y + rows < in->height ? rows : in->height - y;
        if (cancel_asked(cancel)) {
            k = err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", NULL);
            break;
        }
        k = input_read(in, (image_rect_t){0, y, in->width, h}, planes, err);
        if (k == ERR_OK) {
            feed(s, planes, (size_t)h * (size_t)in->width);
        }
    }
    free(planes);
    return k;
}

static err_kind_t find_percentiles(statistics_t *s, const model_step_t *step, input_t *in, const cancel_t *cancel,
                                   prepare_t *out, err_t *err) {
    int n = s->together ? 1 : s->p->net->inputs, i = s->p->steps;
    err_kind_t k = ERR_OK;
    for (int c = 0; k == ERR_OK && c < n; c++) {
        k = percentile_scan_begin(step->a, step->b, &s->scan[c], err);
    }
    for (bool again = true; k == ERR_OK && again;) {
        k = feed_image(s, in, cancel, err);
        again = false;
        for (int c = 0; k == ERR_OK && c < n; c++) {
            again |= percentile_scan_again(s->scan[c]);
        }
    }
    for (int c = 0; c < n; c++) {
        if (k == ERR_OK) {
            percentile_scan_result(s->scan[c], &out->low[i][c], &out->high[i][c]);
        }
        percentile_scan_free(s->scan[c]);
    }
    return k;
}

static err_kind_t find_statistics(const model_step_t *step, input_t *in, const cancel_t *cancel, prepare_t *out,
                                  err_t *err) {
    statistics_t s = {.p = out, .together = step->together};
    int i = out->steps;
    err_kind_t k = ERR_OK;
    if (step->kind == MODEL_STEP_PERCENTILE) {
        k = find_percentiles(&s, step, in, cancel, out, err);
    } else if (step->kind == MODEL_STEP_MEAN_STD) {
        k = feed_image(&s, in, cancel, err);
        for (int c = 0; c < out->net->inputs; c++) {
            out->low[i][c] = s.mean[c];
            out->high[i][c] = s.n[c] > 0 ? sqrt(s.squares[c] / s.n[c]) : 0;
        }
    }
    for (int c = 1; step->together && c < out->net->inputs; c++) {
        out->low[i][c] = out->low[i][0];
        out->high[i][c] = out->high[i][0];
    }
    return k;
}

static bool has_contrast(const prepare_t *p, const model_step_t *step) {
    bool any = step->kind != MODEL_STEP_PERCENTILE && step->kind != MODEL_STEP_MEAN_STD;
    for (int c = 0; c < p->net->inputs; c++) {
        double spread = p->high[p->steps][c] - (step->kind == MODEL_STEP_PERCENTILE ? p->low[p->steps][c] : 0);
        any = any || spread > step->min_range;
    }
    return any;
}

/* Bright or dark objects: decided on the whole image, on means of pixels when it is large. */
static err_kind_t find_polarity(const model_spec_t *spec, input_t *in, prepare_t *out, err_t *err) {
    int side = in->width > in->height ? in->width : in->height, factor = (side + SAMPLE_SIDE - 1) / SAMPLE_SIDE;
    if (spec->output != MODEL_OUTPUT_CLASSICAL) {
        return ERR_OK;
    }
    factor = in->planes ? 1 : factor;
    int w = (in->width + factor - 1) / factor, h = (in->height + factor - 1) / factor;
    float *plane = malloc((size_t)w * (size_t)h * sizeof *plane);
    err_kind_t k = plane ? input_read_grey_reduced(in, (image_rect_t){0, 0, in->width, in->height}, factor, plane, err)
                         : no_memory(err);
    if (k == ERR_OK) {
        prepare_apply(out, plane, (size_t)w * (size_t)h);
        out->invert = classical_is_bright(plane, w, h, spec->classical.polarity);
    }
    free(plane);
    return k;
}

err_kind_t prepare_image(const model_spec_t *spec, input_t *in, const cancel_t *cancel, prepare_t *out, bool *contrast,
                         err_t *err) {
    *out = (prepare_t){.net = &spec->net};
    *contrast = true;
    for (int i = 0; i < spec->net.nsteps; i++) {
        err_kind_t k = find_statistics(&spec->net.steps[i], in, cancel, out, err);
        if (k != ERR_OK) {
            return k;
        }
        if (!has_contrast(out, &spec->net.steps[i])) {
            *contrast = false;
            return ERR_OK;
        }
        out->steps++;
    }
    return find_polarity(spec, in, out, err);
}
