/* What the text formats share. Internal to output/. */
#ifndef SG_OUTPUT_TEXT_H
#define SG_OUTPUT_TEXT_H

#include <stdio.h>

#include "common/buf.h"
#include "segworker/output/output.h"

/* Where text goes: into buf; when file is set, buf is emptied into it now and then, so memory stays flat. */
typedef struct {
    buf_t *buf;
    FILE *file; /* NULL: keep everything in buf */
    bool write_failed;
} text_sink_t;

/* To be called between objects. */
void text_flush(text_sink_t *s, bool all);

/* A JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. NULL gives "". */
void text_json_string(const char *s, buf_t *out);
/* Character data or attribute value for XML; control characters are left out. */
void text_xml(const char *s, buf_t *out);
/* At most `decimals` decimals, no needless zeros; not-a-number gives 0. */
void text_number(double v, int decimals, buf_t *out);

void text_write_geojson(const result_t *r, const output_options_t *o, text_sink_t *s);
void text_write_json(const result_t *r, const output_options_t *o, text_sink_t *s);
void text_write_svg(const result_t *r, const output_options_t *o, text_sink_t *s);

#endif
