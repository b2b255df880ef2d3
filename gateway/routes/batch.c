/*
 * Many images at once: one transaction with set-based statements for up to 10,000 jobs, then the queue in pages.
 */
#include "batch.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/buf.h"
#include "common/log.h"
#include "route_util.h"
#include "submit.h"

/* 10,000 quoted UUIDs with commas are 390 KB; with generous white space and the other fields under this. */
enum { BATCH_BODY_MAX = 1048576, BATCH_IDS_MAX = 10000, UUID_LEN = 36 };

typedef struct {
    char *array; /* PostgreSQL's text form of uuid[]; NULL: all images */
    int distinct;
    bool only_missing;
    submit_request_t submit;
} batch_request_t;

static int compare_ids(const void *a, const void *b) {
    return strcasecmp(*(const char *const *)a, *(const char *const *)b);
}

/* "{a,b,…}" without repetitions. ids is sorted here. */
static char *make_array(const char **ids, int n, int *distinct) {
    buf_t out;
    buf_init(&out, (size_t)(UUID_LEN + 1) * (size_t)n + 2);
    qsort(ids, (size_t)n, sizeof *ids, compare_ids);
    buf_puts(&out, "{");
    *distinct = 0;
    for (int i = 0; i < n; i++) {
        if (i > 0 && strcasecmp(ids[i], ids[i - 1]) == 0) {
            continue;
        }
        buf_puts(&out, *distinct > 0 ? "," : "");
        buf_puts(&out, ids[i]);
        ++*distinct;
    }
    buf_puts(&out, "}");
    if (out.failed) {
        buf_free(&out);
        return NULL;
    }
    return buf_take(&out, NULL);
}

static err_kind_t parse_ids(const cJSON *list, batch_request_t *b, err_t *err) {
    const int n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : -1;
    if (n < 1 || n > BATCH_IDS_MAX) {
        return err_setf(err, ERR_INVALID, "field_invalid", "imageIds must be a list of 1 to %d image ids.",
                        BATCH_IDS_MAX);
    }
    const char **ids = calloc((size_t)n, sizeof *ids);
    if (!ids) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    err_kind_t kind = ERR_OK;
    int i = 0;
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, list) {
        if (!cJSON_IsString(item) || !pg_is_uuid(item->valuestring)) {
            kind = err_setf(err, ERR_INVALID, "field_invalid", "imageIds[%d] is no image id.", i);
            break;
        }
        ids[i++] = item->valuestring;
    }
    if (kind == ERR_OK) {
        b->array = make_array(ids, n, &b->distinct);
        if (!b->array) {
            kind = err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
        }
    }
    free(ids);
    return kind;
}

static err_kind_t parse_batch(const cJSON *body, batch_request_t *b, err_t *err) {
    bool all = false;
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(body, "imageIds");
    err_kind_t kind = submit_parse(body, &b->submit, err);
    if (kind == ERR_OK) {
        kind = route_field_bool(body, "all", NULL, &all, err);
    }
    if (kind == ERR_OK) {
        kind = route_field_bool(body, "onlyMissing", NULL, &b->only_missing, err);
    }
    if (kind != ERR_OK) {
        return kind;
    }
    if (all == (list != NULL)) {
        return err_set(err, ERR_INVALID, "field_invalid", "Give either imageIds or all: true.", NULL);
    }
    return all ? ERR_OK : parse_ids(list, b, err);
}

static err_kind_t accept_batch(http_request_t *req, const batch_request_t *b, submit_batch_t *out, err_t *err) {
    gateway_t *gw = req->gw;
    pg_conn_t *conn = NULL;
    err_kind_t kind = pg_acquire(gw->pg, &conn, err);
    if (kind == ERR_OK) {
        kind = pg_begin(conn, err);
    }
    if (kind == ERR_OK) {
        kind = submit_batch(gw, conn, req->user.id, req->params[0], b->array, b->distinct, b->only_missing, &b->submit,
                            out, err);
        if (kind == ERR_OK) {
            kind = pg_commit(conn, err);
        } else {
            pg_rollback(conn);
        }
    }
    pg_release(conn);
    return kind;
}

err_kind_t batch_segment(http_request_t *req, err_t *err) {
    cJSON *body = NULL;
    batch_request_t b = {0};
    submit_batch_t out = {0};
    err_kind_t kind = http_read_json(req, BATCH_BODY_MAX, false, &body, err);
    if (kind == ERR_OK) {
        kind = parse_batch(body, &b, err);
    }
    if (kind == ERR_OK) {
        kind = route_own_project(req->gw, req->user.id, req->params[0], err);
    }
    if (kind == ERR_OK) {
        kind = accept_batch(req, &b, &out, err);
    }
    free(b.array);
    cJSON_Delete(body);
    if (kind != ERR_OK) {
        return route_retry_after(req, kind, 10);
    }
    int enqueued = 0;
    err_t later = {0};
    if (out.accepted > 0 && queue_enqueue_batch(req->gw->queue, out.batch_id, &enqueued, &later) != ERR_OK) {
        log_error(LOG_WARN, "a batch waits for the sweeper", &later);
    }
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "batchId", out.batch_id);
    cJSON_AddNumberToObject(json, "accepted", out.accepted);
    cJSON_AddNumberToObject(json, "alreadyQueued", out.already_queued);
    return http_reply_json(req, 202, json);
}
