/*
 * Jobs: list, read, cancel, retry; one or all of a project. All changes go through the queue, which keeps rows and
 * Redis together.
 */
#ifndef SG_GATEWAY_JOBS_H
#define SG_GATEWAY_JOBS_H

#include "gateway/http.h"

typedef enum { JOBS_OF_PROJECT, JOBS_OF_IMAGE } jobs_scope_t;

/* Cancels every unfinished job of the project or image. What ends by itself meanwhile is not counted. */
ERR_MUST err_kind_t jobs_cancel_where(gateway_t *gw, jobs_scope_t scope, const char *id, int *cancelled, err_t *err);

/* Handlers of the table in segmentation.c. */
ERR_MUST err_kind_t jobs_list(http_request_t *req, err_t *err);
ERR_MUST err_kind_t jobs_get(http_request_t *req, err_t *err);
ERR_MUST err_kind_t jobs_cancel(http_request_t *req, err_t *err);
ERR_MUST err_kind_t jobs_retry(http_request_t *req, err_t *err);
ERR_MUST err_kind_t jobs_cancel_project(http_request_t *req, err_t *err);
ERR_MUST err_kind_t jobs_retry_project(http_request_t *req, err_t *err);

/* GET /api/segmentation/job/{jobId}/preview; in preview.c */
ERR_MUST err_kind_t preview_get(http_request_t *req, err_t *err);

#endif
