/*
 * The JSON of a Job (proto/openapi.yaml), shared by the routes and the WebSocket snapshot. Owned by
 * routes/segmentation.
 */
#ifndef SG_GATEWAY_JOB_JSON_H
#define SG_GATEWAY_JOB_JSON_H

#include <cjson/cJSON.h>

#include "common/pg.h"
#include "common/queue.h"

/* Columns to select, with jobs as j and images as i. */
extern const char *const JOB_COLUMNS;

/* Row -> Job. Active jobs get live progress from Redis, waiting ones their position (both only if live). NULL when
 * memory is gone. */
cJSON *job_json(queue_t *q, const PGresult *res, int row, bool live);

#endif
