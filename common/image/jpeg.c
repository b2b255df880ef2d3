/*
 * JPEG through libjpeg(-turbo). Errors jump back to jpeg_guarded; all state lives in jpeg_ctx_t, outside the jumping
 * frames. A file that ends early or holds broken entropy data is an error here, although the library would only warn
 * and paint the rest grey: a measurement on invented pixels is worse than none.
 */
#include "image_internal.h"

#include "../log.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
/* after jpeglib.h, which it needs */
#include <jerror.h>

enum { JPEG_CHUNK = 1 << 16, JPEG_MAX_SCANS = 200, JPEG_EXIF_MAX = 4096 };

typedef struct {
    struct jpeg_decompress_struct dec;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    image_source_t *src;
    jmp_buf jump;
    bool at_end, damaged, too_many_scans;
    int code; /* libjpeg's message number of the fatal error */
    char words[JMSG_LENGTH_MAX + 16];
    uint8_t chunk[JPEG_CHUNK];
    uint8_t exif[JPEG_EXIF_MAX];
    size_t exif_len;
    uint8_t *pixels, *line; /* line: one CMYK row, owned */
    size_t stride;
} jpeg_ctx_t;

static jpeg_ctx_t *ctx_of(j_common_ptr cinfo) {
    return cinfo->client_data;
}

static void on_fatal(j_common_ptr cinfo) {
    jpeg_ctx_t *c = ctx_of(cinfo);
    char text[JMSG_LENGTH_MAX];
    cinfo->err->format_message(cinfo, text);
    c->code = cinfo->err->msg_code;
    snprintf(c->words, sizeof c->words, "libjpeg: %s", text);
    longjmp(c->jump, 1); /* NOLINT(cert-err52-cpp): the library asks for it */
}

static void on_message(j_common_ptr cinfo, int level) {
    jpeg_ctx_t *c = ctx_of(cinfo);
    if (level >= 0) {
        return;
    }
    int code = cinfo->err->msg_code;
    bool fatal = code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE || code == JWRN_MUST_RESYNC ||
                 code == JWRN_ARITH_BAD_CODE || code == JWRN_BOGUS_PROGRESSION;
    if (fatal && !c->damaged) {
        char text[JMSG_LENGTH_MAX];
        cinfo->err->format_message(cinfo, text);
        snprintf(c->words, sizeof c->words, "libjpeg: %s", text);
        c->damaged = true;
        log_msgf(LOG_DEBUG, "%s", c->words);
    }
}

static void on_output(j_common_ptr cinfo) {
    (void)cinfo;
}

/* A progressive file may hold any number of scans, each of which costs a pass over the whole image. */
static void on_progress(j_common_ptr cinfo) {
    jpeg_ctx_t *c = ctx_of(cinfo);
    if (c->dec.input_scan_number > JPEG_MAX_SCANS) {
        c->too_many_scans = true;
        cinfo->err->msg_code = JERR_BAD_PROGRESSION;
        on_fatal(cinfo);
    }
}

static void source_init(j_decompress_ptr dec) {
    (void)dec;
}

static boolean source_fill(j_decompress_ptr dec) {
    jpeg_ctx_t *c = dec->client_data;
    size_t got = image_source_read(c->src, c->chunk, sizeof c->chunk);
    if (got == 0) { /* an end marker stops the decoder; whether pixels are missing shows in its warnings */
        c->at_end = true;
        c->chunk[0] = 0xff;
        c->chunk[1] = JPEG_EOI;
        got = 2;
    }
    c->source.next_input_byte = c->chunk;
    c->source.bytes_in_buffer = got;
    return TRUE;
}

static void source_skip(j_decompress_ptr dec, long n) {
    jpeg_ctx_t *c = dec->client_data;
    while (n > 0 && !c->at_end) {
        if ((size_t)n <= c->source.bytes_in_buffer) {
            c->source.next_input_byte += n;
            c->source.bytes_in_buffer -= (size_t)n;
            return;
        }
        n -= (long)c->source.bytes_in_buffer;
        source_fill(dec);
    }
}

