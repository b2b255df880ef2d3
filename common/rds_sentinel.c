/*
 * Following the primary (see rds_sentinel.h). States of what we know:
 *
 *   doubted, no look failed yet   callers wait for the look that is under way
 *   doubted, a look failed        callers are refused at once; looks go on with growing pauses
 *   sure                          callers get the address; a look each second notices a change
 *
 * doubt moves to "doubted", a look that finds a primary to "sure". The address and these marks are guarded by the lock;
 * the connections to Sentinels belong to the thread.
 */
#include "rds_sentinel.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "hash.h"
#include "log.h"
#include "metrics.h"
#include "thread_util.h"
#include "timeutil.h"

enum { LOOK_MS = 1000, RETRY_MIN_MS = 50, RETRY_MAX_MS = 500, ANSWER_MS = 1000 };

struct rds_sentinel {
    redis_address_t sentinels[REDIS_SENTINELS_MAX];
    int count;
    char master[128];
    char user[256], password[512]; /* the Sentinels' own */
    int timeout_ms;
    rds_check_fn check;
    void *arg;
    pthread_t thread;

    /* the thread's own */
    redisContext *ctx; /* to the Sentinel `first`, or NULL */
    int first;
    bool silent; /* no Sentinel answered last time; said so */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    rds_primary_t now;
    bool doubted, stop;
    int failures; /* looks in a row that found none */
    err_t last;   /* why */

    atomic_uint_fast64_t generation;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static metric_t *m_changes, *m_errors;

static void init_once(void) {
    m_changes = metrics_counter("spheroseg_redis_primary_changes_total",
                                "Times that Sentinel named another primary than before.", NULL);
    m_errors =
        metrics_counter("spheroseg_redis_sentinel_errors_total", "Questions to a Sentinel that got no address.", NULL);
}

/* From half of ms to ms: clients that lost the same server must not come back in step. */
static int jitter(int ms) {
    uint32_t r;
    hash_random(&r, sizeof r);
    return ms / 2 + (int)(r % (uint32_t)(ms / 2 + 1));
}

static struct timespec in_ms(int ms) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += (long)(ms % 1000) * 1000000L;
    if (t.tv_nsec >= 1000000000L) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000L;
    }
    return t;
}

/* ---- one Sentinel ---- */

static void hang_up(rds_sentinel_t *s) {
    if (s->ctx) {
        redisFree(s->ctx);
        s->ctx = NULL;
    }
}

static err_kind_t no_answer(const redis_address_t *at, const char *why, err_t *err) {
    metrics_add(m_errors, NULL, 1);
    return err_set(err, ERR_UNAVAILABLE, "redis_unavailable",
                   "The job queue cannot be reached at the moment. Try again in a moment.", "Sentinel %s:%d: %.200s",
                   at->host, at->port, why);
}

static err_kind_t sign_in(rds_sentinel_t *s, const redis_address_t *at, err_t *err) {
    const char *with_user[] = {"AUTH", s->user, s->password}, *without[] = {"AUTH", s->password};
    bool named = s->user[0] != '\0';
    if (s->password[0] == '\0') {
        return ERR_OK;
    }
    redisReply *r = redisCommandArgv(s->ctx, named ? 3 : 2, named ? with_user : without, NULL);
    err_kind_t rc =
        !r ? no_answer(at, s->ctx->errstr, err) : (r->type == REDIS_REPLY_ERROR ? no_answer(at, r->str, err) : ERR_OK);
    freeReplyObject(r);
    return rc;
}

static err_kind_t call(rds_sentinel_t *s, const redis_address_t *at, err_t *err) {
    struct timeval tv = {.tv_sec = s->timeout_ms / 1000, .tv_usec = (suseconds_t)(s->timeout_ms % 1000) * 1000};
    s->ctx = redisConnectWithTimeout(at->host, at->port, tv);
    if (!s->ctx) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    if (s->ctx->err || redisSetTimeout(s->ctx, tv) != REDIS_OK) {
        return no_answer(at, s->ctx->err ? s->ctx->errstr : "setting a time-out failed", err);
    }
    return sign_in(s, at, err);
}

static bool read_address(const redisReply *r, redis_address_t *out) {
    if (r->type != REDIS_REPLY_ARRAY || r->elements != 2 || r->element[0]->type != REDIS_REPLY_STRING ||
        r->element[1]->type != REDIS_REPLY_STRING || r->element[0]->len >= sizeof out->host) {
        return false;
    }
    char *end;
    long port = strtol(r->element[1]->str, &end, 10);
    (void)snprintf(out->host, sizeof out->host, "%s", r->element[0]->str);
    out->port = (int)port;
    return *end == '\0' && port > 0 && port < 65536 && out->host[0] != '\0';
}

