/* See input.h. Rows are read in bands of bounded size, so that a level costs its own size and a little. */
#include "segworker/pipeline/input.h"

#include <stdlib.h>
#include <string.h>

enum { BAND_PIXELS = 1 << 22 };

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "out_of_memory",
                   "There is not enough memory to process this image now. Try again later.", "input");
}

void input_close(input_t *in) {
    image_close(in->reader);
    free(in->planes);
    if (in->grey != in->planes) {
        free(in->grey);
    }
    *in = (input_t){0};
}

err_kind_t input_open(const char *path, const image_select_t *plane, const image_limits_t *limits, int channels,
                      input_t *out, err_t *err) {
    *out = (input_t){.channels = channels, .reduce = 1, .chosen = plane->channel >= 0 || plane->weights > 0};
    err_kind_t k = image_open(path, limits, &out->reader, err);
    if (k == ERR_OK) {
        k = image_reader_select(out->reader, plane, err);
    }
    if (k != ERR_OK) {
        input_close(out);
        return k;
    }
    out->info = *image_reader_info(out->reader);
    out->layout = image_reader_layout(out->reader);
    out->width = out->info.width;
    out->height = out->info.height;
    return ERR_OK;
}

/* ---- colour ---- */

static size_t sample_bytes(image_sample_t s) {
    return s == SAMPLE_U8 ? 1 : s == SAMPLE_U16 ? 2 : 4;
}

static float sample_at(const void *samples, image_sample_t type, size_t i) {
    switch (type) {
    case SAMPLE_U8:
        return ((const uint8_t *)samples)[i];
    case SAMPLE_U16:
        return ((const uint16_t *)samples)[i];
    case SAMPLE_U32:
        return (float)((const uint32_t *)samples)[i];
    default: {
        float v = ((const float *)samples)[i];
        return v - v == 0 ? v : 0; /* NaN and infinities become 0 */
    }
    }
}

static err_kind_t read_colour(input_t *in, image_rect_t rect, float *planes, err_t *err) {
    size_t n = (size_t)rect.w * (size_t)rect.h, per = (size_t)in->info.channels;
    size_t bytes = n * per * sample_bytes(in->info.sample);
    void *samples = malloc(bytes);
    if (!samples) {
        return no_memory(err);
    }
    err_kind_t k = image_reader_read(in->reader, rect, samples, bytes, err);
    for (size_t i = 0; k == ERR_OK && i < n; i++) {
        for (size_t c = 0; c < INPUT_MAX_CHANNELS; c++) {
            planes[c * n + i] = sample_at(samples, in->info.sample, i * per + c);
        }
    }
    free(samples);
    return k;
}

static int colours_of(const image_info_t *info) {
    return info->channels - (info->has_alpha ? 1 : 0);
}

static err_kind_t read_page(input_t *in, image_rect_t rect, float *planes, err_t *err) {
    size_t n = (size_t)rect.w * (size_t)rect.h;
    if (in->channels == INPUT_MAX_CHANNELS && !in->chosen && colours_of(&in->info) >= INPUT_MAX_CHANNELS) {
        return read_colour(in, rect, planes, err);
    }
    err_kind_t k = image_reader_read_grey(in->reader, rect, planes, err);
    for (int c = 1; k == ERR_OK && c < in->channels; c++) {
        memcpy(planes + (size_t)c * n, planes, n * sizeof *planes);
    }
    return k;
}

/* ---- levels ---- */

/* Adds rows of a plane to a reduced row, and divides by what was added. */
static void reduce_rows(const float *src, int w, int rows, int factor, float *dst) {
    int out = (w + factor - 1) / factor;
    for (int x = 0; x < out; x++) {
        int x0 = x * factor, x1 = x0 + factor < w ? x0 + factor : w;
        double sum = 0;
        for (int y = 0; y < rows; y++) {
            for (int i = x0; i < x1; i++) {
                sum += src[(size_t)y * (size_t)w + (size_t)i];
            }
        }
        dst[x] = (float)(sum / ((double)(x1 - x0) * rows));
    }
}

typedef err_kind_t (*read_fn)(input_t *in, image_rect_t rect, float *planes, err_t *err);

