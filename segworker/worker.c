/*
 * The worker daemon: start, signals, stop. See worker.h and worker_internal.h.
 *
 * Start: HTTP first (so that /live answers), then wait for PostgreSQL, its schema and Redis with a bound, load and warm
 * up the models, register, start the threads. Stop: claim nothing more, let running jobs finish for three quarters of
 * STOP_TIMEOUT, then ask them to stop and hand them back; what has not stopped at the end is handed back from here, so
 * that even a stuck inference costs no attempt.
 */
#include "segworker/worker.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/thread_util.h"
#include "common/timeutil.h"
#include "segworker/worker_internal.h"

void worker_sleep(worker_t *w, int64_t ms) {
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(ms / 1000);
    until.tv_nsec += (long)(ms % 1000) * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    (void)pthread_mutex_lock(&w->lock);
    (void)pthread_cond_timedwait(&w->cond, &w->lock, &until);
    (void)pthread_mutex_unlock(&w->lock);
}

void worker_wake(worker_t *w) {
    (void)pthread_mutex_lock(&w->lock);
    (void)pthread_cond_broadcast(&w->cond);
    (void)pthread_mutex_unlock(&w->lock);
}

/* ---- signals ---- */

static sigset_t watched_signals(void) {
    sigset_t s;
    (void)sigemptyset(&s);
    (void)sigaddset(&s, SIGTERM);
    (void)sigaddset(&s, SIGINT);
    (void)sigaddset(&s, SIGUSR1);
    (void)sigaddset(&s, SIGHUP);
    return s;
}

static void toggle_debug(log_level_t configured) {
    bool debug = log_get_level() == LOG_DEBUG;
    log_level_t quiet = configured == LOG_DEBUG ? LOG_INFO : configured;
    log_set_level(debug ? quiet : LOG_DEBUG);
    log_msgf(LOG_INFO, "debug logging is %s", debug ? "off" : "on");
}

/* Waits up to ms for a signal and returns its number. */
static int next_signal(int64_t ms, log_level_t configured) {
    sigset_t s = watched_signals();
    const struct timespec t = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000L};
    int n = sigtimedwait(&s, NULL, &t);
    if (n == SIGUSR1) {
        toggle_debug(configured);
    }
    return n;
}

/* True: the daemon should stop. While it starts there are no models to read again. */
static bool wait_signal(int64_t ms, log_level_t configured) {
    int n = next_signal(ms, configured);
    return n == SIGTERM || n == SIGINT;
}

static void serve_signals(worker_t *w, log_level_t configured) {
    int n = 0;
    while (n != SIGTERM && n != SIGINT) {
        n = next_signal(60000, configured);
        if (n == SIGHUP) {
            worker_reload_models(w);
        }
    }
}

/* ---- start ---- */

static err_kind_t name_worker(worker_t *w, err_t *err) {
    char nonce[9] = "";
    if (gethostname(w->host, sizeof w->host) != 0) {
        (void)snprintf(w->host, sizeof w->host, "unknown");
    }
    w->host[sizeof w->host - 1] = '\0';
    unsigned int r = 0;
    FILE *f = fopen("/dev/urandom", "re");
    bool ok = f && fread(&r, sizeof r, 1, f) == 1;
    if (f) {
        (void)fclose(f);
    }
    if (!ok) {
        return err_set(err, ERR_INTERNAL, "no_randomness", "There is no source of random numbers.", "/dev/urandom");
    }
    (void)snprintf(nonce, sizeof nonce, "%08x", r);
    (void)snprintf(w->id, sizeof w->id, "%s-%s", w->host, nonce);
    time_format_rfc3339(time_wall_ms(), w->started_at);
    return ERR_OK;
}

/* The gateway makes the tables; a worker that is faster waits for them. */
static err_kind_t schema_ready(worker_t *w, int timeout_s, err_t *err) {
    (void)timeout_s;
    PGresult *res = NULL;
    err_kind_t rc = pg_query(w->pg,
                             "SELECT to_regclass('jobs') IS NOT NULL AND to_regclass('models') IS NOT NULL AND "
                             "to_regclass('objects') IS NOT NULL AS there",
                             0, NULL, &res, err);
    if (rc != ERR_OK) {
        return rc;
    }
    bool there = pg_get_bool(res, 0, "there");
    PQclear(res);
    if (!there) {
        rc = err_set(err, ERR_UNAVAILABLE, "schema_missing", "The database has no tables yet; the gateway makes them.",
                     NULL);
        log_msgf(LOG_INFO, "waiting for the database's tables (the gateway makes them)");
        time_sleep_ms(1000);
    }
    return rc;
}

