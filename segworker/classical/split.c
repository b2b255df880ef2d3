/* Summits of the distance map, kept or merged by the depth of the saddles between them. */
#include "segworker/classical/split.h"

#include <math.h>
#include <stdlib.h>

enum {
    STEPS = 8, /* distances are sorted in steps of 1/8 px */
    LEVELS_MAX = 1 << 16,
    LEAST_SUMMIT2 = 9 /* px²: what is narrower is part of what it hangs on */
};

typedef struct {
    int32_t *parent; /* -1 = not visited; a root is its own parent and its component's summit */
    int32_t *order;  /* pixels by distance, descending */
    size_t count;
} forest_t;

static int level_of(int32_t d2) {
    double v = sqrt((double)d2) * STEPS;
    return v >= LEVELS_MAX - 1 ? LEVELS_MAX - 1 : (int)v;
}

/* Pixels with d2 > 0, farthest first, equal ones in raster order. */
static int sort_pixels(const int32_t *d2, size_t n, forest_t *f) {
    uint32_t *at = calloc(LEVELS_MAX + 1, sizeof *at);
    if (at == NULL) {
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        if (d2[i] > 0) {
            at[LEVELS_MAX - 1 - level_of(d2[i]) + 1]++;
        }
    }
    for (int l = 1; l <= LEVELS_MAX; l++) {
        at[l] += at[l - 1];
    }
    f->count = at[LEVELS_MAX];
    f->order = malloc((f->count > 0 ? f->count : 1) * sizeof *f->order);
    for (size_t i = 0; f->order != NULL && i < n; i++) {
        if (d2[i] > 0) {
            f->order[at[LEVELS_MAX - 1 - level_of(d2[i])]++] = (int32_t)i;
        }
    }
    free(at);
    return f->order != NULL;
}

static int32_t find_root(int32_t *parent, int32_t k) {
    while (parent[k] != k) {
        parent[k] = parent[parent[k]];
        k = parent[k];
    }
    return k;
}

/* Joins the components of a new pixel and a visited neighbour; the higher summit becomes the root. */
static void join(forest_t *f, const int32_t *d2, int32_t pixel, int32_t neighbour, double neck, uint8_t *seed) {
    int32_t a = find_root(f->parent, pixel), b = find_root(f->parent, neighbour);
    if (a == b) {
        return;
    }
    int32_t high = d2[a] > d2[b] || (a < b && d2[a] == d2[b]) ? a : b, low = high == a ? b : a;
    /* the pixel is the saddle; a summit that is the pixel itself is none */
    if (low != pixel && d2[low] >= LEAST_SUMMIT2 && sqrt((double)d2[pixel]) < neck * sqrt((double)d2[low])) {
        seed[low] = 1;
    }
    f->parent[low] = high;
}

static void visit(forest_t *f, const int32_t *d2, int width, int height, double neck, uint8_t *seed) {
    for (size_t k = 0; k < f->count; k++) {
        int32_t i = f->order[k];
        int x = i % width, y = i / width;
        f->parent[i] = i;
        if (x > 0 && f->parent[i - 1] >= 0) {
            join(f, d2, i, i - 1, neck, seed);
        }
        if (x + 1 < width && f->parent[i + 1] >= 0) {
            join(f, d2, i, i + 1, neck, seed);
        }
        if (y > 0 && f->parent[i - width] >= 0) {
            join(f, d2, i, i - width, neck, seed);
        }
        if (y + 1 < height && f->parent[i + width] >= 0) {
            join(f, d2, i, i + width, neck, seed);
        }
    }
}

err_kind_t split_find_seeds(const int32_t *d2, int width, int height, double neck, uint8_t *seed, err_t *err) {
    size_t n = (size_t)width * (size_t)height;
    forest_t f = {.parent = malloc(n * sizeof *f.parent)};
    int ok = f.parent != NULL && sort_pixels(d2, n, &f);
    for (size_t i = 0; ok && i < n; i++) {
        f.parent[i] = -1;
        seed[i] = 0;
    }
    if (ok) {
        visit(&f, d2, width, height, neck, seed);
    }
    for (size_t i = 0; ok && i < n; i++) {
        if (f.parent[i] == (int32_t)i) {
            seed[i] = 1;
        }
    }
    free(f.parent);
    free(f.order);
    return ok ? ERR_OK
              : err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.", "split");
}
