/* Network maps to a label image: mask, seeds, watershed, holes, small objects, numbering. */
#include "segworker/pipeline/label.h"

#include <stdlib.h>
#include <string.h>

#include "segworker/pipeline/components.h"
#include "segworker/pipeline/smooth.h"
#include "segworker/pipeline/votes.h"
#include "segworker/pipeline/watershed.h"

#define MAX_PIXELS ((int64_t)1 << 30)

enum { BIT_MASK = 1, BIT_SEED = 2, BIT_BACKGROUND = 4, SEVERAL = -1 };

typedef struct {
    const label_params_t *p;
    const cancel_t *cancel;
    int width, height;
    size_t pixels;
    uint8_t *mask;   /* BIT_* per pixel */
    int32_t *labels; /* the result */
    int32_t *parts;  /* scratch: components */
    uint32_t nparts; /* of the mask */
    float *smooth;   /* owned smoothed distance, or NULL */
    uint32_t *areas; /* of the last components */
    uint32_t count;  /* labels in use */
} work_t;

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.", "label");
}

/* ---------------------------------------------------------------- seeds */

/* Numbers the components whose area is at least min_area, in order: numbers[k] = 0 for the others. In place. */
static uint32_t number_large(uint32_t *areas, uint32_t count, int64_t min_area) {
    uint32_t n = 0;
    for (uint32_t c = 1; c <= count; c++) {
        areas[c] = (int64_t)areas[c] >= min_area ? ++n : 0;
    }
    return n;
}

static err_kind_t find_parts(work_t *k, uint8_t bit, int32_t *out, uint32_t *n, err_t *err) {
    free(k->areas);
    k->areas = NULL;
    return components_label(k->mask, bit, k->width, k->height, k->cancel, out, n, &k->areas, err);
}

/* Seeds from the distance map. */
static err_kind_t place_seeds(work_t *k, err_t *err) {
    uint32_t n = 0;
    err_kind_t kind = find_parts(k, BIT_SEED, k->labels, &n, err);
    if (kind != ERR_OK) {
        return kind;
    }
    k->count = number_large(k->areas, n, k->p->seed_min_area);
    for (size_t i = 0; i < k->pixels; i++) {
        k->labels[i] = (int32_t)k->areas[k->labels[i]];
    }
    return ERR_OK;
}

/* One more seed for each large enough part of the mask that has none. */
static err_kind_t seed_other_parts(work_t *k, err_t *err) {
    uint32_t n = 0;
    err_kind_t kind = find_parts(k, BIT_MASK, k->parts, &n, err);
    if (kind != ERR_OK) {
        return kind;
    }
    k->nparts = n;
    int32_t *seed_of = calloc((size_t)n + 1, sizeof *seed_of); /* the part's only seed; SEVERAL when there are more */
    if (seed_of == NULL) {
        return no_memory(err);
    }
    for (size_t i = 0; i < k->pixels; i++) {
        if (k->labels[i] != 0) {
            int32_t *seed = &seed_of[k->parts[i]];
            *seed = *seed == 0 || *seed == k->labels[i] ? k->labels[i] : SEVERAL;
        }
    }
    for (uint32_t c = 1; c <= n; c++) {
        if (seed_of[c] == 0 && (int64_t)k->areas[c] >= k->p->min_area) {
            seed_of[c] = (int32_t)++k->count;
        }
    }
    /* A part with one seed is that object, all of it: only parts with several seeds are left for the flooding. */
    for (size_t i = 0; i < k->pixels; i++) {
        if (seed_of[k->parts[i]] > 0) {
            k->labels[i] = seed_of[k->parts[i]];
        }
    }
    free(seed_of);
    return ERR_OK;
}

/* ---------------------------------------------------------------- holes */

typedef struct {
    int32_t owner; /* the only label around the hole; 0 = none seen yet, -1 = not a hole */
} hole_t;

static void note_neighbour(hole_t *h, int32_t label) {
    if (label != 0 && h->owner != label) {
        h->owner = h->owner == 0 ? label : -1;
    }
}

