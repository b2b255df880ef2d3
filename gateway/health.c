/*
 * Health of the dependencies. One thread refreshes what is older than REFRESH_MS while the others use what is there, so
 * that a flood of health requests, or a database that hangs, costs one connection and one thread.
 */
#include "health.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/timeutil.h"
#include "server.h"

#define REFRESH_MS 1000

typedef struct {
    health_status_t status;
    double latency_ms;
    char message[256];
    cJSON *figures; /* owned */
} service_t;

static const char *const service_names[HEALTH_SERVICES] = {"database", "redis", "queue", "ml", "storage"};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t refreshed = PTHREAD_COND_INITIALIZER;
static service_t known[HEALTH_SERVICES];
static cJSON *known_breaker;
static int64_t known_at_ms;
static bool refreshing;

const char *health_status_name(health_status_t s) {
    return s == HEALTH_UP ? "up" : s == HEALTH_DEGRADED ? "degraded" : "down";
}

int health_service_find(const char *name) {
    for (int i = 0; i < HEALTH_SERVICES; i++) {
        if (strcmp(name, service_names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

static void set_down(service_t *s, const err_t *err) {
    s->status = HEALTH_DOWN;
    (void)snprintf(s->message, sizeof s->message, "%s", err->message);
}

/* ---- looking ---- */

static void look_at_database(gateway_t *gw, service_t *s) {
    err_t err;
    pg_pool_stats_t pool;
    if (pg_query(gw->pg, "SELECT 1", 0, NULL, NULL, &err) != ERR_OK) {
        set_down(s, &err);
    }
    pg_pool_stats(gw->pg, &pool);
    s->figures = cJSON_CreateObject();
    cJSON_AddNumberToObject(s->figures, "max", pool.max);
    cJSON_AddNumberToObject(s->figures, "total", pool.total);
    cJSON_AddNumberToObject(s->figures, "idle", pool.idle);
    cJSON_AddNumberToObject(s->figures, "inUse", pool.in_use);
    cJSON_AddNumberToObject(s->figures, "waiting", pool.waiting);
    cJSON_AddNumberToObject(s->figures, "timeouts", (double)pool.timeouts_total);
    cJSON_AddNumberToObject(s->figures, "slowQueries", (double)pool.slow_total);
}

static void look_at_redis(gateway_t *gw, service_t *s) {
    err_t err;
    if (rds_run(gw->rds, 1, (const char *const[]){"PING"}, NULL, &err) != ERR_OK) {
        set_down(s, &err);
    }
}

static double number_of(const cJSON *json, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
    return cJSON_IsNumber(item) ? item->valuedouble : 0.0;
}

/* The queue's status also tells about workers and breakers. */
static void look_at_queue(gateway_t *gw, service_t *queue, service_t *ml, cJSON **breaker) {
    static const char *const figures[] = {"waiting", "active", "delayed", "failed", "oldestWaitingSeconds"};
    err_t err;
    char *text = NULL;
    cJSON *json = NULL;
    if (queue_status_json(gw->queue, &text, &err) != ERR_OK) {
        set_down(queue, &err);
        set_down(ml, &err);
        return;
    }
    json = cJSON_Parse(text);
    free(text);
    queue->figures = cJSON_CreateObject();
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        cJSON_AddNumberToObject(queue->figures, figures[i], number_of(json, figures[i]));
    }
    int workers = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(json, "workers"));
    ml->figures = cJSON_CreateObject();
    cJSON_AddNumberToObject(ml->figures, "workers", workers);
    *breaker = cJSON_DetachItemFromObjectCaseSensitive(json, "breaker");
    cJSON_Delete(json);
    if (workers == 0) {
        ml->status = HEALTH_DOWN;
        (void)snprintf(ml->message, sizeof ml->message, "No worker is running. Jobs are kept until one comes.");
        return;
    }
    const cJSON *b = NULL;
    cJSON_ArrayForEach(b, *breaker) {
        const char *state = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(b, "state"));
        if (state && strcmp(state, "closed") != 0) {
            ml->status = HEALTH_DEGRADED;
            (void)snprintf(ml->message, sizeof ml->message, "The circuit breaker of a model is %s.", state);
        }
    }
}

static void look_at_storage(gateway_t *gw, service_t *s) {
    err_t err;
    int64_t free_bytes = 0;
    if (storage_check(gw->storage, &free_bytes, &err) != ERR_OK) {
        set_down(s, &err);
        return;
    }
    s->figures = cJSON_CreateObject();
    cJSON_AddNumberToObject(s->figures, "freeBytes", (double)free_bytes);
    if (free_bytes < gw->cfg->max_upload_size) {
        s->status = HEALTH_DEGRADED;
        (void)snprintf(s->message, sizeof s->message, "Less room is left than one largest upload needs.");
    }
}

static double since_ms(int64_t start_us) {
    return (double)(time_mono_us() - start_us) / 1000.0;
}

static void refresh(gateway_t *gw) {
    service_t now[HEALTH_SERVICES];
    cJSON *breaker = NULL;
    memset(now, 0, sizeof now);
    int64_t t = time_mono_us();
    look_at_database(gw, &now[HEALTH_DATABASE]);
    now[HEALTH_DATABASE].latency_ms = since_ms(t);
    t = time_mono_us();
    look_at_redis(gw, &now[HEALTH_REDIS]);
    now[HEALTH_REDIS].latency_ms = since_ms(t);
    t = time_mono_us();
    if (now[HEALTH_DATABASE].status == HEALTH_DOWN) {
        now[HEALTH_QUEUE] = now[HEALTH_DATABASE];
        now[HEALTH_QUEUE].figures = NULL;
        now[HEALTH_ML] = now[HEALTH_QUEUE];
    } else {
        look_at_queue(gw, &now[HEALTH_QUEUE], &now[HEALTH_ML], &breaker);
    }
    now[HEALTH_QUEUE].latency_ms = now[HEALTH_ML].latency_ms = since_ms(t);
    t = time_mono_us();
    look_at_storage(gw, &now[HEALTH_STORAGE]);
    now[HEALTH_STORAGE].latency_ms = since_ms(t);
    pthread_mutex_lock(&lock);
    for (int i = 0; i < HEALTH_SERVICES; i++) {
        cJSON_Delete(known[i].figures);
        known[i] = now[i];
    }
    cJSON_Delete(known_breaker);
    known_breaker = breaker ? breaker : cJSON_CreateArray();
    known_at_ms = time_mono_ms();
    refreshing = false;
    pthread_cond_broadcast(&refreshed);
    pthread_mutex_unlock(&lock);
}

/* Returns with the lock held and figures that are fresh, or, while another thread is still looking, the last ones. */
static void lock_fresh(gateway_t *gw) {
    pthread_mutex_lock(&lock);
    if (known_at_ms != 0 && (refreshing || time_mono_ms() - known_at_ms < REFRESH_MS)) {
        return;
    }
    if (refreshing) {
        while (refreshing) {
            pthread_cond_wait(&refreshed, &lock);
        }
        return;
    }
    refreshing = true;
    pthread_mutex_unlock(&lock);
    refresh(gw);
    pthread_mutex_lock(&lock);
}

/* ---- telling ---- */

static cJSON *service_json(int i) {
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "name", service_names[i]);
    cJSON_AddStringToObject(json, "status", health_status_name(known[i].status));
    cJSON_AddNumberToObject(json, "latencyMs", known[i].latency_ms);
    if (known[i].message[0]) {
        cJSON_AddStringToObject(json, "message", known[i].message);
    }
    if (known[i].figures) {
        cJSON_AddItemToObject(json, "figures", cJSON_Duplicate(known[i].figures, true));
    }
    return json;
}

