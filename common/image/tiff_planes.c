/*
 * What a TIFF says about itself in words: size of a pixel and arrangement of the pages, from OME-XML, from ImageJ's
 * description and from the resolution tags.
 *
 * ImageJ's description is lines of key=value behind "ImageJ="; pages are ordered channel, slice, frame. ImageJ writes
 * stacks over 4 GB with one directory, behind whose pixels those of the other pages follow without one; such pages are
 * counted here. (After ij.io.FileInfo and ij.io.TiffDecoder of ImageJ, in the public domain, for the keys' meaning.)
 */
#include "tiff_internal.h"

#include "ome.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Copies the value of a line "key=value"; false when there is none or it is too long. */
static bool line_value(const char *text, const char *key, char *out, size_t size) {
    size_t len = strlen(key);
    for (const char *at = text; at && *at; at = strchr(at, '\n')) {
        at += *at == '\n';
        if (strncmp(at, key, len) == 0 && at[len] == '=') {
            size_t n = strcspn(at + len + 1, "\r\n");
            if (n == 0 || n >= size) {
                return false;
            }
            memcpy(out, at + len + 1, n);
            out[n] = '\0';
            return true;
        }
    }
    return false;
}

/* A number from 1 on; missing when there is none. */
static int32_t line_count(const char *text, const char *key, int32_t missing) {
    char value[24], *end = NULL;
    if (!line_value(text, key, value, sizeof value)) {
        return missing;
    }
    errno = 0;
    long v = strtol(value, &end, 10);
    return errno || end == value || *end || v < 1 || v > INT32_MAX ? missing : (int32_t)v;
}

static const char *description(TIFF *tif) {
    char *text = NULL;
    return TIFFGetField(tif, TIFFTAG_IMAGEDESCRIPTION, &text) && text ? text : "";
}

static bool is_ome(const char *text) {
    return strstr(text, "<OME") || strstr(text, "<ome") || strstr(text, ":OME");
}

static bool is_imagej(const char *text) {
    return strncmp(text, "ImageJ=", 7) == 0;
}

static double plausible_um(double um) {
    return isfinite(um) && um > 1e-5 && um < 1e5 ? um : 0;
}

static double imagej_pixel_size(const char *text, double pixels_per_unit) {
    char unit[32];
    if (!(pixels_per_unit > 0) || !line_value(text, "unit", unit, sizeof unit)) {
        return 0;
    }
    /* "inch" is what ImageJ writes for images of which it knows nothing but the screen's resolution. */
    return plausible_um(image_unit_in_um(unit) / pixels_per_unit);
}

double image_tiff_pixel_size(TIFF *tif) {
    float x = 0;
    uint16_t unit = RESUNIT_INCH;
    TIFFGetField(tif, TIFFTAG_XRESOLUTION, &x);
    TIFFGetFieldDefaulted(tif, TIFFTAG_RESOLUTIONUNIT, &unit);
    const char *text = description(tif);
    double um = is_imagej(text) ? imagej_pixel_size(text, x) : 0;
    if (um == 0 && unit == RESUNIT_CENTIMETER) {
        um = image_pixel_size_from_resolution(100.0 * (double)x);
    }
    if (um == 0 && unit == RESUNIT_INCH) { /* no printer and no scanner resolves 2 µm */
        const double finest_scanner_um = 2.0;
        um = image_pixel_size_from_resolution((double)x / 0.0254);
        um = um <= finest_scanner_um ? um : 0;
    }
    return um;
}

/* ---- planes ---- */

static bool sizes_fit(const tiff_file_t *f, int64_t c, int64_t z, int64_t t) {
    const int64_t most = f->lim.max_pages;
    return c > 0 && z > 0 && t > 0 && c <= most && z <= most && t <= most && c * z <= most && c * z * t <= most;
}

static err_kind_t set_sizes(tiff_file_t *f, int32_t c, int32_t z, int32_t t, err_t *err) {
    size_t n = (size_t)c * (size_t)z * (size_t)t;
    f->plane_page = malloc((n ? n : 1) * sizeof *f->plane_page);
    if (!f->plane_page) {
        return image_err_memory(err);
    }
    for (size_t i = 0; i < n; i++) {
        f->plane_page[i] = -1;
    }
    f->size_c = c;
    f->size_z = z;
    f->size_t_ = t;
    return ERR_OK;
}

