/*
 * OME-XML with expat, as a stream: what is kept is a few numbers and the TiffData elements, so a long header costs time
 * but no memory. Depth, length and entries are bounded.
 */
#include "ome.h"

#include <errno.h>
#include <expat.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { OME_MAX_DEPTH = 64, OME_MAX_BYTES = 32 << 20, OME_UUID = 80 };

typedef struct {
    XML_Parser xml;
    ome_t *out;
    size_t max_blocks;
    int depth, pixels_depth; /* of the open first Pixels element; 0 = none yet, -1 = closed */
    bool in_uuid, block_kept, sizes_fine, too_much;
    char file_uuid[OME_UUID], block_uuid[OME_UUID];
    size_t uuid_len;
} ome_ctx_t;

double image_unit_in_um(const char *unit) {
    static const struct {
        const char *name;
        double um;
    } units[] = {
        {"\xc2\xb5m", 1},     {"\xce\xbcm", 1},   {"\xb5m", 1},        {"um", 1},
        {"micron", 1},        {"microns", 1},     {"micrometer", 1},   {"micrometers", 1},
        {"micrometre", 1},    {"\\u00B5m", 1},    {"\\u00b5m", 1},     {"&#181;m", 1},
        {"&#xB5;m", 1},       {"nm", 1e-3},       {"nanometer", 1e-3}, {"pm", 1e-6},
        {"fm", 1e-9},         {"\xc3\x85", 1e-4}, {"mm", 1e3},         {"millimeter", 1e3},
        {"cm", 1e4},          {"dm", 1e5},        {"m", 1e6},          {"meter", 1e6},
        {"km", 1e9},          {"in", 25400},      {"thou", 25.4},      {"li", 25400 / 12.0},
        {"pt", 25400 / 72.0}, {"ft", 304800},     {"yd", 914400},
    };
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(unit, units[i].name) == 0) {
            return units[i].um;
        }
    }
    return 0;
}

static const char *local_name(const char *name) {
    const char *colon = strrchr(name, ':');
    return colon ? colon + 1 : name;
}

static const char *attribute(const char **atts, const char *name) {
    for (size_t i = 0; atts[i]; i += 2) {
        if (strcmp(atts[i], name) == 0) {
            return atts[i + 1];
        }
    }
    return NULL;
}

/* A whole number of an attribute: `missing` when there is none, -1 when it is no number from 0 to INT32_MAX. */
static int32_t whole(const char **atts, const char *name, int32_t missing) {
    const char *s = attribute(atts, name);
    if (!s) {
        return missing;
    }
    char *end = NULL;
    errno = 0;
    long v = strtol(s, &end, 10);
    return errno || end == s || *end || v < 0 || v > INT32_MAX ? -1 : (int32_t)v;
}

static bool is_order(const char *s) {
    if (!s || strlen(s) != 5 || s[0] != 'X' || s[1] != 'Y') {
        return false;
    }
    return strchr(s + 2, 'C') && strchr(s + 2, 'Z') && strchr(s + 2, 'T');
}

static void on_pixels(ome_ctx_t *c, const char **atts) {
    ome_t *o = c->out;
    const char *order = attribute(atts, "DimensionOrder"), *size = attribute(atts, "PhysicalSizeX");
    const char *unit = attribute(atts, "PhysicalSizeXUnit");
    c->pixels_depth = c->depth;
    memcpy(o->order, is_order(order) ? order : "XYCZT", 6);
    o->size_c = whole(atts, "SizeC", 1);
    o->size_z = whole(atts, "SizeZ", 1);
    o->size_t_ = whole(atts, "SizeT", 1);
    c->sizes_fine = o->size_c > 0 && o->size_z > 0 && o->size_t_ > 0;
    if (size) {
        char *end = NULL;
        double v = strtod(size, &end), um = v * (unit ? image_unit_in_um(unit) : 1);
        o->pixel_um = end != size && isfinite(um) && um > 0 ? um : 0;
    }
}

static void on_block(ome_ctx_t *c, const char **atts) {
    ome_t *o = c->out;
    c->block_uuid[0] = '\0';
    c->block_kept = false;
    if (o->nblocks >= c->max_blocks) {
        c->too_much = true;
        XML_StopParser(c->xml, XML_FALSE);
        return;
    }
    if ((o->nblocks & (o->nblocks - 1)) == 0) { /* room doubles at powers of two */
        ome_block_t *more = realloc(o->blocks, (o->nblocks ? o->nblocks * 2 : 1) * sizeof *more);
        if (!more) {
            c->too_much = true;
            XML_StopParser(c->xml, XML_FALSE);
            return;
        }
        o->blocks = more;
    }
    ome_block_t b = {.ifd = whole(atts, "IFD", 0),
                     .c = whole(atts, "FirstC", 0),
                     .z = whole(atts, "FirstZ", 0),
                     .t = whole(atts, "FirstT", 0),
                     .planes = whole(atts, "PlaneCount", 0),
                     .has_ifd = attribute(atts, "IFD") != NULL};
    if (b.ifd >= 0 && b.c >= 0 && b.z >= 0 && b.t >= 0 && b.planes >= 0) {
        o->blocks[o->nblocks++] = b;
        c->block_kept = true;
    }
}

