/*
 * See lanes.h. A task goes WAITING (in the queue) -> RUNNING (a lane has it) -> DONE; who waits for it may take it back
 * while it is WAITING. All of that under one lock per device, which no network runs under.
 *
 * Cores are counted: a lane takes a tile only if its share of threads is free, so libtorch's threads never outnumber
 * what inference may use.
 */
#include "segworker/pipeline/lanes.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/thread_util.h"
#include "common/timeutil.h"
#include "segworker/pipeline/ladder.h"

enum { TASK_IDLE = 0, TASK_WAITING, TASK_RUNNING, TASK_DONE };
enum { LOOK_MS = 50, ACCELERATOR_BATCH = 8 };

typedef struct {
    struct lanes *l;
    pthread_t thread;
    bool started;
    int threads;        /* as set for this thread; 0 = not yet */
    float *in, *out;    /* of a batch */
    size_t in_n, out_n; /* floats */
} lane_t;

struct lanes {
    struct lanes *next;
    char device[16];
    int users;
    bool cpu;
    int threads, lanes, batch, batch_wait_ms; /* threads: in all; on an accelerator they are not counted */
    bool open;                                /* the number of lanes was left open */
    lane_t lane[LANES_MOST];
    int started;

    pthread_mutex_t lock;
    pthread_cond_t work, done;
    lane_task_t *first, *last;
    int waiting, running, busy; /* tasks in the queue, tasks and threads at work */
    int asking;                 /* lanes that want to run with nothing beside them: nothing begins until they did */
    bool alone;                 /* one of them does */
    bool quit;
};

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static lanes_t *all;
static lanes_setup_t set_up;

void lanes_set_up(const lanes_setup_t *setup) {
    (void)pthread_mutex_lock(&all_lock);
    set_up = *setup;
    (void)pthread_mutex_unlock(&all_lock);
}

int lanes_threads(void) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    (void)pthread_mutex_lock(&all_lock);
    int threads = set_up.threads > 0 ? set_up.threads : cores > 0 ? (int)cores : 1;
    (void)pthread_mutex_unlock(&all_lock);
    return threads;
}

static int at_most(int v, int most) {
    return v < most ? v : most;
}

static int share_of(const lanes_t *l) {
    return l->threads / l->lanes > 0 ? l->threads / l->lanes : 1;
}

/* ---- one lane ---- */

static lane_task_t *take_first(lanes_t *l) {
    lane_task_t *t = l->first;
    l->first = t->next;
    l->last = l->first ? l->last : NULL;
    l->waiting--;
    t->next = NULL;
    t->state = TASK_RUNNING;
    return t;
}

/* Takes out what can run together with a, at most `most` in all. */
static int take_alike(lanes_t *l, lane_task_t *group[LANES_MOST_BATCH], int most) {
    const lane_task_t *a = group[0];
    lane_task_t *before = NULL, *t = l->first;
    int n = 1;
    while (t && n < most) {
        lane_task_t *next = t->next;
        if (t->net == a->net && t->h == a->h && t->w == a->w) {
            *(before ? &before->next : &l->first) = next;
            l->last = l->last == t ? before : l->last;
            l->waiting--;
            t->next = NULL;
            t->state = TASK_RUNNING;
            group[n++] = t;
        } else {
            before = t;
        }
        t = next;
    }
    return n;
}

/* One thread whatever is free: more would change its results, or it cannot use them. */
static bool one_thread(const infer_t *net) {
    return net->fixed || !net->backend->set_threads;
}

/* Threads for the first task, 0 = it has to wait. */
static int threads_for_first(const lanes_t *l) {
    const lane_task_t *t = l->first;
    int share = share_of(l);
    if (!t || l->alone || l->asking > 0 || (!one_thread(t->net) && l->running >= l->lanes)) {
        return 0;
    }
    if (!l->cpu) {
        return l->running == 0 ? 1 : 0;
    }
    bool single = l->running == 0 && l->waiting == 1 && t->more == 0;
    int want = one_thread(t->net) ? 1 : single ? l->threads : share;
    return l->busy + want <= l->threads || l->running == 0 ? want : 0;
}

static bool grow(float **buf, size_t *have, size_t need) {
    if (*have < need) {
        free(*buf);
        *buf = malloc(need * sizeof **buf);
        *have = *buf ? need : 0;
    }
    return *buf != NULL;
}

