/*
 * The job queue: life of a queue_t, names of the states, what all of its files use. See queue.h for the contract and
 * proto/jobs.md for the states, the keys and who may move a job from one state to another:
 *
 *   queue_enqueue.c  the gateway's side: enqueue, cancel, retry, position
 *   queue_many.c     cancel and retry many
 *   queue_claim.c    the worker's side: claim and wait; queue_turn.c: several threads' claims together
 *   queue_held.c     while a job runs: renew, progress, cancellation
 *   queue_finish.c   at its end: complete, fail, hand back
 *   queue_sweep.c    recovery; queue_audit.c: comparison with Redis, clean-up
 *   queue_models.c   pausing and resuming a model
 *   queue_eta.c      estimates
 *   queue_status.c   figures
 *
 * Every change of state is one SQL statement that names the state it starts from, so that two parties that try the same
 * transition cannot both succeed. Redis follows PostgreSQL and may lose anything at any time.
 */
#include "queue.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "buf.h"
#include "log.h"
#include "metrics.h"
#include "queue_internal.h"

extern const char lua_enqueue[], lua_claim[], lua_renew[], lua_release[], lua_remove[], lua_cancel[], lua_recover[],
    lua_restore[], lua_progress[], lua_position[], lua_pause[], lua_measured[];

static const char *const STATE_NAMES[] = {"queued", "active", "delayed", "completed", "failed", "cancelled"};
enum { STATE_COUNT = sizeof STATE_NAMES / sizeof STATE_NAMES[0] };

const char *job_state_name(job_state_t s) {
    return (unsigned)s < STATE_COUNT ? STATE_NAMES[s] : "unknown";
}

bool job_state_parse(const char *word, job_state_t *out) {
    for (int i = 0; word && i < STATE_COUNT; i++) {
        if (strcmp(word, STATE_NAMES[i]) == 0) {
            *out = (job_state_t)i;
            return true;
        }
    }
    return false;
}

err_kind_t queue_random_hex(char *out, size_t bytes, err_t *err) {
    unsigned char raw[32];
    if (bytes > sizeof raw) {
        bytes = sizeof raw;
    }
    size_t have = 0;
    while (have < bytes) {
        ssize_t n = getrandom(raw + have, bytes - have, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return err_set(err, ERR_INTERNAL, "no_randomness", "The server has no source of random numbers.",
                           "getrandom: %s", strerror(errno));
        }
        have += (size_t)n;
    }
    for (size_t i = 0; i < bytes; i++) {
        out[2 * i] = "0123456789abcdef"[raw[i] >> 4];
        out[2 * i + 1] = "0123456789abcdef"[raw[i] & 15];
    }
    out[2 * bytes] = '\0';
    return ERR_OK;
}

static void init_scripts(queue_scripts_t *lua) {
    rds_script_init(&lua->enqueue, "enqueue", lua_enqueue);
    rds_script_init(&lua->claim, "claim", lua_claim);
    rds_script_init(&lua->renew, "renew", lua_renew);
    rds_script_init(&lua->release, "release", lua_release);
    rds_script_init(&lua->remove, "remove", lua_remove);
    rds_script_init(&lua->cancel, "cancel", lua_cancel);
    rds_script_init(&lua->recover, "recover", lua_recover);
    rds_script_init(&lua->restore, "restore", lua_restore);
    rds_script_init(&lua->progress, "progress", lua_progress);
    rds_script_init(&lua->position, "position", lua_position);
    rds_script_init(&lua->pause, "pause", lua_pause);
    rds_script_init(&lua->measured, "measured", lua_measured);
}

