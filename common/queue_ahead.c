/*
 * Claiming ahead: see queue_ahead.h. Whoever takes claims out of a slot, under the lock, is the one who ends them; no
 * call to a server is made under the lock.
 */
#include "queue_ahead.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "log.h"
#include "metrics.h"
#include "queue_internal.h"
#include "queue_quick.h"
#include "thread_util.h"
#include "timeutil.h"

enum { LOOK_MS = 10, DORMANT_LOOKS = 100, RETURN_TRIES = 4, RETURN_PAUSE_MS = 200 };

typedef struct {
    queue_claim_t held[QUEUE_AHEAD_MOST]; /* not begun: from..n-1, in the order in which they begin */
    bool lost[QUEUE_AHEAD_MOST];
    int from, n;
    queue_claim_t done[QUEUE_AHEAD_MOST]; /* committed, not yet ended in Redis */
    int objects[QUEUE_AHEAD_MOST];
    int ndone;
    int64_t until_ms;                       /* then what is here is handed back or ended, whatever the slot does */
    int64_t began_us;                       /* the job that runs */
    queue_claim_t claims[QUEUE_AHEAD_MOST]; /* what a turn gave; of the slot's thread alone */
} slot_t;

/* What was taken out of a slot. */
typedef struct {
    queue_claim_t held[QUEUE_AHEAD_MOST], done[QUEUE_AHEAD_MOST];
    int objects[QUEUE_AHEAD_MOST];
    int nheld, ndone;
} taken_t;

struct queue_ahead {
    queue_ahead_setup_t setup;
    int64_t budget_us, keep_ms;
    pthread_mutex_t lock; /* guards everything below */
    pthread_cond_t cond;
    queue_quick_t quick;
    pthread_t thread;
    bool started, awake, stopping, quit; /* awake: the thread looks every LOOK_MS */
    slot_t *slots;
};

static pthread_once_t metrics_once = PTHREAD_ONCE_INIT;
static metric_t *ahead_total, *returned_total;

static void register_metrics(void) {
    ahead_total = metrics_counter("spheroseg_jobs_claimed_ahead_total",
                                  "Jobs claimed together with one before them, which they waited for.", NULL);
    returned_total = metrics_counter("spheroseg_jobs_returned_unbegun_total",
                                     "Jobs claimed ahead that were handed back before they began.", NULL);
}

/* ---- taking out, and what is done with it; the lock is held for the first ---- */

static void take_held(slot_t *s, taken_t *out) {
    for (; s->from < s->n; s->from++) {
        out->held[out->nheld++] = s->held[s->from];
    }
    s->from = s->n = 0;
}

static void take_done(slot_t *s, taken_t *out) {
    memcpy(out->done, s->done, (size_t)s->ndone * sizeof s->done[0]);
    memcpy(out->objects, s->objects, (size_t)s->ndone * sizeof s->objects[0]);
    out->ndone = s->ndone;
    s->ndone = 0;
}

static void end_done(queue_ahead_t *a, const taken_t *t) {
    if (t->ndone == 0) {
        return;
    }
    if (!a->setup.redis_only) {
        queue_complete_done_many(a->setup.queue, a->setup.worker_id, t->done, t->objects, t->ndone);
        return;
    }
    queue_release_t ended[QUEUE_AHEAD_MOST];
    err_t err;
    for (int i = 0; i < t->ndone; i++) {
        ended[i] = (queue_release_t){.id = t->done[i].id, .tag = t->done[i].token};
    }
    if (queue_release(a->setup.queue, "drop", ended, t->ndone, NULL, &err) != ERR_OK) {
        log_error(LOG_WARN, "end jobs", &err);
    }
}

