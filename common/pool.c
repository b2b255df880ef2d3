/*
 * The pool of pool.h. Each waiting thread has its own condition variable, so that a returned slot wakes exactly the
 * one whose turn it is; a shared condition would let a late comer take the slot first.
 */
#include "pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "thread_util.h"
#include "timeutil.h"

typedef struct waiter {
    pthread_cond_t cond;
    bool granted; /* a slot was handed over; item says which one */
    void *item;   /* NULL: the slot is empty, make an item */
    struct waiter *next;
} waiter_t;

typedef struct {
    void *item;
    int64_t since_ms;
} idle_t;

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t reaper_wake; /* closing, or something became idle */
    pthread_cond_t all_back;    /* total fell to 0 while closing */
    pthread_t reaper;
    bool closing;
    int64_t idle_ms;
    pool_close_fn close;
    waiter_t *first, *last;
    int waiting;
    int max, total; /* total = taken + idle */
    int nidle;
    uint64_t acquired_total, timeouts_total, idle_closed_total;
    idle_t idle[]; /* max of them; oldest first */
};

static struct timespec mono_deadline(int64_t wait_ms) {
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_sec += (time_t)(wait_ms / 1000);
    ts.tv_nsec += (long)(wait_ms % 1000) * 1000000L;
    if (ts.tv_nsec >= 1000000000L) {
        ts.tv_nsec -= 1000000000L;
        ts.tv_sec++;
    }
    return ts;
}

static void init_mono_cond(pthread_cond_t *cond) {
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(cond, &attr);
    (void)pthread_condattr_destroy(&attr);
}

/* Takes the oldest idle item out if it is due (or, with `any`, in any case). NULL: none. Lock held. */
static void *pop_oldest(pool_t *p, bool any) {
    if (p->nidle == 0 || (!any && time_mono_ms() - p->idle[0].since_ms < p->idle_ms)) {
        return NULL;
    }
    void *item = p->idle[0].item;
    p->nidle--;
    p->total--;
    memmove(&p->idle[0], &p->idle[1], (size_t)p->nidle * sizeof p->idle[0]);
    return item;
}

