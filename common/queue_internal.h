/*
 * What the files of the queue share: the queue_t itself, its scripts, the table of claims this process holds, and the
 * messages it publishes. Not for other modules; tests use it to shorten waits.
 */
#ifndef SG_QUEUE_INTERNAL_H
#define SG_QUEUE_INTERNAL_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "breaker.h"
#include "events.h"
#include "queue.h"

/* Recovery cannot know how many progress messages the lost attempt sent, so it skips more than one can send. */
#define QUEUE_SEQ_SKIP_TEXT "1048576"

/* Scores of sg:turns:<model>: the places of priority p lie from (10 - p) bands on. The scripts say so in figures. */
#define QUEUE_TURNS_BAND 1099511627776LL

enum {
    QUEUE_PAGE = 500,            /* rows handled by one statement or script call */
    QUEUE_MAX_BLOCKING = 64,     /* connections kept for idle workers */
    QUEUE_MAX_MODELS = 64,       /* that one worker serves */
    QUEUE_TAG_SIZE = 17,         /* of a claim's tag: the first 16 digits of its token, and a NUL */
    QUEUE_PROGRESS_GAP_MS = 200, /* between two progress messages of a job */
    QUEUE_REDIS_PAUSE_MS = 3000  /* no progress is sent for so long after Redis failed */
};

typedef struct {
    int64_t age_ms;           /* wait from which on ageing may serve a job out of turn */
    int age_every;            /* every how many claims */
    int64_t sweep_gap_ms;     /* least time between two passes in the whole installation */
    int64_t audit_ms;         /* between two comparisons of PostgreSQL with the lists */
    int64_t audit_grace_ms;   /* rows pushed more recently are not audited */
    int64_t push_grace_ms;    /* a push that is older is looked after */
    int64_t restore_grace_ms; /* rows claimed more recently are not checked for a lease */
    int64_t housekeeping_ms;  /* between two clean-ups of old rows */
    int64_t sweeper_lease_ms; /* how long a sweeper owns what it recovers */
    int64_t turn_ms;          /* when a sweeper has not ended its turn by then, another may begin one */
} queue_tuning_t;

enum { QUEUE_PACES_MAX = 256 };

/* How fast a model's jobs are done. */
typedef struct {
    char model[64];
    double mean_s;         /* NaN: nothing was measured */
    double slots, running; /* of the live workers that run it; no slots while it is paused */
} queue_pace_t;

typedef struct {
    int64_t valid_until_ms;
    int count;
    queue_pace_t models[QUEUE_PACES_MAX];
} queue_paces_t;

/* A claim that this process holds. */
typedef struct queue_held {
    char id[JOB_ID_LEN], tag[QUEUE_TAG_SIZE];
    char worker[128];
    bool cancelled;
    int64_t published_ms;
    double progress;
    char stage[24];
    struct queue_held *next;
} queue_held_t;

typedef struct {
    rds_script_t enqueue, claim, renew, release, remove, cancel, recover, restore, progress, position, pause, measured;
} queue_scripts_t;

struct queue {
    pg_pool_t *pg;
    rds_pool_t *rds;
    int64_t lease_ms, backoff_ms, retention_days, redis_timeout_ms;
    queue_tuning_t tune;
    breaker_settings_t breaker;
    queue_scripts_t lua;
    char sweeper_id[64];

    pthread_mutex_t pace_lock; /* guards paces; held while Redis is asked */
    queue_paces_t paces;

    pthread_mutex_t lock; /* guards everything below */
    queue_held_t *held;
    events_sub_t *cancel_sub;
    struct queue_turn *turns;    /* that wait to be served, the oldest first */
    struct queue_party *parties; /* turns that are being served */
    struct queue_party *spare;   /* memory for one, kept */
    rds_conn_t *blocking[QUEUE_MAX_BLOCKING];
    int blocking_count;
    int64_t progress_pause_until_ms;
    queue_counts_t counts;
    int64_t counts_valid_until_ms;

    struct queue *next_live; /* guarded by the list's own lock, see queue_status.c */
};

/* One message of proto/events.md. Strings may be NULL where the message leaves a field out. */
typedef struct {
    const char *project_id, *image_id, *job_id;
    int64_t seq;
    job_state_t state;
    const char *stage;
    double progress;
    int attempt;
    int position;     /* < 0: left out */
    int object_count; /* < 0: left out */
    const char *error_code, *error_message;
} queue_event_t;

/* The message as JSON, or NULL when memory is gone. Caller frees. */
char *queue_event_json(const queue_event_t *e);
void queue_event_publish(queue_t *q, const queue_event_t *e);

/* Runs a script on a pooled connection. argv: the keys, then the arguments; argc counts both. */
ERR_MUST err_kind_t queue_eval(queue_t *q, const rds_script_t *s, int nkeys, int argc, const char *const *argv,
                               redisReply **reply, err_t *err);

/* Messages that a script publishes in the same step as what they tell of. */
typedef struct {
    int n, room;
    char **words; /* channel, message, … */
} queue_news_t;
void queue_news_add(queue_news_t *news, const queue_event_t *e);
void queue_news_free(queue_news_t *news);
/* Counts what was published by a script that has run. */
void queue_news_published(const queue_news_t *news);

/* Arguments of a script, as many as it takes. Words are not copied. */
typedef struct {
    int n, room;
    const char **words;
    bool failed;
} queue_args_t;
void queue_args_put(queue_args_t *a, const char *word);
/* The number of messages, written to number (16 bytes), and these. */
void queue_args_news(queue_args_t *a, const queue_news_t *news, char *number);
void queue_args_free(queue_args_t *a);
ERR_MUST err_kind_t queue_eval_args(queue_t *q, const rds_script_t *s, const queue_args_t *a, redisReply **reply,
                                    err_t *err);