err_kind_t queue_create(const config_t *cfg, pg_pool_t *pg, rds_pool_t *rds, queue_t **out, err_t *err) {
    queue_t *q = calloc(1, sizeof *q);
    if (!q) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", "queue_create");
    }
    q->pg = pg;
    q->rds = rds;
    q->lease_ms = cfg->lease_ms;
    q->backoff_ms = cfg->backoff_ms;
    q->retention_days = cfg->job_retention_days;
    q->redis_timeout_ms = cfg->redis_timeout_ms;
    q->tune = (queue_tuning_t){
        .age_ms = 30000,
        .age_every = 8,
        .sweep_gap_ms = 700,
        .audit_ms = 15000,
        .audit_grace_ms = 2000,
        .push_grace_ms = 2000,
        .restore_grace_ms = 2000,
        .housekeeping_ms = 600000,
        /* Both are short, because a sweeper that is killed or frozen at work delays recovery by their sum; one that is
         * merely slow is overtaken by another, which is harmless. */
        .sweeper_lease_ms = 3000,
        .turn_ms = 2000,
    };
    q->breaker = (breaker_settings_t){
        .enabled = cfg->breaker_enabled,
        .threshold = cfg->breaker_threshold,
        .min_calls = 5,
        .window_ms = 60000,
        .open_ms = 30000,
    };
    init_scripts(&q->lua);
    char nonce[17];
    err_kind_t rc = queue_random_hex(nonce, 8, err);
    if (rc != ERR_OK || pthread_mutex_init(&q->lock, NULL) != 0) {
        free(q);
        return rc != ERR_OK ? rc : err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", "mutex");
    }
    if (pthread_mutex_init(&q->pace_lock, NULL) != 0) {
        (void)pthread_mutex_destroy(&q->lock);
        free(q);
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", "mutex");
    }
    (void)snprintf(q->sweeper_id, sizeof q->sweeper_id, "sweeper-%s", nonce);
    queue_metrics_attach(q);
    *out = q;
    return ERR_OK;
}

void queue_destroy(queue_t *q) {
    if (!q) {
        return;
    }
    queue_metrics_detach(q);
    if (q->cancel_sub) {
        events_sub_destroy(q->cancel_sub);
    }
    for (int i = 0; i < q->blocking_count; i++) {
        rds_release(q->blocking[i]);
    }
    while (q->held) {
        queue_held_t *next = q->held->next;
        free(q->held);
        q->held = next;
    }
    free(q->spare);
    (void)pthread_mutex_destroy(&q->pace_lock);
    (void)pthread_mutex_destroy(&q->lock);
    free(q);
}

char *queue_event_json(const queue_event_t *e) {
    cJSON *o = cJSON_CreateObject();
    bool ok = o && cJSON_AddStringToObject(o, "type", "job") &&
              cJSON_AddStringToObject(o, "projectId", e->project_id) &&
              cJSON_AddStringToObject(o, "imageId", e->image_id) && cJSON_AddStringToObject(o, "jobId", e->job_id) &&
              cJSON_AddNumberToObject(o, "seq", (double)e->seq) &&
              cJSON_AddStringToObject(o, "state", job_state_name(e->state)) &&
              cJSON_AddStringToObject(o, "stage", e->stage ? e->stage : "") &&
              cJSON_AddNumberToObject(o, "progress", e->progress) && cJSON_AddNumberToObject(o, "attempt", e->attempt);
    if (ok && e->position >= 0) {
        ok = cJSON_AddNumberToObject(o, "position", e->position) != NULL;
    }
    if (ok && e->object_count >= 0) {
        ok = cJSON_AddNumberToObject(o, "objectCount", e->object_count) != NULL;
    }
    if (ok && e->error_code && e->error_code[0]) {
        cJSON *x = cJSON_AddObjectToObject(o, "error");
        ok = x && cJSON_AddStringToObject(x, "code", e->error_code) &&
             cJSON_AddStringToObject(x, "message", e->error_message ? e->error_message : "");
    }
    char *json = ok ? cJSON_PrintUnformatted(o) : NULL;
    cJSON_Delete(o);
    return json;
}

void queue_event_publish(queue_t *q, const queue_event_t *e) {
    char *json = queue_event_json(e);
    if (json) {
        events_publish(q->rds, e->project_id, json);
        free(json);
    }
}

