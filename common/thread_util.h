/*
 * Starting threads the same way everywhere: all signals blocked (the daemon's main thread alone handles them) and a
 * name that ps and gdb show.
 */
#ifndef SG_THREAD_UTIL_H
#define SG_THREAD_UTIL_H

#include <pthread.h>

/* name: at most 15 characters. 0, or the error number of pthread_create. The caller joins. */
int thread_start(pthread_t *out, const char *name, void *(*fn)(void *), void *arg);

#endif