static void note_owners(const work_t *k, hole_t *holes) {
    size_t w = (size_t)k->width;
    for (int y = 0; y < k->height; y++) {
        const int32_t *part = k->parts + (size_t)y * w, *label = k->labels + (size_t)y * w;
        int edge_row = y == 0 || y == k->height - 1;
        for (size_t x = 0; x < w; x++) {
            if (part[x] == 0) {
                continue;
            }
            hole_t *h = &holes[part[x]];
            if (edge_row || x == 0 || x + 1 == w) {
                h->owner = -1;
                continue;
            }
            note_neighbour(h, label[x - 1]);
            note_neighbour(h, label[x + 1]);
            note_neighbour(h, (label - w)[x]);
            note_neighbour(h, label[x + w]);
        }
    }
}

static err_kind_t fill_holes(work_t *k, err_t *err) {
    uint32_t n = 0;
    if (k->p->detect_holes && k->p->max_hole_area <= 0) {
        return ERR_OK;
    }
    for (size_t i = 0; i < k->pixels; i++) {
        k->mask[i] = k->labels[i] == 0 ? BIT_BACKGROUND : 0;
    }
    err_kind_t kind = find_parts(k, BIT_BACKGROUND, k->parts, &n, err);
    if (kind != ERR_OK) {
        return kind;
    }
    hole_t *holes = calloc((size_t)n + 1, sizeof *holes);
    if (holes == NULL) {
        return no_memory(err);
    }
    note_owners(k, holes);
    for (size_t i = 0; i < k->pixels; i++) {
        int32_t part = k->parts[i], owner = holes[part].owner;
        if (part != 0 && owner > 0 && (!k->p->detect_holes || (int64_t)k->areas[part] <= k->p->max_hole_area)) {
            k->labels[i] = owner;
        }
    }
    free(holes);
    return ERR_OK;
}

/* ---------------------------------------------------------------- numbering */

/* Objects with a pixel on the image's edge get area 0, so that they count as too small. */
static void drop_border_objects(const work_t *k, uint32_t *area) {
    size_t w = (size_t)k->width, last = k->pixels - w;
    for (size_t x = 0; x < w; x++) {
        /* NOLINTNEXTLINE(clang-analyzer-core.uninitialized.ArraySubscript): find_parts has filled all labels */
        area[k->labels[x]] = area[k->labels[last + x]] = 0;
    }
    for (size_t y = 0; y < k->pixels; y += w) {
        area[k->labels[y]] = area[k->labels[y + w - 1]] = 0;
    }
}

/* Drops small objects and numbers the rest in the order of their first pixel. */
static err_kind_t number_objects(work_t *k, err_t *err) {
    uint32_t *area = calloc((size_t)k->count + 1, sizeof *area), n = 0;
    uint32_t *number = calloc((size_t)k->count + 1, sizeof *number);
    if (area == NULL || number == NULL) {
        free(area);
        free(number);
        return no_memory(err);
    }
    for (size_t i = 0; i < k->pixels; i++) {
        area[k->labels[i]]++;
    }
    if (k->p->drop_border && !k->p->part) {
        drop_border_objects(k, area);
    }
    for (size_t i = 0; i < k->pixels; i++) {
        int32_t label = k->labels[i];
        if (label == 0) {
            continue;
        }
        if (area[label] == 0 || (!k->p->part && (int64_t)area[label] < k->p->min_area)) {
            k->labels[i] = 0;
            continue;
        }
        if (number[label] == 0) {
            number[label] = ++n;
        }
        k->labels[i] = (int32_t)number[label];
    }
    free(area);
    free(number);
    k->count = n;
    if (n > k->p->max_objects) {
        return err_setf(err, ERR_INVALID, "too_many_objects",
                        "%u objects were found, more than the limit of %u: the image is probably blank, very noisy or "
                        "inverted. Check the image and the chosen model, or raise the threshold.",
                        (unsigned)n, (unsigned)k->p->max_objects);
    }
    return ERR_OK;
}

/* ---------------------------------------------------------------- whole runs */

