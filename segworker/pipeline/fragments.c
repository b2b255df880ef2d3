/*
 * See fragments.h. The line of pixels behind a border belongs to one window's core and is seen by the window before it,
 * too. What both call those pixels is painted into two lines; labels that fall on the same pixels are one object.
 */
#include "segworker/pipeline/fragments.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_RUNS = 1 << 23 };

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.", "stitch");
}

err_kind_t fragments_init(fragments_t *f, int width, int max_core_height, err_t *err) {
    size_t n = (size_t)(width > max_core_height ? width : max_core_height);
    *f = (fragments_t){.width = width, .scratch = n};
    f->above = calloc((size_t)width, sizeof *f->above);
    f->line = calloc(n, sizeof *f->line);
    f->other = calloc(n, sizeof *f->other);
    f->pairs = calloc(n, sizeof *f->pairs);
    return f->above && f->line && f->other && f->pairs ? ERR_OK : no_memory(err);
}

void fragments_release(fragments_t *f) {
    for (size_t i = 0; i < f->count; i++) {
        free(f->list[i].runs);
        free(f->list[i].reach);
    }
    free(f->list);
    free(f->above);
    free(f->line);
    free(f->other);
    free(f->pairs);
}

fragment_t *fragments_add(fragments_t *f, int cx0, int cx1, double confidence) {
    if (f->count == f->room) {
        size_t room = f->room > 0 ? f->room * 2 : 64;
        fragment_t *p = room < UINT32_MAX ? realloc(f->list, room * sizeof *p) : NULL;
        if (!p) {
            return NULL;
        }
        f->list = p;
        f->room = room;
    }
    f->list[f->count] = (fragment_t){.cx0 = cx0, .cx1 = cx1, .confidence = confidence, .parent = (uint32_t)f->count};
    return &f->list[f->count++];
}

static err_kind_t append(stitch_run_t **runs, size_t *n, size_t *room, stitch_run_t run, err_t *err) {
    if (*n == *room) {
        size_t more = *room > 0 ? *room * 2 : 32;
        stitch_run_t *p = realloc(*runs, more * sizeof *p);
        if (!p) {
            return no_memory(err);
        }
        *runs = p;
        *room = more;
    }
    (*runs)[(*n)++] = run;
    return ERR_OK;
}

err_kind_t fragments_add_reach(fragments_t *f, fragment_t *g, stitch_run_t run, err_t *err) {
    (void)f;
    return append(&g->reach, &g->nreach, &g->reach_room, run, err);
}

err_kind_t fragments_add_run(fragments_t *f, fragment_t *g, stitch_run_t run, err_t *err) {
    if (f->total_runs >= MAX_RUNS) {
        return err_set(
            err, ERR_INVALID, "outline_too_complex",
            "Objects reach across most of the image and are too ragged to be outlined: the image is probably "
            "very noisy, blank or inverted. Smooth the image or raise the threshold.",
            NULL);
    }
    err_kind_t k = append(&g->runs, &g->nruns, &g->room, run, err);
    if (k != ERR_OK) {
        return k;
    }
    g->area += run.x1 - run.x0;
    f->total_runs++;
    return ERR_OK;
}

void fragments_drop(fragments_t *f, fragment_t *g) {
    f->total_runs -= g->nruns;
    free(g->runs);
    free(g->reach);
    g->runs = g->reach = NULL;
    g->nruns = g->room = g->nreach = g->reach_room = 0;
    g->done = true;
}

/* ---- which belong together ---- */

static uint32_t root_of(fragments_t *f, uint32_t i) {
    while (f->list[i].parent != i) {
        f->list[i].parent = f->list[f->list[i].parent].parent;
        i = f->list[i].parent;
    }
    return i;
}

static void unite(fragments_t *f, uint32_t a, uint32_t b) {
    a = root_of(f, a);
    b = root_of(f, b);
    if (a < b) {
        f->list[b].parent = a;
    } else {
        f->list[a].parent = b;
    }
}

static int ascending(const void *pa, const void *pb) {
    uint64_t a = *(const uint64_t *)pa, b = *(const uint64_t *)pb;
    return a < b ? -1 : a > b;
}

