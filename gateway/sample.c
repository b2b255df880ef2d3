/*
 * The sample project, see sample.h. Its images take the same way as a person's uploads, so the sample also shows that
 * this way works.
 */
#include "sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/image/image.h"
#include "common/log.h"
#include "routes/projects.h"
#include "routes/submit.h"
#include "routes/upload.h"
#include "sample_image.h"

typedef enum { AS_TIFF16, AS_PNG, AS_JPEG } sample_file_t;

/* The names tell which model fits (see submit.c). */
static const struct {
    const char *name;
    sample_file_t file;
    double um_per_px; /* TIFF only */
    sample_field_t field;
} samples[SAMPLE_IMAGES] = {
    {"Nuclei, sparse.tif", AS_TIFF16, 0.65, {512, 512, 36, 15, 0.15, 900, 8, 101}},
    {"Nuclei, dense.tif", AS_TIFF16, 0.65, {768, 768, 190, 16, 0.18, 1100, 8, 202}},
    {"Nuclei, large field.tif", AS_TIFF16, 0.65, {1280, 960, 230, 17, 0.2, 1000, 8, 303}},
    {"Nuclei, dim.tif", AS_TIFF16, 0.65, {640, 480, 60, 15, 0.15, 220, 12, 404}},
    {"Spheroid, single well.png", AS_PNG, 0, {800, 600, 1, 150, 0.05, 0.75, 2.2, 505}},
    {"Spheroids, many.png", AS_PNG, 0, {1200, 900, 38, 46, 0.28, 0.68, 2.2, 606}},
    {"Spheroids, colour camera.jpg", AS_JPEG, 0, {1024, 768, 9, 72, 0.2, 0.7, 2.5, 707}},
    {"Spheroids, pair.png", AS_PNG, 0, {640, 640, 2, 105, 0.12, 0.8, 2.2, 808}},
};

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
}

enum { TIFF_SHORT = 3, TIFF_LONG = 4, TIFF_RATIONAL = 5 };

static void tiff_entry(buf_t *out, uint16_t tag, uint16_t type, uint32_t value) {
    buf_put_u16le(out, tag);
    buf_put_u16le(out, type);
    buf_put_u32le(out, 1);
    buf_put_u32le(out, value);
}

/* A grey 16-bit baseline TIFF (TIFF 6.0, sections 2 to 4) with its pixel size: header, directory, one rational, one
 * strip. */
static void write_tiff16(const uint16_t *px, int width, int height, double um_per_px, buf_t *out) {
    enum { ENTRIES = 13, DIRECTORY = 8, RATIONAL = DIRECTORY + 2 + ENTRIES * 12 + 4, STRIP = RATIONAL + 8 };
    const size_t n = (size_t)width * (size_t)height;
    buf_append(out, "II*\0", 4);
    buf_put_u32le(out, DIRECTORY);
    buf_put_u16le(out, ENTRIES);
    tiff_entry(out, 256, TIFF_LONG, (uint32_t)width);
    tiff_entry(out, 257, TIFF_LONG, (uint32_t)height);
    tiff_entry(out, 258, TIFF_SHORT, 16); /* bits per sample */
    tiff_entry(out, 259, TIFF_SHORT, 1);  /* not compressed */
    tiff_entry(out, 262, TIFF_SHORT, 1);  /* 0 is black */
    tiff_entry(out, 273, TIFF_LONG, STRIP);
    tiff_entry(out, 277, TIFF_SHORT, 1);               /* samples per pixel */
    tiff_entry(out, 278, TIFF_LONG, (uint32_t)height); /* rows per strip */
    tiff_entry(out, 279, TIFF_LONG, (uint32_t)(n * 2));
    tiff_entry(out, 282, TIFF_RATIONAL, RATIONAL);
    tiff_entry(out, 283, TIFF_RATIONAL, RATIONAL);
    tiff_entry(out, 296, TIFF_SHORT, 3); /* resolution per centimetre */
    tiff_entry(out, 339, TIFF_SHORT, 1); /* unsigned */
    buf_put_u32le(out, 0);
    buf_put_u32le(out, (uint32_t)(10000.0 / um_per_px * 100.0 + 0.5));
    buf_put_u32le(out, 100);
    for (size_t i = 0; i < n; i++) {
        buf_put_u16le(out, px[i]);
    }
}

static err_kind_t render_tiff(const sample_field_t *f, double um, uint8_t **bytes, size_t *n, err_t *err) {
    const size_t pixels = (size_t)f->width * (size_t)f->height;
    uint16_t *px = malloc(pixels * sizeof *px);
    buf_t out;
    buf_init(&out, pixels * 2 + 1024);
    bool ok = px && sample_draw_nuclei(f, px) == 0;
    if (ok) {
        write_tiff16(px, f->width, f->height, um, &out);
        ok = !out.failed;
    }
    free(px);
    if (!ok) {
        buf_free(&out);
        return no_memory(err);
    }
    *bytes = (uint8_t *)buf_take(&out, n);
    return ERR_OK;
}

