/*
 * Non-maximum suppression of star-convex candidates. Kept shapes are drawn at once, so the label under a candidate's
 * centre names the neighbour that most likely swallows it; the others are found through a lattice of cells over the
 * image, in which each kept shape is entered wherever its bounds reach.
 */
#include "segworker/pipeline/star.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "segworker/pipeline/star_shape.h"

#define MAX_PIXELS ((int64_t)1 << 30)

enum { MAX_CELLS = 1 << 20, MIN_CELL = 8, FIRST_ROOM = 256, ASK_EVERY = 1024 };

typedef struct {
    uint32_t rank, point; /* rank falls with rising probability */
} candidate_t;

typedef struct {
    uint32_t shape, next; /* 0 = the end */
} entry_t;

typedef struct {
    const star_params_t *p;
    const float *prob;
    const float *dist;
    const cancel_t *cancel;
    int width, height, across; /* across: points per row of the grid */
    star_rays_t rays;
    candidate_t *candidates;
    size_t ncandidates;

    star_shape_t *shapes; /* 1.. */
    float *corners;
    float *probs;
    uint32_t *seen; /* number of the last candidate that was compared with the shape */
    uint32_t count, room;

    float cell; /* px */
    int cells_across, cells_down;
    uint32_t *first; /* per cell: its first entry */
    entry_t *entries;
    size_t nentries, entries_room;
    int32_t *labels;
} star_t;

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.", "star");
}

static err_kind_t too_many(const star_t *s, uint32_t n, err_t *err) {
    return err_setf(err, ERR_INVALID, "too_many_objects",
                    "More than %u objects were found, the limit being %u: the image is probably blank, very noisy or "
                    "inverted. Check the image and the chosen model, or raise the threshold.",
                    (unsigned)n, (unsigned)s->p->max_objects);
}

/* ---- candidates ---- */

static uint32_t rank_of(float v) {
    uint32_t u;
    v += 0.0F; /* -0 and 0 are equal */
    memcpy(&u, &v, sizeof u);
    u = (u & 0x80000000U) != 0 ? ~u : u | 0x80000000U;
    return ~u;
}

/* By rank, stable: 8 bits at a time, from the lowest. */
static bool sort_candidates(candidate_t *c, size_t n) {
    candidate_t *other = malloc((n > 0 ? n : 1) * sizeof *other), *from = c, *to = other;
    if (other == NULL) {
        return false;
    }
    for (int shift = 0; shift < 32; shift += 8) {
        size_t at[257] = {0};
        for (size_t i = 0; i < n; i++) {
            /* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): each pass fills all n */
            at[((from[i].rank >> shift) & 255) + 1]++;
        }
        for (int b = 0; b < 256; b++) {
            at[b + 1] += at[b];
        }
        for (size_t i = 0; i < n; i++) {
            to[at[(from[i].rank >> shift) & 255]++] = from[i];
        }
        candidate_t *t = from;
        from = to;
        to = t;
    }
    free(other); /* after four passes everything is back in c */
    return true;
}

static err_kind_t find_candidates(star_t *s, err_t *err) {
    int down = (s->height + s->p->grid - 1) / s->p->grid;
    size_t points = (size_t)s->across * (size_t)down, n = 0;
    for (size_t i = 0; i < points; i++) {
        n += s->prob[i] >= s->p->threshold;
    }
    s->candidates = malloc((n > 0 ? n : 1) * sizeof *s->candidates);
    if (s->candidates == NULL) {
        return no_memory(err);
    }
    for (size_t i = 0; i < points; i++) {
        if (s->prob[i] >= s->p->threshold) {
            s->candidates[s->ncandidates++] = (candidate_t){rank_of(s->prob[i]), (uint32_t)i};
        }
    }
    return sort_candidates(s->candidates, s->ncandidates) ? ERR_OK : no_memory(err);
}

static void shape_of(const star_t *s, uint32_t point, star_shape_t *shape, float *corners) {
    float lengths[STAR_MAX_RAYS], most = (float)s->width + (float)s->height;
    const float *dist = s->dist + (size_t)point * (size_t)s->p->rays;
    for (int k = 0; k < s->p->rays; k++) {
        float d = dist[k];
        lengths[k] = d > 0 ? (d < most ? d : most) : 0; /* NaN is not > 0 */
    }
    uint32_t column = point % (uint32_t)s->across, row = point / (uint32_t)s->across;
    float x = (float)column * (float)s->p->grid + 0.5F;
    float y = (float)row * (float)s->p->grid + 0.5F;
    star_shape_init(&s->rays, x, y, lengths, shape, corners);
}

/* ---- the lattice of cells ---- */