static void return_to_redis(queue_ahead_t *a, const taken_t *t) {
    queue_release_t front[QUEUE_AHEAD_MOST];
    char priorities[QUEUE_AHEAD_MOST][8];
    err_t err;
    for (int i = 0; i < t->nheld; i++) {
        const queue_claim_t *c = &t->held[t->nheld - 1 - i];
        (void)snprintf(priorities[i], sizeof priorities[i], "%d", c->priority);
        front[i] = (queue_release_t){c->id, c->token, c->model, priorities[i], c->user_id};
    }
    if (queue_release(a->setup.queue, "front", front, t->nheld, NULL, &err) != ERR_OK) {
        log_error(LOG_WARN, "hand jobs back", &err);
    }
}

/* PostgreSQL may be away for a moment. If it stays away the leases run out, and recovery hands the jobs back. */
static void return_held(queue_ahead_t *a, taken_t *t) {
    queue_claim_t *list[QUEUE_AHEAD_MOST];
    err_kind_t results[QUEUE_AHEAD_MOST], rc = ERR_OK;
    err_t err = {0};
    if (t->nheld == 0) {
        return;
    }
    metrics_add(returned_total, NULL, t->nheld);
    if (a->setup.redis_only) {
        return_to_redis(a, t);
        return;
    }
    for (int i = 0; i < t->nheld; i++) {
        list[i] = &t->held[i];
    }
    for (int i = 0; i < RETURN_TRIES; i++) {
        rc = queue_hand_back_many(a->setup.queue, a->setup.worker_id, list, t->nheld, results, &err);
        if (rc != ERR_UNAVAILABLE) {
            break;
        }
        time_sleep_ms((int64_t)RETURN_PAUSE_MS << i);
    }
    if (rc != ERR_OK) {
        log_error(LOG_WARN, "hand back jobs that were claimed ahead; their leases will run out", &err);
        for (int i = 0; i < t->nheld; i++) {
            queue_held_remove(a->setup.queue, t->held[i].id, t->held[i].token);
        }
    }
}

/* ---- the thread that keeps the time ---- */

static void wait_until(queue_ahead_t *a, int64_t ms) {
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)ms * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    (void)pthread_cond_timedwait(&a->cond, &a->lock, &until);
}

/* One look at all slots; returns whether something is left in one. The lock is held, but not while the servers are
 * asked. */
static bool look(queue_ahead_t *a, taken_t *taken) {
    bool left = false;
    for (int i = 0; i < a->setup.slots; i++) {
        slot_t *s = &a->slots[i];
        bool some = s->from < s->n || s->ndone > 0;
        if (some && (a->stopping || time_mono_ms() >= s->until_ms)) {
            taken->nheld = taken->ndone = 0;
            take_held(s, taken);
            take_done(s, taken);
            (void)pthread_mutex_unlock(&a->lock);
            return_held(a, taken);
            end_done(a, taken);
            (void)pthread_mutex_lock(&a->lock);
        }
        left = left || some;
    }
    return left;
}

static void *keep_time(void *arg) {
    queue_ahead_t *a = arg;
    taken_t *taken = calloc(1, sizeof *taken);
    int idle = 0;
    (void)pthread_mutex_lock(&a->lock);
    while (taken && !a->quit) {
        if (look(a, taken)) {
            idle = 0;
        } else if (++idle >= DORMANT_LOOKS) {
            a->awake = false;
            idle = 0;
        }
        if (a->quit) {
            break;
        }
        if (a->awake) {
            wait_until(a, LOOK_MS);
        } else {
            (void)pthread_cond_wait(&a->cond, &a->lock);
        }
    }
    (void)pthread_mutex_unlock(&a->lock);
    free(taken);
    return NULL;
}

/* The lock is held. */
static void wake(queue_ahead_t *a) {
    if (!a->awake) {
        a->awake = true;
        (void)pthread_cond_signal(&a->cond);
    }
}

/* ---- making ---- */

