/*
 * Drives the job queue for tests/bench/queue/bench_queue.py and prints one JSON line per call.
 *
 *   bench_queue PATH TEST N K [BATCH]
 *     PATH  redis: the daemons' client and scripts without the rows, what a queue in Redis alone would do
 *           full:  queue.h as the daemons use it, every step fenced by a row of PostgreSQL
 *     TEST  enqueue   N jobs by K threads, each one at a time       -> seconds
 *           bulk      N jobs by one thread, many in one call        -> seconds
 *           process   N no-op jobs by K slots of one worker         -> seconds (the jobs wait already)
 *           apart     the same by K workers of their own
 *           dispatch  N jobs, one every K ms, to an idle worker     -> latencies in microseconds
 *
 *     BATCH how many jobs a slot claims, holds and ends at a time; 0 (the default): it runs one after the other, and
 * claims as a slot of the daemon does, by the daemon's own policy and code (common/queue_ahead.h)
 *
 * Job ids are made from 1..N in both paths; for "full" the rows are there already (the Python program makes them).
 * Settings come from the environment like those of a worker.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/queue.h"
#include "common/queue_ahead.h"
#include "common/queue_internal.h"
#include "common/timeutil.h"

#define MODEL "bench"
#define USER "00000000-0000-4000-8000-000000000001"

enum { MAX_THREADS = 64, BULK = 500, BATCH_MAX = 64 };

typedef struct {
    queue_t *q;
    pg_pool_t *pg;
    bool full, apart;
    int n, threads, batch, ahead_ms;
    queue_ahead_t *ahead[MAX_THREADS]; /* of the one worker, or one for each */
    atomic_int next, done, failed;
    int64_t *sent_us, *latency_us; /* dispatch */
} bench_t;

typedef struct {
    bench_t *b;
    int index;
} thread_arg_t;

static void make_id(int i, char out[JOB_ID_LEN]) {
    (void)snprintf(out, JOB_ID_LEN, "00000000-0000-4000-9000-%012d", i);
}

static int id_number(const char *id) {
    return (int)strtol(id + 24, NULL, 10);
}

static void fail(bench_t *b, const char *what, const err_t *err) {
    if (atomic_fetch_add(&b->failed, 1) == 0) {
        (void)fprintf(stderr, "%s: %s %s (%s)\n", what, err->code, err->message, err->detail);
    }
}

/* ---- enqueue ---- */

static bool push_redis(bench_t *b, int from, int count) {
    char ids[BULK][JOB_ID_LEN];
    const char *argv[1 + 4 * BULK];
    int argc = 0;
    argv[argc++] = "back";
    for (int i = 0; i < count; i++) {
        make_id(from + i, ids[i]);
        argv[argc++] = ids[i];
        argv[argc++] = MODEL;
        argv[argc++] = "5";
        argv[argc++] = USER;
    }
    err_t err = {0};
    if (queue_eval(b->q, &b->q->lua.enqueue, 0, argc, argv, NULL, &err) != ERR_OK) {
        fail(b, "enqueue", &err);
        return false;
    }
    return true;
}

static bool push_one(bench_t *b, int i) {
    if (!b->full) {
        return push_redis(b, i, 1);
    }
    char id[JOB_ID_LEN];
    make_id(i, id);
    int position = -1;
    err_t err = {0};
    if (queue_enqueue(b->q, id, MODEL, 5, &position, &err) != ERR_OK) {
        fail(b, "enqueue", &err);
        return false;
    }
    return true;
}

static void *enqueue_thread(void *arg) {
    bench_t *b = ((thread_arg_t *)arg)->b;
    for (int i = atomic_fetch_add(&b->next, 1); i <= b->n; i = atomic_fetch_add(&b->next, 1)) {
        if (!push_one(b, i)) {
            break;
        }
    }
    return NULL;
}

static void enqueue_bulk(bench_t *b) {
    if (b->full) {
        int count = 0;
        err_t err = {0};
        if (queue_enqueue_batch(b->q, "00000000-0000-4000-8000-0000000000ba", &count, &err) != ERR_OK) {
            fail(b, "enqueue_batch", &err);
        }
        return;
    }
    for (int from = 1; from <= b->n; from += BULK) {
        if (!push_redis(b, from, from + BULK - 1 <= b->n ? BULK : b->n - from + 1)) {
            return;
        }
    }
}

/* ---- process ---- */

static const char *const MODELS[] = {MODEL};

