/*
 * Uploads, see upload.h. What can fail is ordered so that no state is ever seen half made: the file is complete in
 * storage before its row is committed, and a file whose row did not come is deleted. The one thing that cannot be
 * known, whether a COMMIT whose answer was lost took place, is looked up before anything is deleted.
 */
#include "upload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"
#include "common/image/region.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/uuid.h"
#include "gateway/derivatives.h"
#include "gateway/names.h"
#include "images.h"
#include "route_util.h"

struct upload {
    gateway_t *gw;
    char user_id[37], project_id[37], image_id[37];
    char key[128];
    storage_put_t *put; /* NULL once it was committed or aborted */
    hash_t *sha;        /* NULL once it was ended */
    int64_t size;
};

static void count_outcome(const char *format, err_kind_t kind, int64_t bytes) {
    metric_t *uploads =
        metrics_counter("spheroseg_uploads_total", "Uploads by file format and outcome", "format,outcome");
    metric_t *total = metrics_counter("spheroseg_upload_bytes_total", "Bytes of stored uploads", NULL);
    const char *outcome = kind == ERR_OK            ? "stored"
                          : kind == ERR_TOO_LARGE   ? "too_large"
                          : kind == ERR_UNSUPPORTED ? "unsupported"
                          : kind == ERR_INVALID     ? "invalid"
                                                    : "failed";
    metrics_add(uploads, (const char *const[]){format, outcome}, 1);
    if (kind == ERR_OK) {
        metrics_add(total, NULL, (double)bytes);
    }
}

err_kind_t upload_too_large(const gateway_t *gw, err_t *err) {
    const double mib = (double)gw->cfg->max_upload_size / 1048576.0;
    return err_setf(err, ERR_TOO_LARGE, "upload_too_large",
                    "The file is larger than %.4g MiB, the limit of this server.", mib);
}

/* lock: hold the project's row until the transaction ends, so that two uploads cannot both take the last place and a
 * deletion cannot overtake an upload. */
static err_kind_t check_room(gateway_t *gw, pg_conn_t *conn, const char *user_id, const char *project_id, bool lock,
                             err_t *err) {
    PGresult *res = NULL;
    err_kind_t kind = pg_exec(conn,
                              lock ? "SELECT 1 FROM projects WHERE id = $1 AND owner_id = $2 FOR NO KEY UPDATE"
                                   : "SELECT 1 FROM projects WHERE id = $1 AND owner_id = $2",
                              2, (const char *const[]){project_id, user_id}, &res, err);
    if (kind == ERR_OK && PQntuples(res) == 0) {
        kind = route_not_found(err, "project");
    }
    PQclear(res);
    res = NULL;
    if (kind == ERR_OK) {
        kind = pg_exec(conn, "SELECT count(*) AS n FROM images WHERE project_id = $1", 1,
                       (const char *const[]){project_id}, &res, err);
    }
    if (kind == ERR_OK && pg_get_int(res, 0, "n", 0) >= gw->cfg->max_images_per_project) {
        kind = err_setf(err, ERR_CONFLICT, "project_full",
                        "This project has %lld images, which is the limit. Please use another project.",
                        (long long)pg_get_int(res, 0, "n", 0));
    }
    PQclear(res);
    return kind;
}

err_kind_t upload_check(gateway_t *gw, const char *user_id, const char *project_id, err_t *err) {
    pg_conn_t *conn = NULL;
    err_kind_t kind = pg_acquire(gw->pg, &conn, err);
    if (kind == ERR_OK) {
        kind = check_room(gw, conn, user_id, project_id, false, err);
    }
    pg_release(conn);
    return kind;
}

err_kind_t upload_begin(gateway_t *gw, const char *user_id, const char *project_id, upload_t **out, err_t *err) {
    *out = NULL;
    upload_t *u = calloc(1, sizeof *u);
    if (!u) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    u->gw = gw;
    snprintf(u->user_id, sizeof u->user_id, "%s", user_id);
    snprintf(u->project_id, sizeof u->project_id, "%s", project_id);
    u->sha = hash_sha256_begin();
    uuid_v4(u->image_id);
    err_kind_t kind = ERR_OK;
    if (!u->sha) {
        kind = err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    } else {
        snprintf(u->key, sizeof u->key, "images/%s/original", u->image_id);
        kind = storage_put_begin(gw->storage, u->key, &u->put, err);
    }
    if (kind != ERR_OK) {
        upload_end(u);
        return kind;
    }
    *out = u;
    return ERR_OK;
}

