/*
 * A job slot: claim, run the pipeline, store, and tell the queue how it ended. One thread each. The end of a job that
 * succeeded travels with the next claim; while jobs are quick several are claimed and ended at once (queue_ahead.h).
 *
 * Who ends a job: the thread that runs it. It learns that it should stop from queue_is_cancelled (a person), slot->lost
 * (the lease is another worker's) or worker->hurry (the daemon stops), all asked between two tiles.
 */
#include <malloc.h>
#include <math.h>
#include <string.h>

#include "common/log.h"
#include "common/timeutil.h"
#include "segworker/pipeline/options.h"
#include "segworker/pipeline/store.h"
#include "segworker/worker_internal.h"
#include "segworker/worker_preview.h"

enum { CLAIM_WAIT_MS = 1000, IDLE_TURNS = 10, ERROR_PAUSE_MS = 1000, FAIL_TRIES = 6 };

typedef struct {
    worker_t *w;
    worker_slot_t *slot;
    queue_claim_t *claim;
    job_options_t asked;
    char options[RESULT_OPTIONS_SIZE]; /* as they hold for this run, see options_write */
    preview_t preview;
} run_context_t;

static pthread_once_t metrics_once = PTHREAD_ONCE_INIT;
static metric_t *m_stage, *m_jobs;

static void register_metrics(void) {
    m_stage = metrics_histogram("spheroseg_job_stage_seconds", "Time of a job's stages.", "stage", NULL, 0);
    m_jobs = metrics_counter("spheroseg_jobs_total", "Attempts by how they ended.", "model,outcome");
}

void worker_count_nothing(const char *model) {
    (void)pthread_once(&metrics_once, register_metrics);
    metrics_add(m_jobs, (const char *const[]){model, "completed"}, 0);
    metrics_add(m_jobs, (const char *const[]){model, "failed"}, 0);
}

static void observe_stage(const char *stage, double seconds) {
    metrics_observe(m_stage, (const char *const[]){stage}, seconds);
}

static void count_outcome(const queue_claim_t *c, const char *outcome) {
    metrics_add(m_jobs, (const char *const[]){c->model, outcome}, 1);
}

int worker_busy_count(worker_t *w) {
    int n = 0;
    (void)pthread_mutex_lock(&w->lock);
    for (int i = 0; i < w->nslots; i++) {
        n += w->slots[i].busy && !w->slots[i].given_up;
    }
    (void)pthread_mutex_unlock(&w->lock);
    return n;
}

static int slot_number(const worker_slot_t *slot) {
    return (int)(slot - slot->w->slots);
}

static void slot_set(worker_slot_t *slot, const queue_claim_t *c, bool lost) {
    (void)pthread_mutex_lock(&slot->w->lock);
    slot->busy = c != NULL;
    slot->lost = lost;
    slot->given_up = false;
    slot->computing_since_ms = 0;
    if (c) {
        slot->claim = *c;
    }
    (void)pthread_cond_broadcast(&slot->w->cond);
    (void)pthread_mutex_unlock(&slot->w->lock);
}

static void slot_computes(worker_slot_t *slot, bool on) {
    (void)pthread_mutex_lock(&slot->w->lock);
    slot->computing_since_ms = on ? time_mono_ms() : 0;
    (void)pthread_mutex_unlock(&slot->w->lock);
}

/* ---- callbacks of the pipeline ---- */

static void on_progress(void *arg, const char *stage, double fraction) {
    run_context_t *x = arg;
    slot_computes(x->slot, true); /* a sign of life: see worker_watch.c */
    queue_publish_progress(x->w->queue, x->claim, stage, fraction);
    preview_tick(&x->preview);
}

static void on_found(void *arg, const result_object_t *o) {
    run_context_t *x = arg;
    preview_add(&x->preview, o);
}

