/*
 * Redis connections and commands (see rds.h). Reconnecting is never left to hiredis, which forgets time-outs,
 * password and database: a broken connection is closed, and the next acquire builds a complete new one.
 */
#include "rds.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "log.h"
#include "metrics.h"
#include "rds_internal.h"
#include "timeutil.h"

enum { IDLE_MS = 60000, DESTROY_GRACE_MS = 5000, CHECK_MS = 1000 };

/* ---- metrics ---- */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static metric_t *m_seconds, *m_errors, *m_connections, *m_waiting, *m_timeouts, *m_up;

static void init_once(void) {
    m_seconds =
        metrics_histogram("spheroseg_redis_command_duration_seconds", "Time of one Redis command.", NULL, NULL, 0);
    m_errors = metrics_counter("spheroseg_redis_errors_total", "Failed Redis commands: connection or reply.", "kind");
    m_connections = metrics_gauge("spheroseg_redis_pool_connections", "Connections of the pool.", "state");
    m_waiting = metrics_gauge("spheroseg_redis_pool_waiting", "Threads that wait for a connection.", NULL);
    m_timeouts = metrics_counter("spheroseg_redis_pool_timeouts_total", "Waits for a connection that ran out.", NULL);
    m_up = metrics_gauge("spheroseg_redis_up", "1 when the last contact with Redis succeeded.", NULL);
    /* hiredis writes without MSG_NOSIGNAL: a Redis that went away must not end the program. */
    struct sigaction now;
    if (sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL) {
        (void)signal(SIGPIPE, SIG_IGN);
    }
}

static void collect_pool(void *arg) {
    rds_pool_t *p = arg;
    pool_stats_t s;
    pool_stats(p->pool, &s);
    metrics_set(m_connections, (const char *const[]){"idle"}, s.idle);
    metrics_set(m_connections, (const char *const[]){"in_use"}, s.in_use);
    metrics_set(m_waiting, NULL, s.waiting);
}

static err_kind_t unavailable(err_t *err, const char *detail_what, const char *detail) {
    metrics_set(m_up, NULL, 0);
    metrics_add(m_errors, (const char *const[]){"connection"}, 1);
    return err_set(err, ERR_UNAVAILABLE, "redis_unavailable",
                   "The job queue cannot be reached at the moment. Try again in a moment.", "%s: %s", detail_what,
                   detail);
}

/* ---- connections ---- */

