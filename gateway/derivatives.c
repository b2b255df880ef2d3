/*
 * Derivatives, see derivatives.h. An image that has to be rendered is one task in a list; two worker threads take
 * tasks, those that a request waits for before those that an upload left behind. Whoever needs an image that is
 * waiting or being rendered joins its task, so nothing is made twice at once. One rendering decodes the image once and
 * makes everything: the thumbnail first, then the whole pyramid.
 *
 * A file that cannot be decoded gets a marker (images/<id>/undecodable) with the reason, so that it is not tried again
 * for each request.
 *
 * Locks: one mutex guards the list and every task's fields but `stop`. Storage and pixels are touched without it.
 */
#include "derivatives.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/image/image.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/timeutil.h"
#include "pyramid.h"

enum { WORKERS = 2, BACKGROUND_MAX = 1024, WAIT_MS = 30000, NICENESS = 10, MARKER_MAX = 512 };

/* WAITING -> RUNNING by a worker; WAITING -> FINISHED by forget or destroy; RUNNING -> FINISHED by its worker. */
typedef enum { TASK_WAITING, TASK_RUNNING, TASK_FINISHED } task_state_t;

typedef void (*done_fn)(void *arg, const char *image_id, int ok);

typedef struct callback {
    done_fn fn;
    void *arg;
    struct callback *next;
} callback_t;

typedef struct task {
    char id[37], key[DERIVATIVES_KEY_ROOM];
    task_state_t state;
    bool urgent, thumbnail_ready;
    int waiters;  /* a finished task is freed by its last waiter, or at once without any */
    err_t result; /* kind ERR_OK: all is there */
    callback_t *callbacks;
    atomic_bool stop;
    struct task *next;
} task_t;

struct derivatives {
    storage_t *st;
    image_limits_t limits;
    pthread_mutex_t lock;
    pthread_cond_t work, changed;
    task_t *tasks;  /* waiting and running, oldest first */
    int background; /* waiting tasks that no request waits for */
    bool closing;
    int started;
    pthread_t threads[WORKERS];
};

int derivatives_max_level(int width, int height) {
    const int longer = width > height ? width : height;
    int level = 0;
    while (level < 30 && (1 << level) < longer) {
        level++;
    }
    return level;
}

/* ---- tasks; all under the lock ---- */

static task_t *find_task(derivatives_t *d, const char *id) {
    task_t *t = d->tasks;
    while (t && strcmp(t->id, id) != 0) {
        t = t->next;
    }
    return t;
}

static task_t *add_task(derivatives_t *d, const char *id, const char *key) {
    task_t *t = calloc(1, sizeof *t);
    if (!t) {
        return NULL;
    }
    snprintf(t->id, sizeof t->id, "%s", id);
    snprintf(t->key, sizeof t->key, "%s", key);
    atomic_init(&t->stop, false);
    task_t **end = &d->tasks;
    while (*end) {
        end = &(*end)->next;
    }
    *end = t;
    d->background++;
    pthread_cond_signal(&d->work);
    return t;
}

/* A waiting task stops counting as background work when it becomes urgent or stops waiting. */
static void leave_background(derivatives_t *d, const task_t *t) {
    if (t->state == TASK_WAITING && !t->urgent) {
        d->background--;
    }
}

static callback_t *finish_task(derivatives_t *d, task_t *t, const err_t *result) {
    leave_background(d, t);
    task_t **at = &d->tasks;
    while (*at != t) {
        at = &(*at)->next;
    }
    *at = t->next;
    t->next = NULL;
    t->state = TASK_FINISHED;
    t->result = *result;
    callback_t *callbacks = t->callbacks;
    t->callbacks = NULL;
    pthread_cond_broadcast(&d->changed);
    return callbacks;
}

static task_t *next_task(derivatives_t *d) {
    task_t *first = NULL;
    for (task_t *t = d->tasks; t; t = t->next) {
        if (t->state == TASK_WAITING && t->urgent) {
            return t;
        }
        if (t->state == TASK_WAITING && !first) {
            first = t;
        }
    }
    return first;
}

/* Not under the lock: a callback may do what it likes. */
static void call_all(callback_t *c, const char *image_id, bool ok) {
    while (c) {
        callback_t *next = c->next;
        c->fn(c->arg, image_id, ok);
        free(c);
        c = next;
    }
}

/* ---- rendering ---- */