static err_kind_t render_8bit(const sample_field_t *f, bool jpeg, uint8_t **bytes, size_t *n, err_t *err) {
    const int channels = jpeg ? 3 : 1;
    uint8_t *px = malloc((size_t)f->width * (size_t)f->height * (size_t)channels);
    if (!px || sample_draw_spheroids(f, channels, px) != 0) {
        free(px);
        return no_memory(err);
    }
    err_kind_t kind = jpeg ? image_encode_jpeg(px, f->width, f->height, channels, 92, bytes, n, err)
                           : image_encode_png(px, f->width, f->height, channels, bytes, n, err);
    free(px);
    return kind;
}

err_kind_t sample_render(int index, const char **name, uint8_t **bytes, size_t *n, err_t *err) {
    if (index < 0 || index >= SAMPLE_IMAGES) {
        return err_set(err, ERR_NOT_FOUND, "not_found", "There is no such sample.", NULL);
    }
    *name = samples[index].name;
    return samples[index].file == AS_TIFF16
               ? render_tiff(&samples[index].field, samples[index].um_per_px, bytes, n, err)
               : render_8bit(&samples[index].field, samples[index].file == AS_JPEG, bytes, n, err);
}

/* Finds or inserts the project, in a transaction that holds the user's row: two clicks make one project. */
static err_kind_t find_or_insert(gateway_t *gw, pg_conn_t *conn, const char *user_id, char project_id[37],
                                 bool *created, err_t *err) {
    PGresult *res = NULL;
    err_kind_t kind = pg_exec(conn, "SELECT 1 FROM users WHERE id = $1 FOR NO KEY UPDATE", 1, &user_id, NULL, err);
    if (kind == ERR_OK) {
        kind = pg_exec(conn, "SELECT id FROM projects WHERE owner_id = $1 AND is_sample ORDER BY created_at LIMIT 1", 1,
                       &user_id, &res, err);
    }
    if (kind == ERR_OK && PQntuples(res) == 0) {
        PQclear(res);
        res = NULL;
        *created = true;
        kind = pg_exec(conn,
                       "INSERT INTO projects (owner_id, title, description, is_sample) VALUES ($1, 'Sample project', "
                       "'Computed images of nuclei and spheroids, to try things out.', true) RETURNING id",
                       1, &user_id, &res, err);
    }
    if (kind == ERR_OK) {
        snprintf(project_id, 37, "%s", pg_get(res, 0, "id"));
    }
    PQclear(res);
    if (kind == ERR_OK && *created) {
        submit_request_t sr;
        submit_defaults(&sr);
        kind = submit_check(gw, conn, user_id, project_id, &sr, SAMPLE_IMAGES, err);
    }
    return kind;
}

static err_kind_t add_image(gateway_t *gw, const char *user_id, const char *project_id, int index, err_t *err) {
    const char *name = NULL;
    uint8_t *bytes = NULL;
    size_t n = 0;
    upload_t *u = NULL;
    char image_id[37];
    submit_request_t sr;
    submit_defaults(&sr);
    err_kind_t kind = sample_render(index, &name, &bytes, &n, err);
    if (kind == ERR_OK) {
        kind = upload_begin(gw, user_id, project_id, &u, err);
    }
    if (kind == ERR_OK) {
        kind = upload_write(u, bytes, n, err);
    }
    if (kind == ERR_OK) {
        kind = upload_finish(u, name, strlen(name), &sr, image_id, err);
    }
    upload_end(u);
    free(bytes);
    return kind;
}

err_kind_t sample_create(gateway_t *gw, const char *user_id, char project_id[37], bool *created, err_t *err) {
    pg_conn_t *conn = NULL;
    *created = false;
    err_kind_t kind = pg_acquire(gw->pg, &conn, err);
    if (kind == ERR_OK) {
        kind = pg_begin(conn, err);
    }
    if (kind == ERR_OK) {
        kind = find_or_insert(gw, conn, user_id, project_id, created, err);
        if (kind == ERR_OK) {
            kind = pg_commit(conn, err);
        } else {
            pg_rollback(conn);
        }
    }
    pg_release(conn);
    if (kind != ERR_OK || !*created) {
        return kind;
    }
    for (int i = 0; i < SAMPLE_IMAGES && kind == ERR_OK; i++) {
        kind = add_image(gw, user_id, project_id, i, err);
    }
    if (kind != ERR_OK) {
        err_t again = {0};
        if (projects_remove(gw, user_id, project_id, &again) != ERR_OK) {
            log_error(LOG_WARN, "a half-filled sample project was left behind", &again);
        }
    }
    return kind;
}
