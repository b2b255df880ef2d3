/*
 * Labels to objects: outlines, from labelled pixels to pixels of the page, measurements. Objects are numbered in the
 * order in which they become complete.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "segworker/pipeline/contour.h"
#include "segworker/pipeline/label.h"
#include "segworker/pipeline/run.h"

enum {
    BIG_PIXELS = 1 << 23, /* an object whose bounds hold more is outlined at a reduced size */
    ASK_EVERY = 64
};

/* ---- coordinates ---- */

static void move_geometry(geom_t *g, int dx, int dy, double fx, double fy) {
    for (uint32_t i = 0; i < g->count; i++) {
        for (uint32_t j = 0; j < g->polygons[i].count; j++) {
            geom_ring_t *r = &g->polygons[i].rings[j];
            for (uint32_t k = 0; k < r->count; k++) {
                geom_point_t *p = &r->points[k];
                p->x = (int32_t)lround((p->x + (double)dx * GEOM_UNITS_PER_PX) * fx);
                p->y = (int32_t)lround((p->y + (double)dy * GEOM_UNITS_PER_PX) * fy);
            }
        }
    }
}

static void move_measurements(measurements_t *m, double dx, double dy) {
    m->bbox_x += dx;
    m->bbox_y += dy;
    m->centroid_x += dx;
    m->centroid_y += dy;
}

/* Intensities were measured on pixels that stand for factor * factor of the page's; shapes are those of the page. */
static err_kind_t measure_on_page(const geom_t *g, double factor, measurements_t *m, err_t *err) {
    double mean = m->mean_intensity, sum = m->integrated_intensity;
    err_kind_t k = measure_object(g, NULL, 0, 0, m, err);
    m->mean_intensity = mean;
    m->integrated_intensity = sum * factor * factor;
    return k;
}

/* ---- the result ---- */

static err_kind_t remember(run_t *r, int x, int y, err_t *err) {
    if (r->nanchors == r->anchors_room) {
        size_t room = r->anchors_room > 0 ? r->anchors_room * 2 : 256;
        void *p = realloc(r->anchors, room * sizeof *r->anchors);
        if (!p) {
            return run_no_memory(err);
        }
        r->anchors = p;
        r->anchors_room = room;
    }
    r->anchors[r->nanchors].x = x;
    r->anchors[r->nanchors++].y = y;
    return ERR_OK;
}

/* Takes over o->geom whatever happens. */
static err_kind_t add_object(run_t *r, result_object_t *o, err_t *err) {
    result_t *out = r->out;
    err_kind_t k = ERR_OK;
    if (out->count >= r->params->max_objects) {
        k = err_setf(err, ERR_INVALID, "too_many_objects",
                     "More than %u objects were found, the limit: the image is probably blank, very noisy or inverted. "
                     "Check the image and the chosen model, or raise the threshold.",
                     (unsigned)r->params->max_objects);
        geom_free(&o->geom);
        return k;
    }
    o->idx = ++out->count;
    if (r->many && r->cb && r->cb->found) {
        r->cb->found(r->cb->arg, o);
    }
    if (r->cb && r->cb->object) {
        k = r->cb->object(r->cb->arg, o, err);
        geom_free(&o->geom);
        return k;
    }
    if (out->count > r->room) {
        size_t room = r->room > 0 ? r->room * 2 : 64;
        result_object_t *p = realloc(out->objects, room * sizeof *p);
        if (!p) {
            out->count--;
            geom_free(&o->geom);
            return run_no_memory(err);
        }
        out->objects = p;
        r->room = room;
    }
    out->objects[out->count - 1] = *o;
    return ERR_OK;
}

/* ---- objects of a window ---- */

typedef struct {
    const float *plane; /* grey values of rect on the level */
    float *owned;
    image_rect_t rect;
} grey_t;

/* The grey values under the window's objects. */
static err_kind_t read_grey(run_t *r, const stitch_window_t *w, grey_t *g, err_t *err) {
    bool scaled = r->net_x != 1 || r->net_y != 1;
    g->rect = (image_rect_t){w->x, w->y, w->w, w->h};
    if (scaled || (w->w == r->level.width && w->h == r->level.height)) {
        g->rect = (image_rect_t){0, 0, r->level.width, r->level.height};
        if (r->level.grey) {
            g->plane = r->level.grey;
            return ERR_OK;
        }
    }
    g->owned = malloc((size_t)g->rect.w * (size_t)g->rect.h * sizeof *g->owned);
    g->plane = g->owned;
    return g->owned ? input_read_grey(&r->level, g->rect, g->owned, err) : run_no_memory(err);
}

