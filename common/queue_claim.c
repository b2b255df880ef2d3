/*
 * The queue's worker side: get jobs, and wait for them without polling. Who asks first takes a turn (queue_turn.c);
 * only when that brings nothing does it block on the wake-up tokens, and never for so long that a lost token matters.
 */
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "queue_internal.h"
#include "timeutil.h"

enum { WAIT_SLICE_MS = 2000, MAX_STALE = 1000 };

/* ---- waiting without polling ---- */

static err_kind_t blocking_get(queue_t *q, rds_conn_t **out, err_t *err) {
    *out = NULL;
    (void)pthread_mutex_lock(&q->lock);
    if (q->blocking_count > 0) {
        *out = q->blocking[--q->blocking_count];
    }
    (void)pthread_mutex_unlock(&q->lock);
    if (*out && !rds_is_stale(*out)) {
        return ERR_OK;
    }
    rds_release(*out);
    return rds_connect(q->rds, (int)(WAIT_SLICE_MS + q->redis_timeout_ms), out, err);
}

static void blocking_put(queue_t *q, rds_conn_t *conn, bool good) {
    (void)pthread_mutex_lock(&q->lock);
    if (good && q->blocking_count < QUEUE_MAX_BLOCKING) {
        q->blocking[q->blocking_count++] = conn;
        conn = NULL;
    }
    (void)pthread_mutex_unlock(&q->lock);
    if (conn) {
        if (!good) {
            rds_fail(conn);
        }
        rds_release(conn);
    }
}

/* Returns when a job of one of the models may be waiting, or after ms. */
static err_kind_t wait_for_wake(queue_t *q, const char *const *models, int nmodels, int64_t ms, err_t *err) {
    char keys[QUEUE_MAX_MODELS][80];
    char seconds[32];
    const char *argv[QUEUE_MAX_MODELS + 2];
    int argc = 0;
    argv[argc++] = "BLPOP";
    for (int i = 0; i < nmodels; i++) {
        (void)snprintf(keys[i], sizeof keys[i], "sg:wake:%s", models[i]);
        argv[argc++] = keys[i];
    }
    /* zero would mean for ever */
    (void)snprintf(seconds, sizeof seconds, "%.3f", (double)(ms < 1 ? 1 : ms) / 1000.0);
    argv[argc++] = seconds;
    rds_conn_t *conn = NULL;
    err_kind_t rc = blocking_get(q, &conn, err);
    if (rc == ERR_OK) {
        redisReply *r = NULL;
        rc = rds_command(conn, argc, argv, NULL, &r, err);
        if (r) {
            freeReplyObject(r);
        }
        blocking_put(q, conn, rc == ERR_OK);
    }
    return rc;
}

/* ---- claim ---- */

static err_kind_t check_arguments(int ndone, int nmodels, int most, err_t *err) {
    if (nmodels < 1 || nmodels > QUEUE_MAX_MODELS) {
        return err_set(err, ERR_INVALID, "models_invalid", "A worker serves between 1 and 64 models.", "%d", nmodels);
    }
    if (most < 1 || most > QUEUE_CLAIM_MAX || ndone < 0 || ndone > QUEUE_CLAIM_MAX) {
        return err_set(err, ERR_INVALID, "claims_invalid", "Between 1 and 64 jobs are claimed at once.", "%d, %d", most,
                       ndone);
    }
    return ERR_OK;
}

err_kind_t queue_turn(queue_t *q, const char *worker_id, const queue_claim_t *done, const int *object_counts, int ndone,
                      const char *const *models, int nmodels, int most, int wait_ms, queue_claim_t *out, int *got,
                      err_t *err) {
    queue_turn_t turn = {.worker_id = worker_id,
                         .models = models,
                         .nmodels = nmodels,
                         .most = most,
                         .done = done,
                         .object_counts = object_counts,
                         .ndone = ndone,
                         .out = out,
                         .err = err};
    err_kind_t rc = queue_turn_wait(q, &turn, wait_ms);
    *got = turn.got;
    return rc;
}

err_kind_t queue_turn_wait(queue_t *q, queue_turn_t *turn, int wait_ms) {
    err_kind_t rc = check_arguments(turn->ndone, turn->nmodels, turn->most, turn->err);
    if (rc != ERR_OK) {
        return rc;
    }
    if (!turn->redis_only) {
        queue_held_watch(q);
    }
    int64_t deadline = time_mono_ms() + wait_ms;
    for (int stale = 0; stale < MAX_STALE;) {
        turn->got = turn->stale = 0;
        turn->hint_ms = -1;
        turn->rc = ERR_OK;
        queue_turn_take(q, turn);
        if (turn->rc != ERR_OK || turn->got > 0) {
            return turn->rc;
        }
        turn->ndone = 0;
        stale += turn->stale;
        if (turn->stale > 0) {
            continue;
        }
        int64_t left = deadline - time_mono_ms();
        if (left <= 0) {
            return ERR_OK;
        }
        left = left < WAIT_SLICE_MS ? left : WAIT_SLICE_MS;
        /* a breaker becomes half open by the clock, which leaves no token */
        left = turn->hint_ms >= 0 && turn->hint_ms + 1 < left ? turn->hint_ms + 1 : left;
        rc = wait_for_wake(q, turn->models, turn->nmodels, left, turn->err);
        if (rc != ERR_OK) {
            return rc;
        }
    }
    return ERR_OK;
}

err_kind_t queue_claim_many(queue_t *q, const char *worker_id, const char *const *models, int nmodels, int most,
                            int wait_ms, queue_claim_t *out, int *got, err_t *err) {
    return queue_turn(q, worker_id, NULL, NULL, 0, models, nmodels, most, wait_ms, out, got, err);
}

err_kind_t queue_claim(queue_t *q, const char *worker_id, const char *const *models, int nmodels, int wait_ms,
                       queue_claim_t *out, bool *got, err_t *err) {
    int n = 0;
    err_kind_t rc = queue_claim_many(q, worker_id, models, nmodels, 1, wait_ms, out, &n, err);
    *got = n == 1;
    return rc;
}
