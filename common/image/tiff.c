/*
 * TIFF through libtiff: opens the bytes by callbacks, finds the page among the directories, reads the tags that say
 * what the pixels mean. Handlers are per file (TIFFOpenOptions), so nothing global is touched and nothing is printed.
 *
 * A page is a directory that is a full image; reduced versions (pyramid levels) and masks are no pages. libtiff refuses
 * directory loops, and the number of directories is capped besides.
 */
#include "tiff_internal.h"

#include "../log.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    image_source_t *src;
    tiff_layout_t *layout;
} tiff_file_t;

static tmsize_t on_read(thandle_t h, void *buf, tmsize_t n) {
    const tiff_file_t *f = h;
    return n > 0 ? (tmsize_t)image_source_read(f->src, buf, (size_t)n) : 0;
}

static tmsize_t on_write(thandle_t h, void *buf, tmsize_t n) {
    (void)h, (void)buf, (void)n;
    return -1;
}

static toff_t on_seek(thandle_t h, toff_t off, int whence) {
    image_source_t *s = ((tiff_file_t *)h)->src;
    uint64_t base = whence == SEEK_CUR ? s->pos : whence == SEEK_END ? s->size : 0;
    if (off > UINT64_MAX / 4) {
        return (toff_t)-1;
    }
    s->pos = base + off; /* past the end is allowed, as with lseek; reads there give nothing */
    return s->pos;
}

static int on_close(thandle_t h) {
    (void)h;
    return 0;
}

static toff_t on_size(thandle_t h) {
    return ((tiff_file_t *)h)->src->size;
}

static int on_error(TIFF *tif, void *arg, const char *module, const char *fmt, va_list ap) {
    (void)tif;
    tiff_layout_t *l = arg;
    char text[200];
    vsnprintf(text, sizeof text, fmt, ap);
    snprintf(l->words, sizeof l->words, "libtiff %.32s: %s", module ? module : "", text);
    return 1;
}

static int on_warning(TIFF *tif, void *arg, const char *module, const char *fmt, va_list ap) {
    (void)tif, (void)arg;
    if (log_get_level() >= LOG_DEBUG) {
        char text[200];
        vsnprintf(text, sizeof text, fmt, ap);
        log_msgf(LOG_DEBUG, "libtiff %.32s: %s", module ? module : "", text);
    }
    return 1;
}

static TIFF *tiff_open(tiff_file_t *f, const image_limits_t *lim) {
    TIFFOpenOptions *opts = TIFFOpenOptionsAlloc();
    if (!opts) {
        return NULL;
    }
    int64_t most = lim->max_decoded_bytes > (1 << 20) ? lim->max_decoded_bytes : 1 << 20;
    TIFFOpenOptionsSetMaxSingleMemAlloc(opts, (tmsize_t)most);
    TIFFOpenOptionsSetErrorHandlerExtR(opts, on_error, f->layout);
    TIFFOpenOptionsSetWarningHandlerExtR(opts, on_warning, f->layout);
    TIFF *tif = TIFFClientOpenExt("image", "rm", f, on_read, on_write, on_seek, on_close, on_size, NULL, NULL, opts);
    TIFFOpenOptionsFree(opts);
    return tif;
}

err_kind_t image_tiff_fail(const tiff_layout_t *l, err_t *err) {
    const char *w = l->words;
    if (strstr(w, "not configured") || strstr(w, "not implemented") || strstr(w, "support is not") ||
        strstr(w, "Unsupported JPEG process")) {
        return image_err_unsupported(err, "a compression that is not built in", w);
    }
    if (strstr(w, "Out of memory") || strstr(w, "No space for")) {
        return image_err_memory(err);
    }
    if (strstr(w, "Read error") || strstr(w, "Seek error") || strstr(w, "Not enough data") ||
        strstr(w, "beyond end of file") || strstr(w, "Can not read TIFF directory") || strstr(w, "got 0 bytes") ||
        strstr(w, "Cannot read TIFF header")) {
        return image_err_truncated(err, w);
    }
    return image_err_corrupt(err, w[0] ? w : "libtiff gave no reason");
}

static bool is_full_image(TIFF *tif) {
    uint32_t subfile = 0, w = 0;
    TIFFGetFieldDefaulted(tif, TIFFTAG_SUBFILETYPE, &subfile);
    return (subfile & (FILETYPE_REDUCEDIMAGE | FILETYPE_MASK)) == 0 && TIFFGetField(tif, TIFFTAG_IMAGEWIDTH, &w);
}

