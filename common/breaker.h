/*
 * Circuit breaker: guards something that may fail for a while (a model's execution). It looks at the last results of a
 * rolling time window.
 *
 *   closed ──share of failures ≥ threshold, of at least min_calls──▶ open
 *   open ──open_ms passed──▶ half open: one call, the probe, may run
 *   half open ──probe succeeds──▶ closed (the window starts empty)      half open ──probe fails──▶ open
 *
 * Thread-safe.
 */
#ifndef SG_BREAKER_H
#define SG_BREAKER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum { BREAKER_CLOSED = 0, BREAKER_HALF_OPEN, BREAKER_OPEN } breaker_state_t;
const char *breaker_state_name(breaker_state_t s); /* "closed", "half_open", "open" */

enum { BREAKER_WINDOW = 64 }; /* results that are remembered */

typedef struct {
    bool enabled;      /* false: always closed */
    double threshold;  /* percent of failures, 1..100 */
    int min_calls;     /* fewer results do not open it; at most BREAKER_WINDOW */
    int64_t window_ms; /* older results do not count */
    int64_t open_ms;   /* how long it stays open before the probe */
} breaker_settings_t;

typedef struct {
    breaker_settings_t set;
    pthread_mutex_t lock;
    breaker_state_t state;
    bool probing;
    int64_t opened_ms;
    uint64_t opened_total;
    struct {
        int64_t at_ms;
        bool ok;
    } results[BREAKER_WINDOW];
    int count, next;
} breaker_t;

void breaker_init(breaker_t *b, const breaker_settings_t *settings);
void breaker_destroy(breaker_t *b);

/* May a call begin at now_ms? Changes nothing but open -> half open. */
bool breaker_allows(breaker_t *b, int64_t now_ms);
/* Begins a call: false when it may not (another thread took the probe). Each true is followed by exactly one of: */
bool breaker_begin(breaker_t *b, int64_t now_ms);
void breaker_end(breaker_t *b, int64_t now_ms, bool ok);
void breaker_abandon(breaker_t *b); /* the call says nothing about what is guarded (cancelled, bad input) */

/* error_rate: percent of the window, 0 when it is empty. Pointers may be NULL. */
breaker_state_t breaker_state(breaker_t *b, int64_t now_ms, double *error_rate, uint64_t *opened_total);

#endif
