/*
 * GIF through giflib, record by record (never the slurping call, which keeps every frame). A page is a frame as a
 * viewer shows it: the logical screen with all frames up to it drawn in order and disposed of as they ask. The result
 * is RGB, or RGBA when some frame has transparent pixels.
 */
#include "image_internal.h"

#include <stdlib.h>
#include <string.h>

#include <gif_lib.h>

enum { GIF_NO_COLOUR = -1 };

typedef struct {
    GifFileType *gif;
    image_source_t *src;
    int frames;
    bool transparent;  /* any frame has a transparent colour */
    int width, height; /* of the screen */
    /* graphic control of the frame to come */
    int clear_index, disposal;
    uint8_t *canvas, *saved; /* RGBA; saved: before a frame that asks to be undone */
    uint8_t *line;
} gif_ctx_t;

static int on_read(GifFileType *gif, GifByteType *buf, int n) {
    return n > 0 ? (int)image_source_read(gif->UserData, buf, (size_t)n) : 0;
}

static err_kind_t gif_fail(int code, err_t *err) {
    char detail[96];
    const char *words = GifErrorString(code);
    snprintf(detail, sizeof detail, "giflib: %s", words ? words : "no reason");
    if (code == D_GIF_ERR_NOT_ENOUGH_MEM) {
        return image_err_memory(err);
    }
    if (code == D_GIF_ERR_READ_FAILED || code == D_GIF_ERR_EOF_TOO_SOON) {
        return image_err_truncated(err, detail);
    }
    return image_err_corrupt(err, detail);
}

static err_kind_t gif_open(gif_ctx_t *c, err_t *err) {
    int code = 0;
    c->src->pos = 0;
    c->gif = DGifOpen(c->src, on_read, &code);
    return c->gif ? ERR_OK : gif_fail(code, err);
}

static void gif_close(gif_ctx_t *c) {
    int code = 0;
    if (c->gif) {
        DGifCloseFile(c->gif, &code);
    }
    c->gif = NULL;
}

/* Reads one extension; keeps what a graphic control says. */
static bool read_extension(gif_ctx_t *c) {
    int code = 0;
    GifByteType *block = NULL;
    if (DGifGetExtension(c->gif, &code, &block) != GIF_OK) {
        return false;
    }
    if (code == GRAPHICS_EXT_FUNC_CODE && block && block[0] >= 4) {
        c->disposal = (block[1] >> 2) & 7;
        c->clear_index = (block[1] & 1) ? block[4] : GIF_NO_COLOUR;
    }
    while (block) {
        if (DGifGetExtensionNext(c->gif, &block) != GIF_OK) {
            return false;
        }
    }
    return true;
}

static bool skip_pixels(gif_ctx_t *c) {
    int size = 0;
    GifByteType *block = NULL;
    if (DGifGetCode(c->gif, &size, &block) != GIF_OK) {
        return false;
    }
    while (block) {
        if (DGifGetCodeNext(c->gif, &block) != GIF_OK) {
            return false;
        }
    }
    return true;
}

/* First pass: counts frames and looks for transparency without decompressing. A file that ends early keeps the frames
 * whose data are complete. */
static err_kind_t scan(gif_ctx_t *c, const image_limits_t *lim, err_t *err) {
    err_kind_t k = gif_open(c, err);
    if (k != ERR_OK) {
        return k;
    }
    c->width = c->gif->SWidth;
    c->height = c->gif->SHeight;
    c->clear_index = GIF_NO_COLOUR;
    bool more = true, good = true;
    while (more && good) {
        GifRecordType type = UNDEFINED_RECORD_TYPE;
        good = DGifGetRecordType(c->gif, &type) == GIF_OK;
        if (good && type == IMAGE_DESC_RECORD_TYPE) {
            good = DGifGetImageDesc(c->gif) == GIF_OK && skip_pixels(c);
            if (good && c->frames == 0 && (c->width == 0 || c->height == 0)) {
                c->width = c->gif->Image.Left + c->gif->Image.Width;
                c->height = c->gif->Image.Top + c->gif->Image.Height;
            }
            c->frames += good ? 1 : 0;
            c->transparent = c->transparent || c->clear_index != GIF_NO_COLOUR;
            c->clear_index = GIF_NO_COLOUR;
        } else if (good && type == EXTENSION_RECORD_TYPE) {
            good = read_extension(c);
        } else {
            more = false;
        }
        if (c->frames > lim->max_pages) {
            more = false;
        }
    }
    int code = c->gif->Error;
    gif_close(c);
    if (c->frames == 0) {
        return good ? image_err_corrupt(err, "no frame") : gif_fail(code, err);
    }
    return ERR_OK;
}

static void draw_line(gif_ctx_t *c, const ColorMapObject *map, int left, int y, int width) {
    if (y < 0 || y >= c->height) {
        return;
    }
    for (int x = 0; x < width && left + x < c->width; x++) {
        int v = c->line[x];
        if (v == c->clear_index || v >= map->ColorCount) {
            continue;
        }
        uint8_t *p = c->canvas + ((size_t)y * (size_t)c->width + (size_t)(left + x)) * 4;
        p[0] = map->Colors[v].Red;
        p[1] = map->Colors[v].Green;
        p[2] = map->Colors[v].Blue;
        p[3] = 255;
    }
}

