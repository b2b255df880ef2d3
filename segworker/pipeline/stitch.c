/*
 * See stitch.h. Which pixels belong to accepted objects is kept as one bit each, for the rows that windows to come can
 * still show. A row of cores is closed when the first window after the next row comes: until then the next row's
 * windows may accept objects that this row only saw cut.
 */
#include "segworker/pipeline/stitch.h"

#include <stdlib.h>
#include <string.h>

#include "segworker/pipeline/fragments.h"

typedef struct {
    uint32_t area, taken;
    bool cut, edge, core;
    int32_t number; /* 1 = accepted, -1 = cut, 0 = left out */
} seen_t;

struct stitch {
    stitch_params_t p;
    uint8_t *taken; /* bits, `rows` rows from first_row on, stride bytes each */
    size_t stride;
    int first_row, rows;
    fragments_t fragments;
    fragments_t next; /* of the row that is being added; the one above is in `fragments` */
    bool begun;
    int cy0, cy1;           /* the row that is being added */
    int prev_cy0, prev_cy1; /* the one above; prev_cy1 = 0: none */
};

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is short of memory; please try again.", "stitch");
}

err_kind_t stitch_create(const stitch_params_t *p, stitch_t **out, err_t *err) {
    stitch_t *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s) {
        return no_memory(err);
    }
    s->p = *p;
    s->rows = 2 * p->max_core_height + 2 * p->max_halo + 1;
    s->stride = ((size_t)p->width + 7) / 8;
    s->taken = calloc((size_t)s->rows, s->stride);
    err_kind_t k = s->taken ? fragments_init(&s->fragments, p->width, p->max_core_height, err) : no_memory(err);
    if (k == ERR_OK) {
        k = fragments_init(&s->next, p->width, p->max_core_height, err);
    }
    if (k != ERR_OK) {
        stitch_free(s);
        return k;
    }
    *out = s;
    return ERR_OK;
}

void stitch_free(stitch_t *s) {
    if (s) {
        free(s->taken);
        fragments_release(&s->fragments);
        fragments_release(&s->next);
        free(s);
    }
}

/* ---- taken pixels ---- */

static uint8_t *taken_row(stitch_t *s, int y) {
    return s->taken + (size_t)(y - s->first_row) * s->stride;
}

static bool is_taken(const uint8_t *row, int x) {
    return (row[x >> 3] >> (x & 7) & 1) != 0;
}

/* Forgets the rows above y. */
static void slide(stitch_t *s, int y) {
    int gone = y - s->first_row;
    if (gone <= 0) {
        return;
    }
    gone = gone < s->rows ? gone : s->rows;
    memmove(s->taken, s->taken + (size_t)gone * s->stride, (size_t)(s->rows - gone) * s->stride);
    memset(s->taken + (size_t)(s->rows - gone) * s->stride, 0, (size_t)gone * s->stride);
    s->first_row = y;
}

/* ---- closing a row ---- */

/* Takes away what windows accepted meanwhile; a fragment that loses half of itself was shown whole by another. */
static err_kind_t subtract_taken(stitch_t *s, fragments_t *f, fragment_t *g, err_t *err) {
    stitch_run_t *old = g->runs;
    size_t n = g->nruns;
    int64_t area = g->area;
    err_kind_t k = ERR_OK;
    f->total_runs -= n;
    g->runs = NULL;
    g->nruns = g->room = 0;
    g->area = 0;
    for (size_t i = 0; k == ERR_OK && i < n; i++) {
        const uint8_t *row = taken_row(s, old[i].y);
        int from = old[i].x0;
        for (int x = old[i].x0; k == ERR_OK && x <= old[i].x1; x++) {
            if (x == old[i].x1 || is_taken(row, x)) {
                if (x > from) {
                    k = fragments_add_run(f, g, (stitch_run_t){old[i].y, from, x}, err);
                }
                from = x + 1;
            }
        }
    }
    free(old);
    if (k == ERR_OK && 2 * g->area < area) {
        fragments_drop(f, g);
    }
    return k;
}

static bool on_edge(const stitch_t *s, const stitch_object_t *o) {
    return o->x0 == 0 || o->y0 == 0 || o->x1 == s->p.width || o->y1 == s->p.height;
}

typedef struct {
    const stitch_t *s;
    const stitch_sink_t *sink;
} filter_t;