static void source_end(j_decompress_ptr dec) {
    (void)dec;
}

static int next_byte(jpeg_ctx_t *c) {
    if (c->source.bytes_in_buffer == 0) {
        source_fill(&c->dec);
    }
    c->source.bytes_in_buffer--;
    return *c->source.next_input_byte++;
}

/* APP1: keeps the first bytes of the first EXIF block and skips everything else, so that a file made of markers
 * costs no memory. */
static boolean on_app1(j_decompress_ptr dec) {
    jpeg_ctx_t *c = dec->client_data;
    long left = (long)next_byte(c) << 8;
    left = left + next_byte(c) - 2;
    bool wanted = c->exif_len == 0;
    while (left > 0 && wanted && c->exif_len < sizeof c->exif && !c->at_end) {
        c->exif[c->exif_len++] = (uint8_t)next_byte(c);
        left--;
    }
    if (wanted && (c->exif_len < 6 || memcmp(c->exif, "Exif\0\0", 6) != 0)) {
        c->exif_len = 0;
    }
    if (left > 0) {
        source_skip(dec, left);
    }
    return TRUE;
}

static bool jpeg_guarded(jpeg_ctx_t *c, void (*fn)(jpeg_ctx_t *)) {
    if (setjmp(c->jump)) {
        return false;
    }
    fn(c);
    return true;
}

static void jpeg_step_header(jpeg_ctx_t *c) {
    jpeg_create_decompress(&c->dec);
    c->dec.client_data = c;
    c->source.init_source = source_init;
    c->source.fill_input_buffer = source_fill;
    c->source.skip_input_data = source_skip;
    c->source.resync_to_restart = jpeg_resync_to_restart;
    c->source.term_source = source_end;
    c->dec.src = &c->source;
    c->progress.progress_monitor = on_progress;
    c->dec.progress = &c->progress;
    jpeg_set_marker_processor(&c->dec, JPEG_APP0 + 1, on_app1);
    jpeg_read_header(&c->dec, TRUE);
    switch (c->dec.jpeg_color_space) {
    case JCS_GRAYSCALE:
        c->dec.out_color_space = JCS_GRAYSCALE;
        break;
    case JCS_CMYK:
    case JCS_YCCK:
        c->dec.out_color_space = JCS_CMYK;
        break;
    default:
        c->dec.out_color_space = JCS_RGB;
        break;
    }
}

/* CMYK to RGB; Adobe's files store inverted ink amounts. */
static void ink_to_rgb(const jpeg_ctx_t *c, uint8_t *dst) {
    bool inverted = c->dec.saw_Adobe_marker;
    for (JDIMENSION x = 0; x < c->dec.output_width; x++) {
        const uint8_t *p = c->line + (size_t)x * 4;
        unsigned k = inverted ? p[3] : 255u - p[3];
        for (int i = 0; i < 3; i++) {
            unsigned v = inverted ? p[i] : 255u - p[i];
            dst[(size_t)x * 3 + (size_t)i] = (uint8_t)((v * k + 127) / 255);
        }
    }
}

static void jpeg_step_pixels(jpeg_ctx_t *c) {
    jpeg_start_decompress(&c->dec);
    bool ink = c->dec.out_color_space == JCS_CMYK;
    while (c->dec.output_scanline < c->dec.output_height && !c->damaged) {
        uint8_t *row = c->pixels + (size_t)c->dec.output_scanline * c->stride;
        JSAMPROW target = ink ? c->line : row;
        if (jpeg_read_scanlines(&c->dec, &target, 1) == 1 && ink) {
            ink_to_rgb(c, row);
        }
    }
}

