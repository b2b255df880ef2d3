/* What rds.c and rds_script.c share. For them only. */
#ifndef SG_RDS_INTERNAL_H
#define SG_RDS_INTERNAL_H

#include "pool.h"
#include "rds.h"
#include "rds_sentinel.h"
#include "redis_url.h"

struct rds_pool {
    pool_t *pool;
    redis_url_t url;
    char where[300]; /* without the password */
    int timeout_ms;
    rds_sentinel_t *sentinel; /* NULL: the URL says where Redis is */
};

struct rds_conn {
    rds_pool_t *owner;
    redisContext *ctx;
    bool pooled, broken;
    uint64_t generation; /* of the primary that it leads to, see rds_sentinel.h */
};

/* Sends and waits. ERR_OK means that there is a reply, maybe an error reply. */
ERR_MUST err_kind_t rds_send(rds_conn_t *c, int argc, const char **argv, const size_t *lens, redisReply **reply,
                             err_t *err);
/* Turns an error reply into an error and frees it; hands any other reply over (reply may be NULL). `name`: of what was
 * asked. */
ERR_MUST err_kind_t rds_finish(rds_conn_t *c, redisReply *got, const char *name, redisReply **reply, err_t *err);
/* After a pipeline: its time since began_us, and what became of it. why: NULL when all answers came. */
ERR_MUST err_kind_t rds_note_pipeline(rds_conn_t *c, int64_t began_us, const char *why, err_t *err);

#endif
