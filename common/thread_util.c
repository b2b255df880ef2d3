/* Threads that take no signals (see thread_util.h). */
#include "thread_util.h"

#include <signal.h>

int thread_start(pthread_t *out, const char *name, void *(*fn)(void *), void *arg) {
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    /* A new thread inherits the mask: block, start, restore. */
    int rc = pthread_sigmask(SIG_SETMASK, &all, &before);
    if (rc != 0) {
        return rc;
    }
    rc = pthread_create(out, NULL, fn, arg);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0) {
        (void)pthread_setname_np(*out, name);
    }
    return rc;
}
