/*
 * Crack following. In raster order the first unseen left crack of a pixel can only belong to a new outer ring, and the
 * first unseen right crack only to a new hole (Suzuki and Abe, "Topological structural analysis of digitized
 * binary images by border following", 1985, found the same rule for pixel borders), so one scan finds every ring once.
 */
#include "segworker/pipeline/crack.h"

#include <stdlib.h>
#include <string.h>

#include "common/vector.h"

typedef struct {
    const int32_t *labels;
    int width, height;
    uint32_t count;         /* of labels */
    uint32_t *part_of_left; /* per pixel: part of the ring through its left crack, once that was walked */
    uint8_t *left_seen;     /* one bit per pixel: its left crack was walked */
    uint8_t *right_seen;    /* one bit per pixel: its right crack was walked */
    int32_t *changes;       /* of one row: columns where another value begins */
    uint32_t parts;
    crack_rings_t *out;
    size_t rings_room, steps, steps_room;
} scan_t;

static bool get_bit(const uint8_t *bits, size_t i) {
    return (bits[i / 8] >> (i % 8) & 1) != 0;
}

static void set_bit(uint8_t *bits, size_t i) {
    bits[i / 8] |= (uint8_t)(1U << (i % 8));
}

static bool has_label(const scan_t *s, int x, int y, int32_t label) {
    return (unsigned)x < (unsigned)s->width && (unsigned)y < (unsigned)s->height &&
           s->labels[(size_t)y * (size_t)s->width + (size_t)x] == label;
}

static bool more_steps(scan_t *s) {
    size_t room = s->steps_room > 0 ? s->steps_room * 2 : 4096;
    crack_t *p = realloc(s->out->steps, room * sizeof *p);
    if (p != NULL) {
        s->out->steps = p;
        s->steps_room = room;
    }
    return p != NULL;
}

static crack_ring_t *add_ring(scan_t *s) {
    crack_rings_t *o = s->out;
    if (o->count == s->rings_room) {
        size_t room = s->rings_room > 0 ? s->rings_room * 2 : 256;
        crack_ring_t *p = realloc(o->rings, room * sizeof *p);
        if (p == NULL) {
            return NULL;
        }
        o->rings = p;
        s->rings_room = room;
    }
    return &o->rings[o->count++];
}

/* Where a walk is: a lattice point, and the way that led there. */
typedef struct {
    int x, y, dir;
} place_t;

/* The crack that goes on from there: right where the pixel ahead to the right is not the label's, left where both are,
 * else straight. */
static inline crack_t next_crack(const scan_t *s, place_t p, int32_t label) {
    static const int right_x[4] = {0, -1, -1, 0}, right_y[4] = {0, 0, -1, -1};
    static const int left_x[4] = {0, 0, -1, -1}, left_y[4] = {-1, 0, 0, -1};
    bool right, left;
    if (p.x > 0 && p.y > 0 && p.x < s->width && p.y < s->height) { /* all four pixels around are in the image */
        const int32_t *at = s->labels + (size_t)p.y * (size_t)s->width + (size_t)p.x;
        right = at[(ptrdiff_t)right_y[p.dir] * s->width + right_x[p.dir]] == label;
        left = at[(ptrdiff_t)left_y[p.dir] * s->width + left_x[p.dir]] == label;
    } else {
        right = has_label(s, p.x + right_x[p.dir], p.y + right_y[p.dir], label);
        left = has_label(s, p.x + left_x[p.dir], p.y + left_y[p.dir], label);
    }
    int turn = !right ? 1 : left ? 3 : 0;
    return (crack_t)(((p.dir + turn) & CRACK_DIRECTION) | (!right && left ? CRACK_PINCH : 0));
}

/* Walks the ring whose first crack, as the scan meets it, is the left one of pixel (x, y), or the right one for a
 * hole. That crack's own pinch flag is known only after coming round: the steps begin with the crack after it. */
static bool walk_ring(scan_t *s, int32_t label, uint32_t part, int x, int y, bool hole) {
    static const int step_x[4] = {1, 0, -1, 0}, step_y[4] = {0, 1, 0, -1};
    place_t p = hole ? (place_t){x + 1, y + 1, CRACK_DOWN} : (place_t){x, y, CRACK_UP};
    const place_t start = p;
    crack_ring_t *ring = add_ring(s);
    if (ring == NULL) {
        return false;
    }
    *ring = (crack_ring_t){.label = label, .part = part, .x = p.x, .y = p.y, .hole = hole, .first = s->steps};
    int64_t area = 0; /* the integral of x dy */
    size_t width = (size_t)s->width;
    do {
        crack_t c = next_crack(s, p, label);
        if (s->steps == s->steps_room && !more_steps(s)) {
            return false;
        }
        s->out->steps[s->steps++] = c;
        p.dir = c & CRACK_DIRECTION;
        if (p.dir == CRACK_UP) {
            size_t i = (size_t)(p.y - 1) * width + (size_t)p.x;
            area -= p.x;
            s->part_of_left[i] = part;
            set_bit(s->left_seen, i);
        } else if (p.dir == CRACK_DOWN) {
            area += p.x;
            set_bit(s->right_seen, (size_t)p.y * width + (size_t)p.x - 1);
        }
        p.x += step_x[p.dir];
        p.y += step_y[p.dir];
    } while (p.x != start.x || p.y != start.y || p.dir != start.dir);
    ring->cracks = (uint32_t)(s->steps - ring->first);
    ring->area = area;
    return true;
}