static void observe(const char *what, int64_t since_us) {
    metric_t *m = metrics_histogram("spheroseg_derivative_seconds", "Time to make thumbnails and tiles, by step",
                                    "kind", NULL, 0);
    metrics_observe(m, &what, (double)(time_mono_us() - since_us) / 1e6);
}

/* These files are written without waiting for the disk: after a power cut one may be there but empty. */
static bool is_made(derivatives_t *d, const char *key) {
    int fd = -1;
    int64_t size = 0;
    if (storage_get(d->st, key, &fd, &size, NULL) != ERR_OK) {
        return false;
    }
    close(fd);
    return size > 0;
}

static void thumbnail_key(const char *id, char key[DERIVATIVES_KEY_ROOM]) {
    snprintf(key, DERIVATIVES_KEY_ROOM, "images/%s/thumbnail.jpg", id);
}

static void marker_key(const char *id, char key[DERIVATIVES_KEY_ROOM]) {
    snprintf(key, DERIVATIVES_KEY_ROOM, "images/%s/undecodable", id);
}

static err_kind_t decode(derivatives_t *d, const task_t *t, uint8_t **px, int *width, int *height, int *channels,
                         err_t *err) {
    char path[4096];
    image_t img = {0};
    err_kind_t kind = storage_local(d->st, t->key, path, sizeof path, err);
    if (kind != ERR_OK) {
        return kind;
    }
    kind = image_decode(path, 0, &d->limits, &img, err);
    storage_local_release(d->st, path);
    if (kind != ERR_OK) {
        return kind;
    }
    *width = img.info.width;
    *height = img.info.height;
    kind = image_to_display(&img, px, channels, err);
    image_free(&img);
    return kind;
}

static void remember_undecodable(derivatives_t *d, const task_t *t, const err_t *why) {
    char key[DERIVATIVES_KEY_ROOM], text[MARKER_MAX];
    err_t err = {0};
    marker_key(t->id, key);
    snprintf(text, sizeof text, "%s\n%s", why->code, why->message);
    if (storage_put_bytes(d->st, key, text, strlen(text), &err) != ERR_OK) {
        log_error(LOG_WARN, "the reason why an image cannot be shown was not kept", &err);
    }
}

/* The permanent reason of an earlier failure: ERR_INVALID (answered 422), or ERR_OK when there is none. */
static err_kind_t recall_undecodable(derivatives_t *d, const char *id, err_t *err) {
    char key[DERIVATIVES_KEY_ROOM], text[MARKER_MAX];
    int fd = -1;
    int64_t size = 0;
    marker_key(id, key);
    if (storage_get(d->st, key, &fd, &size, NULL) != ERR_OK) {
        return ERR_OK;
    }
    const ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    char *message = strchr(text, '\n');
    if (!message) {
        return err_set(err, ERR_INVALID, "image_corrupt", "This image cannot be shown.", NULL);
    }
    *message++ = '\0';
    return err_set(err, ERR_INVALID, text, message, NULL);
}

static void thumbnail_is_ready(derivatives_t *d, task_t *t) {
    pthread_mutex_lock(&d->lock);
    t->thumbnail_ready = true;
    callback_t *callbacks = t->callbacks;
    t->callbacks = NULL;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
    call_all(callbacks, t->id, true);
}

static err_kind_t render_pixels(derivatives_t *d, task_t *t, uint8_t *px, int width, int height, int channels,
                                err_t *err) {
    char key[DERIVATIVES_KEY_ROOM];
    int64_t start = time_mono_us();
    thumbnail_key(t->id, key);
    err_kind_t kind = pyramid_write_thumbnail(d->st, key, px, width, height, channels, err);
    if (kind != ERR_OK) {
        return kind;
    }
    observe("thumbnail", start);
    thumbnail_is_ready(d, t);
    start = time_mono_us();
    snprintf(key, sizeof key, "images/%s/tiles", t->id);
    kind = pyramid_write_tiles(d->st, key, px, width, height, channels, &t->stop, err);
    if (kind == ERR_OK) {
        observe("tiles", start);
    }
    return kind;
}