static size_t length_along(const uint32_t *line, size_t n, uint32_t id) {
    size_t length = 0;
    for (size_t i = 0; i < n; i++) {
        length += line[i] == id;
    }
    return length;
}

/* The same pixels as two windows see them: unites fragments that share at least half of the shorter one's. */
static void unite_along(fragments_t *f, const uint32_t *a, const uint32_t *b, size_t n) {
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        if (a[i] != 0 && b[i] != 0) {
            f->pairs[m++] = (uint64_t)a[i] << 32 | b[i];
        }
    }
    qsort(f->pairs, m, sizeof *f->pairs, ascending);
    for (size_t i = 0, end; i < m; i = end) {
        for (end = i + 1; end < m && f->pairs[end] == f->pairs[i]; end++) {
        }
        uint32_t ia = (uint32_t)(f->pairs[i] >> 32), ib = (uint32_t)f->pairs[i];
        size_t la = length_along(a, n, ia), lb = length_along(b, n, ib), common = end - i;
        if (2 * common >= (la < lb ? la : lb)) {
            unite(f, ia - 1, ib - 1);
        }
    }
}

/* Paints column x of the current row of cores: what fragments of the core left of it reach, or what those of the core
 * that begins there are. */
static bool paint_column(fragments_t *f, int x, bool reach, int cy0, int cy1, uint32_t *line) {
    bool any = false;
    memset(line, 0, (size_t)(cy1 - cy0) * sizeof *line);
    for (size_t i = f->row_begin; i < f->count; i++) {
        const fragment_t *g = &f->list[i];
        const stitch_run_t *runs = reach ? g->reach : g->runs;
        size_t n = (reach ? g->cx1 : g->cx0) != x ? 0 : reach ? g->nreach : g->nruns;
        for (size_t k = 0; k < n; k++) {
            if (runs[k].x0 == x && runs[k].y < cy1) {
                line[runs[k].y - cy0] = (uint32_t)i + 1;
                any = true;
            }
        }
    }
    return any;
}

/* Paints row y: what the fragments of the current row of cores reach, or are, there. */
static bool paint_row(fragments_t *f, int y, bool reach, uint32_t *line) {
    bool any = false;
    memset(line, 0, (size_t)f->width * sizeof *line);
    for (size_t i = f->row_begin; i < f->count; i++) {
        const fragment_t *g = &f->list[i];
        const stitch_run_t *runs = reach ? g->reach : g->runs;
        for (size_t k = 0; k < (reach ? g->nreach : g->nruns); k++) {
            for (int x = runs[k].x0; runs[k].y == y && x < runs[k].x1; x++) {
                line[x] = (uint32_t)i + 1;
                any = true;
            }
        }
    }
    return any;
}

static void unite_row(fragments_t *f, int cy0, int cy1) {
    int last_border = 0;
    for (size_t i = f->row_begin; i < f->count; i++) { /* cores came from left to right */
        int x = f->list[i].cx0;
        if (x > last_border) {
            last_border = x;
            if (paint_column(f, x, true, cy0, cy1, f->line) && paint_column(f, x, false, cy0, cy1, f->other)) {
                unite_along(f, f->line, f->other, (size_t)(cy1 - cy0));
            }
        }
    }
    if (paint_row(f, cy0, false, f->line)) {
        unite_along(f, f->above, f->line, (size_t)f->width);
    }
}

/* ---- whole objects ---- */

static int by_place(const void *pa, const void *pb) {
    const stitch_run_t *a = pa, *b = pb;
    if (a->y != b->y) {
        return a->y < b->y ? -1 : 1;
    }
    return a->x0 < b->x0 ? -1 : a->x0 > b->x0;
}