static bool on_cancelled(void *arg) {
    run_context_t *x = arg;
    return x->slot->lost || x->w->hurry || queue_claim_is_cancelled(x->w->queue, x->claim);
}

/* ---- one job ---- */

/* What was asked for, and what follows from it with this model. */
static err_kind_t settle_options(run_context_t *x, const worker_model_t *m, err_t *err) {
    const queue_claim_t *c = x->claim;
    run_options_t settled;
    buf_t text;
    if (c->choice_unknown) {
        return err_set(err, ERR_UNAVAILABLE, "options_unknown",
                       "The worker does not know an option of this job. It may have to be updated.", NULL);
    }
    x->asked = options_asked(c->threshold, c->detect_holes, &c->choice);
    err_kind_t rc = options_settle(&m->spec, &x->asked, &settled, err);
    if (rc != ERR_OK) {
        return rc;
    }
    buf_init(&text, sizeof x->options - 1);
    options_write(&settled, &c->choice.plane, &text);
    if (text.failed) {
        rc = err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to segment the image.", NULL);
    } else {
        (void)snprintf(x->options, sizeof x->options, "%s", text.data);
    }
    buf_free(&text);
    return rc;
}

static err_kind_t segment(run_context_t *x, worker_model_t *m, result_t *result, err_t *err) {
    const config_t *cfg = x->w->cfg;
    char path[4096];
    const pipeline_params_t params = {
        .options = &x->asked,
        .plane = &x->claim->choice.plane,
        .limits = {.max_pixels = cfg->max_image_pixels,
                   .max_decoded_bytes = cfg->max_decoded_bytes,
                   .max_pages = (int32_t)cfg->max_image_pages},
        .max_objects = (uint32_t)cfg->max_objects,
        .timeout_ms = cfg->ml_timeout_ms,
        .window_px = (int)cfg->window_px,
    };
    const pipeline_callbacks_t callbacks = {
        .arg = x, .progress = on_progress, .cancelled = on_cancelled, .found = on_found};
    err_kind_t rc = storage_local(x->w->storage, x->claim->storage_key, path, sizeof path, err);
    if (rc == ERR_NOT_FOUND) {
        return err_set(err, ERR_NOT_FOUND, "object_missing",
                       "The image file is missing on the server. Upload it again.", "%s", x->claim->storage_key);
    }
    if (rc == ERR_OK) {
        rc = pipeline_run(m->pipeline, path, &params, &callbacks, result, err);
        (void)snprintf(result->recipe, sizeof result->recipe, "%s", m->recipe);
        (void)snprintf(result->options, sizeof result->options, "%s", x->options);
        storage_local_release(x->w->storage, path);
    }
    return rc;
}

/* Takes over the same person's earlier result for the same bytes, model and settings. False: there is none, or it could
 * not be used; the image is then segmented as ever. */
static bool use_earlier(run_context_t *x, const worker_model_t *m, int *objects) {
    const store_key_t key = {.recipe = m->recipe,
                             .options = x->options,
                             .threshold = isnan(x->claim->threshold) ? m->spec.threshold : x->claim->threshold};
    bool found = false;
    err_t err = {0};
    if (!x->w->cfg->result_cache || !m->recipe[0]) {
        return false;
    }
    int64_t before = time_mono_us();
    if (store_cached(x->w->queue, x->w->pg, x->claim, &key, objects, &found, &err) != ERR_OK) {
        return false;
    }
    if (found) {
        observe_stage("store", (double)(time_mono_us() - before) / 1e6);
    }
    return found;
}

/* Only what is about the model's execution counts: what is wrong with an image, the disk or the database does not. */
static void report_to_breaker(worker_t *w, const queue_claim_t *c, err_kind_t rc) {
    if (rc == ERR_OK || rc == ERR_INTERNAL || rc == ERR_TIMEOUT || rc == ERR_NO_MEMORY) {
        queue_report_run(w->queue, c, rc == ERR_OK);
    }
}

