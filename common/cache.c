/*
 * See cache.h. An entry is a hash `sg:cache:<name>` with one field; proto/lua/cache_reserve.lua keeps the books of what
 * all of them hold. The place is made first and ends by itself, then it is filled, so a process that dies in between
 * leaves nothing that stays.
 */
#include "cache.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "metrics.h"
#include "timeutil.h"

enum { REST_MS = 5000 };

extern const char lua_cache_reserve[];

static pthread_once_t once = PTHREAD_ONCE_INIT;
static rds_script_t reserve;
static metric_t *m_hits, *m_misses;
static atomic_int_fast64_t rest_until_ms; /* monotonic */

static void make(void) {
    rds_script_init(&reserve, "cache_reserve", lua_cache_reserve);
    m_hits = metrics_counter("spheroseg_cache_hits_total", "Answers that were taken from the cache.", "cache");
    m_misses = metrics_counter("spheroseg_cache_misses_total", "Answers that had to be made.", "cache");
}

bool cache_is_on(const config_t *cfg) {
    return cfg->cache_enabled && cfg->cache_max_size > 0;
}

static bool resting(void) {
    return time_mono_ms() < atomic_load(&rest_until_ms);
}

/* Says so once, and leaves Redis alone for a while. */
static void failed(const err_t *err) {
    if (!resting()) {
        log_error(LOG_WARN, "the cache of answers is not used for a moment", err);
    }
    atomic_store(&rest_until_ms, time_mono_ms() + REST_MS);
}

static bool read_entry(rds_pool_t *rds, const char *name, buf_t *out) {
    char key[CACHE_NAME_MAX + 16];
    redisReply *reply = NULL;
    err_t err = {0};
    (void)snprintf(key, sizeof key, "sg:cache:%s", name);
    const char *argv[] = {"HGET", key, "v"};
    if (rds_run(rds, 3, argv, &reply, &err) != ERR_OK) {
        failed(&err);
        return false;
    }
    const bool found = reply->type == REDIS_REPLY_STRING && reply->len > 0; /* empty: made, not filled yet */
    if (found) {
        buf_append(out, reply->str, reply->len);
    }
    freeReplyObject(reply);
    return found && !out->failed;
}

bool cache_get(const config_t *cfg, rds_pool_t *rds, const char *kind, const char *name, buf_t *out) {
    if (!cache_is_on(cfg) || strlen(name) > CACHE_NAME_MAX) {
        return false;
    }
    (void)pthread_once(&once, make);
    const bool found = !resting() && read_entry(rds, name, out);
    metrics_add(found ? m_hits : m_misses, (const char *const[]){kind}, 1);
    return found;
}

static err_kind_t fill(rds_conn_t *conn, const char *key, const char *ttl, const void *data, size_t n, err_t *err) {
    const char *set[] = {"HSET", key, "v", data}, *expire[] = {"PEXPIRE", key, ttl};
    const size_t lens[] = {4, strlen(key), 1, n};
    err_kind_t kind = rds_command(conn, 4, set, lens, NULL, err);
    if (kind == ERR_OK) { /* it may have been forgotten meanwhile, and would stay */
        kind = rds_command(conn, 3, expire, NULL, NULL, err);
    }
    return kind;
}

void cache_put(const config_t *cfg, rds_pool_t *rds, const char *name, const void *data, size_t n) {
    char key[CACHE_NAME_MAX + 16], bytes[24], ttl[24], most[24];
    if (!cache_is_on(cfg) || n == 0 || n > CACHE_ENTRY_MAX || strlen(name) > CACHE_NAME_MAX || resting()) {
        return;
    }
    (void)pthread_once(&once, make);
    (void)snprintf(key, sizeof key, "sg:cache:%s", name);
    (void)snprintf(bytes, sizeof bytes, "%zu", n);
    (void)snprintf(ttl, sizeof ttl, "%lld", (long long)cfg->cache_ttl_s * 1000);
    (void)snprintf(most, sizeof most, "%lld", (long long)cfg->cache_max_size);
    const char *argv[] = {"sg:cache", "sg:cache:sizes", key, name, bytes, ttl, most};
    rds_conn_t *conn = NULL;
    redisReply *reply = NULL;
    err_t err = {0};
    err_kind_t kind = rds_acquire(rds, &conn, &err);
    if (kind == ERR_OK) {
        kind = rds_eval(conn, &reserve, 3, 7, argv, &reply, &err);
    }
    if (kind == ERR_OK && reply->type == REDIS_REPLY_INTEGER && reply->integer == 1) {
        kind = fill(conn, key, ttl, data, n, &err);
    }
    if (reply) {
        freeReplyObject(reply);
    }
    if (conn) {
        rds_release(conn);
    }
    if (kind != ERR_OK) {
        failed(&err);
    }
}
