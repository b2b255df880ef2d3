/*
 * Circuit breaker of a model's execution, shared by all workers through Redis (proto/jobs.md). It looks at the last
 * outcomes of a rolling time window, by Redis's clock:
 *
 *   closed ──share of failures ≥ threshold, of at least min_calls──▶ open
 *   open ──open_ms passed──▶ half open: claim.lua gives one job, the probe, to one worker at a time
 *   half open ──probe succeeds──▶ closed (the window starts empty)      half open ──probe fails──▶ open
 *
 * While it is open claim.lua gives no job of the model to anybody. When Redis forgets, it is closed. Nothing is kept in
 * the process, so every function may be called from any thread.
 */
#ifndef SG_BREAKER_H
#define SG_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "rds.h"

typedef enum { BREAKER_CLOSED = 0, BREAKER_HALF_OPEN, BREAKER_OPEN } breaker_state_t;
const char *breaker_state_name(breaker_state_t s); /* "closed", "half_open", "open" */

enum { BREAKER_OUTCOMES = 200, BREAKER_MODELS_MAX = 256 }; /* outcomes kept for each model; models of one question */

typedef struct {
    bool enabled;      /* false: nothing is noted, and all are closed */
    double threshold;  /* percent of failures, 1..100 */
    int min_calls;     /* fewer outcomes do not open it; at most BREAKER_OUTCOMES */
    int64_t window_ms; /* older outcomes do not count */
    int64_t open_ms;   /* how long it stays open before the probe */
} breaker_settings_t;

typedef struct {
    double error_rate; /* percent of the window, 0 when it is empty */
    int64_t opened_total, succeeded_total, failed_total;
    int64_t open_left_ms; /* until a probe may run; 0 unless open */
    int runs, failed;     /* in the window */
    breaker_state_t state;
    bool probing; /* half open, and the probe runs */
} breaker_info_t;

/* Notes that the run of a job ended well or badly. Call it before the claim is released, and not at all for an outcome
 * that says nothing about the model (cancelled, damaged image). Redis away: the outcome is lost, which the log tells.
 */
void breaker_report(rds_pool_t *rds, const breaker_settings_t *set, const char *model, const char *job_id, bool ok);

/* out has room for n. n <= BREAKER_MODELS_MAX. */
ERR_MUST err_kind_t breaker_read(rds_pool_t *rds, const breaker_settings_t *set, int n, const char *const *models,
                                 breaker_info_t *out, err_t *err);

/* Closes a model's breaker and forgets its counters. */
ERR_MUST err_kind_t breaker_forget(rds_pool_t *rds, const char *model, err_t *err);

#endif
