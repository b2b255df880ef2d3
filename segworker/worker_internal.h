/*
 * What the files of the worker daemon share. Threads: the main thread (signals, start, stop), one per job slot, the
 * heartbeat, the sweeper, and the HTTP thread of httpd_mini. The heartbeat never computes and never asks PostgreSQL.
 */
#ifndef SG_SEGWORKER_WORKER_INTERNAL_H
#define SG_SEGWORKER_WORKER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "common/config.h"
#include "common/httpd_mini.h"
#include "common/metrics.h"
#include "common/queue.h"
#include "common/queue_ahead.h"
#include "common/storage.h"
#include "segworker/models.h"
#include "segworker/pipeline/pipeline.h"
#include "segworker/result.h"

/* Added to the number of a claim that is ended from outside while its thread may still publish progress. */
enum { WORKER_SEQ_SKIP = 1 << 20 };
enum { WORKER_MAX_MODELS = 64, WORKER_MAX_SLOTS = 64, WORKER_ID_SIZE = 96 };

/* A loaded model. Those that serve are in worker_t.models; one that was replaced lives until its last job has ended. */
typedef struct {
    model_spec_t spec;
    char recipe[RESULT_RECIPE_SIZE]; /* what its results depend on, for store_cached; "" = they are not reused */
    pipeline_t *pipeline;
    int users;    /* jobs that run on it, guarded by worker_t.lock */
    bool retired; /* no longer in worker_t.models */
} worker_model_t;

/* A job slot: idle -> busy (claimed) -> idle. The owner thread changes it under worker_t.lock. */
typedef struct {
    struct worker *w;
    pthread_t thread;
    bool started;
    bool busy;
    queue_claim_t claim;        /* as claimed; the thread works on its own copy */
    int64_t computing_since_ms; /* monotonic; 0 = not in the pipeline */
    bool given_up;              /* stuck past its time-out: ended from outside, see worker_watch.c */
    atomic_bool lost;           /* the heartbeat learned that the lease is another's */
} worker_slot_t;

typedef struct worker {
    const config_t *cfg;
    char id[WORKER_ID_SIZE], host[64], started_at[40], device[16];
    pg_pool_t *pg;
    rds_pool_t *rds;
    queue_t *queue;
    queue_ahead_t *ahead; /* what the slots hold besides the jobs that they run, and what they have committed */
    storage_t *storage;
    worker_model_t *models[WORKER_MAX_MODELS]; /* guarded by lock once threads run; changed by the main thread only */
    int nmodels;
    httpd_mini_t *http;

    pthread_mutex_t lock; /* guards models and slots' busy and claim; wakes sleeping threads through cond */
    pthread_cond_t cond;
    worker_slot_t slots[WORKER_MAX_SLOTS];
    int nslots;
    pthread_t heart, sweeper;
    bool heart_started, sweeper_started;

    atomic_bool warm;     /* models are loaded and warmed up */
    atomic_bool stopping; /* claim nothing more */
    atomic_bool hurry;    /* give running jobs back */
    atomic_bool quit;     /* heartbeat and sweeper end */
    atomic_bool stuck;    /* a slot was given up */
    atomic_bool pg_ok, redis_ok;
} worker_t;

/* Sleeps until ms have passed or worker_wake is called. */
void worker_sleep(worker_t *w, int64_t ms);
void worker_wake(worker_t *w);

/* ---- worker_models.c ---- */
ERR_MUST err_kind_t worker_load_models(worker_t *w, err_t *err);
ERR_MUST err_kind_t worker_register_models(worker_t *w, err_t *err);
void worker_free_models(worker_t *w);
/* Reads the folder of models again (SIGHUP): what is new or changed is loaded and tested beside the old, then takes its
 * place; jobs that run end on the model they began with. A model that cannot be loaded leaves the old one in place. */
void worker_reload_models(worker_t *w);
/* The model of that name, which stays loaded until worker_release_model; NULL: there is none. */
worker_model_t *worker_take_model(worker_t *w, const char *name);
void worker_release_model(worker_t *w, worker_model_t *m);
/* Copies the names; returns their number. */
int worker_model_names(worker_t *w, char names[WORKER_MAX_MODELS][64]);

/* ---- worker_job.c ---- */
void *worker_slot_run(void *slot);
int worker_busy_count(worker_t *w);
/* Makes the model's counters of runs that completed and that failed, at 0: the first failure must be seen as a step,
 * which a series that begins with it is not. */
void worker_count_nothing(const char *model);

/* ---- worker_watch.c ---- */
void worker_watch(worker_t *w); /* called every second by the sweeper's thread */

/* ---- worker_health.c ---- */
void *worker_heart_run(void *w);
void *worker_sweeper_run(void *w);
void worker_health_register(worker_t *w);
int worker_http(void *w, const char *path, buf_t *out, const char **content_type);

#endif
