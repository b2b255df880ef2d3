/*
 * The job engine of proto/jobs.md as a model for spin: who may move a job, in which steps, and what happens when the mover
 * dies, pauses or finds Redis empty between two of them. tests/model/README.md says what is checked and what is left out;
 * tests/model/run.sh runs every configuration.
 *
 * Each d_step below is one atomic step of the real system: one Lua script, or one SQL statement. Its comment names it.
 * Between any two of them every other process may act. The processes are the workers (W), the sweepers (S), the gateway,
 * and time (heartbeats, and leases that run out).
 *
 * Abstractions, each of which allows at least what the real system does:
 *   - A claim's random token is the worker's number in the row (`own`). A worker holds one claim at a time and forgets the
 *     former one's token, so "the token in the row is mine" is `job[j].own == w`, as long as no two lives of a worker
 *     share a number. Hence what a process leaves behind when it dies is renamed to one of two numbers of the
 *     dead: a new life never matches them.
 *   - The tag of a claim, too, is the worker's number: recovery that comes late may take a worker's younger claim of the
 *     same job for the one that was lost. The real fence tells them apart.
 *   - A worker may learn of a cancellation, or of a lost lease, at any moment after it happened, or never.
 *   - A lease may run out at any moment, also one that is renewed in time. A job that is delayed may be due at any moment.
 *   - Any waiting job may be the next one.
 *
 * Jobs that change places are the same system, and so are workers: settle() keeps one state of each such family.
 */
/* sizes */
#ifndef W
#define W 2 /* workers */
#endif
#ifndef S
#define S 1 /* sweepers */
#endif
#ifndef J
#define J 2 /* jobs: 1 or 2 */
#endif
#ifndef MAXATT
#define MAXATT 2 /* JOB_MAX_ATTEMPTS */
#endif
/* how often each of these may happen */
#ifndef CRASHES
#define CRASHES 2 /* deaths of workers and sweepers, hand-backs */
#endif
#ifndef WIPES
#define WIPES 1 /* losses of all of Redis, or of its lease index */
#endif
#ifndef CANCELS
#define CANCELS 1
#endif
#ifndef RETRIES
#define RETRIES 0 /* failed or cancelled jobs that a person starts again */
#endif
#ifndef FAILURES
#define FAILURES 0 /* single steps that do not reach their server, while the process lives on */
#endif
#ifndef UNBEGUN
#define UNBEGUN 0 /* lost claims that were claimed ahead and had not begun */
#endif
#ifndef PUSHES
#define PUSHES 0 /* jobs that the gateway pushes; the sweeper finds the others in the outbox */
#endif
#ifndef LATE
#define LATE 0 /* 1: a heartbeat may come after release.lua */
#endif
/* Pauses of processes that live: leases that run out all the same, and reads that are out of date. Without end, but
 * PATIENT: those of a sweeper PAUSES times (two sweepers that pause in turn for ever could take a job from each other for
 * ever); BOUNDED: all of them PAUSES times in all. */
#ifndef PAUSES
#define PAUSES 1
#endif
/* NO_FENCE, LEASE_ONLY_RECOVERY, NO_RESTORE: the engine, broken on purpose */

/* ---- PostgreSQL: table jobs ---- */

#define QUEUED 0
#define ACTIVE 1
#define DELAYED 2
#define COMPLETED 3
#define FAILED 4
#define CANCELLED 5

/* fields st … pushed of job[] below */

/* ---- Redis ---- */

/* who holds a claim in sg:held: workers 1…W, sweepers W+1…W+S, the first and the second process that died; 0: nobody */
#define SWEEPER(s) (W + 1 + (s))
#define DEAD (W + S + 1)
#if CRASHES > 2
#error "there are numbers for two deaths"
#endif

/* sg:lease */
#define NOLEASE 0
#define VALID 1
#define EXPIRED 2

typedef job_t {
    /* PostgreSQL */
    unsigned st : 3;      /* state */
    unsigned att : 2;     /* attempt */
    unsigned own : 3;     /* token and worker_id, while active */
    unsigned creq : 1;    /* cancel_requested */
    unsigned pushed : 1;  /* enqueued_at IS NOT NULL, while queued */
    /* Redis */
    unsigned waiting : 2; /* times in sg:q:*; sg:waiting:* goes with it */
    unsigned held : 3;    /* sg:held */
    unsigned lost : 3;    /* its word 'lost' */
    unsigned lease : 2;
    /* what the properties speak about; all of it follows from the rest, so it costs no states */
    unsigned commits : 2;
    unsigned asked : 1;   /* a cancellation was accepted, and the job not retried since */
    unsigned told : 1     /* a cancellation was accepted at any time: its message may still come */
};
job_t job[J];

