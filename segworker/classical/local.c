/* Sliding sums. The columns' sums over the window's rows move down by one row at a time; each row's window slides over
 * them. All sums are whole numbers, so that no rounding depends on where a part of the plane begins. */
#include "segworker/classical/local.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ASK_EVERY = 32, BOXES = 3, FRACTION_BITS = 12 };

#define RANGE 65535.0

typedef struct {
    int width, height;
    const cancel_t *cancel;
    err_t *err;
} plane_t;

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.", "threshold");
}

static err_kind_t ask(const plane_t *p, int y) {
    return y % ASK_EVERY == 0 && cancel_asked(p->cancel)
               ? err_set(p->err, ERR_CANCELLED, "cancelled", "The job was cancelled.", "threshold")
               : ERR_OK;
}

static int window_radius(const classical_params_t *p) {
    return p->window / 2;
}

/* ---------------------------------------------------------------- mean and deviation */

static void add_row(const uint16_t *row, int width, uint64_t *sum, uint64_t *squares) {
    for (int x = 0; x < width; x++) {
        sum[x] += row[x];
        squares[x] += (uint64_t)row[x] * row[x];
    }
}

static void remove_row(const uint16_t *row, int width, uint64_t *sum, uint64_t *squares) {
    for (int x = 0; x < width; x++) {
        sum[x] -= row[x];
        squares[x] -= (uint64_t)row[x] * row[x];
    }
}

static double threshold_at(const classical_params_t *p, double mean, double deviation) {
    const double half = 0.5; /* R of Sauvola: half the range */
    return p->method == CLASSICAL_SAUVOLA ? mean * (1 + p->k * (deviation / half - 1)) : mean - p->k * deviation;
}

static void excess_row(const classical_params_t *p, const uint16_t *row, int width, int rows, const uint64_t *sum,
                       const uint64_t *squares, float *out) {
    int r = window_radius(p), last = -1, first = 0;
    uint64_t s = 0, q = 0;
    for (int x = 0; x < width; x++) {
        for (; last < x + r && last + 1 < width; last++) {
            s += sum[last + 1];
            q += squares[last + 1];
        }
        for (; first < x - r; first++) {
            s -= sum[first];
            q -= squares[first];
        }
        double n = (double)(last - first + 1) * rows, mean = (double)s / n, var = (double)q / n - mean * mean;
        double t = threshold_at(p, mean / RANGE, sqrt(var > 0 ? var : 0) / RANGE) - p->offset;
        out[x] = (float)(t - row[x] / RANGE);
    }
}

static err_kind_t by_moments(const uint16_t *v, const plane_t *pl, const classical_params_t *p, float *excess) {
    size_t w = (size_t)pl->width;
    uint64_t *sum = calloc(2 * w, sizeof *sum), *squares = sum + w;
    int r = window_radius(p), last = -1, first = 0;
    err_kind_t kind = sum != NULL ? ERR_OK : no_memory(pl->err);
    for (int y = 0; kind == ERR_OK && y < pl->height; y++) {
        kind = ask(pl, y);
        for (; last < y + r && last + 1 < pl->height; last++) {
            add_row(v + (size_t)(last + 1) * w, pl->width, sum, squares);
        }
        for (; first < y - r; first++) {
            remove_row(v + (size_t)first * w, pl->width, sum, squares);
        }
        excess_row(p, v + (size_t)y * w, pl->width, last - first + 1, sum, squares, excess + (size_t)y * w);
    }
    free(sum);
    return kind;
}

/* ---------------------------------------------------------------- Gaussian */

/* Radii of three boxes whose succession has nearly the variance sigma². */
static void box_radii(double sigma, int radii[BOXES]) {
    int low = (int)(sqrt(12 * sigma * sigma / BOXES + 1) - 1) / 2; /* the ideal width, rounded down to an odd number */
    double wide = (12 * sigma * sigma - BOXES * (double)(4 * low * low + 4 * low)) / (8.0 * (low + 1));
    int n = (int)lround(wide);
    for (int i = 0; i < BOXES; i++) {
        radii[i] = low + (i < n ? 1 : 0);
    }
}

static double sigma_of(const classical_params_t *p) {
    return (p->window - 1) / 6.0;
}

