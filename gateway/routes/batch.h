/*
 * The batch trigger, POST /api/projects/{projectId}/segmentation.
 */
#ifndef SG_GATEWAY_BATCH_H
#define SG_GATEWAY_BATCH_H

#include "gateway/http.h"

ERR_MUST err_kind_t batch_segment(http_request_t *req, err_t *err);

#endif