/* Rows of the rectangle in bands that are a multiple of factor high, reduced into dst (channels planes). */
static err_kind_t read_reduced(input_t *in, read_fn read, int channels, image_rect_t rect, int factor,
                               const cancel_t *cancel, float *dst, err_t *err) {
    int ow = (rect.w + factor - 1) / factor, oh = (rect.h + factor - 1) / factor;
    int band = BAND_PIXELS / rect.w / factor * factor;
    band = band < factor ? factor : band;
    float *rows = malloc((size_t)channels * (size_t)band * (size_t)rect.w * sizeof *rows);
    err_kind_t k = rows ? ERR_OK : no_memory(err);
    for (int y = 0; k == ERR_OK && y < rect.h; y += band) {
        int h = y + band < rect.h ? band : rect.h - y;
        if (cancel_asked(cancel)) {
            k = err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", NULL);
            break;
        }
        k = read(in, (image_rect_t){rect.x, rect.y + y, rect.w, h}, rows, err);
        for (int c = 0; k == ERR_OK && c < channels; c++) {
            const float *plane = rows + (size_t)c * (size_t)h * (size_t)rect.w;
            float *to = dst + (size_t)c * (size_t)ow * (size_t)oh;
            for (int i = 0; i < h; i += factor) {
                reduce_rows(plane + (size_t)i * (size_t)rect.w, rect.w, i + factor < h ? factor : h - i, factor,
                            to + (size_t)((y + i) / factor) * (size_t)ow);
            }
        }
    }
    free(rows);
    return k;
}

static err_kind_t read_page_grey(input_t *in, image_rect_t rect, float *plane, err_t *err) {
    return image_reader_read_grey(in->reader, rect, plane, err);
}

static err_kind_t load_planes(input_t *in, read_fn read, int channels, int reduce, const cancel_t *cancel, float **out,
                              err_t *err) {
    image_rect_t all = {0, 0, in->info.width, in->info.height};
    size_t n = (size_t)((all.w + reduce - 1) / reduce) * (size_t)((all.h + reduce - 1) / reduce);
    *out = malloc((size_t)channels * n * sizeof **out);
    if (!*out) {
        return no_memory(err);
    }
    return reduce == 1 ? read(in, all, *out, err) : read_reduced(in, read, channels, all, reduce, cancel, *out, err);
}

err_kind_t input_load(input_t *in, int reduce, const cancel_t *cancel, err_t *err) {
    err_kind_t k = load_planes(in, read_page, in->channels, reduce, cancel, &in->planes, err);
    if (k == ERR_OK && in->channels > 1) {
        k = load_planes(in, read_page_grey, 1, reduce, cancel, &in->grey, err);
    } else {
        in->grey = in->planes;
    }
    in->reduce = reduce;
    in->width = (in->info.width + reduce - 1) / reduce;
    in->height = (in->info.height + reduce - 1) / reduce;
    return k;
}

/* ---- rectangles ---- */

static void copy_rect(const float *plane, int width, image_rect_t rect, float *out) {
    for (int y = 0; y < rect.h; y++) {
        memcpy(out + (size_t)y * (size_t)rect.w, plane + (size_t)(rect.y + y) * (size_t)width + (size_t)rect.x,
               (size_t)rect.w * sizeof *out);
    }
}

err_kind_t input_read(input_t *in, image_rect_t rect, float *planes, err_t *err) {
    if (!in->planes) {
        return read_page(in, rect, planes, err);
    }
    for (int c = 0; c < in->channels; c++) {
        copy_rect(in->planes + (size_t)c * (size_t)in->width * (size_t)in->height, in->width, rect,
                  planes + (size_t)c * (size_t)rect.w * (size_t)rect.h);
    }
    return ERR_OK;
}

err_kind_t input_read_grey(input_t *in, image_rect_t rect, float *plane, err_t *err) {
    if (!in->planes) {
        return image_reader_read_grey(in->reader, rect, plane, err);
    }
    copy_rect(in->grey, in->width, rect, plane);
    return ERR_OK;
}

err_kind_t input_read_grey_reduced(input_t *in, image_rect_t rect, int factor, float *plane, err_t *err) {
    return factor == 1 ? input_read_grey(in, rect, plane, err)
                       : read_reduced(in, input_read_grey, 1, rect, factor, NULL, plane, err);
}
