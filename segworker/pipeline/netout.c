/* See netout.h. */
#include "segworker/pipeline/netout.h"

#include <math.h>
#include <string.h>

netout_t netout_of(const model_spec_t *m) {
    netout_t o = {.inputs = 1, .channels = 2, .layers = 2, .depth = {1, 1}, .grid = 1};
    if (m->output == MODEL_OUTPUT_TEST || m->output == MODEL_OUTPUT_CLASSICAL) {
        return o;
    }
    o.inputs = m->net.inputs;
    o.channels = m->net.channels;
    o.grid = m->net.grid;
    if (m->output == MODEL_OUTPUT_STAR_CONVEX) {
        o.depth[1] = m->net.rays;
    } else if (m->output == MODEL_OUTPUT_SEMANTIC || m->output == MODEL_OUTPUT_LABELS) {
        o.layers = 1;
    } else if (m->output == MODEL_OUTPUT_FOREGROUND_VOTES) {
        o.layers = 3;
        o.depth[2] = 1;
    }
    return o;
}

int netout_floats(const netout_t *o) {
    int sum = 0;
    for (int l = 0; l < o->layers; l++) {
        sum += o->depth[l];
    }
    return sum;
}

void netout_resized(const model_spec_t *m, int layer, double across, double down, float *values, size_t n) {
    if (m->output == MODEL_OUTPUT_FOREGROUND_VOTES && layer > 0) {
        float factor = (float)(layer == 1 ? down : across);
        for (size_t i = 0; i < n; i++) {
            values[i] *= factor;
        }
    }
}

int netout_points(const netout_t *o, int n) {
    return (n + o->grid - 1) / o->grid;
}

static float sigmoid(float v) {
    return 1 / (1 + expf(-v));
}

/* NaN, which a broken network gives, is nothing found. */
static void copy_map(const float *raw, size_t n, bool activate, float *out) {
    for (size_t i = 0; i < n; i++) {
        float v = activate ? sigmoid(raw[i]) : raw[i];
        out[i] = isnan(v) ? 0 : v;
    }
}

static void softmax(float *raw, int channels, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float top = raw[i], sum = 0;
        for (int c = 1; c < channels; c++) {
            top = raw[(size_t)c * n + i] > top ? raw[(size_t)c * n + i] : top;
        }
        for (int c = 0; c < channels; c++) {
            float e = expf(raw[(size_t)c * n + i] - top);
            raw[(size_t)c * n + i] = e;
            sum += e;
        }
        for (int c = 0; c < channels; c++) {
            raw[(size_t)c * n + i] /= sum;
        }
    }
}

static void sum_classes(const model_net_t *net, float *raw, size_t n, float *out) {
    if (net->activation == MODEL_ACTIVATION_SOFTMAX) {
        softmax(raw, net->channels, n);
    }
    memset(out, 0, n * sizeof *out);
    for (int c = 0; c < net->channels; c++) {
        const float *map = raw + (size_t)c * n;
        for (size_t i = 0; net->foreground[c] && i < n; i++) {
            float v = net->activation == MODEL_ACTIVATION_SIGMOID ? sigmoid(map[i]) : map[i];
            out[i] += isnan(v) ? 0 : v;
        }
    }
}

static void interleave(const float *raw, int planes, size_t n, float *out) {
    for (int k = 0; k < planes; k++) {
        for (size_t i = 0; i < n; i++) {
            out[i * (size_t)planes + (size_t)k] = raw[(size_t)k * n + i];
        }
    }
}

void netout_convert(const model_spec_t *m, float *raw, size_t n, float *const *out) {
    const model_net_t *net = &m->net;
    bool activate = net->activation == MODEL_ACTIVATION_SIGMOID;
    switch (m->output) {
    case MODEL_OUTPUT_SEMANTIC:
        sum_classes(net, raw, n, out[0]);
        break;
    case MODEL_OUTPUT_STAR_CONVEX:
        copy_map(raw, n, activate, out[0]);
        interleave(raw + n, net->rays, n, out[1]);
        break;
    case MODEL_OUTPUT_LABELS:
        copy_map(raw + (size_t)net->first * n, n, false, out[0]);
        break;
    case MODEL_OUTPUT_FOREGROUND_VOTES:
        copy_map(raw + (size_t)net->first * n, n, activate, out[0]);
        copy_map(raw + (size_t)net->second * n, n, false, out[1]);
        copy_map(raw + (size_t)net->third * n, n, false, out[2]);
        break;
    case MODEL_OUTPUT_FOREGROUND_BOUNDARY:
    case MODEL_OUTPUT_FOREGROUND_DISTANCE:
        copy_map(raw + (size_t)net->first * n, n, activate, out[0]);
        copy_map(raw + (size_t)net->second * n, n, activate, out[1]);
        for (size_t i = 0; m->output == MODEL_OUTPUT_FOREGROUND_BOUNDARY && i < n; i++) {
            out[1][i] = 1 - out[1][i];
        }
        break;
    default:
        copy_map(raw, n, false, out[0]);
        copy_map(raw + n, n, false, out[1]);
    }
}
