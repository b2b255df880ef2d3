/*
 * Group commit, leader and followers. A request that arrives while no group is being written leads: it writes what
 * waits, itself included. Who arrives meanwhile waits; when a leader's statement has returned, the one that waited
 * longest leads the next group, while the leader before it still puts its own group into Redis. Then each request is
 * told its own outcome and answers on its own thread.
 *
 * A statement that takes long does so because it waits, for the disk or for another's lock: then a second group is
 * written beside it. Those that are quick mostly compute, and two at a time would only make the groups smaller: with
 * eight clients, a third more work in all for each request.
 *
 * So a lone request is delayed by nothing, and under load one statement, one flush to the disk, one script call and two
 * switches of threads serve as many requests as came in while the one before was written.
 *
 * A group that the database refuses because of one of its rows (a row deleted in this moment, a key that is being
 * written elsewhere, a deadlock) changed nothing: each of it then goes by itself. When the database goes away, each
 * is told so.
 *
 * Between commit and push a process may die. Each push that is under way has a lane, whose row in `pushes` is written
 * with the jobs; the sweeper of another process finds it when it stays (common/queue_pushes.c).
 */
#include "submit_group.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/timeutil.h"
#include "common/uuid.h"
#include "submit_group_sql.h"

enum { LEADERS = 2, LONG_US = 3000, LANES = 16 }; /* groups at a time, if statements take longer than LONG_US */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static submit_item_t *first, *last;
static int64_t began_us[LEADERS]; /* when the groups that are being written were begun; 0: none */
static int64_t mean_us;           /* that a statement takes, of late */
static bool lane_taken[LANES];
static char gateway_id[UUID_SIZE];

typedef struct {
    submit_item_t *items[QUEUE_GROUP_MAX]; /* written together */
    submit_item_t *twins[QUEUE_GROUP_MAX]; /* the same key again: told to go by themselves, when the first is written */
    int count, twin_count;
    int lane;
    submit_result_t jobs[QUEUE_GROUP_MAX]; /* copies: an item dies when its request is answered */
    queue_inserted_t pushed[QUEUE_GROUP_MAX];
    int positions[QUEUE_GROUP_MAX];
} group_t;

static bool is_twin(const group_t *g, const submit_item_t *item) {
    for (int i = 0; item->key.key && i < g->count; i++) {
        const submit_item_t *other = g->items[i];
        if (other->key.key && strcmp(other->key.key, item->key.key) == 0 &&
            strcmp(other->user_id, item->user_id) == 0) {
            return true;
        }
    }
    return false;
}

static submit_item_t *pop_waiting(void) {
    submit_item_t *item = first;
    if (item) {
        first = item->next;
        last = first ? last : NULL;
        item->next = NULL;
    }
    return item;
}

static void group_add(group_t *g, submit_item_t *item) {
    if (is_twin(g, item)) {
        g->twins[g->twin_count++] = item;
    } else {
        g->items[g->count++] = item;
    }
}

/* The leader's own item and what waits. */
static void gather(group_t *g, submit_item_t *own) {
    (void)pthread_mutex_lock(&lock);
    if (!gateway_id[0]) {
        uuid_v4(gateway_id);
    }
    group_add(g, own);
    while (first && g->count + g->twin_count < QUEUE_GROUP_MAX) {
        group_add(g, pop_waiting());
    }
    g->lane = -1;
    for (int i = 0; i < LANES && g->lane < 0; i++) {
        if (!lane_taken[i]) {
            lane_taken[i] = true;
            g->lane = i;
        }
    }
    (void)pthread_mutex_unlock(&lock);
}

/* A place among those that write, or -1: another writes, and is not slow. The lock is held. */
static int begin_writing(int64_t now_us) {
    int place = -1;
    bool others = false, slow = mean_us > LONG_US;
    for (int i = 0; i < LEADERS; i++) {
        if (began_us[i] == 0) {
            place = i;
        } else {
            others = true;
            slow = slow || now_us - began_us[i] > LONG_US;
        }
    }
    if (place >= 0 && others && !slow) {
        return -1;
    }
    if (place >= 0) {
        began_us[place] = now_us;
    }
    return place;
}

/* The statement has returned: the next may write. */
static void hand_over(int place) {
    submit_item_t *next = NULL;
    const int64_t now = time_mono_us();
    (void)pthread_mutex_lock(&lock);
    mean_us += (now - began_us[place] - mean_us) / 8;
    began_us[place] = 0;
    place = first ? begin_writing(now) : -1; /* who else writes, hands over in its turn */
    if (place >= 0) {
        next = pop_waiting();
        next->place = place;
    }
    (void)pthread_mutex_unlock(&lock);
    if (next) {
        (void)sem_post(&next->wake);
    }
}