/* One turn of a worker with Redis alone: the claims that it holds are ended, and it gets up to b->batch others, as the
 * daemon does it but without rows. Returns how many, -1 on failure. */
static int turn_redis(bench_t *b, const char *worker, queue_claim_t *claims, int held) {
    err_t err = {0};
    queue_turn_t turn = {.worker_id = worker,
                         .models = MODELS,
                         .nmodels = 1,
                         .most = b->batch > 0 ? b->batch : 1,
                         .done = claims,
                         .ndone = held,
                         .redis_only = true,
                         .out = claims,
                         .err = &err};
    queue_turn_take(b->q, &turn);
    if (turn.rc != ERR_OK) {
        fail(b, "turn", &err);
        return -1;
    }
    return turn.got;
}

static void work_redis(bench_t *b, const char *worker) {
    queue_claim_t *claims = calloc((size_t)b->batch, sizeof *claims);
    int held = 0;
    do {
        int n = claims ? turn_redis(b, worker, claims, held) : -1;
        atomic_fetch_add(&b->done, held);
        held = n;
    } while (held > 0);
    free(claims);
}

/* Commits what the worker holds, in one transaction, as the daemon commits a result. */
static bool commit_full(bench_t *b, queue_claim_t *c, int n) {
    pg_conn_t *conn = NULL;
    err_t err = {0};
    err_kind_t rc = pg_acquire(b->pg, &conn, &err);
    if (rc == ERR_OK) {
        rc = pg_begin(conn, &err);
    }
    for (int i = 0; rc == ERR_OK && i < n; i++) {
        rc = queue_complete_in_tx(b->q, conn, &c[i], 0, "{}", &err);
    }
    if (rc == ERR_OK) {
        rc = pg_commit(conn, &err);
    }
    pg_release(conn);
    if (rc != ERR_OK) {
        fail(b, "complete", &err);
    }
    return rc == ERR_OK;
}

static void work_full(bench_t *b, const char *worker) {
    static const int counts[BATCH_MAX];
    queue_claim_t *claims = calloc((size_t)b->batch, sizeof *claims);
    queue_claim_t *done = calloc((size_t)b->batch, sizeof *done);
    int held = 0;
    do {
        err_t err = {0};
        int got = 0;
        if (!claims || !done ||
            queue_turn(b->q, worker, done, counts, held, MODELS, 1, b->batch, 0, claims, &got, &err) != ERR_OK) {
            fail(b, "turn", &err);
            break;
        }
        atomic_fetch_add(&b->done, held);
        held = got;
        memcpy(done, claims, (size_t)held * sizeof *done);
    } while (held > 0 && commit_full(b, done, held));
    free(claims);
    free(done);
}

/* A slot of the daemon (worker_slot_run) with jobs that are nothing but their commit. */
static void work_slot(bench_t *b, queue_ahead_t *ahead, int slot) {
    while (atomic_load(&b->done) < b->n && atomic_load(&b->failed) == 0) {
        queue_claim_t c;
        bool got = false, lost = false;
        err_t err = {0};
        if (queue_ahead_next(ahead, slot, MODELS, 1, 0, &c, &got, &lost, &err) != ERR_OK) {
            fail(b, "next", &err);
        } else if (!got) {
            time_sleep_ms(1); /* other slots hold what is left */
        } else if (!b->full || commit_full(b, &c, 1)) {
            queue_ahead_done(ahead, slot, &c, 0);
            atomic_fetch_add(&b->done, 1);
        }
    }
    queue_ahead_leave(ahead, slot);
}

static bool make_ahead(bench_t *b) {
    static char names[MAX_THREADS][32];
    err_t err = {0};
    for (int i = 0; i < (b->apart ? b->threads : 1); i++) {
        (void)snprintf(names[i], sizeof names[i], "bench-%d", i);
        const queue_ahead_setup_t setup = {.queue = b->q,
                                           .worker_id = names[i],
                                           .slots = b->apart ? 1 : b->threads,
                                           .work_ms = b->ahead_ms,
                                           .redis_only = !b->full};
        if (queue_ahead_create(&setup, &b->ahead[i], &err) != ERR_OK) {
            fail(b, "start", &err);
            return false;
        }
    }
    return true;
}

static void *worker_thread(void *arg) {
    thread_arg_t *a = arg;
    char worker[32];
    (void)snprintf(worker, sizeof worker, "bench-%d", a->b->apart ? a->index : 0);
    if (a->b->batch == 0) {
        work_slot(a->b, a->b->ahead[a->b->apart ? a->index : 0], a->b->apart ? 0 : a->index);
    } else if (a->b->full) {
        work_full(a->b, worker);
    } else {
        work_redis(a->b, worker);
    }
    return NULL;
}