/* From an outline in the window's pixels to an object of the page. */
static err_kind_t finish_object(run_t *r, const stitch_window_t *w, const grey_t *grey, result_object_t *o,
                                err_t *err) {
    int dx = w->x - grey->rect.x, dy = w->y - grey->rect.y, reduce = r->level.reduce;
    if (r->net_x != 1 || r->net_y != 1 || dx != 0 || dy != 0) {
        move_geometry(&o->geom, dx, dy, r->net_x, r->net_y);
    }
    err_kind_t k = measure_object(&o->geom, grey->plane, grey->rect.w, grey->rect.h, &o->m, err);
    if (k != ERR_OK) {
        return k;
    }
    if (grey->rect.x != 0 || grey->rect.y != 0 || reduce != 1) {
        move_geometry(&o->geom, grey->rect.x, grey->rect.y, reduce, reduce);
        move_measurements(&o->m, grey->rect.x, grey->rect.y);
    }
    return reduce != 1 ? measure_on_page(&o->geom, reduce, &o->m, err) : ERR_OK;
}

static err_kind_t measure_window(run_t *r, const stitch_window_t *w, geom_t *geoms, err_t *err) {
    grey_t grey = {0};
    err_kind_t k = read_grey(r, w, &grey, err);
    for (uint32_t i = 0; k == ERR_OK && i < w->count; i++) {
        if (i % ASK_EVERY == 0) {
            if (run_should_stop(r)) {
                k = run_stopped(r, err);
                break;
            }
            if (!r->many) {
                run_report(r, (double)i / w->count);
            }
        }
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): there are geoms when there is a count */
        result_object_t o = {.geom = geoms[i], .confidence = w->confidence[i]};
        geoms[i] = (geom_t){0};
        k = finish_object(r, w, &grey, &o, err);
        if (k == ERR_OK) {
            k = add_object(r, &o, err);
        } else {
            geom_free(&o.geom);
        }
    }
    free(grey.owned);
    return k;
}

/* The first pixel of each object, for what large objects enclose. */
static err_kind_t remember_window(run_t *r, const stitch_window_t *w, err_t *err) {
    int32_t next = 1;
    err_kind_t k = ERR_OK;
    for (int y = 0; r->many && k == ERR_OK && (uint32_t)next <= w->count && y < w->h; y++) {
        const int32_t *row = w->labels + (size_t)y * (size_t)w->w;
        for (int x = 0; k == ERR_OK && x < w->w; x++) {
            if (row[x] == next) { /* labels are numbered by their first pixel */
                next++;
                k = remember(r, w->x + x, w->y + y, err);
            }
        }
    }
    return k;
}

err_kind_t objects_from_window(run_t *r, const stitch_window_t *w, err_t *err) {
    const cancel_t stop = {.fn = run_should_stop, .ctx = r};
    run_enter(r, STAGE_POLYGONS);
    if (w->count == 0) {
        run_enter(r, STAGE_MEASURE);
        return ERR_OK;
    }
    geom_t *geoms = calloc(w->count, sizeof *geoms);
    err_kind_t k = geoms ? contour_trace(w->labels, w->w, w->h, w->count, NULL, &stop, geoms, err) : run_no_memory(err);
    if (k == ERR_OK) {
        k = remember_window(r, w, err);
    }
    if (k == ERR_OK) {
        run_enter(r, STAGE_MEASURE);
        k = measure_window(r, w, geoms, err);
    }
    for (uint32_t i = 0; geoms && i < w->count; i++) {
        geom_free(&geoms[i]);
    }
    free(geoms);
    return k;
}

/* ---- large objects ---- */

/* The object's bounds and a little more, so that its outline may go beyond its pixels, as far as the image goes. */
static stitch_object_t widen(const run_t *r, const stitch_object_t *o, int factor) {
    const input_t *in = r->net_x != 1 || r->net_y != 1 ? &r->shrunk : &r->level;
    stitch_object_t wide = *o;
    int more = 2 * factor;
    wide.x0 = o->x0 > more ? o->x0 - more : 0;
    wide.y0 = o->y0 > more ? o->y0 - more : 0;
    wide.x1 = o->x1 + more < in->width ? o->x1 + more : in->width;
    wide.y1 = o->y1 + more < in->height ? o->y1 + more : in->height;
    return wide;
}

/* Share of each of w*h cells of factor * factor px that the object covers. */
static float *cover(const stitch_object_t *o, int factor, int w, int h) {
    float *plane = calloc((size_t)w * (size_t)h, sizeof *plane);
    float unit = 1.0F / (float)(factor * factor);
    for (size_t k = 0; plane && k < o->nruns; k++) {
        float *row = plane + (size_t)((o->runs[k].y - o->y0) / factor) * (size_t)w;
        for (int x = o->runs[k].x0 - o->x0; x < o->runs[k].x1 - o->x0;) {
            int cell = x / factor, end = (cell + 1) * factor;
            end = end < o->runs[k].x1 - o->x0 ? end : o->runs[k].x1 - o->x0;
            row[cell] += (float)(end - x) * unit;
            x = end;
        }
    }
    return plane;
}

