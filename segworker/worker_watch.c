/*
 * The watch over running jobs. A job asks between two tiles whether its time is over, so one that is stuck inside the
 * runtime never asks: its slot is lost, and its lease would be renewed for ever. Such a job is ended from outside, and
 * the daemon asks itself to stop, since a thread inside a library cannot be ended: other jobs finish or are handed
 * back, the exit status is 1, and whatever supervises the daemon starts it again.
 */
#include <signal.h>
#include <unistd.h>

#include "common/log.h"
#include "common/timeutil.h"
#include "segworker/worker_internal.h"

/* Beyond the time-out, counted from the last sign of life (each tile gives one): more than a tile takes on a slow
 * machine. */
enum { GRACE_LEAST_MS = 5000 };

static bool take_overdue(worker_t *w, worker_slot_t *slot, queue_claim_t *claim) {
    int64_t grace = w->cfg->lease_ms > GRACE_LEAST_MS ? w->cfg->lease_ms : GRACE_LEAST_MS;
    (void)pthread_mutex_lock(&w->lock);
    bool overdue = slot->busy && !slot->given_up && slot->computing_since_ms > 0 &&
                   time_mono_ms() - slot->computing_since_ms > w->cfg->ml_timeout_ms + grace;
    if (overdue) {
        slot->given_up = true; /* the heartbeat lets go of it */
        *claim = slot->claim;
    }
    (void)pthread_mutex_unlock(&w->lock);
    return overdue;
}

static void give_up(worker_t *w, queue_claim_t *claim) {
    err_t why = {0}, err = {0};
    (void)err_setf(&why, ERR_TIMEOUT, "job_timeout", "The image took longer than the %lld s that are allowed.",
                   (long long)(w->cfg->ml_timeout_ms / 1000));
    log_event(LOG_ERROR, "a job is stuck past its time-out; this worker stops to get rid of it", "jobId", claim->id,
              "model", claim->model, NULL);
    claim->seq += WORKER_SEQ_SKIP;
    queue_report_run(w->queue, claim, false);
    if (queue_fail(w->queue, w->id, claim, &why, &err) != ERR_OK) {
        log_error(LOG_WARN, "end a stuck job; its lease will run out", &err);
    }
    w->stuck = true;
    (void)kill(getpid(), SIGTERM);
}

void worker_watch(worker_t *w) {
    for (int i = 0; i < w->nslots; i++) {
        queue_claim_t claim;
        if (take_overdue(w, &w->slots[i], &claim)) {
            give_up(w, &claim);
        }
    }
}