err_kind_t upload_write(upload_t *u, const void *data, size_t n, err_t *err) {
    if ((int64_t)n > u->gw->cfg->max_upload_size - u->size) {
        return upload_too_large(u->gw, err);
    }
    if (!hash_update(u->sha, data, n)) {
        return err_set(err, ERR_INTERNAL, "crypto_failed", "The server could not take the file.", NULL);
    }
    u->size += (int64_t)n;
    return storage_put_write(u->put, data, n, err);
}

void upload_count_refused(const upload_t *u, err_kind_t kind) {
    count_outcome(image_format_name(IMAGE_UNKNOWN), kind, u->size);
}

void upload_end(upload_t *u) {
    if (!u) {
        return;
    }
    if (u->put) {
        storage_put_abort(u->put);
    }
    hash_abort(u->sha);
    free(u);
}

/* What is known of the file. */
typedef struct {
    image_info_t info;
    image_layout_t layout; /* of its planes */
} contents_t;

static err_kind_t look_into(const char *path, const image_limits_t *limits, contents_t *c, err_t *err) {
    image_reader_t *reader = NULL;
    err_kind_t kind = image_probe(path, limits, &c->info, err);
    if (kind == ERR_OK) {
        kind = image_open(path, limits, &reader, err);
    }
    if (kind == ERR_OK) {
        c->layout = image_reader_layout(reader);
    }
    image_close(reader);
    return kind;
}

static err_kind_t insert_image(upload_t *u, pg_conn_t *conn, const contents_t *c, const char *name, const char *sha_hex,
                               const submit_request_t *submit, submit_result_t *job, err_t *err) {
    const image_info_t *info = &c->info;
    char size[24], width[16], height[16], depth[16], channels[16], pages[16], pixel[32];
    char plane_channels[16], slices[16], times[16];
    snprintf(plane_channels, sizeof plane_channels, "%d", c->layout.channels);
    snprintf(slices, sizeof slices, "%d", c->layout.slices);
    snprintf(times, sizeof times, "%d", c->layout.times);
    snprintf(size, sizeof size, "%lld", (long long)u->size);
    snprintf(width, sizeof width, "%d", info->width);
    snprintf(height, sizeof height, "%d", info->height);
    snprintf(depth, sizeof depth, "%d", info->bit_depth);
    snprintf(channels, sizeof channels, "%d", info->channels);
    snprintf(pages, sizeof pages, "%d", info->pages);
    /* TIFF keeps resolutions as fractions that readers hold in single precision: 0.65 comes as 0.6499998. */
    snprintf(pixel, sizeof pixel, "%.6g", info->pixel_size_um);
    const bool has_pixel = info->pixel_size_um > 0 && info->pixel_size_um < 1e9;
    const char *const params[] = {u->image_id,
                                  u->project_id,
                                  name,
                                  image_format_name(info->format),
                                  size,
                                  sha_hex,
                                  u->key,
                                  width,
                                  height,
                                  depth,
                                  channels,
                                  pages,
                                  has_pixel ? pixel : NULL,
                                  plane_channels,
                                  slices,
                                  times};
    err_kind_t kind = check_room(u->gw, conn, u->user_id, u->project_id, true, err);
    if (kind == ERR_OK) {
        kind =
            pg_exec(conn,
                    "INSERT INTO images (id, project_id, name, format, byte_size, sha256, storage_key, width, height, "
                    "bit_depth, channels, pages, pixel_size_um, plane_channels, slices, times) VALUES ($1, $2, $3, $4, "
                    "$5, decode($6, 'hex'), $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
                    16, params, NULL, err);
    }
    if (kind == ERR_OK && submit) {
        kind = submit_check(u->gw, conn, u->user_id, u->project_id, submit, 1, err);
        if (kind == ERR_OK) {
            kind = submit_image(u->gw, conn, u->user_id, u->image_id, submit, job, err);
        }
    }
    return kind;
}

/* After a COMMIT that failed: is the row there all the same? Unknown counts as yes, as losing a person's image is worse
 * than keeping a file too many. */
