/*
 * Files that `segworker run -o FILE` writes. The format follows the name: .geojson, .json, .svg, .png (16-bit label
 * image), .tif/.tiff (32-bit label image). Equal results give equal bytes, except output_write_json's stage times,
 * which are left out unless asked for.
 *
 * A file is written under a temporary name in the same folder and renamed at the end, so nobody ever reads half of it.
 * Errors: ERR_UNSUPPORTED "output_unknown_format", ERR_IO "output_write_failed", ERR_NO_MEMORY,
 * ERR_INVALID "output_too_many_labels" (more than 65535 objects in a .png). Thread-safe.
 */
#ifndef SG_SEGWORKER_OUTPUT_H
#define SG_SEGWORKER_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "segworker/result.h"

typedef enum { OUTPUT_UNKNOWN = 0, OUTPUT_GEOJSON, OUTPUT_JSON, OUTPUT_SVG, OUTPUT_PNG, OUTPUT_TIFF } output_format_t;

typedef struct {
    const char *image_name;     /* shown inside json and svg; NULL = none */
    const char *object_type;    /* geojson: "annotation" or "detection"; NULL = "annotation" */
    const char *classification; /* geojson: class name for QuPath; NULL = none */
    bool stage_times;           /* json: include the seconds per stage (then runs differ in bytes) */
} output_options_t;

/* By extension, letter case ignored. */
output_format_t output_format_of(const char *path);

/* o may be NULL: defaults. */
ERR_MUST err_kind_t output_write_file(const result_t *r, const char *path, const output_options_t *o, err_t *err);

/* The text formats into memory; a full buffer shows as out->failed. */
void output_write_geojson(const result_t *r, const output_options_t *o, buf_t *out);
void output_write_json(const result_t *r, const output_options_t *o, buf_t *out);
void output_write_svg(const result_t *r, const output_options_t *o, buf_t *out);

/* Label images, drawn from the outlines when the result keeps no label image; wide = 32-bit TIFF, else 16-bit PNG. */
ERR_MUST err_kind_t output_write_labels(const result_t *r, const char *path, bool wide, err_t *err);

#endif