/* ---- dispatch ---- */

static void got_job(bench_t *b, const char *id) {
    int i = id_number(id);
    if (i >= 1 && i <= b->n) {
        b->latency_us[i - 1] = time_mono_us() - b->sent_us[i - 1];
        atomic_fetch_add(&b->done, 1);
    }
}

static void wait_redis(bench_t *b, rds_conn_t *blocking) {
    static const char *const pop[] = {"BLPOP", "sg:wake:" MODEL, "2"};
    queue_claim_t c;
    int held = 0;
    while (atomic_load(&b->done) < b->n && atomic_load(&b->failed) == 0) {
        held = turn_redis(b, "bench-0", &c, held > 0);
        if (held == 1) {
            got_job(b, c.id);
        } else if (held == 0) {
            err_t err = {0};
            if (rds_command(blocking, 3, pop, NULL, NULL, &err) != ERR_OK) {
                fail(b, "BLPOP", &err);
            }
        }
    }
}

static void wait_full(bench_t *b) {
    static const int none = 0;
    queue_claim_t c, done;
    int held = 0;
    while (atomic_load(&b->done) < b->n && atomic_load(&b->failed) == 0) {
        int got = 0;
        err_t err = {0};
        if (queue_turn(b->q, "bench-0", &done, &none, held, MODELS, 1, 1, 2000, &c, &got, &err) != ERR_OK) {
            fail(b, "claim", &err);
        }
        held = got;
        if (got == 1) {
            got_job(b, c.id);
            done = c;
            (void)commit_full(b, &done, 1);
        }
    }
    queue_complete_done_many(b->q, "bench-0", &done, &none, held);
}

static void *dispatch_thread(void *arg) {
    bench_t *b = ((thread_arg_t *)arg)->b;
    if (b->full) {
        wait_full(b);
        return NULL;
    }
    rds_conn_t *blocking = NULL;
    err_t err = {0};
    if (rds_connect(b->q->rds, 5000, &blocking, &err) != ERR_OK) {
        fail(b, "connect", &err);
        return NULL;
    }
    wait_redis(b, blocking);
    rds_release(blocking);
    return NULL;
}

static void run_dispatch(bench_t *b, int gap_ms) {
    pthread_t t;
    thread_arg_t arg = {.b = b};
    if (pthread_create(&t, NULL, dispatch_thread, &arg) != 0) {
        atomic_fetch_add(&b->failed, 1);
        return;
    }
    time_sleep_ms(300);
    for (int i = 1; i <= b->n && atomic_load(&b->failed) == 0; i++) {
        b->sent_us[i - 1] = time_mono_us();
        (void)push_one(b, i);
        time_sleep_ms(gap_ms);
    }
    (void)pthread_join(t, NULL);
}

/* ---- frame ---- */

static double run_threads(bench_t *b, void *(*fn)(void *)) {
    pthread_t t[MAX_THREADS];
    thread_arg_t args[MAX_THREADS];
    int64_t start = time_mono_us();
    int started = 0;
    for (; started < b->threads; started++) {
        args[started] = (thread_arg_t){b, started};
        if (pthread_create(&t[started], NULL, fn, &args[started]) != 0) {
            atomic_fetch_add(&b->failed, 1);
            break;
        }
    }
    for (int i = 0; i < started; i++) {
        (void)pthread_join(t[i], NULL);
    }
    return (double)(time_mono_us() - start) / 1e6;
}

static bool run_test(bench_t *b, const char *test, int k) {
    if (strcmp(test, "dispatch") == 0) {
        run_dispatch(b, k);
        (void)printf("{\"latenciesUs\":[");
        for (int i = 0; i < b->n; i++) {
            (void)printf("%s%lld", i ? "," : "", (long long)b->latency_us[i]);
        }
        (void)printf("]}\n");
        return true;
    }
    double seconds = 0;
    b->threads = k;
    if (strcmp(test, "enqueue") == 0) {
        seconds = run_threads(b, enqueue_thread);
    } else if (strcmp(test, "process") == 0 || strcmp(test, "apart") == 0) {
        b->apart = strcmp(test, "apart") == 0;
        if (b->batch == 0 && !make_ahead(b)) {
            return false;
        }
        seconds = run_threads(b, worker_thread);
        if (atomic_load(&b->done) < b->n) {
            (void)fprintf(stderr, "only %d of %d jobs were processed\n", atomic_load(&b->done), b->n);
            return false;
        }
    } else if (strcmp(test, "bulk") == 0) {
        int64_t start = time_mono_us();
        enqueue_bulk(b);
        seconds = (double)(time_mono_us() - start) / 1e6;
    } else {
        (void)fprintf(stderr, "no test %s\n", test);
        return false;
    }
    (void)printf("{\"jobs\":%d,\"seconds\":%.6f}\n", b->n, seconds);
    return true;
}

