/*
 * The tags of one TIFF directory: what the samples mean, which of them are kept, and of which type they become.
 */
#include "tiff_internal.h"

#include <string.h>

static err_kind_t read_layout(tiff_file_t *f, err_t *err) {
    TIFF *t = f->tif;
    tiff_layout_t *l = &f->l;
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
    TIFFGetFieldDefaulted(t, TIFFTAG_FILLORDER, &l->fill_order);
    if (!TIFFGetField(t, TIFFTAG_PHOTOMETRIC, &l->photometric)) {
        bool fax = l->compression == COMPRESSION_CCITTRLE || l->compression == COMPRESSION_CCITTFAX3 ||
                   l->compression == COMPRESSION_CCITTFAX4 || l->compression == COMPRESSION_CCITTRLEW;
        l->photometric = l->samples >= 3 ? PHOTOMETRIC_RGB : fax ? PHOTOMETRIC_MINISWHITE : PHOTOMETRIC_MINISBLACK;
    }
    l->planar = planar == PLANARCONFIG_SEPARATE && l->samples > 1;
    l->tiled = TIFFIsTiled(t) != 0;
    l->reversed = TIFFIsByteSwapped(t) != 0;
    l->orientation = orientation;
    if (l->samples == 0 || l->bits == 0) {
        return image_err_corrupt(err, "no samples");
    }
    if (!TIFFIsCODECConfigured(l->compression)) {
        return image_err_unsupported(err, "a compression that is not built in", f->words);
    }
    return ERR_OK;
}

/* Which stored samples are kept, in which order: colours first, alpha last. */
static err_kind_t choose_samples(TIFF *tif, tiff_layout_t *l, image_info_t *info, err_t *err) {
    uint16_t extras = 0, *kinds = NULL;
    TIFFGetFieldDefaulted(tif, TIFFTAG_EXTRASAMPLES, &extras, &kinds);
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
    bool drop = l->palette || l->ink; /* elsewhere, extra samples without a meaning are channels of their own */
    for (int i = 0; i < l->samples; i++) {
        if (i == alpha || (drop && i >= colours)) {
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
    info->colours = l->photometric == PHOTOMETRIC_RGB ? 3 : 0;
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

static err_kind_t find_palette(TIFF *tif, tiff_layout_t *l, err_t *err) {
    if (l->bits > 16 || !TIFFGetField(tif, TIFFTAG_COLORMAP, &l->map[0], &l->map[1], &l->map[2])) {
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

static err_kind_t plan_rgba(TIFF *tif, tiff_layout_t *l, image_info_t *info, err_t *err) {
    char why[1024] = "";
    if (!TIFFRGBAImageOK(tif, why)) {
        return image_err_unsupported(err, "an unusual colour model", why);
    }
    l->bits = 8; /* from here on the layout is that of libtiff's RGBA */
    l->samples = 4;
    l->format = SAMPLEFORMAT_UINT;
    l->planar = false;
    l->keep = 3;
    for (int i = 0; i < 3; i++) {
        l->source_of[i] = (uint16_t)i;
    }
    info->sample = SAMPLE_U8;
    info->channels = 3;
    info->colours = 3;
    return ERR_OK;
}

/* CMYK of whole samples is turned into RGB; other inks stay channels. */
static bool is_cmyk(TIFF *tif, const tiff_layout_t *l) {
    uint16_t inks = INKSET_CMYK;
    TIFFGetFieldDefaulted(tif, TIFFTAG_INKSET, &inks);
    return inks == INKSET_CMYK && l->samples >= 4 && l->format == SAMPLEFORMAT_UINT && (l->bits == 8 || l->bits == 16);
}

err_kind_t image_tiff_read_tags(tiff_file_t *f, err_t *err) {
    tiff_layout_t *l = &f->l;
    image_info_t *info = &f->info;
    memset(l, 0, sizeof *l);
    memset(info, 0, sizeof *info);
    err_kind_t k = read_layout(f, err);
    if (k != ERR_OK) {
        return k;
    }
    info->format = IMAGE_TIFF;
    info->width = (int32_t)l->width;
    info->height = (int32_t)l->height;
    info->bit_depth = l->bits;
    info->pages = f->npages;
    bool jpeg_ycc = l->photometric == PHOTOMETRIC_YCBCR && l->compression == COMPRESSION_JPEG && l->samples == 3 &&
                    !l->planar && l->bits == 8;
    if (jpeg_ycc) {
        TIFFSetField(f->tif, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB);
        l->photometric = PHOTOMETRIC_RGB;
    }
    switch (l->photometric) {
    case PHOTOMETRIC_MINISWHITE:
        l->invert = true;
        break;
    case PHOTOMETRIC_PALETTE:
        l->palette = true;
        break;
    case PHOTOMETRIC_SEPARATED:
        l->ink = is_cmyk(f->tif, l);
        break;
    case PHOTOMETRIC_YCBCR:
    case PHOTOMETRIC_CIELAB:
    case PHOTOMETRIC_ICCLAB:
    case PHOTOMETRIC_ITULAB:
    case PHOTOMETRIC_LOGL:
    case PHOTOMETRIC_LOGLUV:
        l->through_rgba = true;
        return plan_rgba(f->tif, l, info, err);
    default:
        break;
    }
    k = l->palette ? find_palette(f->tif, l, err) : ERR_OK;
    if (k == ERR_OK) {
        k = choose_sample_type(l, info, err);
    }
    return k == ERR_OK ? choose_samples(f->tif, l, info, err) : k;
}
