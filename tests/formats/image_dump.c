/*
 * Decodes one page of an image file for the tests in this folder: prints what is known about it as one JSON line and
 * writes the samples. The page is decoded twice, whole and as rectangles of an odd size in an odd order, and both must
 * agree bit by bit.
 *
 * usage: image_dump [--page N] [--channel N] [--z N] [--t N] [--weights A,B,...] [--grey] [--megabytes N]
 *                   [--rect X,Y,W,H] FILE [OUT]
 * Pages count from 0. With --rect only that part is read, once. With --grey OUT gets the chosen plane as floats,
 * otherwise the page's samples. Exit status: 0 fine, 1 an error that is printed as JSON, 2 usage, 3 the two ways
 * differ.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/image/region.h"

enum { TILE_W = 97, TILE_H = 61 };

typedef struct {
    image_select_t sel;
    image_limits_t lim;
    bool grey;
    image_rect_t rect; /* w 0 = all of it */
    const char *file, *out;
} options_t;

static int usage(void) {
    fputs("usage: image_dump [--page N] [--channel N] [--z N] [--t N] [--weights A,B] [--grey] [--megabytes N] "
          "[--rect X,Y,W,H] FILE [OUT]\n",
          stderr);
    return 2;
}

/* Not getrusage: its peak is inherited from the process that started this one. */
static long peak_kb(void) {
    char line[128];
    long kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && kb == 0 && fgets(line, sizeof line, f)) {
        kb = strncmp(line, "VmHWM:", 6) == 0 ? strtol(line + 6, NULL, 10) : 0;
    }
    if (f) {
        fclose(f);
    }
    return kb;
}

static int failed(const err_t *err) {
    char text[sizeof err->message];
    size_t n = 0;
    for (const char *p = err->message; *p && n + 1 < sizeof text; p++) {
        text[n++] = *p == '"' || *p == '\\' ? '\'' : *p;
    }
    text[n] = '\0';
    printf("{\"error\": \"%s\", \"message\": \"%s\", \"peakKb\": %ld}\n", err->code, text, peak_kb());
    return 1;
}

static void parse_weights(const char *s, image_select_t *sel) {
    while (*s && sel->weights < IMAGE_MAX_WEIGHTS) {
        char *end = NULL;
        sel->weight[sel->weights++] = strtof(s, &end);
        s = *end == ',' ? end + 1 : end + strlen(end);
    }
}

static void parse_rect(const char *s, image_rect_t *q) {
    int32_t *const part[] = {&q->x, &q->y, &q->w, &q->h};
    for (size_t i = 0; i < 4 && *s; i++) {
        char *end = NULL;
        *part[i] = (int32_t)strtol(s, &end, 10);
        s = *end == ',' ? end + 1 : end;
    }
}

static bool parse(int argc, char **argv, options_t *o) {
    static const struct option longs[] = {
        {"page", required_argument, NULL, 'p'},
        {"channel", required_argument, NULL, 'c'},
        {"z", required_argument, NULL, 'z'},
        {"t", required_argument, NULL, 't'},
        {"weights", required_argument, NULL, 'w'},
        {"grey", no_argument, NULL, 'g'},
        {"megabytes", required_argument, NULL, 'm'},
        {"rect", required_argument, NULL, 'r'},
        {NULL, 0, NULL, 0},
    };
    *o = (options_t){.sel = IMAGE_SELECT_DEFAULT,
                     .lim = {.max_pixels = 400000000, .max_decoded_bytes = 1LL << 30, .max_pages = 10000}};
    int c = 0;
    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        int32_t v = optarg ? (int32_t)strtol(optarg, NULL, 10) : 0;
        switch (c) {
        case 'p':
            o->sel.page = v;
            break;
        case 'c':
            o->sel.channel = v;
            break;
        case 'z':
            o->sel.z = v;
            break;
        case 't':
            o->sel.t = v;
            break;
        case 'w':
            parse_weights(optarg, &o->sel);
            break;
        case 'g':
            o->grey = true;
            break;
        case 'r':
            parse_rect(optarg, &o->rect);
            break;
        case 'm':
            o->lim.max_decoded_bytes = (int64_t)v << 20;
            break;
        default:
            return false;
        }
    }
    o->file = optind < argc ? argv[optind] : NULL;
    o->out = optind + 1 < argc ? argv[optind + 1] : NULL;
    return o->file != NULL;
}

static void print_info(const image_info_t *i, image_layout_t l) {
    printf(
        "{\"format\": \"%s\", \"width\": %d, \"height\": %d, \"channels\": %d, \"bits\": %d, \"sample\": %d, "
        "\"pages\": %d, \"alpha\": %s, \"pixelUm\": %.9g, \"direct\": %s, \"block\": [%d, %d], \"c\": %d, \"z\": %d, "
        "\"t\": %d, \"peakKb\": %ld}\n",
        image_format_name(i->format), i->width, i->height, i->channels, i->bit_depth, (int)i->sample, i->pages,
        i->has_alpha ? "true" : "false", i->pixel_size_um, l.direct ? "true" : "false", l.block_width, l.block_height,
        l.channels, l.slices, l.times, peak_kb());
}