static err_kind_t work_init(work_t *k, int width, int height, err_t *err) {
    if (width <= 0 || height <= 0) {
        return err_set(err, ERR_INVALID, "image_empty", "The image has no pixels.", "%d x %d", width, height);
    }
    if ((int64_t)width * height > MAX_PIXELS) {
        return err_set(err, ERR_TOO_LARGE, "image_too_large",
                       "The image is too large to be segmented in one piece; crop it or reduce its size.", "%d x %d",
                       width, height);
    }
    k->width = width;
    k->height = height;
    k->pixels = (size_t)width * (size_t)height;
    return ERR_OK;
}

static err_kind_t work_alloc(work_t *k, err_t *err) {
    k->mask = malloc(k->pixels);
    k->labels = malloc(k->pixels * sizeof *k->labels);
    k->parts = malloc(k->pixels * sizeof *k->parts);
    return k->mask == NULL || k->labels == NULL || k->parts == NULL ? no_memory(err) : ERR_OK;
}

static err_kind_t work_finish(work_t *k, err_kind_t kind, int32_t **labels, uint32_t *count) {
    if (kind == ERR_OK) {
        *labels = k->labels;
        *count = k->count;
    } else {
        free(k->labels);
    }
    free(k->mask);
    free(k->parts);
    free(k->smooth);
    free(k->areas);
    return kind;
}

/* From the seeds on: flooding by falling level, holes, numbers. */
static err_kind_t grow_seeds(work_t *k, const float *level, err_t *err) {
    err_kind_t kind = seed_other_parts(k, err);
    if (kind == ERR_OK) {
        kind = watershed_flood(level, k->parts, k->nparts, k->width, k->height, k->cancel, k->labels, err);
    }
    if (kind == ERR_OK) {
        kind = fill_holes(k, err);
    }
    return kind == ERR_OK ? number_objects(k, err) : kind;
}

static err_kind_t smooth_distance(work_t *k, const float *dist, err_t *err) {
    k->smooth = malloc(k->pixels * sizeof *k->smooth);
    return k->smooth == NULL ? no_memory(err)
                             : smooth_gaussian(dist, k->width, k->height, k->p->dist_sigma, k->cancel, k->smooth, err);
}

err_kind_t label_from_maps(const float *fg, const float *dist, int width, int height, const label_params_t *p,
                           const cancel_t *cancel, int32_t **labels, uint32_t *count, err_t *err) {
    work_t k = {.p = p, .cancel = cancel};
    *labels = NULL;
    *count = 0;
    err_kind_t kind = work_init(&k, width, height, err);
    if (kind == ERR_OK && p->dist_sigma > 0) {
        kind = smooth_distance(&k, dist, err);
    }
    if (kind == ERR_OK) {
        kind = work_alloc(&k, err);
    }
    if (kind != ERR_OK) {
        return work_finish(&k, kind, labels, count);
    }
    const float *d = k.smooth != NULL ? k.smooth : dist;
    for (size_t i = 0; i < k.pixels; i++) {
        int on = fg[i] >= p->threshold;
        k.mask[i] = (uint8_t)(on ? BIT_MASK | (d[i] >= p->seed_threshold ? BIT_SEED : 0) : 0);
    }
    kind = place_seeds(&k, err);
    if (kind == ERR_OK) {
        kind = grow_seeds(&k, d, err);
    }
    return work_finish(&k, kind, labels, count);
}

err_kind_t label_from_votes(const float *fg, const float *down, const float *right, int width, int height,
                            const label_params_t *p, const cancel_t *cancel, int32_t **labels, uint32_t *count,
                            err_t *err) {
    work_t k = {.p = p, .cancel = cancel};
    votes_params_t vp = {.sigma = p->dist_sigma,
                         .saddle = p->seed_threshold,
                         .min_votes = p->seed_min_area,
                         .small_votes = p->small_area,
                         .small_saddle = p->small_seed_threshold};
    *labels = NULL;
    *count = 0;
    err_kind_t kind = work_init(&k, width, height, err);
    if (kind == ERR_OK) {
        kind = work_alloc(&k, err);
    }
    if (kind == ERR_OK) {
        for (size_t i = 0; i < k.pixels; i++) {
            k.mask[i] = fg[i] >= p->threshold ? BIT_MASK : 0;
        }
        kind = votes_group(k.mask, BIT_MASK, down, right, width, height, &vp, cancel, k.labels, &k.count, err);
    }
    if (kind == ERR_OK) {
        kind = grow_seeds(&k, fg, err);
    }
    return work_finish(&k, kind, labels, count);
}

