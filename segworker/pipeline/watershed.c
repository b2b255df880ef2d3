/*
 * Priority flooding (Meyer, 1991). The queue is one list per level of value, first in first out, and a tree of bits
 * that tells the highest level in use, so that putting in and taking out cost the same however long the front is. Seed
 * pixels with no free neighbour are never queued, so whole-object seeds cost nothing. Parts are flooded one after the
 * other: the result is the same, and the lists stay in the processor's cache.
 */
#include "segworker/pipeline/watershed.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    LEVEL_BITS = 18, /* three words of 64 bits lead to a level */
    LEVELS = 1 << LEVEL_BITS,
    WORD_BITS = 6,
    MAX_WALK = 64,
    CLOSED = -1 /* label of a pixel that may not be flooded, for the time of the flood */
};

typedef struct {
    float value;
    uint32_t pixel, x, next; /* next 0 = the end */
} node_t;

typedef struct {
    uint64_t top, middle[1 << WORD_BITS], low[1 << (2 * WORD_BITS)]; /* bit set: something below is in use */
    uint32_t first[LEVELS], last[LEVELS];
    node_t *nodes;              /* 1.. */
    uint32_t used, room, spare; /* spare: list of nodes that were taken out */
    bool sorted[LEVELS];        /* levels in use whose list is in order */
    uint64_t *keys;             /* scratch of sort_level */
    uint32_t *order;
    size_t sort_room;
} queue_t;

/*
 * Level 0 holds the highest values. Half of the levels divide 0..1 evenly, where the values of maps are; a quarter each
 * is for what lies above and below, by the upper bits of the float. NaN comes last.
 */
static uint32_t level_of(float v) {
    const uint32_t quarter = LEVELS / 4, infinity = 0x7F800000U;
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    if (v > 1) {
        return (infinity - bits) >> 15;
    }
    if (v >= 0) {
        return quarter + (uint32_t)((1 - v) * (float)(2 * quarter - 1));
    }
    return v < 0 ? 3 * quarter + ((bits & ~0x80000000U) >> 15) : (uint32_t)LEVELS - 1;
}

static uint32_t new_node(queue_t *q) {
    uint32_t n = q->spare;
    if (n != 0) {
        q->spare = q->nodes[n].next;
        return n;
    }
    if (q->used + 1 >= q->room) {
        uint32_t room = q->room > 0 ? q->room * 2 : 4096;
        node_t *p = realloc(q->nodes, room * sizeof *p);
        if (p == NULL) {
            return 0;
        }
        q->nodes = p;
        q->room = room;
    }
    return ++q->used;
}

/* Equal floats give equal ranks, the highest the least. */
static uint32_t rank_of(float v) {
    uint32_t u;
    v += 0.0F; /* -0 and 0 are equal */
    memcpy(&u, &v, sizeof u);
    u = (u & 0x80000000U) != 0 ? ~u : u | 0x80000000U;
    return ~u;
}

static int ascending(const void *pa, const void *pb) {
    uint64_t a = *(const uint64_t *)pa, b = *(const uint64_t *)pb;
    return a < b ? -1 : a > b;
}

/* Into an ordered list: behind the last that is not lower, or as far as MAX_WALK goes. */
static void put_in_order(queue_t *q, uint32_t level, uint32_t n) {
    uint32_t before = 0, at = q->first[level];
    /* every node of a list has been filled by queue_push */
    /* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult) */
    for (int i = 0; i < MAX_WALK && at != 0 && q->nodes[at].value >= q->nodes[n].value; i++) {
        before = at;
        at = q->nodes[at].next;
    }
    q->nodes[n].next = at;
    if (before == 0) {
        q->first[level] = n;
    } else {
        q->nodes[before].next = n;
    }
    if (at == 0) {
        q->last[level] = n;
    }
}

/* Orders a level by value, then by age, when it is reached for the first time. */
static int sort_level(queue_t *q, uint32_t level) {
    size_t n = 0;
    for (uint32_t at = q->first[level]; at != 0; at = q->nodes[at].next, n++) {
        if (n == q->sort_room) {
            size_t room = n > 0 ? 2 * n : 256;
            uint64_t *keys = realloc(q->keys, room * sizeof *keys);
            uint32_t *order = realloc(q->order, room * sizeof *order);
            q->keys = keys != NULL ? keys : q->keys;
            q->order = order != NULL ? order : q->order;
            if (keys == NULL || order == NULL) {
                return 0;
            }
            q->sort_room = room;
        }
        /* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): as above */
        q->keys[n] = (uint64_t)rank_of(q->nodes[at].value) << 32 | n;
        q->order[n] = at;
    }
    if (n == 0) {
        return 1;
    }
    qsort(q->keys, n, sizeof *q->keys, ascending);
    for (size_t i = 0; i < n; i++) {
        uint32_t at = q->order[(uint32_t)q->keys[i]];
        q->nodes[at].next = i + 1 < n ? q->order[(uint32_t)q->keys[i + 1]] : 0;
    }
    q->first[level] = q->order[(uint32_t)q->keys[0]];
    q->last[level] = q->order[(uint32_t)q->keys[n - 1]];
    return 1;
}

static int queue_push(queue_t *q, float value, size_t pixel, size_t x) {
    uint32_t n = new_node(q), level = level_of(value);
    if (n == 0) {
        return 0;
    }
    q->nodes[n] = (node_t){value, (uint32_t)pixel, (uint32_t)x, 0};
    if (q->first[level] != 0 && q->sorted[level]) {
        put_in_order(q, level, n);
        return 1;
    }
    if (q->first[level] != 0) {
        q->nodes[q->last[level]].next = n;
        q->last[level] = n;
        return 1;
    }
    q->first[level] = q->last[level] = n;
    q->low[level >> WORD_BITS] |= (uint64_t)1 << (level & 63);
    q->middle[level >> (2 * WORD_BITS)] |= (uint64_t)1 << (level >> WORD_BITS & 63);
    q->top |= (uint64_t)1 << (level >> (2 * WORD_BITS));
    return 1;
}

