/*
 * Idempotency-Key: a creating request that is repeated with the same key gets the first answer again, for a day.
 *
 * The key's row is written before the handler runs, with status 0: "somebody is at it". Of two requests at once one
 * inserts and works, the other is told 409 and may ask again. When the handler answered 2xx the row gets the answer,
 * before it is sent; otherwise it is deleted, so that the client may try again with the same key. A row of a process
 * that died at work is taken over after two minutes.
 *
 * A handler that writes the key in the transaction of what it makes (http_key_…) leaves no such gap: either both are
 * there or neither, and who comes second waits for the first one's commit and gets its answer.
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

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory. Please try again.", NULL);
}

err_kind_t http_key_read(http_request_t *req, http_key_t *out, err_t *err) {
    *out = (http_key_t){0};
    const char *key = http_header(req, "Idempotency-Key");
    if (!key || !req->user.id[0]) {
        return ERR_OK;
    }
    if (!key_is_valid(key)) {
        return err_set(err, ERR_INVALID, "idempotency_key_invalid",
                       "An Idempotency-Key is 1 to 128 visible ASCII characters.", NULL);
    }
    out->what = arena_printf(req->arena, "%s %s", req->method, req->path);
    out->key = arena_strdup(req->arena, key);
    return out->what && out->key ? ERR_OK : no_memory(err);
}

static err_kind_t in_progress(http_request_t *req, err_t *err) {
    http_add_header(req, "Retry-After", "1");
    return err_set(err, ERR_CONFLICT, "idempotency_in_progress",
                   "The first request with this Idempotency-Key is still being worked on. Please try again.", NULL);
}

/* Makes the row ours if it is not there, or is left over. */
static err_kind_t take_row(http_request_t *req, pg_conn_t *conn, const http_key_t *key, bool *ours, err_t *err) {
    const char *params[] = {req->user.id, key->key, key->what};
    PGresult *res = NULL;
    err_kind_t k = pg_exec(conn,
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

/* The answer that somebody else's row holds. */
static err_kind_t read_row(http_request_t *req, const PGresult *res, const http_key_t *key, http_kept_t *kept,
                           err_t *err) {
    const char *before = pg_get(res, 0, "method_path");
    const char *body = pg_get(res, 0, "body");
    const int status = (int)pg_get_int(res, 0, "status", 0);
    if (!before || strcmp(before, key->what) != 0) {
        return err_set(err, ERR_CONFLICT, "idempotency_key_reused",
                       "This Idempotency-Key was used for another request. Use a new key for each new request.", NULL);
    }
    if (status == 0) {
        return in_progress(req, err);
    }
    kept->status = status;
    kept->body = arena_strdup(req->arena, body ? body : "");
    return kept->body ? ERR_OK : no_memory(err);
}

err_kind_t http_key_claim(http_request_t *req, pg_conn_t *conn, const http_key_t *key, http_kept_t *kept, err_t *err) {
    *kept = (http_kept_t){0};
    for (int attempt = 0; attempt < 2; attempt++) {
        bool ours = false;
        err_kind_t k = take_row(req, conn, key, &ours, err);
        if (k != ERR_OK || ours) {
            return k;
        }
        PGresult *res = NULL;
        k = pg_exec(conn, "SELECT method_path, status, body FROM idempotency_keys WHERE user_id = $1 AND key = $2", 2,
                    (const char *const[]){req->user.id, key->key}, &res, err);
        const bool found = k == ERR_OK && PQntuples(res) == 1;
        if (found) {
            k = read_row(req, res, key, kept, err);
        }
        PQclear(res);
        if (k != ERR_OK || found) {
            return k;
        }
        /* forgotten in between: try to take it once more */
    }
    return in_progress(req, err);
}

err_kind_t http_key_store(http_request_t *req, pg_conn_t *conn, const http_key_t *key, int status, const char *body,
                          err_t *err) {
    char text[16];
    (void)snprintf(text, sizeof text, "%d", status);
    return pg_exec(conn, "UPDATE idempotency_keys SET status = $3::int, body = $4 WHERE user_id = $1 AND key = $2", 4,
                   (const char *const[]){req->user.id, key->key, text, body}, NULL, err);
}

err_kind_t http_key_replay(http_request_t *req, const http_kept_t *kept) {
    http_add_header(req, "Idempotency-Replayed", "true");
    if (!*kept->body) {
        return http_reply_empty(req, kept->status);
    }
    return http_reply_text(req, kept->status, "application/json", kept->body, strlen(kept->body));
}

err_kind_t idempotency_begin(http_request_t *req, bool *replayed, err_t *err) {
    http_key_t key;
    http_kept_t kept = {0};
    pg_conn_t *conn = NULL;
    *replayed = false;
    err_kind_t k = http_key_read(req, &key, err);
    if (k != ERR_OK || !key.key) {
        return k;
    }
    k = pg_acquire(req->gw->pg, &conn, err);
    if (k == ERR_OK) {
        k = http_key_claim(req, conn, &key, &kept, err);
        pg_release(conn);
    }
    if (k == ERR_OK && kept.status != 0) {
        *replayed = true;
        return http_key_replay(req, &kept);
    }
    if (k == ERR_OK) {
        http_exchange(req)->idem_key = key.key;
    }
    return k;
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