/* Sorts the runs and joins those that touch in a row; bounds and area. */
static void settle(stitch_run_t *runs, size_t n, stitch_object_t *o) {
    size_t m = 0;
    qsort(runs, n, sizeof *runs, by_place);
    *o = (stitch_object_t){.runs = runs, .x0 = runs[0].x0, .y0 = runs[0].y, .x1 = runs[0].x1, .y1 = runs[n - 1].y + 1};
    for (size_t k = 0; k < n; k++) {
        if (m > 0 && runs[m - 1].y == runs[k].y && runs[m - 1].x1 == runs[k].x0) {
            runs[m - 1].x1 = runs[k].x1;
        } else {
            runs[m++] = runs[k];
        }
        o->x0 = runs[k].x0 < o->x0 ? runs[k].x0 : o->x0;
        o->x1 = runs[k].x1 > o->x1 ? runs[k].x1 : o->x1;
        o->area += runs[k].x1 - runs[k].x0;
    }
    o->nruns = m;
}

/* Emits the object of root and its members, all of them in list[0..count) with that root. */
static err_kind_t emit(fragments_t *f, const uint32_t *members, size_t n, int64_t min_area, const stitch_sink_t *sink,
                       err_t *err) {
    size_t total = 0, at = 0;
    double confidence = 0;
    for (size_t i = 0; i < n; i++) {
        total += f->list[members[i]].nruns;
    }
    stitch_run_t *runs = malloc((total > 0 ? total : 1) * sizeof *runs);
    if (!runs) {
        return no_memory(err);
    }
    for (size_t i = 0; i < n; i++) {
        fragment_t *g = &f->list[members[i]];
        if (g->nruns > 0) {
            memcpy(runs + at, g->runs, g->nruns * sizeof *runs);
        }
        at += g->nruns;
        confidence += g->confidence * (double)g->area;
        fragments_drop(f, g);
    }
    err_kind_t k = ERR_OK;
    if (total > 0) {
        stitch_object_t o;
        settle(runs, total, &o);
        o.confidence = (float)(confidence / (double)o.area);
        if (o.area >= min_area) {
            k = sink->fn(sink->ctx, &o, err);
        }
    }
    free(runs);
    return k;
}

static int by_root(const void *pa, const void *pb) {
    return ascending(pa, pb);
}

/* root << 32 | index of the fragments whose object has ended. */
static err_kind_t emit_ended(fragments_t *f, const bool *open, int64_t min_area, const stitch_sink_t *sink,
                             err_t *err) {
    uint64_t *keys = calloc(f->count + 1, sizeof *keys);
    uint32_t *members = calloc(f->count + 1, sizeof *members);
    size_t n = 0;
    err_kind_t k = keys && members ? ERR_OK : no_memory(err);
    for (size_t i = 0; k == ERR_OK && i < f->count; i++) {
        uint32_t root = root_of(f, (uint32_t)i);
        if (!f->list[i].done && !open[root]) {
            keys[n++] = (uint64_t)root << 32 | i;
        }
    }
    if (k == ERR_OK) {
        qsort(keys, n, sizeof *keys, by_root);
    }
    for (size_t i = 0, end; k == ERR_OK && i < n; i = end) {
        for (end = i; end < n && keys[end] >> 32 == keys[i] >> 32; end++) {
            members[end - i] = (uint32_t)keys[end];
        }
        k = emit(f, members, end - i, min_area, sink, err);
    }
    free(keys);
    free(members);
    return k;
}

err_kind_t fragments_close_row(fragments_t *f, int cy0, int cy1, bool last, int64_t min_area, const stitch_sink_t *sink,
                               err_t *err) {
    if (f->count == 0) {
        return ERR_OK;
    }
    bool *open = calloc(f->count, sizeof *open);
    if (!open) {
        return no_memory(err);
    }
    unite_row(f, cy0, cy1);
    (void)paint_row(f, cy1, true, f->above);
    for (int x = 0; !last && x < f->width; x++) {
        if (f->above[x] != 0) {
            open[root_of(f, f->above[x] - 1)] = true;
        }
    }
    err_kind_t k = emit_ended(f, open, min_area, sink, err);
    free(open);
    bool alive = false;
    for (size_t i = 0; i < f->count; i++) {
        alive = alive || !f->list[i].done;
    }
    if (!alive) {
        f->count = 0;
        memset(f->above, 0, (size_t)f->width * sizeof *f->above);
    }
    f->row_begin = f->count;
    return k;
}