static void *reaper_main(void *arg) {
    pool_t *p = arg;
    pthread_mutex_lock(&p->lock);
    while (!p->closing) {
        void *item = pop_oldest(p, false);
        if (item) {
            p->idle_closed_total++;
            pthread_mutex_unlock(&p->lock);
            p->close(item);
            pthread_mutex_lock(&p->lock);
            continue;
        }
        if (p->nidle == 0) {
            pthread_cond_wait(&p->reaper_wake, &p->lock);
        } else {
            int64_t due = p->idle[0].since_ms + p->idle_ms - time_mono_ms();
            struct timespec ts = mono_deadline(due > 0 ? due + 1 : 1);
            (void)pthread_cond_timedwait(&p->reaper_wake, &p->lock, &ts);
        }
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

pool_t *pool_create(int max, int64_t idle_ms, pool_close_fn close) {
    pool_t *p = calloc(1, sizeof *p + (size_t)max * sizeof p->idle[0]);
    if (!p) {
        return NULL;
    }
    p->max = max;
    p->idle_ms = idle_ms;
    p->close = close;
    (void)pthread_mutex_init(&p->lock, NULL);
    init_mono_cond(&p->reaper_wake);
    init_mono_cond(&p->all_back);
    if (thread_start(&p->reaper, "pool-idle", reaper_main, p) != 0) {
        (void)pthread_cond_destroy(&p->all_back);
        (void)pthread_cond_destroy(&p->reaper_wake);
        (void)pthread_mutex_destroy(&p->lock);
        free(p);
        return NULL;
    }
    return p;
}

/* Takes the head of the line off and wakes it with `item`. Lock held; the line is not empty. */
static void grant_first(pool_t *p, void *item) {
    waiter_t *w = p->first;
    p->first = w->next;
    if (!p->first) {
        p->last = NULL;
    }
    p->waiting--;
    w->granted = true;
    w->item = item;
    pthread_cond_signal(&w->cond);
}

/* Leaves the line. Lock held. */
static void leave_line(pool_t *p, waiter_t *w) {
    waiter_t *before = NULL;
    for (waiter_t *at = p->first; at; before = at, at = at->next) {
        if (at != w) {
            continue;
        }
        if (before) {
            before->next = w->next;
        } else {
            p->first = w->next;
        }
        if (p->last == w) {
            p->last = before;
        }
        p->waiting--;
        return;
    }
}

/* Waits in line. Lock held. */
static pool_take_t wait_in_line(pool_t *p, int64_t wait_ms, void **item) {
    struct timespec deadline = mono_deadline(wait_ms);
    waiter_t w = {.granted = false};
    init_mono_cond(&w.cond);
    if (p->last) {
        p->last->next = &w; /* cppcheck-suppress autoVariables ; it leaves the line before this function returns */
    } else {
        p->first = &w; /* cppcheck-suppress autoVariables */
    }
    p->last = &w; /* cppcheck-suppress autoVariables */
    p->waiting++;
    int rc = 0;
    while (!w.granted && !p->closing && rc != ETIMEDOUT) {
        rc = pthread_cond_timedwait(&w.cond, &p->lock, &deadline);
    }
    pool_take_t result;
    if (w.granted) {
        p->acquired_total++;
        *item = w.item;
        result = w.item ? POOL_ITEM : POOL_SLOT;
    } else {
        leave_line(p, &w);
        result = p->closing ? POOL_CLOSED : POOL_TIMEOUT;
        if (result == POOL_TIMEOUT) {
            p->timeouts_total++;
        } else if (p->waiting == 0) {
            pthread_cond_broadcast(&p->all_back); /* pool_destroy waits for the line to empty, too */
        }
    }
    (void)pthread_cond_destroy(&w.cond);
    return result;
}

pool_take_t pool_take(pool_t *p, int64_t wait_ms, void **item) {
    *item = NULL;
    pool_take_t result;
    pthread_mutex_lock(&p->lock);
    if (p->closing) {
        result = POOL_CLOSED;
    } else if (!p->first && p->nidle > 0) {
        *item = p->idle[--p->nidle].item;
        p->acquired_total++;
        result = POOL_ITEM;
    } else if (!p->first && p->total < p->max) {
        p->total++;
        p->acquired_total++;
        result = POOL_SLOT;
    } else {
        result = wait_in_line(p, wait_ms, item);
    }
    pthread_mutex_unlock(&p->lock);
    return result;
}

void pool_give(pool_t *p, void *item) {
    void *to_close = NULL;
    pthread_mutex_lock(&p->lock);
    if (p->closing) {
        to_close = item;
    } else if (p->first) {
        grant_first(p, item);
    } else {
        p->idle[p->nidle++] = (idle_t){.item = item, .since_ms = time_mono_ms()};
        if (p->nidle == 1) {
            pthread_cond_signal(&p->reaper_wake);
        }
    }
    pthread_mutex_unlock(&p->lock);
    if (to_close) {
        p->close(to_close);
        pool_drop(p);
    }
}

void pool_drop(pool_t *p) {
    pthread_mutex_lock(&p->lock);
    if (p->first && !p->closing) {
        grant_first(p, NULL); /* the slot stays counted: it is the waiter's now */
    } else {
        p->total--;
        if (p->closing) {
            pthread_cond_broadcast(&p->all_back);
        }
    }
    pthread_mutex_unlock(&p->lock);
}

int pool_destroy(pool_t *p, int64_t grace_ms) {
    struct timespec deadline = mono_deadline(grace_ms);
    pthread_mutex_lock(&p->lock);
    p->closing = true;
    for (waiter_t *w = p->first; w; w = w->next) {
        pthread_cond_signal(&w->cond);
    }
    pthread_cond_signal(&p->reaper_wake);
    pthread_mutex_unlock(&p->lock);
    (void)pthread_join(p->reaper, NULL);

    for (;;) {
        pthread_mutex_lock(&p->lock);
        void *item = pop_oldest(p, true);
        pthread_mutex_unlock(&p->lock);
        if (!item) {
            break;
        }
        p->close(item);
    }
    pthread_mutex_lock(&p->lock);
    int rc = 0;
    while ((p->total > 0 || p->waiting > 0) && rc != ETIMEDOUT) {
        rc = pthread_cond_timedwait(&p->all_back, &p->lock, &deadline);
    }
    int left = p->total + p->waiting;
    pthread_mutex_unlock(&p->lock);
    if (left > 0) {
        return left;
    }
    (void)pthread_cond_destroy(&p->all_back);
    (void)pthread_cond_destroy(&p->reaper_wake);
    (void)pthread_mutex_destroy(&p->lock);
    free(p);
    return 0;
}

void pool_stats(pool_t *p, pool_stats_t *out) {
    pthread_mutex_lock(&p->lock);
    *out = (pool_stats_t){.max = p->max,
                          .total = p->total,
                          .idle = p->nidle,
                          .in_use = p->total - p->nidle,
                          .waiting = p->waiting,
                          .acquired_total = p->acquired_total,
                          .timeouts_total = p->timeouts_total,
                          .idle_closed_total = p->idle_closed_total};
    pthread_mutex_unlock(&p->lock);
}
