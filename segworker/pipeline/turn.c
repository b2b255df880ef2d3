/* See turn.h. A turn is a number: 1 = left and right exchanged, 2 = top and bottom, 4 = rows and columns, and sums. */
#include "segworker/pipeline/turn.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FLIP_X = 1, FLIP_Y = 2, TRANSPOSE = 4 };

/* Index in a w*h plane of what the turned plane holds at (x, y). */
static size_t source_of(int turn, int w, int h, int x, int y) {
    int sx = turn & TRANSPOSE ? y : x, sy = turn & TRANSPOSE ? x : y;
    sx = turn & FLIP_X ? w - 1 - sx : sx;
    sy = turn & FLIP_Y ? h - 1 - sy : sy;
    return (size_t)sy * (size_t)w + (size_t)sx;
}

/* Which ray of the plane the turned plane's ray k is. */
static int ray_of(int turn, int rays, int k) {
    const double whole = 2 * 3.14159265358979323846;
    double dx = cos(whole * k / rays), dy = sin(whole * k / rays);
    if (turn & TRANSPOSE) {
        double t = dx;
        dx = dy;
        dy = t;
    }
    dx = turn & FLIP_X ? -dx : dx;
    dy = turn & FLIP_Y ? -dy : dy;
    int i = (int)lround(atan2(dy, dx) / whole * rays);
    return (i + rays) % rays;
}

static void add_back(const float *turned, int depth, int turn, int w, int h, float *sum) {
    int ray[STAR_MAX_RAYS], tw = turn & TRANSPOSE ? h : w, th = turn & TRANSPOSE ? w : h;
    for (int k = 0; k < depth; k++) {
        ray[k] = depth > 1 ? ray_of(turn, depth, k) : 0;
    }
    for (int y = 0; y < th; y++) {
        for (int x = 0; x < tw; x++) {
            float *to = sum + source_of(turn, w, h, x, y) * (size_t)depth;
            for (int k = 0; k < depth; k++) {
                to[ray[k]] += *turned++;
            }
        }
    }
}

/* Ways (down, right) of the turned plane become ways of the plane; still at the turned places. */
static void turn_ways(float *down, float *right, int turn, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float dx = turn & TRANSPOSE ? down[i] : right[i], dy = turn & TRANSPOSE ? right[i] : down[i];
        right[i] = turn & FLIP_X ? -dx : dx;
        down[i] = turn & FLIP_Y ? -dy : dy;
    }
}

static void turn_planes(const float *in, int planes, int turn, int w, int h, float *out) {
    int tw = turn & TRANSPOSE ? h : w, th = turn & TRANSPOSE ? w : h;
    for (int c = 0; c < planes; c++) {
        const float *plane = in + (size_t)c * (size_t)w * (size_t)h;
        for (int y = 0; y < th; y++) {
            for (int x = 0; x < tw; x++) {
                *out++ = plane[source_of(turn, w, h, x, y)];
            }
        }
    }
}

err_kind_t turn_run(const turn_job_t *job, model_tta_t tta, const float *in, int w, int h, float *raw,
                    float *const *layers, err_t *err) {
    const netout_t *o = job->out;
    size_t n = (size_t)w * (size_t)h;
    int turns = tta == MODEL_TTA_ROTATIONS ? 8 : 4;
    float *turned = malloc(n * (size_t)o->inputs * sizeof *turned), *back[NETOUT_LAYERS] = {0};
    bool ok = turned != NULL;
    for (int l = 0; l < o->layers; l++) {
        back[l] = malloc(n * (size_t)o->depth[l] * sizeof *back[l]);
        memset(layers[l], 0, n * (size_t)o->depth[l] * sizeof *back[l]);
        ok = ok && back[l];
    }
    err_kind_t k =
        ok ? ERR_OK
           : err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to run the model.", NULL);
    for (int turn = 0; k == ERR_OK && turn < turns; turn++) {
        turn_planes(in, o->inputs, turn, w, h, turned);
        k = job->run(job->ctx, turned, turn & TRANSPOSE ? h : w, turn & TRANSPOSE ? w : h, raw, err);
        if (k != ERR_OK) {
            break;
        }
        netout_convert(job->spec, raw, n, back);
        if (job->spec->output == MODEL_OUTPUT_FOREGROUND_VOTES) {
            turn_ways(back[1], back[2], turn, n);
        }
        for (int l = 0; l < o->layers; l++) {
            add_back(back[l], o->depth[l], turn, w, h, layers[l]);
        }
    }
    for (int l = 0; l < o->layers; l++) {
        for (size_t i = 0; k == ERR_OK && i < n * (size_t)o->depth[l]; i++) {
            layers[l][i] /= (float)turns;
        }
        free(back[l]);
    }
    free(turned);
    return k;
}