/* Of a queue that is not empty. False: no memory. */
static bool queue_pop(queue_t *q, node_t *out) {
    uint32_t t = (uint32_t)__builtin_ctzll(q->top);
    uint32_t m = t << WORD_BITS | (uint32_t)__builtin_ctzll(q->middle[t]);
    uint32_t level = m << WORD_BITS | (uint32_t)__builtin_ctzll(q->low[m]);
    if (!q->sorted[level] && q->first[level] != q->last[level] && !sort_level(q, level)) {
        return false;
    }
    uint32_t n = q->first[level];
    *out = q->nodes[n];
    q->first[level] = out->next;
    q->sorted[level] = out->next != 0;
    if (out->next == 0 && (q->low[m] &= q->low[m] - 1) == 0 && (q->middle[t] &= q->middle[t] - 1) == 0) {
        q->top &= q->top - 1;
    }
    q->nodes[n].next = q->spare;
    q->spare = n;
    return true;
}

typedef struct {
    const float *value;
    const int32_t *parts;
    int32_t *labels;
    size_t width, pixels;
} field_t;

static int is_free(const field_t *f, size_t i) {
    return f->labels[i] == 0;
}

/* The neighbours inside the image: up, left, right, down. x: the pixel's column. */
static int neighbours_of(const field_t *f, size_t i, size_t x, size_t out[4]) {
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

/* x: the pixel's column. */
static bool is_start(const field_t *f, size_t i, size_t x) {
    return f->labels[i] > 0 && f->parts[i] != 0 &&
           ((x > 0 && is_free(f, i - 1)) || (x + 1 < f->width && is_free(f, i + 1)) ||
            (i >= f->width && is_free(f, i - f->width)) || (i + f->width < f->pixels && is_free(f, i + f->width)));
}

/* Pixels from which the flood starts, grouped by part in raster order: starts[first[p]..first[p + 1]) are those of
 * part p. A counting sort in two scans. */
static int find_starts(const field_t *f, uint32_t nparts, uint32_t **starts, uint32_t **first) {
    *first = calloc((size_t)nparts + 2, sizeof **first);
    if (*first == NULL) {
        return 0;
    }
    for (size_t i = 0, x = 0; i < f->pixels; i++, x = x + 1 < f->width ? x + 1 : 0) {
        if (is_start(f, i, x)) {
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
    for (size_t i = 0, x = 0; i < f->pixels; i++, x = x + 1 < f->width ? x + 1 : 0) {
        if (is_start(f, i, x)) {
            (*starts)[(*first)[f->parts[i]]++] = (uint32_t)i;
        }
    }
    for (size_t p = (size_t)nparts + 1; p > 0; p--) { /* filling moved each start to its end */
        (*first)[p] = (*first)[p - 1];
    }
    (*first)[0] = 0;
    return 1;
}

/* Pixels outside the parts are closed for the time of the flood: one look at the label then tells. */
static void close_outside(const field_t *f) {
    for (size_t i = 0; i < f->pixels; i++) {
        if (f->labels[i] == 0 && f->parts[i] == 0) {
            f->labels[i] = CLOSED;
        }
    }
}

static void open_outside(const field_t *f) {
    for (size_t i = 0; i < f->pixels; i++) {
        if (f->labels[i] == CLOSED) {
            f->labels[i] = 0;
        }
    }
}

typedef struct {
    queue_t queue;
    const cancel_t *cancel;
    uint32_t steps;
} flood_t;

static err_kind_t flood_part(const field_t *f, flood_t *w, const uint32_t *starts, size_t n, err_t *err) {
    queue_t *q = &w->queue;
    int ok = 1;
    for (size_t k = 0; ok && k < n; k++) {
        ok = queue_push(q, f->value[starts[k]], starts[k], starts[k] % f->width);
    }
    while (ok && q->top != 0) {
        size_t near[4];
        node_t at = {0};
        ok = queue_pop(q, &at);
        if ((++w->steps & 0x7FFF) == 0 && cancel_asked(w->cancel)) {
            return err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", "watershed");
        }
        int count = ok ? neighbours_of(f, at.pixel, at.x, near) : 0;
        for (int k = 0; ok && k < count; k++) {
            if (is_free(f, near[k])) {
                size_t x = near[k] + 1 == at.pixel ? at.x - 1 : near[k] == at.pixel + (size_t)1 ? at.x + 1 : at.x;
                f->labels[near[k]] = f->labels[at.pixel]; /* belongs to whoever reaches it first */
                ok = queue_push(q, f->value[near[k]], near[k], x);
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
    flood_t *w = calloc(1, sizeof *w);
    uint32_t *starts = NULL, *first = NULL;
    err_kind_t kind = ERR_OK;
    close_outside(&f);
    if (w == NULL || !find_starts(&f, nparts, &starts, &first)) {
        kind = err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.", "starts");
    } else {
        w->cancel = cancel;
    }
    for (uint32_t p = 1; kind == ERR_OK && p <= nparts; p++) {
        kind = flood_part(&f, w, starts + first[p], first[p + 1] - first[p], err);
    }
    open_outside(&f);
    free(starts);
    free(first);
    if (w != NULL) {
        free(w->queue.nodes);
        free(w->queue.keys);
        free(w->queue.order);
    }
    free(w);
    return kind;
}
