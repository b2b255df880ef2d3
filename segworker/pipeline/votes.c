/* Votes for centres: count, smooth, heaps by falling height, largest part of each object. */
#include "segworker/pipeline/votes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "segworker/pipeline/smooth.h"

enum { NONE = -1, ASK_EVERY = 1 << 16 };

typedef struct {
    const votes_params_t *p;
    const cancel_t *cancel;
    int width, height;
    size_t pixels;
    float *counts;   /* votes per pixel */
    float *density;  /* the same, smoothed; counts itself when there is no smoothing */
    int32_t *parent; /* union-find over pixels; NONE = not reached */
    float *votes;    /* of the heap whose root the pixel is */
    uint32_t *order; /* pixels by falling density */
    size_t reached;
} heap_work_t;

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.", "votes");
}

static err_kind_t cancelled(err_t *err) {
    return err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", "votes");
}

/* ---------------------------------------------------------------- votes */

/* Pixel index along one axis that a vote goes to. */
static int land(int at, float offset, int n) {
    float target = floorf((float)at + 0.5F + offset);
    if (isnan(target)) {
        return at;
    }
    return target <= 0 ? 0 : target >= (float)(n - 1) ? n - 1 : (int)target;
}

static size_t target_of(int x, int y, const float *down, const float *right, int width, int height) {
    size_t i = (size_t)y * (size_t)width + (size_t)x;
    return (size_t)land(y, down[i], height) * (size_t)width + (size_t)land(x, right[i], width);
}

static err_kind_t count_votes(heap_work_t *k, const uint8_t *mask, uint8_t bits, const float *down, const float *right,
                              err_t *err) {
    k->counts = calloc(k->pixels, sizeof *k->counts);
    if (k->counts == NULL) {
        return no_memory(err);
    }
    for (int y = 0; y < k->height; y++) {
        for (int x = 0; x < k->width; x++) {
            if (mask[(size_t)y * (size_t)k->width + (size_t)x] & bits) {
                k->counts[target_of(x, y, down, right, k->width, k->height)] += 1;
            }
        }
    }
    if (!(k->p->sigma > 0)) {
        k->density = k->counts;
        return ERR_OK;
    }
    k->density = malloc(k->pixels * sizeof *k->density);
    return k->density == NULL
               ? no_memory(err)
               : smooth_gaussian(k->counts, k->width, k->height, k->p->sigma, k->cancel, k->density, err);
}

/* ---------------------------------------------------------------- order */

/* Half of what one vote alone leaves on its own pixel: lower places belong to no heap. */
static float floor_density(double sigma) {
    double sum = 1;
    if (!(sigma > 0)) {
        return 0.5F;
    }
    for (int i = 1; i <= (int)(4 * sigma + 0.5); i++) {
        sum += 2 * exp(-0.5 * i * i / (sigma * sigma));
    }
    return (float)(0.5 / (sum * sum));
}

/* Densities are positive, so their bits rise with them; falling order needs the complement. */
static uint32_t falling_key(float v) {
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    return ~u;
}

/* Stable counting sort by 16 bits of the key. */
static void sort_pass(const uint32_t *from, uint32_t *to, size_t n, const float *density, int shift, uint32_t *starts) {
    memset(starts, 0, ((size_t)UINT16_MAX + 2) * sizeof *starts);
    for (size_t i = 0; i < n; i++) {
        starts[(falling_key(density[from[i]]) >> shift & UINT16_MAX) + 1]++;
    }
    for (size_t b = 1; b <= UINT16_MAX; b++) {
        starts[b] += starts[b - 1];
    }
    for (size_t i = 0; i < n; i++) {
        to[starts[falling_key(density[from[i]]) >> shift & UINT16_MAX]++] = from[i];
    }
}