/* Asks Sentinel number `which`, over the open connection if that leads there. */
static err_kind_t ask(rds_sentinel_t *s, int which, redis_address_t *out, err_t *err) {
    const redis_address_t *at = &s->sentinels[which];
    err_kind_t rc = ERR_OK;
    if (!s->ctx || which != s->first) {
        hang_up(s);
        rc = call(s, at, err);
        s->first = which;
    }
    if (rc == ERR_OK) {
        const char *argv[] = {"SENTINEL", "get-master-addr-by-name", s->master};
        redisReply *r = redisCommandArgv(s->ctx, 3, argv, NULL);
        if (!r) {
            rc = no_answer(at, s->ctx->errstr, err);
        } else if (r->type == REDIS_REPLY_NIL) {
            rc = no_answer(at, "it watches no primary of that name", err);
        } else if (!read_address(r, out)) {
            rc = no_answer(at, r->type == REDIS_REPLY_ERROR ? r->str : "unexpected answer", err);
        }
        freeReplyObject(r);
    }
    if (rc != ERR_OK) {
        hang_up(s);
    }
    return rc;
}

/* ---- a look ---- */

static bool same(const redis_address_t *a, const redis_address_t *b) {
    return a->port == b->port && strcmp(a->host, b->host) == 0;
}

static bool must_stop(rds_sentinel_t *s) {
    (void)pthread_mutex_lock(&s->lock);
    bool stop = s->stop;
    (void)pthread_mutex_unlock(&s->lock);
    return stop;
}

static void say_silence(rds_sentinel_t *s, bool silent, const err_t *err) {
    if (silent && !s->silent) {
        log_event(LOG_WARN, "no Sentinel answers", "primary", s->master, "reason", err->detail, NULL);
    }
    s->silent = silent;
}

/* Finds the primary. `known` (may be NULL) is believed without a check: nobody doubts it. `old`: the last resort. */
static err_kind_t look(rds_sentinel_t *s, const redis_address_t *known, const redis_address_t *old,
                       redis_address_t *out, err_t *err) {
    redis_address_t refused = {.port = 0};
    bool answered = false;
    int first = known ? s->first : s->first + 1;
    err_kind_t rc = err_set(err, ERR_UNAVAILABLE, "redis_unavailable", "The server is stopping.", NULL);
    for (int i = 0; i < s->count && !must_stop(s); i++) {
        rc = ask(s, (first + i) % s->count, out, err);
        if (rc != ERR_OK) {
            continue;
        }
        answered = true;
        if (known && same(known, out)) {
            break;
        }
        if (refused.port != 0 && same(&refused, out)) { /* the next Sentinel may know better */
            rc = ERR_UNAVAILABLE;
            continue;
        }
        rc = s->check(s->arg, out, err);
        if (rc == ERR_OK) {
            break;
        }
        refused = *out;
    }
    say_silence(s, !answered && !must_stop(s), err);
    if (rc != ERR_OK && !answered && old->port != 0) {
        err_t ignored;
        if (s->check(s->arg, old, &ignored) == ERR_OK) {
            *out = *old;
            rc = ERR_OK;
        }
    }
    return rc;
}

/* The lock is held. */
static void note_found(rds_sentinel_t *s, const redis_address_t *at) {
    s->doubted = false;
    s->failures = 0;
    if (same(at, &s->now.at)) {
        return;
    }
    if (s->now.generation > 0) {
        metrics_add(m_changes, NULL, 1);
    }
    s->now.at = *at;
    s->now.generation++;
    atomic_store(&s->generation, s->now.generation);
    char port[16];
    (void)snprintf(port, sizeof port, "%d", at->port);
    log_event(LOG_INFO, "Redis primary", "name", s->master, "host", at->host, "port", port, NULL);
}

/* Waits for the next look: `ms`, or until somebody doubts what was sure. The lock is held. */
static void wait_for_turn(rds_sentinel_t *s, int ms) {
    bool was_doubted = s->doubted;
    struct timespec until = in_ms(ms);
    int rc = 0;
    while (rc == 0 && !s->stop && s->doubted == was_doubted) {
        rc = pthread_cond_timedwait(&s->changed, &s->lock, &until);
    }
}