/* Columns where a row's value differs from the one before; returns their number. Stretches without any are passed at
 * once. */
VECTOR_LOOPS static size_t find_changes(const int32_t *row, size_t width, int32_t *at) {
    enum { STRIDE = 128, WORD = sizeof(uint64_t) };
    uint8_t differs[STRIDE] = {0};
    size_t n = 0;
    for (size_t x = 1, some; x < width; x += some) {
        int32_t any = 0;
        some = width - x < STRIDE ? width - x : STRIDE;
        for (size_t k = 0; k < some; k++) {
            any |= row[x + k] ^ row[x + k - 1];
        }
        if (any == 0) {
            continue;
        }
        for (size_t k = 0; k < some; k++) {
            differs[k] = row[x + k] != row[x + k - 1];
        }
        for (size_t k = 0; k < some; k += WORD) {
            uint64_t word;
            memcpy(&word, differs + k, WORD);
            for (size_t i = k; word != 0 && i < k + WORD && i < some; i++) {
                at[n] = (int32_t)(x + i);
                n += differs[i];
            }
        }
    }
    return n;
}

/* A walk goes to many rows below; in a large image they are not in the processor's cache by then. */
static void fetch_ahead(const scan_t *s, int y) {
    enum { SMALL_IMAGE = 1 << 21, CACHE_BYTES = 1 << 19, MOST_ROWS = 128, LINE = 64 / sizeof(int32_t) };
    size_t width = (size_t)s->width, ahead = CACHE_BYTES / (width * sizeof *s->labels) + 1;
    size_t row = (size_t)y + (ahead < MOST_ROWS ? ahead : MOST_ROWS);
    if (width * (size_t)s->height <= SMALL_IMAGE) {
        return;
    }
    for (size_t x = 0; row < (size_t)s->height && x < width; x += LINE) {
        __builtin_prefetch(s->labels + row * width + x);
    }
}

static bool scan_row(scan_t *s, int y) {
    const size_t begin = (size_t)y * (size_t)s->width;
    const int32_t *row = s->labels + begin;
    size_t n = find_changes(row, (size_t)s->width, s->changes);
    s->changes[n] = s->width;
    for (size_t k = 0, x = 0; k <= n; x = (size_t)s->changes[k++]) { /* run by run */
        int32_t label = row[x];
        if (label <= 0 || (uint32_t)label > s->count) {
            continue;
        }
        if (!get_bit(s->left_seen, begin + x) && !walk_ring(s, label, ++s->parts, (int)x, y, false)) {
            return false;
        }
        size_t last = (size_t)s->changes[k] - 1;
        if (!get_bit(s->right_seen, begin + last) &&
            !walk_ring(s, label, s->part_of_left[begin + x], (int)last, y, true)) {
            return false;
        }
    }
    return true;
}

err_kind_t crack_find_rings(const int32_t *labels, int width, int height, uint32_t count, const cancel_t *cancel,
                            crack_rings_t *out, err_t *err) {
    size_t pixels = (size_t)width * (size_t)height;
    scan_t s = {.labels = labels, .width = width, .height = height, .count = count, .out = out};
    err_kind_t kind = ERR_OK;
    *out = (crack_rings_t){NULL, NULL, 0};
    s.part_of_left = malloc(pixels * sizeof *s.part_of_left); /* read only where left_seen says so */
    s.left_seen = calloc(pixels / 8 + 1, 1);
    s.right_seen = calloc(pixels / 8 + 1, 1);
    s.changes = malloc(((size_t)width + 1) * sizeof *s.changes);
    bool ok = s.part_of_left != NULL && s.left_seen != NULL && s.right_seen != NULL && s.changes != NULL;
    for (int y = 0; ok && y < height; y++) {
        if (y % 64 == 0 && cancel_asked(cancel)) {
            kind = err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", "contour");
            goto out;
        }
        fetch_ahead(&s, y);
        ok = scan_row(&s, y);
    }
    if (!ok) {
        kind = err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.", "cracks");
    }
out:
    free(s.part_of_left);
    free(s.left_seen);
    free(s.right_seen);
    free(s.changes);
    return kind;
}

void crack_rings_free(crack_rings_t *r) {
    free(r->rings);
    free(r->steps);
    memset(r, 0, sizeof *r);
}
