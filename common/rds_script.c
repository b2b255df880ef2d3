/* Lua scripts: one call, and several in one round trip (see rds.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "rds_internal.h"
#include "timeutil.h"

enum { ARGS_MAX = 1 << 20 };

void rds_script_init(rds_script_t *s, const char *name, const char *source) {
    s->name = name;
    s->source = source;
    if (!hash_sha1_hex(source, strlen(source), s->sha)) {
        /* A build of OpenSSL without SHA-1: EVALSHA answers NOSCRIPT and the source is sent each time. */
        memset(s->sha, '0', sizeof s->sha - 1);
        s->sha[sizeof s->sha - 1] = '\0';
    }
}

err_kind_t rds_eval(rds_conn_t *c, const rds_script_t *s, int nkeys, int argc, const char *const *argv,
                    redisReply **reply, err_t *err) {
    if (reply) {
        *reply = NULL;
    }
    if (argc < 0 || argc > ARGS_MAX || nkeys < 0 || nkeys > argc) {
        return err_set(err, ERR_INTERNAL, "redis_error", "The job queue reported an error.",
                       "%s: %d keys, %d arguments", s->name, nkeys, argc);
    }
    const char **all = malloc(((size_t)argc + 3) * sizeof *all);
    if (!all) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    char count[16];
    (void)snprintf(count, sizeof count, "%d", nkeys);
    all[0] = "EVALSHA";
    all[1] = s->sha;
    all[2] = count;
    for (int i = 0; i < argc; i++) {
        all[3 + i] = argv[i];
    }
    redisReply *got;
    err_kind_t kind = rds_send(c, argc + 3, all, NULL, &got, err);
    if (kind == ERR_OK && got->type == REDIS_REPLY_ERROR && strncmp(got->str, "NOSCRIPT", 8) == 0) {
        /* It did not run, so sending it again, with its source, repeats nothing. */
        freeReplyObject(got);
        all[0] = "EVAL";
        all[1] = s->source;
        kind = rds_send(c, argc + 3, all, NULL, &got, err);
    }
    free(all);
    return kind == ERR_OK ? rds_finish(c, got, s->name, reply, err) : kind;
}

static bool append_call(redisContext *ctx, const rds_call_t *call) {
    const char *all[RDS_CALL_ARGS + 3];
    char count[16];
    (void)snprintf(count, sizeof count, "%d", call->nkeys);
    all[0] = "EVALSHA";
    all[1] = call->script->sha;
    all[2] = count;
    for (int i = 0; i < call->argc; i++) {
        all[3 + i] = call->argv[i];
    }
    return redisAppendCommandArgv(ctx, call->argc + 3, all, NULL) == REDIS_OK;
}

static bool is_noscript(const redisReply *r) {
    return r->type == REDIS_REPLY_ERROR && strncmp(r->str, "NOSCRIPT", 8) == 0;
}

static void drop_replies(rds_call_t *calls, int from, int n) {
    for (int i = from; i < n; i++) {
        if (calls[i].reply) {
            freeReplyObject(calls[i].reply);
            calls[i].reply = NULL;
        }
    }
}

/* Sends all and reads as many replies; what does not come back leaves the connection broken. */
static err_kind_t exchange_calls(rds_conn_t *c, rds_call_t *calls, int n, err_t *err) {
    int64_t began = time_mono_us();
    bool ok = !c->broken && c->ctx->err == 0;
    for (int i = 0; ok && i < n; i++) {
        ok = append_call(c->ctx, &calls[i]);
    }
    for (int i = 0; ok && i < n; i++) {
        void *reply = NULL;
        ok = redisGetReply(c->ctx, &reply) == REDIS_OK;
        calls[i].reply = reply;
    }
    if (!ok) {
        drop_replies(calls, 0, n);
    }
    return rds_note_pipeline(c, began, ok ? NULL : c->ctx->err ? c->ctx->errstr : "no answer to a pipeline", err);
}

err_kind_t rds_eval_many(rds_conn_t *c, rds_call_t *calls, int n, err_t *err) {
    for (int i = 0; i < n; i++) {
        calls[i].reply = NULL;
        if (n > RDS_CALLS || calls[i].argc > RDS_CALL_ARGS || calls[i].nkeys > calls[i].argc) {
            return err_set(err, ERR_INTERNAL, "redis_error", "The job queue reported an error.", "%s: %d arguments",
                           calls[i].script->name, calls[i].argc);
        }
    }
    err_kind_t kind = exchange_calls(c, calls, n, err);
    int first = 0;
    while (kind == ERR_OK && first < n && !is_noscript(calls[first].reply)) {
        first++;
    }
    if (kind == ERR_OK) {
        drop_replies(calls, first, n);
    }
    for (int i = first; kind == ERR_OK && i < n; i++) {
        kind = rds_eval(c, calls[i].script, calls[i].nkeys, calls[i].argc, calls[i].argv, &calls[i].reply, err);
    }
    for (int i = 0; kind == ERR_OK && i < first; i++) {
        if (calls[i].reply->type == REDIS_REPLY_ERROR) {
            kind = rds_finish(c, calls[i].reply, calls[i].script->name, NULL, err);
            calls[i].reply = NULL;
        }
    }
    if (kind != ERR_OK) {
        drop_replies(calls, 0, n);
    }
    return kind;
}