/* release.lua for n jobs, and the news of it (may be NULL). Of a tag the first 16 digits count. model, priority and
 * user matter only to what waits again. */
typedef struct {
    const char *id, *tag, *model, *priority, *user;
} queue_release_t;
ERR_MUST err_kind_t queue_release(queue_t *q, const char *how, const queue_release_t *jobs, int n,
                                  const queue_news_t *news, err_t *err);

/* The columns that queue_push_rows needs, of a table that is called j. */
#define QUEUE_PUSH_COLUMNS                                                                                             \
    "j.id, j.user_id, j.project_id, j.image_id, j.model, j.priority, j.seq, j.attempt, j.created_at"

/* Puts the rows of a result (QUEUE_PUSH_COLUMNS) at the back of their lists and, if publish is set, tells so. When
 * Redis fails, rows that did not get there become part of the outbox again. */
ERR_MUST err_kind_t queue_push_rows(queue_t *q, const PGresult *rows, bool publish, err_t *err);

/* Publishes a `job` message with this state for rows from..to-1 (QUEUE_PUSH_COLUMNS), in one pipeline. At most
 * QUEUE_PAGE. */
void queue_publish_rows(queue_t *q, const PGresult *rows, int from, int to, job_state_t state);

/* Jobs that did not reach Redis become part of the outbox again. */
void queue_unmark_jobs(queue_t *q, const queue_inserted_t *jobs, int n);

/* A random string of 2*bytes hex digits; out has room for the NUL. bytes <= 32. */
ERR_MUST err_kind_t queue_random_hex(char *out, size_t bytes, err_t *err);

/* ---- the table of claims (queue_held.c). tag: the first 16 digits count, so a token serves as well ---- */
void queue_held_add(queue_t *q, const char *job_id, const char *tag, const char *worker_id);
void queue_held_remove(queue_t *q, const char *job_id, const char *tag);
void queue_held_watch(queue_t *q); /* listens to cancellations from now on */

/* ---- turns (queue_turn.c) ---- */
typedef struct {
    char id[JOB_ID_LEN], user[JOB_ID_LEN], model[64], priority[8];
    int turn, place; /* of the party's turns, the one that gets it; which of that turn's jobs it is, to be begun in order */
} queue_candidate_t;

/* What one thread asks for: to end claims, and to get others. */
typedef struct queue_turn {
    const char *worker_id;
    const char *const *models;
    int nmodels, most;
    /* What is claimed ahead is bounded: the first job of a turn comes in any case, others as long as all of them cost no
     * more than budget_us. costs_us: one for each model, at least 1. Claims of such a turn must be begun in their order.
     * NULL: `most` alone bounds the turn, and its jobs are begun in any order. */
    const int64_t *costs_us;
    int64_t budget_us;
    const queue_claim_t *done; /* committed; they are ended first, and told of */
    const int *object_counts;
    int ndone;
    bool redis_only; /* takes what Redis gives without asking PostgreSQL, and tells nobody: for measurements */
    queue_claim_t *out;
    int got, stale;  /* ids that Redis gave and PostgreSQL did not; they are dropped */
    int64_t hint_ms; /* until a breaker lets a job through; -1: none is open */
    err_kind_t rc;
    err_t *err;
    struct queue_turn *next;
    sem_t wake;         /* posted when it is asked to lead, and when another thread served it */
    int posts;          /* so often in all; whoever posts counts first */
    atomic_bool served; /* got and rc are filled */
} queue_turn_t;

/* Serves one turn, alone or together with those of other threads of the same worker. */
void queue_turn_take(queue_t *q, queue_turn_t *turn);
/* The same, and waits up to wait_ms for the first job (queue_claim.c). */
ERR_MUST err_kind_t queue_turn_wait(queue_t *q, queue_turn_t *turn, int wait_ms);

/* A token after its tag: two digits for the turn, two for the place of the claim among the turn's, and random ones. Of a
 * turn whose jobs are begun in their order, all places but the smallest that is active have not begun: what recovery
 * needs to know, so that a crash counts for the job that may have caused it and for no other (queue_finish.c). */
#define QUEUE_TOKEN_TURN_TEXT "18"  /* tag and turn: so many digits */
#define QUEUE_TOKEN_PLACE_TEXT "20" /* with the place */

/* ---- parts of a sweep (queue_audit.c), each on a connection of the caller ---- */
/* Rows that were pushed less than grace_ms ago are left out. *relisted: rows that were in no list and are pushed again.
 */
ERR_MUST err_kind_t queue_audit_run(queue_t *q, pg_conn_t *conn, int64_t grace_ms, int *relisted, err_t *err);
/* Jobs that a gateway meant to push and did not, for grace_ms, become part of the outbox; *lost counts them
 * (queue_pushes.c). */
ERR_MUST err_kind_t queue_pushes_run(queue_t *q, pg_conn_t *conn, int64_t grace_ms, int *lost, err_t *err);
ERR_MUST err_kind_t queue_housekeeping_run(queue_t *q, pg_conn_t *conn, err_t *err);
/* Publishes ends once more whose news may have been lost (queue_tell.c): cancellations since the last look, and all ends
 * of the last minute when Redis does not remember a look. */
ERR_MUST err_kind_t queue_tell_ends(queue_t *q, pg_conn_t *conn, err_t *err);
/* Makes the next look one that tells all. */
ERR_MUST err_kind_t queue_tell_all_again(queue_t *q, err_t *err);

/* ---- gauges (queue_status.c) ---- */
void queue_metrics_attach(queue_t *q);
void queue_metrics_detach(queue_t *q);

#endif
