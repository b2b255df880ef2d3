/*
 * Rectangles of image files and the choice of the plane. TIFF pages are read block by block through the TIFF reader;
 * pages of the other formats are decoded whole and held.
 */
#include "region.h"

#include "tiff_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct image_reader {
    image_source_t src; /* the descriptor is owned, memory is not */
    image_limits_t limits;
    tiff_file_t *tiff; /* NULL: not a direct file */
    image_select_t sel;
    int page;          /* of sel, or of the first plane that is mixed */
    int32_t z, t;      /* of sel, settled */
    image_info_t info; /* of that page, oriented */
    image_t whole;     /* not direct: the page; data NULL until the first read */
};

/* ---- open and close ---- */

static int colours_of(const image_info_t *info) {
    int n = info->channels - (info->has_alpha ? 1 : 0);
    return n > 0 ? n : 1;
}

/* A page of a direct file must keep to the limit of pixels; only its rectangles to that of bytes. */
static err_kind_t check_page_size(const image_reader_t *r, const image_info_t *info, err_t *err) {
    image_limits_t any = r->limits;
    any.max_decoded_bytes = INT64_MAX;
    size_t bytes = 0;
    return image_check_size(info, &any, &bytes, err);
}

static err_kind_t go_to_page(image_reader_t *r, int page, image_info_t *info, err_t *err) {
    if (!r->tiff) {
        image_t img;
        err_kind_t k = image_read_source(&r->src, page, &r->limits, true, &img, err);
        if (k == ERR_OK) {
            *info = img.info;
            image_free(&img);
        }
        return k;
    }
    err_kind_t k = r->tiff->page == page ? ERR_OK : image_tiff_select(r->tiff, page, err);
    if (k == ERR_OK) {
        k = check_page_size(r, &r->tiff->info, err);
    }
    if (k == ERR_OK) {
        *info = r->tiff->info;
        image_orient_info(info, r->tiff->l.orientation);
    }
    return k;
}

static err_kind_t begin(image_reader_t *r, image_reader_t **out, err_t *err) {
    uint8_t head[32];
    size_t n = image_source_read_at(&r->src, 0, head, sizeof head);
    err_kind_t k = ERR_OK;
    if (image_sniff(head, n) == IMAGE_TIFF) {
        k = image_tiff_open(&r->src, &r->limits, IMAGE_READER_CACHE_BYTES, &r->tiff, err);
    }
    if (k == ERR_OK) {
        k = go_to_page(r, 0, &r->info, err);
    }
    r->sel = IMAGE_SELECT_DEFAULT;
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
    if (!r) {
        return image_err_memory(err);
    }
    r->limits = *lim;
    err_kind_t k = image_source_open(path, &r->src, err);
    if (k != ERR_OK) {
        free(r);
        return k;
    }
    return begin(r, out, err);
}

err_kind_t image_open_memory(const uint8_t *data, size_t n, const image_limits_t *lim, image_reader_t **out,
                             err_t *err) {
    static const uint8_t nothing[1];
    *out = NULL;
    image_reader_t *r = calloc(1, sizeof *r);
    if (!r) {
        return image_err_memory(err);
    }
    r->limits = *lim;
    r->src = (image_source_t){.mem = n ? data : nothing, .fd = -1, .size = n};
    return begin(r, out, err);
}

void image_close(image_reader_t *r) {
    if (r) {
        image_tiff_close(r->tiff);
        image_free(&r->whole);
        image_source_close(&r->src);
        free(r);
    }
}

/* ---- the choice ---- */

static int32_t planes_c(const image_reader_t *r) {
    return r->tiff ? r->tiff->size_c : 1;
}

static int plane_at(const image_reader_t *r, int32_t c, int32_t z, int32_t t) {
    if (r->tiff) {
        return image_tiff_plane(r->tiff, c, z, t);
    }
    return c == 0 && t == 0 && z < r->info.pages ? z : -1;
}

/* Slice and time of a page; false when it is none of the planes. */
static bool place_of(const image_reader_t *r, int page, int32_t *z, int32_t *t) {
    *z = page;
    *t = 0;
    if (!r->tiff || !r->tiff->plane_page) {
        return true;
    }
    int64_t n = (int64_t)r->tiff->size_c * r->tiff->size_z * r->tiff->size_t_;
    for (int64_t i = 0; i < n; i++) {
        if (r->tiff->plane_page[i] == page) {
            *z = (int32_t)(i / r->tiff->size_c % r->tiff->size_z);
            *t = (int32_t)(i / r->tiff->size_c / r->tiff->size_z);
            return true;
        }
    }
    return false;
}

static err_kind_t no_plane(err_t *err) {
    return err_set(err, ERR_INVALID, "image_no_such_plane", "The file has no such slice, time or channel.", NULL);
}