/* ---- processes ---- */

/* worker: between claim.lua and the row; running; after the row, before release.lua; after release.lua */
#define IDLE 0
#define CLAIMED 1
#define RUNNING 2
#define DROP 3
#define FRONT 4
#define DONE 5
#define RELEASED(w) w_pc[w] = (LATE -> DONE : IDLE); w_job[w] = (LATE -> w_job[w] : 0)
byte w_pc[W + 1], w_job[W + 1]; /* from 1 */

/* sweeper: the next step, see sweeper() */
#define LOSE 1
#define LOOK 2
#define RELEASE_FRONT 3
#define RELEASE_DROP 4
#define RESTORE 5
#define PUSH 6
#define AUDIT 7
byte s_pc[S], s_job[S];
byte s_who[S]; /* worker that lost the job, or that should hold it */

#ifdef PATIENT
#define SAME_PLACES 1
#else
#define SAME_PLACES 0
#endif

#define G_PUSH 1
#define G_REMOVE 2
byte g_pc, g_job;

/* scratch of one step: the job at hand; no part of the state */
hidden byte k, who;

/* budgets */
unsigned crashes : 3 = CRASHES;
unsigned wipes : 2 = WIPES;
unsigned unbegun : 2 = UNBEGUN;
unsigned cancels : 2 = CANCELS;
unsigned retries : 2 = RETRIES;
unsigned failures : 2 = FAILURES;
unsigned pushes : 2 = PUSHES;
#if defined(PATIENT) || defined(BOUNDED)
unsigned pauses : 2 = PAUSES;
#define MAY_PAUSE (pauses > 0)
#define PAUSE pauses--
#else
#define MAY_PAUSE true
#define PAUSE skip
#endif

/* ---- properties that hold after each step ---- */

#define PLACES(j) (job[j].waiting + (job[j].held > 0))

inline settle(j) {
    assert(job[j].commits <= 1);                                    /* I2: one visible result */
    assert(job[j].att <= MAXATT);                               /* I6: attempts are bounded */
    assert(!job[j].asked || job[j].st != COMPLETED);                /* I8: what was cancelled never completes */
    assert(!job[j].asked || job[j].st == ACTIVE || job[j].st == CANCELLED);
    assert(PLACES(j) <= 1);                                     /* an id is in one place */
    assert(job[j].lease == NOLEASE || job[j].held);             /* only what is held has a lease */
    c_code { settle(); }
}

/* ---- Lua scripts; w, s: the caller's number ---- */

/* claim.lua; whose turn it is does not matter here: any waiting job may be next. That it ends other claims in the same
 * step is one order of release.lua and claim.lua among all */
inline lua_claim(w, j) {
    job[j].waiting--;
    job[j].held = w;
    job[j].lease = VALID;
    job[j].lost = 0
}

/* enqueue.lua */
inline lua_enqueue(j) {
    if
    :: job[j].held && job[j].lease != NOLEASE -> skip
    :: (!job[j].held || job[j].lease == NOLEASE) && job[j].waiting > 0 -> skip
    :: else ->
        job[j].held = 0;
        job[j].lost = 0;
        job[j].waiting++
    fi
}

/* renew.lua: the lease of one job. A reply "lost" changes nothing here: a running worker may fail the job anyhow. What
 * Redis does not know it does not make again */
#define RENEWABLE(w, j) (job[j].held == w)
inline lua_renew(w, j) {
    job[j].lease = VALID
}

/* release.lua; front: 'front', else 'drop'. progress.lua changes nothing that matters here */
inline lua_release(w, j, front) {
    if
    :: job[j].held && job[j].held != w -> skip
    :: else ->
        job[j].held = 0;
        job[j].lease = NOLEASE;
        job[j].lost = 0;
        if
        :: front && job[j].waiting == 0 -> job[j].waiting++
        :: else
        fi
    fi
}

/* remove.lua */
inline lua_remove(j) {
    if
    :: job[j].waiting > 0 -> job[j].waiting--
    :: else
    fi
}