static err_kind_t run_together(lane_t *lane, lane_task_t **group, int n, err_t *err) {
    const lane_task_t *a = group[0];
    infer_t *net = a->net;
    size_t px = (size_t)a->h * (size_t)a->w, in = px * (size_t)net->inputs;
    size_t gh = (size_t)((a->h + net->grid - 1) / net->grid), gw = (size_t)((a->w + net->grid - 1) / net->grid);
    size_t out = gh * gw * (size_t)a->channels;
    if (!grow(&lane->in, &lane->in_n, in * (size_t)n) || !grow(&lane->out, &lane->out_n, out * (size_t)n)) {
        return err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to run the model.", "batch");
    }
    for (int i = 0; i < n; i++) {
        memcpy(lane->in + (size_t)i * in, group[i]->input, in * sizeof(float));
    }
    err_kind_t k = net->backend->run_many(net->state, lane->in, n, a->h, a->w, lane->out, a->channels, err);
    for (int i = 0; k == ERR_OK && i < n; i++) {
        memcpy(group[i]->output, lane->out + (size_t)i * out, out * sizeof(float));
        group[i]->kind = ERR_OK;
    }
    return k;
}

/* Waits until no other lane is at work and keeps it so. Lanes that wait here are not counted as running, so two
 * that ask at once do not wait for each other. */
static void begin_alone(lanes_t *l) {
    (void)pthread_mutex_lock(&l->lock);
    l->running--;
    l->asking++;
    (void)pthread_cond_broadcast(&l->work);
    while (l->alone || l->running > 0) {
        (void)pthread_cond_wait(&l->work, &l->lock);
    }
    l->asking--;
    l->alone = true;
    l->running++;
    (void)pthread_mutex_unlock(&l->lock);
}

static void end_alone(lanes_t *l) {
    (void)pthread_mutex_lock(&l->lock);
    l->alone = false;
    (void)pthread_cond_broadcast(&l->work);
    (void)pthread_mutex_unlock(&l->lock);
}

static void run_single(lanes_t *l, lane_task_t *t) {
    const infer_backend_t *b = t->net->backend;
    t->kind = b->run(t->net->state, t->input, t->h, t->w, t->output, t->channels, NULL, &t->err);
    if (t->kind != ERR_NO_MEMORY) {
        return;
    }
    begin_alone(l);
    if (l->cpu && l->lanes > 1) {
        ladder_note("alone", t->h, t->w);
        t->kind = b->run(t->net->state, t->input, t->h, t->w, t->output, t->channels, NULL, &t->err);
    }
    if (t->kind == ERR_NO_MEMORY) {
        t->kind = ladder_go_down(t->net, t->input, t->h, t->w, t->output, t->channels, &t->err);
    }
    end_alone(l);
}

/* A batch, in halves when memory does not reach. A network that cannot take a batch at all is run tile by tile from
 * then on. The bound on the batch only ever falls. */
static void run_group(lane_t *lane, lane_task_t **group, int n) {
    for (int at = 0; at < n;) {
        infer_t *net = group[at]->net;
        int part = at_most(n - at, net->batch_limit);
        err_t err = {0};
        if (part <= 1) {
            run_single(lane->l, group[at++]);
            continue;
        }
        err_kind_t k = run_together(lane, group + at, part, &err);
        if (k == ERR_OK) {
            at += part;
        } else if (k == ERR_NO_MEMORY) {
            ladder_note("batch", group[at]->h, group[at]->w);
            net->batch_limit = part / 2;
        } else {
            net->batch_limit = 1; /* the tile that is at fault says what is wrong */
        }
    }
}

/* An accelerator waits a little for more tiles; the lock is held. */
static void wait_for_batch(lanes_t *l, int most) {
    while (!l->quit && l->first && l->waiting < most) {
        int64_t left = l->first->since_ms + l->batch_wait_ms - time_mono_ms();
        if (left <= 0 || l->first->more == 0) {
            return;
        }
        struct timespec until;
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)left * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        (void)pthread_cond_timedwait(&l->work, &l->lock, &until);
    }
}

static int most_together(const lanes_t *l) {
    const infer_t *net = l->first->net;
    return net->backend->run_many ? at_most(l->batch, net->batch_limit) : 1;
}

static void *lane_main(void *arg) {
    lane_t *lane = arg;
    lanes_t *l = lane->l;
    (void)pthread_mutex_lock(&l->lock);
    for (;;) {
        int threads = threads_for_first(l);
        if (threads == 0) {
            if (l->quit && !l->first) {
                break;
            }
            (void)pthread_cond_wait(&l->work, &l->lock);
            continue;
        }
        int most = most_together(l);
        if (most > 1 && l->waiting < most && l->batch_wait_ms > 0) {
            wait_for_batch(l, most);
            threads = threads_for_first(l); /* much may have changed */
            if (threads == 0) {
                continue;
            }
            most = most_together(l);
        }
        lane_task_t *group[LANES_MOST_BATCH] = {take_first(l)};
        int n = take_alike(l, group, most);
        l->running++;
        l->busy += threads;
        if (l->cpu && lane->threads != threads && group[0]->net->backend->set_threads) {
            group[0]->net->backend->set_threads(threads);
            lane->threads = threads;
        }
        (void)pthread_mutex_unlock(&l->lock);
        run_group(lane, group, n);
        (void)pthread_mutex_lock(&l->lock);
        l->running--;
        l->busy -= threads;
        for (int i = 0; i < n; i++) {
            group[i]->state = TASK_DONE;
        }
        (void)pthread_cond_broadcast(&l->done);
        (void)pthread_cond_broadcast(&l->work);
    }
    (void)pthread_mutex_unlock(&l->lock);
    free(lane->in);
    free(lane->out);
    return NULL;
}

