/* Connected components in two passes: provisional numbers with a table of equivalences, then final numbers. */
#include "segworker/pipeline/components.h"

#include <stdlib.h>

typedef struct {
    uint32_t *parent; /* parent[k] <= k; a root is its own parent */
    size_t count, room;
} forest_t;

static uint32_t find_root(forest_t *f, uint32_t k) {
    while (f->parent[k] != k) {
        f->parent[k] = f->parent[f->parent[k]];
        k = f->parent[k];
    }
    return k;
}

/* The smaller root wins, so a root is always the component's first provisional number. */
static uint32_t join(forest_t *f, uint32_t a, uint32_t b) {
    a = find_root(f, a);
    b = find_root(f, b);
    if (a < b) {
        f->parent[b] = a;
        return a;
    }
    f->parent[a] = b;
    return b;
}

static int add_tree(forest_t *f) {
    if (f->count == f->room) {
        size_t room = f->room > 0 ? f->room * 2 : 1024;
        uint32_t *p = realloc(f->parent, room * sizeof *p);
        if (p == NULL) {
            return 0;
        }
        f->parent = p;
        f->room = room;
    }
    f->parent[f->count] = (uint32_t)f->count;
    f->count++;
    return 1;
}

static int label_row(forest_t *f, const uint8_t *mask, uint8_t bits, int width, const int32_t *above, int32_t *row) {
    uint32_t left = 0;
    for (int x = 0; x < width; x++) {
        uint32_t up;
        if ((mask[x] & bits) == 0) {
            row[x] = 0;
            left = 0;
            continue;
        }
        up = above != NULL ? (uint32_t)above[x] : 0;
        if (left == 0 && up == 0) {
            left = (uint32_t)f->count;
            if (!add_tree(f)) {
                return 0;
            }
        } else if (left == 0) {
            left = up;
        } else if (up != 0 && up != left) {
            left = join(f, left, up);
        }
        row[x] = (int32_t)left;
    }
    return 1;
}

/* Turns parents into final numbers 1..n, in place. */
static uint32_t number_roots(forest_t *f) {
    uint32_t n = 0;
    for (size_t k = 1; k < f->count; k++) {
        /* the parent is smaller, so it already holds its final number */
        f->parent[k] = f->parent[k] == k ? ++n : f->parent[f->parent[k]];
    }
    return n;
}

err_kind_t components_label(const uint8_t *mask, uint8_t bits, int width, int height, const cancel_t *cancel,
                            int32_t *out, uint32_t *count, uint32_t **areas, err_t *err) {
    forest_t f = {0};
    err_kind_t kind = ERR_OK;
    size_t w = (size_t)width;
    *count = 0;
    *areas = NULL;
    if (!add_tree(&f)) { /* number 0 is the background */
        goto no_memory;
    }
    for (int y = 0; y < height; y++) {
        size_t at = (size_t)y * w;
        if (y % 64 == 0 && cancel_asked(cancel)) {
            kind = err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", "components");
            goto out;
        }
        if (!label_row(&f, mask + at, bits, width, y > 0 ? out + at - w : NULL, out + at)) {
            goto no_memory;
        }
    }
    *count = number_roots(&f);
    *areas = calloc((size_t)*count + 1, sizeof **areas);
    if (*areas == NULL) {
        goto no_memory;
    }
    for (size_t i = 0, n = w * (size_t)height; i < n; i++) {
        if (out[i] != 0) {
            out[i] = (int32_t)f.parent[out[i]];
            (*areas)[out[i]]++;
        }
    }
    goto out;
no_memory:
    kind = err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.", "components");
out:
    free(f.parent);
    return kind;
}