/* Which page does the choice mean? With channels in pages of their own, that of the (first) channel. */
static err_kind_t settle(const image_reader_t *r, const image_select_t *s, int *page, int32_t *z, int32_t *t,
                         err_t *err) {
    if (s->page < 0 || s->channel < -1 || s->z < -1 || s->t < -1 || s->weights < 0 || s->weights > IMAGE_MAX_WEIGHTS) {
        return no_plane(err);
    }
    bool placed = place_of(r, s->page, z, t);
    bool by_channel = planes_c(r) > 1 && (s->channel >= 0 || s->weights > 0);
    if (s->z < 0 && s->t < 0 && !by_channel) {
        *page = s->page;
        return ERR_OK;
    }
    if (!placed) {
        *z = *t = 0;
    }
    *z = s->z >= 0 ? s->z : *z;
    *t = s->t >= 0 ? s->t : *t;
    *page = plane_at(r, 0, *z, *t);
    for (int32_t c = 1; by_channel && *page < 0 && c < planes_c(r); c++) { /* any of them tells the size */
        *page = plane_at(r, c, *z, *t);
    }
    return *page < 0 ? no_plane(err) : ERR_OK;
}

static err_kind_t check_channels(const image_reader_t *r, const image_select_t *s, const image_info_t *info,
                                 err_t *err) {
    int64_t n = (int64_t)planes_c(r) * colours_of(info);
    if ((s->weights == 0 && s->channel >= n) || s->weights > n) {
        return err_setf(err, ERR_INVALID, "image_no_such_channel", "The image has %lld channel(s).", (long long)n);
    }
    return ERR_OK;
}

err_kind_t image_reader_select(image_reader_t *r, const image_select_t *sel, err_t *err) {
    int page = 0;
    int32_t z = 0, t = 0;
    image_info_t info;
    err_kind_t k = settle(r, sel, &page, &z, &t, err);
    if (k == ERR_OK) {
        k = go_to_page(r, page, &info, err);
    }
    if (k == ERR_OK) {
        k = check_channels(r, sel, &info, err);
    }
    if (k == ERR_OK && planes_c(r) > 1 && sel->weights == 0 && sel->channel >= 0) {
        page = plane_at(r, sel->channel / colours_of(&info), z, t);
        k = page < 0 ? no_plane(err) : go_to_page(r, page, &info, err);
    }
    if (k != ERR_OK) {
        return k;
    }
    if (page != r->page) {
        image_free(&r->whole);
    }
    r->sel = *sel;
    r->page = page;
    r->z = z;
    r->t = t;
    r->info = info;
    return ERR_OK;
}

const image_info_t *image_reader_info(const image_reader_t *r) {
    return &r->info;
}

image_layout_t image_reader_layout(const image_reader_t *r) {
    image_layout_t l = {.block_width = r->info.width,
                        .block_height = r->info.height,
                        .channels = colours_of(&r->info) * planes_c(r),
                        .slices = r->tiff ? r->tiff->size_z : r->info.pages,
                        .times = r->tiff ? r->tiff->size_t_ : 1};
    if (r->tiff) {
        bool turned = r->tiff->l.orientation >= 5;
        l.direct = true;
        l.block_width = (int32_t)(turned ? r->tiff->l.block_h : r->tiff->l.block_w);
        l.block_height = (int32_t)(turned ? r->tiff->l.block_w : r->tiff->l.block_h);
    }
    return l;
}

/* ---- reading ---- */

/* The rectangle among the stored pixels, of a page whose stored size is w x h. */
static image_rect_t stored_rect(image_rect_t q, int orientation, int32_t w, int32_t h) {
    image_rect_t s = q;
    if (orientation >= 5 && orientation <= 8) {
        s = (image_rect_t){.x = q.y, .y = q.x, .w = q.h, .h = q.w};
    }
    if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8) {
        s.x = w - s.x - s.w;
    }
    if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7) {
        s.y = h - s.y - s.h;
    }
    return s;
}

/* The rectangle of the current page as an image of its own. */
static err_kind_t read_part(image_reader_t *r, image_rect_t q, image_t *part, err_t *err) {
    memset(part, 0, sizeof *part);
    if (q.x < 0 || q.y < 0 || q.w < 1 || q.h < 1 || q.w > r->info.width || q.h > r->info.height ||
        q.x > r->info.width - q.w || q.y > r->info.height - q.h) {
        return err_set(err, ERR_INVALID, "image_region_outside", "The region lies outside the image.", NULL);
    }
    if (r->tiff) {
        int orientation = r->tiff->l.orientation;
        image_rect_t s = stored_rect(q, orientation, r->tiff->info.width, r->tiff->info.height);
        err_kind_t k = image_tiff_read_rect(r->tiff, s, part, err);
        return k == ERR_OK ? image_orient(part, orientation, err) : k;
    }
    if (!r->whole.data) {
        err_kind_t k = image_read_source(&r->src, r->page, &r->limits, false, &r->whole, err);
        if (k != ERR_OK || !r->whole.data) {
            return k;
        }
    }
    part->info = r->whole.info;
    part->info.width = q.w;
    part->info.height = q.h;
    err_kind_t k = image_allocate(part, &r->limits, err);
    if (k != ERR_OK) {
        return k;
    }
    size_t unit = (size_t)part->info.channels * image_sample_bytes(part->info.sample), row = (size_t)q.w * unit;
    for (int32_t y = 0; y < q.h; y++) {
        size_t at = ((size_t)(q.y + y) * (size_t)r->whole.info.width + (size_t)q.x) * unit;
        memcpy((uint8_t *)part->data + (size_t)y * row, (const uint8_t *)r->whole.data + at, row);
    }
    return ERR_OK;
}

