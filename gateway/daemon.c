/*
 * Start: PostgreSQL, Redis, migrations, storage, WebSocket hub, TLS and HTTP, private port, sweeper. Stop: readiness
 * off, WebSockets told to go, answers in flight finished, threads joined, all within STOP_TIMEOUT.
 *
 * Threads: the main thread only waits for signals (all others block them); civetweb's connection threads; the sweeper;
 * the hub's (ws_internal.h); the private port's one. If a stop hangs, SIGALRM's default action ends the process:
 * nothing that was acknowledged lives in memory only.
 */
#include "daemon.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "auth/auth.h"
#include "auth/session.h"
#include "common/log.h"
#include "common/migrate.h"
#include "common/thread_util.h"
#include "common/timeutil.h"
#include "derivatives.h"
#include "health.h"
#include "http_internal.h"
#include "metrics_server.h"
#include "proxy.h"
#include "server.h"
#include "ws_hub.h"

#define SWEEP_MS 1000
#define CERTIFICATE_MS 10000
#define HOUSEKEEPING_MS (10 * 60 * 1000)
#define DESCRIPTORS_SPARE 128 /* databases, files, listening ports */

/* ---- parts ---- */

err_kind_t daemon_check_config(const config_t *cfg, err_t *err) {
    if (!cfg->database_url[0]) {
        return err_set(err, ERR_INVALID, "config_invalid",
                       "DATABASE_URL is not set. Example: postgresql://spheroseg@127.0.0.1:5432/spheroseg", NULL);
    }
    size_t secret = strlen(cfg->jwt_secret);
    if (secret > 0 && secret < TOKEN_SECRET_MIN) {
        return err_setf(err, ERR_INVALID, "config_invalid", "JWT_SECRET must have at least %d characters.",
                        TOKEN_SECRET_MIN);
    }
    if (!cfg->tls_cert[0] != !cfg->tls_key[0]) {
        return err_set(err, ERR_INVALID, "config_invalid", "Set both TLS_CERT and TLS_KEY, or neither.", NULL);
    }
    if (cfg->https_port == cfg->http_port || (cfg->metrics_port && cfg->metrics_port == cfg->https_port) ||
        (cfg->metrics_port && cfg->metrics_port == cfg->http_port)) {
        return err_set(err, ERR_INVALID, "config_invalid", "HTTPS_PORT, HTTP_PORT and METRICS_PORT must differ.", NULL);
    }
    proxy_list_t *proxies = NULL;
    err_kind_t k = proxy_list_parse(cfg->trusted_proxies, &proxies, err);
    if (k != ERR_OK) {
        return k;
    }
    proxy_list_free(proxies);
    if (cfg->public_url[0] && strncmp(cfg->public_url, "https://", 8) != 0) {
        return err_set(err, ERR_INVALID, "config_invalid", "PUBLIC_URL must start with https://", NULL);
    }
    return ERR_OK;
}

err_kind_t daemon_open(const config_t *cfg, bool wait_redis, gateway_t *gw, err_t *err) {
    memset(gw, 0, sizeof *gw);
    gw->cfg = cfg;
    err_kind_t k = proxy_list_parse(cfg->trusted_proxies, &gw->proxies, err);
    if (k == ERR_OK) {
        k = pg_pool_create(cfg, "spheroseg-gateway", &gw->pg, err);
    }
    if (k == ERR_OK) {
        k = pg_wait_ready(gw->pg, (int)cfg->start_timeout_s, err);
    }
    if (k == ERR_OK) {
        k = rds_pool_create(cfg, &gw->rds, err);
    }
    if (k == ERR_OK && wait_redis && rds_wait_ready(gw->rds, (int)cfg->start_timeout_s, err) != ERR_OK) {
        log_error(LOG_WARN, "Redis does not answer; serving without it, jobs wait in the database", err);
    }
    if (k == ERR_OK) {
        k = queue_create(cfg, gw->pg, gw->rds, &gw->queue, err);
    }
    if (k == ERR_OK) {
        k = storage_open(cfg, &gw->storage, err);
    }
    if (k != ERR_OK) {
        daemon_close(gw);
    }
    return k;
}

void daemon_close(gateway_t *gw) {
    if (gw->storage) {
        storage_close(gw->storage);
    }
    if (gw->queue) {
        queue_destroy(gw->queue);
    }
    if (gw->rds) {
        rds_pool_destroy(gw->rds);
    }
    if (gw->pg) {
        pg_pool_destroy(gw->pg);
    }
    proxy_list_free(gw->proxies);
    memset(gw, 0, sizeof *gw);
}

