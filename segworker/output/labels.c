/* Label images: the value of a pixel is the number of its object. */
#include <stdlib.h>

#include "common/geometry/raster.h"
#include "common/image/image.h"
#include "segworker/output/output.h"

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "no_memory", "The computer is short of memory for the label image.", "labels");
}

typedef struct {
    uint32_t *px;
    int width;
    uint32_t value;
} painter_t;

static void paint_span(void *ctx, int y, int x0, int x1) {
    painter_t *p = ctx;
    for (int x = x0; x < x1; x++) {
        p->px[(size_t)y * (size_t)p->width + (size_t)x] = p->value;
    }
}

/* width*height numbers: the result's own, or painted from the outlines when it keeps none. */
static err_kind_t make_labels(const result_t *r, uint32_t **px, err_t *err) {
    size_t pixels = (size_t)r->width * (size_t)r->height;
    err_kind_t kind = ERR_OK;
    *px = calloc(pixels > 0 ? pixels : 1, sizeof **px);
    if (*px == NULL) {
        return no_memory(err);
    }
    for (size_t i = 0; r->labels != NULL && i < pixels; i++) {
        (*px)[i] = r->labels[i] > 0 ? (uint32_t)r->labels[i] : 0;
    }
    painter_t p = {.px = *px, .width = r->width};
    for (uint32_t i = 0; r->labels == NULL && i < r->count && kind == ERR_OK; i++) {
        p.value = r->objects[i].idx;
        kind = raster_spans(&r->objects[i].geom, r->width, r->height, paint_span, &p, err);
    }
    return kind;
}

err_kind_t output_write_labels(const result_t *r, const char *path, bool wide, err_t *err) {
    size_t pixels = (size_t)r->width * (size_t)r->height;
    uint32_t *px = NULL;
    uint16_t *narrow = NULL;
    if (!wide && r->count > UINT16_MAX) {
        return err_setf(err, ERR_INVALID, "output_too_many_labels",
                        "%u objects do not fit into a 16-bit PNG; choose a .tif file instead.", (unsigned)r->count);
    }
    err_kind_t kind = make_labels(r, &px, err);
    if (kind != ERR_OK) {
        goto out;
    }
    if (wide) {
        kind = image_write_tiff_u32(path, px, r->width, r->height, err);
        goto out;
    }
    narrow = malloc((pixels > 0 ? pixels : 1) * sizeof *narrow);
    if (narrow == NULL) {
        kind = no_memory(err);
        goto out;
    }
    for (size_t i = 0; i < pixels; i++) {
        narrow[i] = (uint16_t)px[i];
    }
    kind = image_write_png16(path, narrow, r->width, r->height, err);
out:
    free(px);
    free(narrow);
    return kind;
}
