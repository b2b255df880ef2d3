/* Scan conversion: the crossings of all edges with the rows' centre lines, bucketed by row, sorted within each row. */
#include "raster.h"

#include <stdlib.h>

typedef struct {
    int width, row0, row1; /* rows row0 <= y < row1 are looked at */
    size_t *start;         /* per row: first crossing; after filling: one past its last */
    int *cols;             /* first column whose centre is not left of the crossing */
} raster_t;

static int floor_div(int64_t a, int64_t b) {
    int64_t q = a / b;
    return (int)(a % b < 0 ? q - 1 : q);
}

/* Rows whose centre line y = 100*row + 50 the edge crosses: lower end included, upper end not. */
static void edge_rows(const raster_t *ra, geom_point_t a, geom_point_t b, int *from, int *to) {
    int64_t y0 = a.y < b.y ? a.y : b.y, y1 = a.y < b.y ? b.y : a.y, half = GEOM_UNITS_PER_PX / 2;
    *from = floor_div(y0 + half - 1, GEOM_UNITS_PER_PX);
    *to = floor_div(y1 + half - 1, GEOM_UNITS_PER_PX);
    *from = *from < ra->row0 ? ra->row0 : *from;
    *to = *to > ra->row1 ? ra->row1 : *to;
}

static int crossing_column(const raster_t *ra, geom_point_t a, geom_point_t b, int row) {
    double y = (double)row * GEOM_UNITS_PER_PX + GEOM_UNITS_PER_PX / 2.0;
    /* always from the upper end, so that two objects round a common edge alike */
    geom_point_t p = a.y < b.y ? a : b, q = a.y < b.y ? b : a;
    double x = p.x + (y - p.y) * ((double)q.x - p.x) / ((double)q.y - p.y);
    double col = (x - GEOM_UNITS_PER_PX / 2.0) / GEOM_UNITS_PER_PX;
    if (!(col > 0 && col < ra->width)) {
        return col > 0 ? ra->width : 0;
    }
    int whole = (int)col;
    return whole + (col > whole); /* rounded up */
}

static void each_edge(raster_t *ra, const geom_t *g, void (*fn)(raster_t *, geom_point_t, geom_point_t)) {
    for (uint32_t i = 0; i < g->count; i++) {
        for (uint32_t k = 0; k < g->polygons[i].count; k++) {
            const geom_ring_t *r = &g->polygons[i].rings[k];
            for (uint32_t j = 0; j < r->count; j++) {
                fn(ra, r->points[j], r->points[j + 1 < r->count ? j + 1 : 0]);
            }
        }
    }
}

static void count_crossings(raster_t *ra, geom_point_t a, geom_point_t b) {
    int from, to;
    edge_rows(ra, a, b, &from, &to);
    for (int y = from; y < to; y++) {
        ra->start[y - ra->row0 + 1]++;
    }
}

static void store_crossings(raster_t *ra, geom_point_t a, geom_point_t b) {
    int from, to;
    edge_rows(ra, a, b, &from, &to);
    for (int y = from; y < to; y++) {
        ra->cols[ra->start[y - ra->row0]++] = crossing_column(ra, a, b, y);
    }
}

static int by_value(const void *pa, const void *pb) {
    int a = *(const int *)pa, b = *(const int *)pb;
    return (a > b) - (a < b);
}

static void sort_columns(int *cols, size_t n) {
    if (n > 32) {
        qsort(cols, n, sizeof *cols, by_value);
        return;
    }
    for (size_t i = 1; i < n; i++) {
        int v = cols[i];
        size_t k = i;
        for (; k > 0 && cols[k - 1] > v; k--) {
            cols[k] = cols[k - 1];
        }
        cols[k] = v;
    }
}

err_kind_t raster_spans(const geom_t *g, int width, int height, raster_span_fn fn, void *ctx, err_t *err) {
    geom_bbox_t box = geom_bbox(g);
    raster_t ra = {.width = width, .row0 = floor_div(box.y0, GEOM_UNITS_PER_PX)};
    ra.row0 = ra.row0 < 0 ? 0 : ra.row0;
    ra.row1 = floor_div((int64_t)box.y1 + GEOM_UNITS_PER_PX - 1, GEOM_UNITS_PER_PX);
    ra.row1 = ra.row1 > height ? height : ra.row1;
    if (ra.row1 <= ra.row0 || width <= 0) {
        return ERR_OK;
    }
    size_t rows = (size_t)(ra.row1 - ra.row0);
    ra.start = calloc(rows + 1, sizeof *ra.start);
    if (ra.start == NULL) {
        goto no_memory;
    }
    each_edge(&ra, g, count_crossings);
    for (size_t i = 0; i < rows; i++) {
        ra.start[i + 1] += ra.start[i];
    }
    ra.cols = malloc((ra.start[rows] + 1) * sizeof *ra.cols);
    if (ra.cols == NULL) {
        goto no_memory;
    }
    each_edge(&ra, g, store_crossings);
    for (size_t i = 0, begin = 0; i < rows; begin = ra.start[i], i++) {
        size_t n = ra.start[i] - begin;
        int *cols = ra.cols + begin;
        sort_columns(cols, n);
        for (size_t k = 0; k + 1 < n; k += 2) {
            if (cols[k] < cols[k + 1]) {
                fn(ctx, ra.row0 + (int)i, cols[k], cols[k + 1]);
            }
        }
    }
    free(ra.start);
    free(ra.cols);
    return ERR_OK;
no_memory:
    free(ra.start);
    return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is short of memory; please try again.", "raster");
}