err_kind_t label_from_foreground(const float *fg, int width, int height, const label_params_t *p,
                                 const cancel_t *cancel, int32_t **labels, uint32_t *count, err_t *err) {
    work_t k = {.p = p, .cancel = cancel};
    *labels = NULL;
    *count = 0;
    err_kind_t kind = work_init(&k, width, height, err);
    if (kind == ERR_OK) {
        kind = work_alloc(&k, err);
    }
    if (kind == ERR_OK) {
        for (size_t i = 0; i < k.pixels; i++) {
            k.mask[i] = fg[i] >= p->threshold ? BIT_MASK : 0;
        }
        kind = find_parts(&k, BIT_MASK, k.labels, &k.count, err);
    }
    if (kind == ERR_OK) {
        kind = fill_holes(&k, err);
    }
    if (kind == ERR_OK) {
        kind = number_objects(&k, err);
    }
    return work_finish(&k, kind, labels, count);
}

/* The values in use, renumbered 1.. in ascending order. */
static err_kind_t copy_ids(work_t *k, const float *ids, err_t *err) {
    const float most = 1 << 24;
    size_t top = 0;
    for (size_t i = 0; i < k->pixels; i++) {
        float v = ids[i] > 0.5F ? ids[i] : 0; /* NaN is not > 0.5 */
        if (v > most) {
            return err_set(err, ERR_INVALID, "model_output", "The model gives labels that are no small whole numbers.",
                           "%g", (double)v);
        }
        k->labels[i] = (int32_t)(v + 0.5F);
        top = (size_t)k->labels[i] > top ? (size_t)k->labels[i] : top;
    }
    int32_t *number = calloc(top + 1, sizeof *number);
    if (number == NULL) {
        return no_memory(err);
    }
    for (size_t i = 0; i < k->pixels; i++) {
        number[k->labels[i]] = 1;
    }
    number[0] = 0;
    for (size_t v = 1; v <= top; v++) {
        number[v] = number[v] != 0 ? (int32_t)++k->count : 0;
    }
    for (size_t i = 0; i < k->pixels; i++) {
        k->labels[i] = number[k->labels[i]];
    }
    free(number);
    return ERR_OK;
}

err_kind_t label_from_ids(const float *ids, int width, int height, const label_params_t *p, const cancel_t *cancel,
                          int32_t **labels, uint32_t *count, err_t *err) {
    work_t k = {.p = p, .cancel = cancel};
    *labels = NULL;
    *count = 0;
    err_kind_t kind = work_init(&k, width, height, err);
    if (kind == ERR_OK) {
        kind = work_alloc(&k, err);
    }
    if (kind == ERR_OK) {
        kind = copy_ids(&k, ids, err);
    }
    if (kind == ERR_OK) {
        kind = fill_holes(&k, err);
    }
    if (kind == ERR_OK) {
        kind = number_objects(&k, err);
    }
    return work_finish(&k, kind, labels, count);
}

err_kind_t label_mean_of(const int32_t *labels, int width, int height, uint32_t count, const float *plane, float *means,
                         err_t *err) {
    double *sum = calloc((size_t)count + 1, sizeof *sum);
    uint32_t *n = calloc((size_t)count + 1, sizeof *n);
    err_kind_t kind = sum != NULL && n != NULL ? ERR_OK : no_memory(err);
    for (size_t i = 0, px = (size_t)width * (size_t)height; kind == ERR_OK && i < px; i++) {
        if (labels[i] > 0 && (uint32_t)labels[i] <= count) {
            sum[labels[i]] += plane[i];
            n[labels[i]]++;
        }
    }
    for (uint32_t c = 1; kind == ERR_OK && c <= count; c++) {
        means[c - 1] = n[c] > 0 ? (float)(sum[c] / n[c]) : 0;
    }
    free(sum);
    free(n);
    return kind;
}