static err_kind_t pass_on(void *ctx, const stitch_object_t *o, err_t *err) {
    const filter_t *f = ctx;
    const stitch_params_t *p = &f->s->p;
    bool left_out = (p->drop_border && on_edge(f->s, o)) || (p->max_area > 0 && o->area > p->max_area) ||
                    o->confidence < p->min_confidence;
    return left_out ? ERR_OK : f->sink->fn(f->sink->ctx, o, err);
}

/* The row above the current one is final: its windows and all that overlap them have been added. */
static err_kind_t close_previous(stitch_t *s, bool last, const stitch_sink_t *sink, err_t *err) {
    fragments_t *f = &s->fragments;
    filter_t filter = {s, sink};
    const stitch_sink_t filtered = {.fn = pass_on, .ctx = &filter};
    err_kind_t k = ERR_OK;
    if (s->prev_cy1 == 0) {
        return ERR_OK;
    }
    for (size_t i = f->row_begin; k == ERR_OK && i < f->count; i++) {
        k = subtract_taken(s, f, &f->list[i], err);
    }
    if (k == ERR_OK) {
        k = fragments_close_row(f, s->prev_cy0, s->prev_cy1, last, s->p.min_area, &filtered, err);
    }
    return k;
}

/* The fragments of the current row go below those of the row above. */
static err_kind_t append_next(stitch_t *s, err_t *err) {
    for (size_t i = 0; i < s->next.count; i++) {
        fragment_t *from = &s->next.list[i];
        fragment_t *to = fragments_add(&s->fragments, from->cx0, from->cx1, from->confidence);
        if (!to) {
            return no_memory(err);
        }
        to->runs = from->runs;
        to->nruns = from->nruns;
        to->room = from->room;
        to->area = from->area;
        to->reach = from->reach;
        to->nreach = from->nreach;
        to->reach_room = from->reach_room;
        s->fragments.total_runs += from->nruns;
        s->next.total_runs -= from->nruns;
        from->runs = from->reach = NULL;
        from->nruns = from->nreach = 0;
    }
    s->next.count = 0;
    return ERR_OK;
}

static err_kind_t end_row(stitch_t *s, const stitch_sink_t *sink, err_t *err) {
    err_kind_t k = close_previous(s, false, sink, err);
    if (k == ERR_OK) {
        k = append_next(s, err);
    }
    s->prev_cy0 = s->cy0;
    s->prev_cy1 = s->cy1;
    slide(s, s->cy0 - s->p.max_halo);
    return k;
}

/* ---- a window ---- */

static void look(stitch_t *s, const stitch_window_t *w, seen_t *seen) {
    for (int y = 0; y < w->h; y++) {
        const int32_t *row = w->labels + (size_t)y * (size_t)w->w;
        int ay = w->y + y;
        const uint8_t *bits = taken_row(s, ay);
        bool in_rows = ay >= w->cy0 && ay < w->cy1;
        bool open_row = (y == 0 && w->y > 0) || (y == w->h - 1 && ay < s->p.height - 1);
        bool edge_row = ay == 0 || ay == s->p.height - 1;
        for (int x = 0; x < w->w; x++) {
            if (row[x] == 0) {
                continue;
            }
            seen_t *o = &seen[row[x]];
            int ax = w->x + x;
            o->area++;
            o->taken += is_taken(bits, ax);
            o->core |= in_rows && ax >= w->cx0 && ax < w->cx1;
            o->cut |= open_row || (x == 0 && ax > 0) || (x == w->w - 1 && ax < s->p.width - 1);
            o->edge |= edge_row || ax == 0 || ax == s->p.width - 1;
        }
    }
}

/* Decides what becomes of each object. */
static void decide(const stitch_t *s, seen_t *seen, uint32_t count, const float *confidence) {
    for (uint32_t k = 1; k <= count; k++) {
        seen_t *o = &seen[k];
        o->number = 0;
        if (!o->core) {
            continue;
        }
        if (o->cut) {
            o->number = -1;
        } else if (2 * o->taken < o->area && !(s->p.drop_border && o->edge)) {
            int64_t area = (int64_t)o->area - o->taken;
            o->number = area >= s->p.min_area && (s->p.max_area == 0 || area <= s->p.max_area) &&
                        !(confidence[k - 1] < s->p.min_confidence);
        }
    }
}