cJSON *health_service_json(gateway_t *gw, int service, health_status_t *status) {
    lock_fresh(gw);
    cJSON *json = service_json(service);
    *status = known[service].status;
    pthread_mutex_unlock(&lock);
    return json;
}

cJSON *health_json(gateway_t *gw, bool detailed, health_status_t *status) {
    server_stats_t server = {.started_ms = time_wall_ms()};
    if (gw->server) {
        server_stats(gw->server, &server);
    }
    lock_fresh(gw);
    *status = HEALTH_UP;
    for (int i = 0; i < HEALTH_SERVICES; i++) {
        if (known[i].status != HEALTH_UP) {
            *status = HEALTH_DEGRADED;
        }
    }
    if (known[HEALTH_DATABASE].status == HEALTH_DOWN || known[HEALTH_STORAGE].status == HEALTH_DOWN) {
        *status = HEALTH_DOWN;
    }
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "status", health_status_name(*status));
    cJSON_AddStringToObject(json, "version", SG_VERSION);
    cJSON_AddNumberToObject(json, "uptimeSeconds", (double)(time_wall_ms() - server.started_ms) / 1000.0);
    cJSON_AddItemToObject(json, "breaker", cJSON_Duplicate(known_breaker, true));
    if (detailed) {
        cJSON *services = cJSON_AddArrayToObject(json, "services");
        for (int i = 0; i < HEALTH_SERVICES; i++) {
            cJSON_AddItemToArray(services, service_json(i));
        }
    }
    pthread_mutex_unlock(&lock);
    return json;
}

bool health_is_ready(gateway_t *gw) {
    if (!gw->server || server_is_draining(gw->server)) {
        return false;
    }
    lock_fresh(gw);
    bool ready = known[HEALTH_DATABASE].status != HEALTH_DOWN;
    pthread_mutex_unlock(&lock);
    return ready;
}