err_kind_t image_reader_read(image_reader_t *r, image_rect_t q, void *samples, size_t bytes, err_t *err) {
    image_t part;
    image_info_t info;
    err_kind_t k = go_to_page(r, r->page, &info, err);
    if (k != ERR_OK) {
        return k;
    }
    k = read_part(r, q, &part, err);
    if (k == ERR_OK && part.bytes > bytes) {
        k = err_set(err, ERR_INVALID, "image_region_outside", "The buffer is too small for the region.", NULL);
    }
    if (k == ERR_OK) {
        memcpy(samples, part.data, part.bytes);
    }
    image_free(&part);
    return k;
}

/* Adds factor * channel c of the part. */
static void add_channel(const image_t *part, size_t c, double factor, double *sum) {
    size_t n = (size_t)part->info.width * (size_t)part->info.height, step = (size_t)part->info.channels;
    for (size_t i = 0; i < n; i++) {
        sum[i] += factor * (double)image_sample_at(part, i * step + c);
    }
}

/* The weighted sum over the channels of one page, or of the pages that hold one channel each. */
static err_kind_t read_mix(image_reader_t *r, image_rect_t q, float *plane, err_t *err) {
    const size_t n = (size_t)q.w * (size_t)q.h;
    const int per_page = colours_of(&r->info);
    double total = 0, *sum = calloc(n, sizeof *sum);
    if (!sum) {
        return image_err_memory(err);
    }
    err_kind_t k = ERR_OK;
    image_t part = {0};
    int held = -1; /* page of part */
    for (int c = 0; k == ERR_OK && c < r->sel.weights; c++) {
        double factor = (double)r->sel.weight[c];
        if (!isfinite(factor) || factor == 0) {
            continue;
        }
        int page = planes_c(r) > 1 ? plane_at(r, c / per_page, r->z, r->t) : r->page;
        image_info_t info = r->info;
        if (page < 0) {
            k = no_plane(err);
        } else if (page != held) {
            image_free(&part);
            k = go_to_page(r, page, &info, err);
            if (k == ERR_OK &&
                (info.width != r->info.width || info.height != r->info.height || colours_of(&info) != per_page)) {
                k = image_err_unsupported(err, "channels of different sizes", "planes differ");
            }
            if (k == ERR_OK) {
                k = read_part(r, q, &part, err);
            }
            held = page;
        }
        if (k == ERR_OK) {
            add_channel(&part, (size_t)(c % per_page), factor, sum);
            total += fabs(factor);
        }
    }
    for (size_t i = 0; k == ERR_OK && i < n; i++) {
        float v = total > 0 ? (float)(sum[i] / total) : 0;
        plane[i] = isfinite(v) ? v : 0;
    }
    image_free(&part);
    free(sum);
    return k;
}

err_kind_t image_reader_read_grey(image_reader_t *r, image_rect_t q, float *plane, err_t *err) {
    image_info_t info;
    err_kind_t k = go_to_page(r, r->page, &info, err);
    if (k != ERR_OK) {
        return k;
    }
    if (r->sel.weights > 0) {
        if (q.w < 1 || q.h < 1 || q.w > info.width || q.h > info.height) { /* before memory is taken for it */
            return err_set(err, ERR_INVALID, "image_region_outside", "The region lies outside the image.", NULL);
        }
        return read_mix(r, q, plane, err);
    }
    image_t part;
    k = read_part(r, q, &part, err);
    if (k == ERR_OK && r->sel.channel >= 0) {
        const size_t n = (size_t)q.w * (size_t)q.h, step = (size_t)part.info.channels;
        const size_t c = (size_t)(r->sel.channel % colours_of(&part.info));
        for (size_t i = 0; i < n; i++) {
            plane[i] = image_sample_at(&part, i * step + c);
        }
    } else if (k == ERR_OK) {
        float *grey = NULL;
        k = image_to_grey(&part, &grey, err);
        if (k == ERR_OK) {
            memcpy(plane, grey, (size_t)q.w * (size_t)q.h * sizeof *plane);
            free(grey);
        }
    }
    image_free(&part);
    return k;
}