static void accept(stitch_t *s, stitch_window_t *w, seen_t *seen, float *confidence) {
    int32_t n = 0;
    for (uint32_t k = 1; k <= w->count; k++) {
        seen[k].area = 0; /* from here on the new number */
    }
    for (int y = 0; y < w->h; y++) {
        int32_t *row = w->labels + (size_t)y * (size_t)w->w;
        uint8_t *bits = taken_row(s, w->y + y);
        for (int x = 0; x < w->w; x++) {
            int32_t k = row[x];
            int ax = w->x + x;
            if (k == 0) {
                continue;
            }
            row[x] = 0;
            if (seen[k].number == 1 && !is_taken(bits, ax)) {
                if (seen[k].area == 0) {
                    seen[k].area = (uint32_t)++n;
                    confidence[n - 1] = w->confidence[k - 1];
                }
                bits[ax >> 3] |= (uint8_t)(1U << (ax & 7));
                row[x] = (int32_t)seen[k].area;
            }
        }
    }
    memcpy(w->confidence, confidence, (size_t)n * sizeof *confidence);
    w->count = (uint32_t)n;
}

/* Runs of cut objects in row ay from x0 to x1 go to their fragments; of: index + 1 of an object's fragment. */
static err_kind_t collect_row(stitch_t *s, const stitch_window_t *w, const seen_t *seen, uint32_t *of, int ay, int x0,
                              int x1, bool reach, err_t *err) {
    const int32_t *row = w->labels + (size_t)(ay - w->y) * (size_t)w->w - w->x;
    err_kind_t k = ERR_OK;
    for (int x = x0, end; k == ERR_OK && x < x1; x = end) {
        int32_t label = row[x];
        for (end = x + 1; end < x1 && row[end] == label; end++) {
        }
        if (label == 0 || seen[label].number != -1) {
            continue;
        }
        if (of[label] == 0) {
            if (!fragments_add(&s->next, w->cx0, w->cx1, w->confidence[label - 1])) {
                return no_memory(err);
            }
            of[label] = (uint32_t)s->next.count;
        }
        fragment_t *g = &s->next.list[of[label] - 1];
        for (int i = x; w->plane && !reach && i < end; i++) {
            g->sum += w->plane[(size_t)(ay - w->y) * (size_t)w->w + (size_t)(i - w->x)];
        }
        k = reach ? fragments_add_reach(&s->next, g, (stitch_run_t){ay, x, end}, err)
                  : fragments_add_run(&s->next, g, (stitch_run_t){ay, x, end}, err);
    }
    return k;
}

/* The parts of cut objects inside the core become fragments; with them what the neighbours will compare. */
static err_kind_t collect(stitch_t *s, const stitch_window_t *w, const seen_t *seen, uint32_t *of, err_t *err) {
    err_kind_t k = ERR_OK;
    for (int ay = w->cy0; k == ERR_OK && ay < w->cy1; ay++) {
        k = collect_row(s, w, seen, of, ay, w->cx0, w->cx1, false, err);
        if (k == ERR_OK && w->cx1 < w->x + w->w) {
            k = collect_row(s, w, seen, of, ay, w->cx1, w->cx1 + 1, true, err);
        }
    }
    if (k == ERR_OK && w->cy1 < w->y + w->h) {
        k = collect_row(s, w, seen, of, w->cy1, w->cx0, w->cx1, true, err);
    }
    for (uint32_t i = 1; k == ERR_OK && w->plane && i <= w->count; i++) {
        if (of[i] != 0 && s->next.list[of[i] - 1].area > 0) {
            fragment_t *g = &s->next.list[of[i] - 1];
            g->confidence = g->sum / (double)g->area;
        }
    }
    return k;
}

err_kind_t stitch_add(stitch_t *s, stitch_window_t *w, const stitch_sink_t *sink, err_t *err) {
    err_kind_t k = ERR_OK;
    if (s->begun && w->cy0 != s->cy0) {
        k = end_row(s, sink, err);
    }
    s->begun = true;
    s->cy0 = w->cy0;
    s->cy1 = w->cy1;
    size_t n = (size_t)w->count + 1;
    seen_t *seen = calloc(n, sizeof *seen);
    uint32_t *of = calloc(n, sizeof *of);
    float *confidence = calloc(n, sizeof *confidence);
    if (k == ERR_OK) {
        k = seen && of && confidence ? ERR_OK : no_memory(err);
    }
    if (k == ERR_OK) {
        look(s, w, seen);
        decide(s, seen, w->count, w->confidence);
        k = collect(s, w, seen, of, err);
    }
    if (k == ERR_OK) {
        accept(s, w, seen, confidence);
    }
    free(seen);
    free(of);
    free(confidence);
    return k;
}

err_kind_t stitch_finish(stitch_t *s, const stitch_sink_t *sink, err_t *err) {
    err_kind_t k = s->begun ? end_row(s, sink, err) : ERR_OK;
    return k == ERR_OK ? close_previous(s, true, sink, err) : k;
}
