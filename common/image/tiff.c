/*
 * TIFF through libtiff: opens the bytes by callbacks, lists the pages, makes one of them the current directory.
 * Handlers are per file (TIFFOpenOptions), so nothing is printed; the only global thing is one more
 * name for a codec.
 *
 * A page is a directory that is a full image. No pages: directories marked as reduced or as masks, and tiled ones that
 * are the first page scaled down by a power of two (pyramids of programs that do not mark them). A file whose main
 * chain holds nothing but reduced images is looked through for full ones in sub-directories. libtiff refuses directory
 * loops, and the number of directories is capped besides.
 */
#include "tiff_internal.h"

#include "../log.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

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
    tiff_file_t *f = arg;
    char text[200];
    vsnprintf(text, sizeof text, fmt, ap);
    snprintf(f->words, sizeof f->words, "libtiff %.32s: %s", module ? module : "", text);
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

/* Deflate under the number that PixTIFF gave it, which libtiff does not know. */
static int init_pixtiff(TIFF *tif, int scheme) {
    (void)scheme;
    const TIFFCodec *deflate = TIFFFindCODEC(COMPRESSION_ADOBE_DEFLATE);
    return deflate ? deflate->init(tif, COMPRESSION_ADOBE_DEFLATE) : 0;
}

static void register_codecs(void) {
    TIFFRegisterCODEC(TIFF_COMPRESSION_PIXTIFF, "PixTIFF", init_pixtiff);
}

static TIFF *open_library(tiff_file_t *f) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_codecs);
    TIFFOpenOptions *opts = TIFFOpenOptionsAlloc();
    if (!opts) {
        return NULL;
    }
    int64_t most = f->lim.max_decoded_bytes > (1 << 20) ? f->lim.max_decoded_bytes : 1 << 20;
    TIFFOpenOptionsSetMaxSingleMemAlloc(opts, (tmsize_t)most);
    TIFFOpenOptionsSetErrorHandlerExtR(opts, on_error, f);
    TIFFOpenOptionsSetWarningHandlerExtR(opts, on_warning, f);
    TIFF *tif = TIFFClientOpenExt("image", "rm", f, on_read, on_write, on_seek, on_close, on_size, NULL, NULL, opts);
    TIFFOpenOptionsFree(opts);
    return tif;
}

