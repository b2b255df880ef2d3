/*
 * Any label image into outlines, smooth and along the pixels. They are sound and of the right area; along the pixels
 * they are exact. First byte: width; second: how many labels; then labels, each byte one pixel.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "segworker/pipeline/contour.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LABELS_MAX = 4, SIDE_MAX = 64 };

static double area_of(const geom_t *g) {
    double area = 0;
    for (uint32_t i = 0; i < g->count; i++) {
        for (uint32_t k = 0; k < g->polygons[i].count; k++) {
            area += (double)geom_ring_area2(&g->polygons[i].rings[k]) / (2.0 * GEOM_UNITS_PER_PX * GEOM_UNITS_PER_PX);
        }
    }
    return area;
}

static void check(const geom_t *g, int64_t pixels, double tolerance, int width, int height) {
    geom_bbox_t box = geom_bbox(g);
    double area = area_of(g);
    if ((g->count > 0) != (pixels > 0) || (g->count > 0 && !geom_is_valid(g)) || box.x0 < 0 || box.y0 < 0 ||
        box.x1 > width * GEOM_UNITS_PER_PX || box.y1 > height * GEOM_UNITS_PER_PX) {
        abort();
    }
    if (fabs(area - (double)pixels) > tolerance * (double)pixels) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int32_t labels[SIDE_MAX * SIDE_MAX];
    int64_t pixels[LABELS_MAX + 1] = {0};
    geom_t g[LABELS_MAX];
    err_t err;
    if (size < 3) {
        return 0;
    }
    int width = 1 + data[0] % SIDE_MAX, count = 1 + data[1] % LABELS_MAX, height = (int)(size - 2) / width;
    height = height > SIDE_MAX ? SIDE_MAX : height;
    for (int i = 0; i < width * height; i++) {
        labels[i] = data[2 + i] % (count + 1);
        pixels[labels[i]]++;
    }
    for (int pass = 0; pass < 2; pass++) {
        const contour_params_t p = {.tolerance = pass == 0 ? 0 : CONTOUR_DEFAULT_TOLERANCE};
        if (contour_trace(labels, width, height, (uint32_t)count, &p, NULL, g, &err) != ERR_OK) {
            abort();
        }
        for (int k = 0; k < count; k++) {
            /* where a label touches itself in a corner, 0.1 px are cut off both sides */
            check(&g[k], pixels[k + 1], 0.02, width, height);
            geom_free(&g[k]);
        }
    }
    return 0;
}
