/*
 * Event bus over Redis pub/sub: see events.h and proto/events.md.
 *
 * A subscriber is one thread that owns one connection. Other threads change the table of wanted channels under a lock
 * and wake the thread through an eventfd; only the thread talks to Redis. A channel is `sent` when SUBSCRIBE was
 * written on the present connection and `confirmed` when the server has answered everything that was written about it:
 * the answer to an earlier SUBSCRIBE, with an UNSUBSCRIBE and another SUBSCRIBE still on their way, says nothing. When
 * the connection breaks, every channel is marked `gap`; after it is confirmed again the callback hears of the gap with
 * message == NULL.
 */
#include "events.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "metrics.h"
#include "timeutil.h"

enum {
    MAX_CHANNELS = 65536,
    CHANNEL_SIZE = 80,
    LOOK_MS = 1000,  /* how often a silent connection is looked at */
    PING_MS = 10000, /* silence after which the server is asked whether it lives */
    DEAD_MS = 20000, /* silence after which the connection is given up */
    RETRY_MIN_MS = 100,
    RETRY_MAX_MS = 2000
};

typedef struct {
    char name[CHANNEL_SIZE];
    bool wanted, sent, confirmed;
    int unanswered; /* SUBSCRIBE and UNSUBSCRIBE that were written on the present connection */
    bool gap;       /* tell the callback, once confirmed, that messages may be missing */
} channel_t;

struct events_sub {
    rds_pool_t *rds;
    events_fn fn;
    void *arg;
    pthread_t thread;
    int wake;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t confirmed;
    channel_t **channels;
    size_t count, room;
    bool stop;
};

/* ---- publishing ---- */

static pthread_once_t metrics_once = PTHREAD_ONCE_INIT;
static metric_t *published, *publish_errors, *received, *reconnects;

static void register_metrics(void) {
    published = metrics_counter("spheroseg_events_published_total", "Events published on Redis.", NULL);
    publish_errors =
        metrics_counter("spheroseg_events_publish_errors_total", "Events that could not be published.", NULL);
    received = metrics_counter("spheroseg_events_received_total", "Events received from Redis.", NULL);
    reconnects =
        metrics_counter("spheroseg_events_reconnects_total", "Times a subscription had to connect again.", NULL);
}

static void publish_failed(const err_t *err, size_t n) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static int64_t logged_ms = -60000;
    metrics_add(publish_errors, NULL, (double)n);
    (void)pthread_mutex_lock(&lock);
    int64_t now = time_mono_ms();
    bool say = now - logged_ms >= 5000; /* while Redis is away every job would say so */
    if (say) {
        logged_ms = now;
    }
    (void)pthread_mutex_unlock(&lock);
    if (say) {
        log_error(LOG_WARN, "publish event", err);
    }
}

void events_publish(rds_pool_t *rds, const char *project_id, const char *json) {
    events_publish_many(rds, 1, &project_id, &json);
}

void events_publish_many(rds_pool_t *rds, size_t n, const char *const *project_ids, const char *const *jsons) {
    (void)pthread_once(&metrics_once, register_metrics);
    rds_conn_t *conn = NULL;
    err_t err;
    if (rds_acquire(rds, &conn, &err) != ERR_OK) {
        publish_failed(&err, n);
        return;
    }
    redisContext *c = rds_raw(conn);
    size_t sent = 0, done = 0;
    for (; sent < n; sent++) {
        if (redisAppendCommand(c, "PUBLISH sg:events:%s %s", project_ids[sent], jsons[sent]) != REDIS_OK) {
            break;
        }
    }
    for (; done < sent; done++) {
        void *reply = NULL;
        if (redisGetReply(c, &reply) != REDIS_OK) {
            break;
        }
        freeReplyObject(reply);
    }
    metrics_add(published, NULL, (double)done);
    if (done < n) {
        (void)err_set(&err, ERR_UNAVAILABLE, "redis_unavailable", "The message service is away.", "PUBLISH: %s",
                      c->errstr);
        publish_failed(&err, n - done);
        rds_fail(conn);
    }
    rds_release(conn);
}

/* ---- the table of channels; the lock is held ---- */

static channel_t *find(events_sub_t *s, const char *name) {
    for (size_t i = 0; i < s->count; i++) {
        if (strcmp(s->channels[i]->name, name) == 0) {
            return s->channels[i];
        }
    }
    return NULL;
}

static channel_t *find_or_add(events_sub_t *s, const char *name) {
    channel_t *ch = find(s, name);
    if (ch || s->count >= MAX_CHANNELS || strlen(name) >= CHANNEL_SIZE) {
        return ch;
    }
    if (s->count == s->room) {
        size_t room = s->room ? s->room * 2 : 16;
        void *more = reallocarray(s->channels, room, sizeof(void *)); /* the table holds pointers */
        if (!more) {
            return NULL;
        }
        s->channels = more;
        s->room = room;
    }
    ch = calloc(1, sizeof *ch);
    if (ch) {
        (void)snprintf(ch->name, sizeof ch->name, "%s", name);
        s->channels[s->count++] = ch;
    }
    return ch;
}

