/*
 * Priority flooding (Meyer, 1991). The queue is a 4-ary heap of (priority, age, pixel): one 64-bit comparison orders
 * by value, then by age. Seed pixels with no free neighbour are never queued, so whole-object seeds cost nothing. Parts
 * are flooded one after the other: the result is the same, and the heap stays small enough for the processor's cache.
 */
#include "segworker/pipeline/watershed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint32_t rank, age; /* least first; rank falls with rising value */
    uint32_t pixel;
} entry_t;

typedef struct {
    entry_t *heap;
    size_t len, room;
    uint32_t age;
} queue_t;

/* Order-preserving map from float to uint32, greatest value = least rank; NaN comes last. */
static uint32_t rank_of(float v) {
    uint32_t u;
    if (isnan(v)) {
        return UINT32_MAX;
    }
    v += 0.0F; /* -0 and 0 are equal */
    memcpy(&u, &v, sizeof u);
    u = (u & 0x80000000U) != 0 ? ~u : u | 0x80000000U;
    return ~u;
}

static uint64_t key_of(const entry_t *e) {
    return (uint64_t)e->rank << 32 | e->age;
}

static int queue_push(queue_t *q, float value, size_t pixel) {
    if (q->len == q->room) {
        size_t room = q->room > 0 ? q->room * 2 : 4096;
        entry_t *p = realloc(q->heap, room * sizeof *p);
        if (p == NULL) {
            return 0;
        }
        q->heap = p;
        q->room = room;
    }
    entry_t e = {rank_of(value), q->age++, (uint32_t)pixel};
    size_t i = q->len++;
    while (i > 0 && key_of(&q->heap[(i - 1) / 4]) > key_of(&e)) {
        q->heap[i] = q->heap[(i - 1) / 4];
        i = (i - 1) / 4;
    }
    q->heap[i] = e;
    return 1;
}

static size_t queue_pop(queue_t *q) {
    size_t top = q->heap[0].pixel, i = 0;
    entry_t last = q->heap[--q->len];
    for (;;) {
        size_t first = 4 * i + 1, end = first + 4 < q->len ? first + 4 : q->len, best = first;
        if (first >= q->len) {
            break;
        }
        for (size_t k = first + 1; k < end; k++) {
            best = key_of(&q->heap[k]) < key_of(&q->heap[best]) ? k : best;
        }
        if (key_of(&q->heap[best]) >= key_of(&last)) {
            break;
        }
        q->heap[i] = q->heap[best];
        i = best;
    }
    q->heap[i] = last;
    return top;
}

typedef struct {
    const float *value;
    const int32_t *parts;
    int32_t *labels;
    size_t width, pixels;
} field_t;

static int is_free(const field_t *f, size_t i) {
    return f->labels[i] == 0 && f->parts[i] != 0;
}

/* The neighbours inside the image: up, left, right, down. */
static int neighbours_of(const field_t *f, size_t i, size_t out[4]) {
    size_t x = (uint32_t)i % (uint32_t)f->width; /* 32-bit: the division is what costs here */
    int n = 0;
    if (i >= f->width) {
        out[n++] = i - f->width;
    }
    if (x > 0) {
        out[n++] = i - 1;
    }
    if (x + 1 < f->width) {
        out[n++] = i + 1;
    }
    if (i + f->width < f->pixels) {
        out[n++] = i + f->width;
    }
    return n;
}

static int is_start(const field_t *f, size_t i) {
    size_t near[4];
    if (f->labels[i] == 0 || f->parts[i] == 0) {
        return 0;
    }
    for (int k = neighbours_of(f, i, near); k-- > 0;) {
        if (is_free(f, near[k])) {
            return 1;
        }
    }
    return 0;
}

/* Pixels from which the flood starts, grouped by part in raster order: starts[first[p]..first[p + 1]) are those of
 * part p. A counting sort in two scans. */
static int find_starts(const field_t *f, uint32_t nparts, uint32_t **starts, uint32_t **first) {
    *first = calloc((size_t)nparts + 2, sizeof **first);
    if (*first == NULL) {
        return 0;
    }
    for (size_t i = 0; i < f->pixels; i++) {
        if (is_start(f, i)) {
            (*first)[f->parts[i] + 1]++;
        }
    }
    for (size_t p = 1; p < (size_t)nparts + 2; p++) {
        (*first)[p] += (*first)[p - 1];
    }
    *starts = malloc(((size_t)(*first)[nparts + 1] + 1) * sizeof **starts);
    if (*starts == NULL) {
        return 0;
    }
    for (size_t i = 0; i < f->pixels; i++) {
        if (is_start(f, i)) {
            (*starts)[(*first)[f->parts[i]]++] = (uint32_t)i;
        }
    }
    for (size_t p = (size_t)nparts + 1; p > 0; p--) { /* filling moved each start to its end */
        (*first)[p] = (*first)[p - 1];
    }
    (*first)[0] = 0;
    return 1;
}

typedef struct {
    queue_t queue;
    const cancel_t *cancel;
    uint32_t steps;
} flood_t;

static err_kind_t flood_part(const field_t *f, flood_t *w, const uint32_t *starts, size_t n, err_t *err) {
    queue_t *q = &w->queue;
    int ok = 1;
    q->age = 0;
    for (size_t k = 0; ok && k < n; k++) {
        ok = queue_push(q, f->value[starts[k]], starts[k]);
    }
    while (ok && q->len > 0) {
        size_t near[4], i = queue_pop(q);
        if ((++w->steps & 0x7FFF) == 0 && cancel_asked(w->cancel)) {
            return err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", "watershed");
        }
        int count = neighbours_of(f, i, near);
        for (int k = 0; ok && k < count; k++) {
            if (is_free(f, near[k])) {
                f->labels[near[k]] = f->labels[i]; /* belongs to whoever reaches it first */
                ok = queue_push(q, f->value[near[k]], near[k]);
            }
        }
    }
    return ok ? ERR_OK
              : err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.",
                        "watershed");
}

err_kind_t watershed_flood(const float *value, const int32_t *parts, uint32_t nparts, int width, int height,
                           const cancel_t *cancel, int32_t *labels, err_t *err) {
    field_t f = {value, parts, labels, (size_t)width, (size_t)width * (size_t)height};
    flood_t w = {.cancel = cancel};
    uint32_t *starts = NULL, *first = NULL;
    err_kind_t kind = ERR_OK;
    if (!find_starts(&f, nparts, &starts, &first)) {
        kind = err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.", "starts");
    }
    for (uint32_t p = 1; kind == ERR_OK && p <= nparts; p++) {
        kind = flood_part(&f, &w, starts + first[p], first[p + 1] - first[p], err);
    }
    free(starts);
    free(first);
    free(w.queue.heap);
    return kind;
}
