/*
 * One image on its way into the system: bytes to storage in pieces, hashed as they pass, looked at by the decoder, and
 * only then a row. Used by the upload route and by the sample project. Not thread-safe: one upload, one thread.
 */
#ifndef SG_GATEWAY_UPLOAD_H
#define SG_GATEWAY_UPLOAD_H

#include "gateway/http.h"
#include "submit.h"

typedef struct upload upload_t;

/* Does the project exist, belong to the user and have room? ERR_NOT_FOUND, ERR_CONFLICT "project_full". */
ERR_MUST err_kind_t upload_check(gateway_t *gw, const char *user_id, const char *project_id, err_t *err);

ERR_MUST err_kind_t upload_begin(gateway_t *gw, const char *user_id, const char *project_id, upload_t **out,
                                 err_t *err);
/* ERR_TOO_LARGE "upload_too_large" past MAX_UPLOAD_SIZE. */
ERR_MUST err_kind_t upload_write(upload_t *u, const void *data, size_t n, err_t *err);
/* Probes, commits the file, inserts the row and, when submit is given, the job, in one transaction; announces the
 * image and has its thumbnail made. On failure nothing is left behind. name: any text, sanitised here. image_id gets
 * the new id. Decoder errors are ERR_INVALID/ERR_UNSUPPORTED/ERR_TOO_LARGE with codes "image_…". */
ERR_MUST err_kind_t upload_finish(upload_t *u, const char *name, size_t name_len, const submit_request_t *submit,
                                  char image_id[37], err_t *err);
/* Counts an upload that ended before upload_finish. */
void upload_count_refused(const upload_t *u, err_kind_t kind);
/* The error of a file over MAX_UPLOAD_SIZE. */
err_kind_t upload_too_large(const gateway_t *gw, err_t *err);
/* Frees it; without a successful upload_finish everything written is removed. NULL is allowed. */
void upload_end(upload_t *u);

/* POST /api/projects/{projectId}/images */
ERR_MUST err_kind_t upload_route(http_request_t *req, err_t *err);

#endif