/* k->order: the pixels above the floor, the densest first, equals in raster order. */
static err_kind_t sort_pixels(heap_work_t *k, err_t *err) {
    float least = floor_density(k->p->sigma);
    size_t n = 0;
    for (size_t i = 0; i < k->pixels; i++) {
        n += k->density[i] > least;
    }
    k->order = calloc(n + 1, sizeof *k->order);
    uint32_t *other = malloc((n + 1) * sizeof *other);
    uint32_t *starts = malloc(((size_t)UINT16_MAX + 2) * sizeof *starts);
    err_kind_t kind = k->order && other && starts ? ERR_OK : no_memory(err);
    for (size_t i = 0; kind == ERR_OK && i < k->pixels; i++) {
        if (k->density[i] > least) {
            k->order[k->reached++] = (uint32_t)i;
        }
    }
    if (kind == ERR_OK) {
        sort_pass(k->order, other, n, k->density, 0, starts);
        sort_pass(other, k->order, n, k->density, 16, starts);
    }
    free(other);
    free(starts);
    return kind;
}

/* ---------------------------------------------------------------- heaps */

static int32_t root_of(int32_t *parent, int32_t i) {
    while (parent[i] != i) {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    return i;
}

/* Of two heaps the one with the higher peak; of equals the one that began first. The root of a heap is its peak. */
static bool is_higher(const heap_work_t *k, int32_t a, int32_t b) {
    return k->density[a] > k->density[b] || (a < b && k->density[a] == k->density[b]); /* NOLINT: exact on purpose */
}

/* Two heaps meet at a place of this density: the lower joins the higher unless it is a heap of its own. */
static void meet(heap_work_t *k, int32_t a, int32_t b, float saddle) {
    int32_t high = is_higher(k, a, b) ? a : b, low = high == a ? b : a;
    bool small = k->votes[a] + k->votes[b] < (float)k->p->small_votes;
    bool same = saddle >= (float)(small ? k->p->small_saddle : k->p->saddle) * k->density[low];
    if (same || k->votes[low] < (float)k->p->min_votes) {
        k->parent[low] = high;
        k->votes[high] += k->votes[low];
    }
}

static int reached_neighbours(const heap_work_t *k, int32_t i, int32_t out[8]) {
    int n = 0, x0 = i % k->width, y0 = i / k->width;
    for (int y = y0 > 0 ? y0 - 1 : 0; y <= y0 + 1 && y < k->height; y++) {
        for (int x = x0 > 0 ? x0 - 1 : 0; x <= x0 + 1 && x < k->width; x++) {
            int32_t j = y * k->width + x;
            /* build_heaps begins with NONE everywhere */
            /* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult) */
            if (j != i && k->parent[j] != NONE) {
                out[n++] = j;
            }
        }
    }
    return n;
}

static err_kind_t build_heaps(heap_work_t *k, err_t *err) {
    k->parent = malloc(k->pixels * sizeof *k->parent);
    k->votes = malloc(k->pixels * sizeof *k->votes);
    if (k->parent == NULL || k->votes == NULL) {
        return no_memory(err);
    }
    for (size_t i = 0; i < k->pixels; i++) {
        k->parent[i] = NONE;
    }
    for (size_t s = 0; s < k->reached; s++) {
        int32_t near[8], i = (int32_t)k->order[s];
        int n = reached_neighbours(k, i, near), top = 0;
        if (s % ASK_EVERY == 0 && cancel_asked(k->cancel)) {
            return cancelled(err);
        }
        k->parent[i] = i;
        k->votes[i] = k->counts[i];
        for (int a = 1; a < n; a++) {
            top = k->density[near[a]] > k->density[near[top]] ? a : top;
        }
        if (n > 0) {
            int32_t mine = root_of(k->parent, near[top]);
            k->parent[i] = mine;
            k->votes[mine] += k->counts[i];
        }
        for (int a = 0; a < n; a++) {
            int32_t other = root_of(k->parent, near[a]), mine = root_of(k->parent, i);
            if (other != mine) {
                meet(k, mine, other, k->density[i]);
            }
        }
    }
    return ERR_OK;
}

/* Numbers the heaps by the raster order of their peaks; labels[i] = number of the heap at i, for the caller to look up.
 * The numbers replace what k->votes held. */
static uint32_t number_heaps(heap_work_t *k, int32_t *at) {
    uint32_t n = 0;
    for (size_t i = 0; i < k->pixels; i++) {
        at[i] = k->parent[i] == (int32_t)i && k->votes[i] >= (float)k->p->min_votes ? (int32_t)++n : 0;
    }
    for (size_t s = 0; s < k->reached; s++) {
        int32_t i = (int32_t)k->order[s];
        at[i] = at[root_of(k->parent, i)];
    }
    return n;
}

/* ---------------------------------------------------------------- largest parts */

static void join(int32_t *parent, int32_t a, int32_t b) {
    a = root_of(parent, a);
    b = root_of(parent, b);
    parent[a > b ? a : b] = a > b ? b : a;
}

/* Clears what is not in the largest 4-connected part of its label. parent, area: scratch, one entry per pixel. */
static err_kind_t keep_largest(int32_t *labels, int width, int height, uint32_t count, int32_t *parent, uint32_t *area,
                               err_t *err) {
    size_t w = (size_t)width, n = w * (size_t)height;
    int32_t *best = malloc(((size_t)count + 1) * sizeof *best);
    if (best == NULL) {
        return no_memory(err);
    }
    for (size_t c = 0; c <= count; c++) {
        best[c] = NONE;
    }
    for (size_t i = 0; i < n; i++) {
        parent[i] = (int32_t)i;
        area[i] = 0;
        if (i % w > 0 && labels[i - 1] == labels[i] && labels[i] != 0) {
            join(parent, (int32_t)i, (int32_t)i - 1);
        }
        if (i >= w && labels[i - w] == labels[i] && labels[i] != 0) {
            join(parent, (int32_t)i, (int32_t)(i - w));
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (labels[i] != 0) {
            area[root_of(parent, (int32_t)i)]++;
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (area[i] > 0 && (best[labels[i]] == NONE || area[i] > area[best[labels[i]]])) {
            best[labels[i]] = (int32_t)i;
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (labels[i] != 0 && root_of(parent, (int32_t)i) != best[labels[i]]) {
            labels[i] = 0;
        }
    }
    free(best);
    return ERR_OK;
}

err_kind_t votes_group(const uint8_t *mask, uint8_t bits, const float *down, const float *right, int width, int height,
                       const votes_params_t *p, const cancel_t *cancel, int32_t *labels, uint32_t *count, err_t *err) {
    heap_work_t k = {.p = p, .cancel = cancel, .width = width, .height = height};
    k.pixels = (size_t)width * (size_t)height;
    *count = 0;
    err_kind_t kind = count_votes(&k, mask, bits, down, right, err);
    if (kind == ERR_OK) {
        kind = sort_pixels(&k, err);
    }
    if (kind == ERR_OK) {
        kind = build_heaps(&k, err);
    }
    if (kind == ERR_OK) {
        /* The two buffers have done their work; what is written into them next gives them their new type. */
        /* cppcheck-suppress invalidPointerCast */
        int32_t *at = (int32_t *)k.counts;
        *count = number_heaps(&k, at);
        for (int y = 0; y < height; y++) {
            for (int x = 0; x < width; x++) {
                size_t i = (size_t)y * (size_t)width + (size_t)x;
                labels[i] = mask[i] & bits ? at[target_of(x, y, down, right, width, height)] : 0;
            }
        }
        /* cppcheck-suppress invalidPointerCast */
        kind = keep_largest(labels, width, height, *count, k.parent, (uint32_t *)k.votes, err);
    }
    if (k.density != k.counts) {
        free(k.density);
    }
    free(k.counts);
    free(k.parent);
    free(k.votes);
    free(k.order);
    return kind;
}
