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

#include "hash.h"
#include "log.h"
#include "metrics.h"
#include "pool.h"
#include "redis_url.h"
#include "timeutil.h"

enum { IDLE_MS = 60000, DESTROY_GRACE_MS = 5000, ARGS_MAX = 1 << 20 };

struct rds_pool {
    pool_t *pool;
    redis_url_t url;
    char where[300]; /* without the password */
    int timeout_ms;
};

struct rds_conn {
    rds_pool_t *owner;
    redisContext *ctx;
    bool pooled, broken;
};

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

/* timeout_ms: for commands after the handshake; 0 = none. */
static err_kind_t open_conn(rds_pool_t *p, int timeout_ms, rds_conn_t **out, err_t *err) {
    struct timeval tv = to_timeval(p->timeout_ms);
    err_kind_t kind = ERR_OK;
    rds_conn_t *c = calloc(1, sizeof *c);
    redisContext *ctx = p->url.is_unix ? redisConnectUnixWithTimeout(p->url.host, tv)
                                       : redisConnectWithTimeout(p->url.host, p->url.port, tv);
    if (!c || !ctx) {
        kind = err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
        goto out;
    }
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
    if (kind == ERR_OK && timeout_ms != p->timeout_ms && redisSetTimeout(ctx, to_timeval(timeout_ms)) != REDIS_OK) {
        kind = unavailable(err, p->where, "setting a time-out failed");
    }
out:
    if (kind != ERR_OK) {
        if (ctx) {
            redisFree(ctx);
        }
        free(c);
        return kind;
    }
    metrics_set(m_up, NULL, 1);
    c->owner = p;
    c->ctx = ctx;
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
    } else {
        (void)snprintf(p->where, sizeof p->where, "%s:%d", p->url.host, p->url.port);
    }
    p->timeout_ms = (int)cfg->redis_timeout_ms;
    p->pool = pool_create((int)cfg->redis_pool_max, IDLE_MS, close_conn);
    if (!p->pool) {
        kind = err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
        goto fail;
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
        if (is_alive(item)) {
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
    if (pooled && !c->broken && c->ctx->err == 0) {
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

redisContext *rds_raw(rds_conn_t *c) {
    return c->ctx;
}

void rds_fail(rds_conn_t *c) {
    c->broken = true;
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

/* Sends and waits. ERR_OK means that there is a reply, maybe an error reply. */
static err_kind_t send_command(rds_conn_t *c, int argc, const char **argv, const size_t *lens, redisReply **reply,
                               err_t *err) {
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
    char what[400];
    (void)snprintf(what, sizeof what, "%s, %.40s", c->owner->where, argv[0]);
    /* What hiredis calls "Resource temporarily unavailable" is our time-out. */
    bool timed_out = c->ctx->err == REDIS_ERR_IO && (errno == EAGAIN || errno == EWOULDBLOCK);
    return unavailable(err, what, timed_out ? "no answer in time" : c->ctx->errstr);
}

/* Turns an error reply into an error and frees it; hands any other reply over. */
static err_kind_t finish(redisReply *got, const char *name, redisReply **reply, err_t *err) {
    if (got->type != REDIS_REPLY_ERROR) {
        if (reply) {
            *reply = got;
        } else {
            freeReplyObject(got);
        }
        return ERR_OK;
    }
    metrics_add(m_errors, (const char *const[]){"reply"}, 1);
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
    err_kind_t kind = send_command(c, argc, as_hiredis(argv), lens, &got, err);
    return kind == ERR_OK ? finish(got, argv[0], reply, err) : kind;
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

void rds_script_init(rds_script_t *s, const char *name, const char *source) {
    s->name = name;
    s->source = source;
    if (!hash_sha1_hex(source, strlen(source), s->sha)) {
        /* A build of OpenSSL without SHA-1: EVALSHA answers NOSCRIPT and the source is sent each time. */
        memset(s->sha, '0', sizeof s->sha - 1);
        s->sha[sizeof s->sha - 1] = '\0';
    }
}

err_kind_t rds_eval(rds_conn_t *c, const rds_script_t *s, int nkeys, int argc, const char *const *argv,
                    redisReply **reply, err_t *err) {
    if (reply) {
        *reply = NULL;
    }
    if (argc < 0 || argc > ARGS_MAX || nkeys < 0 || nkeys > argc) {
        return err_set(err, ERR_INTERNAL, "redis_error", "The job queue reported an error.",
                       "%s: %d keys, %d arguments", s->name, nkeys, argc);
    }
    const char **all = malloc(((size_t)argc + 3) * sizeof *all);
    if (!all) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    char count[16];
    (void)snprintf(count, sizeof count, "%d", nkeys);
    all[0] = "EVALSHA";
    all[1] = s->sha;
    all[2] = count;
    for (int i = 0; i < argc; i++) {
        all[3 + i] = argv[i];
    }
    redisReply *got;
    err_kind_t kind = send_command(c, argc + 3, all, NULL, &got, err);
    if (kind == ERR_OK && got->type == REDIS_REPLY_ERROR && strncmp(got->str, "NOSCRIPT", 8) == 0) {
        /* It did not run, so sending it again, with its source, repeats nothing. */
        freeReplyObject(got);
        all[0] = "EVAL";
        all[1] = s->source;
        kind = send_command(c, argc + 3, all, NULL, &got, err);
    }
    free(all);
    return kind == ERR_OK ? finish(got, s->name, reply, err) : kind;
}

static bool append_call(redisContext *ctx, const rds_call_t *call) {
    const char *all[RDS_CALL_ARGS + 3];
    char count[16];
    (void)snprintf(count, sizeof count, "%d", call->nkeys);
    all[0] = "EVALSHA";
    all[1] = call->script->sha;
    all[2] = count;
    for (int i = 0; i < call->argc; i++) {
        all[3 + i] = call->argv[i];
    }
    return redisAppendCommandArgv(ctx, call->argc + 3, all, NULL) == REDIS_OK;
}

static bool is_noscript(const redisReply *r) {
    return r->type == REDIS_REPLY_ERROR && strncmp(r->str, "NOSCRIPT", 8) == 0;
}

static void drop_replies(rds_call_t *calls, int from, int n) {
    for (int i = from; i < n; i++) {
        if (calls[i].reply) {
            freeReplyObject(calls[i].reply);
            calls[i].reply = NULL;
        }
    }
}

/* Sends all and reads as many replies; what does not come back leaves the connection broken. */
static err_kind_t exchange_calls(rds_conn_t *c, rds_call_t *calls, int n, err_t *err) {
    int64_t began = time_mono_us();
    bool ok = !c->broken && c->ctx->err == 0;
    for (int i = 0; ok && i < n; i++) {
        ok = append_call(c->ctx, &calls[i]);
    }
    for (int i = 0; ok && i < n; i++) {
        void *reply = NULL;
        ok = redisGetReply(c->ctx, &reply) == REDIS_OK;
        calls[i].reply = reply;
    }
    if (c->pooled) {
        metrics_observe(m_seconds, NULL, (double)(time_mono_us() - began) / 1e6);
    }
    if (!ok) {
        c->broken = true;
        drop_replies(calls, 0, n);
        return unavailable(err, c->owner->where, c->ctx->err ? c->ctx->errstr : "no answer to a pipeline");
    }
    metrics_set(m_up, NULL, 1);
    return ERR_OK;
}

err_kind_t rds_eval_many(rds_conn_t *c, rds_call_t *calls, int n, err_t *err) {
    for (int i = 0; i < n; i++) {
        calls[i].reply = NULL;
        if (n > RDS_CALLS || calls[i].argc > RDS_CALL_ARGS || calls[i].nkeys > calls[i].argc) {
            return err_set(err, ERR_INTERNAL, "redis_error", "The job queue reported an error.", "%s: %d arguments",
                           calls[i].script->name, calls[i].argc);
        }
    }
    err_kind_t kind = exchange_calls(c, calls, n, err);
    int first = 0;
    while (kind == ERR_OK && first < n && !is_noscript(calls[first].reply)) {
        first++;
    }
    if (kind == ERR_OK) {
        drop_replies(calls, first, n);
    }
    for (int i = first; kind == ERR_OK && i < n; i++) {
        kind = rds_eval(c, calls[i].script, calls[i].nkeys, calls[i].argc, calls[i].argv, &calls[i].reply, err);
    }
    for (int i = 0; kind == ERR_OK && i < first; i++) {
        if (calls[i].reply->type == REDIS_REPLY_ERROR) {
            kind = finish(calls[i].reply, calls[i].script->name, NULL, err);
            calls[i].reply = NULL;
        }
    }
    if (kind != ERR_OK) {
        drop_replies(calls, 0, n);
    }
    return kind;
}
