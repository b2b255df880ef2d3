/*
 * Health of the dependencies. A thread of its own looks at them, when somebody asks and what is known is older than
 * REFRESH_MS. Who asks waits for it at most PATIENCE_MS and then gets what is known: a flood of health requests, or a
 * database that hangs, costs one connection and holds up nobody, monitoring least of all.
 */
#include "health.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/thread_util.h"
#include "common/timeutil.h"
#include "server.h"

enum {
    REFRESH_MS = 1000,
    PATIENCE_MS = 300, /* counted from the start of the look, so five questions in a row wait no longer than one */
    LATE_MS = 2000,    /* who has not answered for so long is called degraded before its time-out says more */
};

typedef struct {
    health_status_t status;
    double latency_ms;
    char message[256];
    cJSON *figures; /* owned */
} service_t;

static const char *const service_names[HEALTH_SERVICES] = {"database", "redis", "queue", "ml", "storage"};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t refreshed, asked; /* of the monotonic clock: made by health_start */
static pthread_t looker;
static bool running, stopping, wanted, looking;
static int64_t look_began_ms, part_began_ms;
static int part; /* the service that is being looked at; -1: none */
static service_t known[HEALTH_SERVICES];
static cJSON *known_breaker;
static int64_t known_at_ms; /* 0: nothing is known yet */

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

/* From here on this service is the one that everybody waits for. */
static int64_t begin_part(int service) {
    pthread_mutex_lock(&lock);
    part = service;
    part_began_ms = time_mono_ms();
    pthread_mutex_unlock(&lock);
    return time_mono_us();
}

/* Without the lock: the things looked at may take their time. */
static void look(gateway_t *gw, service_t now[HEALTH_SERVICES], cJSON **breaker) {
    int64_t t = begin_part(HEALTH_DATABASE);
    look_at_database(gw, &now[HEALTH_DATABASE]);
    now[HEALTH_DATABASE].latency_ms = since_ms(t);
    t = begin_part(HEALTH_REDIS);
    look_at_redis(gw, &now[HEALTH_REDIS]);
    now[HEALTH_REDIS].latency_ms = since_ms(t);
    t = begin_part(HEALTH_QUEUE);
    if (now[HEALTH_DATABASE].status == HEALTH_DOWN) {
        now[HEALTH_QUEUE] = now[HEALTH_DATABASE];
        now[HEALTH_QUEUE].figures = NULL;
        now[HEALTH_ML] = now[HEALTH_QUEUE];
    } else {
        look_at_queue(gw, &now[HEALTH_QUEUE], &now[HEALTH_ML], breaker);
    }
    now[HEALTH_QUEUE].latency_ms = now[HEALTH_ML].latency_ms = since_ms(t);
    t = begin_part(HEALTH_STORAGE);
    look_at_storage(gw, &now[HEALTH_STORAGE]);
    now[HEALTH_STORAGE].latency_ms = since_ms(t);
}