/* ---- housekeeping ---- */

typedef struct {
    gateway_t *gw;
    atomic_bool stop;
    pthread_t thread;
    bool running;
} sweeper_t;

static void keep_house(gateway_t *gw) {
    err_t err;
    if (session_sweep(gw->pg, &err) != ERR_OK) {
        log_error(LOG_WARN, "deleting expired sessions", &err);
    }
    if (idempotency_sweep(gw->pg, &err) != ERR_OK) {
        log_error(LOG_WARN, "deleting old idempotency keys", &err);
    }
    storage_sweep_temporary(gw->storage);
}

/* A dependency that is away would fail every second: the first failure and the recovery are said aloud. */
static void sweep_queue(gateway_t *gw, bool *failing) {
    err_t err;
    bool failed = queue_sweep(gw->queue, &err) != ERR_OK;
    if (failed) {
        log_error(*failing ? LOG_DEBUG : LOG_WARN, "sweeping the queue", &err);
    } else if (*failing) {
        log_event(LOG_INFO, "sweeping the queue works again", NULL);
    }
    *failing = failed;
}

static void *sweep(void *arg) {
    sweeper_t *s = arg;
    bool failing = false;
    int64_t stamp = 0;
    int64_t next_house = time_mono_ms() + 5000;
    int64_t next_certificate = 0;
    int64_t next_sweep = 0;
    while (!atomic_load(&s->stop)) {
        int64_t now = time_mono_ms();
        if (now >= next_sweep) {
            next_sweep = now + SWEEP_MS;
            sweep_queue(s->gw, &failing);
        }
        if (now >= next_certificate) {
            next_certificate = now + CERTIFICATE_MS;
            server_watch_certificate(s->gw->server, &stamp);
        }
        if (now >= next_house) {
            next_house = now + HOUSEKEEPING_MS;
            keep_house(s->gw);
        }
        time_sleep_ms(50);
    }
    return NULL;
}

/* ---- start and stop ---- */

typedef struct {
    gateway_t gw;
    server_t *server;
    ws_hub_t *hub;
    metrics_server_t *metrics;
    sweeper_t sweeper;
} daemon_t;

static err_kind_t start(daemon_t *d, const config_t *cfg, err_t *err) {
    int applied = 0;
    gateway_t *gw = &d->gw;
    err_kind_t k = daemon_open(cfg, true, gw, err);
    if (k != ERR_OK) {
        return k;
    }
    k = migrate_up(gw->pg, cfg->migrations_dir, &applied, err);
    if (k == ERR_OK && applied > 0) {
        char n[16];
        (void)snprintf(n, sizeof n, "%d", applied);
        log_event(LOG_INFO, "database migrated", "applied", n, NULL);
    }
    if (k == ERR_OK) {
        k = auth_create(cfg, &gw->auth, err);
    }
    if (k == ERR_OK) {
        k = derivatives_create(cfg, gw->storage, &gw->derivatives, err);
    }
    if (k == ERR_OK) {
        k = ws_hub_create(gw, &d->hub, err);
        gw->ws = d->hub;
    }
    if (k == ERR_OK) {
        k = health_start(gw, err);
    }
    if (k == ERR_OK) {
        k = server_start(gw, &d->server, err);
    }
    if (k == ERR_OK) {
        k = metrics_server_start(gw, &d->metrics, err);
    }
    if (k == ERR_OK) {
        d->sweeper.gw = gw;
        if (thread_start(&d->sweeper.thread, "sweeper", sweep, &d->sweeper) != 0) {
            return err_set(err, ERR_NO_MEMORY, "no_thread", "Cannot start a thread.", "sweeper");
        }
        d->sweeper.running = true;
    }
    return k;
}

static void stop(daemon_t *d) {
    gateway_t *gw = &d->gw;
    if (!gw->cfg) {
        return;
    }
    int64_t until = time_mono_ms() + gw->cfg->stop_timeout_s * 1000 - 1000;
    (void)alarm((unsigned)gw->cfg->stop_timeout_s + 5U);
    if (d->server) {
        server_drain(d->server);
    }
    if (d->hub) {
        ws_hub_shutdown(d->hub, 3000);
    }
    if (d->server && !server_wait_idle(d->server, until - time_mono_ms())) {
        log_event(LOG_WARN, "stopping although requests are still being answered", NULL);
    }
    if (d->sweeper.running) {
        atomic_store(&d->sweeper.stop, true);
        pthread_join(d->sweeper.thread, NULL);
    }
    metrics_server_stop(d->metrics);
    server_stop(d->server);
    health_stop();
    if (gw->derivatives) {
        derivatives_destroy(gw->derivatives);
    }
    ws_hub_destroy(d->hub);
    auth_destroy(gw->auth);
    daemon_close(gw);
    (void)alarm(0);
}