static err_kind_t store(run_context_t *x, const result_t *result, err_t *err) {
    buf_t timings;
    buf_init(&timings, 4096);
    buf_printf(&timings, "{\"queue\":%.6f", x->claim->waited_s);
    for (int i = 0; i < result->nstages; i++) {
        observe_stage(result->stages[i].name, result->stages[i].seconds);
        buf_printf(&timings, ",\"%s\":%.6f", result->stages[i].name, result->stages[i].seconds);
    }
    buf_puts(&timings, "}");
    queue_publish_progress(x->w->queue, x->claim, "store", 0.97);
    int64_t before = time_mono_us();
    err_kind_t rc =
        store_commit(x->w->queue, x->w->pg, NULL, x->claim, result, timings.failed ? "{}" : timings.data, err);
    observe_stage("store", (double)(time_mono_us() - before) / 1e6);
    buf_free(&timings);
    return rc;
}

/* Tells the queue that the job failed, or (why == NULL) hands it back; again and again for a while, because PostgreSQL
 * may be away. If it stays away the lease runs out. */
static err_kind_t tell_queue(worker_t *w, queue_claim_t *c, const err_t *why) {
    err_t err = {0};
    err_kind_t rc = ERR_OK;
    for (int i = 0; i < FAIL_TRIES; i++) {
        rc = why ? queue_fail(w->queue, w->id, c, why, &err) : queue_hand_back(w->queue, w->id, c, &err);
        if (rc != ERR_UNAVAILABLE || w->quit) {
            break;
        }
        time_sleep_ms(w->hurry ? 200 : (int64_t)500 << i);
    }
    if (rc != ERR_OK && rc != ERR_CONFLICT) {
        log_error(LOG_ERROR, why ? "report a failed job" : "hand a job back", &err);
    }
    return rc;
}

/* The job did not succeed: why decides what becomes of it. */
static void end_badly(run_context_t *x, err_t *why) {
    worker_t *w = x->w;
    queue_claim_t *c = x->claim;
    const char *outcome = "failed";
    bool hand_back = false;
    if (why->kind == ERR_CONFLICT || x->slot->lost) {
        outcome = "lost";
        (void)err_set(why, ERR_UNAVAILABLE, "claim_lost", "The job was taken over by another worker.", NULL);
    } else if (queue_claim_is_cancelled(w->queue, c)) {
        outcome = "cancelled";
        (void)err_set(why, ERR_CANCELLED, "cancelled", "The job was cancelled.", NULL);
    } else if (why->kind == ERR_CANCELLED && w->hurry) {
        outcome = "handed_back";
        hand_back = true;
    } else if (why->kind == ERR_CANCELLED) {
        outcome = "cancelled";
    } else if (err_is_retryable(why->kind) && c->attempt < c->max_attempts) {
        outcome = "retried";
    }
    char attempt[16];
    (void)snprintf(attempt, sizeof attempt, "%d", c->attempt);
    log_event(hand_back || why->kind == ERR_CANCELLED ? LOG_INFO : LOG_WARN, "job ended without a result", "jobId",
              c->id, "model", c->model, "attempt", attempt, "outcome", outcome, "code", why->code, "message",
              why->message, "detail", why->detail, NULL);
    if (tell_queue(w, c, hand_back ? NULL : why) == ERR_CONFLICT) {
        outcome = "lost";
    }
    queue_ahead_broke(w->ahead, slot_number(x->slot), c->model, why->kind != ERR_CANCELLED);
    count_outcome(c, outcome);
}