/* restore.lua */
#define RESTORABLE(j, w) (job[j].lease == NOLEASE && ((!job[j].held && !job[j].waiting) || job[j].held == w))
inline lua_restore(j, w) {
    if
    :: RESTORABLE(j, w) ->
        job[j].held = w;
        job[j].lease = VALID
    :: else
    fi
}

/* recover.lua, one job of its loops */
#ifdef LEASE_ONLY_RECOVERY
#define RECOVERABLE(j) (job[j].held && job[j].lease == EXPIRED)
#else
#define RECOVERABLE(j) (job[j].held && job[j].lease != VALID)
#endif
inline lua_recover(s, j, loser) {
    loser = (job[j].lost -> job[j].lost : job[j].held);
    job[j].held = s;
    job[j].lost = loser;
    job[j].lease = VALID
}

/* ---- SQL ---- */

/* queue_turn.c claim_rows: UPDATE … SET state = 'active' … WHERE state = 'queued' */
inline sql_claim(w, j) {
    job[j].st = ACTIVE;
    job[j].att++;
    job[j].own = w;
    job[j].creq = 0;
    job[j].pushed = 0
}

/* queue_finish.c END_BADLY; the fence was checked by the caller */
inline sql_end_badly(j, permanent, cancelled) {
    job[j].st = ((cancelled || job[j].creq) -> CANCELLED : ((permanent || job[j].att >= MAXATT) -> FAILED : DELAYED));
    job[j].own = 0;
    job[j].pushed = 0
}

/* queue_enqueue.c unmark */
inline sql_unmark(j) {
    if
    :: job[j].st == QUEUED -> job[j].pushed = 0
    :: else
    fi
}

/* ---- deaths ---- */

#define NAMED(who, j) (job[j].own == who || job[j].held == who || job[j].lost == who)
#if J == 2
#define NAMED_BY_JOBS(who) (NAMED(who, 0) || NAMED(who, 1))
#else
#define NAMED_BY_JOBS(who) NAMED(who, 0)
#endif
#if S == 2
#define FREE(who) (!NAMED_BY_JOBS(who) && s_who[0] != who && s_who[1] != who)
#else
#define FREE(who) (!NAMED_BY_JOBS(who) && s_who[0] != who)
#endif

/* What process `gone` left behind belongs to nobody any more. */
inline forget(gone) {
    who = (FREE(DEAD) -> DEAD : DEAD + 1);
    k = 0;
    do
    :: k < J ->
        if
        :: job[k].own == gone -> job[k].own = who
        :: else
        fi;
        if
        :: job[k].held == gone -> job[k].held = who
        :: else
        fi;
        if
        :: job[k].lost == gone -> job[k].lost = who
        :: else
        fi;
        k++
    :: else -> break
    od;
    k = 0;
    do
    :: k < S ->
        if
        :: s_who[k] == gone -> s_who[k] = who
        :: else
        fi;
        k++
    :: else -> break
    od;
    k = 0
}

/* ---- one state for each family of like ones ---- */