/* Fills holes as asked, but none that holds another object: a pixel of each that lies in the bounds is marked, so that
 * the hole borders on two. All pieces get label 1. */
static err_kind_t label_big(run_t *r, const stitch_object_t *o, int factor, float *plane, int w, int h,
                            int32_t **labels, err_t *err) {
    const cancel_t stop = {.fn = run_should_stop, .ctx = r};
    double area = (double)r->options.max_hole_area / factor / factor;
    const label_params_t p = {.threshold = 0.5F,
                              .max_hole_area = (int64_t)area,
                              .detect_holes = r->options.detect_holes,
                              .part = true,
                              .max_objects = UINT32_MAX};
    uint32_t count = 0;
    size_t *marks = malloc((r->nanchors + 1) * sizeof *marks), n = 0;
    if (!marks) {
        return run_no_memory(err);
    }
    for (size_t i = 0; i < r->nanchors; i++) {
        int x = r->anchors[i].x, y = r->anchors[i].y;
        if (x >= o->x0 && x < o->x1 && y >= o->y0 && y < o->y1) {
            size_t at = (size_t)((y - o->y0) / factor) * (size_t)w + (size_t)((x - o->x0) / factor);
            if (plane[at] < 0.5F) {
                plane[at] = 1;
                marks[n++] = at;
            }
        }
    }
    err_kind_t k = label_from_foreground(plane, w, h, &p, &stop, labels, &count, err);
    for (size_t i = 0; k == ERR_OK && i < n; i++) {
        (*labels)[marks[i]] = 0;
    }
    for (size_t i = 0, px = (size_t)w * (size_t)h; k == ERR_OK && i < px; i++) {
        (*labels)[i] = (*labels)[i] != 0;
    }
    free(marks);
    return k;
}

/* Outline, in px of what is labelled, and intensities. */
static err_kind_t outline_big(run_t *r, const stitch_object_t *o, int factor, result_object_t *out, err_t *err) {
    const cancel_t stop = {.fn = run_should_stop, .ctx = r};
    int w = (o->x1 - o->x0 + factor - 1) / factor, h = (o->y1 - o->y0 + factor - 1) / factor;
    int32_t *labels = NULL;
    float *plane = cover(o, factor, w, h);
    err_kind_t k = plane ? label_big(r, o, factor, plane, w, h, &labels, err) : run_no_memory(err);
    if (k == ERR_OK) {
        k = contour_trace(labels, w, h, 1, NULL, &stop, &out->geom, err);
    }
    free(labels);
    bool on_level = r->net_x == 1 && r->net_y == 1;
    if (k == ERR_OK && on_level) {
        k = input_read_grey_reduced(&r->level, (image_rect_t){o->x0, o->y0, o->x1 - o->x0, o->y1 - o->y0}, factor,
                                    plane, err);
    }
    if (k == ERR_OK && out->geom.count > 0) {
        k = measure_object(&out->geom, on_level ? plane : NULL, w, h, &out->m, err);
    }
    free(plane);
    move_geometry(&out->geom, 0, 0, factor, factor);
    move_geometry(&out->geom, o->x0, o->y0, r->net_x, r->net_y);
    return k;
}

err_kind_t objects_from_runs(void *ctx, const stitch_object_t *o, err_t *err) {
    run_t *r = ctx;
    double bounds = (double)(o->x1 - o->x0) * (o->y1 - o->y0);
    int factor = 1, reduce = r->level.reduce;
    result_object_t out = {.confidence = o->confidence};
    while (bounds / factor / factor > BIG_PIXELS) {
        factor++;
    }
    run_enter(r, STAGE_POLYGONS);
    const stitch_object_t wide = widen(r, o, factor);
    err_kind_t k = outline_big(r, &wide, factor, &out, err);
    if (k == ERR_OK && out.geom.count > 0) {
        if (reduce != 1) {
            move_geometry(&out.geom, 0, 0, reduce, reduce);
        }
        if (r->net_x != 1 || r->net_y != 1) { /* the level is in memory: intensities come from there */
            k = measure_object(&out.geom, reduce == 1 ? r->level.grey : NULL, r->level.width, r->level.height, &out.m,
                               err);
        } else {
            k = measure_on_page(&out.geom, (double)factor * reduce, &out.m, err);
        }
    }
    if (k == ERR_OK && out.geom.count > 0) {
        k = remember(r, o->runs[0].x0, o->runs[0].y, err);
        k = k == ERR_OK ? add_object(r, &out, err) : k;
    } else {
        geom_free(&out.geom);
    }
    return k;
}
