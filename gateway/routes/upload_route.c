/*
 * POST /api/projects/{projectId}/images: the body, raw or as a form, goes to the upload in pieces as it arrives.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "gateway/multipart.h"
#include "images.h"
#include "route_util.h"
#include "upload.h"

enum { PIECE = 65536, FORM_OVERHEAD = 65536, FIELD_MAX = 1024 };

/* A form on its way in: exactly one part with a file name (or the name "file") is the image. */
typedef struct {
    upload_t *upload;
    bool in_file, got_file;
    char name[FIELD_MAX];
    size_t name_len;
    size_t other_bytes; /* of fields that are no file */
} form_t;

static err_kind_t part_begin(void *arg, const multipart_part_t *part, err_t *err) {
    form_t *f = arg;
    f->in_file = part->file_name != NULL || strcmp(part->name, "file") == 0;
    if (!f->in_file) {
        return ERR_OK;
    }
    if (f->got_file) {
        return err_set(err, ERR_INVALID, "multipart_invalid", "Send one file per request.", NULL);
    }
    f->got_file = true;
    /* The end of a long name holds its extension; what stands before a slash is dropped later. */
    const char *name = part->file_name ? part->file_name : "";
    size_t skip = part->file_name_len > sizeof f->name ? part->file_name_len - sizeof f->name : 0;
    f->name_len = part->file_name_len - skip;
    memcpy(f->name, name + skip, f->name_len);
    return ERR_OK;
}

static err_kind_t part_data(void *arg, const char *bytes, size_t n, err_t *err) {
    form_t *f = arg;
    if (f->in_file) {
        return upload_write(f->upload, bytes, n, err);
    }
    f->other_bytes += n;
    return f->other_bytes <= FORM_OVERHEAD
               ? ERR_OK
               : err_set(err, ERR_INVALID, "multipart_invalid", "The form has too many other fields.", NULL);
}

static err_kind_t part_end(void *arg, err_t *err) {
    (void)err;
    ((form_t *)arg)->in_file = false;
    return ERR_OK;
}

/* Reads the whole body into the upload; parser is NULL for raw bytes. */
static err_kind_t receive(http_request_t *req, upload_t *u, multipart_t *parser, err_t *err) {
    char *piece = malloc(PIECE);
    if (!piece) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    err_kind_t kind = ERR_OK;
    int n = 0;
    while (kind == ERR_OK) {
        /* What TLS has ready may be little: fill the piece before it is written. */
        size_t have = 0;
        while (have < PIECE && (n = http_read_body(req, piece + have, PIECE - have)) > 0) {
            have += (size_t)n;
        }
        if (n < 0) {
            kind = err_set(err, ERR_INVALID, "body_incomplete", "The upload was interrupted. Please try again.", NULL);
        } else if (have == 0) {
            break;
        } else {
            kind = parser ? multipart_feed(parser, piece, have, err) : upload_write(u, piece, have, err);
        }
        if (n == 0) {
            break;
        }
    }
    free(piece);
    if (kind == ERR_OK && parser) {
        kind = multipart_finish(parser, err);
    }
    return kind;
}

static bool is_form(const http_request_t *req) {
    const char *type = http_header(req, "Content-Type");
    return type && strncasecmp(type, "multipart/", 10) == 0;
}

/* Everything that can be refused before a byte of the body is read. */
static err_kind_t check_first(http_request_t *req, bool form, const submit_request_t *submit, err_t *err) {
    gateway_t *gw = req->gw;
    const int64_t length = http_content_length(req);
    if (length > gw->cfg->max_upload_size + (form ? FORM_OVERHEAD : 0)) {
        return upload_too_large(gw, err);
    }
    if (length == 0) {
        return err_set(err, ERR_INVALID, "image_empty", "The file is empty.", NULL);
    }
    err_kind_t kind = upload_check(gw, req->user.id, req->params[0], err);
    if (kind != ERR_OK || !submit) {
        return kind;
    }
    pg_conn_t *conn = NULL;
    kind = pg_acquire(gw->pg, &conn, err);
    if (kind == ERR_OK) {
        kind = submit_check(gw, conn, req->user.id, req->params[0], submit, 1, err);
    }
    pg_release(conn);
    return kind;
}

static err_kind_t receive_and_finish(http_request_t *req, bool is_multipart, const char *name,
                                     const submit_request_t *submit, char image_id[37], err_t *err) {
    upload_t *u = NULL;
    form_t form = {0};
    multipart_t *parser = NULL;
    err_kind_t kind = upload_begin(req->gw, req->user.id, req->params[0], &u, err);
    if (kind != ERR_OK) {
        return kind;
    }
    form.upload = u;
    if (is_multipart) {
        const multipart_handler_t on = {.begin = part_begin, .data = part_data, .end = part_end, .arg = &form};
        parser = arena_alloc(req->arena, sizeof *parser);
        kind = parser ? multipart_init(parser, http_header(req, "Content-Type"), &on, err)
                      : err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    if (kind == ERR_OK) {
        kind = receive(req, u, parser, err);
    }
    if (kind == ERR_OK && is_multipart && !form.got_file) {
        kind = err_set(err, ERR_INVALID, "multipart_invalid", "The form holds no file.", NULL);
    }
    if (kind != ERR_OK) {
        upload_count_refused(u, kind);
    } else if (name || !is_multipart) {
        kind = upload_finish(u, name ? name : "", name ? strlen(name) : 0, submit, image_id, err);
    } else {
        kind = upload_finish(u, form.name, form.name_len, submit, image_id, err);
    }
    upload_end(u);
    return kind;
}

err_kind_t upload_route(http_request_t *req, err_t *err) {
    const bool form = is_form(req);
    bool segment = false;
    char image_id[37];
    submit_request_t submit;
    submit_defaults(&submit);
    err_kind_t kind = http_query_bool(req, "segment", false, &segment, err);
    if (kind == ERR_OK) {
        kind = check_first(req, form, segment ? &submit : NULL, err);
    }
    if (kind == ERR_OK) {
        kind = receive_and_finish(req, form, http_query(req, "name"), segment ? &submit : NULL, image_id, err);
    }
    if (kind != ERR_OK) {
        return route_retry_after(req, kind, 5);
    }
    const char *location = arena_printf(req->arena, "/api/images/%s", image_id);
    if (location) {
        http_add_header(req, "Location", location);
    }
    return images_reply(req, 201, image_id, err);
}
