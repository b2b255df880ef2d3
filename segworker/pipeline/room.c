/* See room.h. */
#include "segworker/pipeline/room.h"

#include <pthread.h>
#include <time.h>

/* Two of the largest that run whole, or in windows, at a time. */
static const int64_t MOST = 1024LL << 20;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t left = PTHREAD_COND_INITIALIZER;
static int64_t taken;

bool room_take(int64_t bytes, int64_t ms) {
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)(ms / 1000);
    until.tv_nsec += (long)(ms % 1000) * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    bool late = false;
    (void)pthread_mutex_lock(&lock);
    while (taken > 0 && taken + bytes > MOST && !late) {
        late = pthread_cond_timedwait(&left, &lock, &until) != 0;
    }
    bool in = taken == 0 || taken + bytes <= MOST;
    taken += in ? bytes : 0;
    (void)pthread_mutex_unlock(&lock);
    return in;
}

void room_leave(int64_t bytes) {
    (void)pthread_mutex_lock(&lock);
    taken -= bytes;
    (void)pthread_cond_broadcast(&left);
    (void)pthread_mutex_unlock(&lock);
}