c_code {
    /* Jobs may change places, and workers; of the (at most four) states that differ in nothing else, the one that is least
     * as a string of bytes is kept. PATIENT: the schedule speaks of single workers, which then keep their places. */
    typedef struct {
        struct job_t job[J];
        unsigned char w_pc[2], w_job[2], s_job[S], s_who[S], g_job;
    } family_t;

    static int other_worker(int who) {
        return who == 1 ? 2 : who == 2 ? 1 : who;
    }

    static void swap_workers(family_t *f) {
        for (int j = 0; j < J; j++) {
            struct job_t *x = &f->job[j];
            x->own = other_worker(x->own);
            x->lost = other_worker(x->lost);
            x->held = other_worker(x->held);
        }
        for (int i = 0; i < S; i++) {
            f->s_who[i] = other_worker(f->s_who[i]);
        }
        unsigned char t = f->w_pc[0];
        f->w_pc[0] = f->w_pc[1];
        f->w_pc[1] = t;
        t = f->w_job[0];
        f->w_job[0] = f->w_job[1];
        f->w_job[1] = t;
    }

    static void swap_jobs(family_t *f) {
        struct job_t t = f->job[0];
        f->job[0] = f->job[J - 1];
        f->job[J - 1] = t;
        for (int i = 0; i < 2; i++) {
            f->w_job[i] ^= f->w_pc[i] != 0;
        }
        for (int i = 0; i < S; i++) {
            f->s_job[i] ^= now.s_pc[i] != 0;
        }
        f->g_job ^= now.g_pc != 0;
    }

    static void settle(void) {
        family_t best, f;
        memset(&f, 0, sizeof f);
        memcpy(f.job, now.job, sizeof f.job);
        memcpy(f.s_job, now.s_job, S);
        memcpy(f.s_who, now.s_who, S);
        for (int i = 0; i < W; i++) {
            f.w_pc[i] = now.w_pc[i + 1];
            f.w_job[i] = now.w_job[i + 1];
        }
        f.g_job = now.g_job;
        best = f;
        for (int turn = 1; turn < 4; turn++) {
            if (turn % 2 == 1) {
                if (J == 1) {
                    continue;
                }
                swap_jobs(&f);
            } else {
                if (W != 2 || SAME_PLACES) {
                    break;
                }
                swap_workers(&f);
            }
            if (memcmp(&f, &best, sizeof f) < 0) {
                best = f;
            }
        }
        memcpy(now.job, best.job, sizeof best.job);
        memcpy(now.s_job, best.s_job, S);
        memcpy(now.s_who, best.s_who, S);
        for (int i = 0; i < W; i++) {
            now.w_pc[i + 1] = best.w_pc[i];
            now.w_job[i + 1] = best.w_job[i];
        }
        now.g_job = best.g_job;
    }
}

/* ---- workers ---- */

#define MINE(w, j) (job[j].st == ACTIVE && job[j].own == w)
#ifdef NO_FENCE
#define MAY_COMMIT(w, j) (!job[j].creq)
#else
#define MAY_COMMIT(w, j) (MINE(w, j) && !job[j].creq)
#endif

inline to_idle(w) {
    w_pc[w] = IDLE;
    w_job[w] = 0
}

proctype worker(byte w) {
end:
    do
    /* claim.lua */
    :: d_step { w_pc[w] == IDLE && job[0].waiting > 0 -> lua_claim(w, 0); w_pc[w] = CLAIMED; w_job[w] = 0; settle(0) }
#if J == 2
    :: d_step { w_pc[w] == IDLE && job[1].waiting > 0 -> lua_claim(w, 1); w_pc[w] = CLAIMED; w_job[w] = 1; settle(1) }
#endif
    /* claim_rows; no row: release.lua drop */
    :: d_step {
        w_pc[w] == CLAIMED ->
            k = w_job[w];
            if
            :: job[k].st == QUEUED ->
                assert(!job[k].creq);
                sql_claim(w, k);
                w_pc[w] = RUNNING
            :: else -> w_pc[w] = DROP
            fi;
            settle(k)
       }
    /* PostgreSQL could not be asked: put_back, release.lua front */
    :: d_step { w_pc[w] == CLAIMED && failures > 0 -> failures--; w_pc[w] = FRONT; settle(0) }

    /* queue_complete_in_tx: UPDATE … 'completed' WHERE token, attempt, state = 'active' AND NOT cancel_requested. A
     * commit that is refused changes nothing, and queue_fail follows */
    :: d_step {
        w_pc[w] == RUNNING && MAY_COMMIT(w, w_job[w]) ->
            k = w_job[w];
            assert(MINE(w, k)); /* I2: never by a stale claim */
            job[k].commits++;
            job[k].st = COMPLETED;
            job[k].own = 0;
            w_pc[w] = DROP;
            settle(k)
       }
    /* queue_fail_many: END_BADLY, under the token; stale: no row, and release.lua all the same */
    :: d_step { /* it may be tried again (also: the heartbeat told that the lease is lost) */
        w_pc[w] == RUNNING ->
            k = w_job[w];
            if
            :: MINE(w, k) -> sql_end_badly(k, false, false)
            :: else
            fi;
            w_pc[w] = DROP;
            settle(k)
       }
    :: d_step { /* permanent error */
        w_pc[w] == RUNNING && MINE(w, w_job[w]) ->
            k = w_job[w];
            sql_end_badly(k, true, false);
            w_pc[w] = DROP;
            settle(k)
       }
    :: d_step { /* told of a cancellation by cancel.lua's message, its mark, or a refused commit */
        w_pc[w] == RUNNING && job[w_job[w]].told && MINE(w, w_job[w]) ->
            k = w_job[w];
            sql_end_badly(k, false, true);
            job[k].asked = 1;
            w_pc[w] = DROP;
            settle(k)
       }
    /* queue_hand_back_many: UPDATE … 'queued' or 'cancelled', attempt = attempt - 1 … under the fence */
    :: d_step {
        w_pc[w] == RUNNING && crashes > 0 && MINE(w, w_job[w]) ->
            k = w_job[w];
            crashes--;
            job[k].att--;
            job[k].own = 0;
            if
            :: job[k].creq -> job[k].st = CANCELLED; w_pc[w] = DROP
            :: else -> job[k].st = QUEUED; job[k].pushed = 1; w_pc[w] = FRONT
            fi;
            settle(k)
       }

    /* release.lua drop (or claim.lua, together with the next claim); release.lua front */
    :: d_step { w_pc[w] == DROP -> k = w_job[w]; lua_release(w, k, false); RELEASED(w); settle(k) }
    :: d_step { w_pc[w] == FRONT -> k = w_job[w]; lua_release(w, k, true); RELEASED(w); settle(k) }
    /* Redis did not hear it: the lease runs out */
    :: d_step { (w_pc[w] == DROP || w_pc[w] == FRONT) && failures > 0 -> failures--; RELEASED(w); settle(0) }
#if LATE
    /* slot_set(NULL): until here a heartbeat may be under way */
    :: d_step { w_pc[w] == DONE -> to_idle(w); settle(0) }
#endif

    /* SIGKILL at any instant; the next life has another number */
    :: d_step { w_pc[w] != IDLE && crashes > 0 -> crashes--; to_idle(w); forget(w); settle(0) }
    od
}