/* As many connections as threads, so that none is made while the clock runs. */
static bool open_connections(bench_t *b, rds_pool_t *rds, int n) {
    rds_conn_t *redis[MAX_THREADS] = {0};
    pg_conn_t *pg[MAX_THREADS] = {0};
    err_t err = {0};
    bool ok = true;
    for (int i = 0; ok && i < n; i++) {
        ok = rds_acquire(rds, &redis[i], &err) == ERR_OK && (!b->full || pg_acquire(b->pg, &pg[i], &err) == ERR_OK);
    }
    for (int i = 0; i < n; i++) {
        rds_release(redis[i]);
        pg_release(pg[i]);
    }
    if (!ok) {
        fail(b, "connect", &err);
    }
    return ok;
}

/* Connections and scripts are there before the clock starts, as in a daemon that has run for a while. */
static bool warm_up(bench_t *b, rds_pool_t *rds, bool jobs_wait, int threads) {
    err_t err = {0};
    bool ok = rds_wait_ready(rds, 5, &err) == ERR_OK && (!b->full || pg_wait_ready(b->pg, 5, &err) == ERR_OK) &&
              queue_release(b->q, "drop", NULL, 0, NULL, &err) == ERR_OK;
    if (!ok) {
        fail(b, "warm-up", &err);
    }
    queue_claim_t c;
    if (ok && !jobs_wait) {
        ok = push_redis(b, 0, 1) && turn_redis(b, "bench-warm", &c, 0) == 1 && turn_redis(b, "bench-warm", &c, 1) == 0;
    }
    return ok && open_connections(b, rds, threads);
}

int main(int argc, char **argv) {
    if (argc < 5 || argc > 6) {
        (void)fprintf(stderr, "usage: bench_queue redis|full enqueue|bulk|process|apart|dispatch N K [BATCH]\n");
        return 2;
    }
    config_t cfg;
    err_t err = {0};
    rds_pool_t *rds = NULL;
    bench_t b = {.full = strcmp(argv[1], "full") == 0, .n = (int)strtol(argv[3], NULL, 10)};
    int k = (int)strtol(argv[4], NULL, 10);
    b.batch = argc == 6 ? (int)strtol(argv[5], NULL, 10) : 0;
    if (b.batch < 0 || b.batch > BATCH_MAX || b.n < 1 || b.n > 10000000 || k < 1 || k > 1000 ||
        (k > MAX_THREADS && strcmp(argv[2], "dispatch") != 0)) {
        (void)fprintf(stderr, "N or K out of range\n");
        return 2;
    }
    log_set_level(LOG_ERROR);
    if (config_load(CONFIG_WORKER, &cfg, &err) != ERR_OK || rds_pool_create(&cfg, &rds, &err) != ERR_OK ||
        pg_pool_create(&cfg, "bench", &b.pg, &err) != ERR_OK || queue_create(&cfg, b.pg, rds, &b.q, &err) != ERR_OK) {
        fail(&b, "start", &err);
        return 1;
    }
    b.ahead_ms = (int)cfg.claim_ahead_ms;
    b.sent_us = calloc((size_t)b.n, sizeof *b.sent_us);
    b.latency_us = calloc((size_t)b.n, sizeof *b.latency_us);
    bool ok = b.sent_us && b.latency_us &&
              warm_up(&b, rds, strcmp(argv[2], "process") == 0 || strcmp(argv[2], "apart") == 0,
                      strcmp(argv[2], "dispatch") == 0 ? 2 : k) &&
              run_test(&b, argv[2], k) && atomic_load(&b.failed) == 0;
    for (int i = 0; i < MAX_THREADS; i++) {
        queue_ahead_destroy(b.ahead[i]);
    }
    queue_destroy(b.q);
    pg_pool_destroy(b.pg);
    rds_pool_destroy(rds);
    config_free(&cfg);
    free(b.sent_us);
    free(b.latency_us);
    return ok ? 0 : 1;
}
