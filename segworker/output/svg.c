/* Outlines as SVG paths, one per object, in pixel units: laid over the image they fit without scaling. */
#include "segworker/output/text.h"

static void write_xy(geom_point_t p, char command, buf_t *out) {
    char text[40];
    size_t n = 0;
    text[n++] = command;
    n += geom_format_units(p.x, text + n);
    text[n++] = ' ';
    n += geom_format_units(p.y, text + n);
    buf_append(out, text, n);
}

static void write_path(const result_object_t *obj, buf_t *out) {
    buf_printf(out, "<path id=\"object-%u\" d=\"", (unsigned)obj->idx);
    for (uint32_t i = 0; i < obj->geom.count; i++) {
        for (uint32_t k = 0; k < obj->geom.polygons[i].count; k++) {
            const geom_ring_t *ring = &obj->geom.polygons[i].rings[k];
            for (uint32_t j = 0; j < ring->count; j++) {
                write_xy(ring->points[j], j > 0 ? 'L' : 'M', out);
            }
            buf_puts(out, "Z");
        }
    }
    buf_puts(out, "\"/>\n");
}

void text_write_svg(const result_t *r, const output_options_t *o, text_sink_t *s) {
    buf_printf(s->buf,
               "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
               "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n",
               r->width, r->height, r->width, r->height);
    if (o->image_name != NULL) {
        buf_puts(s->buf, "<title>");
        text_xml(o->image_name, s->buf);
        buf_puts(s->buf, "</title>\n");
    }
    buf_puts(s->buf, "<g fill=\"#2f80ed\" fill-opacity=\"0.25\" fill-rule=\"evenodd\" stroke=\"#2f80ed\" "
                     "stroke-width=\"1.5\" stroke-linejoin=\"round\">\n");
    for (uint32_t i = 0; i < r->count; i++) {
        write_path(&r->objects[i], s->buf);
        text_flush(s, false);
    }
    buf_puts(s->buf, "</g>\n</svg>\n");
    text_flush(s, true);
}