static struct timeval to_timeval(int ms) {
    return (struct timeval){.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
}

static void close_conn(void *item) {
    rds_conn_t *c = item;
    redisFree(c->ctx);
    free(c);
}

/* One command of the handshake. The arguments may be secret: only the command's name is reported. */
static err_kind_t handshake(rds_pool_t *p, redisContext *ctx, int argc, const char **argv, err_t *err) {
    redisReply *reply = redisCommandArgv(ctx, argc, argv, NULL);
    if (!reply) {
        return unavailable(err, p->where, ctx->errstr);
    }
    err_kind_t kind = ERR_OK;
    if (reply->type == REDIS_REPLY_ERROR) {
        char what[400];
        (void)snprintf(what, sizeof what, "%s refused %s", p->where, argv[0]);
        kind = unavailable(err, what, reply->str);
    }
    freeReplyObject(reply);
    return kind;
}

static err_kind_t sign_in(rds_pool_t *p, redisContext *ctx, err_t *err) {
    const redis_url_t *u = &p->url;
    err_kind_t kind = ERR_OK;
    if (u->password[0] != '\0') {
        const char *with_user[] = {"AUTH", u->user, u->password};
        const char *without[] = {"AUTH", u->password};
        kind = u->user[0] != '\0' ? handshake(p, ctx, 3, with_user, err) : handshake(p, ctx, 2, without, err);
    }
    if (kind == ERR_OK && u->db != 0) {
        char db[16];
        (void)snprintf(db, sizeof db, "%d", u->db);
        const char *argv[] = {"SELECT", db};
        kind = handshake(p, ctx, 2, argv, err);
    }
    return kind;
}

/* What a Sentinel names may have become a replica meanwhile. */
static err_kind_t demand_primary(rds_pool_t *p, redisContext *ctx, err_t *err) {
    redisReply *r = redisCommand(ctx, "ROLE");
    if (!r) {
        return unavailable(err, p->where, ctx->errstr);
    }
    const redisReply *role = r->type == REDIS_REPLY_ARRAY && r->elements > 0 ? r->element[0] : r;
    bool ok = role != r && role->type == REDIS_REPLY_STRING && strcmp(role->str, "master") == 0;
    const char *said = role->type == REDIS_REPLY_STRING || role->type == REDIS_REPLY_ERROR ? role->str : "?";
    err_kind_t kind = ok ? ERR_OK : unavailable(err, "not a primary", said);
    freeReplyObject(r);
    return kind;
}

/* Connects and signs in. at: where a Sentinel says that the primary is; NULL: where the URL says. Every step may take
 * step_ms; timeout_ms is for commands afterwards, 0 = none. */
static err_kind_t dial(rds_pool_t *p, const redis_address_t *at, int step_ms, int timeout_ms, redisContext **out,
                       err_t *err) {
    struct timeval tv = to_timeval(step_ms);
    redisContext *ctx = p->url.is_unix
                            ? redisConnectUnixWithTimeout(p->url.host, tv)
                            : redisConnectWithTimeout(at ? at->host : p->url.host, at ? at->port : p->url.port, tv);
    if (!ctx) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    err_kind_t kind = ERR_OK;
    if (ctx->err) {
        kind = unavailable(err, p->where, ctx->errstr);
        goto out;
    }
    if (redisSetTimeout(ctx, tv) != REDIS_OK) {
        kind = unavailable(err, p->where, "setting a time-out failed");
        goto out;
    }
    if (!p->url.is_unix) {
        (void)redisEnableKeepAlive(ctx); /* an optimisation: finds dead peers on idle connections */
        if (ctx->err) {
            kind = unavailable(err, p->where, ctx->errstr);
            goto out;
        }
    }
    kind = sign_in(p, ctx, err);
    if (kind == ERR_OK && at) {
        kind = demand_primary(p, ctx, err);
    }
    if (kind == ERR_OK && timeout_ms != step_ms && redisSetTimeout(ctx, to_timeval(timeout_ms)) != REDIS_OK) {
        kind = unavailable(err, p->where, "setting a time-out failed");
    }
out:
    if (kind != ERR_OK) {
        redisFree(ctx);
        return kind;
    }
    *out = ctx;
    return ERR_OK;
}

/* Is the primary there that a Sentinel speaks of? */
static err_kind_t check_primary(void *arg, const redis_address_t *at, err_t *err) {
    rds_pool_t *p = arg;
    redisContext *ctx = NULL;
    int step_ms = p->timeout_ms < CHECK_MS ? p->timeout_ms : CHECK_MS;
    err_kind_t kind = dial(p, at, step_ms, step_ms, &ctx, err);
    if (kind == ERR_OK) {
        redisFree(ctx);
    }
    return kind;
}

static void doubt(const rds_conn_t *c) {
    if (c->owner->sentinel) {
        rds_sentinel_doubt(c->owner->sentinel, c->generation);
    }
}

/* An address that does not work is doubted, and what that brings is tried once. */
static err_kind_t dial_primary(rds_pool_t *p, int timeout_ms, rds_conn_t *c, err_t *err) {
    err_kind_t kind = ERR_UNAVAILABLE;
    for (int i = 0; i < 2 && kind == ERR_UNAVAILABLE; i++) {
        rds_primary_t primary;
        kind = rds_sentinel_primary(p->sentinel, p->timeout_ms, &primary, err);
        if (kind != ERR_OK) {
            return kind;
        }
        c->generation = primary.generation;
        kind = dial(p, &primary.at, p->timeout_ms, timeout_ms, &c->ctx, err);
        if (kind == ERR_UNAVAILABLE) {
            doubt(c);
        }
    }
    return kind;
}

/* timeout_ms: for commands after the handshake; 0 = none. */
static err_kind_t open_conn(rds_pool_t *p, int timeout_ms, rds_conn_t **out, err_t *err) {
    rds_conn_t *c = calloc(1, sizeof *c);
    if (!c) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    c->owner = p;
    err_kind_t kind =
        p->sentinel ? dial_primary(p, timeout_ms, c, err) : dial(p, NULL, p->timeout_ms, timeout_ms, &c->ctx, err);
    if (kind != ERR_OK) {
        free(c);
        return kind;
    }
    metrics_set(m_up, NULL, 1);
    *out = c;
    return ERR_OK;
}

err_kind_t rds_pool_create(const config_t *cfg, rds_pool_t **out, err_t *err) {
    *out = NULL;
    (void)pthread_once(&once, init_once);
    rds_pool_t *p = calloc(1, sizeof *p);
    if (!p) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    err_kind_t kind = redis_url_parse(cfg->redis_url, &p->url, err);
    if (kind != ERR_OK) {
        goto fail;
    }
    if (p->url.is_unix) {
        (void)snprintf(p->where, sizeof p->where, "%s", p->url.host);
    } else if (p->url.sentinel_count > 0) {
        (void)snprintf(p->where, sizeof p->where, "primary %s", p->url.master);
    } else {
        (void)snprintf(p->where, sizeof p->where, "%s:%d", p->url.host, p->url.port);
    }
    p->timeout_ms = (int)cfg->redis_timeout_ms;
    p->pool = pool_create((int)cfg->redis_pool_max, IDLE_MS, close_conn);
    if (!p->pool) {
        kind = err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
        goto fail;
    }
    if (p->url.sentinel_count > 0) {
        kind = rds_sentinel_create(&p->url, cfg, check_primary, p, &p->sentinel, err);
        if (kind != ERR_OK) {
            (void)pool_destroy(p->pool, 0);
            goto fail;
        }
    }
    metrics_on_collect(collect_pool, p);
    *out = p;
    return ERR_OK;
fail:
    explicit_bzero(&p->url, sizeof p->url);
    free(p);
    return kind;
}

void rds_pool_destroy(rds_pool_t *p) {
    if (!p) {
        return;
    }
    metrics_off_collect(collect_pool, p);
    int left = pool_destroy(p->pool, DESTROY_GRACE_MS);
    if (left > 0) {
        log_msgf(LOG_ERROR, "%d Redis connections were not released before the pool was closed", left);
        return; /* the borrowers still point here */
    }
    rds_sentinel_destroy(p->sentinel);
    explicit_bzero(&p->url, sizeof p->url);
    free(p);
}

/* An idle connection has nothing to say: anything readable is its end (or an answer nobody waits for). */
static bool is_alive(const rds_conn_t *c) {
    struct pollfd pfd = {.fd = c->ctx->fd, .events = POLLIN};
    return c->ctx->err == 0 && poll(&pfd, 1, 0) == 0;
}

err_kind_t rds_acquire(rds_pool_t *p, rds_conn_t **out, err_t *err) {
    *out = NULL;
    void *item = NULL;
    switch (pool_take(p->pool, p->timeout_ms, &item)) {
    case POOL_ITEM:
        if (is_alive(item) && !rds_is_stale(item)) {
            *out = item;
            return ERR_OK;
        }
        close_conn(item); /* the slot is still ours */
        break;
    case POOL_SLOT:
        break;
    case POOL_TIMEOUT:
        metrics_add(m_timeouts, NULL, 1);
        return err_set(err, ERR_UNAVAILABLE, "redis_unavailable",
                       "The server is very busy at the moment. Try again in a moment.",
                       "no Redis connection came free in %d ms", p->timeout_ms);
    case POOL_CLOSED:
        return err_set(err, ERR_UNAVAILABLE, "redis_unavailable", "The server is stopping.", NULL);
    }
    rds_conn_t *c = NULL;
    err_kind_t kind = open_conn(p, p->timeout_ms, &c, err);
    if (kind != ERR_OK) {
        pool_drop(p->pool);
        return kind;
    }
    c->pooled = true;
    *out = c;
    return ERR_OK;
}

void rds_release(rds_conn_t *c) {
    if (!c) {
        return;
    }
    rds_pool_t *p = c->owner;
    bool pooled = c->pooled;
    if (pooled && !c->broken && c->ctx->err == 0 && !rds_is_stale(c)) {
        pool_give(p->pool, c);
        return;
    }
    close_conn(c);
    if (pooled) {
        pool_drop(p->pool);
    }
}

err_kind_t rds_connect(rds_pool_t *p, int timeout_ms, rds_conn_t **out, err_t *err) {
    *out = NULL;
    return open_conn(p, timeout_ms, out, err);
}

bool rds_is_stale(const rds_conn_t *c) {
    const rds_sentinel_t *s = c->owner->sentinel;
    return s && c->generation != rds_sentinel_generation(s);
}

void rds_primary_name(rds_pool_t *p, char out[RDS_PRIMARY_NAME_SIZE]) {
    rds_primary_t primary;
    out[0] = '\0';
    if (p->sentinel && rds_sentinel_primary(p->sentinel, 0, &primary, NULL) == ERR_OK) {
        (void)snprintf(out, RDS_PRIMARY_NAME_SIZE, "%s:%d", primary.at.host, primary.at.port);
    }
}

redisContext *rds_raw(rds_conn_t *c) {
    return c->ctx;
}

void rds_fail(rds_conn_t *c) {
    c->broken = true;
    doubt(c);
}

err_kind_t rds_wait_ready(rds_pool_t *p, int timeout_s, err_t *err) {
    int64_t deadline = time_mono_ms() + (int64_t)timeout_s * 1000;
    static const char *const ping[] = {"PING"};
    for (;;) {
        int64_t began = time_mono_ms();
        err_t last = {.kind = ERR_OK};
        if (rds_run(p, 1, ping, NULL, &last) == ERR_OK) {
            return ERR_OK;
        }
        if (time_mono_ms() >= deadline) {
            return err_set(err, ERR_UNAVAILABLE, "redis_unavailable",
                           "Redis did not answer in time. Check that it runs and that REDIS_URL is right.",
                           "waited %d s; %s", timeout_s, last.detail);
        }
        log_event(LOG_WARN, "waiting for Redis", "where", p->where, "reason", last.detail, NULL);
        int64_t rest = began + 1000 - time_mono_ms();
        int64_t left = deadline - time_mono_ms();
        time_sleep_ms(rest < left ? rest : left);
    }
}

/* ---- commands ---- */

/* Replies that say "not now": the same command may work later. */
static bool is_passing(const char *reply) {
    static const char *const words[] = {"LOADING ", "BUSY ",     "OOM ",     "MASTERDOWN ", "CLUSTERDOWN ",
                                        "READONLY", "TRYAGAIN ", "MISCONF ", "NOREPLICAS ", "UNBLOCKED "};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strncmp(reply, words[i], strlen(words[i])) == 0) {
            return true;
        }
    }
    return false;
}