/* Counts the pages and leaves the wanted one as the current directory. */
static err_kind_t find_page(tiff_layout_t *l, const image_request_t *req, int *pages, err_t *err) {
    int64_t full = 0, seen = 0;
    toff_t wanted = 0, current = TIFFCurrentDirOffset(l->tif);
    bool last = false;
    do {
        if (is_full_image(l->tif)) {
            if (full == req->page) {
                wanted = TIFFCurrentDirOffset(l->tif);
            }
            full++;
        }
        seen++;
        if (full > req->lim->max_pages || seen > 4LL * req->lim->max_pages + 64) {
            return image_check_page(req->page, INT64_MAX, req->lim, err);
        }
        last = TIFFLastDirectory(l->tif);
    } while (!last && TIFFReadDirectory(l->tif));
    if (full == 0) { /* nothing but reduced images: the first one is better than none */
        wanted = current;
        full = 1;
    }
    err_kind_t k = image_check_page(req->page, full, req->lim, err);
    if (k != ERR_OK) {
        return k;
    }
    *pages = (int)full;
    l->words[0] = '\0';
    if (TIFFCurrentDirOffset(l->tif) != wanted && !TIFFSetSubDirectory(l->tif, wanted)) {
        return image_tiff_fail(l, err);
    }
    return ERR_OK;
}

static err_kind_t read_tags(tiff_layout_t *l, err_t *err) {
    TIFF *t = l->tif;
    uint16_t planar = PLANARCONFIG_CONTIG, orientation = ORIENTATION_TOPLEFT;
    if (!TIFFGetField(t, TIFFTAG_IMAGEWIDTH, &l->width) || !TIFFGetField(t, TIFFTAG_IMAGELENGTH, &l->height) ||
        l->width == 0 || l->height == 0 || l->width > INT32_MAX || l->height > INT32_MAX) {
        return image_err_corrupt(err, "width or height is missing or out of range");
    }
    TIFFGetFieldDefaulted(t, TIFFTAG_BITSPERSAMPLE, &l->bits);
    TIFFGetFieldDefaulted(t, TIFFTAG_SAMPLESPERPIXEL, &l->samples);
    TIFFGetFieldDefaulted(t, TIFFTAG_SAMPLEFORMAT, &l->format);
    TIFFGetFieldDefaulted(t, TIFFTAG_PLANARCONFIG, &planar);
    TIFFGetFieldDefaulted(t, TIFFTAG_ORIENTATION, &orientation);
    TIFFGetFieldDefaulted(t, TIFFTAG_COMPRESSION, &l->compression);
    if (!TIFFGetField(t, TIFFTAG_PHOTOMETRIC, &l->photometric)) {
        bool fax = l->compression == COMPRESSION_CCITTRLE || l->compression == COMPRESSION_CCITTFAX3 ||
                   l->compression == COMPRESSION_CCITTFAX4 || l->compression == COMPRESSION_CCITTRLEW;
        l->photometric = l->samples >= 3 ? PHOTOMETRIC_RGB : fax ? PHOTOMETRIC_MINISWHITE : PHOTOMETRIC_MINISBLACK;
    }
    l->planar = planar == PLANARCONFIG_SEPARATE && l->samples > 1;
    l->tiled = TIFFIsTiled(t) != 0;
    l->orientation = orientation;
    if (l->samples == 0 || l->bits == 0) {
        return image_err_corrupt(err, "no samples");
    }
    if (!TIFFIsCODECConfigured(l->compression)) {
        return image_err_unsupported(err, "a compression that is not built in", l->words);
    }
    return ERR_OK;
}

/* Which stored samples are kept, in which order: colours first, alpha last. */
static err_kind_t choose_samples(tiff_layout_t *l, image_info_t *info, err_t *err) {
    uint16_t extras = 0, *kinds = NULL;
    TIFFGetFieldDefaulted(l->tif, TIFFTAG_EXTRASAMPLES, &extras, &kinds);
    if (extras > l->samples) {
        extras = l->samples;
    }
    int colours = l->samples - extras, alpha = -1;
    if (l->photometric == PHOTOMETRIC_RGB) {
        colours = 3;
    } else if (l->palette) {
        colours = 1;
    } else if (l->ink) {
        colours = 4;
    }
    if (l->samples < colours || (l->ink && l->samples < 4)) {
        return image_err_corrupt(err, "fewer samples than the colour model needs");
    }
    bool named = l->photometric == PHOTOMETRIC_RGB || l->palette || l->ink;
    for (int i = 0; i < extras; i++) {
        bool is_alpha = kinds && (kinds[i] == EXTRASAMPLE_ASSOCALPHA || kinds[i] == EXTRASAMPLE_UNASSALPHA);
        if (is_alpha && alpha < 0 && l->samples - extras + i >= (named ? colours : 1)) {
            alpha = l->samples - extras + i;
        }
    }
    l->keep = 0;
    for (int i = 0; i < l->samples; i++) { /* unnamed extra samples of grey images are channels of their own */
        if (i == alpha || (named && i >= colours)) {
            continue;
        }
        if (l->keep >= TIFF_MAX_CHANNELS - 1) {
            return image_err_unsupported(err, "more than 255 channels", "too many samples per pixel");
        }
        l->source_of[l->keep++] = (uint16_t)i;
    }
    if (alpha >= 0) {
        l->source_of[l->keep++] = (uint16_t)alpha;
    }
    info->has_alpha = alpha >= 0;
    info->channels = l->keep + (l->palette ? 2 : 0) - (l->ink ? 1 : 0);
    return ERR_OK;
}