static bool row_may_exist(upload_t *u) {
    PGresult *res = NULL;
    err_t ignored = {0};
    bool exists = true;
    if (pg_query(u->gw->pg, "SELECT 1 FROM images WHERE id = $1", 1, (const char *const[]){u->image_id}, &res,
                 &ignored) == ERR_OK) {
        exists = PQntuples(res) > 0;
    }
    PQclear(res);
    return exists;
}

/* The row, in one transaction. *keep_file: the row is there or may be. */
static err_kind_t commit_image(upload_t *u, const contents_t *contents, const char *name, const char *sha_hex,
                               const submit_request_t *submit, submit_result_t *job, bool *keep_file, err_t *err) {
    pg_conn_t *conn = NULL;
    *keep_file = false;
    err_kind_t kind = pg_acquire(u->gw->pg, &conn, err);
    if (kind == ERR_OK) {
        kind = pg_begin(conn, err);
    }
    bool committing = false;
    if (kind == ERR_OK) {
        kind = insert_image(u, conn, contents, name, sha_hex, submit, job, err);
        if (kind == ERR_OK) {
            committing = true;
            kind = pg_commit(conn, err);
        } else {
            pg_rollback(conn);
        }
    }
    pg_release(conn);
    *keep_file = kind == ERR_OK || (committing && row_may_exist(u));
    return kind;
}

typedef struct {
    gateway_t *gw;
    char project_id[37];
} announce_t;

static void thumbnail_done(void *arg, const char *image_id, int ok) {
    announce_t *a = arg;
    if (ok) {
        images_publish(a->gw, a->project_id, image_id, "thumbnail");
    }
    free(a);
}

static void announce(upload_t *u, const submit_result_t *job) {
    int position = -1;
    images_publish(u->gw, u->project_id, u->image_id, "created");
    if (job->job_id[0]) {
        submit_enqueue(u->gw, job, &position);
    }
    announce_t *a = calloc(1, sizeof *a);
    if (a) {
        a->gw = u->gw;
        memcpy(a->project_id, u->project_id, sizeof a->project_id);
        derivatives_prepare(u->gw->derivatives, u->image_id, u->key, thumbnail_done, a);
    }
}

err_kind_t upload_finish(upload_t *u, const char *name, size_t name_len, const submit_request_t *submit,
                         char image_id[37], err_t *err) {
    const image_limits_t limits = {.max_pixels = u->gw->cfg->max_image_pixels,
                                   .max_decoded_bytes = u->gw->cfg->max_decoded_bytes,
                                   .max_pages = (int32_t)u->gw->cfg->max_image_pages};
    contents_t contents = {0};
    char clean[NAMES_ROOM], sha_hex[HASH_SHA256_HEX_SIZE];
    uint8_t sha[HASH_SHA256_SIZE];
    submit_result_t job = {0};
    bool keep_file = false;
    names_sanitise(name, name_len, clean);
    err_kind_t kind = u->size > 0 ? storage_put_flush(u->put, err)
                                  : err_set(err, ERR_INVALID, "image_empty", "The file is empty.", NULL);
    if (kind == ERR_OK) {
        kind = look_into(storage_put_path(u->put), &limits, &contents, err);
    }
    if (kind == ERR_OK) {
        if (!hash_sha256_end(u->sha, sha)) {
            kind = err_set(err, ERR_INTERNAL, "crypto_failed", "The server could not take the file.", NULL);
        }
        u->sha = NULL;
    }
    if (kind == ERR_OK) {
        hash_hex_encode(sha, sizeof sha, sha_hex);
        kind = storage_put_commit(u->put, err);
        u->put = NULL;
        if (kind == ERR_OK) {
            kind = commit_image(u, &contents, clean, sha_hex, submit, &job, &keep_file, err);
            err_t ignored = {0};
            if (!keep_file && storage_delete(u->gw->storage, u->key, &ignored) != ERR_OK) {
                log_error(LOG_WARN, "the file of a refused upload was left behind", &ignored);
            }
        }
    }
    count_outcome(image_format_name(contents.info.format), kind, u->size);
    if (kind == ERR_OK) {
        memcpy(image_id, u->image_id, 37);
        announce(u, &job);
    }
    return kind;
}