/* Replies of a server that is no primary, or no longer the one that counts. Older ones give a script's as the text of
 * another error. */
static bool denies_primary(const char *reply) {
    return strncmp(reply, "READONLY", 8) == 0 || strncmp(reply, "MASTERDOWN ", 11) == 0 ||
           strncmp(reply, "LOADING ", 8) == 0 || strncmp(reply, "NOREPLICAS ", 11) == 0 ||
           strncmp(reply, "UNBLOCKED ", 10) == 0 || strstr(reply, "-READONLY ");
}

err_kind_t rds_send(rds_conn_t *c, int argc, const char **argv, const size_t *lens, redisReply **reply, err_t *err) {
    *reply = NULL;
    if (c->broken || c->ctx->err) {
        return unavailable(err, c->owner->where, "used after the connection broke");
    }
    int64_t began = time_mono_us();
    *reply = redisCommandArgv(c->ctx, argc, argv, lens);
    if (c->pooled) { /* others may block on purpose */
        metrics_observe(m_seconds, NULL, (double)(time_mono_us() - began) / 1e6);
    }
    if (*reply) {
        metrics_set(m_up, NULL, 1);
        return ERR_OK;
    }
    c->broken = true;
    doubt(c);
    char what[400];
    (void)snprintf(what, sizeof what, "%s, %.40s", c->owner->where, argv[0]);
    /* What hiredis calls "Resource temporarily unavailable" is our time-out. */
    bool timed_out = c->ctx->err == REDIS_ERR_IO && (errno == EAGAIN || errno == EWOULDBLOCK);
    return unavailable(err, what, timed_out ? "no answer in time" : c->ctx->errstr);
}

