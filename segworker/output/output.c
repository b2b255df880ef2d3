/* Chooses the writer by the file's name and puts the finished file in place with one rename. */
#include "segworker/output/output.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "segworker/output/text.h"

enum {
    TEXT_CAP = 1 << 30 /* of one object's text, and of the memory variants when the caller's buffer has no own cap */
};

static const output_options_t DEFAULTS = {NULL, NULL, NULL, false};

output_format_t output_format_of(const char *path) {
    static const struct {
        const char *ext;
        output_format_t format;
    } known[] = {{".geojson", OUTPUT_GEOJSON}, {".json", OUTPUT_JSON}, {".svg", OUTPUT_SVG},
                 {".png", OUTPUT_PNG},         {".tif", OUTPUT_TIFF},  {".tiff", OUTPUT_TIFF}};
    const char *slash = strrchr(path, '/'), *name = slash != NULL ? slash + 1 : path, *dot = strrchr(name, '.');
    for (size_t i = 0; dot != NULL && i < sizeof known / sizeof *known; i++) {
        if (strcasecmp(dot, known[i].ext) == 0) {
            return known[i].format;
        }
    }
    return OUTPUT_UNKNOWN;
}

static void write_text(output_format_t f, const result_t *r, const output_options_t *o, text_sink_t *s) {
    o = o != NULL ? o : &DEFAULTS;
    if (f == OUTPUT_GEOJSON) {
        text_write_geojson(r, o, s);
    } else if (f == OUTPUT_JSON) {
        text_write_json(r, o, s);
    } else {
        text_write_svg(r, o, s);
    }
}

void output_write_geojson(const result_t *r, const output_options_t *o, buf_t *out) {
    text_sink_t s = {out, NULL, false};
    write_text(OUTPUT_GEOJSON, r, o, &s);
}

void output_write_json(const result_t *r, const output_options_t *o, buf_t *out) {
    text_sink_t s = {out, NULL, false};
    write_text(OUTPUT_JSON, r, o, &s);
}

void output_write_svg(const result_t *r, const output_options_t *o, buf_t *out) {
    text_sink_t s = {out, NULL, false};
    write_text(OUTPUT_SVG, r, o, &s);
}

static err_kind_t write_failed(const char *path, err_t *err) {
    int code = errno;
    return err_set(err, ERR_IO, "output_write_failed",
                   "The result file could not be written; check that the folder exists and has room.", "%s: %s", path,
                   strerror(code));
}

static err_kind_t write_text_file(output_format_t f, const result_t *r, const char *path, const output_options_t *o,
                                  err_t *err) {
    buf_t buf;
    FILE *file = fopen(path, "wbe");
    if (file == NULL) {
        return write_failed(path, err);
    }
    buf_init(&buf, TEXT_CAP);
    text_sink_t s = {&buf, file, false};
    errno = 0;
    write_text(f, r, o, &s);
    err_kind_t kind = ERR_OK;
    if (buf.failed) {
        kind = err_set(err, ERR_NO_MEMORY, "no_memory", "The computer is short of memory for the result file.", NULL);
    } else if (s.write_failed || fflush(file) != 0 || fsync(fileno(file)) != 0) {
        kind = write_failed(path, err);
    }
    if (fclose(file) != 0 && kind == ERR_OK) {
        kind = write_failed(path, err);
    }
    buf_free(&buf);
    return kind;
}

err_kind_t output_write_file(const result_t *r, const char *path, const output_options_t *o, err_t *err) {
    output_format_t f = output_format_of(path);
    if (f == OUTPUT_UNKNOWN) {
        return err_set(err, ERR_UNSUPPORTED, "output_unknown_format",
                       "The result file's name must end in .geojson, .json, .svg, .png or .tif.", "%s", path);
    }
    size_t room = strlen(path) + 32;
    char *part = malloc(room);
    if (part == NULL) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The computer is short of memory.", "path");
    }
    (void)snprintf(part, room, "%s.part-%ld", path, (long)getpid());
    err_kind_t kind = f == OUTPUT_PNG || f == OUTPUT_TIFF ? output_write_labels(r, part, f == OUTPUT_TIFF, err)
                                                          : write_text_file(f, r, part, o, err);
    if (kind == ERR_OK && rename(part, path) != 0) {
        kind = write_failed(path, err);
    }
    if (kind != ERR_OK) {
        (void)unlink(part);
    }
    free(part);
    return kind;
}
