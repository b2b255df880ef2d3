/*
 * Entry points of image decoding: recognises the format by its first bytes, opens the bytes (file or memory) and hands
 * them to the format's reader; then makes grey planes for the pipeline and 8-bit renditions for people.
 */
#include "image_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../vector.h"

typedef err_kind_t (*reader_fn)(const image_request_t *, image_t *, err_t *);

static const struct {
    image_format_t format;
    const char *name, *mime;
    reader_fn read;
} FORMATS[] = {
    {IMAGE_PNG, "png", "image/png", image_png_read},     {IMAGE_JPEG, "jpeg", "image/jpeg", image_jpeg_read},
    {IMAGE_TIFF, "tiff", "image/tiff", image_tiff_read}, {IMAGE_BMP, "bmp", "image/bmp", image_bmp_read},
    {IMAGE_GIF, "gif", "image/gif", image_gif_read},     {IMAGE_WEBP, "webp", "image/webp", image_webp_read},
};
enum { FORMAT_COUNT = sizeof FORMATS / sizeof FORMATS[0] };

static bool begins(const uint8_t *head, size_t n, const void *magic, size_t len) {
    return n >= len && memcmp(head, magic, len) == 0;
}

/* "BM" alone also begins texts; the size of the header that follows must be one that exists. */
static bool is_bmp(const uint8_t *head, size_t n) {
    static const uint8_t sizes[] = {12, 16, 40, 52, 56, 64, 108, 124};
    if (n < 16 || head[0] != 'B' || head[1] != 'M' || head[15] != 0) {
        return false;
    }
    return memchr(sizes, head[14], sizeof sizes) != NULL;
}

image_format_t image_sniff(const uint8_t *head, size_t n) {
    if (begins(head, n, "\x89PNG\r\n\x1a\n", 8)) {
        return IMAGE_PNG;
    }
    if (begins(head, n, "\xff\xd8\xff", 3)) {
        return IMAGE_JPEG;
    }
    if (begins(head, n, "II*\0", 4) || begins(head, n, "MM\0*", 4) || begins(head, n, "II+\0", 4) ||
        begins(head, n, "MM\0+", 4)) {
        return IMAGE_TIFF;
    }
    if (begins(head, n, "GIF87a", 6) || begins(head, n, "GIF89a", 6)) {
        return IMAGE_GIF;
    }
    if (n >= 12 && memcmp(head, "RIFF", 4) == 0 && memcmp(head + 8, "WEBP", 4) == 0) {
        return IMAGE_WEBP;
    }
    return is_bmp(head, n) ? IMAGE_BMP : IMAGE_UNKNOWN;
}

const char *image_format_name(image_format_t f) {
    for (int i = 0; i < FORMAT_COUNT; i++) {
        if (FORMATS[i].format == f) {
            return FORMATS[i].name;
        }
    }
    return "unknown";
}

const char *image_format_mime(image_format_t f) {
    for (int i = 0; i < FORMAT_COUNT; i++) {
        if (FORMATS[i].format == f) {
            return FORMATS[i].mime;
        }
    }
    return "application/octet-stream";
}

err_kind_t image_read_source(image_source_t *src, int page, const image_limits_t *lim, bool header_only, image_t *out,
                             err_t *err) {
    memset(out, 0, sizeof *out);
    src->pos = 0;
    if (src->size == 0) {
        return err_set(err, ERR_INVALID, "image_empty", "The file is empty (0 bytes). Export or upload it again.",
                       NULL);
    }
    if (page < 0) {
        return err_set(err, ERR_INVALID, "image_no_such_page", "Pages are counted from the first one on.", "page %d",
                       page);
    }
    uint8_t head[32];
    image_format_t format = image_sniff(head, image_source_read_at(src, 0, head, sizeof head));
    image_request_t req = {.src = src, .page = page, .lim = lim, .header_only = header_only};
    for (int i = 0; i < FORMAT_COUNT; i++) {
        if (FORMATS[i].format == format) {
            err_kind_t k = FORMATS[i].read(&req, out, err);
            if (k != ERR_OK) {
                image_free(out);
            }
            return k;
        }
    }
    return err_set(err, ERR_UNSUPPORTED, "image_unknown_format",
                   "This is not an image that can be read here. Use TIFF, PNG, JPEG, BMP, GIF or WebP.",
                   "first bytes %02x %02x %02x %02x", head[0], head[1], head[2], head[3]);
}

