/*
 * Priority flooding (Meyer, 1991). The queue is a 4-ary heap of (priority, age, pixel): one 64-bit comparison orders
 * by value, then by age. Seed pixels with no free neighbour are never queued, so whole-object seeds cost nothing.
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
    const uint8_t *mask;
    uint8_t bits;
    int32_t *labels;
    size_t width, pixels;
} field_t;

static int is_free(const field_t *f, size_t i) {
    return f->labels[i] == 0 && (f->mask[i] & f->bits) != 0;
}

/* The neighbours inside the image: up, left, right, down. */
static int neighbours_of(const field_t *f, size_t i, size_t out[4]) {
    size_t x = i % f->width;
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

static int queue_seeds(const field_t *f, queue_t *q) {
    for (size_t i = 0; i < f->pixels; i++) {
        size_t near[4];
        if (f->labels[i] == 0) {
            continue;
        }
        int n = neighbours_of(f, i, near), any = 0;
        for (int k = 0; k < n; k++) {
            any |= is_free(f, near[k]);
        }
        if (any && !queue_push(q, f->value[i], i)) {
            return 0;
        }
    }
    return 1;
}

err_kind_t watershed_flood(const float *value, const uint8_t *mask, uint8_t bits, int width, int height,
                           const cancel_t *cancel, int32_t *labels, err_t *err) {
    field_t f = {value, mask, bits, labels, (size_t)width, (size_t)width * (size_t)height};
    queue_t q = {0};
    err_kind_t kind = ERR_OK;
    uint32_t steps = 0;
    if (!queue_seeds(&f, &q)) {
        goto no_memory;
    }
    while (q.len > 0) {
        size_t near[4];
        if ((++steps & 0x7FFF) == 0 && cancel_asked(cancel)) {
            kind = err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", "watershed");
            goto out;
        }
        size_t i = queue_pop(&q);
        int n = neighbours_of(&f, i, near);
        for (int k = 0; k < n; k++) {
            if (!is_free(&f, near[k])) {
                continue;
            }
            labels[near[k]] = labels[i]; /* belongs to whoever reaches it first */
            if (!queue_push(&q, value[near[k]], near[k])) {
                goto no_memory;
            }
        }
    }
    goto out;
no_memory:
    kind = err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.", "watershed");
out:
    free(q.heap);
    return kind;
}
