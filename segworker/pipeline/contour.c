/* Outlines of all labels: rings found in one pass, grouped by label and piece, each object built and checked. */
#include "segworker/pipeline/contour.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/geometry/raster.h"
#include "common/vector.h"
#include "segworker/pipeline/crack.h"
#include "segworker/pipeline/outline.h"

#define MAX_WRONG_PIXELS 0.017 /* of an object's pixels: those whose centre lies on the wrong side of the outline */
#define MAX_WRONG_AREA 0.004

typedef struct {
    const int32_t *labels;
    int width, height;
    double tolerance;
    const crack_t *steps;
    outline_t scratch;
} trace_t;

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.", "contour");
}

static err_kind_t too_complex(err_t *err) {
    return err_set(err, ERR_INVALID, "outline_too_complex",
                   "An object has more than 65535 pieces or holes: the image is probably very noisy. Smooth the image "
                   "or raise the threshold.",
                   NULL);
}

/* Moves the rings into the order of their keys, which are 0..nkeys; equal ones stay as they are. */
static bool sort_rings(const crack_ring_t *from, size_t n, bool by_label, size_t nkeys, crack_ring_t *to) {
    size_t *next = calloc(nkeys + 2, sizeof *next);
    for (size_t k = 0; next != NULL && k < n; k++) {
        next[(by_label ? (size_t)from[k].label : from[k].part) + 1]++;
    }
    for (size_t k = 0; next != NULL && k <= nkeys; k++) {
        next[k + 1] += next[k];
    }
    for (size_t k = 0; next != NULL && k < n; k++) {
        to[next[by_label ? (size_t)from[k].label : from[k].part]++] = from[k];
    }
    free(next);
    return next != NULL;
}

/* By label; then the pieces in order, each outer ring followed by its holes, which are found in that order. */
static bool order_rings(crack_rings_t *r, uint32_t labels) {
    crack_ring_t *other = malloc((r->count + 1) * sizeof *other);
    uint32_t parts = 0;
    for (size_t k = 0; k < r->count; k++) {
        parts = r->rings[k].part > parts ? r->rings[k].part : parts;
    }
    bool ok = other != NULL && sort_rings(r->rings, r->count, false, parts, other) &&
              sort_rings(other, r->count, true, labels, r->rings);
    free(other);
    return ok;
}

/* Makes room for the polygons and rings of one object. */
static err_kind_t shape_object(const crack_ring_t *rings, size_t n, geom_t *g, err_t *err) {
    size_t parts = 0;
    for (size_t k = 0; k < n; k++) {
        parts += rings[k].hole ? 0 : 1;
    }
    if (parts > UINT16_MAX) {
        return too_complex(err);
    }
    g->polygons = calloc(parts > 0 ? parts : 1, sizeof *g->polygons);
    if (g->polygons == NULL) {
        return no_memory(err);
    }
    for (size_t k = 0, end; k < n; k = end) {
        for (end = k + 1; end < n && rings[end].hole; end++) {
        }
        if (end - k > UINT16_MAX) {
            return too_complex(err);
        }
        geom_polygon_t *p = &g->polygons[g->count];
        p->rings = calloc(end - k, sizeof *p->rings);
        if (p->rings == NULL) {
            return no_memory(err);
        }
        p->count = (uint32_t)(end - k);
        g->count++;
    }
    return ERR_OK;
}

static err_kind_t fill_object(trace_t *t, const crack_ring_t *rings, outline_level_t level, geom_t *g, err_t *err) {
    size_t k = 0;
    for (uint32_t i = 0; i < g->count; i++) {
        for (uint32_t j = 0; j < g->polygons[i].count; j++) {
            geom_ring_t *r = &g->polygons[i].rings[j];
            free(r->points); /* of an earlier level */
            *r = (geom_ring_t){NULL, 0};
            err_kind_t kind =
                outline_build(&t->scratch, t->width, t->height, &rings[k++], t->steps, level, t->tolerance, r, err);
            if (kind != ERR_OK) {
                return kind;
            }
        }
    }
    return ERR_OK;
}

typedef struct {
    const int32_t *labels;
    size_t width;
    int32_t label;
    int64_t both, drawn;
} overlap_t;

VECTOR_LOOPS static void count_span(void *ctx, int y, int x0, int x1) {
    overlap_t *o = ctx;
    const int32_t *row = o->labels + (size_t)y * o->width, label = o->label;
    int both = 0;
    for (int x = x0; x < x1; x++) {
        both += row[x] == label;
    }
    o->drawn += x1 - x0;
    o->both += both;
}

/* Pixels of the object: what its crack rings enclose. */
static int64_t count_pixels(const crack_ring_t *rings, size_t n) {
    int64_t pixels = 0;
    for (size_t k = 0; k < n; k++) {
        pixels += rings[k].area;
    }
    return pixels;
}