err_kind_t rds_finish(rds_conn_t *c, redisReply *got, const char *name, redisReply **reply, err_t *err) {
    if (got->type != REDIS_REPLY_ERROR) {
        if (reply) {
            *reply = got;
        } else {
            freeReplyObject(got);
        }
        return ERR_OK;
    }
    metrics_add(m_errors, (const char *const[]){"reply"}, 1);
    if (c->owner->sentinel && denies_primary(got->str)) {
        c->broken = true;
        doubt(c);
    }
    err_kind_t kind;
    if (is_passing(got->str)) {
        kind = err_set(err, ERR_UNAVAILABLE, "redis_unavailable",
                       "The job queue is not ready at the moment. Try again in a moment.", "%.40s: %.300s", name,
                       got->str);
    } else {
        kind = err_set(err, ERR_INTERNAL, "redis_error", "The job queue reported an error.", "%.40s: %.300s", name,
                       got->str);
    }
    freeReplyObject(got);
    return kind;
}

/* hiredis takes pointers to non-const pointers but changes nothing. */
static const char **as_hiredis(const char *const *argv) {
    return (const char **)argv;
}

err_kind_t rds_command(rds_conn_t *c, int argc, const char *const *argv, const size_t *lens, redisReply **reply,
                       err_t *err) {
    if (reply) {
        *reply = NULL;
    }
    redisReply *got;
    err_kind_t kind = rds_send(c, argc, as_hiredis(argv), lens, &got, err);
    return kind == ERR_OK ? rds_finish(c, got, argv[0], reply, err) : kind;
}

err_kind_t rds_run(rds_pool_t *p, int argc, const char *const *argv, redisReply **reply, err_t *err) {
    if (reply) {
        *reply = NULL;
    }
    rds_conn_t *c;
    err_kind_t kind = rds_acquire(p, &c, err);
    if (kind != ERR_OK) {
        return kind;
    }
    kind = rds_command(c, argc, argv, NULL, reply, err);
    rds_release(c);
    return kind;
}

err_kind_t rds_note_pipeline(rds_conn_t *c, int64_t began_us, const char *why, err_t *err) {
    if (c->pooled) {
        metrics_observe(m_seconds, NULL, (double)(time_mono_us() - began_us) / 1e6);
    }
    if (why) {
        c->broken = true;
        doubt(c);
        return unavailable(err, c->owner->where, why);
    }
    metrics_set(m_up, NULL, 1);
    return ERR_OK;
}
