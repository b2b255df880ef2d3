/*
 * Estimates: when will a job be done? From the measured average of its model's jobs (sg:seconds), the slots of the live
 * workers that run the model (sg:workers), and the jobs that run before it. What Redis says is kept for a second, so
 * that a list of jobs costs one question.
 *
 * With `slots` jobs at a time, each of them half done on average, a job with p others before it begins after about
 * (p + running / 2) / slots averages, and takes one more.
 */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "queue_internal.h"
#include "timeutil.h"

enum { KEEP_MS = 1000 };

void queue_note_seconds(queue_t *q, const char *model, double seconds) {
    char text[32];
    (void)snprintf(text, sizeof text, "%.4f", seconds);
    const char *argv[] = {"sg:seconds", model, text};
    err_t err;
    if (queue_eval(q, &q->lua.measured, 1, 3, argv, NULL, &err) != ERR_OK) {
        log_error(LOG_DEBUG, "note how long a job took", &err);
    }
}

static queue_pace_t *pace_of(queue_paces_t *p, const char *model) {
    for (int i = 0; i < p->count; i++) {
        if (strcmp(p->models[i].model, model) == 0) {
            return &p->models[i];
        }
    }
    if (p->count == QUEUE_PACES_MAX) {
        return NULL;
    }
    queue_pace_t *one = &p->models[p->count++];
    *one = (queue_pace_t){.mean_s = NAN};
    (void)snprintf(one->model, sizeof one->model, "%s", model);
    return one;
}

static void add_worker(queue_paces_t *p, const char *info) {
    cJSON *w = cJSON_Parse(info);
    const cJSON *slots = cJSON_GetObjectItem(w, "slots"), *active = cJSON_GetObjectItem(w, "active"), *name = NULL;
    cJSON_ArrayForEach(name, cJSON_GetObjectItem(w, "models")) {
        queue_pace_t *one = cJSON_IsString(name) ? pace_of(p, name->valuestring) : NULL;
        if (one) {
            one->slots += cJSON_IsNumber(slots) ? slots->valuedouble : 0;
            one->running += cJSON_IsNumber(active) ? active->valuedouble : 0;
        }
    }
    cJSON_Delete(w);
}

/* Calls for each pair of a hash's fields. False: Redis is away. */
static bool read_pairs(queue_t *q, const char *key, queue_paces_t *p,
                       void (*each)(queue_paces_t *p, const char *field, const char *value)) {
    const char *argv[] = {"HGETALL", key};
    redisReply *r = NULL;
    bool ok = rds_run(q->rds, 2, argv, &r, NULL) == ERR_OK && r->type == REDIS_REPLY_ARRAY;
    for (size_t i = 0; ok && i + 1 < r->elements; i += 2) {
        each(p, r->element[i]->str, r->element[i + 1]->str);
    }
    if (r) {
        freeReplyObject(r);
    }
    return ok;
}

static void on_worker(queue_paces_t *p, const char *id, const char *info) {
    (void)id;
    add_worker(p, info);
}

static void on_seconds(queue_paces_t *p, const char *model, const char *value) {
    queue_pace_t *one = pace_of(p, model);
    if (one) {
        one->mean_s = strtod(value, NULL);
    }
}

static void read_paused(queue_t *q, queue_paces_t *p) {
    const char *argv[] = {"SMEMBERS", "sg:paused"};
    redisReply *r = NULL;
    if (rds_run(q->rds, 2, argv, &r, NULL) == ERR_OK && r->type == REDIS_REPLY_ARRAY) {
        for (size_t i = 0; i < r->elements; i++) {
            queue_pace_t *one = pace_of(p, r->element[i]->str);
            if (one) {
                one->slots = 0;
            }
        }
    }
    if (r) {
        freeReplyObject(r);
    }
}

/* The pace of a model; false when nothing is known about it. */
static bool pace(queue_t *q, const char *model, queue_pace_t *out) {
    bool found = false;
    (void)pthread_mutex_lock(&q->pace_lock);
    if (time_mono_ms() >= q->paces.valid_until_ms) {
        q->paces.count = 0;
        if (read_pairs(q, "sg:seconds", &q->paces, on_seconds) && read_pairs(q, "sg:workers", &q->paces, on_worker)) {
            read_paused(q, &q->paces);
        }
        q->paces.valid_until_ms = time_mono_ms() + KEEP_MS;
    }
    for (int i = 0; i < q->paces.count && !found; i++) {
        if (strcmp(q->paces.models[i].model, model) == 0) {
            *out = q->paces.models[i];
            found = isfinite(out->mean_s);
        }
    }
    (void)pthread_mutex_unlock(&q->pace_lock);
    return found;
}

double queue_eta_waiting(queue_t *q, const char *model, double ahead) {
    queue_pace_t p;
    if (ahead < 0 || !pace(q, model, &p) || p.slots < 1) {
        return NAN;
    }
    double running = p.running < p.slots ? p.running : p.slots;
    return p.mean_s * ((ahead + running / 2) / p.slots + 1);
}

double queue_eta_active(queue_t *q, const char *model, double progress) {
    queue_pace_t p;
    return pace(q, model, &p) ? p.mean_s * (1 - (progress < 0 ? 0 : progress > 1 ? 1 : progress)) : NAN;
}