/* ---- sweepers ---- */

inline to_start(s) {
    s_pc[s] = 0;
    s_job[s] = 0;
    s_who[s] = 0
}

#if J == 2
#define NOTHING_TO_RECOVER (!RECOVERABLE(0) && !RECOVERABLE(1))
#else
#define NOTHING_TO_RECOVER (!RECOVERABLE(0))
#endif

/* BOUNDED: a sweeper reads rows that need nothing as often as it may pause. Such a read matters only if they change before
 * the sweeper acts. */
#ifdef BOUNDED
#define MAY_READ(needed) ((needed) || pauses > 0)
#define READ(needed) pauses = (needed -> pauses : pauses - 1)
#else
#define MAY_READ(needed) true
#define READ(needed) skip
#endif

/* The first step of each part of a sweep, for job j. Recovery is the first part; the others begin when there is nothing to
 * recover. */
#define SWEEP_PARTS(s, j)                                                                                              \
    /* recover.lua: the claim is the sweeper's, with a lease of its own */                                            \
    :: d_step { s_pc[s] == 0 && RECOVERABLE(j) ->                                                                      \
                lua_recover(SWEEPER(s), j, who); s_who[s] = who; s_pc[s] = LOSE; s_job[s] = j; settle(j) }             \
    /* restore_leases: SELECT … WHERE state = 'active' */                                                             \
    :: d_step { RESTORES && s_pc[s] == 0 && NOTHING_TO_RECOVER && job[j].st == ACTIVE && MAY_READ(RESTORABLE(j, job[j].own)) ->     \
                READ(RESTORABLE(j, job[j].own)); s_pc[s] = RESTORE; s_job[s] = j; s_who[s] = job[j].own; settle(j) }     \
    /* push_due: UPDATE … WHERE state = 'delayed' AND run_after <= now(); then the outbox */                          \
    :: d_step { s_pc[s] == 0 && NOTHING_TO_RECOVER && (job[j].st == DELAYED || OUTBOX(j)) ->                           \
                job[j].st = QUEUED; job[j].pushed = 1; s_pc[s] = PUSH; s_job[s] = j; settle(j) }                       \
    /* queue_audit_run: SELECT … WHERE state = 'queued' AND enqueued_at …; and it is in no waiting list */            \
    :: d_step { s_pc[s] == 0 && NOTHING_TO_RECOVER && job[j].st == QUEUED && job[j].pushed && !job[j].waiting &&       \
                MAY_READ(!job[j].held) -> READ(!job[j].held); s_pc[s] = AUDIT; s_job[s] = j; settle(j) }