static err_kind_t pg_ready(worker_t *w, int timeout_s, err_t *err) {
    return pg_wait_ready(w->pg, timeout_s, err);
}

static err_kind_t redis_ready(worker_t *w, int timeout_s, err_t *err) {
    return rds_wait_ready(w->rds, timeout_s, err);
}

/* Waits for one dependency until the deadline, a second at a time so that a signal is heard. */
static err_kind_t wait_for(worker_t *w, err_kind_t (*ready)(worker_t *, int, err_t *), int64_t deadline_ms,
                           log_level_t level, bool *stopped, err_t *err) {
    for (;;) {
        err_kind_t rc = ready(w, 1, err);
        if (rc == ERR_OK) {
            return ERR_OK;
        }
        if (wait_signal(0, level)) {
            *stopped = true;
            return rc;
        }
        if (time_mono_ms() >= deadline_ms) {
            return rc;
        }
    }
}

static err_kind_t start_parts(worker_t *w, err_t *err) {
    const config_t *cfg = w->cfg;
    err_kind_t rc = name_worker(w, err);
    if (rc == ERR_OK && cfg->metrics_port > 0) {
        rc = httpd_mini_start(cfg->metrics_host, (int)cfg->metrics_port, worker_http, w, &w->http, err);
    }
    if (rc == ERR_OK) {
        rc = storage_open(cfg, &w->storage, err);
    }
    if (rc == ERR_OK) {
        rc = pg_pool_create(cfg, "segworker", &w->pg, err);
    }
    if (rc == ERR_OK) {
        rc = rds_pool_create(cfg, &w->rds, err);
    }
    if (rc == ERR_OK) {
        rc = queue_create(cfg, w->pg, w->rds, &w->queue, err);
    }
    if (rc != ERR_OK) {
        return rc;
    }
    const queue_ahead_setup_t ahead = {
        .queue = w->queue, .worker_id = w->id, .slots = w->nslots, .work_ms = cfg->claim_ahead_ms};
    return queue_ahead_create(&ahead, &w->ahead, err);
}

static err_kind_t wait_for_all(worker_t *w, log_level_t level, bool *stopped, err_t *err) {
    int64_t deadline = time_mono_ms() + w->cfg->start_timeout_s * 1000;
    err_kind_t rc = wait_for(w, pg_ready, deadline, level, stopped, err);
    if (rc == ERR_OK) {
        rc = wait_for(w, redis_ready, deadline, level, stopped, err);
    }
    return rc == ERR_OK ? wait_for(w, schema_ready, deadline, level, stopped, err) : rc;
}

static err_kind_t register_models(worker_t *w, log_level_t level, bool *stopped, err_t *err) {
    int64_t deadline = time_mono_ms() + w->cfg->start_timeout_s * 1000;
    for (;;) {
        err_kind_t rc = worker_register_models(w, err);
        if (rc != ERR_UNAVAILABLE || time_mono_ms() >= deadline) {
            return rc;
        }
        if (wait_signal(1000, level)) {
            *stopped = true;
            return rc;
        }
    }
}

static err_kind_t start_thread(pthread_t *t, bool *started, const char *name, void *(*fn)(void *), void *arg,
                               err_t *err) {
    int e = thread_start(t, name, fn, arg);
    *started = e == 0;
    return e == 0 ? ERR_OK
                  : err_set(err, ERR_NO_MEMORY, "no_memory", "A thread could not be started.", "%s: %s", name,
                            strerror(e));
}

static err_kind_t start_threads(worker_t *w, err_t *err) {
    err_kind_t rc = start_thread(&w->heart, &w->heart_started, "heartbeat", worker_heart_run, w, err);
    if (rc == ERR_OK) {
        rc = start_thread(&w->sweeper, &w->sweeper_started, "sweeper", worker_sweeper_run, w, err);
    }
    for (int i = 0; rc == ERR_OK && i < w->nslots; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "job-%d", i);
        rc = start_thread(&w->slots[i].thread, &w->slots[i].started, name, worker_slot_run, &w->slots[i], err);
    }
    return rc;
}

static err_kind_t start(worker_t *w, log_level_t level, bool *stopped, err_t *err) {
    err_kind_t rc = start_parts(w, err);
    if (rc == ERR_OK) {
        rc = wait_for_all(w, level, stopped, err);
    }
    if (rc == ERR_OK) {
        rc = worker_load_models(w, err);
    }
    if (rc == ERR_OK) { /* the database may have gone again meanwhile */
        rc = register_models(w, level, stopped, err);
    }
    if (rc == ERR_OK) {
        w->pg_ok = w->redis_ok = w->warm = true;
        rc = start_threads(w, err);
    }
    return rc;
}