/* A channel that nobody wants and that the server does not know, nor will have to tell of, leaves the table. */
static void drop_unwanted(events_sub_t *s) {
    for (size_t i = 0; i < s->count;) {
        channel_t *ch = s->channels[i];
        if (!ch->wanted && !ch->sent && ch->unanswered == 0) {
            free(ch);
            s->channels[i] = s->channels[--s->count];
        } else {
            i++;
        }
    }
}

static void mark_lost(events_sub_t *s) {
    (void)pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->count; i++) {
        channel_t *ch = s->channels[i];
        ch->gap = ch->gap || ch->sent;
        ch->sent = ch->confirmed = false;
        ch->unanswered = 0;
    }
    drop_unwanted(s);
    (void)pthread_mutex_unlock(&s->lock);
}

/* ---- the thread ---- */

static bool should_stop(events_sub_t *s) {
    (void)pthread_mutex_lock(&s->lock);
    bool stop = s->stop;
    (void)pthread_mutex_unlock(&s->lock);
    return stop;
}

static void wake_thread(events_sub_t *s) {
    uint64_t one = 1;
    /* the counter can only be full when a wake-up is pending anyway */
    ssize_t n = write(s->wake, &one, sizeof one);
    (void)n;
}

static void clear_wake(events_sub_t *s) {
    uint64_t n;
    ssize_t r = read(s->wake, &n, sizeof n);
    (void)r;
}

/* Writes SUBSCRIBE and UNSUBSCRIBE for what changed. */
static bool send_changes(events_sub_t *s, redisContext *c) {
    bool ok = true;
    (void)pthread_mutex_lock(&s->lock);
    for (size_t i = 0; ok && i < s->count; i++) {
        channel_t *ch = s->channels[i];
        if (ch->wanted != ch->sent) {
            ok = redisAppendCommand(c, ch->wanted ? "SUBSCRIBE %s" : "UNSUBSCRIBE %s", ch->name) == REDIS_OK;
            ch->sent = ch->wanted;
            ch->confirmed = false;
            ch->unanswered++;
        }
    }
    drop_unwanted(s);
    (void)pthread_mutex_unlock(&s->lock);
    int done = 0;
    while (ok && !done) {
        ok = redisBufferWrite(c, &done) == REDIS_OK;
    }
    return ok;
}

/* The server has answered a SUBSCRIBE or an UNSUBSCRIBE. */
static void on_answered(events_sub_t *s, const char *name) {
    (void)pthread_mutex_lock(&s->lock);
    channel_t *ch = find(s, name);
    bool gap = false;
    if (ch && ch->unanswered > 0) {
        ch->unanswered--;
    }
    if (ch && ch->sent && ch->unanswered == 0) {
        ch->confirmed = true;
        gap = ch->gap;
        ch->gap = false;
        (void)pthread_cond_broadcast(&s->confirmed);
    }
    drop_unwanted(s);
    (void)pthread_mutex_unlock(&s->lock);
    if (gap) {
        s->fn(s->arg, name, NULL, 0);
    }
}

static void on_reply(events_sub_t *s, const redisReply *r) {
    if (r->type != REDIS_REPLY_ARRAY || r->elements != 3 || r->element[0]->type != REDIS_REPLY_STRING ||
        r->element[1]->type != REDIS_REPLY_STRING) {
        return; /* the answer to a ping */
    }
    const char *kind = r->element[0]->str, *name = r->element[1]->str;
    if (strcmp(kind, "subscribe") == 0 || strcmp(kind, "unsubscribe") == 0) {
        on_answered(s, name);
    } else if (strcmp(kind, "message") == 0 && r->element[2]->type == REDIS_REPLY_STRING) {
        (void)pthread_mutex_lock(&s->lock);
        channel_t *ch = find(s, name);
        bool wanted = ch && ch->wanted;
        (void)pthread_mutex_unlock(&s->lock);
        if (wanted) {
            metrics_add(received, NULL, 1);
            s->fn(s->arg, name, r->element[2]->str, r->element[2]->len);
        }
    }
}

static bool read_replies(events_sub_t *s, redisContext *c) {
    if (redisBufferRead(c) != REDIS_OK) {
        return false;
    }
    for (;;) {
        void *reply = NULL;
        if (redisGetReplyFromReader(c, &reply) != REDIS_OK) {
            return false;
        }
        if (!reply) {
            return true;
        }
        on_reply(s, reply);
        freeReplyObject(reply);
    }
}