err_kind_t queue_eval(queue_t *q, const rds_script_t *s, int nkeys, int argc, const char *const *argv,
                      redisReply **reply, err_t *err) {
    rds_conn_t *conn = NULL;
    err_kind_t rc = rds_acquire(q->rds, &conn, err);
    if (rc == ERR_OK) {
        rc = rds_eval(conn, s, nkeys, argc, argv, reply, err);
        rds_release(conn);
    }
    return rc;
}

/* ---- arguments of scripts ---- */

void queue_args_put(queue_args_t *a, const char *word) {
    if (a->n == a->room && !a->failed) {
        int room = a->room ? 2 * a->room : 64;
        const char **more = reallocarray(a->words, (size_t)room, sizeof *more);
        a->failed = more == NULL;
        if (more) {
            a->words = more;
            a->room = room;
        }
    }
    if (!a->failed) {
        a->words[a->n++] = word;
    }
}

void queue_args_free(queue_args_t *a) {
    free(a->words);
    *a = (queue_args_t){0};
}

void queue_args_news(queue_args_t *a, const queue_news_t *news, char *number) {
    (void)snprintf(number, 16, "%d", news ? news->n / 2 : 0);
    queue_args_put(a, number);
    for (int i = 0; news && i < news->n; i++) {
        queue_args_put(a, news->words[i]);
    }
}

err_kind_t queue_eval_args(queue_t *q, const rds_script_t *s, const queue_args_t *a, redisReply **reply, err_t *err) {
    if (a->failed) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", "%s", s->name);
    }
    return queue_eval(q, s, 0, a->n, a->words, reply, err);
}

/* ---- messages that travel with a script ---- */

void queue_news_add(queue_news_t *news, const queue_event_t *e) {
    if (news->n + 2 > news->room) {
        int room = news->room ? 2 * news->room : 16;
        char **more = reallocarray(news->words, (size_t)room, sizeof *more);
        if (!more) {
            return; /* as with any message: the client's next snapshot tells */
        }
        news->words = more;
        news->room = room;
    }
    char *json = queue_event_json(e), *channel = NULL;
    if (json && asprintf(&channel, "sg:events:%s", e->project_id) > 0) {
        news->words[news->n++] = channel;
        news->words[news->n++] = json;
    } else {
        free(json);
    }
}

void queue_news_free(queue_news_t *news) {
    for (int i = 0; i < news->n; i++) {
        free(news->words[i]);
    }
    free(news->words);
    *news = (queue_news_t){0};
}

static pthread_once_t news_once = PTHREAD_ONCE_INIT;
static metric_t *news_published;

static void register_news(void) {
    news_published = metrics_counter("spheroseg_events_published_total", "Events published on Redis.", NULL);
}

void queue_news_published(const queue_news_t *news) {
    (void)pthread_once(&news_once, register_news);
    int events = news->n / 2; /* a channel and a message each */
    metrics_add(news_published, NULL, (double)events);
}

err_kind_t queue_release(queue_t *q, const char *how, const queue_release_t *jobs, int n, const queue_news_t *news,
                         err_t *err) {
    char number[16], (*tags)[QUEUE_TAG_SIZE] = calloc((size_t)(n > 0 ? n : 1), sizeof *tags);
    if (!tags) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", "release");
    }
    queue_args_t a = {0};
    queue_args_put(&a, how);
    queue_args_news(&a, news, number);
    for (int i = 0; i < n; i++) {
        (void)snprintf(tags[i], sizeof tags[i], "%.16s", jobs[i].tag);
        queue_args_put(&a, jobs[i].id);
        queue_args_put(&a, tags[i]);
        queue_args_put(&a, jobs[i].model ? jobs[i].model : "");
        queue_args_put(&a, jobs[i].priority ? jobs[i].priority : "");
        queue_args_put(&a, jobs[i].user ? jobs[i].user : "");
    }
    err_kind_t rc = queue_eval_args(q, &q->lua.release, &a, NULL, err);
    if (rc == ERR_OK && news) {
        queue_news_published(news);
    }
    queue_args_free(&a);
    free(tags);
    return rc;
}