/* ---- stop ---- */

static void wait_idle(worker_t *w, int64_t deadline_ms) {
    while (worker_busy_count(w) > 0) {
        int64_t left = deadline_ms - time_mono_ms();
        if (left <= 0) {
            return;
        }
        worker_sleep(w, left < 200 ? left : 200);
    }
}

/* Returns whether every slot's thread has ended. */
static bool stop_jobs(worker_t *w) {
    int64_t now = time_mono_ms(), grace = w->cfg->stop_timeout_s * 1000;
    w->stopping = true;
    worker_wake(w);
    if (w->ahead) {
        queue_ahead_stop(w->ahead);
    }
    wait_idle(w, now + grace * 3 / 4);
    w->hurry = true;
    wait_idle(w, now + grace - grace / 16);
    bool idle = true;
    for (int i = 0; i < w->nslots; i++) {
        (void)pthread_mutex_lock(&w->lock);
        bool busy = w->slots[i].busy;
        bool given_up = w->slots[i].given_up;
        queue_claim_t c = w->slots[i].claim;
        (void)pthread_mutex_unlock(&w->lock);
        if (busy && given_up) {
            idle = false;
        } else if (busy) {
            idle = false;
            c.seq += WORKER_SEQ_SKIP;
            err_t err;
            log_event(LOG_WARN, "a job did not stop in time and is handed back", "jobId", c.id, NULL);
            if (queue_hand_back(w->queue, w->id, &c, &err) != ERR_OK) {
                log_error(LOG_WARN, "hand a job back", &err);
            }
        } else if (w->slots[i].started) {
            (void)pthread_join(w->slots[i].thread, NULL); /* it waits at most a second for a claim */
        }
    }
    return idle;
}

static void stop_service_threads(worker_t *w) {
    w->quit = true;
    worker_wake(w);
    if (w->heart_started) {
        (void)pthread_join(w->heart, NULL);
    }
    if (w->sweeper_started) {
        (void)pthread_join(w->sweeper, NULL);
    }
}

static void release_parts(worker_t *w) {
    httpd_mini_stop(w->http);
    worker_free_models(w);
    queue_destroy(w->queue);
    if (w->rds) {
        rds_pool_destroy(w->rds);
    }
    if (w->pg) {
        pg_pool_destroy(w->pg);
    }
    if (w->storage) {
        storage_close(w->storage);
    }
    (void)pthread_cond_destroy(&w->cond);
    (void)pthread_mutex_destroy(&w->lock);
}

static worker_t *make_worker(const config_t *cfg) {
    worker_t *w = calloc(1, sizeof *w);
    if (!w) {
        return NULL;
    }
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&w->cond, &attr);
    (void)pthread_condattr_destroy(&attr);
    (void)pthread_mutex_init(&w->lock, NULL);
    w->cfg = cfg;
    w->nslots = (int)cfg->queue_concurrency;
    for (int i = 0; i < w->nslots; i++) {
        w->slots[i].w = w;
    }
    worker_health_register(w);
    return w;
}

int worker_main(const config_t *cfg) {
    log_level_t level = LOG_INFO;
    sigset_t watched = watched_signals();
    (void)pthread_sigmask(SIG_BLOCK, &watched, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)log_parse_level(cfg->log_level, &level);
    worker_t *w = make_worker(cfg);
    if (!w) {
        log_msgf(LOG_ERROR, "out of memory");
        return 1;
    }
    bool stopped = false;
    err_t err = {0};
    bool ok = start(w, level, &stopped, &err) == ERR_OK;
    if (ok) {
        char slots[16], models[16];
        (void)snprintf(slots, sizeof slots, "%d", w->nslots);
        (void)snprintf(models, sizeof models, "%d", w->nmodels);
        log_event(LOG_INFO, "worker ready", "workerId", w->id, "device", w->device, "slots", slots, "models", models,
                  NULL);
        serve_signals(w, level);
        log_msgf(LOG_INFO, "stopping");
    } else if (!stopped) {
        log_error(LOG_ERROR, "start", &err);
    }
    bool idle = stop_jobs(w);
    stop_service_threads(w);
    if (idle) {
        queue_ahead_destroy(w->ahead);
    }
    if (ok) {
        queue_unregister(w->queue, w->id);
    }
    if (!idle) {
        log_msgf(LOG_WARN, "stopped with a job that did not answer");
        _exit(w->stuck ? 1 : 0); /* its thread still uses what we would free */
    }
    release_parts(w);
    free(w);
    log_msgf(LOG_INFO, "stopped");
    return ok || stopped ? 0 : 1;
}
