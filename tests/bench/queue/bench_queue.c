/*
 * Drives the job queue for tests/bench/queue/bench_queue.py and prints one JSON line per call.
 *
 *   bench_queue PATH TEST N K [BATCH]
 *     PATH  redis: the queue's scripts only, what a queue in Redis alone would do
 *           full:  queue.h as the daemons use it, every step fenced by a row of PostgreSQL
 *     TEST  enqueue   N jobs by K threads, each one at a time       -> seconds
 *           bulk      N jobs by one thread, many in one call        -> seconds
 *           process   N no-op jobs by K worker threads              -> seconds (the jobs wait already)
 *           dispatch  N jobs, one every K ms, to an idle worker     -> latencies in microseconds
 *
 *     BATCH how many jobs a worker of the redis path claims at a time (1)
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
#include "common/queue_internal.h"
#include "common/timeutil.h"

#define MODEL "bench"
#define USER "00000000-0000-4000-8000-000000000001"

enum { MAX_THREADS = 64, BULK = 500, BATCH_MAX = 64 };

typedef struct {
    queue_t *q;
    pg_pool_t *pg;
    bool full;
    int n, threads, batch;
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
    const char *argv[2 + 4 * BULK];
    int argc = 0;
    argv[argc++] = "sg:lease";
    argv[argc++] = "back";
    for (int i = 0; i < count; i++) {
        make_id(from + i, ids[i]);
        argv[argc++] = ids[i];
        argv[argc++] = MODEL;
        argv[argc++] = "5";
        argv[argc++] = USER;
    }
    err_t err = {0};
    if (queue_eval(b->q, &b->q->lua.enqueue, 1, argc, argv, NULL, &err) != ERR_OK) {
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

/* Claims one job with claim.lua alone. 1 and the id, 0 when nothing waits, -1 on failure. */
static int claim_redis(bench_t *b, const char *worker, const char *proc, char id[JOB_ID_LEN]) {
    const char *argv[] = {proc, "sg:procs", "sg:lease", worker, "30000", "30000", "8", "1", MODEL};
    redisReply *r = NULL;
    err_t err = {0};
    if (queue_eval(b->q, &b->q->lua.claim, 3, 9, argv, &r, &err) != ERR_OK) {
        fail(b, "claim", &err);
        return -1;
    }
    int got = r->type == REDIS_REPLY_ARRAY && r->elements == 4;
    if (got) {
        (void)snprintf(id, JOB_ID_LEN, "%s", r->element[0]->str);
    }
    freeReplyObject(r);
    return got;
}

/* What a worker of the redis path holds. */
typedef struct {
    const char *worker, *proc;
    char ids[BATCH_MAX][JOB_ID_LEN];
    int held;
} hands_t;

static void take(hands_t *h, const redisReply *r) {
    h->held = r->type == REDIS_REPLY_ARRAY ? (int)(r->elements / 4) : 0;
    for (int i = 0; i < h->held; i++) {
        (void)snprintf(h->ids[i], JOB_ID_LEN, "%s", r->element[4 * i]->str);
    }
}

/* Ends the claims that are held and, in the same round trip as the last of them, claims the next. */
static bool turn_over(bench_t *b, rds_conn_t *conn, hands_t *h) {
    char limit[8];
    (void)snprintf(limit, sizeof limit, "%d", b->batch);
    const char *const claim[] = {h->proc, "sg:procs", "sg:lease", h->worker, "30000", "30000", "8", limit, MODEL};
    for (int from = 0, last = 0; !last;) {
        const char *argv[RDS_CALLS][6];
        rds_call_t calls[RDS_CALLS];
        int n = 0;
        for (; n < RDS_CALLS - 1 && from < h->held; n++, from++) {
            const char *const words[] = {h->proc, "sg:procs", "sg:lease", h->worker, h->ids[from], "drop"};
            memcpy(argv[n], words, sizeof words);
            calls[n] = (rds_call_t){.script = &b->q->lua.release, .nkeys = 3, .argc = 6, .argv = argv[n]};
        }
        last = from == h->held;
        if (last) {
            calls[n++] = (rds_call_t){.script = &b->q->lua.claim, .nkeys = 3, .argc = 9, .argv = claim};
        }
        err_t err = {0};
        if (rds_eval_many(conn, calls, n, &err) != ERR_OK) {
            fail(b, "release and claim", &err);
            return false;
        }
        if (last) {
            atomic_fetch_add(&b->done, h->held);
            take(h, calls[n - 1].reply);
        }
        for (int i = 0; i < n; i++) {
            freeReplyObject(calls[i].reply);
        }
    }
    return true;
}

static void work_redis(bench_t *b, const char *worker) {
    char proc[64];
    (void)snprintf(proc, sizeof proc, "sg:proc:%s", worker);
    hands_t hands = {.worker = worker, .proc = proc};
    rds_conn_t *conn = NULL;
    err_t err = {0};
    if (rds_acquire(b->q->rds, &conn, &err) != ERR_OK) {
        fail(b, "connect", &err);
        return;
    }
    while (turn_over(b, conn, &hands) && hands.held > 0) {
    }
    rds_release(conn);
}

