/*
 * Post-processing alone, on a label image from a file: outlines with holes, and measurements. Prints JSON with the
 * seconds of each repetition; with a third argument, writes the outlines' agreement with the label image too.
 *
 *   bench_post FILE REPEAT smooth|cracks [check]
 *
 * FILE: width, height, count (int32 each), then width*height int32 labels, then as many float32 grey values.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/geometry/measure.h"
#include "common/geometry/raster.h"
#include "common/timeutil.h"
#include "segworker/pipeline/contour.h"

typedef struct {
    int32_t width, height, count;
    int32_t *labels;
    float *plane;
    geom_t *geoms;
} job_t;

static bool read_job(const char *path, job_t *j) {
    int32_t head[3];
    FILE *f = fopen(path, "rb");
    bool ok = f && fread(head, sizeof head, 1, f) == 1 && head[0] > 0 && head[1] > 0 && head[2] >= 0;
    if (ok) {
        size_t n = (size_t)head[0] * (size_t)head[1];
        *j = (job_t){.width = head[0], .height = head[1], .count = head[2]};
        j->labels = malloc(n * sizeof *j->labels);
        j->plane = malloc(n * sizeof *j->plane);
        j->geoms = calloc((size_t)head[2] + 1, sizeof *j->geoms);
        ok = j->labels && j->plane && j->geoms && fread(j->labels, sizeof *j->labels, n, f) == n &&
             fread(j->plane, sizeof *j->plane, n, f) == n;
    }
    if (f) {
        fclose(f);
    }
    return ok;
}

static bool trace(job_t *j, double tolerance, double *seconds) {
    err_t err;
    const contour_params_t p = {.tolerance = tolerance};
    int64_t before = time_mono_us();
    err_kind_t k = contour_trace(j->labels, j->width, j->height, (uint32_t)j->count, &p, NULL, j->geoms, &err);
    *seconds = (double)(time_mono_us() - before) / 1e6;
    if (k != ERR_OK) {
        fprintf(stderr, "%s\n", err.message);
    }
    return k == ERR_OK;
}

static bool measure(job_t *j, double *seconds) {
    err_t err;
    measurements_t m;
    int64_t before = time_mono_us();
    for (int32_t i = 0; i < j->count; i++) {
        if (measure_object(&j->geoms[i], j->plane, j->width, j->height, &m, &err) != ERR_OK) {
            fprintf(stderr, "object %d: %s\n", i + 1, err.message);
            return false;
        }
    }
    *seconds = (double)(time_mono_us() - before) / 1e6;
    return true;
}

typedef struct {
    const job_t *j;
    int32_t label;
    int64_t both, drawn;
} overlap_t;

static void count_span(void *ctx, int y, int x0, int x1) {
    overlap_t *o = ctx;
    const int32_t *row = o->j->labels + (size_t)y * (size_t)o->j->width;
    o->drawn += x1 - x0;
    for (int x = x0; x < x1; x++) {
        o->both += row[x] == o->label;
    }
}

/* The worst IoU of an object over 50 px with its pixels, and the mean. */
static bool check(const job_t *j, double *worst, double *mean) {
    const int64_t least = 50;
    int64_t *area = calloc((size_t)j->count + 1, sizeof *area), n = 0;
    err_t err;
    *worst = 1;
    *mean = 0;
    for (size_t i = 0, px = (size_t)j->width * (size_t)j->height; area && i < px; i++) {
        area[j->labels[i]]++;
    }
    for (int32_t i = 0; area && i < j->count; i++) {
        overlap_t o = {.j = j, .label = i + 1};
        if (area[i + 1] <= least) {
            continue;
        }
        if (raster_spans(&j->geoms[i], j->width, j->height, count_span, &o, &err) != ERR_OK) {
            free(area);
            return false;
        }
        double iou = (double)o.both / (double)(o.drawn + area[i + 1] - o.both);
        *worst = iou < *worst ? iou : *worst;
        *mean += iou;
        n++;
    }
    *mean = n > 0 ? *mean / (double)n : 1;
    free(area);
    return true;
}

static size_t count_points(const job_t *j) {
    size_t n = 0;
    for (int32_t i = 0; i < j->count; i++) {
        for (uint32_t p = 0; p < j->geoms[i].count; p++) {
            for (uint32_t r = 0; r < j->geoms[i].polygons[p].count; r++) {
                n += j->geoms[i].polygons[p].rings[r].count;
            }
        }
    }
    return n;
}

static void free_geoms(job_t *j) {
    for (int32_t i = 0; i < j->count; i++) {
        geom_free(&j->geoms[i]);
    }
}

int main(int argc, char **argv) {
    job_t j = {0};
    if (argc < 4 || !read_job(argv[1], &j)) {
        fprintf(stderr, "bench_post FILE REPEAT smooth|cracks [check]\n");
        return 2;
    }
    long repeat = strtol(argv[2], NULL, 10);
    double tolerance = strcmp(argv[3], "smooth") == 0 ? CONTOUR_DEFAULT_TOLERANCE : 0, worst = 0, mean = 0;
    bool ok = true;
    size_t points = 0;
    printf("{\"runs\":[");
    for (long r = 0; ok && r < repeat; r++) {
        double outlines = 0, measures = 0;
        ok = trace(&j, tolerance, &outlines) && measure(&j, &measures);
        if (ok && r == 0) {
            points = count_points(&j);
            ok = argc < 5 || check(&j, &worst, &mean);
        }
        printf("%s{\"outlines\":%.6f,\"measure\":%.6f}", r > 0 ? "," : "", outlines, measures);
        free_geoms(&j);
    }
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    printf("],\"points\":%zu,\"peakBytes\":%lld", points, (long long)u.ru_maxrss * 1024);
    if (argc >= 5) {
        printf(",\"worstIoU\":%.6f,\"meanIoU\":%.6f", worst, mean);
    }
    printf("}\n");
    free(j.labels);
    free(j.plane);
    free(j.geoms);
    return ok ? 0 : 1;
}