/* Serves one connection until it breaks, another Redis takes over, or the subscriber ends. */
static void serve(events_sub_t *s, rds_conn_t *conn) {
    redisContext *c = rds_raw(conn);
    int64_t heard_ms = time_mono_ms(), asked_ms = heard_ms;
    while (!should_stop(s) && !rds_is_stale(conn) && send_changes(s, c)) {
        struct pollfd fds[2] = {{.fd = c->fd, .events = POLLIN}, {.fd = s->wake, .events = POLLIN}};
        int n = poll(fds, 2, LOOK_MS);
        if (n < 0 && errno != EINTR) {
            return;
        }
        if (n > 0 && fds[1].revents) {
            clear_wake(s);
        }
        int64_t now = time_mono_ms();
        if (n > 0 && fds[0].revents) {
            if (!read_replies(s, c)) {
                return;
            }
            heard_ms = now;
        }
        if (now - heard_ms > DEAD_MS) {
            return;
        }
        if (now - heard_ms > PING_MS && now - asked_ms > PING_MS) {
            asked_ms = now;
            if (redisAppendCommand(c, "PING") != REDIS_OK) {
                return;
            }
        }
    }
}

static void *run(void *arg) {
    events_sub_t *s = arg;
    int retry_ms = RETRY_MIN_MS;
    bool first = true;
    while (!should_stop(s)) {
        rds_conn_t *conn = NULL;
        err_t err;
        if (rds_connect(s->rds, 5000, &conn, &err) == ERR_OK) {
            if (!first) {
                metrics_add(reconnects, NULL, 1);
            }
            first = false;
            retry_ms = RETRY_MIN_MS;
            serve(s, conn);
            if (!should_stop(s)) {
                rds_fail(conn); /* it broke, so whether it led to the right place may be asked */
            }
            rds_release(conn);
            mark_lost(s);
        }
        if (!should_stop(s)) {
            struct pollfd fd = {.fd = s->wake, .events = POLLIN};
            int64_t until = time_mono_ms() + retry_ms;
            for (int64_t left = retry_ms; left > 0 && !should_stop(s); left = until - time_mono_ms()) {
                if (poll(&fd, 1, (int)left) > 0) {
                    clear_wake(s);
                }
            }
            retry_ms = retry_ms * 2 < RETRY_MAX_MS ? retry_ms * 2 : RETRY_MAX_MS;
        }
    }
    return NULL;
}

/* ---- interface ---- */

err_kind_t events_sub_create(rds_pool_t *rds, events_fn fn, void *arg, events_sub_t **out, err_t *err) {
    (void)pthread_once(&metrics_once, register_metrics);
    events_sub_t *s = calloc(1, sizeof *s);
    if (!s) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", "events_sub_create");
    }
    s->rds = rds;
    s->fn = fn;
    s->arg = arg;
    s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&s->confirmed, &attr);
    (void)pthread_condattr_destroy(&attr);
    (void)pthread_mutex_init(&s->lock, NULL);
    int e = s->wake < 0 ? errno : pthread_create(&s->thread, NULL, run, s);
    if (e != 0) {
        if (s->wake >= 0) {
            (void)close(s->wake);
        }
        (void)pthread_cond_destroy(&s->confirmed);
        (void)pthread_mutex_destroy(&s->lock);
        free(s);
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", "events: %s", strerror(e));
    }
    *out = s;
    return ERR_OK;
}

bool events_sub_add(events_sub_t *s, const char *channel, int timeout_ms) {
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    (void)pthread_mutex_lock(&s->lock);
    channel_t *ch = find_or_add(s, channel);
    if (!ch) {
        (void)pthread_mutex_unlock(&s->lock);
        return false;
    }
    ch->wanted = true;
    wake_thread(s);
    /* the callback's own thread cannot wait for itself */
    int waited = pthread_equal(pthread_self(), s->thread) ? ETIMEDOUT : 0;
    for (;;) {
        ch = find(s, channel); /* another thread may have removed it meanwhile */
        if (!ch || ch->confirmed || waited != 0) {
            break;
        }
        waited = pthread_cond_timedwait(&s->confirmed, &s->lock, &until);
    }
    bool ok = ch && ch->confirmed;
    if (ch && !ok) {
        ch->gap = true; /* the caller goes on without it and must hear when it is there */
    }
    (void)pthread_mutex_unlock(&s->lock);
    return ok;
}

void events_sub_remove(events_sub_t *s, const char *channel) {
    (void)pthread_mutex_lock(&s->lock);
    channel_t *ch = find(s, channel);
    if (ch) {
        ch->wanted = false; /* still confirmed: who adds it before the thread has unsubscribed need not wait */
        ch->gap = false;
        wake_thread(s);
        (void)pthread_cond_broadcast(&s->confirmed);
    }
    (void)pthread_mutex_unlock(&s->lock);
}

void events_sub_destroy(events_sub_t *s) {
    if (!s) {
        return;
    }
    (void)pthread_mutex_lock(&s->lock);
    s->stop = true;
    (void)pthread_mutex_unlock(&s->lock);
    wake_thread(s);
    (void)pthread_join(s->thread, NULL);
    for (size_t i = 0; i < s->count; i++) {
        free(s->channels[i]);
    }
    free(s->channels);
    (void)close(s->wake);
    (void)pthread_cond_destroy(&s->confirmed);
    (void)pthread_mutex_destroy(&s->lock);
    free(s);
}