err_kind_t image_tiff_fail(const tiff_file_t *f, err_t *err) {
    const char *w = f->words;
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

bool image_tiff_is_full(TIFF *tif) {
    uint32_t subfile = 0, w = 0;
    uint16_t old = 0;
    TIFFGetFieldDefaulted(tif, TIFFTAG_SUBFILETYPE, &subfile);
    if (TIFFGetField(tif, TIFFTAG_OSUBFILETYPE, &old) && old == OFILETYPE_REDUCEDIMAGE) {
        return false;
    }
    return (subfile & (FILETYPE_REDUCEDIMAGE | FILETYPE_MASK)) == 0 && TIFFGetField(tif, TIFFTAG_IMAGEWIDTH, &w);
}

/* ---- pages ---- */

/* What must be equal in the levels of a pyramid, but for the size. */
typedef struct {
    uint32_t w, h;
    uint16_t bits, samples;
    bool tiled;
} shape_t;

static shape_t shape_of(TIFF *t) {
    shape_t s = {0};
    TIFFGetField(t, TIFFTAG_IMAGEWIDTH, &s.w);
    TIFFGetField(t, TIFFTAG_IMAGELENGTH, &s.h);
    TIFFGetFieldDefaulted(t, TIFFTAG_BITSPERSAMPLE, &s.bits);
    TIFFGetFieldDefaulted(t, TIFFTAG_SAMPLESPERPIXEL, &s.samples);
    s.tiled = TIFFIsTiled(t) != 0;
    return s;
}

static bool is_scaled(uint32_t big, uint32_t small, int shift) {
    uint32_t down = big >> shift, up = (uint32_t)(((uint64_t)big + (1u << shift) - 1) >> shift);
    return small >= down && small <= up;
}

static bool is_level_of(const shape_t *first, const shape_t *s) {
    if (!first->tiled || !s->tiled || first->bits != s->bits || first->samples != s->samples) {
        return false;
    }
    for (int shift = 1; shift < 16 && first->w >> shift && first->h >> shift; shift++) {
        if (is_scaled(first->w, s->w, shift) && is_scaled(first->h, s->h, shift)) {
            return true;
        }
    }
    return false;
}

static err_kind_t add_page(tiff_file_t *f, uint32_t ifd, err_t *err) {
    if ((f->npages & (f->npages - 1)) == 0) { /* room doubles at powers of two */
        size_t room = f->npages ? (size_t)f->npages * 2 : 1;
        tiff_page_t *more = realloc(f->pages, room * sizeof *more);
        if (!more) {
            return image_err_memory(err);
        }
        f->pages = more;
    }
    f->pages[f->npages++] = (tiff_page_t){.offset = TIFFCurrentDirOffset(f->tif), .ifd = ifd};
    return ERR_OK;
}

/* The current directory has sub-directories: adds those that are full images. The current directory is lost. */
static err_kind_t add_full_children(tiff_file_t *f, uint32_t ifd, err_t *err) {
    enum { MOST = 64 };
    uint16_t n = 0;
    toff_t *offsets = NULL, copy[MOST];
    if (!TIFFGetField(f->tif, TIFFTAG_SUBIFD, &n, &offsets) || !offsets) {
        return ERR_OK;
    }
    n = n > MOST ? MOST : n;
    memcpy(copy, offsets, n * sizeof *copy);
    for (uint16_t i = 0; i < n; i++) {
        if (TIFFSetSubDirectory(f->tif, copy[i]) && image_tiff_is_full(f->tif)) {
            err_kind_t k = add_page(f, ifd, err);
            if (k != ERR_OK) {
                return k;
            }
        }
    }
    return ERR_OK;
}

/* Nothing but reduced images in the main chain: full ones below the first, else the first is better than none. */
static err_kind_t settle_for_reduced(tiff_file_t *f, uint64_t first, err_t *err) {
    if (TIFFSetSubDirectory(f->tif, first)) {
        err_kind_t k = add_full_children(f, 0, err);
        if (k != ERR_OK || f->npages > 0) {
            return k;
        }
    }
    if (!TIFFSetSubDirectory(f->tif, first)) {
        return image_tiff_fail(f, err);
    }
    return add_page(f, 0, err);
}

static err_kind_t list_pages(tiff_file_t *f, err_t *err) {
    uint64_t first = TIFFCurrentDirOffset(f->tif);
    shape_t base = {0};
    uint32_t seen = 0;
    bool last = false;
    do {
        if (image_tiff_is_full(f->tif)) {
            shape_t s = shape_of(f->tif);
            base = f->npages == 0 ? s : base;
            if (f->npages == 0 || !is_level_of(&base, &s)) {
                err_kind_t k = add_page(f, seen, err);
                if (k != ERR_OK) {
                    return k;
                }
            }
        }
        seen++;
        if (f->npages > f->lim.max_pages || seen > 4LL * f->lim.max_pages + 64) {
            return image_check_page(0, INT64_MAX, &f->lim, err);
        }
        last = TIFFLastDirectory(f->tif);
    } while (!last && TIFFReadDirectory(f->tif));
    return f->npages ? ERR_OK : settle_for_reduced(f, first, err);
}

err_kind_t image_tiff_open(image_source_t *src, const image_limits_t *lim, size_t cache_limit, tiff_file_t **out,
                           err_t *err) {
    *out = NULL;
    tiff_file_t *f = calloc(1, sizeof *f);
    if (!f) {
        return image_err_memory(err);
    }
    f->src = src;
    f->lim = *lim;
    f->page = -1;
    f->cache_limit = cache_limit;
    err_kind_t k = ERR_OK;
    f->tif = open_library(f);
    if (!f->tif) {
        k = image_tiff_fail(f, err);
        goto out;
    }
    k = list_pages(f, err);
    if (k == ERR_OK && !TIFFSetSubDirectory(f->tif, f->pages[0].offset)) {
        k = image_tiff_fail(f, err);
    }
    if (k == ERR_OK) {
        k = image_tiff_arrange(f, err);
    }
out:
    if (k != ERR_OK) {
        image_tiff_close(f);
        return k;
    }
    *out = f;
    return ERR_OK;
}

void image_tiff_close(tiff_file_t *f) {
    if (!f) {
        return;
    }
    image_tiff_forget_blocks(f);
    if (f->tif) {
        TIFFClose(f->tif);
    }
    free(f->pages);
    free(f->plane_page);
    free(f);
}

err_kind_t image_tiff_select(tiff_file_t *f, int page, err_t *err) {
    f->page = -1;
    err_kind_t k = image_check_page(page, f->npages, &f->lim, err);
    if (k != ERR_OK || !f->pages) {
        return k;
    }
    uint64_t offset = f->pages[f->stacked ? 0 : page].offset;
    f->words[0] = '\0';
    /* Always anew: the plan may have told the codec to convert colours. */
    if (!TIFFSetSubDirectory(f->tif, offset)) {
        return image_tiff_fail(f, err);
    }
    k = image_tiff_read_tags(f, err);
    if (k == ERR_OK) {
        double own = image_tiff_pixel_size(f->tif);
        f->info.pixel_size_um = f->pixel_um > 0 ? f->pixel_um : own;
        f->page = page;
        k = image_tiff_plan_blocks(f, err);
    }
    if (k != ERR_OK) {
        f->page = -1;
    }
    return k;
}

/* Uncompressed pixels cannot be more than the file holds; saying so early saves the memory. */
static bool is_plausible(const tiff_file_t *f) {
    const tiff_layout_t *l = &f->l;
    if (l->compression != COMPRESSION_NONE || l->through_rgba) {
        return true;
    }
    uint64_t blocks = l->tiled ? TIFFNumberOfTiles(f->tif) : TIFFNumberOfStrips(f->tif);
    for (uint64_t i = 0; i < blocks; i++) {
        if (TIFFGetStrileByteCount(f->tif, (uint32_t)i) == 0) {
            return true;
        }
    }
    uint64_t need = (uint64_t)l->width * l->height / 8 * l->bits * l->samples;
    return need / 2 <= f->src->size;
}

err_kind_t image_tiff_read(const image_request_t *req, image_t *out, err_t *err) {
    tiff_file_t *f = NULL;
    size_t bytes = 0;
    err_kind_t k = image_tiff_open(req->src, req->lim, 0, &f, err);
    if (k != ERR_OK || !f) {
        return k;
    }
    k = image_tiff_select(f, req->page, err);
    if (k != ERR_OK) {
        goto out;
    }
    out->info = f->info;
    k = image_check_size(&f->info, req->lim, &bytes, err);
    if (k != ERR_OK) {
        goto out;
    }
    if (req->header_only) {
        image_orient_info(&out->info, f->l.orientation);
        goto out;
    }
    if (!is_plausible(f)) {
        k = image_err_truncated(err, "the file is smaller than its pixels");
        goto out;
    }
    image_rect_t all = {.w = f->info.width, .h = f->info.height};
    k = image_tiff_read_rect(f, all, out, err);
    if (k == ERR_OK) {
        k = image_orient(out, f->l.orientation, err);
    }
out:
    image_tiff_close(f);
    return k;
}
