/*
 * Answers that took work to make, kept in Redis for a while: named by what they were made of and the parameters they
 * were made with, so an entry never has to be changed, only forgotten (CACHE_ENABLED, CACHE_TTL, CACHE_MAX_SIZE). A
 * cache is a courtesy: every error is a miss, and after one Redis is left alone for some seconds, so that nobody waits
 * for it twice.
 *
 * Thread-safe.
 */
#ifndef SG_CACHE_H
#define SG_CACHE_H

#include <stdbool.h>
#include <stddef.h>

#include "buf.h"
#include "config.h"
#include "rds.h"

enum {
    CACHE_NAME_MAX = 200,
    CACHE_ENTRY_MAX = 4 << 20 /* bytes; larger answers are not kept: Redis serves one at a time */
};

/* Is the cache on? */
bool cache_is_on(const config_t *cfg);
/* Appends the answer to out. False: it is not there. Counts hits and misses by kind, a word of the program's. */
bool cache_get(const config_t *cfg, rds_pool_t *rds, const char *kind, const char *name, buf_t *out);
/* Keeps it, if there is room; forgets older ones. */
void cache_put(const config_t *cfg, rds_pool_t *rds, const char *name, const void *data, size_t n);

#endif