static err_kind_t render(derivatives_t *d, task_t *t, err_t *err) {
    uint8_t *px = NULL;
    int width = 0, height = 0, channels = 0;
    const int64_t start = time_mono_us();
    err_kind_t kind = decode(d, t, &px, &width, &height, &channels, err);
    if (kind == ERR_OK) {
        observe("decode", start);
        kind = render_pixels(d, t, px, width, height, channels, err);
        free(px);
    } else if (kind == ERR_INVALID || kind == ERR_UNSUPPORTED || kind == ERR_TOO_LARGE) {
        remember_undecodable(d, t, err);
        kind = ERR_INVALID;
        err->kind = kind;
    }
    if (!storage_exists(d->st, t->key)) {
        /* Deleted under our hands: what was written since must not stay. */
        char prefix[64];
        err_t ignored = {0};
        snprintf(prefix, sizeof prefix, "images/%s", t->id);
        if (storage_delete_tree(d->st, prefix, &ignored) != ERR_OK) {
            log_error(LOG_WARN, "files of a deleted image were left behind", &ignored);
        }
        kind = err_set(err, ERR_NOT_FOUND, "not_found", "There is no such image here.", NULL);
    }
    return kind;
}

static void *worker(void *arg) {
    derivatives_t *d = arg;
    /* People's requests come first; on Linux niceness belongs to the thread. */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), NICENESS);
    pthread_mutex_lock(&d->lock);
    while (!d->closing) {
        task_t *t = next_task(d);
        if (!t) {
            pthread_cond_wait(&d->work, &d->lock);
            continue;
        }
        leave_background(d, t);
        t->state = TASK_RUNNING;
        pthread_mutex_unlock(&d->lock);

        err_t err = {0};
        const err_kind_t kind = render(d, t, &err);
        err.kind = kind;
        if (kind != ERR_OK && kind != ERR_NOT_FOUND && kind != ERR_CANCELLED) {
            log_error(kind == ERR_INVALID ? LOG_INFO : LOG_ERROR, "an image could not be rendered", &err);
        }
        char id[37];
        memcpy(id, t->id, sizeof id);

        pthread_mutex_lock(&d->lock);
        callback_t *callbacks = finish_task(d, t, &err);
        if (t->waiters == 0) {
            free(t);
        }
        pthread_mutex_unlock(&d->lock);
        call_all(callbacks, id, kind == ERR_OK);
        pthread_mutex_lock(&d->lock);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

/* ---- the outside ---- */

err_kind_t derivatives_create(const config_t *cfg, storage_t *st, derivatives_t **out, err_t *err) {
    pthread_condattr_t attr;
    *out = NULL;
    derivatives_t *d = calloc(1, sizeof *d);
    if (!d) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
    }
    d->st = st;
    d->limits = (image_limits_t){.max_pixels = cfg->max_image_pixels,
                                 .max_decoded_bytes = cfg->max_decoded_bytes,
                                 .max_pages = (int32_t)cfg->max_image_pages};
    pthread_mutex_init(&d->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&d->changed, &attr);
    pthread_cond_init(&d->work, NULL);
    pthread_condattr_destroy(&attr);
    for (int i = 0; i < WORKERS; i++) {
        const int failed = pthread_create(&d->threads[i], NULL, worker, d);
        if (failed) {
            derivatives_destroy(d);
            return err_set(err, ERR_INTERNAL, "thread_failed", "The server could not start a thread.", "%s",
                           strerror(failed));
        }
        d->started++;
    }
    *out = d;
    return ERR_OK;
}

