/*
 * The submit route, POST /api/images/{imageId}/segmentation.
 */
#ifndef SG_GATEWAY_SUBMIT_ONE_H
#define SG_GATEWAY_SUBMIT_ONE_H

#include "gateway/http.h"

ERR_MUST err_kind_t submit_one_route(http_request_t *req, err_t *err);

#endif
