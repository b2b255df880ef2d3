/*
 * Storage of image bytes and derived files: in a directory (storage_dir.c) or in a bucket of S3 (storage_s3.h).
 * A key is a relative path of [a-z0-9._-] segments ("images/<uuid>/original"); anything else is refused.
 * Objects are immutable once committed: a put writes a temporary file, and commit moves it into place or sends it.
 *
 * Thread-safe; a storage_put_t or an open fd belongs to one thread.
 */
#ifndef SG_STORAGE_H
#define SG_STORAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "config.h"
#include "err.h"

typedef struct storage storage_t;
typedef struct storage_put storage_put_t;

/* What STORAGE_URL says, or the directory STORAGE_DIR. A bucket is not asked: storage_check does. */
ERR_MUST err_kind_t storage_open(const config_t *cfg, storage_t **out, err_t *err);
/* Creates the directory if it is missing; ERR_IO with words about permissions if it cannot be written. */
ERR_MUST err_kind_t storage_open_dir(const char *dir, storage_t **out, err_t *err);
void storage_close(storage_t *st);

ERR_MUST err_kind_t storage_put_begin(storage_t *st, const char *key, storage_put_t **out, err_t *err);
ERR_MUST err_kind_t storage_put_write(storage_put_t *p, const void *data, size_t n, err_t *err);
/* Path of the temporary file, so that a decoder can look at the bytes before they are committed. Valid until
 * commit/abort. */
const char *storage_put_path(const storage_put_t *p);
/* Flushes what was written so far so that storage_put_path can be read. */
ERR_MUST err_kind_t storage_put_flush(storage_put_t *p, err_t *err);
/* What is put can be made again (a thumbnail, a tile): commit does not wait for the disk. The object is still whole or
 * absent while the machine runs, but a power cut may leave it empty. */
void storage_put_relax(storage_put_t *p);
/* Both end the put and free it. commit replaces an existing object atomically. */
ERR_MUST err_kind_t storage_put_commit(storage_put_t *p, err_t *err);
void storage_put_abort(storage_put_t *p);

/* Whole small object in one call. */
ERR_MUST err_kind_t storage_put_bytes(storage_t *st, const char *key, const void *data, size_t n, err_t *err);

/* The same, relaxed. */
ERR_MUST err_kind_t storage_put_bytes_relaxed(storage_t *st, const char *key, const void *data, size_t n, err_t *err);

/* Opens for reading; the caller closes fd. ERR_NOT_FOUND "object_missing". */
ERR_MUST err_kind_t storage_get(storage_t *st, const char *key, int *fd, int64_t *size, err_t *err);

/* A path that libraries can open: the file itself, or (other back ends) a temporary copy. Released with
 * storage_local_release, which deletes a copy. */
ERR_MUST err_kind_t storage_local(storage_t *st, const char *key, char *path, size_t path_size, err_t *err);
void storage_local_release(storage_t *st, const char *path);

bool storage_exists(storage_t *st, const char *key);
/* Deleting what is not there is fine. */
ERR_MUST err_kind_t storage_delete(storage_t *st, const char *key, err_t *err);
/* Deletes every object whose key starts with prefix + "/". */
ERR_MUST err_kind_t storage_delete_tree(storage_t *st, const char *prefix, err_t *err);
/* Can it be written now, and how much room is left? */
ERR_MUST err_kind_t storage_check(storage_t *st, int64_t *free_bytes, err_t *err);
/* Removes temporary files of puts that died more than an hour ago. */
void storage_sweep_temporary(storage_t *st);

#endif
