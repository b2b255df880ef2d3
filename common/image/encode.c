/*
 * Encoders: JPEG and PNG for thumbnails and tiles, 16-bit PNG and 32-bit TIFF for label images. No time stamps or other
 * metadata are written, so equal pixels give equal files.
 */
#include "image_internal.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>
#include <tiffio.h>

static err_kind_t encode_failed(err_t *err, const char *detail) {
    return err_set(err, ERR_INTERNAL, "image_encode_failed", "The picture could not be written.", "%s", detail);
}

static err_kind_t write_failed(err_t *err, const char *path) {
    return err_set(err, ERR_IO, "image_write_failed",
                   "The image file cannot be written. Check the folder and the disk.", "%.300s", path);
}

static err_kind_t check_picture(int w, int h, int channels, err_t *err) {
    if (w < 1 || h < 1 || (channels != 1 && channels != 3)) {
        return encode_failed(err, "size or channel count out of range");
    }
    return ERR_OK;
}

/* ---- JPEG ---- */

typedef struct {
    struct jpeg_compress_struct enc;
    struct jpeg_error_mgr errors;
    jmp_buf jump;
    char words[JMSG_LENGTH_MAX];
    unsigned char *bytes;
    unsigned long size;
    const uint8_t *px;
    int w, h, channels, quality;
} jpeg_enc_t;

static void jpeg_enc_fatal(j_common_ptr cinfo) {
    jpeg_enc_t *c = cinfo->client_data;
    cinfo->err->format_message(cinfo, c->words);
    longjmp(c->jump, 1); /* NOLINT(cert-err52-cpp): the library asks for it */
}

static void jpeg_enc_quiet(j_common_ptr cinfo) {
    (void)cinfo;
}

static void jpeg_enc_run(jpeg_enc_t *c) {
    jpeg_create_compress(&c->enc);
    c->enc.client_data = c;
    jpeg_mem_dest(&c->enc, &c->bytes, &c->size);
    c->enc.image_width = (JDIMENSION)c->w;
    c->enc.image_height = (JDIMENSION)c->h;
    c->enc.input_components = c->channels;
    c->enc.in_color_space = c->channels == 3 ? JCS_RGB : JCS_GRAYSCALE;
    jpeg_set_defaults(&c->enc);
    jpeg_set_quality(&c->enc, c->quality, TRUE);
    c->enc.optimize_coding = TRUE;
    jpeg_start_compress(&c->enc, TRUE);
    while (c->enc.next_scanline < c->enc.image_height) {
        JSAMPROW row = (JSAMPROW)(c->px + (size_t)c->enc.next_scanline * (size_t)c->w * (size_t)c->channels);
        jpeg_write_scanlines(&c->enc, &row, 1);
    }
    jpeg_finish_compress(&c->enc);
}

static bool jpeg_enc_guarded(jpeg_enc_t *c) {
    if (setjmp(c->jump)) {
        return false;
    }
    jpeg_enc_run(c);
    return true;
}

err_kind_t image_encode_jpeg(const uint8_t *px, int w, int h, int channels, int quality, uint8_t **out, size_t *n,
                             err_t *err) {
    *out = NULL;
    *n = 0;
    err_kind_t k = check_picture(w, h, channels, err);
    if (k != ERR_OK) {
        return k;
    }
    jpeg_enc_t *c = calloc(1, sizeof *c);
    if (!c) {
        return image_err_memory(err);
    }
    c->px = px;
    c->w = w;
    c->h = h;
    c->channels = channels;
    c->quality = quality;
    c->enc.err = jpeg_std_error(&c->errors);
    c->errors.error_exit = jpeg_enc_fatal;
    c->errors.output_message = jpeg_enc_quiet;
    c->enc.client_data = c;
    bool ok = jpeg_enc_guarded(c);
    jpeg_destroy_compress(&c->enc);
    if (ok) {
        *out = c->bytes;
        *n = c->size;
    } else {
        k = encode_failed(err, c->words);
        free(c->bytes);
    }
    free(c);
    return k;
}

/* ---- PNG ---- */

typedef struct {
    png_structp png;
    png_infop info;
    jmp_buf jump;
    char words[160];
    uint8_t *bytes; /* grown by png_enc_bytes; NULL when file is used */
    size_t size, room;
    FILE *file;
    const uint8_t *px;
    size_t stride;
    int w, h, type, depth;
} png_enc_t;

static void png_enc_error(png_structp png, png_const_charp msg) {
    png_enc_t *c = png_get_error_ptr(png);
    snprintf(c->words, sizeof c->words, "libpng: %s", msg);
    longjmp(c->jump, 1); /* NOLINT(cert-err52-cpp): the library asks for it */
}

static void png_enc_warning(png_structp png, png_const_charp msg) {
    (void)png, (void)msg;
}

static void png_enc_bytes(png_structp png, png_bytep p, png_size_t n) {
    png_enc_t *c = png_get_io_ptr(png);
    if (c->file) {
        if (fwrite(p, 1, n, c->file) != n) {
            png_error(png, "write failed");
        }
        return;
    }
    if (n > c->room - c->size) {
        size_t room = (c->size + n) * 2 + 4096;
        uint8_t *more = realloc(c->bytes, room);
        if (!more) {
            png_error(png, "out of memory");
        }
        c->bytes = more;
        c->room = room;
    }
    memcpy(c->bytes + c->size, p, n);
    c->size += n;
}