err_kind_t queue_ahead_create(const queue_ahead_setup_t *setup, queue_ahead_t **out, err_t *err) {
    queue_ahead_t *a = calloc(1, sizeof *a);
    slot_t *slots = calloc((size_t)setup->slots, sizeof *slots);
    *out = NULL;
    if (!a || !slots) {
        free(a);
        free(slots);
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The worker is out of memory.", "queue_ahead");
    }
    (void)pthread_once(&metrics_once, register_metrics);
    a->setup = *setup;
    a->slots = slots;
    a->budget_us = setup->work_ms * 1000;
    a->keep_ms = setup->work_ms * 5 / 2;
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&a->cond, &attr);
    (void)pthread_condattr_destroy(&attr);
    (void)pthread_mutex_init(&a->lock, NULL);
    if (setup->work_ms > 0) {
        int e = thread_start(&a->thread, "ahead", keep_time, a);
        a->started = e == 0;
        if (!a->started) {
            a->budget_us = 0;
            log_event(LOG_WARN, "jobs are claimed one at a time", "detail", strerror(e), NULL);
        }
    }
    *out = a;
    return ERR_OK;
}

void queue_ahead_destroy(queue_ahead_t *a) {
    if (!a) {
        return;
    }
    (void)pthread_mutex_lock(&a->lock);
    a->quit = true;
    (void)pthread_cond_signal(&a->cond);
    (void)pthread_mutex_unlock(&a->lock);
    if (a->started) {
        (void)pthread_join(a->thread, NULL);
    }
    (void)pthread_cond_destroy(&a->cond);
    (void)pthread_mutex_destroy(&a->lock);
    free(a->slots);
    free(a);
}

/* ---- a slot ---- */

static bool next_held(queue_ahead_t *a, slot_t *s, queue_claim_t *out, bool *lost) {
    bool some = false;
    (void)pthread_mutex_lock(&a->lock);
    if (s->from < s->n) {
        some = true;
        *lost = s->lost[s->from];
        *out = s->held[s->from++];
    }
    (void)pthread_mutex_unlock(&a->lock);
    return some;
}

/* What a job of each model costs, and how many jobs may be worth claiming at once. The lock is held. */
static int reckon(const queue_ahead_t *a, const char *const *models, int nmodels, int64_t *costs) {
    int64_t now = time_mono_ms(), most = 1;
    for (int i = 0; i < nmodels && i < QUEUE_MAX_MODELS; i++) {
        costs[i] = queue_quick_cost_us(&a->quick, models[i], now, a->budget_us + 1);
        int64_t n = a->budget_us / costs[i];
        most = n > most ? n : most;
    }
    return (int)(a->stopping ? 1 : most < QUEUE_AHEAD_MOST ? most : QUEUE_AHEAD_MOST);
}

/* The first of what was claimed is the slot's, the others wait here. */
static void keep(queue_ahead_t *a, slot_t *s, int n, queue_claim_t *first) {
    *first = s->claims[0];
    (void)pthread_mutex_lock(&a->lock);
    s->from = 0;
    s->n = n - 1;
    for (int i = 1; i < n; i++) {
        s->held[i - 1] = s->claims[i];
        s->lost[i - 1] = false;
    }
    s->until_ms = time_mono_ms() + a->keep_ms;
    if (n > 1) {
        wake(a);
    }
    (void)pthread_mutex_unlock(&a->lock);
    metrics_add(ahead_total, NULL, n - 1);
}

