/*
 * What the tests of storage share: one storage in a folder of its own, objects that are short texts, and threads that
 * use it at once.
 */
#ifndef SG_TEST_STORAGE_FIXTURE_H
#define SG_TEST_STORAGE_FIXTURE_H

#include <ftw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/storage.h"
#include "tests/unit/support/cmocka_all.h"

static char root[64];
static storage_t *st;

static inline bool make_root(void) {
    (void)snprintf(root, sizeof root, "/tmp/sgtest-store-XXXXXX");
    return mkdtemp(root) != NULL;
}

static inline int remove_entry(const char *path, const struct stat *s, int type, struct FTW *at) {
    (void)s;
    (void)type;
    (void)at;
    return remove(path);
}

static inline int remove_root(void) {
    return nftw(root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void put(const char *key, const char *text) {
    err_t err = {0};
    if (storage_put_bytes(st, key, text, strlen(text), &err) != ERR_OK) {
        fail_msg("%s: %s; %s", key, err.message, err.detail);
    }
}

static inline void expect_content(const char *key, const char *text) {
    int fd;
    int64_t size;
    err_t err = {0};
    if (storage_get(st, key, &fd, &size, &err) != ERR_OK) {
        fail_msg("%s: %s; %s", key, err.message, err.detail);
    }
    char got[4096] = {0};
    assert_int_equal(size, strlen(text));
    assert_int_equal(read(fd, got, sizeof got - 1), size);
    close(fd);
    assert_string_equal(got, text);
}

typedef struct {
    int id;
    atomic_int *failures;
} worker_t;

/* Four threads, each with a worker_t of its own, use the storage at once; none may report a failure. */
static inline void churn_in_threads(void *(*churn)(void *)) {
    atomic_int failures = 0;
    worker_t workers[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        workers[i] = (worker_t){.id = i, .failures = &failures};
        assert_int_equal(pthread_create(&threads[i], NULL, churn, &workers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(failures, 0);
}

#endif