/* Cells are as wide as the candidates are on average, measured on some of them. */
static err_kind_t lay_cells(star_t *s, err_t *err) {
    enum { SAMPLES = 1000 };
    size_t step = s->ncandidates / SAMPLES + 1, n = 0;
    double sum = 0;
    for (size_t i = 0; i < s->ncandidates; i += step, n++) {
        star_shape_t shape;
        float corners[2 * STAR_MAX_RAYS];
        shape_of(s, s->candidates[i].point, &shape, corners);
        sum += fmaxf(shape.x1 - shape.x0, shape.y1 - shape.y0);
    }
    double least = sqrt((double)s->width * s->height / MAX_CELLS) + 1;
    double cell = fmax(fmax(n > 0 ? sum / (double)n : 0, MIN_CELL), least);
    s->cell = (float)ceil(cell);
    s->cells_across = (int)((float)s->width / s->cell) + 1;
    s->cells_down = (int)((float)s->height / s->cell) + 1;
    s->first = calloc((size_t)s->cells_across * (size_t)s->cells_down, sizeof *s->first);
    s->nentries = 1; /* entry 0 means the end */
    return s->first != NULL ? ERR_OK : no_memory(err);
}

typedef struct {
    int x0, y0, x1, y1; /* inclusive */
} cells_t;

static int cell_at(float v, float cell, int most) {
    float c = v / cell;
    return c <= 0 ? 0 : c >= (float)(most - 1) ? most - 1 : (int)c;
}

static cells_t cells_of(const star_t *s, const star_shape_t *shape) {
    return (cells_t){cell_at(shape->x0, s->cell, s->cells_across), cell_at(shape->y0, s->cell, s->cells_down),
                     cell_at(shape->x1, s->cell, s->cells_across), cell_at(shape->y1, s->cell, s->cells_down)};
}

static bool enter_cell(star_t *s, size_t cell, uint32_t shape) {
    if (s->nentries >= s->entries_room) {
        size_t room = s->entries_room > 0 ? s->entries_room * 2 : 4 * FIRST_ROOM;
        entry_t *e = room <= UINT32_MAX ? realloc(s->entries, room * sizeof *e) : NULL;
        if (e == NULL) {
            return false;
        }
        s->entries = e;
        s->entries_room = room;
    }
    s->entries[s->nentries] = (entry_t){shape, s->first[cell]};
    s->first[cell] = (uint32_t)s->nentries++;
    return true;
}

/* ---- suppression ---- */

static bool make_room(star_t *s) {
    if (s->count + 1 < s->room) {
        return true;
    }
    uint32_t room = s->room > 0 ? s->room * 2 : FIRST_ROOM;
    size_t row = 2 * (size_t)s->p->rays;
    star_shape_t *shapes = realloc(s->shapes, room * sizeof *shapes);
    if (shapes == NULL) {
        return false; /* what is there stays, and is freed at the end */
    }
    s->shapes = shapes;
    float *corners = realloc(s->corners, room * row * sizeof *corners);
    if (corners == NULL) {
        return false;
    }
    s->corners = corners;
    float *probs = realloc(s->probs, room * sizeof *probs);
    if (probs == NULL) {
        return false;
    }
    s->probs = probs;
    uint32_t *seen = realloc(s->seen, room * sizeof *seen);
    if (seen == NULL) {
        return false;
    }
    s->seen = seen;
    s->room = room;
    return true;
}

static err_kind_t keep(star_t *s, uint32_t point, const star_shape_t *shape, const float *corners, err_t *err) {
    size_t row = 2 * (size_t)s->p->rays;
    if (s->count >= s->p->max_objects) {
        return too_many(s, s->count, err);
    }
    if (!make_room(s)) {
        return no_memory(err);
    }
    uint32_t k = ++s->count;
    s->shapes[k] = *shape;
    memcpy(s->corners + k * row, corners, row * sizeof *corners);
    s->probs[k] = s->prob[point];
    s->seen[k] = 0;
    star_shape_draw(&s->rays, shape, corners, (int32_t)k, s->width, s->height, s->labels);
    cells_t c = cells_of(s, shape);
    for (int y = c.y0; y <= c.y1; y++) {
        for (int x = c.x0; x <= c.x1; x++) {
            if (!enter_cell(s, (size_t)y * (size_t)s->cells_across + (size_t)x, k)) {
                return no_memory(err);
            }
        }
    }
    return ERR_OK;
}

static bool swallowed_by(const star_t *s, uint32_t k, const star_shape_t *shape, const float *corners) {
    return star_shapes_overlap(&s->rays, &s->shapes[k], s->corners + k * 2 * (size_t)s->p->rays, shape, corners,
                               s->p->nms_threshold);
}

static int32_t label_at(const star_t *s, float x, float y) {
    bool in = x >= 0 && y >= 0 && x < (float)s->width && y < (float)s->height;
    return in ? s->labels[(size_t)y * (size_t)s->width + (size_t)x] : 0;
}

/* Share of a shape's area that is drawn with label k, from two points on each ray that halve its area. */
static float drawn_share(const star_t *s, int32_t k, const star_shape_t *shape, const float *corners) {
    float in = 0, all = 0;
    for (int i = 0; i < s->p->rays; i++) {
        float dx = corners[2 * i] - shape->cx, dy = corners[2 * i + 1] - shape->cy, weight = dx * dx + dy * dy;
        int hits = (label_at(s, shape->cx + dx * 0.5F, shape->cy + dy * 0.5F) == k) +
                   (label_at(s, shape->cx + dx * 0.866F, shape->cy + dy * 0.866F) == k);
        in += weight * (float)hits;
        all += 2 * weight;
    }
    return in / all;
}