static void *run(void *arg) {
    rds_sentinel_t *s = arg;
    int retry_ms = RETRY_MIN_MS;
    (void)pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        bool doubted = s->doubted;
        rds_primary_t old = s->now;
        (void)pthread_mutex_unlock(&s->lock);
        redis_address_t at;
        err_t err = {.kind = ERR_OK};
        err_kind_t rc = look(s, doubted ? NULL : &old.at, &old.at, &at, &err);
        (void)pthread_mutex_lock(&s->lock);
        if (rc == ERR_OK && (doubted || !s->doubted || !same(&at, &old.at))) {
            note_found(s, &at);
        } else if (rc != ERR_OK && doubted) {
            s->failures++;
            s->last = err;
        } else if (s->doubted) {
            continue; /* doubted while we asked, and the answer is what is doubted */
        }
        (void)pthread_cond_broadcast(&s->changed);
        retry_ms = !s->doubted ? RETRY_MIN_MS : retry_ms * 2 < RETRY_MAX_MS ? retry_ms * 2 : RETRY_MAX_MS;
        wait_for_turn(s, jitter(s->doubted ? retry_ms : LOOK_MS));
    }
    (void)pthread_mutex_unlock(&s->lock);
    hang_up(s);
    return NULL;
}

/* ---- interface ---- */

err_kind_t rds_sentinel_create(const redis_url_t *url, const config_t *cfg, rds_check_fn check, void *arg,
                               rds_sentinel_t **out, err_t *err) {
    *out = NULL;
    (void)pthread_once(&once, init_once);
    rds_sentinel_t *s = calloc(1, sizeof *s);
    if (!s) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    const char *user = cfg->redis_sentinel_user ? cfg->redis_sentinel_user : "";
    const char *password = cfg->redis_sentinel_password ? cfg->redis_sentinel_password : "";
    if (strlen(user) >= sizeof s->user || strlen(password) >= sizeof s->password || (user[0] && !password[0])) {
        free(s);
        return err_setf(err, ERR_INVALID, "config_invalid",
                        "REDIS_SENTINEL_USER needs REDIS_SENTINEL_PASSWORD, and neither may be very long.");
    }
    (void)snprintf(s->user, sizeof s->user, "%s", user);
    (void)snprintf(s->password, sizeof s->password, "%s", password);
    memcpy(s->sentinels, url->sentinels, sizeof s->sentinels);
    (void)snprintf(s->master, sizeof s->master, "%s", url->master);
    s->count = url->sentinel_count;
    s->timeout_ms = cfg->redis_timeout_ms < ANSWER_MS ? (int)cfg->redis_timeout_ms : ANSWER_MS;
    s->check = check;
    s->arg = arg;
    s->first = (int)((unsigned)jitter(1000) % (unsigned)s->count); /* not everybody asks the same one */
    s->doubted = true;
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&s->changed, &attr);
    (void)pthread_condattr_destroy(&attr);
    (void)pthread_mutex_init(&s->lock, NULL);
    int e = thread_start(&s->thread, "sentinel", run, s);
    if (e != 0) {
        (void)pthread_cond_destroy(&s->changed);
        (void)pthread_mutex_destroy(&s->lock);
        explicit_bzero(s->password, sizeof s->password);
        free(s);
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", "thread: %s", strerror(e));
    }
    *out = s;
    return ERR_OK;
}

void rds_sentinel_destroy(rds_sentinel_t *s) {
    if (!s) {
        return;
    }
    (void)pthread_mutex_lock(&s->lock);
    s->stop = true;
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
    (void)pthread_join(s->thread, NULL);
    (void)pthread_cond_destroy(&s->changed);
    (void)pthread_mutex_destroy(&s->lock);
    explicit_bzero(s->password, sizeof s->password);
    free(s);
}

err_kind_t rds_sentinel_primary(rds_sentinel_t *s, int wait_ms, rds_primary_t *out, err_t *err) {
    struct timespec until = in_ms(wait_ms);
    err_kind_t rc = ERR_OK;
    int e = 0;
    (void)pthread_mutex_lock(&s->lock);
    while (s->doubted && s->failures == 0 && !s->stop && e == 0) {
        e = pthread_cond_timedwait(&s->changed, &s->lock, &until);
    }
    if (!s->doubted) {
        *out = s->now;
    } else if (s->failures > 0) {
        rc = ERR_UNAVAILABLE;
        if (err) {
            *err = s->last;
        }
    } else {
        rc = err_set(err, ERR_UNAVAILABLE, "redis_unavailable",
                     "The job queue cannot be reached at the moment. Try again in a moment.",
                     "no Sentinel named a primary in time");
    }
    (void)pthread_mutex_unlock(&s->lock);
    return rc;
}

void rds_sentinel_doubt(rds_sentinel_t *s, uint64_t generation) {
    (void)pthread_mutex_lock(&s->lock);
    if (generation == s->now.generation && !s->doubted) {
        s->doubted = true;
        s->failures = 0;
        (void)pthread_cond_broadcast(&s->changed);
    }
    (void)pthread_mutex_unlock(&s->lock);
}

uint64_t rds_sentinel_generation(const rds_sentinel_t *s) {
    return atomic_load(&s->generation);
}