#define OUTBOX(j) (job[j].st == QUEUED && !job[j].pushed)
#ifdef NO_RESTORE
#define RESTORES false
#else
#define RESTORES true
#endif

proctype sweeper(byte s) {
end:
    do
    SWEEP_PARTS(s, 0)
#if J == 2
    SWEEP_PARTS(s, 1)
#endif
    /* queue_lose_claims: END_BADLY, under the tag of the claim that was lost */
    :: d_step {
        s_pc[s] == LOSE ->
            k = s_job[s];
            if
            :: job[k].st == ACTIVE && job[k].own == s_who[s] -> sql_end_badly(k, false, false)
            /* … or it had not begun: 'queued', attempt = attempt - 1 */
            :: unbegun > 0 && job[k].st == ACTIVE && job[k].own == s_who[s] && !job[k].creq ->
                unbegun--;
                job[k].att--;
                job[k].own = 0;
                job[k].st = QUEUED;
                job[k].pushed = 1
            :: else
            fi;
            s_who[s] = 0;
            s_pc[s] = LOOK;
            settle(k)
       }
    /* recover_page: SELECT state */
    :: d_step {
        s_pc[s] == LOOK -> k = s_job[s]; s_pc[s] = (job[k].st == QUEUED -> RELEASE_FRONT : RELEASE_DROP); settle(k)
       }
    /* release_recovered: release.lua */
    :: d_step { s_pc[s] == RELEASE_FRONT -> k = s_job[s]; lua_release(SWEEPER(s), k, true); to_start(s); settle(k) }
    :: d_step { s_pc[s] == RELEASE_DROP -> k = s_job[s]; lua_release(SWEEPER(s), k, false); to_start(s); settle(k) }

    /* restore.lua, for the worker that the row named a while ago */
    :: d_step { s_pc[s] == RESTORE -> k = s_job[s]; who = s_who[s]; lua_restore(k, who); to_start(s); settle(k) }

    /* queue_push_rows: enqueue.lua */
    :: d_step { s_pc[s] == PUSH -> k = s_job[s]; lua_enqueue(k); to_start(s); settle(k) }
    /* … Redis is away: unmark, UPDATE … enqueued_at = NULL WHERE state = 'queued' */
    :: d_step { s_pc[s] == PUSH && failures > 0 -> failures--; k = s_job[s]; sql_unmark(k); to_start(s); settle(k) }

    /* the audit reads the claims after the waiting lists; in neither: UPDATE … WHERE state = 'queued' */
    :: d_step {
        s_pc[s] == AUDIT ->
            k = s_job[s];
            if
            :: !job[k].held && job[k].st == QUEUED -> job[k].pushed = 1; s_pc[s] = PUSH
            :: else -> to_start(s)
            fi;
            settle(k)
       }

    /* death at any instant */
    :: d_step { s_pc[s] != 0 && crashes > 0 -> crashes--; to_start(s); forget(SWEEPER(s)); settle(0) }
    od
}

/* ---- the gateway, the people behind it, and what befalls Redis ---- */

#define GATEWAY_STEPS(j)                                                                                               \
    /* queue_enqueue: MARK_PUSHED, UPDATE … enqueued_at = now() WHERE state = 'queued' */                             \
    :: d_step { g_pc == 0 && pushes > 0 && OUTBOX(j) -> pushes--; job[j].pushed = 1; g_pc = G_PUSH; g_job = j;         \
                settle(j) }                                                                                            \
    /* cancel_once, waiting: UPDATE … 'cancelled' WHERE state IN ('queued', 'delayed') */                             \
    :: d_step { g_pc == 0 && cancels > 0 && (job[j].st == QUEUED || job[j].st == DELAYED) ->                           \
                cancels--; job[j].st = CANCELLED; job[j].creq = 1; job[j].pushed = 0; job[j].asked = 1;                \
                job[j].told = 1; g_pc = G_REMOVE; g_job = j; settle(j) }                                               \
    /* cancel_once, active: UPDATE … cancel_requested WHERE state = 'active'; cancel.lua tells, or fails to tell */   \
    :: d_step { g_pc == 0 && cancels > 0 && job[j].st == ACTIVE && !job[j].creq ->                                     \
                cancels--; job[j].creq = 1; job[j].asked = 1; job[j].told = 1; settle(j) }                             \
    /* queue_retry: UPDATE … 'queued' … WHERE state IN ('failed', 'cancelled') */                                     \
    :: d_step { g_pc == 0 && retries > 0 && (job[j].st == FAILED || job[j].st == CANCELLED) ->                         \
                retries--; job[j].st = QUEUED; job[j].att = 0; job[j].creq = 0; job[j].pushed = 0; job[j].asked = 0;   \
                settle(j) }