static int32_t page_of_ifd(const tiff_file_t *f, int64_t ifd) {
    int lo = 0, hi = f->npages;
    while (lo < hi) { /* ifd numbers rise */
        int mid = lo + (hi - lo) / 2;
        if (f->pages[mid].ifd < ifd) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < f->npages && f->pages[lo].ifd == ifd ? lo : -1;
}

static void put_plane(tiff_file_t *f, int64_t c, int64_t z, int64_t t, int64_t ifd) {
    if (c < f->size_c && z < f->size_z && t < f->size_t_) {
        f->plane_page[c + f->size_c * (z + f->size_z * t)] = page_of_ifd(f, ifd);
    }
}

/* The planes of one TiffData element: on from its first one, the dimension that is named first counting fastest. */
static void put_block_planes(tiff_file_t *f, const ome_t *o, const ome_block_t *b) {
    int64_t total = (int64_t)f->size_c * f->size_z * f->size_t_;
    int64_t at[3] = {b->c, b->z, b->t}, size[3] = {f->size_c, f->size_z, f->size_t_};
    int64_t planes = b->planes > 0 ? b->planes : b->has_ifd ? 1 : total;
    planes = planes < total ? planes : total;
    for (int64_t i = 0; i < planes; i++) {
        put_plane(f, at[0], at[1], at[2], b->ifd + i);
        for (int d = 2; d < 5; d++) {
            int axis = o->order[d] == 'C' ? 0 : o->order[d] == 'Z' ? 1 : 2;
            if (++at[axis] < size[axis]) {
                break;
            }
            at[axis] = 0;
        }
    }
}

static err_kind_t arrange_ome(tiff_file_t *f, const ome_t *o, err_t *err) {
    uint16_t samples = 1;
    TIFFGetFieldDefaulted(f->tif, TIFFTAG_SAMPLESPERPIXEL, &samples);
    int32_t c = o->size_c;
    if (samples > 1 && c % samples == 0) { /* channels of one page: colours */
        c /= samples;
    }
    if (!sizes_fit(f, c, o->size_z, o->size_t_)) {
        return ERR_OK;
    }
    err_kind_t k = set_sizes(f, c, o->size_z, o->size_t_, err);
    if (k != ERR_OK) {
        return k;
    }
    const ome_block_t all = {.planes = 0};
    for (size_t i = 0; i < o->nblocks; i++) {
        put_block_planes(f, o, &o->blocks[i]);
    }
    if (o->nblocks == 0) {
        put_block_planes(f, o, &all);
    }
    return ERR_OK;
}

/* How many pages' pixels stand behind those of the only directory? 1 = its own only. */
static int32_t count_stacked(tiff_file_t *f, int32_t images, err_t *err) {
    uint16_t compression = COMPRESSION_NONE;
    TIFFGetFieldDefaulted(f->tif, TIFFTAG_COMPRESSION, &compression);
    if (f->npages != 1 || images < 2 || compression != COMPRESSION_NONE || TIFFIsTiled(f->tif) ||
        image_tiff_read_tags(f, err) != ERR_OK || f->l.through_rgba || f->l.planar ||
        f->l.fill_order != FILLORDER_MSB2LSB) {
        return 1;
    }
    uint64_t plane = (uint64_t)TIFFScanlineSize64(f->tif) * f->l.height, begin = TIFFGetStrileOffset(f->tif, 0);
    if (plane == 0 || begin == 0 || begin >= f->src->size) {
        return 1;
    }
    for (uint32_t i = 1; i < TIFFNumberOfStrips(f->tif); i++) { /* one run of bytes? */
        if (TIFFGetStrileOffset(f->tif, i) !=
            TIFFGetStrileOffset(f->tif, i - 1) + TIFFGetStrileByteCount(f->tif, i - 1)) {
            return 1;
        }
    }
    uint64_t there = (f->src->size - begin) / plane;
    return there < (uint64_t)images ? (there ? (int32_t)there : 1) : images;
}

static err_kind_t arrange_imagej(tiff_file_t *f, const char *text, err_t *err) {
    int32_t c = line_count(text, "channels", 1), z = line_count(text, "slices", 1), t = line_count(text, "frames", 1);
    int32_t images = line_count(text, "images", 1);
    int32_t stacked = count_stacked(f, images, NULL);
    if (stacked > 1) {
        err_kind_t k = image_check_page(0, stacked, &f->lim, err);
        if (k != ERR_OK) {
            return k;
        }
        f->npages = stacked;
        f->stacked = true;
    }
    uint16_t samples = 1;
    TIFFGetFieldDefaulted(f->tif, TIFFTAG_SAMPLESPERPIXEL, &samples);
    if (samples > 1 && c % samples == 0 && (int64_t)c * z * t > f->npages) {
        c /= samples;
    }
    if (!sizes_fit(f, c, z, t) || (int64_t)c * z * t != f->npages) {
        return ERR_OK;
    }
    err_kind_t k = set_sizes(f, c, z, t, err);
    for (int32_t i = 0; k == ERR_OK && i < f->npages; i++) {
        f->plane_page[i] = i;
    }
    return k;
}

err_kind_t image_tiff_arrange(tiff_file_t *f, err_t *err) {
    f->size_c = 1;
    f->size_z = f->npages;
    f->size_t_ = 1;
    const char *text = description(f->tif);
    err_kind_t k = ERR_OK;
    if (is_ome(text)) {
        ome_t o;
        bool arranged = ome_parse(text, strlen(text), (size_t)f->lim.max_pages, &o);
        f->pixel_um = plausible_um(o.pixel_um);
        if (arranged) {
            k = arrange_ome(f, &o, err);
        }
        ome_free(&o);
    } else if (is_imagej(text)) {
        f->pixel_um = image_tiff_pixel_size(f->tif);
        k = arrange_imagej(f, text, err);
    }
    if (f->pixel_um == 0) { /* the first page speaks for all that say nothing */
        f->pixel_um = image_tiff_pixel_size(f->tif);
    }
    if (!f->plane_page) {
        f->size_z = f->npages;
    }
    return k;
}

int32_t image_tiff_plane(const tiff_file_t *f, int32_t c, int32_t z, int32_t t) {
    if (c < 0 || z < 0 || t < 0 || c >= f->size_c || z >= f->size_z || t >= f->size_t_) {
        return -1;
    }
    return f->plane_page ? f->plane_page[c + (int64_t)f->size_c * (z + (int64_t)f->size_z * t)] : z;
}
