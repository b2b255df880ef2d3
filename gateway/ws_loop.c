/*
 * The loops: WS_THREADS threads, each of which serves its share of all WebSockets. A socket belongs to one loop for its
 * whole life, which is what keeps its TLS object, which is not thread-safe, in one hand.
 *
 * A loop sleeps in epoll (edge-triggered: each socket is registered once and never changed). It is woken by a client,
 * or through an eventfd when the list of touched sockets was empty and got its first. So an event for 2,000 sockets
 * wakes each loop once. A socket that has much to read or write goes to the end of that list instead of holding the
 * others up.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/log.h"
#include "common/thread_util.h"
#include "common/timeutil.h"
#include "ws_internal.h"

#define EVENTS_AT_ONCE 128
#define TOUCHED_AT_ONCE 256
#define TICK_MS 250

struct ws_loop {
    ws_hub_t *hub;
    pthread_t thread;
    bool running;
    int epoll, wake;
    pthread_mutex_t lock;
    ws_socket_t *touched, *touched_last; /* lock */
    bool stop;                           /* lock */
    ws_socket_t *sockets;                /* the thread's own, as all below */
    int count;                           /* adopted and not yet freed */
    int64_t next_tick_ms;
    unsigned char scratch[WS_BATCH_BYTES];
};

/* ---- any thread ---- */

static void wake(int fd) {
    uint64_t one = 1;
    ssize_t n = write(fd, &one, sizeof one);
    (void)n; /* a full counter means that it is awake already */
}

/* lock held; true: the loop must be woken */
static bool append(ws_loop_t *loop, ws_socket_t *s) {
    if (s->touched || !s->adopted) {
        return false;
    }
    bool first = !loop->touched;
    s->touched = true;
    s->touched_next = NULL;
    if (first) {
        loop->touched = s;
    } else {
        loop->touched_last->touched_next = s;
    }
    loop->touched_last = s;
    return first;
}

void ws_loop_touch(ws_socket_t *s) {
    ws_loop_t *loop = s->loop;
    pthread_mutex_lock(&loop->lock);
    bool first = append(loop, s);
    pthread_mutex_unlock(&loop->lock);
    if (first) {
        wake(loop->wake);
    }
}

void ws_loop_adopt(ws_socket_t *s) {
    ws_loop_t *loop = s->loop;
    pthread_mutex_lock(&loop->lock);
    s->adopted = true;
    bool first = append(loop, s);
    pthread_mutex_unlock(&loop->lock);
    if (first) {
        wake(loop->wake);
    }
}

void ws_loop_desk_done(ws_socket_t *s) {
    ws_loop_t *loop = s->loop;
    pthread_mutex_lock(&loop->lock);
    s->desk_done = true;
    bool first = append(loop, s);
    pthread_mutex_unlock(&loop->lock);
    if (first) { /* s may be gone by now */
        wake(loop->wake);
    }
}

/* ---- the loop's thread ---- */

int ws_loop_epoll(const ws_loop_t *loop) {
    return loop->epoll;
}

unsigned char *ws_loop_scratch(ws_loop_t *loop) {
    return loop->scratch;
}

static void enlist(ws_loop_t *loop, ws_socket_t *s) {
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data = {.ptr = s}};
    s->registered = true;
    s->can_read = s->can_write = true;
    loop->count++;
    s->loop_next = loop->sockets;
    if (s->loop_next) {
        s->loop_next->loop_prev = s;
    }
    loop->sockets = s;
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, s->fd, &e) != 0) {
        s->gone = true;
    }
}

static void unlist(ws_loop_t *loop, ws_socket_t *s) {
    if (s->loop_prev) {
        s->loop_prev->loop_next = s->loop_next;
    } else {
        loop->sockets = s->loop_next;
    }
    if (s->loop_next) {
        s->loop_next->loop_prev = s->loop_prev;
    }
    s->loop_prev = s->loop_next = NULL;
}

/* The socket is gone: its descriptor is closed at once, its place among the listeners is given up at the desk. */
static void let_go(ws_loop_t *loop, ws_socket_t *s) {
    if (s->tls) {
        ws_socket_hang_up(s);
        unlist(loop, s);
    }
    if (!s->busy) {
        s->leaving = s->busy = true;
        s->work = WS_WORK_LEAVE;
        ws_desk_post(loop->hub->desk, s);
    }
}