static void write_group(gateway_t *gw, group_t *g) {
    err_t err;
    err_kind_t kind = submit_group_write(gw, g->items, g->count, gateway_id, g->lane, &err);
    if (kind == ERR_OK) {
        return;
    }
    /* Only what says that the database is away holds for everybody; the rest may be one row's fault. */
    const bool away = kind == ERR_UNAVAILABLE && strcmp(err.code, "database_unavailable") == 0;
    if (!away) {
        log_error(LOG_WARN, "writing jobs as a group failed, one by one now", &err);
    }
    for (int i = 0; i < g->count; i++) {
        g->items[i]->outcome = away ? SUBMIT_FAILED : SUBMIT_UNDECIDED;
        g->items[i]->error = err;
    }
}

/* Puts the accepted ones into Redis. Returns how many; g->jobs and g->positions are theirs, in order. */
static int push_group(gateway_t *gw, group_t *g) {
    int n = 0;
    for (int i = 0; i < g->count; i++) {
        if (g->items[i]->outcome == SUBMIT_ACCEPTED) {
            submit_result_t *job = &g->jobs[n];
            *job = g->items[i]->job;
            g->pushed[n++] = (queue_inserted_t){.id = job->job_id,
                                                .project_id = job->project_id,
                                                .image_id = job->image_id,
                                                .user_id = job->user_id,
                                                .model = job->model,
                                                .priority = job->priority};
        }
    }
    return queue_enqueue_group(gw->queue, g->pushed, n, g->positions) ? n : 0;
}

static void tell(submit_item_t *const *items, int n, const submit_item_t *own) {
    for (int i = 0; i < n; i++) {
        if (items[i] != own) {
            (void)sem_post(&items[i]->wake); /* from here on it is not ours to touch */
        }
    }
}

static void lead(gateway_t *gw, submit_item_t *own) {
    group_t *g = malloc(sizeof *g);
    if (!g) {
        own->outcome = SUBMIT_UNDECIDED;
        hand_over(own->place);
        return;
    }
    g->count = g->twin_count = 0;
    gather(g, own);
    write_group(gw, g);
    hand_over(own->place);
    const int pushed = push_group(gw, g);
    for (int i = 0, n = 0; i < g->count; i++) {
        if (g->items[i]->outcome == SUBMIT_ACCEPTED) {
            g->items[i]->position = pushed > 0 ? g->positions[n++] : -1;
        }
    }
    for (int i = 0; i < g->twin_count; i++) {
        g->twins[i]->outcome = SUBMIT_UNDECIDED;
    }
    tell(g->items, g->count, own);
    tell(g->twins, g->twin_count, own);
    queue_announce_group(gw->queue, g->pushed, pushed, g->positions);
    if (g->lane >= 0) {
        (void)pthread_mutex_lock(&lock);
        lane_taken[g->lane] = false;
        (void)pthread_mutex_unlock(&lock);
    }
    free(g);
}

static void wait_for_turn(submit_item_t *item) {
    while (sem_wait(&item->wake) != 0 && errno == EINTR) {
    }
}

void submit_group_run(gateway_t *gw, submit_item_t *item) {
    item->place = -1;
    item->next = NULL;
    item->position = -1;
    if (sem_init(&item->wake, 0, 0) != 0) {
        item->outcome = SUBMIT_UNDECIDED;
        return;
    }
    (void)pthread_mutex_lock(&lock);
    item->place = begin_writing(time_mono_us());
    const bool waits = item->place < 0;
    if (waits && last) {
        last->next = item;
        last = item;
    } else if (waits) {
        first = last = item;
    }
    (void)pthread_mutex_unlock(&lock);
    if (waits) {
        wait_for_turn(item);
    }
    if (item->place >= 0) {
        lead(gw, item);
    }
    (void)sem_destroy(&item->wake);
}

void submit_body(const submit_result_t *job, int position, char out[SUBMIT_BODY_SIZE]) {
    char place[16];
    (void)snprintf(place, sizeof place, "%d", position);
    (void)snprintf(
        out, SUBMIT_BODY_SIZE, "{\"jobId\":\"%s\",\"imageId\":\"%s\",\"state\":\"%s\",\"position\":%s,\"existing\":%s}",
        job->job_id, job->image_id, job->state, position >= 0 ? place : "null", job->existing ? "true" : "false");
}
