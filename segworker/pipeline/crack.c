/*
 * Crack following. In raster order the first unseen left crack of a pixel can only belong to a new outer ring, and the
 * first unseen right crack only to a new hole (Suzuki and Abe, "Topological structural analysis of digitized
 * binary images by border following", 1985, found the same rule for pixel borders), so one scan finds every ring once.
 */
#include "segworker/pipeline/crack.h"

#include <stdlib.h>

typedef struct {
    const int32_t *labels;
    int width, height;
} image_view_t;

static const int STEP_X[4] = {1, 0, -1, 0};
static const int STEP_Y[4] = {0, 1, 0, -1};
/* The pixels ahead of a lattice point, relative to it, when coming in direction dir. */
static const int RIGHT_X[4] = {0, -1, -1, 0}, RIGHT_Y[4] = {0, 0, -1, -1};
static const int LEFT_X[4] = {0, 0, -1, -1}, LEFT_Y[4] = {-1, 0, 0, -1};

static inline bool has_label(const image_view_t *v, int x, int y, int32_t label) {
    return (unsigned)x < (unsigned)v->width && (unsigned)y < (unsigned)v->height &&
           v->labels[(size_t)y * (size_t)v->width + (size_t)x] == label;
}

static crack_t first_crack(const image_view_t *v, const crack_ring_t *r) {
    int x = (int)(r->start % (uint32_t)v->width), y = (int)(r->start / (uint32_t)v->width);
    return r->hole ? (crack_t){x + 1, y, 1, false} : (crack_t){x, y + 1, 3, false};
}

static inline void advance(const image_view_t *v, int32_t label, crack_t *c) {
    c->x += STEP_X[c->dir];
    c->y += STEP_Y[c->dir];
    bool right = has_label(v, c->x + RIGHT_X[c->dir], c->y + RIGHT_Y[c->dir], label);
    bool left = has_label(v, c->x + LEFT_X[c->dir], c->y + LEFT_Y[c->dir], label);
    c->pinch = !right && left;
    if (!right) {
        c->dir = (uint8_t)((c->dir + 1) & 3);
    } else if (left) {
        c->dir = (uint8_t)((c->dir + 3) & 3);
    }
}

static inline void walk(const image_view_t *v, const crack_ring_t *ring, crack_fn fn, void *ctx) {
    crack_t c = first_crack(v, ring), start = c;
    /* the start's own pinch flag is known only after coming round: start one crack later */
    do {
        advance(v, ring->label, &c);
        fn(ctx, &c);
    } while (c.x != start.x || c.y != start.y || c.dir != start.dir);
}

void crack_walk(const int32_t *labels, int width, int height, const crack_ring_t *ring, crack_fn fn, void *ctx) {
    const image_view_t v = {labels, width, height};
    walk(&v, ring, fn, ctx);
}

typedef struct {
    size_t width;
    uint32_t *part_of_left; /* per pixel: part of the ring through its left crack, once that was walked */
    uint8_t *left_seen;     /* one bit per pixel: its left crack was walked */
    uint8_t *right_seen;    /* one bit per pixel: its right crack was walked */
    uint32_t part, cracks;
    int64_t area;
} marks_t;

static void mark_crack(void *ctx, const crack_t *c) {
    marks_t *m = ctx;
    m->cracks++;
    m->area += c->dir == 1 ? c->x : c->dir == 3 ? -(int64_t)c->x : 0; /* the integral of x dy */
    if (c->dir == 3) {
        size_t i = (size_t)(c->y - 1) * m->width + (size_t)c->x;
        m->part_of_left[i] = m->part;
        m->left_seen[i / 8] |= (uint8_t)(1U << (i % 8));
    } else if (c->dir == 1) {
        size_t i = (size_t)c->y * m->width + (size_t)(c->x - 1);
        m->right_seen[i / 8] |= (uint8_t)(1U << (i % 8));
    }
}