/* Every WebSocket is a descriptor, and the usual soft limit of 1,024 is there for programs that use select(). */
static void raise_descriptor_limit(const config_t *cfg) {
    struct rlimit limit;
    rlim_t want = (rlim_t)(cfg->ws_max_total + 2 * cfg->http_threads + DESCRIPTORS_SPARE);
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return;
    }
    if (limit.rlim_cur < want && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = want < limit.rlim_max ? want : limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (limit.rlim_cur < want) {
        char text[64];
        (void)snprintf(text, sizeof text, "%llu of %llu", (unsigned long long)limit.rlim_cur, (unsigned long long)want);
        log_event(LOG_WARN, "too few file descriptors for WS_MAX_TOTAL and HTTP_THREADS; raise the limit", "limit",
                  text, NULL);
    }
}

static void log_ready(const config_t *cfg) {
    char url[512];
    char port[16];
    if (cfg->public_url[0]) {
        (void)snprintf(url, sizeof url, "%.500s", cfg->public_url);
    } else {
        (void)snprintf(url, sizeof url, "https://localhost:%lld", (long long)cfg->https_port);
    }
    (void)snprintf(port, sizeof port, "%lld", (long long)cfg->https_port);
    log_event(LOG_INFO, "ready", "url", url, "host", cfg->listen_host, "port", port, "version", SG_VERSION, NULL);
}

static void wait_for_signals(daemon_t *d, const sigset_t *set, log_level_t usual) {
    for (;;) {
        int sig = 0;
        if (sigwait(set, &sig) != 0) {
            continue;
        }
        if (sig == SIGUSR1) {
            bool debug = log_get_level() == LOG_DEBUG && usual != LOG_DEBUG;
            log_set_level(debug ? usual : LOG_DEBUG);
            log_event(LOG_INFO, debug ? "debug log is off" : "debug log is on", NULL);
        } else if (sig == SIGHUP) {
            server_reload_certificate(d->server);
        } else {
            log_event(LOG_INFO, "stopping", "signal", sig == SIGTERM ? "SIGTERM" : "SIGINT", NULL);
            return;
        }
    }
}

/* Waiting for a database can take a minute: a signal in that time ends the process at once. Nothing is served yet. */
typedef struct {
    const sigset_t *set;
    atomic_bool started;
} start_guard_t;

static void *guard_start(void *arg) {
    start_guard_t *g = arg;
    while (!atomic_load(&g->started)) {
        const struct timespec quarter = {.tv_nsec = 250000000};
        int sig = sigtimedwait(g->set, NULL, &quarter);
        if (sig == SIGTERM || sig == SIGINT) {
            log_event(LOG_INFO, "stopped while starting", NULL);
            _exit(128 + sig);
        }
    }
    return NULL;
}

static err_kind_t start_guarded(daemon_t *d, const config_t *cfg, const sigset_t *set, err_t *err) {
    start_guard_t guard = {.set = set};
    pthread_t thread;
    bool guarded = thread_start(&thread, "start-guard", guard_start, &guard) == 0;
    err_kind_t k = start(d, cfg, err);
    atomic_store(&guard.started, true);
    if (guarded) {
        pthread_join(thread, NULL);
    }
    return k;
}

int daemon_serve(const config_t *cfg) {
    daemon_t d;
    sigset_t set;
    err_t err;
    log_level_t level = LOG_INFO;
    memset(&d, 0, sizeof d);
    err_clear(&err);
    (void)log_parse_level(cfg->log_level, &level);
    (void)signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGHUP);
    log_event(LOG_INFO, "starting", "version", SG_VERSION, NULL);
    raise_descriptor_limit(cfg);
    /* Every thread inherits this mask, so that only sigwait below sees these signals. */
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (start_guarded(&d, cfg, &set, &err) != ERR_OK) {
        log_error(LOG_ERROR, "start failed", &err);
        (void)fprintf(stderr, "gateway: %s\n", err.message);
        stop(&d);
        return 1;
    }
    log_ready(cfg);
    wait_for_signals(&d, &set, level);
    stop(&d);
    log_event(LOG_INFO, "stopped", NULL);
    return 0;
}
