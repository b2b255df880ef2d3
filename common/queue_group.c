/*
 * Putting many new jobs, of any users, into Redis at once: what the gateway does for the requests that it accepted in
 * one transaction (gateway/routes/submit_group.c). One round trip pushes them and asks for their places, a second one
 * publishes their events; per job that costs a fraction of doing it one by one.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "log.h"
#include "queue_internal.h"

extern const char lua_places[];

static pthread_once_t once = PTHREAD_ONCE_INIT;
static rds_script_t places_script;

static void init_script(void) {
    rds_script_init(&places_script, "places", lua_places);
}

typedef struct {
    char priority[QUEUE_GROUP_MAX][8];
    const char *push[3 + 1 + 4 * QUEUE_GROUP_MAX]; /* EVALSHA, sha, number of keys (none), arguments */
    const char *ask[3 + 3 * QUEUE_GROUP_MAX];
    int push_count, ask_count;
} calls_t;

static void build_calls(const queue_t *q, const queue_inserted_t *jobs, int n, calls_t *c) {
    int p = 0, a = 0;
    c->push[p++] = "EVALSHA";
    c->push[p++] = q->lua.enqueue.sha;
    c->push[p++] = "0";
    c->push[p++] = "back";
    c->ask[a++] = "EVALSHA";
    c->ask[a++] = places_script.sha;
    c->ask[a++] = "0";
    for (int i = 0; i < n; i++) {
        (void)snprintf(c->priority[i], sizeof c->priority[i], "%d", jobs[i].priority);
        c->push[p++] = jobs[i].id;
        c->push[p++] = c->ask[a++] = jobs[i].model;
        c->push[p++] = c->ask[a++] = c->priority[i];
        c->push[p++] = c->ask[a++] = jobs[i].user_id;
    }
    c->push_count = p;
    c->ask_count = a;
}

/* The reply of one script of the pipeline. Redis may have forgotten it: then it is sent with its source. */
static err_kind_t settle(rds_conn_t *conn, const rds_script_t *script, const char *const *argv, int argc,
                         redisReply **reply, err_t *err) {
    redisReply *r = *reply;
    if (r->type != REDIS_REPLY_ERROR) {
        return ERR_OK;
    }
    err_kind_t rc;
    *reply = NULL;
    if (strncmp(r->str, "NOSCRIPT", 8) == 0) {
        rc = rds_eval(conn, script, 0, argc - 3, argv + 3, reply, err);
    } else {
        rc = err_set(err, ERR_UNAVAILABLE, "redis_unavailable", "The job queue is not ready. Try again in a moment.",
                     "%s: %.200s", script->name, r->str);
    }
    freeReplyObject(r);
    return rc;
}

static err_kind_t exchange(queue_t *q, rds_conn_t *conn, const calls_t *c, redisReply **pushed, redisReply **places,
                           err_t *err) {
    redisContext *ctx = rds_raw(conn);
    void *first = NULL, *second = NULL;
    /* hiredis takes pointers to non-const pointers but changes nothing */
    bool ok = ctx->err == 0 && redisAppendCommandArgv(ctx, c->push_count, (const char **)c->push, NULL) == REDIS_OK &&
              redisAppendCommandArgv(ctx, c->ask_count, (const char **)c->ask, NULL) == REDIS_OK &&
              redisGetReply(ctx, &first) == REDIS_OK && redisGetReply(ctx, &second) == REDIS_OK;
    *pushed = first;
    *places = second;
    if (!ok) {
        rds_fail(conn);
        return err_set(err, ERR_UNAVAILABLE, "redis_unavailable", "The job queue is not ready. Try again in a moment.",
                       "enqueue of a group: %.200s", ctx->err ? ctx->errstr : "no answer");
    }
    err_kind_t rc = settle(conn, &q->lua.enqueue, c->push, c->push_count, pushed, err);
    err_t why;
    if (rc == ERR_OK && settle(conn, &places_script, c->ask, c->ask_count, places, &why) != ERR_OK) {
        log_error(LOG_DEBUG, "places of new jobs", &why); /* they are in their lists; a place is a courtesy */
    }
    return rc;
}

static void read_places(const redisReply *pushed, const redisReply *places, int n, int *positions) {
    if (!places || places->type != REDIS_REPLY_ARRAY || places->elements != (size_t)n) {
        return;
    }
    for (int i = 0; i < n; i++) {
        const redisReply *r = places->element[i];
        bool fresh = pushed->type == REDIS_REPLY_ARRAY && pushed->elements == (size_t)n &&
                     pushed->element[i]->type == REDIS_REPLY_INTEGER && pushed->element[i]->integer == 1;
        if (fresh && r->type == REDIS_REPLY_INTEGER) {
            positions[i] = (int)r->integer;
        }
    }
}

bool queue_enqueue_group(queue_t *q, const queue_inserted_t *jobs, int n, int *positions) {
    (void)pthread_once(&once, init_script);
    for (int i = 0; i < n; i++) {
        positions[i] = -1;
    }
    if (n < 1 || n > QUEUE_GROUP_MAX) {
        return n == 0;
    }
    err_t why;
    rds_conn_t *conn = NULL;
    redisReply *pushed = NULL, *places = NULL;
    calls_t *c = malloc(sizeof *c);
    err_kind_t rc = c ? rds_acquire(q->rds, &conn, &why)
                      : err_set(&why, ERR_NO_MEMORY, "no_memory", "Out of memory.", "enqueue of a group");
    if (rc == ERR_OK) {
        build_calls(q, jobs, n, c);
        rc = exchange(q, conn, c, &pushed, &places, &why);
        rds_release(conn);
    }
    if (rc == ERR_OK) {
        read_places(pushed, places, n, positions);
    } else {
        char count[16];
        (void)snprintf(count, sizeof count, "%d", n);
        log_event(LOG_WARN, "enqueue: Redis is away, the sweeper will do it", "jobs", count, "detail", why.detail,
                  NULL);
        queue_unmark_jobs(q, jobs, n);
    }
    if (pushed) {
        freeReplyObject(pushed);
    }
    if (places) {
        freeReplyObject(places);
    }
    free(c);
    return rc == ERR_OK;
}

void queue_announce_group(queue_t *q, const queue_inserted_t *jobs, int n, const int *positions) {
    const char *projects[QUEUE_GROUP_MAX];
    const char *jsons[QUEUE_GROUP_MAX];
    char *owned[QUEUE_GROUP_MAX];
    size_t count = 0;
    for (int i = 0; i < n && i < QUEUE_GROUP_MAX; i++) {
        const queue_event_t e = {.project_id = jobs[i].project_id,
                                 .image_id = jobs[i].image_id,
                                 .job_id = jobs[i].id,
                                 .seq = 1,
                                 .state = JOB_QUEUED,
                                 .position = positions[i],
                                 .object_count = -1};
        char *json = queue_event_json(&e);
        if (json) {
            projects[count] = jobs[i].project_id;
            owned[count] = json;
            jsons[count++] = json;
        }
    }
    if (count > 0) {
        events_publish_many(q->rds, count, projects, jsons);
    }
    for (size_t i = 0; i < count; i++) {
        free(owned[i]);
    }
}