/* The result is committed. */
static void end_well(run_context_t *x, int objects, int64_t began_ms, bool cached) {
    queue_claim_t *c = x->claim;
    char ms[24], count[16];
    (void)snprintf(ms, sizeof ms, "%lld", (long long)(time_mono_ms() - began_ms));
    (void)snprintf(count, sizeof count, "%d", objects);
    log_event(LOG_INFO, "job completed", "jobId", c->id, "model", c->model, "objects", count, "ms", ms, "cached",
              cached ? "true" : "false", NULL);
    count_outcome(c, cached ? "cached" : "completed");
    queue_ahead_done(x->w->ahead, slot_number(x->slot), c, objects); /* told of together with the next claim */
    if (!cached) {
        queue_note_seconds(x->w->queue, c->model, (double)(time_mono_ms() - began_ms) / 1000.0);
    }
}

static void run_job(worker_slot_t *slot, queue_claim_t *c, worker_model_t *m) {
    worker_t *w = slot->w;
    run_context_t x = {.w = w, .slot = slot, .claim = c};
    result_t result = {0};
    err_t err = {0};
    int64_t before = time_mono_ms();
    log_event(LOG_INFO, "job started", "jobId", c->id, "imageId", c->image_id, "model", c->model, NULL);
    observe_stage("queue", c->waited_s);
    int objects = 0;
    err_kind_t rc = settle_options(&x, m, &err);
    if (rc == ERR_OK && use_earlier(&x, m, &objects)) {
        end_well(&x, objects, before, true);
        return;
    }
    if (rc == ERR_OK) {
        preview_begin(&x.preview, w->pg, c);
        slot_computes(slot, true);
        rc = segment(&x, m, &result, &err);
        slot_computes(slot, false);
        report_to_breaker(w, c, rc);
    }
    if (rc == ERR_OK) {
        rc = store(&x, &result, &err);
    }
    if (rc == ERR_OK) {
        end_well(&x, (int)result.count, before, false);
    } else {
        err.kind = rc;
        end_badly(&x, &err);
    }
    preview_end(&x.preview);
    result_free(&result);
}

/* ---- the loop ---- */

static void serve_claim(worker_slot_t *slot, queue_claim_t *c, bool lost) {
    worker_t *w = slot->w;
    slot_set(slot, c, lost); /* from now on the heartbeat renews it */
    worker_model_t *m = worker_take_model(w, c->model);
    if (w->stopping || !m) {
        (void)tell_queue(w, c, NULL);
        queue_ahead_broke(w->ahead, slot_number(slot), c->model, false);
        count_outcome(c, "handed_back");
    } else {
        run_job(slot, c, m);
    }
    if (m) {
        worker_release_model(w, m);
    }
    slot_set(slot, NULL, false);
}

void *worker_slot_run(void *arg) {
    worker_slot_t *slot = arg;
    worker_t *w = slot->w;
    bool complained = false;
    (void)pthread_once(&metrics_once, register_metrics);
    char model_names[WORKER_MAX_MODELS][64];
    const char *names[WORKER_MAX_MODELS];
    int idle = IDLE_TURNS;
    while (!w->stopping) {
        int nmodels = worker_model_names(w, model_names); /* they may change */
        for (int i = 0; i < nmodels; i++) {
            names[i] = model_names[i];
        }
        queue_claim_t claim;
        bool got = false, lost = false;
        err_t err = {0};
        err_kind_t rc =
            queue_ahead_next(w->ahead, slot_number(slot), names, nmodels, CLAIM_WAIT_MS, &claim, &got, &lost, &err);
        if (rc != ERR_OK) {
            if (!complained) { /* once for each absence */
                log_error(LOG_WARN, "claim a job", &err);
            }
            complained = true;
            worker_sleep(w, ERROR_PAUSE_MS);
            continue;
        }
        complained = false;
        if (got) {
            serve_claim(slot, &claim, lost);
            idle = 0;
        } else if (idle < IDLE_TURNS && ++idle == IDLE_TURNS && worker_busy_count(w) == 0) {
            (void)malloc_trim(0); /* what the heap keeps for the next tile (main.c) is others' while there is none */
        }
    }
    queue_ahead_leave(w->ahead, slot_number(slot));
    return NULL;
}