/* ---- tasks ---- */

void lanes_submit(lanes_t *l, lane_task_t *t) {
    (void)pthread_mutex_lock(&l->lock);
    t->next = NULL;
    t->state = TASK_WAITING;
    t->kind = ERR_OK;
    t->since_ms = time_mono_ms();
    err_clear(&t->err);
    *(l->last ? &l->last->next : &l->first) = t;
    l->last = t;
    l->waiting++;
    (void)pthread_cond_broadcast(&l->work);
    (void)pthread_mutex_unlock(&l->lock);
}

/* Removes a task from the queue; the lock is held. */
static void take_back(lanes_t *l, lane_task_t *t) {
    lane_task_t **at = &l->first, *before = NULL;
    while (*at != t) {
        before = *at;
        at = &(*at)->next;
    }
    *at = t->next;
    l->last = l->last == t ? before : l->last;
    l->waiting--;
    t->state = TASK_IDLE;
    (void)pthread_cond_broadcast(&l->work);
}

static void wait_some(lanes_t *l) {
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += LOOK_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    (void)pthread_cond_timedwait(&l->done, &l->lock, &until);
}

err_kind_t lanes_wait(lanes_t *l, lane_task_t *t, const cancel_t *stop, err_t *err) {
    bool stopped = false;
    (void)pthread_mutex_lock(&l->lock);
    while (t->state == TASK_WAITING || t->state == TASK_RUNNING) {
        if (!stopped) {
            (void)pthread_mutex_unlock(&l->lock);
            stopped = cancel_asked(stop); /* may ask the database: not under the lock */
            (void)pthread_mutex_lock(&l->lock);
        }
        if (stopped && t->state == TASK_WAITING) {
            take_back(l, t);
        } else if (t->state != TASK_DONE) {
            wait_some(l);
        }
    }
    t->state = TASK_IDLE;
    (void)pthread_mutex_unlock(&l->lock);
    if (stopped) {
        return err_set(err, ERR_CANCELLED, "cancelled", "The job was cancelled.", NULL);
    }
    if (t->kind != ERR_OK) {
        *err = t->err;
    }
    return t->kind;
}

void lanes_drop(lanes_t *l, lane_task_t *t) {
    (void)pthread_mutex_lock(&l->lock);
    if (t->state == TASK_WAITING) {
        take_back(l, t);
    }
    while (t->state == TASK_RUNNING) {
        (void)pthread_cond_wait(&l->done, &l->lock);
    }
    t->state = TASK_IDLE;
    (void)pthread_mutex_unlock(&l->lock);
}

int lanes_depth(const lanes_t *l) {
    return l->cpu ? l->lanes + 1 : 2 * l->batch;
}

/* ---- devices ---- */

static void stop_lanes(lanes_t *l) {
    (void)pthread_mutex_lock(&l->lock);
    l->quit = true;
    (void)pthread_cond_broadcast(&l->work);
    (void)pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->started; i++) {
        (void)pthread_join(l->lane[i].thread, NULL);
    }
    (void)pthread_cond_destroy(&l->work);
    (void)pthread_cond_destroy(&l->done);
    (void)pthread_mutex_destroy(&l->lock);
    free(l);
}

static void shape(lanes_t *l, int threads) {
    l->threads = threads;
    l->open = set_up.lanes == 0;
    l->lanes = !l->cpu ? 1 : l->open ? l->threads : at_most(set_up.lanes, l->threads);
    l->lanes = at_most(l->lanes, LANES_MOST);
    l->batch = at_most(set_up.batch > 0 ? set_up.batch : l->cpu ? 1 : ACCELERATOR_BATCH, LANES_MOST_BATCH);
    l->batch_wait_ms = set_up.batch_wait_ms;
}