/* The labels under an object were last read when its rings were found; the check of its outline gives them time to come
 * back into the processor's cache. */
static void fetch_labels(const trace_t *t, const geom_t *g) {
    enum { LINE = 64 / sizeof(int32_t), MOST_LINES = 1024 };
    const geom_bbox_t box = geom_bbox(g);
    const int x0 = box.x0 / GEOM_UNITS_PER_PX, x1 = box.x1 / GEOM_UNITS_PER_PX, y1 = box.y1 / GEOM_UNITS_PER_PX;
    int lines = 0;
    for (int y = box.y0 / GEOM_UNITS_PER_PX; y <= y1 && y < t->height && lines < MOST_LINES; y++) {
        const int32_t *row = t->labels + (size_t)y * (size_t)t->width;
        for (int x = x0; x < t->width && x < x1 + LINE; x += LINE, lines++) {
            __builtin_prefetch(row + x);
        }
    }
}

/* Is the outline sound, and does it stand for its pixels: nearly the same pixels inside, and nearly the same area? */
static err_kind_t check_object(const trace_t *t, const crack_ring_t *rings, size_t n, const geom_t *g, bool *good,
                               err_t *err) {
    double pixels = (double)count_pixels(rings, n), area = 0;
    overlap_t o = {t->labels, (size_t)t->width, rings[0].label, 0, 0};
    fetch_labels(t, g);
    *good = geom_is_valid(g);
    if (!*good) {
        return ERR_OK;
    }
    for (uint32_t i = 0; i < g->count; i++) {
        for (uint32_t j = 0; j < g->polygons[i].count; j++) {
            area += (double)geom_ring_area2(&g->polygons[i].rings[j]) / (2.0 * GEOM_UNITS_PER_PX * GEOM_UNITS_PER_PX);
        }
    }
    err_kind_t kind = raster_spans(g, t->width, t->height, count_span, &o, err);
    double wrong = (double)(o.drawn - o.both) + (pixels - (double)o.both);
    *good = wrong <= MAX_WRONG_PIXELS * pixels && fabs(area - pixels) <= MAX_WRONG_AREA * pixels;
    return kind;
}

/* From the smoothest outline to the plainest, until one passes the checks. */
static err_kind_t build_object(trace_t *t, const crack_ring_t *rings, size_t n, geom_t *g, err_t *err) {
    outline_level_t level = t->tolerance > 0 ? OUTLINE_SMOOTH : OUTLINE_CRACKS;
    err_kind_t kind = shape_object(rings, n, g, err);
    bool good = false;
    while (kind == ERR_OK && !good) {
        kind = fill_object(t, rings, level, g, err);
        if (kind != ERR_OK || level == OUTLINE_CRACKS) {
            break; /* the cracks themselves need no check */
        }
        kind = check_object(t, rings, n, g, &good, err);
        level++;
    }
    return kind;
}

err_kind_t contour_trace(const int32_t *labels, int width, int height, uint32_t count, const contour_params_t *p,
                         const cancel_t *cancel, geom_t *geoms, err_t *err) {
    trace_t t = {labels, width, height, p != NULL ? p->tolerance : CONTOUR_DEFAULT_TOLERANCE, NULL, {0}};
    crack_rings_t r = {NULL, NULL, 0};
    if (count > 0) {
        memset(geoms, 0, count * sizeof *geoms);
    }
    if ((int64_t)width * height > (int64_t)1 << 30) {
        return err_set(err, ERR_TOO_LARGE, "image_too_large",
                       "The image is too large to be segmented in one piece; crop it or reduce its size.", "%d x %d",
                       width, height);
    }
    if (width <= 0 || height <= 0 || count == 0) {
        return ERR_OK;
    }
    err_kind_t kind = crack_find_rings(labels, width, height, count, cancel, &r, err);
    if (kind == ERR_OK && !order_rings(&r, count)) {
        kind = no_memory(err);
    }
    t.steps = r.steps;
    for (size_t k = 0, end; kind == ERR_OK && k < r.count; k = end) {
        const crack_ring_t *rings = r.rings;
        for (end = k + 1; end < r.count && rings[end].label == rings[k].label; end++) {
        }
        if (cancel_asked(cancel)) {
            kind = err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", "contour");
            break;
        }
        kind = build_object(&t, rings + k, end - k, &geoms[rings[k].label - 1], err);
    }
    for (uint32_t i = 0; kind != ERR_OK && i < count; i++) {
        geom_free(&geoms[i]);
    }
    crack_rings_free(&r);
    outline_free(&t.scratch);
    return kind;
}
