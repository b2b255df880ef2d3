/*
 * PNG through libpng. libpng reports errors by a callback that must not return: ours stores the words and jumps back to
 * png_guarded, and everything that must survive the jump lives in png_ctx_t, outside the jumping frames.
 */
#include "image_internal.h"

#include "../log.h"

#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    image_source_t *src;
    png_structp png;
    png_infop info;
    jmp_buf jump;
    bool short_read;
    size_t most; /* bytes that libpng may take at once */
    char words[160];
    uint8_t *pixels; /* of the image, while rows are read */
    size_t stride;
    int passes, height;
} png_ctx_t;

/* libpng only warns of a chunk beyond its limit, and then takes as much memory as the chunk claims to be long. */
enum { CHUNK_BYTES = 8 << 20, HEADER_BYTES = 2 * CHUNK_BYTES };

static png_voidp png_take(png_structp png, png_alloc_size_t n) {
    const png_ctx_t *c = png_get_mem_ptr(png);
    return n <= c->most ? malloc(n) : NULL;
}

static void png_give_back(png_structp png, png_voidp p) {
    (void)png;
    free(p);
}

static void png_on_error(png_structp png, png_const_charp msg) {
    png_ctx_t *c = png_get_error_ptr(png);
    snprintf(c->words, sizeof c->words, "libpng: %s", msg);
    longjmp(c->jump, 1); /* NOLINT(cert-err52-cpp): the library asks for it */
}

static void png_on_warning(png_structp png, png_const_charp msg) {
    (void)png;
    log_msgf(LOG_DEBUG, "libpng: %s", msg);
}

static void png_on_read(png_structp png, png_bytep buf, png_size_t n) {
    png_ctx_t *c = png_get_io_ptr(png);
    if (image_source_read(c->src, buf, n) != n) {
        c->short_read = true;
        png_error(png, "end of file");
    }
}

/* Runs fn; false when libpng reported an error in it. */
static bool png_guarded(png_ctx_t *c, void (*fn)(png_ctx_t *)) {
    if (setjmp(c->jump)) {
        return false;
    }
    fn(c);
    return true;
}

static void png_step_header(png_ctx_t *c) {
    png_set_user_limits(c->png, 0x7fffffff, 0x7fffffff); /* image_check_size is the limit */
    png_set_chunk_malloc_max(c->png, CHUNK_BYTES);
    png_set_chunk_cache_max(c->png, 64);
    png_set_read_fn(c->png, c, png_on_read);
    png_read_info(c->png, c->info);
}

static void png_step_transform(png_ctx_t *c) {
    int type = png_get_color_type(c->png, c->info), depth = png_get_bit_depth(c->png, c->info);
    if (type == PNG_COLOR_TYPE_PALETTE) {
        png_set_palette_to_rgb(c->png);
    }
    if (type == PNG_COLOR_TYPE_GRAY && depth < 8) {
        png_set_expand_gray_1_2_4_to_8(c->png);
    }
    if (png_get_valid(c->png, c->info, PNG_INFO_tRNS)) {
        png_set_tRNS_to_alpha(c->png);
    }
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (depth == 16) {
        png_set_swap(c->png);
    }
#endif
    c->passes = png_set_interlace_handling(c->png);
    png_read_update_info(c->png, c->info);
}

static void png_step_rows(png_ctx_t *c) {
    for (int pass = 0; pass < c->passes; pass++) {
        for (int y = 0; y < c->height; y++) {
            png_read_row(c->png, c->pixels + (size_t)y * c->stride, NULL);
        }
    }
}

static err_kind_t png_fail(const png_ctx_t *c, err_t *err) {
    return c->short_read ? image_err_truncated(err, c->words) : image_err_corrupt(err, c->words);
}

static void png_fill_info(png_ctx_t *c, image_info_t *info) {
    info->format = IMAGE_PNG;
    info->width = (int32_t)png_get_image_width(c->png, c->info);
    info->height = (int32_t)png_get_image_height(c->png, c->info);
    info->channels = png_get_channels(c->png, c->info);
    info->sample = png_get_bit_depth(c->png, c->info) == 16 ? SAMPLE_U16 : SAMPLE_U8;
    info->has_alpha = (png_get_color_type(c->png, c->info) & PNG_COLOR_MASK_ALPHA) != 0;
    info->pages = 1;
    info->pixel_size_um = image_pixel_size_from_resolution(png_get_x_pixels_per_meter(c->png, c->info));
}

static int png_orientation(png_ctx_t *c) {
    png_bytep exif = NULL;
    png_uint_32 n = 0;
    if (!png_get_eXIf_1(c->png, c->info, &n, &exif) || !exif) {
        return 1;
    }
    return image_exif_orientation(exif, n);
}

/* Deflate shrinks at most 1032-fold: a file too small for its own header is known before memory is taken. */
static bool png_is_plausible(const png_ctx_t *c, size_t bytes, int file_depth) {
    size_t least = bytes / (file_depth < 8 ? 32 : 4) / 1032;
    return least <= c->src->size;
}

static err_kind_t png_read_pixels(png_ctx_t *c, const image_request_t *req, image_t *out, err_t *err) {
    size_t bytes = 0;
    err_kind_t k = image_check_size(&out->info, req->lim, &bytes, err);
    if (k != ERR_OK) {
        return k;
    }
    if (!png_is_plausible(c, bytes, out->info.bit_depth)) {
        return image_err_truncated(err, "file is too small for the size in its header");
    }
    k = image_allocate(out, req->lim, err);
    if (k != ERR_OK) {
        return k;
    }
    c->pixels = out->data;
    c->stride = out->bytes / (size_t)out->info.height;
    c->height = out->info.height;
    if (!png_guarded(c, png_step_rows)) {
        return png_fail(c, err);
    }
    return image_orient(out, png_orientation(c), err);
}

err_kind_t image_png_read(const image_request_t *req, image_t *out, err_t *err) {
    png_ctx_t c = {.src = req->src, .most = HEADER_BYTES};
    err_kind_t k = ERR_OK;
    c.png =
        png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &c, png_on_error, png_on_warning, &c, png_take, png_give_back);
    c.info = c.png ? png_create_info_struct(c.png) : NULL;
    if (!c.info) {
        k = image_err_memory(err);
        goto out;
    }
    if (!png_guarded(&c, png_step_header)) {
        k = png_fail(&c, err);
        goto out;
    }
    out->info.bit_depth = png_get_bit_depth(c.png, c.info);
    /* The size is checked before libpng allocates its row buffers in png_read_update_info. */
    png_fill_info(&c, &out->info);
    size_t bytes = 0;
    k = image_check_size(&out->info, req->lim, &bytes, err);
    if (k != ERR_OK) {
        goto out;
    }
    c.most = SIZE_MAX; /* rows, of a size that was checked */
    if (!png_guarded(&c, png_step_transform)) {
        k = png_fail(&c, err);
        goto out;
    }
    png_fill_info(&c, &out->info);
    k = image_check_page(req->page, 1, req->lim, err);
    if (k == ERR_OK) {
        k = image_check_size(&out->info, req->lim, &bytes, err);
    }
    if (k != ERR_OK) {
        goto out;
    }
    if (req->header_only) {
        image_orient_info(&out->info, png_orientation(&c));
    } else {
        k = png_read_pixels(&c, req, out, err);
    }
out:
    if (c.png) {
        png_destroy_read_struct(&c.png, c.info ? &c.info : NULL, NULL);
    }
    return k;
}