static void XMLCALL on_start(void *arg, const char *name, const char **atts) {
    ome_ctx_t *c = arg;
    if (++c->depth > OME_MAX_DEPTH) {
        c->too_much = true;
        XML_StopParser(c->xml, XML_FALSE);
        return;
    }
    name = local_name(name);
    if (c->depth == 1) {
        const char *uuid = attribute(atts, "UUID");
        size_t n = uuid ? strlen(uuid) : 0;
        if (n && n < sizeof c->file_uuid) {
            memcpy(c->file_uuid, uuid, n + 1);
        }
    } else if (c->pixels_depth == 0 && strcmp(name, "Pixels") == 0) {
        on_pixels(c, atts);
    } else if (c->pixels_depth > 0 && strcmp(name, "TiffData") == 0) {
        on_block(c, atts);
    } else if (c->pixels_depth > 0 && c->out->samples == 0 && strcmp(name, "Channel") == 0) {
        int32_t n = whole(atts, "SamplesPerPixel", 0);
        c->out->samples = n > 0 ? n : 0;
    } else if (c->pixels_depth > 0 && strcmp(name, "UUID") == 0) {
        c->in_uuid = true;
        c->uuid_len = 0;
    }
}

static void XMLCALL on_text(void *arg, const char *s, int n) {
    ome_ctx_t *c = arg;
    for (int i = 0; c->in_uuid && i < n; i++) {
        if (c->uuid_len + 1 < sizeof c->block_uuid && (unsigned char)s[i] > ' ') {
            c->block_uuid[c->uuid_len++] = s[i];
            c->block_uuid[c->uuid_len] = '\0';
        }
    }
}

static void XMLCALL on_end(void *arg, const char *name) {
    ome_ctx_t *c = arg;
    name = local_name(name);
    if (c->in_uuid && strcmp(name, "UUID") == 0) {
        c->in_uuid = false;
    } else if (c->pixels_depth > 0 && strcmp(name, "TiffData") == 0) {
        bool elsewhere = c->block_uuid[0] && c->file_uuid[0] && strcmp(c->block_uuid, c->file_uuid) != 0;
        if (elsewhere && c->block_kept) { /* planes of another file of the set */
            c->out->nblocks--;
        }
        c->block_kept = false;
    } else if (c->pixels_depth == c->depth) {
        c->pixels_depth = -1;
    }
    c->depth--;
}

static void XMLCALL on_entity(void *arg, const char *name, int is_parameter, const char *value, int length,
                              const char *base, const char *system, const char *public, const char *notation) {
    (void)name, (void)is_parameter, (void)value, (void)length, (void)base, (void)system, (void)public, (void)notation;
    ome_ctx_t *c = arg;
    c->too_much = true;
    XML_StopParser(c->xml, XML_FALSE);
}

static bool parse_as(const char *encoding, const char *xml, size_t n, size_t max_blocks, ome_t *out,
                     enum XML_Error *wrong) {
    ome_ctx_t c = {.out = out, .max_blocks = max_blocks};
    *out = (ome_t){.order = "XYCZT"};
    c.xml = XML_ParserCreate(encoding);
    if (!c.xml) {
        *wrong = XML_ERROR_NO_MEMORY;
        return false;
    }
    XML_SetUserData(c.xml, &c);
    XML_SetElementHandler(c.xml, on_start, on_end);
    XML_SetCharacterDataHandler(c.xml, on_text);
    XML_SetEntityDeclHandler(c.xml, on_entity);
    bool whole_file = XML_Parse(c.xml, xml, (int)n, XML_TRUE) == XML_STATUS_OK;
    *wrong = XML_GetErrorCode(c.xml);
    /* Text after the end of the document does not spoil what it says. */
    bool fine = whole_file || (*wrong == XML_ERROR_JUNK_AFTER_DOC_ELEMENT && !c.too_much);
    XML_ParserFree(c.xml);
    return fine && c.sizes_fine && c.pixels_depth != 0;
}

bool ome_parse(const char *xml, size_t n, size_t max_blocks, ome_t *out) {
    *out = (ome_t){.order = "XYCZT"};
    if (n > OME_MAX_BYTES) {
        return false;
    }
    enum XML_Error wrong = XML_ERROR_NONE;
    bool ok = parse_as(NULL, xml, n, max_blocks, out, &wrong);
    if (!ok && wrong == XML_ERROR_INVALID_TOKEN) { /* a µ in Latin-1 below a header that says UTF-8 */
        ome_free(out);
        ok = parse_as("ISO-8859-1", xml, n, max_blocks, out, &wrong);
    }
    return ok;
}

void ome_free(ome_t *o) {
    free(o->blocks);
    o->blocks = NULL;
    o->nblocks = 0;
}
