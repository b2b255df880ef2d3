/*
 * What a storage back end implements; storage.c checks keys and hands on. A new back end is one file with such a
 * table. Functions get keys that storage_key_is_valid accepted, and must be thread-safe.
 */
#ifndef SG_STORAGE_BACKEND_H
#define SG_STORAGE_BACKEND_H

#include <dirent.h>

#include "storage.h"

enum { STORAGE_KEY_MAX = 512, STORAGE_SEGMENT_MAX = 128, STORAGE_DEPTH_MAX = 8 };

typedef struct {
    void (*close)(void *self);
    err_kind_t (*put_begin)(void *self, const char *key, void **put, err_t *err);
    err_kind_t (*put_write)(void *put, const void *data, size_t n, err_t *err);
    err_kind_t (*put_flush)(void *put, err_t *err);
    const char *(*put_path)(const void *put);
    void (*put_relax)(void *put);
    err_kind_t (*put_commit)(void *put, err_t *err); /* frees put */
    void (*put_abort)(void *put);                    /* frees put */
    err_kind_t (*get)(void *self, const char *key, int *fd, int64_t *size, err_t *err);
    err_kind_t (*local)(void *self, const char *key, char *path, size_t path_size, err_t *err);
    void (*local_release)(void *self, const char *path);
    bool (*exists)(void *self, const char *key);
    err_kind_t (*remove)(void *self, const char *key, err_t *err);
    err_kind_t (*remove_tree)(void *self, const char *prefix, err_t *err);
    err_kind_t (*check)(void *self, int64_t *free_bytes, err_t *err);
    void (*sweep)(void *self);
} storage_ops_t;

bool storage_key_is_valid(const char *key);

/* For a back end's sweep: removes the files of `dir` that nobody has written to for an hour (a slow transfer that still goes
 * on is left alone), and closes it. NULL is allowed. */
void storage_sweep_folder(DIR *dir);

/* Takes ownership of self; on failure self is closed. */
ERR_MUST err_kind_t storage_wrap(const storage_ops_t *ops, void *self, storage_t **out, err_t *err);

#endif