err_kind_t image_source_open(const char *path, image_source_t *src, err_t *err) {
    *src = (image_source_t){.fd = -1};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        int e = errno;
        if (e == ENOENT || e == ENOTDIR) {
            return err_set(err, ERR_NOT_FOUND, "image_missing", "The image file does not exist.", "%.300s", path);
        }
        return err_set(err, ERR_IO, "image_unreadable", "The image file cannot be opened.", "%.300s: errno %d", path,
                       e);
    }
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(err, ERR_INVALID, "image_unreadable", "This is not a file that can be read as an image.",
                       "%.300s", path);
    }
    src->fd = fd;
    src->size = (uint64_t)st.st_size;
    return ERR_OK;
}

void image_source_close(image_source_t *src) {
    if (src->fd >= 0) {
        close(src->fd);
        src->fd = -1;
    }
}

static err_kind_t read_path(const char *path, int page, const image_limits_t *lim, bool header_only, image_t *out,
                            err_t *err) {
    image_source_t src;
    memset(out, 0, sizeof *out);
    err_kind_t k = image_source_open(path, &src, err);
    if (k == ERR_OK) {
        k = image_read_source(&src, page, lim, header_only, out, err);
        image_source_close(&src);
    }
    return k;
}

err_kind_t image_probe(const char *path, const image_limits_t *lim, image_info_t *out, err_t *err) {
    image_t img;
    err_kind_t k = read_path(path, 0, lim, true, &img, err);
    *out = img.info;
    image_free(&img);
    return k;
}

err_kind_t image_decode(const char *path, int page, const image_limits_t *lim, image_t *out, err_t *err) {
    return read_path(path, page, lim, false, out, err);
}

err_kind_t image_decode_memory(const uint8_t *data, size_t n, int page, const image_limits_t *lim, image_t *out,
                               err_t *err) {
    static const uint8_t nothing[1];
    image_source_t src = {.mem = n ? data : nothing, .fd = -1, .size = n};
    return image_read_source(&src, page, lim, false, out, err);
}

void image_free(image_t *img) {
    if (img) {
        free(img->data);
        img->data = NULL;
        img->bytes = 0;
    }
}

/* One sample as float; NaN and infinities become 0. */
float image_sample_at(const image_t *img, size_t i) {
    switch (img->info.sample) {
    case SAMPLE_U8:
        return ((const uint8_t *)img->data)[i];
    case SAMPLE_U16:
        return ((const uint16_t *)img->data)[i];
    case SAMPLE_U32:
        return (float)((const uint32_t *)img->data)[i];
    case SAMPLE_F32:
        break;
    }
    float v = ((const float *)img->data)[i];
    return isfinite(v) ? v : 0.0f;
}

static int colour_channels(const image_info_t *info) {
    if (info->colours > 0 && info->colours <= info->channels) {
        return info->colours;
    }
    int n = info->channels - (info->has_alpha ? 1 : 0);
    return n > 0 ? n : 1;
}

/* One channel of whole numbers, which is what most microscopes write. False: it is not. */
VECTOR_LOOPS static bool copy_grey(const image_t *img, float *restrict p, size_t n) {
    if (img->info.channels != 1 || (img->info.sample != SAMPLE_U8 && img->info.sample != SAMPLE_U16)) {
        return false;
    }
    const uint8_t *bytes = (const uint8_t *)img->data;
    const uint16_t *words = (const uint16_t *)(const void *)img->data;
    if (img->info.sample == SAMPLE_U8) {
        for (size_t i = 0; i < n; i++) {
            p[i] = bytes[i];
        }
    } else {
        for (size_t i = 0; i < n; i++) {
            p[i] = words[i];
        }
    }
    return true;
}