static lanes_t *make(const char *device, int threads) {
    lanes_t *l = calloc(1, sizeof *l);
    if (!l) {
        return NULL;
    }
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&l->work, &attr);
    (void)pthread_cond_init(&l->done, &attr);
    (void)pthread_condattr_destroy(&attr);
    (void)pthread_mutex_init(&l->lock, NULL);
    (void)snprintf(l->device, sizeof l->device, "%s", device);
    l->cpu = strcmp(device, "cpu") == 0;
    shape(l, threads);
    ladder_register_metrics();
    for (int i = 0; i < l->lanes; i++) {
        char name[24];
        (void)snprintf(name, sizeof name, "lane-%d", i);
        l->lane[i].l = l;
        if (thread_start(&l->lane[i].thread, name, lane_main, &l->lane[i]) != 0) {
            break;
        }
        l->started++;
    }
    if (l->started < l->lanes) {
        stop_lanes(l);
        return NULL;
    }
    return l;
}

err_kind_t lanes_open(const char *device, lanes_t **out, err_t *err) {
    int threads = lanes_threads();
    (void)pthread_mutex_lock(&all_lock);
    lanes_t *l = all;
    while (l && strcmp(l->device, device) != 0) {
        l = l->next;
    }
    if (!l) {
        l = make(device, threads);
        if (l) {
            l->next = all;
            all = l;
        }
    }
    if (l) {
        l->users++;
    }
    (void)pthread_mutex_unlock(&all_lock);
    *out = l;
    return l ? ERR_OK
             : err_set(err, ERR_NO_MEMORY, "out_of_memory", "The threads that run models could not be started.", NULL);
}

void lanes_close(lanes_t *l) {
    if (!l) {
        return;
    }
    (void)pthread_mutex_lock(&all_lock);
    bool last = --l->users == 0;
    if (last) {
        lanes_t **at = &all;
        while (*at != l) {
            at = &(*at)->next;
        }
        *at = l->next;
    }
    (void)pthread_mutex_unlock(&all_lock);
    if (last) {
        stop_lanes(l);
    }
}

void lanes_shape(lanes_t *l, int *lanes, int *threads_each) {
    (void)pthread_mutex_lock(&l->lock);
    *lanes = l->lanes;
    *threads_each = share_of(l);
    (void)pthread_mutex_unlock(&l->lock);
}

/* ---- measuring ---- */

/* Microseconds that the tiles take with so many lanes; negative: it did not work. */
static double measure(lanes_t *l, int lanes, lane_task_t *tasks, int n) {
    (void)pthread_mutex_lock(&l->lock);
    l->lanes = lanes;
    (void)pthread_mutex_unlock(&l->lock);
    bool ok = true;
    int64_t before = time_mono_us();
    for (int i = 0; i < n; i++) {
        tasks[i].more = n; /* never all threads for one */
        lanes_submit(l, &tasks[i]);
    }
    for (int i = 0; i < n; i++) {
        err_t err;
        ok = lanes_wait(l, &tasks[i], NULL, &err) == ERR_OK && ok;
    }
    return ok ? (double)(time_mono_us() - before) : -1;
}

void lanes_tune(lanes_t *l, infer_t *net, int inputs, int size, int channels) {
    int most = l->lanes, best = l->lanes, n = 2 * l->threads;
    if (!l->cpu || !l->open || most < 2 || !net->backend->set_threads) {
        return;
    }
    size_t px = (size_t)size * (size_t)size;
    lane_task_t *tasks = calloc((size_t)n, sizeof *tasks);
    float *in = calloc(px * (size_t)inputs, sizeof *in), *out = malloc(px * (size_t)channels * (size_t)n * sizeof *out);
    for (int i = 0; tasks && in && out && i < n; i++) {
        tasks[i] = (lane_task_t){.net = net,
                                 .input = in,
                                 .output = out + (size_t)i * px * (size_t)channels,
                                 .h = size,
                                 .w = size,
                                 .channels = channels};
    }
    double least[LANES_MOST + 1] = {0};
    bool ready = tasks && in && out && measure(l, most, tasks, n) > 0; /* each lane's first tile takes longer */
    for (int round = 0; ready && round < 2; round++) {
        for (int lanes = most; lanes >= 1; lanes /= 2) {
            double us = measure(l, lanes, tasks, n);
            if (us > 0 && (least[lanes] <= 0 || us < least[lanes])) {
                least[lanes] = us;
            }
        }
    }
    for (int lanes = most; lanes >= 1; lanes /= 2) { /* many lanes leave room for other work: only for clearly more */
        best = least[lanes] > 0 && least[best] > 0 && least[lanes] < 0.9 * least[best] ? lanes : best;
    }
    (void)pthread_mutex_lock(&l->lock);
    l->lanes = best;
    (void)pthread_mutex_unlock(&l->lock);
    free(tasks);
    free(in);
    free(out);
}