static void png_enc_flush(png_structp png) {
    (void)png;
}

static bool png_enc_run(png_enc_t *c) {
    c->png = png_create_write_struct(PNG_LIBPNG_VER_STRING, c, png_enc_error, png_enc_warning);
    c->info = c->png ? png_create_info_struct(c->png) : NULL;
    if (!c->info) {
        snprintf(c->words, sizeof c->words, "out of memory");
        return false;
    }
    if (setjmp(c->jump)) {
        return false;
    }
    png_set_write_fn(c->png, c, png_enc_bytes, png_enc_flush);
    png_set_user_limits(c->png, 0x7fffffff, 0x7fffffff);
    png_set_IHDR(c->png, c->info, (png_uint_32)c->w, (png_uint_32)c->h, c->depth, c->type, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(c->png, c->info);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (c->depth == 16) {
        png_set_swap(c->png);
    }
#endif
    for (int y = 0; y < c->h; y++) {
        png_write_row(c->png, c->px + (size_t)y * c->stride);
    }
    png_write_end(c->png, NULL);
    return true;
}

err_kind_t image_encode_png(const uint8_t *px, int w, int h, int channels, uint8_t **out, size_t *n, err_t *err) {
    *out = NULL;
    *n = 0;
    err_kind_t k = check_picture(w, h, channels, err);
    if (k != ERR_OK) {
        return k;
    }
    png_enc_t c = {.px = px, .stride = (size_t)w * (size_t)channels, .w = w, .h = h, .depth = 8};
    c.type = channels == 3 ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_GRAY;
    bool ok = png_enc_run(&c);
    png_destroy_write_struct(&c.png, &c.info);
    if (!ok) {
        free(c.bytes);
        return encode_failed(err, c.words);
    }
    *out = c.bytes;
    *n = c.size;
    return ERR_OK;
}

err_kind_t image_write_png16(const char *path, const uint16_t *px, int w, int h, err_t *err) {
    err_kind_t k = check_picture(w, h, 1, err);
    if (k != ERR_OK) {
        return k;
    }
    png_enc_t c = {.px = (const uint8_t *)px, .stride = (size_t)w * 2, .w = w, .h = h, .depth = 16};
    c.type = PNG_COLOR_TYPE_GRAY;
    c.file = fopen(path, "wbe");
    if (!c.file) {
        return write_failed(err, path);
    }
    bool ok = png_enc_run(&c);
    png_destroy_write_struct(&c.png, &c.info);
    ok = fclose(c.file) == 0 && ok;
    return ok ? ERR_OK : write_failed(err, path);
}

/* ---- TIFF ---- */

static int tiff_enc_quiet(TIFF *tif, void *arg, const char *module, const char *fmt, va_list ap) {
    (void)tif, (void)arg, (void)module, (void)fmt, (void)ap;
    return 1;
}

static bool tiff_enc_rows(TIFF *tif, const uint32_t *px, int w, int h) {
    const uint32_t rows_per_strip = 64;
    TIFFSetField(tif, TIFFTAG_IMAGEWIDTH, (uint32_t)w);
    TIFFSetField(tif, TIFFTAG_IMAGELENGTH, (uint32_t)h);
    TIFFSetField(tif, TIFFTAG_BITSPERSAMPLE, 32);
    TIFFSetField(tif, TIFFTAG_SAMPLESPERPIXEL, 1);
    TIFFSetField(tif, TIFFTAG_SAMPLEFORMAT, SAMPLEFORMAT_UINT);
    TIFFSetField(tif, TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_MINISBLACK);
    TIFFSetField(tif, TIFFTAG_PLANARCONFIG, PLANARCONFIG_CONTIG);
    TIFFSetField(tif, TIFFTAG_COMPRESSION, COMPRESSION_ADOBE_DEFLATE);
    TIFFSetField(tif, TIFFTAG_ROWSPERSTRIP, rows_per_strip);
    uint32_t *line = malloc((size_t)w * sizeof *line); /* libtiff may change the bytes it is given */
    bool ok = line != NULL;
    for (int y = 0; ok && y < h; y++) {
        memcpy(line, px + (size_t)y * (size_t)w, (size_t)w * sizeof *line);
        ok = TIFFWriteScanline(tif, line, (uint32_t)y, 0) == 1;
    }
    free(line);
    return ok && TIFFFlush(tif) == 1;
}

err_kind_t image_write_tiff_u32(const char *path, const uint32_t *px, int w, int h, err_t *err) {
    err_kind_t k = check_picture(w, h, 1, err);
    if (k != ERR_OK) {
        return k;
    }
    TIFFOpenOptions *opts = TIFFOpenOptionsAlloc();
    if (!opts) {
        return image_err_memory(err);
    }
    TIFFOpenOptionsSetErrorHandlerExtR(opts, tiff_enc_quiet, NULL);
    TIFFOpenOptionsSetWarningHandlerExtR(opts, tiff_enc_quiet, NULL);
    TIFF *tif = TIFFOpenExt(path, (uint64_t)w * (uint64_t)h * 4 > 3000000000u ? "w8" : "w", opts);
    TIFFOpenOptionsFree(opts);
    if (!tif) {
        return write_failed(err, path);
    }
    bool ok = tiff_enc_rows(tif, px, w, h);
    TIFFClose(tif);
    return ok ? ERR_OK : write_failed(err, path);
}
