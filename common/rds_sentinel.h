/*
 * Where the primary is, when Sentinels watch it. One thread of this module talks to them, so nobody who needs Redis
 * ever waits for a dead Sentinel; it asks again every second, at once when somebody doubts the answer, and with
 * growing, random pauses while there is no primary.
 *
 * An address counts only after the check function found a primary there: a Sentinel that was cut off names the old one.
 * The Sentinels are asked one after the other, beginning with the one that answered last, or behind it when its
 * answer is doubted. While none of them answers, the last primary is used as long as it says that it is one.
 *
 * Thread-safe. The protocol: https://redis.io/docs/latest/develop/reference/sentinel-clients/
 */
#ifndef SG_RDS_SENTINEL_H
#define SG_RDS_SENTINEL_H

#include <stdint.h>

#include "config.h"
#include "err.h"
#include "redis_url.h"

typedef struct rds_sentinel rds_sentinel_t;

typedef struct {
    redis_address_t at;
    uint64_t generation; /* another number: another primary. 0: none was known yet */
} rds_primary_t;

/* ERR_OK: a primary is there and lets us in. Called by the module's thread. */
typedef err_kind_t (*rds_check_fn)(void *arg, const redis_address_t *at, err_t *err);

/* Copies what it needs of *url and *cfg, and begins to look. */
ERR_MUST err_kind_t rds_sentinel_create(const redis_url_t *url, const config_t *cfg, rds_check_fn check, void *arg,
                                        rds_sentinel_t **out, err_t *err);
void rds_sentinel_destroy(rds_sentinel_t *s); /* NULL is allowed */

/* The primary. While it is looked for after a doubt, waits for the first look to end, at most wait_ms; when that found
 * none, ERR_UNAVAILABLE "redis_unavailable" at once. */
ERR_MUST err_kind_t rds_sentinel_primary(rds_sentinel_t *s, int wait_ms, rds_primary_t *out, err_t *err);

/* What was heard from this primary suggests that it is none any more, or it cannot be reached. */
void rds_sentinel_doubt(rds_sentinel_t *s, uint64_t generation);

/* Number of the primary known last; without locks. */
uint64_t rds_sentinel_generation(const rds_sentinel_t *s);

#endif