static err_kind_t choose_sample_type(const tiff_layout_t *l, image_info_t *info, err_t *err) {
    bool whole_bytes = l->bits == 16 || l->bits == 24 || l->bits == 32 || l->bits == 64;
    bool is_float = l->format == SAMPLEFORMAT_IEEEFP && whole_bytes;
    bool is_int = l->format == SAMPLEFORMAT_INT && (whole_bytes || l->bits == 8);
    bool is_long = l->format == SAMPLEFORMAT_UINT && l->bits == 64;
    if (is_float || is_int || is_long) {
        info->sample = SAMPLE_F32;
    } else if ((l->format == SAMPLEFORMAT_UINT || l->format == SAMPLEFORMAT_VOID) && l->bits <= 32) {
        info->sample = l->bits <= 8 ? SAMPLE_U8 : l->bits <= 16 ? SAMPLE_U16 : SAMPLE_U32;
    } else {
        char detail[64];
        snprintf(detail, sizeof detail, "%u bits, sample format %u", l->bits, l->format);
        return image_err_unsupported(err, "an unusual kind of numbers", detail);
    }
    if (l->palette || (l->ink && info->sample == SAMPLE_U8)) {
        info->sample = SAMPLE_U8;
    }
    return ERR_OK;
}

static err_kind_t find_palette(tiff_layout_t *l, err_t *err) {
    if (l->bits > 16 || !TIFFGetField(l->tif, TIFFTAG_COLORMAP, &l->map[0], &l->map[1], &l->map[2])) {
        return image_err_corrupt(err, "palette image without a colour map");
    }
    l->map_shift = 0;
    for (uint32_t i = 0; i < 1u << l->bits; i++) {
        if (l->map[0][i] > 255 || l->map[1][i] > 255 || l->map[2][i] > 255) {
            l->map_shift = 8;
        }
    }
    return ERR_OK;
}

/* Decides how the directory is read and fills the info for the pixels as stored (before orientation). */
static err_kind_t plan(tiff_layout_t *l, image_info_t *info, err_t *err) {
    info->width = (int32_t)l->width;
    info->height = (int32_t)l->height;
    info->bit_depth = l->bits;
    bool jpeg_ycc = l->photometric == PHOTOMETRIC_YCBCR && l->compression == COMPRESSION_JPEG && l->samples == 3 &&
                    !l->planar && l->bits == 8;
    if (jpeg_ycc) {
        TIFFSetField(l->tif, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB);
        l->photometric = PHOTOMETRIC_RGB;
    }
    switch (l->photometric) {
    case PHOTOMETRIC_MINISWHITE:
        l->invert = true;
        break;
    case PHOTOMETRIC_PALETTE:
        l->palette = true;
        break;
    case PHOTOMETRIC_SEPARATED: {
        uint16_t inks = INKSET_CMYK;
        TIFFGetFieldDefaulted(l->tif, TIFFTAG_INKSET, &inks);
        l->ink =
            inks == INKSET_CMYK && l->samples >= 4 && l->format == SAMPLEFORMAT_UINT && (l->bits == 8 || l->bits == 16);
        break;
    }
    case PHOTOMETRIC_YCBCR:
    case PHOTOMETRIC_CIELAB:
    case PHOTOMETRIC_ICCLAB:
    case PHOTOMETRIC_ITULAB:
    case PHOTOMETRIC_LOGL:
    case PHOTOMETRIC_LOGLUV:
        l->through_rgba = true;
        break;
    default:
        break;
    }
    if (l->through_rgba) {
        char why[1024] = "";
        if (!TIFFRGBAImageOK(l->tif, why)) {
            return image_err_unsupported(err, "an unusual colour model", why);
        }
        info->sample = SAMPLE_U8;
        info->channels = 3;
        return ERR_OK;
    }
    err_kind_t k = l->palette ? find_palette(l, err) : ERR_OK;
    if (k == ERR_OK) {
        k = choose_sample_type(l, info, err);
    }
    return k == ERR_OK ? choose_samples(l, info, err) : k;
}

