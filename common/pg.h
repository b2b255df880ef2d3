/*
 * PostgreSQL: a bounded pool of libpq connections (V5).
 *
 * A pg_conn_t belongs to one thread between pg_acquire and pg_release. Connections that broke, that are
 * older than DB_POOL_MAX_USES uses or idle past DB_POOL_IDLE_TIMEOUT are closed; a released connection
 * that is inside a transaction is rolled back. The pool itself is thread-safe.
 *
 * Parameters are text-format C strings (NULL = SQL NULL) unless the binary variant is used.
 * ERR_UNAVAILABLE "database_unavailable": no connection or it broke; safe to try again when the
 * statement is idempotent. ERR_CONFLICT "conflict": unique violation (SQLSTATE 23505).
 */
#ifndef SG_PG_H
#define SG_PG_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "err.h"

typedef struct pg_pool pg_pool_t;
typedef struct pg_conn pg_conn_t;

typedef struct {
    int max, total, idle, in_use, waiting;
    uint64_t acquired_total, timeouts_total, slow_total, errors_total, recycled_total;
} pg_pool_stats_t;

/* Opens no connection yet. */
ERR_MUST err_kind_t pg_pool_create(const config_t *cfg, const char *application_name, pg_pool_t **out, err_t *err);
void pg_pool_destroy(pg_pool_t *pool);
void pg_pool_stats(pg_pool_t *pool, pg_pool_stats_t *out);

/* Waits until the server answers, at most timeout_s seconds; logs what it waits for every second. */
ERR_MUST err_kind_t pg_wait_ready(pg_pool_t *pool, int timeout_s, err_t *err);

/* Waits at most DB_POOL_ACQUIRE_TIMEOUT for a connection. */
ERR_MUST err_kind_t pg_acquire(pg_pool_t *pool, pg_conn_t **out, err_t *err);
void pg_release(pg_conn_t *conn);            /* NULL is allowed */
PGconn *pg_raw(pg_conn_t *conn);             /* for COPY; do not close */

/* Runs one statement. *res (may be NULL when no rows are wanted) is freed by the caller with PQclear. */
ERR_MUST err_kind_t pg_exec(pg_conn_t *conn, const char *sql, int nparams, const char *const *params,
                            PGresult **res, err_t *err);
/* The same with binary parameters where formats[i] == 1 (lengths[i] bytes). Results are text. */
ERR_MUST err_kind_t pg_exec_mixed(pg_conn_t *conn, const char *sql, int nparams, const char *const *params,
                                  const int *lengths, const int *formats, PGresult **res, err_t *err);
/* Acquire, run one statement, release. */
ERR_MUST err_kind_t pg_query(pg_pool_t *pool, const char *sql, int nparams, const char *const *params,
                             PGresult **res, err_t *err);

ERR_MUST err_kind_t pg_begin(pg_conn_t *conn, err_t *err);
ERR_MUST err_kind_t pg_commit(pg_conn_t *conn, err_t *err);
void pg_rollback(pg_conn_t *conn);           /* never fails: a broken connection is closed at release */

/* Number of rows that the statement changed. */
int64_t pg_affected(const PGresult *res);
/* Field as text, or NULL for SQL NULL. */
const char *pg_get(const PGresult *res, int row, const char *column);
int64_t pg_get_int(const PGresult *res, int row, const char *column, int64_t if_null);
double pg_get_real(const PGresult *res, int row, const char *column, double if_null);
bool pg_get_bool(const PGresult *res, int row, const char *column);

/* A 36-character lower- or upper-case UUID? */
bool pg_is_uuid(const char *s);

#endif