err_kind_t image_to_grey(const image_t *img, float **plane, err_t *err) {
    *plane = NULL;
    size_t n = (size_t)img->info.width * (size_t)img->info.height, step = (size_t)img->info.channels;
    int colours = colour_channels(&img->info);
    if (n > SIZE_MAX / sizeof(float)) {
        return image_err_memory(err);
    }
    float *p = malloc(n * sizeof *p);
    if (!p) {
        return image_err_memory(err);
    }
    for (size_t i = copy_grey(img, p, n) ? n : 0; i < n; i++) {
        size_t at = i * step;
        if (colours == 1) {
            p[i] = image_sample_at(img, at);
        } else if (colours == 3) {
            p[i] = 0.299f * image_sample_at(img, at) + 0.587f * image_sample_at(img, at + 1) +
                   0.114f * image_sample_at(img, at + 2);
        } else {
            double sum = 0;
            for (int c = 0; c < colours; c++) {
                sum += image_sample_at(img, at + (size_t)c);
            }
            p[i] = (float)(sum / colours);
        }
        if (!isfinite(p[i])) { /* sums of huge floats */
            p[i] = 0;
        }
    }
    *plane = p;
    return ERR_OK;
}

static int compare_floats(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The 0.1 and 99.9 percentiles over the colour samples, from at most a quarter of a million evenly spaced pixels:
 * a rendition for the eye needs no more. */
static err_kind_t display_range(const image_t *img, int colours, float *lo, float *hi, err_t *err) {
    size_t n = (size_t)img->info.width * (size_t)img->info.height, step = n / 262144 + 1, count = 0;
    float *v = malloc((n / step + 1) * (size_t)colours * sizeof *v);
    if (!v) {
        return image_err_memory(err);
    }
    for (size_t i = 0; i < n; i += step) {
        for (int c = 0; c < colours; c++) {
            v[count++] = image_sample_at(img, i * (size_t)img->info.channels + (size_t)c);
        }
    }
    qsort(v, count, sizeof *v, compare_floats);
    *lo = v[(size_t)((double)(count - 1) * 0.001 + 0.5)];
    *hi = v[(size_t)((double)(count - 1) * 0.999 + 0.5)];
    free(v);
    return ERR_OK;
}

/* Share of the pixel that is opaque, 0..1. Float alpha is taken as 0..1 already. */
static float alpha_at(const image_t *img, size_t pixel) {
    float a = image_sample_at(img, pixel * (size_t)img->info.channels + (size_t)img->info.channels - 1);
    switch (img->info.sample) {
    case SAMPLE_U8:
        a /= 255.0f;
        break;
    case SAMPLE_U16:
        a /= 65535.0f;
        break;
    case SAMPLE_U32:
        a /= 4294967295.0f;
        break;
    case SAMPLE_F32:
        break;
    }
    return a < 0 ? 0 : a > 1 ? 1 : a;
}

err_kind_t image_to_display(const image_t *img, uint8_t **pixels, int *out_channels, err_t *err) {
    *pixels = NULL;
    int colours = colour_channels(&img->info), shown = colours >= 3 ? 3 : 1;
    size_t n = (size_t)img->info.width * (size_t)img->info.height;
    float lo = 0, hi = 255;
    if (img->info.sample != SAMPLE_U8) {
        err_kind_t k = display_range(img, colours < 3 ? colours : 3, &lo, &hi, err);
        if (k != ERR_OK) {
            return k;
        }
    }
    uint8_t *px = malloc(n * (size_t)shown);
    if (!px) {
        return image_err_memory(err);
    }
    /* in double: the range of floats as large as they get overflows a float */
    double gain = hi > lo ? 255.0 / ((double)hi - lo) : 0.0;
    for (size_t i = 0; i < n; i++) {
        float alpha = img->info.has_alpha ? alpha_at(img, i) : 1.0f;
        for (int c = 0; c < shown; c++) {
            double v = ((double)image_sample_at(img, i * (size_t)img->info.channels + (size_t)c) - lo) * gain;
            v = (v < 0 ? 0 : v > 255 ? 255 : v) * (double)alpha;
            px[i * (size_t)shown + (size_t)c] = (uint8_t)lround(v);
        }
    }
    *pixels = px;
    *out_channels = shown;
    return ERR_OK;
}