/* ---- pixel size ---- */

static double unit_in_um(const char *unit) {
    static const struct {
        const char *name;
        double um;
    } units[] = {{"\xc2\xb5m", 1}, {"\xce\xbcm", 1},  {"\xb5m", 1},    {"um", 1},      {"micron", 1},
                 {"microns", 1},   {"micrometer", 1}, {"\\u00B5m", 1}, {"&#181;m", 1}, {"nm", 1e-3},
                 {"mm", 1e3},      {"cm", 1e4},       {"m", 1e6},      {"&#xB5;m", 1}, {"nanometer", 1e-3}};
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(unit, units[i].name) == 0) {
            return units[i].um;
        }
    }
    return 0;
}

/* Copies the text after key up to one of the stop characters; false when the key is missing or the value too long. */
static bool value_after(const char *text, const char *key, const char *stops, char *out, size_t size) {
    const char *at = strstr(text, key);
    if (!at) {
        return false;
    }
    at += strlen(key);
    size_t n = strcspn(at, stops);
    if (n == 0 || n >= size) {
        return false;
    }
    memcpy(out, at, n);
    out[n] = '\0';
    return true;
}

static double plausible_um(double um) {
    return isfinite(um) && um > 1e-5 && um < 1e5 ? um : 0;
}

static double size_from_description(const char *text, double pixels_per_unit) {
    char value[64], unit[32] = "";
    if (strstr(text, "<OME") && value_after(text, "PhysicalSizeX=\"", "\"", value, sizeof value)) {
        double factor = 1;
        if (value_after(text, "PhysicalSizeXUnit=\"", "\"", unit, sizeof unit)) {
            factor = unit_in_um(unit);
        }
        return plausible_um(strtod(value, NULL) * factor);
    }
    if (strncmp(text, "ImageJ=", 7) == 0 && pixels_per_unit > 0 &&
        value_after(text, "\nunit=", "\r\n", unit, sizeof unit)) {
        return plausible_um(unit_in_um(unit) / pixels_per_unit);
    }
    return 0;
}

static double find_pixel_size(TIFF *tif) {
    float x = 0;
    uint16_t unit = RESUNIT_INCH;
    char *text = NULL;
    TIFFGetField(tif, TIFFTAG_XRESOLUTION, &x);
    TIFFGetFieldDefaulted(tif, TIFFTAG_RESOLUTIONUNIT, &unit);
    double um = 0;
    if (TIFFGetField(tif, TIFFTAG_IMAGEDESCRIPTION, &text) && text) {
        um = size_from_description(text, x);
    }
    if (um == 0 && unit == RESUNIT_CENTIMETER) {
        um = image_pixel_size_from_resolution(100.0 * x);
    }
    return um;
}

err_kind_t image_tiff_read(const image_request_t *req, image_t *out, err_t *err) {
    tiff_layout_t *l = calloc(1, sizeof *l);
    if (!l) {
        return image_err_memory(err);
    }
    tiff_file_t file = {.src = req->src, .layout = l};
    err_kind_t k = ERR_OK;
    image_info_t *info = &out->info;
    info->format = IMAGE_TIFF;
    l->tif = tiff_open(&file, req->lim);
    if (!l->tif) {
        k = image_tiff_fail(l, err);
        goto out;
    }
    double first_size = find_pixel_size(l->tif); /* OME and ImageJ describe all pages in the first */
    k = find_page(l, req, &info->pages, err);
    if (k == ERR_OK) {
        k = read_tags(l, err);
    }
    if (k == ERR_OK) {
        k = plan(l, info, err);
    }
    if (k != ERR_OK) {
        goto out;
    }
    double own_size = find_pixel_size(l->tif);
    info->pixel_size_um = own_size > 0 ? own_size : first_size;
    size_t bytes = 0;
    k = image_check_size(info, req->lim, &bytes, err);
    if (k != ERR_OK) {
        goto out;
    }
    if (req->header_only) {
        image_orient_info(info, l->orientation);
        goto out;
    }
    k = image_tiff_read_pixels(l, req, out, err);
    if (k == ERR_OK) {
        k = image_orient(out, l->orientation, err);
    }
out:
    if (l->tif) {
        TIFFClose(l->tif);
    }
    free(l);
    return k;
}
