/*
 * The circuit breaker of breaker.h: a ring of the last results under one lock. The caller gives the time, so that tests
 * need not wait.
 */
#include "breaker.h"

#include <string.h>

const char *breaker_state_name(breaker_state_t s) {
    return s == BREAKER_OPEN ? "open" : s == BREAKER_HALF_OPEN ? "half_open" : "closed";
}

void breaker_init(breaker_t *b, const breaker_settings_t *settings) {
    memset(b, 0, sizeof *b);
    b->set = *settings;
    (void)pthread_mutex_init(&b->lock, NULL);
}

void breaker_destroy(breaker_t *b) {
    (void)pthread_mutex_destroy(&b->lock);
}

/* The lock is held. */
static double error_rate(const breaker_t *b, int64_t now_ms, int *calls) {
    int failed = 0, n = 0;
    for (int i = 0; i < b->count; i++) {
        if (now_ms - b->results[i].at_ms <= b->set.window_ms) {
            n++;
            failed += !b->results[i].ok;
        }
    }
    *calls = n;
    return n > 0 ? 100.0 * failed / n : 0;
}

/* The only place that changes the state. */
static void change_state(breaker_t *b, breaker_state_t to, int64_t now_ms) {
    if (to == BREAKER_OPEN) {
        b->opened_ms = now_ms;
        b->opened_total++;
    } else if (to == BREAKER_CLOSED) {
        b->count = b->next = 0;
    }
    b->probing = false;
    b->state = to;
}

static void open_ends(breaker_t *b, int64_t now_ms) {
    if (b->state == BREAKER_OPEN && now_ms - b->opened_ms >= b->set.open_ms) {
        change_state(b, BREAKER_HALF_OPEN, now_ms);
    }
}

static bool allowed(breaker_t *b, int64_t now_ms) {
    open_ends(b, now_ms);
    return !b->set.enabled || b->state == BREAKER_CLOSED || (b->state == BREAKER_HALF_OPEN && !b->probing);
}

bool breaker_allows(breaker_t *b, int64_t now_ms) {
    (void)pthread_mutex_lock(&b->lock);
    bool ok = allowed(b, now_ms);
    (void)pthread_mutex_unlock(&b->lock);
    return ok;
}

bool breaker_begin(breaker_t *b, int64_t now_ms) {
    (void)pthread_mutex_lock(&b->lock);
    bool ok = allowed(b, now_ms);
    if (ok && b->state == BREAKER_HALF_OPEN) {
        b->probing = true;
    }
    (void)pthread_mutex_unlock(&b->lock);
    return ok;
}

void breaker_end(breaker_t *b, int64_t now_ms, bool ok) {
    (void)pthread_mutex_lock(&b->lock);
    if (b->set.enabled) {
        b->results[b->next].at_ms = now_ms;
        b->results[b->next].ok = ok;
        b->next = (b->next + 1) % BREAKER_WINDOW;
        b->count = b->count < BREAKER_WINDOW ? b->count + 1 : BREAKER_WINDOW;
        int calls = 0;
        if (b->state == BREAKER_HALF_OPEN && b->probing) {
            change_state(b, ok ? BREAKER_CLOSED : BREAKER_OPEN, now_ms);
        } else if (b->state == BREAKER_CLOSED && !ok && error_rate(b, now_ms, &calls) >= b->set.threshold &&
                   calls >= b->set.min_calls) {
            change_state(b, BREAKER_OPEN, now_ms);
        }
    }
    (void)pthread_mutex_unlock(&b->lock);
}

void breaker_abandon(breaker_t *b) {
    (void)pthread_mutex_lock(&b->lock);
    b->probing = false;
    (void)pthread_mutex_unlock(&b->lock);
}

breaker_state_t breaker_state(breaker_t *b, int64_t now_ms, double *rate, uint64_t *opened_total) {
    (void)pthread_mutex_lock(&b->lock);
    int calls = 0;
    open_ends(b, now_ms);
    breaker_state_t s = b->state;
    if (rate) {
        *rate = error_rate(b, now_ms, &calls);
    }
    if (opened_total) {
        *opened_total = b->opened_total;
    }
    (void)pthread_mutex_unlock(&b->lock);
    return s;
}