static void *look_when_asked(void *arg) {
    gateway_t *gw = arg;
    pthread_mutex_lock(&lock);
    while (!stopping) {
        if (!wanted) {
            pthread_cond_wait(&asked, &lock);
            continue;
        }
        service_t now[HEALTH_SERVICES];
        cJSON *breaker = NULL;
        memset(now, 0, sizeof now);
        wanted = false;
        looking = true;
        look_began_ms = time_mono_ms();
        pthread_mutex_unlock(&lock);
        look(gw, now, &breaker);
        pthread_mutex_lock(&lock);
        for (int i = 0; i < HEALTH_SERVICES; i++) {
            cJSON_Delete(known[i].figures);
            known[i] = now[i];
        }
        cJSON_Delete(known_breaker);
        known_breaker = breaker ? breaker : cJSON_CreateArray();
        known_at_ms = time_mono_ms();
        looking = false;
        part = -1;
        pthread_cond_broadcast(&refreshed);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

err_kind_t health_start(gateway_t *gw, err_t *err) {
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&refreshed, &attr);
    (void)pthread_cond_init(&asked, &attr);
    (void)pthread_condattr_destroy(&attr);
    stopping = false;
    part = -1;
    wanted = true; /* whoever asks first finds something */
    running = thread_start(&looker, "health", look_when_asked, gw) == 0;
    return running ? ERR_OK : err_set(err, ERR_NO_MEMORY, "no_thread", "Cannot start a thread.", "health");
}

void health_stop(void) {
    if (!running) {
        return;
    }
    pthread_mutex_lock(&lock);
    stopping = true;
    pthread_cond_broadcast(&asked);
    pthread_cond_broadcast(&refreshed);
    pthread_mutex_unlock(&lock);
    pthread_join(looker, NULL);
    running = false;
    for (int i = 0; i < HEALTH_SERVICES; i++) {
        cJSON_Delete(known[i].figures);
        memset(&known[i], 0, sizeof known[i]);
    }
    cJSON_Delete(known_breaker);
    known_breaker = NULL;
    known_at_ms = 0;
    (void)pthread_cond_destroy(&refreshed);
    (void)pthread_cond_destroy(&asked);
}

/* Returns with the lock held and figures that are fresh, or, while the look takes too long, the last ones. */
static void lock_fresh(void) {
    pthread_mutex_lock(&lock);
    int64_t now = time_mono_ms();
    if (known_at_ms != 0 && now - known_at_ms < REFRESH_MS) {
        return;
    }
    if (!looking && !wanted) {
        wanted = true;
        look_began_ms = now;
        pthread_cond_signal(&asked);
    }
    int64_t until = look_began_ms + PATIENCE_MS;
    struct timespec at = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};
    int64_t before = known_at_ms;
    while (known_at_ms == before && !stopping) {
        if (known_at_ms == 0) { /* at the start there is nothing else to tell */
            pthread_cond_wait(&refreshed, &lock);
        } else if (pthread_cond_timedwait(&refreshed, &lock, &at) != 0) {
            break;
        }
    }
}

/* ---- telling ---- */

/* What is known of a service, or that it has been silent for too long. With the lock held. */
static health_status_t status_of(int i, const char **message) {
    static const char silent[] = "It has not answered for more than two seconds.";
    bool late = looking && (part == i || (part == HEALTH_QUEUE && i == HEALTH_ML)) &&
                time_mono_ms() - part_began_ms >= LATE_MS && known[i].status != HEALTH_DOWN;
    *message = late ? silent : known[i].message;
    return late ? HEALTH_DEGRADED : known[i].status;
}

static cJSON *service_json(int i) {
    const char *message;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "name", service_names[i]);
    cJSON_AddStringToObject(json, "status", health_status_name(status_of(i, &message)));
    cJSON_AddNumberToObject(json, "latencyMs", known[i].latency_ms);
    if (message[0]) {
        cJSON_AddStringToObject(json, "message", message);
    }
    if (known[i].figures) {
        cJSON_AddItemToObject(json, "figures", cJSON_Duplicate(known[i].figures, true));
    }
    return json;
}

cJSON *health_service_json(int service, health_status_t *status) {
    const char *message;
    lock_fresh();
    cJSON *json = service_json(service);
    *status = status_of(service, &message);
    pthread_mutex_unlock(&lock);
    return json;
}

cJSON *health_json(gateway_t *gw, bool detailed, health_status_t *status) {
    server_stats_t server = {.started_ms = time_wall_ms()};
    if (gw->server) {
        server_stats(gw->server, &server);
    }
    lock_fresh();
    *status = HEALTH_UP;
    for (int i = 0; i < HEALTH_SERVICES; i++) {
        const char *message;
        if (status_of(i, &message) != HEALTH_UP) {
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
    lock_fresh();
    bool ready = known[HEALTH_DATABASE].status != HEALTH_DOWN;
    pthread_mutex_unlock(&lock);
    return ready;
}
