/* One JSON document with everything that is known about a run: image, model, parameters, objects. */
#include "segworker/output/text.h"

static void write_string_field(const char *key, const char *value, buf_t *out) {
    buf_printf(out, "\"%s\":", key);
    text_json_string(value, out);
}

static void write_head(const result_t *r, const output_options_t *o, buf_t *out) {
    buf_puts(out, "{\"image\":{");
    if (o->image_name != NULL) {
        write_string_field("name", o->image_name, out);
        buf_puts(out, ",");
    }
    buf_printf(out, "\"width\":%d,\"height\":%d,\"pixelSizeUm\":", r->width, r->height);
    if (r->pixel_size_um > 0) {
        text_number(r->pixel_size_um, 9, out);
    } else {
        buf_puts(out, "null");
    }
    buf_puts(out, "},\n\"model\":{");
    write_string_field("name", r->model, out);
    buf_puts(out, ",");
    write_string_field("version", r->model_version, out);
    buf_puts(out, ",");
    write_string_field("sha256", r->model_sha256, out);
    buf_puts(out, "},\n\"parameters\":{\"threshold\":");
    text_number(r->threshold, 6, out);
    buf_printf(out, ",\"detectHoles\":%s},\n", r->detect_holes ? "true" : "false");
    write_string_field("note", r->note, out);
    if (o->stage_times) {
        buf_puts(out, ",\n\"stages\":[");
        for (int i = 0; i < r->nstages && i < RESULT_MAX_STAGES; i++) {
            buf_puts(out, i > 0 ? ",{" : "{");
            write_string_field("name", r->stages[i].name, out);
            buf_puts(out, ",\"seconds\":");
            text_number(r->stages[i].seconds, 6, out);
            buf_puts(out, "}");
        }
        buf_puts(out, "]");
    }
    buf_printf(out, ",\n\"count\":%u,\n\"objects\":[", (unsigned)r->count);
}

void text_write_json(const result_t *r, const output_options_t *o, text_sink_t *s) {
    write_head(r, o, s->buf);
    for (uint32_t i = 0; i < r->count; i++) {
        const result_object_t *obj = &r->objects[i];
        buf_printf(s->buf, "%s\n{\"idx\":%u,\"confidence\":", i > 0 ? "," : "", (unsigned)obj->idx);
        text_number(obj->confidence, 4, s->buf);
        buf_puts(s->buf, ",\"geometry\":");
        geom_write_geojson(&obj->geom, s->buf);
        buf_puts(s->buf, ",\"measurements\":");
        measure_write_json(&obj->m, s->buf);
        buf_puts(s->buf, "}");
        text_flush(s, false);
    }
    buf_puts(s->buf, "\n]}\n");
    text_flush(s, true);
}