static void box_row(uint32_t *row, int width, int r, uint32_t *copy) {
    int last = -1, first = 0;
    uint64_t s = 0;
    memcpy(copy, row, (size_t)width * sizeof *row);
    for (int x = 0; x < width; x++) {
        for (; last < x + r && last + 1 < width; last++) {
            s += copy[last + 1];
        }
        for (; first < x - r; first++) {
            s -= copy[first];
        }
        uint64_t n = (uint64_t)last - (uint64_t)first + 1;
        /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): the pixel itself is among the n */
        row[x] = (uint32_t)((s + n / 2) / n);
    }
}

/* Mean over rows y-r..y+r, column by column; ring holds the last r + 1 unfiltered rows. */
static err_kind_t box_columns(uint32_t *v, const plane_t *pl, int r) {
    size_t w = (size_t)pl->width;
    int rows = r + 1 < pl->height ? r + 1 : pl->height;
    uint64_t *sum = calloc(w, sizeof *sum);
    uint32_t *ring = malloc((size_t)rows * w * sizeof *ring);
    err_kind_t kind = sum != NULL && ring != NULL ? ERR_OK : no_memory(pl->err);
    for (int y = 0, last = -1; kind == ERR_OK && y < pl->height; y++) {
        kind = ask(pl, y);
        for (; last < y + r && last + 1 < pl->height; last++) {
            for (size_t x = 0; x < w; x++) {
                sum[x] += v[(size_t)(last + 1) * w + x];
            }
        }
        int gone = y - r - 1, first = y - r < 0 ? 0 : y - r;
        if (gone >= 0) {
            /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): an image has rows */
            const uint32_t *old = ring + (size_t)(gone % rows) * w;
            for (size_t x = 0; x < w; x++) {
                sum[x] -= old[x]; /* NOLINT(clang-analyzer-core.uninitialized.Assign): kept r + 1 rows ago */
            }
        }
        uint32_t *row = v + (size_t)y * w, *keep = ring + (size_t)(y % rows) * w;
        uint64_t n = (uint64_t)last - (uint64_t)first + 1;
        memcpy(keep, row, w * sizeof *row);
        for (size_t x = 0; x < w; x++) {
            /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): the row itself is among the n */
            row[x] = (uint32_t)((sum[x] + n / 2) / n);
        }
    }
    free(sum);
    free(ring);
    return kind;
}

static err_kind_t by_gaussian(const uint16_t *v, const plane_t *pl, const classical_params_t *p, float *excess) {
    size_t n = (size_t)pl->width * (size_t)pl->height;
    uint32_t *mean = malloc(n * sizeof *mean), *line = malloc((size_t)pl->width * sizeof *line);
    int radii[BOXES];
    err_kind_t kind = mean != NULL && line != NULL ? ERR_OK : no_memory(pl->err);
    for (size_t i = 0; kind == ERR_OK && i < n; i++) {
        mean[i] = (uint32_t)v[i] << FRACTION_BITS;
    }
    box_radii(sigma_of(p), radii);
    for (int b = 0; kind == ERR_OK && b < BOXES; b++) {
        for (int y = 0; y < pl->height; y++) {
            box_row(mean + (size_t)y * (size_t)pl->width, pl->width, radii[b], line);
        }
        kind = box_columns(mean, pl, radii[b]);
    }
    for (size_t i = 0; kind == ERR_OK && i < n; i++) {
        excess[i] = (float)((mean[i] / (double)(1 << FRACTION_BITS) - v[i]) / RANGE - p->offset);
    }
    free(mean);
    free(line);
    return kind;
}

err_kind_t local_threshold(const uint16_t *v, int width, int height, const classical_params_t *p,
                           const cancel_t *cancel, float *excess, err_t *err) {
    const plane_t pl = {width, height, cancel, err};
    return p->method == CLASSICAL_GAUSSIAN ? by_gaussian(v, &pl, p, excess) : by_moments(v, &pl, p, excess);
}

int local_reach(const classical_params_t *p) {
    int radii[BOXES], reach = 0;
    if (p->method != CLASSICAL_GAUSSIAN) {
        return window_radius(p);
    }
    box_radii(sigma_of(p), radii);
    for (int b = 0; b < BOXES; b++) {
        reach += radii[b];
    }
    return reach;
}
