/*
 * What other resources need of images (proto/openapi.yaml: Image). On the request's thread.
 */
#ifndef SG_GATEWAY_IMAGES_H
#define SG_GATEWAY_IMAGES_H

#include "gateway/http.h"

/* Row with an image's columns and JOB_COLUMNS -> Image. live: as job_json. NULL when memory is gone. */
cJSON *image_json(queue_t *q, const PGresult *res, int row, bool live);

/* One cheap row of the caller's image: id, project_id, name, format, storage_key, width, height, pixel_size_um,
 * current_segmentation_id, sha256 (hex). ERR_NOT_FOUND when it is not there or not theirs. The caller clears *res. */
ERR_MUST err_kind_t images_find_file(http_request_t *req, const char *image_id, PGresult **res, err_t *err);

/* Answers with the caller's image and its ETag, or returns ERR_NOT_FOUND. */
ERR_MUST err_kind_t images_reply(http_request_t *req, int status, const char *image_id, err_t *err);

/* Publishes {"type":"image",…}. change: "created", "deleted" or "thumbnail". Thread-safe. */
void images_publish(gateway_t *gw, const char *project_id, const char *image_id, const char *change);

#endif
