/* The steps of classical.h in order, on one plane. */
#include "segworker/classical/classical.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "segworker/classical/distance.h"
#include "segworker/classical/local.h"
#include "segworker/classical/split.h"
#include "segworker/pipeline/components.h"

#define FULL_EXCESS 0.2f /* beyond the threshold by this share of the range: surely an object */
#define SEED 1.0f
#define DIST_MAX 0.49f /* of what is no seed */

enum { EDGE_STEP = 2, BINS = 256 };

typedef struct {
    const classical_params_t *p;
    const cancel_t *cancel;
    int width, height;
    size_t pixels;
    uint16_t *v;   /* the plane, objects dark */
    uint8_t *mask; /* the objects; later the seeds */
    int32_t *work; /* distances, then components */
} run_t;

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.", "classical");
}

/* ---------------------------------------------------------------- polarity */

static int bin_of(float v) {
    return v <= 0 ? 0 : v >= 1 ? BINS - 1 : (int)(v * BINS);
}

/* N. Otsu, 1979: the bin border that parts the histogram into the two most different classes. */
static int otsu(const uint64_t *hist) {
    double total = 0, all = 0, n = 0, sum = 0, best = -1;
    int at = BINS / 2;
    for (int b = 0; b < BINS; b++) {
        total += (double)hist[b];
        all += (double)hist[b] * b;
    }
    for (int b = 0; b + 1 < BINS; b++) {
        n += (double)hist[b];
        sum += (double)hist[b] * b;
        if (n > 0 && n < total) {
            double d = all * n - sum * total, between = d / total * d / (n * (total - n));
            if (between > best) {
                best = between;
                at = b + 1;
            }
        }
    }
    return at;
}

bool classical_is_bright(const float *plane, int width, int height, classical_polarity_t polarity) {
    if (polarity != CLASSICAL_AUTO) {
        return polarity == CLASSICAL_BRIGHT;
    }
    uint64_t hist[BINS] = {0}, dark = 0, frame = 0;
    const int share = 20;
    int border = (width < height ? width : height) / share;
    border = border < 1 ? 1 : border;
    for (size_t i = 0, n = (size_t)width * (size_t)height; i < n; i++) {
        hist[bin_of(plane[i])]++;
    }
    int limit = otsu(hist);
    for (int y = 0; y < height; y++) {
        bool outer = y < border || y >= height - border;
        for (int x = 0; x < width; x++) {
            if (!outer && x == border && width > 2 * border) {
                x = width - border;
            }
            dark += bin_of(plane[(size_t)y * (size_t)width + (size_t)x]) < limit;
            frame++;
        }
    }
    return 2 * dark > frame;
}

/* ---------------------------------------------------------------- smoothing */

static int smooth_radius(const classical_params_t *p) {
    return p->smooth > 0 ? (int)ceil(3 * p->smooth) : 0;
}