/* The rectangles of a grid, from the bottom right corner to the top left one. */
static err_kind_t read_tiles(image_reader_t *r, bool grey, size_t unit, uint8_t *dst, err_t *err) {
    const image_info_t *i = image_reader_info(r);
    const int32_t w = i->width, h = i->height;
    uint8_t *tile = malloc((size_t)TILE_W * TILE_H * unit);
    err_kind_t k = tile ? ERR_OK : err_set(err, ERR_NO_MEMORY, "out_of_memory", "No memory.", NULL);
    for (int32_t y = (h - 1) / TILE_H * TILE_H; k == ERR_OK && y >= 0; y -= TILE_H) {
        for (int32_t x = (w - 1) / TILE_W * TILE_W; k == ERR_OK && x >= 0; x -= TILE_W) {
            image_rect_t q = {
                .x = x, .y = y, .w = w - x < TILE_W ? w - x : TILE_W, .h = h - y < TILE_H ? h - y : TILE_H};
            size_t row = (size_t)q.w * unit;
            k = grey ? image_reader_read_grey(r, q, (float *)(void *)tile, err)
                     : image_reader_read(r, q, tile, row * (size_t)q.h, err);
            for (int32_t j = 0; k == ERR_OK && j < q.h; j++) {
                memcpy(dst + ((size_t)(y + j) * (size_t)w + (size_t)x) * unit, tile + (size_t)j * row, row);
            }
        }
    }
    free(tile);
    return k;
}

static int write_out(const char *path, const void *data, size_t n) {
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(data, 1, n, f) == n;
    ok = f && fclose(f) == 0 && ok;
    return ok ? 0 : 2;
}

static int dump_rect(const options_t *o, image_reader_t *r) {
    image_info_t i = *image_reader_info(r);
    static const size_t bytes[] = {0, 1, 2, 4, 4};
    size_t n = (size_t)o->rect.w * (size_t)o->rect.h * (o->grey ? 4 : (size_t)i.channels * bytes[i.sample]);
    void *part = malloc(n);
    err_t err;
    err_kind_t k = part ? ERR_OK : err_set(&err, ERR_NO_MEMORY, "out_of_memory", "No memory.", NULL);
    if (k == ERR_OK) {
        k = o->grey ? image_reader_read_grey(r, o->rect, part, &err) : image_reader_read(r, o->rect, part, n, &err);
    }
    int status = k == ERR_OK ? 0 : failed(&err);
    if (k == ERR_OK) {
        i.width = o->rect.w;
        i.height = o->rect.h;
        print_info(&i, image_reader_layout(r));
        status = o->out ? write_out(o->out, part, n) : 0;
    }
    free(part);
    return status;
}

static int dump(const options_t *o, image_reader_t *r) {
    const image_info_t *i = image_reader_info(r);
    static const size_t bytes[] = {0, 1, 2, 4, 4};
    size_t unit = o->grey ? sizeof(float) : (size_t)i->channels * bytes[i->sample];
    size_t n = (size_t)i->width * (size_t)i->height * unit;
    image_rect_t all = {.w = i->width, .h = i->height};
    err_t err;
    image_t img = {0};
    uint8_t *whole = malloc(n), *tiled = malloc(n);
    err_kind_t k = whole && tiled ? ERR_OK : err_set(&err, ERR_NO_MEMORY, "out_of_memory", "No memory.", NULL);
    if (k == ERR_OK && o->grey) {
        k = image_reader_read_grey(r, all, (float *)(void *)whole, &err);
    } else if (k == ERR_OK) {
        k = image_decode(o->file, o->sel.page, &o->lim, &img, &err);
        if (k == ERR_OK && img.bytes == n) {
            memcpy(whole, img.data, n);
        }
    }
    int status = 0;
    if (k == ERR_OK) {
        k = read_tiles(r, o->grey, unit, tiled, &err);
    }
    if (k != ERR_OK) {
        status = failed(&err);
    } else if ((!o->grey && img.bytes != n) || memcmp(whole, tiled, n) != 0) {
        fputs("whole and tiled differ\n", stderr);
        status = 3;
    } else {
        print_info(i, image_reader_layout(r));
        status = o->out ? write_out(o->out, tiled, n) : 0;
    }
    image_free(&img);
    free(whole);
    free(tiled);
    return status;
}

int main(int argc, char **argv) {
    options_t o;
    if (!parse(argc, argv, &o)) {
        return usage();
    }
    image_reader_t *r = NULL;
    err_t err;
    if (image_open(o.file, &o.lim, &r, &err) != ERR_OK) {
        return failed(&err);
    }
    int status = 0;
    if (image_reader_select(r, &o.sel, &err) != ERR_OK) {
        status = failed(&err);
    } else {
        status = o.rect.w > 0 ? dump_rect(&o, r) : dump(&o, r);
    }
    image_close(r);
    return status;
}
