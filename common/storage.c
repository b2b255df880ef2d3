/* Storage: checks keys and hands on to the back end (see storage.h and storage_backend.h). */
#include "storage.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "storage_backend.h"
#include "storage_s3.h"

enum { SWEEP_AGE_S = 3600 };

struct storage {
    const storage_ops_t *ops;
    void *self;
};

struct storage_put {
    const storage_ops_t *ops;
    void *put;
};

err_kind_t storage_wrap(const storage_ops_t *ops, void *self, storage_t **out, err_t *err) {
    storage_t *st = calloc(1, sizeof *st);
    if (!st) {
        ops->close(self);
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    st->ops = ops;
    st->self = self;
    *out = st;
    return ERR_OK;
}

void storage_close(storage_t *st) {
    if (st) {
        st->ops->close(st->self);
        free(st);
    }
}

/* Relative, lower case, no empty segment and none that begins with a dot: so no "..", and nothing hidden. */
bool storage_key_is_valid(const char *key) {
    size_t segment = 0;
    int depth = 1;
    size_t n = 0;
    for (; key[n]; n++) {
        char c = key[n];
        if (n >= STORAGE_KEY_MAX) {
            return false;
        }
        if (c == '/') {
            if (segment == 0 || ++depth > STORAGE_DEPTH_MAX) {
                return false;
            }
            segment = 0;
            continue;
        }
        bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
        if (!(plain || (c == '.' && segment > 0)) || ++segment > STORAGE_SEGMENT_MAX) {
            return false;
        }
    }
    return segment > 0;
}

static err_kind_t check_key(const char *key, err_t *err) {
    if (key && storage_key_is_valid(key)) {
        return ERR_OK;
    }
    return err_set(err, ERR_INVALID, "invalid_key", "This is not a valid storage key.", "key \"%.100s\"",
                   key ? key : "(null)");
}

err_kind_t storage_put_begin(storage_t *st, const char *key, storage_put_t **out, err_t *err) {
    *out = NULL;
    err_kind_t kind = check_key(key, err);
    if (kind != ERR_OK) {
        return kind;
    }
    storage_put_t *p = calloc(1, sizeof *p);
    if (!p) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    p->ops = st->ops;
    kind = st->ops->put_begin(st->self, key, &p->put, err);
    if (kind != ERR_OK) {
        free(p);
        return kind;
    }
    *out = p;
    return ERR_OK;
}

err_kind_t storage_put_write(storage_put_t *p, const void *data, size_t n, err_t *err) {
    return p->ops->put_write(p->put, data, n, err);
}

const char *storage_put_path(const storage_put_t *p) {
    return p->ops->put_path(p->put);
}

err_kind_t storage_put_flush(storage_put_t *p, err_t *err) {
    return p->ops->put_flush(p->put, err);
}

void storage_put_relax(storage_put_t *p) {
    p->ops->put_relax(p->put);
}

err_kind_t storage_put_commit(storage_put_t *p, err_t *err) {
    err_kind_t kind = p->ops->put_commit(p->put, err);
    free(p);
    return kind;
}

void storage_put_abort(storage_put_t *p) {
    if (p) {
        p->ops->put_abort(p->put);
        free(p);
    }
}

static err_kind_t put_bytes(storage_t *st, const char *key, const void *data, size_t n, bool relaxed, err_t *err) {
    storage_put_t *p;
    err_kind_t kind = storage_put_begin(st, key, &p, err);
    if (kind != ERR_OK) {
        return kind;
    }
    kind = storage_put_write(p, data, n, err);
    if (kind != ERR_OK) {
        storage_put_abort(p);
        return kind;
    }
    if (relaxed) {
        storage_put_relax(p);
    }
    return storage_put_commit(p, err);
}

err_kind_t storage_put_bytes(storage_t *st, const char *key, const void *data, size_t n, err_t *err) {
    return put_bytes(st, key, data, n, false, err);
}

err_kind_t storage_put_bytes_relaxed(storage_t *st, const char *key, const void *data, size_t n, err_t *err) {
    return put_bytes(st, key, data, n, true, err);
}

err_kind_t storage_get(storage_t *st, const char *key, int *fd, int64_t *size, err_t *err) {
    *fd = -1;
    err_kind_t kind = check_key(key, err);
    return kind == ERR_OK ? st->ops->get(st->self, key, fd, size, err) : kind;
}

err_kind_t storage_local(storage_t *st, const char *key, char *path, size_t path_size, err_t *err) {
    err_kind_t kind = check_key(key, err);
    return kind == ERR_OK ? st->ops->local(st->self, key, path, path_size, err) : kind;
}

void storage_local_release(storage_t *st, const char *path) {
    st->ops->local_release(st->self, path);
}

bool storage_exists(storage_t *st, const char *key) {
    return check_key(key, NULL) == ERR_OK && st->ops->exists(st->self, key);
}

err_kind_t storage_delete(storage_t *st, const char *key, err_t *err) {
    err_kind_t kind = check_key(key, err);
    return kind == ERR_OK ? st->ops->remove(st->self, key, err) : kind;
}

err_kind_t storage_delete_tree(storage_t *st, const char *prefix, err_t *err) {
    err_kind_t kind = check_key(prefix, err);
    return kind == ERR_OK ? st->ops->remove_tree(st->self, prefix, err) : kind;
}

err_kind_t storage_check(storage_t *st, int64_t *free_bytes, err_t *err) {
    return st->ops->check(st->self, free_bytes, err);
}

void storage_sweep_temporary(storage_t *st) {
    st->ops->sweep(st->self);
}

err_kind_t storage_open(const config_t *cfg, storage_t **out, err_t *err) {
    static const char scheme[] = "s3://";
    *out = NULL;
    if (!*cfg->storage_url) {
        return storage_open_dir(cfg->storage_dir, out, err);
    }
    if (strncmp(cfg->storage_url, scheme, sizeof scheme - 1) != 0) {
        return err_set(err, ERR_INVALID, "config_invalid",
                       "STORAGE_URL must be empty, s3://BUCKET or s3://BUCKET/PREFIX.", NULL);
    }
    char *bucket = strdup(cfg->storage_url + sizeof scheme - 1);
    if (!bucket) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    size_t n = strlen(bucket);
    while (n > 0 && bucket[n - 1] == '/') {
        bucket[--n] = '\0';
    }
    char *slash = strchr(bucket, '/');
    if (slash) {
        *slash = '\0';
    }
    storage_s3_t settings = {.bucket = bucket,
                             .prefix = slash ? slash + 1 : "",
                             .endpoint = cfg->s3_endpoint,
                             .region = cfg->s3_region,
                             .access_key = cfg->s3_access_key,
                             .secret_key = cfg->s3_secret_key,
                             .path_style = cfg->s3_path_style,
                             .dir = cfg->storage_dir};
    err_kind_t kind = storage_open_s3(&settings, out, err);
    free(bucket);
    return kind;
}

void storage_sweep_folder(DIR *dir) {
    if (!dir) {
        return;
    }
    const time_t now = time(NULL);
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        struct stat st;
        if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
            now - st.st_mtime > SWEEP_AGE_S && unlinkat(dirfd(dir), entry->d_name, 0) == 0) {
            log_event(LOG_INFO, "removed a temporary file of an unfinished transfer", "file", entry->d_name, NULL);
        }
    }
    (void)closedir(dir);
}