static void serve(ws_loop_t *loop, ws_socket_t *s) {
    if (s->leaving) {
        return;
    }
    if (!s->gone && ws_socket_serve(s)) {
        ws_loop_touch(s);
    }
    if (s->gone) {
        let_go(loop, s);
    }
}

/* The first of the touched; *done: the desk has finished with it. */
static ws_socket_t *next_touched(ws_loop_t *loop, bool *done) {
    pthread_mutex_lock(&loop->lock);
    ws_socket_t *s = loop->touched;
    if (s) {
        loop->touched = s->touched_next;
        s->touched = false;
        *done = s->desk_done;
        s->desk_done = false;
    }
    pthread_mutex_unlock(&loop->lock);
    return s;
}

static void serve_touched(ws_loop_t *loop) {
    bool done = false;
    for (int i = 0; i < TOUCHED_AT_ONCE; i++) {
        ws_socket_t *s = next_touched(loop, &done);
        if (!s) {
            return;
        }
        if (!s->registered) {
            enlist(loop, s);
        }
        if (done) {
            s->busy = false;
            s->work = WS_WORK_NONE;
            s->heard_ms = time_mono_ms(); /* nobody listened to it meanwhile */
            if (s->leaving) {
                loop->count--;
                ws_socket_destroy(s);
                continue;
            }
        }
        serve(loop, s);
    }
}

static void serve_ready(ws_loop_t *loop, const struct epoll_event *events, int n) {
    for (int i = 0; i < n; i++) {
        ws_socket_t *s = events[i].data.ptr;
        if (!s) {
            uint64_t counter = 0;
            ssize_t r = read(loop->wake, &counter, sizeof counter);
            (void)r;
            continue;
        }
        s->can_read = s->can_write = true;
        serve(loop, s);
    }
}

static bool tick(ws_loop_t *loop, bool *stop) {
    int64_t now = time_mono_ms();
    pthread_mutex_lock(&loop->lock);
    *stop = loop->stop;
    bool more = loop->touched != NULL;
    pthread_mutex_unlock(&loop->lock);
    if (now >= loop->next_tick_ms || *stop) {
        loop->next_tick_ms = now + TICK_MS;
        for (ws_socket_t *s = loop->sockets; s;) {
            ws_socket_t *next = s->loop_next;
            s->gone = s->gone || *stop;
            if (ws_socket_check_clocks(s, now)) {
                serve(loop, s);
            }
            s = next;
        }
    }
    return more;
}

static void *run(void *arg) {
    ws_loop_t *loop = arg;
    struct epoll_event events[EVENTS_AT_ONCE];
    bool stop = false;
    bool more = false;
    while (!stop || loop->count > 0 || more) {
        int n = epoll_wait(loop->epoll, events, EVENTS_AT_ONCE, more ? 0 : TICK_MS);
        if (n < 0 && errno != EINTR) {
            log_event(LOG_ERROR, "epoll_wait failed", NULL);
            time_sleep_ms(TICK_MS);
        }
        serve_ready(loop, events, n);
        serve_touched(loop);
        more = tick(loop, &stop);
    }
    return NULL;
}

/* ---- life ---- */

err_kind_t ws_loop_create(ws_hub_t *hub, ws_loop_t **out, err_t *err) {
    ws_loop_t *loop = calloc(1, sizeof *loop);
    if (!loop) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    *out = loop;
    loop->hub = hub;
    pthread_mutex_init(&loop->lock, NULL);
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    loop->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data = {.ptr = NULL}};
    if (loop->epoll < 0 || loop->wake < 0 || epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->wake, &e) != 0) {
        return err_set(err, ERR_NO_MEMORY, "no_epoll", "Cannot wait for sockets.", "epoll_create1, eventfd");
    }
    if (thread_start(&loop->thread, "ws-loop", run, loop) != 0) {
        return err_set(err, ERR_NO_MEMORY, "no_thread", "Cannot start a thread.", "ws-loop");
    }
    loop->running = true;
    return ERR_OK;
}

void ws_loop_destroy(ws_loop_t *loop) {
    if (!loop) {
        return;
    }
    if (loop->running) {
        pthread_mutex_lock(&loop->lock);
        loop->stop = true;
        pthread_mutex_unlock(&loop->lock);
        wake(loop->wake);
        pthread_join(loop->thread, NULL);
    }
    if (loop->epoll >= 0) {
        close(loop->epoll);
    }
    if (loop->wake >= 0) {
        close(loop->wake);
    }
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}