/* Border pixels are repeated outwards. */
static int inside(int i, int n) {
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

static void smooth_line(const float *in, int n, const float *w, int radius, float *padded, float *out) {
    for (int i = -radius; i < n + radius; i++) {
        padded[i + radius] = in[inside(i, n)];
    }
    for (int x = 0; x < n; x++) {
        const float *at = padded + x + radius;
        float sum = w[0] * at[0];
        for (int k = 1; k <= radius; k++) {
            sum += w[k] * (at[-k] + at[k]);
        }
        out[x] = sum;
    }
}

static void put_row(const float *row, int width, bool bright, uint16_t *out) {
    for (int x = 0; x < width; x++) {
        float v = row[x] > 0 ? row[x] < 1 ? row[x] : 1 : 0;
        out[x] = (uint16_t)((bright ? 1 - v : v) * 65535.0f + 0.5f);
    }
}

/* The plane, smoothed, as whole numbers with dark objects. */
static err_kind_t prepare(run_t *r, const float *plane, bool bright, err_t *err) {
    int radius = smooth_radius(r->p);
    size_t w = (size_t)r->width;
    float *weights = calloc((size_t)radius + 1, sizeof *weights), *column = calloc(2 * w + 2 * (size_t)radius, 4);
    if (weights == NULL || column == NULL) {
        free(weights);
        free(column);
        return no_memory(err);
    }
    float sum = 0, *padded = column + w;
    for (int k = 0; k <= radius; k++) {
        weights[k] = radius > 0 ? (float)exp(-0.5 * k * k / (r->p->smooth * r->p->smooth)) : 1;
        sum += k > 0 ? 2 * weights[k] : weights[k];
    }
    for (int k = 0; k <= radius; k++) {
        weights[k] /= sum;
    }
    for (int y = 0; y < r->height; y++) {
        const float *row = plane + (size_t)y * w;
        for (size_t x = 0; x < w; x++) {
            column[x] = weights[0] * row[x];
        }
        for (int k = 1; k <= radius; k++) {
            const float *a = plane + (size_t)inside(y - k, r->height) * w;
            const float *b = plane + (size_t)inside(y + k, r->height) * w;
            for (size_t x = 0; x < w; x++) {
                column[x] += weights[k] * (a[x] + b[x]);
            }
        }
        smooth_line(column, r->width, weights, radius, padded, column);
        put_row(column, r->width, bright, r->v + (size_t)y * w);
    }
    free(weights);
    free(column);
    return ERR_OK;
}

/* ---------------------------------------------------------------- holes */

static err_kind_t fill_holes(run_t *r, err_t *err) {
    uint32_t n = 0, *areas = NULL;
    if (r->p->fill <= 0) {
        return ERR_OK;
    }
    for (size_t i = 0; i < r->pixels; i++) {
        r->mask[i] = !r->mask[i];
    }
    err_kind_t kind = components_label(r->mask, 1, r->width, r->height, r->cancel, r->work, &n, &areas, err);
    if (kind != ERR_OK) {
        return kind;
    }
    size_t w = (size_t)r->width, last = r->pixels - w;
    const uint32_t open = UINT32_MAX; /* reaches the edge: no hole */
    areas[0] = 0;
    for (size_t x = 0; x < w; x++) {
        areas[r->work[x]] = areas[r->work[last + x]] = open;
    }
    for (size_t y = 0; y < r->pixels; y += w) {
        areas[r->work[y]] = areas[r->work[y + w - 1]] = open;
    }
    for (size_t i = 0; i < r->pixels; i++) {
        r->mask[i] = r->work[i] == 0 || (int64_t)areas[r->work[i]] <= r->p->fill;
    }
    free(areas);
    return ERR_OK;
}

/* ---------------------------------------------------------------- edge filter */

typedef struct {
    double sum; /* of the steps across the border, outwards */
    uint64_t n;
} edge_t;

static void add_step(const run_t *r, int x, int y, int dx, int dy, edge_t *e) {
    int ox = inside(x + EDGE_STEP * dx, r->width), oy = inside(y + EDGE_STEP * dy, r->height);
    int ix = inside(x - EDGE_STEP * dx, r->width), iy = inside(y - EDGE_STEP * dy, r->height);
    e->sum += (double)r->v[(size_t)oy * (size_t)r->width + (size_t)ox] -
              (double)r->v[(size_t)iy * (size_t)r->width + (size_t)ix];
    e->n++;
}

static void add_borders(const run_t *r, edge_t *edges) {
    static const int dx[4] = {1, 0, -1, 0}, dy[4] = {0, 1, 0, -1};
    for (int y = 0; y < r->height; y++) {
        for (int x = 0; x < r->width; x++) {
            size_t i = (size_t)y * (size_t)r->width + (size_t)x;
            for (int d = 0; r->work[i] != 0 && d < 4; d++) {
                int nx = x + dx[d], ny = y + dy[d];
                if (nx >= 0 && ny >= 0 && nx < r->width && ny < r->height &&
                    r->work[(size_t)ny * (size_t)r->width + (size_t)nx] == 0) {
                    add_step(r, x, y, dx[d], dy[d], &edges[r->work[i]]);
                }
            }
        }
    }
}

/* Drops the objects of the mask whose border is no clear step. */
static err_kind_t filter_edges(run_t *r, err_t *err) {
    uint32_t n = 0, *areas = NULL;
    if (r->p->edge_contrast <= 0) {
        return ERR_OK;
    }
    err_kind_t kind = components_label(r->mask, 1, r->width, r->height, r->cancel, r->work, &n, &areas, err);
    free(areas);
    if (kind != ERR_OK) {
        return kind;
    }
    edge_t *edges = calloc((size_t)n + 1, sizeof *edges);
    if (edges == NULL) {
        return no_memory(err);
    }
    add_borders(r, edges);
    for (size_t i = 0; i < r->pixels; i++) {
        const edge_t *e = &edges[r->work[i]];
        if (e->n > 0 && e->sum < r->p->edge_contrast * 65535 * (double)e->n) {
            r->mask[i] = 0;
        }
    }
    free(edges);
    return ERR_OK;
}

/* ---------------------------------------------------------------- the maps */

/* The foreground map agrees with the mask at 0.5 and else keeps to the threshold's excess. */
static void write_foreground(const run_t *r, float *fg) {
    const float below = 0.49f;
    for (size_t i = 0; i < r->pixels; i++) {
        float v = 0.5f + fg[i] / (2 * FULL_EXCESS);
        v = v < 0 ? 0 : v > 1 ? 1 : v;
        fg[i] = r->mask[i] ? v < 0.5f ? 0.5f : v : v > below ? below : v;
    }
}

/* The distance map: one seed of 3x3 px per object, the rest by distance to the border. */
static err_kind_t write_distance(run_t *r, float *dist, err_t *err) {
    for (size_t i = 0; i < r->pixels; i++) {
        dist[i] = r->mask[i] ? DIST_MAX : 0;
        r->mask[i] = !r->mask[i];
    }
    if (!r->p->split) {
        return ERR_OK; /* no seeds: each part of the mask is one object */
    }
    err_kind_t kind = distance_to(r->mask, r->width, r->height, r->cancel, r->work, err);
    int32_t most = 1;
    for (size_t i = 0; kind == ERR_OK && i < r->pixels; i++) {
        r->work[i] = r->work[i] == DISTANCE_NONE ? 1 : r->work[i]; /* nothing but object: one level */
        most = r->work[i] > most ? r->work[i] : most;
    }
    if (kind == ERR_OK) {
        kind = split_find_seeds(r->work, r->width, r->height, r->p->neck, r->mask, err);
    }
    float scale = DIST_MAX / sqrtf((float)most);
    for (size_t i = 0; kind == ERR_OK && i < r->pixels; i++) {
        dist[i] = scale * sqrtf((float)r->work[i]);
    }
    for (size_t i = 0; kind == ERR_OK && i < r->pixels; i++) {
        for (int k = 0; r->mask[i] && k < 9; k++) {
            int x = (int)(i % (size_t)r->width) + k % 3 - 1, y = (int)(i / (size_t)r->width) + k / 3 - 1;
            size_t at = (size_t)inside(y, r->height) * (size_t)r->width + (size_t)inside(x, r->width);
            dist[at] = r->work[at] > 0 ? SEED : 0;
        }
    }
    return kind;
}

static err_kind_t find_objects(run_t *r, float *fg, err_t *err) {
    err_kind_t kind = local_threshold(r->v, r->width, r->height, r->p, r->cancel, fg, err);
    for (size_t i = 0; kind == ERR_OK && i < r->pixels; i++) {
        r->mask[i] = fg[i] > 0;
    }
    if (kind == ERR_OK && r->p->open > 0) {
        kind = distance_open_close(r->mask, r->width, r->height, r->p->open, 1, r->cancel, r->work, err);
    }
    if (kind == ERR_OK && r->p->close > 0) {
        kind = distance_open_close(r->mask, r->width, r->height, r->p->close, 0, r->cancel, r->work, err);
    }
    if (kind == ERR_OK) {
        kind = fill_holes(r, err);
    }
    return kind == ERR_OK ? filter_edges(r, err) : kind;
}

err_kind_t classical_run(const float *plane, int width, int height, bool bright, const classical_params_t *p,
                         const cancel_t *cancel, float *fg, float *dist, err_t *err) {
    size_t n = (size_t)width * (size_t)height;
    run_t r = {.p = p, .cancel = cancel, .width = width, .height = height, .pixels = n};
    r.v = malloc(n * sizeof *r.v);
    r.mask = malloc(n);
    r.work = malloc(n * sizeof *r.work);
    err_kind_t kind = r.v && r.mask && r.work ? prepare(&r, plane, bright, err) : no_memory(err);
    if (kind == ERR_OK) {
        kind = find_objects(&r, fg, err);
    }
    if (kind == ERR_OK) {
        write_foreground(&r, fg);
        kind = write_distance(&r, dist, err);
    }
    free(r.v);
    free(r.mask);
    free(r.work);
    return kind;
}

int classical_reach(const classical_params_t *p) {
    return local_reach(p) + smooth_radius(p) + 2 * p->open + 2 * p->close + (p->edge_contrast > 0 ? EDGE_STEP : 0);
}