/* number: of the candidate, from 1 on. Most candidates lie well inside a kept shape: a coarse look at the drawing
 * tells, and only what is not clear is measured. */
static bool is_suppressed(star_t *s, uint32_t number, const star_shape_t *shape, const float *corners) {
    const float clear = 0.15F;
    int32_t under = label_at(s, shape->cx, shape->cy);
    if (under > 0) {
        s->seen[under] = number;
        if (drawn_share(s, under, shape, corners) > s->p->nms_threshold + clear ||
            swallowed_by(s, (uint32_t)under, shape, corners)) {
            return true;
        }
    }
    cells_t c = cells_of(s, shape);
    for (int y = c.y0; y <= c.y1; y++) {
        for (int x = c.x0; x <= c.x1; x++) {
            uint32_t e = s->first[(size_t)y * (size_t)s->cells_across + (size_t)x];
            for (; e != 0; e = s->entries[e].next) {
                uint32_t k = s->entries[e].shape;
                if (s->seen[k] != number) {
                    s->seen[k] = number;
                    if (swallowed_by(s, k, shape, corners)) {
                        return true;
                    }
                }
            }
        }
    }
    return false;
}

static err_kind_t suppress(star_t *s, err_t *err) {
    float corners[2 * STAR_MAX_RAYS];
    err_kind_t kind = ERR_OK;
    for (size_t i = 0; kind == ERR_OK && i < s->ncandidates; i++) {
        star_shape_t shape;
        if (i % ASK_EVERY == 0 && cancel_asked(s->cancel)) {
            return err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", "star");
        }
        shape_of(s, s->candidates[i].point, &shape, corners);
        if (shape.area > 0 && !is_suppressed(s, (uint32_t)i + 1, &shape, corners)) {
            kind = keep(s, s->candidates[i].point, &shape, corners, err);
        }
    }
    return kind;
}

/* ---- numbering ---- */

/* Drops small objects and those that are covered by others; numbers the rest in the order of their first pixel. */
static err_kind_t number_objects(star_t *s, float **probs, err_t *err) {
    size_t pixels = (size_t)s->width * (size_t)s->height;
    uint32_t n = 0, *area = calloc((size_t)s->count + 1, sizeof *area);
    uint32_t *number = calloc((size_t)s->count + 1, sizeof *number);
    *probs = calloc((size_t)s->count + 1, sizeof **probs);
    err_kind_t kind = area != NULL && number != NULL && *probs != NULL ? ERR_OK : no_memory(err);
    for (size_t i = 0; kind == ERR_OK && i < pixels; i++) {
        area[s->labels[i]]++;
    }
    for (size_t i = 0; kind == ERR_OK && i < pixels; i++) {
        int32_t k = s->labels[i];
        if (k == 0) {
            continue;
        }
        if (number[k] == 0 && (int64_t)area[k] >= s->p->min_area) {
            (*probs)[n] = s->probs[k];
            number[k] = ++n;
        }
        s->labels[i] = (int32_t)number[k];
    }
    free(area);
    free(number);
    s->count = n;
    return kind;
}

static err_kind_t check_size(const star_t *s, err_t *err) {
    if (s->width <= 0 || s->height <= 0) {
        return err_set(err, ERR_INVALID, "image_empty", "The image has no pixels.", "%d x %d", s->width, s->height);
    }
    if ((int64_t)s->width * s->height > MAX_PIXELS) {
        return err_set(err, ERR_TOO_LARGE, "image_too_large",
                       "The image is too large to be segmented in one piece; crop it or reduce its size.", "%d x %d",
                       s->width, s->height);
    }
    return ERR_OK;
}

err_kind_t star_decode(const float *prob, const float *dist, int width, int height, const star_params_t *p,
                       const cancel_t *cancel, int32_t **labels, uint32_t *count, float **probs, err_t *err) {
    star_t s = {.p = p, .prob = prob, .dist = dist, .cancel = cancel, .width = width, .height = height};
    *labels = NULL;
    *count = 0;
    *probs = NULL;
    err_kind_t kind = check_size(&s, err);
    if (kind != ERR_OK) {
        return kind;
    }
    s.across = (width + p->grid - 1) / p->grid;
    star_rays_init(&s.rays, p->rays);
    s.labels = calloc((size_t)width * (size_t)height, sizeof *s.labels);
    kind = s.labels != NULL ? find_candidates(&s, err) : no_memory(err);
    if (kind == ERR_OK) {
        kind = lay_cells(&s, err);
    }
    if (kind == ERR_OK) {
        kind = suppress(&s, err);
    }
    if (kind == ERR_OK) {
        kind = number_objects(&s, probs, err);
    }
    if (kind == ERR_OK) {
        *labels = s.labels;
        *count = s.count;
    } else {
        free(s.labels);
        free(*probs);
        *probs = NULL;
    }
    free(s.candidates);
    free(s.shapes);
    free(s.corners);
    free(s.probs);
    free(s.seen);
    free(s.first);
    free(s.entries);
    return kind;
}