static void clear_area(gif_ctx_t *c, const GifImageDesc *d) {
    for (int y = d->Top; y < d->Top + d->Height && y < c->height; y++) {
        int end = d->Left + d->Width < c->width ? d->Left + d->Width : c->width;
        if (d->Left < end) {
            memset(c->canvas + ((size_t)y * (size_t)c->width + (size_t)d->Left) * 4, 0, (size_t)(end - d->Left) * 4);
        }
    }
}

static err_kind_t draw_frame(gif_ctx_t *c, err_t *err) {
    static const int first[4] = {0, 4, 2, 1}, step[4] = {8, 8, 4, 2};
    const GifImageDesc *d = &c->gif->Image;
    const ColorMapObject *map = d->ColorMap ? d->ColorMap : c->gif->SColorMap;
    if (!map || d->Width <= 0 || d->Height <= 0) {
        return image_err_corrupt(err, "frame without colours or size");
    }
    free(c->line);
    c->line = malloc((size_t)d->Width);
    if (!c->line) {
        return image_err_memory(err);
    }
    int passes = d->Interlace ? 4 : 1;
    for (int p = 0; p < passes; p++) {
        for (int y = d->Interlace ? first[p] : 0; y < d->Height; y += d->Interlace ? step[p] : 1) {
            if (DGifGetLine(c->gif, c->line, d->Width) != GIF_OK) {
                return gif_fail(c->gif->Error, err);
            }
            draw_line(c, map, d->Left, d->Top + y, d->Width);
        }
    }
    return ERR_OK;
}

/* Draws the frame that begins now; shown: it is the wanted one, so it is not disposed of. */
static err_kind_t play_frame(gif_ctx_t *c, bool shown, err_t *err) {
    size_t bytes = (size_t)c->width * (size_t)c->height * 4;
    bool undo = !shown && c->disposal == DISPOSE_PREVIOUS;
    if (undo) {
        if (!c->saved) {
            c->saved = malloc(bytes);
        }
        if (!c->saved) {
            return image_err_memory(err);
        }
        memcpy(c->saved, c->canvas, bytes);
    }
    GifImageDesc where = c->gif->Image;
    err_kind_t k = draw_frame(c, err);
    if (k == ERR_OK && undo) {
        memcpy(c->canvas, c->saved, bytes);
    } else if (k == ERR_OK && !shown && c->disposal == DISPOSE_BACKGROUND) {
        clear_area(c, &where);
    }
    c->disposal = DISPOSAL_UNSPECIFIED;
    c->clear_index = GIF_NO_COLOUR;
    return k;
}

/* Second pass: draws frames 0..page. */
static err_kind_t play(gif_ctx_t *c, int page, err_t *err) {
    err_kind_t k = gif_open(c, err);
    int frame = 0;
    c->clear_index = GIF_NO_COLOUR;
    c->disposal = DISPOSAL_UNSPECIFIED;
    while (k == ERR_OK && frame <= page) {
        GifRecordType type = UNDEFINED_RECORD_TYPE;
        if (DGifGetRecordType(c->gif, &type) != GIF_OK) {
            k = gif_fail(c->gif->Error, err);
        } else if (type == EXTENSION_RECORD_TYPE) {
            k = read_extension(c) ? ERR_OK : gif_fail(c->gif->Error, err);
        } else if (type == IMAGE_DESC_RECORD_TYPE) {
            k = DGifGetImageDesc(c->gif) == GIF_OK ? play_frame(c, frame == page, err) : gif_fail(c->gif->Error, err);
            frame++;
        } else {
            k = image_err_corrupt(err, "frame missing");
        }
    }
    gif_close(c);
    return k;
}

static err_kind_t decode_frame(gif_ctx_t *c, const image_request_t *req, image_t *out, err_t *err) {
    image_info_t info = out->info;
    info.channels = 8; /* the canvas and one saved copy, four bytes a pixel each */
    size_t bytes = 0, n = (size_t)c->width * (size_t)c->height;
    err_kind_t k = image_check_size(&info, req->lim, &bytes, err);
    if (k != ERR_OK) {
        return k;
    }
    c->canvas = calloc(n, 4);
    if (!c->canvas) {
        return image_err_memory(err);
    }
    k = play(c, req->page, err);
    if (k != ERR_OK) {
        return k;
    }
    if (!out->info.has_alpha) {
        for (size_t i = 0; i < n; i++) {
            memmove(c->canvas + i * 3, c->canvas + i * 4, 3);
        }
    }
    out->data = c->canvas;
    out->bytes = n * (size_t)out->info.channels;
    c->canvas = NULL;
    return ERR_OK;
}

err_kind_t image_gif_read(const image_request_t *req, image_t *out, err_t *err) {
    gif_ctx_t c = {.src = req->src};
    err_kind_t k = scan(&c, req->lim, err);
    if (k != ERR_OK) {
        return k;
    }
    out->info = (image_info_t){.format = IMAGE_GIF, .width = c.width, .height = c.height, .bit_depth = 8};
    out->info.pages = c.frames;
    out->info.sample = SAMPLE_U8;
    out->info.has_alpha = c.transparent;
    out->info.channels = c.transparent ? 4 : 3;
    size_t bytes = 0;
    k = image_check_page(req->page, c.frames, req->lim, err);
    if (k == ERR_OK) {
        k = image_check_size(&out->info, req->lim, &bytes, err);
    }
    if (k == ERR_OK && !req->header_only) {
        k = decode_frame(&c, req, out, err);
    }
    free(c.canvas);
    free(c.saved);
    free(c.line);
    return k;
}