static err_kind_t jpeg_fail(const jpeg_ctx_t *c, err_t *err) {
    if (c->too_many_scans) {
        return image_err_unsupported(err, "an unreasonable number of progressive scans", c->words);
    }
    if (c->code == JERR_OUT_OF_MEMORY) {
        return image_err_memory(err);
    }
    if (c->code == JERR_BAD_PRECISION || c->code == JERR_SOF_UNSUPPORTED || c->code == JERR_ARITH_NOTIMPL ||
        c->code == JERR_CONVERSION_NOTIMPL || c->code == JERR_NOTIMPL || c->code == JERR_CCIR601_NOTIMPL) {
        return image_err_unsupported(err, "a rare JPEG variant (12-bit or lossless)", c->words);
    }
    return c->at_end ? image_err_truncated(err, c->words) : image_err_corrupt(err, c->words);
}

static void jpeg_fill_info(const jpeg_ctx_t *c, image_info_t *info) {
    info->format = IMAGE_JPEG;
    info->width = (int32_t)c->dec.image_width;
    info->height = (int32_t)c->dec.image_height;
    info->channels = c->dec.out_color_space == JCS_GRAYSCALE ? 1 : 3;
    info->bit_depth = 8;
    info->sample = SAMPLE_U8;
    info->pages = 1;
    if (c->dec.saw_JFIF_marker && c->dec.density_unit == 2) { /* dots per cm */
        info->pixel_size_um = image_pixel_size_from_resolution(100.0 * c->dec.X_density);
    }
}

static err_kind_t jpeg_read_pixels(jpeg_ctx_t *c, const image_request_t *req, int orientation, image_t *out,
                                   err_t *err) {
    size_t bytes = 0;
    err_kind_t k = image_check_size(&out->info, req->lim, &bytes, err);
    if (k == ERR_OK && jpeg_has_multiple_scans(&c->dec)) { /* the library keeps 16-bit coefficients of all of it */
        image_info_t coefficients = out->info;
        coefficients.channels = c->dec.num_components * 3;
        k = image_check_size(&coefficients, req->lim, &bytes, err);
    }
    if (k == ERR_OK) {
        k = image_allocate(out, req->lim, err);
    }
    if (k != ERR_OK) {
        return k;
    }
    c->pixels = out->data;
    c->stride = (size_t)out->info.width * (size_t)out->info.channels;
    if (c->dec.out_color_space == JCS_CMYK) {
        c->line = malloc((size_t)out->info.width * 4);
        if (!c->line) {
            return image_err_memory(err);
        }
    }
    if (!jpeg_guarded(c, jpeg_step_pixels) || c->damaged) {
        return jpeg_fail(c, err);
    }
    return image_orient(out, orientation, err);
}

err_kind_t image_jpeg_read(const image_request_t *req, image_t *out, err_t *err) {
    jpeg_ctx_t *c = calloc(1, sizeof *c);
    if (!c) {
        return image_err_memory(err);
    }
    c->src = req->src;
    c->dec.err = jpeg_std_error(&c->errors);
    c->errors.error_exit = on_fatal;
    c->errors.emit_message = on_message;
    c->errors.output_message = on_output;
    c->dec.client_data = c;
    err_kind_t k = ERR_OK;
    if (!jpeg_guarded(c, jpeg_step_header)) {
        k = jpeg_fail(c, err);
        goto out;
    }
    jpeg_fill_info(c, &out->info);
    int orientation = c->exif_len > 6 ? image_exif_orientation(c->exif + 6, c->exif_len - 6) : 1;
    k = image_check_page(req->page, 1, req->lim, err);
    if (k != ERR_OK) {
        goto out;
    }
    if (req->header_only) {
        size_t bytes = 0;
        k = image_check_size(&out->info, req->lim, &bytes, err);
        image_orient_info(&out->info, orientation);
    } else {
        k = jpeg_read_pixels(c, req, orientation, out, err);
    }
out:
    jpeg_destroy_decompress(&c->dec);
    free(c->line);
    free(c);
    return k;
}
