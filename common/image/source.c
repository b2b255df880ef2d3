/*
 * The byte source of the image readers (memory or file descriptor) and the checks and error texts they share.
 */
#include "image_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

size_t image_source_read_at(const image_source_t *s, uint64_t off, void *buf, size_t n) {
    if (off >= s->size) {
        return 0;
    }
    if (n > s->size - off) {
        n = (size_t)(s->size - off);
    }
    if (s->mem) {
        memcpy(buf, s->mem + off, n);
        return n;
    }
    size_t done = 0;
    while (done < n) {
        ssize_t got = pread(s->fd, (char *)buf + done, n - done, (off_t)(off + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            break;
        }
        done += (size_t)got;
    }
    return done;
}

size_t image_source_read(image_source_t *s, void *buf, size_t n) {
    size_t got = image_source_read_at(s, s->pos, buf, n);
    s->pos += got;
    return got;
}

size_t image_sample_bytes(image_sample_t s) {
    switch (s) {
    case SAMPLE_U8:
        return 1;
    case SAMPLE_U16:
        return 2;
    case SAMPLE_U32:
    case SAMPLE_F32:
        break;
    }
    return 4;
}

err_kind_t image_check_size(const image_info_t *info, const image_limits_t *lim, size_t *bytes, err_t *err) {
    if (info->width <= 0 || info->height <= 0 || info->channels <= 0) {
        return image_err_corrupt(err, "width, height or channel count is not positive");
    }
    int64_t pixels = (int64_t)info->width * info->height; /* both fit 31 bits */
    if (pixels > lim->max_pixels) {
        return err_setf(err, ERR_TOO_LARGE, "image_too_large",
                        "The image is %d x %d pixels; at most %lld million pixels are accepted. Crop or scale it down.",
                        info->width, info->height, (long long)(lim->max_pixels / 1000000));
    }
    int64_t per_pixel = (int64_t)info->channels * (int64_t)image_sample_bytes(info->sample);
    if (per_pixel > lim->max_decoded_bytes || pixels > lim->max_decoded_bytes / per_pixel ||
        (uint64_t)pixels > SIZE_MAX / 2 / (uint64_t)per_pixel) {
        return err_setf(
            err, ERR_TOO_LARGE, "image_too_large",
            "The image (%d x %d pixels, %d channels) needs more than the %lld MB of memory that are allowed.",
            info->width, info->height, info->channels, (long long)(lim->max_decoded_bytes >> 20));
    }
    *bytes = (size_t)(pixels * per_pixel);
    return ERR_OK;
}

err_kind_t image_allocate(image_t *img, const image_limits_t *lim, err_t *err) {
    size_t bytes = 0;
    err_kind_t k = image_check_size(&img->info, lim, &bytes, err);
    if (k != ERR_OK) {
        return k;
    }
    img->data = calloc(1, bytes ? bytes : 1); /* never 0 after the check; says so to static analysis */
    if (!img->data) {
        return image_err_memory(err);
    }
    img->bytes = bytes;
    return ERR_OK;
}

err_kind_t image_check_page(int page, int64_t pages, const image_limits_t *lim, err_t *err) {
    if (pages > lim->max_pages) {
        return err_setf(err, ERR_TOO_LARGE, "image_too_large",
                        "The file has more than %d pages or frames, the most that are accepted. Split it.",
                        (int)lim->max_pages);
    }
    if (page >= pages) {
        return err_setf(err, ERR_INVALID, "image_no_such_page", "The file has %lld page(s); page %d does not exist.",
                        (long long)pages, page + 1);
    }
    return ERR_OK;
}

double image_pixel_size_from_resolution(double pixels_per_metre) {
    const double coarsest_um = 20.0, finest_um = 1e-4;
    if (!(pixels_per_metre > 0)) {
        return 0;
    }
    double um = 1e6 / pixels_per_metre;
    return um >= finest_um && um <= coarsest_um ? um : 0;
}

err_kind_t image_err_truncated(err_t *err, const char *detail) {
    return err_set(err, ERR_INVALID, "image_truncated",
                   "The image file ends too early; a copy or an upload was probably cut off. Upload it again.", "%s",
                   detail);
}

err_kind_t image_err_corrupt(err_t *err, const char *detail) {
    return err_set(err, ERR_INVALID, "image_corrupt",
                   "The image file is damaged and cannot be read. Export it again from its original.", "%s", detail);
}

err_kind_t image_err_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "out_of_memory",
                   "There is not enough memory to open this image now. Try again later.", NULL);
}

err_kind_t image_err_unsupported(err_t *err, const char *what, const char *detail) {
    char message[256];
    snprintf(message, sizeof message, "The image uses %s, which cannot be read here. Save it as a plain TIFF or PNG.",
             what);
    return err_set(err, ERR_UNSUPPORTED, "image_unsupported", message, "%s", detail);
}
