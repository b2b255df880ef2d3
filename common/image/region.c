/*
 * Rectangles of image files and the choice of the plane. The page is decoded whole by the first read and held.
 */
#include "region.h"

#include "image_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct image_reader {
    char *path;
    const uint8_t *mem; /* not owned; NULL when path is used */
    size_t mem_size;
    image_limits_t limits;
    image_select_t sel;
    image_info_t info; /* of the chosen page */
    image_t whole;     /* data NULL until the first read */
};

static err_kind_t load(image_reader_t *r, int page, image_t *img, err_t *err) {
    return r->mem ? image_decode_memory(r->mem, r->mem_size, page, &r->limits, img, err)
                  : image_decode(r->path, page, &r->limits, img, err);
}

static err_kind_t open_reader(image_reader_t *r, image_reader_t **out, err_t *err) {
    r->sel = IMAGE_SELECT_DEFAULT;
    err_kind_t k;
    if (r->mem) {
        k = load(r, 0, &r->whole, err);
        r->info = r->whole.info;
    } else {
        k = image_probe(r->path, &r->limits, &r->info, err);
    }
    if (k != ERR_OK) {
        image_close(r);
        return k;
    }
    *out = r;
    return ERR_OK;
}

err_kind_t image_open(const char *path, const image_limits_t *lim, image_reader_t **out, err_t *err) {
    *out = NULL;
    image_reader_t *r = calloc(1, sizeof *r);
    if (!r || !(r->path = strdup(path))) {
        free(r);
        return image_err_memory(err);
    }
    r->limits = *lim;
    return open_reader(r, out, err);
}

err_kind_t image_open_memory(const uint8_t *data, size_t n, const image_limits_t *lim, image_reader_t **out,
                             err_t *err) {
    *out = NULL;
    image_reader_t *r = calloc(1, sizeof *r);
    if (!r) {
        return image_err_memory(err);
    }
    r->mem = data;
    r->mem_size = n;
    r->limits = *lim;
    return open_reader(r, out, err);
}

void image_close(image_reader_t *r) {
    if (r) {
        image_free(&r->whole);
        free(r->path);
        free(r);
    }
}

static int colours(const image_info_t *info) {
    int n = info->channels - (info->has_alpha ? 1 : 0);
    return n > 0 ? n : 1;
}

err_kind_t image_reader_select(image_reader_t *r, const image_select_t *sel, err_t *err) {
    image_select_t want = *sel;
    want.page = want.z >= 0 ? want.z : want.page;
    if (want.t > 0 || want.weights < 0 || want.weights > IMAGE_MAX_WEIGHTS) {
        return err_set(err, ERR_INVALID, "image_no_such_plane", "The file does not have this plane.", NULL);
    }
    image_info_t info = r->info;
    if (want.page != r->sel.page) {
        image_t img;
        err_kind_t k = load(r, want.page, &img, err);
        if (k != ERR_OK) {
            return k;
        }
        image_free(&r->whole);
        r->whole = img;
        info = img.info;
    }
    r->info = info;
    r->sel.page = want.page;
    if (want.channel >= colours(&info) || want.channel < -1 || want.weights > colours(&info)) {
        r->sel = IMAGE_SELECT_DEFAULT;
        r->sel.page = want.page;
        return err_setf(err, ERR_INVALID, "image_no_such_channel", "The image has %d channel(s).", colours(&info));
    }
    r->sel = want;
    return ERR_OK;
}

const image_info_t *image_reader_info(const image_reader_t *r) {
    return &r->info;
}

image_layout_t image_reader_layout(const image_reader_t *r) {
    return (image_layout_t){.block_width = r->info.width,
                            .block_height = r->info.height,
                            .channels = colours(&r->info),
                            .slices = r->info.pages,
                            .times = 1};
}

static err_kind_t prepare(image_reader_t *r, image_rect_t q, err_t *err) {
    if (q.x < 0 || q.y < 0 || q.w < 1 || q.h < 1 || q.x > r->info.width - q.w || q.y > r->info.height - q.h) {
        return err_set(err, ERR_INVALID, "image_region_outside", "The region lies outside the image.", NULL);
    }
    return r->whole.data ? ERR_OK : load(r, r->sel.page, &r->whole, err);
}

err_kind_t image_reader_read(image_reader_t *r, image_rect_t q, void *samples, size_t bytes, err_t *err) {
    err_kind_t k = prepare(r, q, err);
    if (k != ERR_OK) {
        return k;
    }
    size_t unit = (size_t)r->info.channels * image_sample_bytes(r->info.sample), row = (size_t)q.w * unit;
    if (bytes < row * (size_t)q.h) {
        return err_set(err, ERR_INVALID, "image_region_outside", "The buffer is too small.", NULL);
    }
    for (int32_t y = 0; y < q.h; y++) {
        size_t at = ((size_t)(q.y + y) * (size_t)r->info.width + (size_t)q.x) * unit;
        memcpy((uint8_t *)samples + (size_t)y * row, (const uint8_t *)r->whole.data + at, row);
    }
    return ERR_OK;
}

/* The rectangle as an image of its own: image_to_grey, one channel, or the weighted sum. */
static err_kind_t to_plane(const image_reader_t *r, const image_t *part, float *plane, err_t *err) {
    size_t n = (size_t)part->info.width * (size_t)part->info.height;
    if (r->sel.channel < 0 && r->sel.weights == 0) {
        float *grey = NULL;
        err_kind_t k = image_to_grey(part, &grey, err);
        if (k == ERR_OK) {
            memcpy(plane, grey, n * sizeof *plane);
            free(grey);
        }
        return k;
    }
    double total = 0;
    for (int c = 0; c < r->sel.weights; c++) {
        total += fabs((double)r->sel.weight[c]);
    }
    for (size_t i = 0; i < n; i++) {
        const size_t at = i * (size_t)part->info.channels;
        double v = 0;
        if (r->sel.channel >= 0) {
            v = (double)image_sample_at(part, at + (size_t)r->sel.channel);
        } else {
            for (int c = 0; c < r->sel.weights; c++) {
                v += (double)r->sel.weight[c] * (double)image_sample_at(part, at + (size_t)c);
            }
            v = total > 0 ? v / total : 0;
        }
        plane[i] = isfinite((float)v) ? (float)v : 0;
    }
    return ERR_OK;
}

err_kind_t image_reader_read_grey(image_reader_t *r, image_rect_t q, float *plane, err_t *err) {
    image_t part = {.info = r->info};
    part.info.width = q.w;
    part.info.height = q.h;
    size_t bytes = 0;
    err_kind_t k = image_check_size(&part.info, &r->limits, &bytes, err);
    if (k != ERR_OK) {
        return k;
    }
    part.data = malloc(bytes);
    part.bytes = bytes;
    if (!part.data) {
        return image_err_memory(err);
    }
    k = image_reader_read(r, q, part.data, bytes, err);
    if (k == ERR_OK) {
        k = to_plane(r, &part, plane, err);
    }
    image_free(&part);
    return k;
}