err_kind_t queue_ahead_next(queue_ahead_t *a, int slot, const char *const *models, int nmodels, int wait_ms,
                            queue_claim_t *out, bool *got, bool *lost, err_t *err) {
    slot_t *s = &a->slots[slot];
    *lost = false;
    *got = next_held(a, s, out, lost);
    if (*got) {
        s->began_us = time_mono_us();
        return ERR_OK;
    }
    int64_t costs[QUEUE_MAX_MODELS] = {0};
    taken_t ending;
    (void)pthread_mutex_lock(&a->lock);
    take_done(s, &ending);
    int most = reckon(a, models, nmodels, costs);
    (void)pthread_mutex_unlock(&a->lock);
    queue_turn_t turn = {.worker_id = a->setup.worker_id,
                         .models = models,
                         .nmodels = nmodels,
                         .most = most,
                         .costs_us = a->budget_us > 0 ? costs : NULL,
                         .budget_us = a->budget_us,
                         .done = ending.done,
                         .object_counts = ending.objects,
                         .ndone = ending.ndone,
                         .redis_only = a->setup.redis_only,
                         .out = s->claims,
                         .err = err};
    err_kind_t rc = queue_turn_wait(a->setup.queue, &turn, wait_ms);
    if (rc != ERR_OK) {
        end_done(a, &ending); /* perhaps once more, which is harmless */
        return rc;
    }
    if (turn.got > 0) {
        *got = true;
        keep(a, s, turn.got, out);
        s->began_us = time_mono_us();
    }
    return ERR_OK;
}

void queue_ahead_done(queue_ahead_t *a, int slot, const queue_claim_t *c, int object_count) {
    slot_t *s = &a->slots[slot];
    int64_t took = time_mono_us() - s->began_us;
    (void)pthread_mutex_lock(&a->lock);
    if (s->ndone < QUEUE_AHEAD_MOST) { /* always: a slot ends all that it has before it claims as many */
        s->done[s->ndone] = *c;
        s->objects[s->ndone++] = object_count;
    }
    queue_quick_note(&a->quick, c->model, took, time_mono_ms());
    (void)pthread_mutex_unlock(&a->lock);
}

/* Takes everything out of a slot, and ends it. */
static void clear(queue_ahead_t *a, slot_t *s) {
    taken_t taken = {0};
    (void)pthread_mutex_lock(&a->lock);
    take_held(s, &taken);
    take_done(s, &taken);
    (void)pthread_mutex_unlock(&a->lock);
    return_held(a, &taken);
    end_done(a, &taken);
}

void queue_ahead_broke(queue_ahead_t *a, int slot, const char *model, bool failed) {
    slot_t *s = &a->slots[slot];
    (void)pthread_mutex_lock(&a->lock);
    if (failed) {
        queue_quick_forget(&a->quick, model);
    }
    bool some = s->from < s->n;
    (void)pthread_mutex_unlock(&a->lock);
    if (some) {
        clear(a, s);
    }
}

void queue_ahead_leave(queue_ahead_t *a, int slot) {
    clear(a, &a->slots[slot]);
}

void queue_ahead_stop(queue_ahead_t *a) {
    (void)pthread_mutex_lock(&a->lock);
    a->stopping = true;
    a->awake = true;
    (void)pthread_cond_signal(&a->cond);
    (void)pthread_mutex_unlock(&a->lock);
}

/* ---- the heartbeat ---- */

int queue_ahead_claims(queue_ahead_t *a, queue_ahead_claim_t *out, int room) {
    int n = 0;
    (void)pthread_mutex_lock(&a->lock);
    for (int i = 0; i < a->setup.slots; i++) {
        const slot_t *s = &a->slots[i];
        for (int k = s->from; k < s->n && n < room; k++) {
            memcpy(out[n].id, s->held[k].id, sizeof out[n].id);
            memcpy(out[n++].token, s->held[k].token, sizeof out[0].token);
        }
    }
    (void)pthread_mutex_unlock(&a->lock);
    return n;
}

void queue_ahead_lost(queue_ahead_t *a, const char *token) {
    (void)pthread_mutex_lock(&a->lock);
    for (int i = 0; i < a->setup.slots; i++) {
        slot_t *s = &a->slots[i];
        for (int k = s->from; k < s->n; k++) {
            s->lost[k] = s->lost[k] || strcmp(s->held[k].token, token) == 0;
        }
    }
    (void)pthread_mutex_unlock(&a->lock);
}
