/*
 * See submit_bounds.h. A table with one place per hash value: two people who share a place take turns in it, which
 * costs them a count more often and nothing else. Place 0 is for everybody's jobs together.
 */
#include "submit_bounds.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "common/timeutil.h"

enum { PLACES = 256, TTL_MS = 1000, NEAR_BOUND = 100 };

typedef struct {
    char user_id[37];
    bool known;
    int64_t count, counted_at;
} place_t;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static place_t places[PLACES];

static place_t *place_of(const char *user_id) {
    if (!user_id) {
        return &places[0];
    }
    uint32_t hash = 2166136261U;
    for (const char *p = user_id; *p; p++) {
        hash = (hash ^ (unsigned char)*p) * 16777619U;
    }
    return &places[1 + hash % (PLACES - 1)];
}

bool submit_bounds_far(const char *user_id, int64_t bound, int wanted) {
    const int64_t now = time_mono_ms();
    (void)pthread_mutex_lock(&lock);
    place_t *p = place_of(user_id);
    bool far = p->known && (!user_id || strcmp(p->user_id, user_id) == 0) &&
               p->count + wanted < bound - bound / 10 - NEAR_BOUND;
    if (far && now - p->counted_at >= TTL_MS) {
        p->counted_at = now; /* this caller counts; the others go on with the old number meanwhile */
        far = false;
    }
    if (far) {
        p->count += wanted;
    }
    (void)pthread_mutex_unlock(&lock);
    return far;
}

void submit_bounds_note(const char *user_id, int64_t count) {
    (void)pthread_mutex_lock(&lock);
    place_t *p = place_of(user_id);
    *p = (place_t){.known = true, .count = count, .counted_at = time_mono_ms()};
    (void)snprintf(p->user_id, sizeof p->user_id, "%s", user_id ? user_id : "");
    (void)pthread_mutex_unlock(&lock);
}
