/*
 * Redis client: a bounded pool of hiredis connections with time-outs that are applied again after every
 * reconnect, password/ACL authentication and database selection.
 *
 * A connection belongs to one thread between rds_acquire and rds_release. A connection that failed is closed
 * and replaced at the next acquire; a command is never repeated behind the caller's back (it may have run).
 * ERR_UNAVAILABLE "redis_unavailable": Redis is away or timed out. An error reply of the server is
 * ERR_INTERNAL "redis_error" with the reply in detail, except for replies that pass (LOADING, OOM, READONLY, …), which
 * are "redis_unavailable" too.
 *
 * With a redis-sentinel:// URL every new connection goes to the primary that the Sentinels name and that says itself
 * that it is one (rds_sentinel.h). A lost connection, a time-out or a reply that only a replica or a cut off primary
 * gives makes the pool look again; connections to a primary that was replaced are closed when they come back. While
 * there is no primary, rds_acquire and rds_connect fail at once instead of waiting. Creating a pool sets SIGPIPE to be
 * ignored if it still has its default action.
 */
#ifndef SG_RDS_H
#define SG_RDS_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>

#include "config.h"
#include "err.h"

typedef struct rds_pool rds_pool_t;
typedef struct rds_conn rds_conn_t;

ERR_MUST err_kind_t rds_pool_create(const config_t *cfg, rds_pool_t **out, err_t *err);
void rds_pool_destroy(rds_pool_t *pool);
ERR_MUST err_kind_t rds_wait_ready(rds_pool_t *pool, int timeout_s, err_t *err);

ERR_MUST err_kind_t rds_acquire(rds_pool_t *pool, rds_conn_t **out, err_t *err);
void rds_release(rds_conn_t *conn);

/* A connection outside the pool, for blocking commands and subscriptions. timeout_ms: per-command time-out,
 * 0 = wait for ever. Freed with rds_release. */
ERR_MUST err_kind_t rds_connect(rds_pool_t *pool, int timeout_ms, rds_conn_t **out, err_t *err);
redisContext *rds_raw(rds_conn_t *conn);
/* Has another primary taken over since this connection was made? Who keeps a connection for long (a subscription) asks
 * now and then, and opens a new one. Costs one load; never true without Sentinels. */
bool rds_is_stale(const rds_conn_t *conn);
/* "host:port" of the present primary, the same for all clients of its Sentinels; "" without Sentinels, and while none
 * is known. */
enum { RDS_PRIMARY_NAME_SIZE = 272 };
void rds_primary_name(rds_pool_t *pool, char out[RDS_PRIMARY_NAME_SIZE]);
/* Marks the connection as broken so that release closes it. */
void rds_fail(rds_conn_t *conn);

/* argv-style command. *reply (may be NULL) is freed by the caller with freeReplyObject. */
ERR_MUST err_kind_t rds_command(rds_conn_t *conn, int argc, const char *const *argv, const size_t *lens,
                                redisReply **reply, err_t *err);
/* Acquire, run, release. */
ERR_MUST err_kind_t rds_run(rds_pool_t *pool, int argc, const char *const *argv, redisReply **reply, err_t *err);

/* A Lua script known by its SHA-1; loaded on first use and again after NOSCRIPT (Redis restarted). */
typedef struct {
    const char *name;   /* for errors and metrics */
    const char *source; /* NUL-terminated */
    char sha[41];       /* filled by rds_script_init */
} rds_script_t;
void rds_script_init(rds_script_t *s, const char *name, const char *source);
ERR_MUST err_kind_t rds_eval(rds_conn_t *conn, const rds_script_t *s, int nkeys, int argc, const char *const *argv,
                             redisReply **reply, err_t *err);

/* One script call of a pipeline. */
typedef struct {
    const rds_script_t *script;
    int nkeys, argc; /* argc counts the keys, too; at most RDS_CALL_ARGS */
    const char *const *argv;
    redisReply *reply; /* out; freed by the caller with freeReplyObject */
} rds_call_t;
enum { RDS_CALL_ARGS = 32, RDS_CALLS = 8 };

/* Runs up to RDS_CALLS scripts in order in one round trip. On an error the replies that came are NULL again. Each
 * script must bear being run twice: after NOSCRIPT the first that is unknown and all behind it are sent again. */
ERR_MUST err_kind_t rds_eval_many(rds_conn_t *conn, rds_call_t *calls, int n, err_t *err);

#endif