void derivatives_destroy(derivatives_t *d) {
    if (!d) {
        return;
    }
    pthread_mutex_lock(&d->lock);
    d->closing = true;
    pthread_cond_broadcast(&d->work);
    pthread_mutex_unlock(&d->lock);
    for (int i = 0; i < d->started; i++) {
        pthread_join(d->threads[i], NULL);
    }
    while (d->tasks) {
        task_t *t = d->tasks;
        call_all(finish_task(d, t, &(err_t){.kind = ERR_UNAVAILABLE}), t->id, false);
        free(t);
    }
    pthread_cond_destroy(&d->work);
    pthread_cond_destroy(&d->changed);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

void derivatives_prepare(derivatives_t *d, const char *image_id, const char *original_key, done_fn done, void *arg) {
    char tiles_done[DERIVATIVES_KEY_ROOM], thumbnail[DERIVATIVES_KEY_ROOM];
    thumbnail_key(image_id, thumbnail);
    snprintf(tiles_done, sizeof tiles_done, "images/%s/tiles/done", image_id);
    if (is_made(d, thumbnail) && is_made(d, tiles_done)) {
        if (done) {
            done(arg, image_id, 1);
        }
        return;
    }
    callback_t *c = done ? calloc(1, sizeof *c) : NULL;
    bool queued = false, ready = false;
    if (c) {
        *c = (callback_t){.fn = done, .arg = arg};
    }
    pthread_mutex_lock(&d->lock);
    if (!d->closing && (c || !done)) {
        task_t *t = find_task(d, image_id);
        if (!t && d->background < BACKGROUND_MAX) {
            t = add_task(d, image_id, original_key);
        }
        ready = t && t->thumbnail_ready;
        if (t && !ready) {
            if (c) {
                c->next = t->callbacks;
                t->callbacks = c;
            }
            queued = true;
        }
    }
    pthread_mutex_unlock(&d->lock);
    if (!queued) {
        free(c);
        if (done) {
            done(arg, image_id, ready);
        }
    }
}

static void deadline_in(struct timespec *ts, int64_t ms) {
    clock_gettime(CLOCK_MONOTONIC, ts);
    ts->tv_sec += ms / 1000;
}

/* Joins or starts the rendering of an image and waits for it, or only for its thumbnail. */
static err_kind_t ensure(derivatives_t *d, const char *id, const char *key, bool only_thumbnail, err_t *err) {
    err_kind_t kind = recall_undecodable(d, id, err);
    if (kind != ERR_OK) {
        return kind;
    }
    struct timespec until;
    deadline_in(&until, WAIT_MS);
    pthread_mutex_lock(&d->lock);
    task_t *t = find_task(d, id);
    if (!t && !d->closing) {
        t = add_task(d, id, key);
    }
    if (!t) {
        pthread_mutex_unlock(&d->lock);
        return err_set(err, ERR_UNAVAILABLE, "busy_rendering", "The server is busy. Please try again.", NULL);
    }
    leave_background(d, t);
    t->urgent = true;
    t->waiters++;
    int waited = 0;
    while (waited != ETIMEDOUT && t->state != TASK_FINISHED && !(only_thumbnail && t->thumbnail_ready)) {
        waited = pthread_cond_timedwait(&d->changed, &d->lock, &until);
    }
    t->waiters--;
    if (t->state == TASK_FINISHED) {
        kind = t->thumbnail_ready && only_thumbnail ? ERR_OK : t->result.kind;
        if (kind != ERR_OK && err) {
            *err = t->result;
        }
        if (t->waiters == 0) {
            free(t);
        }
    } else if (!(only_thumbnail && t->thumbnail_ready)) {
        kind = err_set(err, ERR_UNAVAILABLE, "busy_rendering",
                       "The image is still being prepared. Please try again in a moment.", NULL);
    }
    pthread_mutex_unlock(&d->lock);
    return kind;
}

err_kind_t derivatives_thumbnail(derivatives_t *d, const char *image_id, const char *original_key, char *key,
                                 err_t *err) {
    thumbnail_key(image_id, key);
    return is_made(d, key) ? ERR_OK : ensure(d, image_id, original_key, true, err);
}

err_kind_t derivatives_tile(derivatives_t *d, const char *image_id, const char *original_key, int width, int height,
                            int level, int column, int row, char *key, err_t *err) {
    const int max_level = derivatives_max_level(width, height);
    if (level < 0 || level > max_level || column < 0 || row < 0) {
        return err_set(err, ERR_NOT_FOUND, "not_found", "There is no such tile.", NULL);
    }
    const int64_t side = (int64_t)DERIVATIVES_TILE << (max_level - level);
    if (column * side >= width || row * side >= height) {
        return err_set(err, ERR_NOT_FOUND, "not_found", "There is no such tile.", NULL);
    }
    snprintf(key, DERIVATIVES_KEY_ROOM, "images/%s/tiles/%d/%d_%d.jpg", image_id, level, column, row);
    return is_made(d, key) ? ERR_OK : ensure(d, image_id, original_key, false, err);
}

err_kind_t derivatives_forget(derivatives_t *d, const char *image_id, err_t *err) {
    char prefix[64];
    callback_t *callbacks = NULL;
    pthread_mutex_lock(&d->lock);
    task_t *t = find_task(d, image_id);
    if (t) {
        t->waiters++;
        if (t->state == TASK_WAITING) {
            callbacks = finish_task(
                d, t, &(err_t){.kind = ERR_NOT_FOUND, .code = "not_found", .message = "The image was deleted."});
        }
        atomic_store(&t->stop, true);
        while (t->state != TASK_FINISHED) {
            pthread_cond_wait(&d->changed, &d->lock);
        }
        if (--t->waiters == 0) {
            free(t);
        }
    }
    pthread_mutex_unlock(&d->lock);
    call_all(callbacks, image_id, false);
    snprintf(prefix, sizeof prefix, "images/%s", image_id);
    return storage_delete_tree(d->st, prefix, err);
}
