/*
 * Idempotency-Key: a creating request that is repeated with the same key gets the first answer again, for a day.
 *
 * The key's row is written before the handler runs, with status 0: "somebody is at it". Of two requests at once one
 * inserts and works, the other is told 409 and may ask again. When the handler answered 2xx the row gets the answer;
 * before it is sent;
 * otherwise it is deleted, so that the client may try again with the same key. A row of a process that died at work
 * is taken over after two minutes.
 */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "http_internal.h"

#define IN_PROGRESS_TEXT "120 seconds"

static bool key_is_valid(const char *key) {
    size_t n = strlen(key);
    if (n < 1 || n > 128) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (key[i] < 0x21 || key[i] > 0x7e) {
            return false;
        }
    }
    return true;
}

/* 1: the row is ours now. 0: somebody has it. */
static err_kind_t claim_key(http_request_t *req, const char *key, const char *what, bool *ours, err_t *err) {
    const char *params[] = {req->user.id, key, what};
    PGresult *res = NULL;
    err_kind_t k = pg_query(req->gw->pg,
                            "INSERT INTO idempotency_keys AS i (user_id, key, method_path, status, body)"
                            " VALUES ($1, $2, $3, 0, '') ON CONFLICT (user_id, key) DO UPDATE"
                            " SET created_at = now(), method_path = $3, status = 0, body = ''"
                            " WHERE i.created_at < now() - interval '1 day'"
                            " OR (i.status = 0 AND i.created_at < now() - interval '" IN_PROGRESS_TEXT "')",
                            3, params, &res, err);
    if (k == ERR_OK) {
        *ours = pg_affected(res) == 1;
        PQclear(res);
    }
    return k;
}

static err_kind_t replay(http_request_t *req, const PGresult *res, const char *what, err_t *err) {
    const char *before = pg_get(res, 0, "method_path");
    int status = (int)pg_get_int(res, 0, "status", 0);
    if (!before || strcmp(before, what) != 0) {
        return err_set(err, ERR_CONFLICT, "idempotency_key_reused",
                       "This Idempotency-Key was used for another request. Use a new key for each new request.", NULL);
    }
    if (status == 0) {
        http_add_header(req, "Retry-After", "1");
        return err_set(err, ERR_CONFLICT, "idempotency_in_progress",
                       "The first request with this Idempotency-Key is still being worked on. Please try again.", NULL);
    }
    const char *body = pg_get(res, 0, "body");
    http_add_header(req, "Idempotency-Replayed", "true");
    if (!body || !*body) {
        return http_reply_empty(req, status);
    }
    return http_reply_text(req, status, "application/json", body, strlen(body));
}

err_kind_t idempotency_begin(http_request_t *req, bool *replayed, err_t *err) {
    http_exchange_t *ex = http_exchange(req);
    const char *key = http_header(req, "Idempotency-Key");
    *replayed = false;
    if (!key || !req->user.id[0]) {
        return ERR_OK;
    }
    if (!key_is_valid(key)) {
        return err_set(err, ERR_INVALID, "idempotency_key_invalid",
                       "An Idempotency-Key is 1 to 128 visible ASCII characters.", NULL);
    }
    char *what = arena_printf(req->arena, "%s %s", req->method, req->path);
    char *copy = arena_strdup(req->arena, key);
    if (!what || !copy) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory. Please try again.", NULL);
    }
    for (int attempt = 0; attempt < 2; attempt++) {
        bool ours = false;
        err_kind_t k = claim_key(req, copy, what, &ours, err);
        if (k != ERR_OK) {
            return k;
        }
        if (ours) {
            ex->idem_key = copy;
            return ERR_OK;
        }
        const char *params[] = {req->user.id, copy};
        PGresult *res = NULL;
        k = pg_query(req->gw->pg,
                     "SELECT method_path, status, body FROM idempotency_keys WHERE user_id = $1 AND key = $2", 2,
                     params, &res, err);
        if (k != ERR_OK) {
            return k;
        }
        if (PQntuples(res) == 1) {
            k = replay(req, res, what, err);
            *replayed = k == ERR_OK;
            PQclear(res);
            return k;
        }
        PQclear(res); /* forgotten in between: try to take it once more */
    }
    return err_set(err, ERR_CONFLICT, "idempotency_in_progress",
                   "The first request with this Idempotency-Key is still being worked on. Please try again.", NULL);
}

void idempotency_keep(http_request_t *req, int answer_status, const char *body, size_t n) {
    http_exchange_t *ex = http_exchange(req);
    err_t err;
    if (!ex->idem_key || answer_status < 200 || answer_status >= 300 || n >= HTTP_IDEMPOTENT_BODY_MAX) {
        return;
    }
    char status[16];
    (void)snprintf(status, sizeof status, "%d", answer_status);
    const char *params[] = {req->user.id, ex->idem_key, status, body};
    if (pg_query(req->gw->pg, "UPDATE idempotency_keys SET status = $3::int, body = $4 WHERE user_id = $1 AND key = $2",
                 4, params, NULL, &err) != ERR_OK) {
        log_error(LOG_WARN, "keeping the answer of an Idempotency-Key", &err);
        return;
    }
    ex->idem_key = NULL;
}

void idempotency_end(http_request_t *req) {
    http_exchange_t *ex = http_exchange(req);
    err_t err;
    if (!ex->idem_key) {
        return;
    }
    const char *params[] = {req->user.id, ex->idem_key};
    if (pg_query(req->gw->pg, "DELETE FROM idempotency_keys WHERE user_id = $1 AND key = $2", 2, params, NULL, &err) !=
        ERR_OK) {
        log_error(LOG_WARN, "giving back an Idempotency-Key", &err);
    }
    ex->idem_key = NULL;
}

err_kind_t idempotency_sweep(pg_pool_t *pg, err_t *err) {
    return pg_query(pg, "DELETE FROM idempotency_keys WHERE created_at < now() - interval '1 day'", 0, NULL, NULL, err);
}