#define LOSE_ALL(j) job[j].waiting = 0; job[j].held = 0; job[j].lease = NOLEASE; job[j].lost = 0

proctype gateway() {
end:
    do
    GATEWAY_STEPS(0)
#if J == 2
    GATEWAY_STEPS(1)
#endif
    /* enqueue.lua; remove.lua; Redis is away: unmark; death in between */
    :: d_step { g_pc == G_PUSH -> k = g_job; lua_enqueue(k); g_pc = 0; g_job = 0; settle(k) }
    :: d_step { g_pc == G_REMOVE -> k = g_job; lua_remove(k); g_pc = 0; g_job = 0; settle(k) }
    :: d_step { g_pc == G_PUSH && failures > 0 -> failures--; k = g_job; sql_unmark(k); g_pc = 0; g_job = 0; settle(k) }
    :: d_step { g_pc != 0 -> g_pc = 0; g_job = 0; settle(0) }

    /* FLUSHALL, a restart without data, a fail-over to an empty replica */
    :: d_step {
        wipes > 0 ->
            wipes--;
            LOSE_ALL(0);
#if J == 2
            LOSE_ALL(1);
#endif
            settle(0)
       }
    /* the lease index alone is lost: a key evicted, or deleted by hand */
    :: d_step {
        wipes > 0 ->
            wipes--;
            job[0].lease = NOLEASE;
#if J == 2
            job[1].lease = NOLEASE;
#endif
            settle(0)
       }
    od
}

/* ---- time ---- */

#define OF_SWEEPER(j) (job[j].held > W && job[j].held < DEAD)
#define WORKS_ON(w, j) (w_pc[w] != IDLE && w_job[w] == j && job[j].held == w)
#if W == 1
#define OF_BUSY_WORKER(j) WORKS_ON(1, j)
#else
#define OF_BUSY_WORKER(j) (WORKS_ON(1, j) || WORKS_ON(2, j))
#endif
#ifdef BOUNDED
#define UNTIMELY(j) (OF_SWEEPER(j) || OF_BUSY_WORKER(j))
#else
#define UNTIMELY(j) OF_SWEEPER(j)
#endif
#define RUN_OUT(j)                                                                                                     \
    :: d_step { job[j].lease == VALID && !UNTIMELY(j) -> job[j].lease = EXPIRED; settle(j) }                           \
    :: d_step { job[j].lease == VALID && UNTIMELY(j) && MAY_PAUSE -> PAUSE; job[j].lease = EXPIRED; settle(j) }

/* renew.lua; LATE: also one that was sent before the job ended and comes after release.lua */
#define BEAT(w)                                                                                                        \
    :: d_step { w_pc[w] >= RUNNING && RENEWABLE(w, w_job[w]) && job[w_job[w]].lease != VALID ->                        \
                k = w_job[w]; lua_renew(w, k); settle(k) }

proctype tick() {
end:
    do
    RUN_OUT(0)
#if J == 2
    RUN_OUT(1)
#endif
    BEAT(1)
#if W == 2
    BEAT(2)
#endif
    od
}

init {
    byte i;
    atomic {
        i = 1;
        do
        :: i <= W -> run worker(i); i++
        :: else -> break
        od;
        i = 0;
        do
        :: i < S -> run sweeper(i); i++
        :: else -> break
        od;
        run gateway();
        run tick()
    }
}

/* Every job ends for good, and Redis keeps nothing of it. */
#define OVER(j) (job[j].st >= COMPLETED)
#define CLEAN(j) (OVER(j) && !job[j].waiting && !job[j].held && job[j].lease == NOLEASE)
#if J == 2
#define ALL(what) (what(0) && what(1))
#else
#define ALL(what) what(0)
#endif
ltl rest { <>[] ALL(CLEAN) }
/* The weaker half of it, which a broken engine must miss: every job ends. */
ltl jobs_end { <>[] ALL(OVER) }
