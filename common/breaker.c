/*
 * The circuit breaker of breaker.h: two scripts (breaker.lua decides, breakers.lua tells) and their arguments. Who may
 * run while it is half open is decided where jobs are claimed, in claim.lua.
 */
#include "breaker.h"

#include <stdio.h>
#include <string.h>

#include "log.h"

extern const char lua_breaker[], lua_breakers[];

enum { KEY_SIZE = 96, FIGURES = 8 };

const char *breaker_state_name(breaker_state_t s) {
    return s == BREAKER_OPEN ? "open" : s == BREAKER_HALF_OPEN ? "half_open" : "closed";
}

static err_kind_t eval(rds_pool_t *rds, const char *name, const char *source, int nkeys, int argc,
                       const char *const *argv, redisReply **reply, err_t *err) {
    rds_script_t script;
    rds_conn_t *conn = NULL;
    rds_script_init(&script, name, source);
    err_kind_t rc = rds_acquire(rds, &conn, err);
    if (rc == ERR_OK) {
        rc = rds_eval(conn, &script, nkeys, argc, argv, reply, err);
        rds_release(conn);
    }
    return rc;
}

/* Tells the operator about a change of state, once: by the worker whose outcome made it. */
static void log_change(const char *model, const char *change) {
    if (strcmp(change, "opened") == 0) {
        log_event(LOG_ERROR, "too many runs of a model failed; its circuit breaker is open", "model", model, NULL);
    } else if (strcmp(change, "reopened") == 0) {
        log_event(LOG_WARN, "the probe of a model failed; its circuit breaker stays open", "model", model, NULL);
    } else if (strcmp(change, "recovered") == 0) {
        log_event(LOG_INFO, "the probe of a model succeeded; its circuit breaker is closed", "model", model, NULL);
    }
}

void breaker_report(rds_pool_t *rds, const breaker_settings_t *set, const char *model, const char *job_id, bool ok) {
    if (!set->enabled) {
        return;
    }
    char key[KEY_SIZE], outcomes[KEY_SIZE], threshold[32], calls[16], window[24], open[24], kept[16];
    (void)snprintf(key, sizeof key, "sg:breaker:%s", model);
    (void)snprintf(outcomes, sizeof outcomes, "sg:outcomes:%s", model);
    (void)snprintf(threshold, sizeof threshold, "%.6g", set->threshold);
    (void)snprintf(calls, sizeof calls, "%d", set->min_calls);
    (void)snprintf(window, sizeof window, "%lld", (long long)set->window_ms);
    (void)snprintf(open, sizeof open, "%lld", (long long)set->open_ms);
    (void)snprintf(kept, sizeof kept, "%d", BREAKER_OUTCOMES);
    const char *argv[] = {key, outcomes, model, job_id, ok ? "1" : "0", threshold, calls, window, open, kept};
    redisReply *r = NULL;
    err_t err = {0};
    if (eval(rds, "breaker", lua_breaker, 2, 10, argv, &r, &err) != ERR_OK) {
        log_error(LOG_WARN, "note the outcome of a run", &err);
    } else if (r->type == REDIS_REPLY_STRING) {
        log_change(model, r->str);
    }
    if (r) {
        freeReplyObject(r);
    }
}

static void read_one(redisReply *const *figure, breaker_info_t *out) {
    const char *state = figure[0]->type == REDIS_REPLY_STRING ? figure[0]->str : "";
    out->state = strcmp(state, "open") == 0        ? BREAKER_OPEN
                 : strcmp(state, "half_open") == 0 ? BREAKER_HALF_OPEN
                                                   : BREAKER_CLOSED;
    out->failed = (int)figure[1]->integer;
    out->runs = (int)figure[2]->integer;
    out->error_rate = out->runs > 0 ? 100.0 * out->failed / out->runs : 0;
    out->opened_total = figure[3]->integer;
    out->succeeded_total = figure[4]->integer;
    out->failed_total = figure[5]->integer;
    out->open_left_ms = figure[6]->integer;
    out->probing = out->state == BREAKER_HALF_OPEN && figure[7]->type == REDIS_REPLY_STRING && figure[7]->len > 0;
}

err_kind_t breaker_read(rds_pool_t *rds, const breaker_settings_t *set, int n, const char *const *models,
                        breaker_info_t *out, err_t *err) {
    if (n < 0 || n > BREAKER_MODELS_MAX) {
        return err_set(err, ERR_INTERNAL, "breaker_models", "The server made a mistake.", "%d models", n);
    }
    for (int i = 0; i < n; i++) {
        out[i] = (breaker_info_t){.state = BREAKER_CLOSED};
    }
    if (!set->enabled || n == 0) {
        return ERR_OK;
    }
    char window[24];
    const char *argv[1 + BREAKER_MODELS_MAX];
    (void)snprintf(window, sizeof window, "%lld", (long long)set->window_ms);
    argv[0] = window;
    for (int i = 0; i < n; i++) {
        argv[1 + i] = models[i];
    }
    redisReply *r = NULL;
    err_kind_t rc = eval(rds, "breakers", lua_breakers, 0, 1 + n, argv, &r, err);
    if (rc == ERR_OK && (r->type != REDIS_REPLY_ARRAY || r->elements != (size_t)n * FIGURES)) {
        rc = err_set(err, ERR_INTERNAL, "redis_error", "The queue gave an unexpected answer.", "breakers: type %d",
                     r->type);
    }
    for (int i = 0; rc == ERR_OK && i < n; i++) {
        read_one(r->element + (size_t)i * FIGURES, &out[i]);
    }
    if (r) {
        freeReplyObject(r);
    }
    return rc;
}

err_kind_t breaker_forget(rds_pool_t *rds, const char *model, err_t *err) {
    char key[KEY_SIZE], outcomes[KEY_SIZE];
    (void)snprintf(key, sizeof key, "sg:breaker:%s", model);
    (void)snprintf(outcomes, sizeof outcomes, "sg:outcomes:%s", model);
    const char *del[] = {"DEL", key, outcomes}, *close[] = {"SREM", "sg:open", model};
    err_kind_t rc = rds_run(rds, 3, close, NULL, err);
    return rc == ERR_OK ? rds_run(rds, 3, del, NULL, err) : rc;
}