typedef struct {
    crack_ring_t *rings;
    size_t count, room;
} ring_list_t;

static crack_ring_t *add_ring(ring_list_t *l, crack_ring_t r) {
    if (l->count == l->room) {
        size_t room = l->room > 0 ? l->room * 2 : 256;
        crack_ring_t *p = realloc(l->rings, room * sizeof *p);
        if (p == NULL) {
            return NULL;
        }
        l->rings = p;
        l->room = room;
    }
    l->rings[l->count] = r;
    return &l->rings[l->count++];
}

static bool walk_new_ring(const image_view_t *v, marks_t *m, ring_list_t *l, crack_ring_t r) {
    crack_ring_t *ring = add_ring(l, r);
    if (ring == NULL) {
        return false;
    }
    m->part = r.part;
    m->cracks = 0;
    m->area = 0;
    walk(v, ring, mark_crack, m);
    ring->cracks = m->cracks;
    ring->area = m->area;
    return true;
}

/* The first column after x whose label differs. */
static int run_end(const int32_t *row, int x, int width) {
    int32_t label = row[x++];
    for (; x + 4 <= width; x += 4) {
        if (((row[x] ^ label) | (row[x + 1] ^ label) | (row[x + 2] ^ label) | (row[x + 3] ^ label)) != 0) {
            break;
        }
    }
    while (x < width && row[x] == label) {
        x++;
    }
    return x;
}

static bool scan_row(const image_view_t *v, int y, uint32_t count, marks_t *m, uint32_t *parts, ring_list_t *l) {
    const int32_t *row = v->labels + (size_t)y * m->width;
    uint32_t part = 0;
    for (int x = 0, end; x < v->width; x = end) { /* run by run */
        int32_t label = row[x];
        end = run_end(row, x, v->width);
        if (label <= 0 || (uint32_t)label > count) {
            continue;
        }
        size_t i = (size_t)y * m->width + (size_t)x;
        if ((m->left_seen[i / 8] >> (i % 8) & 1) == 0 &&
            !walk_new_ring(v, m, l, (crack_ring_t){label, ++*parts, (uint32_t)i, 0, 0, false})) {
            return false;
        }
        part = m->part_of_left[i];
        i += (size_t)(end - 1 - x);
        if ((m->right_seen[i / 8] >> (i % 8) & 1) == 0 &&
            !walk_new_ring(v, m, l, (crack_ring_t){label, part, (uint32_t)i, 0, 0, true})) {
            return false;
        }
    }
    return true;
}

err_kind_t crack_find_rings(const int32_t *labels, int width, int height, uint32_t count, const cancel_t *cancel,
                            crack_ring_t **rings, size_t *nrings, err_t *err) {
    image_view_t v = {labels, width, height};
    size_t pixels = (size_t)width * (size_t)height;
    marks_t m = {.width = (size_t)width};
    ring_list_t l = {0};
    uint32_t parts = 0;
    err_kind_t kind = ERR_OK;
    *rings = NULL;
    *nrings = 0;
    m.part_of_left = malloc(pixels * sizeof *m.part_of_left); /* read only where left_seen says so */
    m.left_seen = calloc(pixels / 8 + 1, 1);
    m.right_seen = calloc(pixels / 8 + 1, 1);
    bool ok = m.part_of_left != NULL && m.left_seen != NULL && m.right_seen != NULL;
    for (int y = 0; ok && y < height; y++) {
        if (y % 64 == 0 && cancel_asked(cancel)) {
            kind = err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", "contour");
            goto out;
        }
        ok = scan_row(&v, y, count, &m, &parts, &l);
    }
    if (!ok) {
        kind = err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.", "cracks");
        goto out;
    }
    *rings = l.rings;
    *nrings = l.count;
    l.rings = NULL;
out:
    free(l.rings);
    free(m.part_of_left);
    free(m.left_seen);
    free(m.right_seen);
    return kind;
}