static bool complete_full(bench_t *b, const char *worker, queue_claim_t *c) {
    pg_conn_t *conn = NULL;
    err_t err = {0};
    err_kind_t rc = pg_acquire(b->pg, &conn, &err);
    if (rc == ERR_OK) {
        rc = pg_begin(conn, &err);
    }
    if (rc == ERR_OK) {
        rc = queue_complete_in_tx(b->q, conn, c, 0, "{}", &err);
        rc = rc == ERR_OK ? pg_commit(conn, &err) : rc;
    }
    pg_release(conn);
    if (rc != ERR_OK) {
        fail(b, "complete", &err);
        return false;
    }
    queue_complete_done(b->q, worker, c, 0);
    return true;
}

static void work_full(bench_t *b, const char *worker) {
    static const char *const models[] = {MODEL};
    while (atomic_load(&b->done) < b->n) {
        queue_claim_t c;
        bool got = false;
        err_t err = {0};
        if (queue_claim(b->q, worker, models, 1, 0, &c, &got, &err) != ERR_OK) {
            fail(b, "claim", &err);
            return;
        }
        if (!got || !complete_full(b, worker, &c)) {
            return;
        }
        atomic_fetch_add(&b->done, 1);
    }
}

static void *worker_thread(void *arg) {
    thread_arg_t *a = arg;
    char worker[32];
    (void)snprintf(worker, sizeof worker, "bench-%d", a->index);
    if (a->b->full) {
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
    char id[JOB_ID_LEN];
    static const char *const pop[] = {"BLPOP", "sg:wake:" MODEL, "2"};
    while (atomic_load(&b->done) < b->n && atomic_load(&b->failed) == 0) {
        int got = claim_redis(b, "bench-0", "sg:proc:bench-0", id);
        if (got == 1) {
            got_job(b, id);
            (void)queue_release_drop(b->q, "bench-0", id);
        } else if (got == 0) {
            err_t err = {0};
            if (rds_command(blocking, 3, pop, NULL, NULL, &err) != ERR_OK) {
                fail(b, "BLPOP", &err);
            }
        }
    }
}

static void wait_full(bench_t *b) {
    static const char *const models[] = {MODEL};
    while (atomic_load(&b->done) < b->n && atomic_load(&b->failed) == 0) {
        queue_claim_t c;
        bool got = false;
        err_t err = {0};
        if (queue_claim(b->q, "bench-0", models, 1, 2000, &c, &got, &err) != ERR_OK) {
            fail(b, "claim", &err);
        } else if (got) {
            got_job(b, c.id);
            (void)complete_full(b, "bench-0", &c);
        }
    }
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
    } else if (strcmp(test, "process") == 0) {
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

/* Connections and scripts are there before the clock starts, as in a daemon that has run for a while. */
static bool warm_up(bench_t *b, rds_pool_t *rds) {
    err_t err = {0};
    bool ok = rds_wait_ready(rds, 5, &err) == ERR_OK && pg_wait_ready(b->pg, 5, &err) == ERR_OK;
    char id[JOB_ID_LEN];
    if (ok && push_redis(b, 0, 1)) {
        ok = claim_redis(b, "bench-warm", "sg:proc:bench-warm", id) >= 0 && queue_release_drop(b->q, "bench-warm", id);
    }
    if (!ok) {
        fail(b, "warm-up", &err);
    }
    return ok;
}

int main(int argc, char **argv) {
    if (argc < 5 || argc > 6) {
        (void)fprintf(stderr, "usage: bench_queue redis|full enqueue|bulk|process|dispatch N K [BATCH]\n");
        return 2;
    }
    config_t cfg;
    err_t err = {0};
    rds_pool_t *rds = NULL;
    bench_t b = {.full = strcmp(argv[1], "full") == 0, .n = (int)strtol(argv[3], NULL, 10)};
    int k = (int)strtol(argv[4], NULL, 10);
    b.batch = argc == 6 ? (int)strtol(argv[5], NULL, 10) : 1;
    if (b.batch < 1 || b.batch > BATCH_MAX || b.n < 1 || b.n > 10000000 || k < 1 || k > 1000 ||
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
    b.sent_us = calloc((size_t)b.n, sizeof *b.sent_us);
    b.latency_us = calloc((size_t)b.n, sizeof *b.latency_us);
    bool ok = b.sent_us && b.latency_us && (strcmp(argv[2], "process") == 0 || warm_up(&b, rds)) &&
              run_test(&b, argv[2], k) && atomic_load(&b.failed) == 0;
    queue_destroy(b.q);
    pg_pool_destroy(b.pg);
    rds_pool_destroy(rds);
    config_free(&cfg);
    free(b.sent_us);
    free(b.latency_us);
    return ok ? 0 : 1;
}
