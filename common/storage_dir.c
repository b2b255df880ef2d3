/*
 * Storage in a directory. An object is a file whose path is its key. Puts write to ".tmp/<random>" (keys cannot begin
 * with a dot, so no object can be there) on the same file system, fsync it, rename it into place and fsync the
 * directory: after a crash an object is either whole or absent. All paths are walked segment by segment with
 * O_NOFOLLOW from the root's descriptor, so that a planted symbolic link leads nowhere.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "hash.h"
#include "log.h"
#include "storage_backend.h"

enum { DIR_MODE = 0770, FILE_MODE = 0660, COMMIT_TRIES = 8, TMP_NAME_SIZE = 25 };

static const char tmp_dir[] = ".tmp";

typedef struct {
    char *root; /* absolute path */
    int root_fd, tmp_fd;
} dir_t;

typedef struct {
    dir_t *dir;
    int fd;
    char tmp_name[TMP_NAME_SIZE];
    char *tmp_path;
    char key[STORAGE_KEY_MAX + 1];
    bool relaxed; /* no fsync */
} put_t;

static err_kind_t io_error(err_t *err, const char *what, const char *name) {
    int e = errno;
    if (e == ENOSPC || e == EDQUOT) {
        return err_set(err, ERR_IO, "storage_full", "The server's storage is full. Please tell its administrator.",
                       "%s %.200s: %s", what, name, strerror(e));
    }
    if (e == EACCES || e == EPERM || e == EROFS) {
        return err_set(err, ERR_IO, "storage_not_writable",
                       "The storage directory cannot be written. Check its owner and permissions (STORAGE_DIR).",
                       "%s %.200s: %s", what, name, strerror(e));
    }
    return err_set(err, ERR_IO, "storage_error", "The server could not reach its storage. Try again later.",
                   "%s %.200s: %s", what, name, strerror(e));
}

static err_kind_t missing(err_t *err, const char *key) {
    return err_set(err, ERR_NOT_FOUND, "object_missing", "The file is not in the storage any more.", "key %.200s", key);
}

/* fsync of a directory; file systems that cannot do it say EINVAL. */
static bool sync_dir(int fd) {
    return fsync(fd) == 0 || errno == EINVAL;
}

/* Opens the directory that holds key; *leaf points at the last segment. -1 with errno on failure. */
static int open_parent(const dir_t *d, const char *key, bool create, const char **leaf) {
    int at = fcntl(d->root_fd, F_DUPFD_CLOEXEC, 0);
    const char *p = key;
    for (const char *slash; at >= 0 && (slash = strchr(p, '/')) != NULL; p = slash + 1) {
        char segment[STORAGE_SEGMENT_MAX + 1];
        (void)snprintf(segment, sizeof segment, "%.*s", (int)(slash - p), p);
        bool made = create && mkdirat(at, segment, DIR_MODE) == 0;
        bool failed = create && !made && errno != EEXIST;
        if (!failed && made) {
            failed = !sync_dir(at);
        }
        int next = failed ? -1 : openat(at, segment, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int e = errno;
        close(at);
        errno = e;
        at = next;
    }
    *leaf = p;
    return at;
}

/* ---- put ---- */

static err_kind_t put_begin(void *self, const char *key, void **out, err_t *err) {
    dir_t *d = self;
    put_t *p = calloc(1, sizeof *p);
    if (!p) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    p->dir = d;
    (void)snprintf(p->key, sizeof p->key, "%s", key);
    hash_random_token(p->tmp_name, 16);
    if (asprintf(&p->tmp_path, "%s/%s/%s", d->root, tmp_dir, p->tmp_name) < 0) {
        free(p);
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    p->fd = openat(d->tmp_fd, p->tmp_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    if (p->fd < 0) {
        err_kind_t kind = io_error(err, "create", p->tmp_path);
        free(p->tmp_path);
        free(p);
        return kind;
    }
    *out = p;
    return ERR_OK;
}

static err_kind_t put_write(void *put, const void *data, size_t n, err_t *err) {
    put_t *p = put;
    const char *at = data;
    while (n > 0) {
        ssize_t done = write(p->fd, at, n);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return io_error(err, "write", p->tmp_path);
        }
        at += done;
        n -= (size_t)done;
    }
    return ERR_OK;
}

/* Nothing is buffered in the process: what was written can be read at once. */
static err_kind_t put_flush(void *put, err_t *err) {
    (void)put;
    (void)err;
    return ERR_OK;
}

static const char *put_path(const void *put) {
    const put_t *p = put;
    return p->tmp_path;
}

static void put_free(put_t *p) {
    if (p->fd >= 0) {
        close(p->fd);
    }
    free(p->tmp_path);
    free(p);
}

static void put_abort(void *put) {
    put_t *p = put;
    (void)unlinkat(p->dir->tmp_fd, p->tmp_name, 0);
    put_free(p);
}

/* Moves the temporary file into place. False with errno; ENOENT: a deletion took the directory away meanwhile. */
static bool move_into_place(const put_t *p) {
    const char *leaf;
    int parent = open_parent(p->dir, p->key, true, &leaf);
    if (parent < 0) {
        return false;
    }
    bool ok = renameat(p->dir->tmp_fd, p->tmp_name, parent, leaf) == 0 && (p->relaxed || sync_dir(parent));
    int e = errno;
    close(parent);
    errno = e;
    return ok;
}

static void put_relax(void *put) {
    put_t *p = put;
    p->relaxed = true;
}

static err_kind_t put_commit(void *put, err_t *err) {
    put_t *p = put;
    err_kind_t kind = ERR_OK;
    if (!p->relaxed && fsync(p->fd) != 0) {
        kind = io_error(err, "fsync", p->tmp_path);
        put_abort(p);
        return kind;
    }
    int closed = close(p->fd); /* a network file system may report a late error here */
    p->fd = -1;
    bool ok = closed == 0;
    if (ok) {
        ok = false;
        for (int i = 0; i < COMMIT_TRIES && !ok; i++) {
            ok = move_into_place(p);
            if (!ok && errno != ENOENT) {
                break;
            }
        }
    }
    if (!ok) {
        kind = io_error(err, "commit", p->key);
        put_abort(p);
        return kind;
    }
    put_free(p);
    return ERR_OK;
}

/* ---- get ---- */

static err_kind_t get(void *self, const char *key, int *fd, int64_t *size, err_t *err) {
    dir_t *d = self;
    const char *leaf;
    int parent = open_parent(d, key, false, &leaf);
    /* O_NONBLOCK: whatever a stranger put there, opening it must not hang. */
    int got = parent < 0 ? -1 : openat(parent, leaf, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    int e = errno;
    if (parent >= 0) {
        close(parent);
    }
    if (got < 0) {
        errno = e;
        return e == ENOENT || e == ENOTDIR || e == ELOOP ? missing(err, key) : io_error(err, "open", key);
    }
    struct stat st;
    if (fstat(got, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(got);
        return missing(err, key);
    }
    *fd = got;
    if (size) {
        *size = st.st_size;
    }
    return ERR_OK;
}

static err_kind_t local(void *self, const char *key, char *path, size_t path_size, err_t *err) {
    dir_t *d = self;
    int fd;
    err_kind_t kind = get(self, key, &fd, NULL, err);
    if (kind != ERR_OK) {
        return kind;
    }
    close(fd);
    int n = snprintf(path, path_size, "%s/%s", d->root, key);
    if (n < 0 || (size_t)n >= path_size) {
        return err_set(err, ERR_INTERNAL, "storage_error", "The storage path is too long.", "key %.200s", key);
    }
    return ERR_OK;
}

static void local_release(void *self, const char *path) {
    (void)self; /* the path is the object itself: there is no copy to delete */
    (void)path;
}

static bool exists(void *self, const char *key) {
    int fd;
    if (get(self, key, &fd, NULL, NULL) != ERR_OK) {
        return false;
    }
    close(fd);
    return true;
}

/* ---- delete ---- */

/* Removes the directories above key that became empty. */
static void prune_parents(const dir_t *d, const char *key) {
    char path[STORAGE_KEY_MAX + 1];
    (void)snprintf(path, sizeof path, "%s", key);
    for (char *slash; (slash = strrchr(path, '/')) != NULL;) {
        *slash = '\0';
        const char *leaf;
        int parent = open_parent(d, path, false, &leaf);
        if (parent < 0) {
            return;
        }
        int rc = unlinkat(parent, leaf, AT_REMOVEDIR);
        close(parent);
        if (rc != 0) {
            return; /* not empty */
        }
    }
}

static err_kind_t remove_object(void *self, const char *key, err_t *err) {
    dir_t *d = self;
    const char *leaf;
    int parent = open_parent(d, key, false, &leaf);
    if (parent < 0) {
        return errno == ENOENT || errno == ENOTDIR ? ERR_OK : io_error(err, "open", key);
    }
    int rc = unlinkat(parent, leaf, 0);
    int e = errno;
    close(parent);
    errno = e;
    if (rc != 0 && e != ENOENT && e != EISDIR) {
        return io_error(err, "delete", key);
    }
    prune_parents(d, key);
    return ERR_OK;
}

/* Opens a directory for reading, at a name below `at`. Never follows a link. */
static DIR *open_dir_at(int at, const char *name) {
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return NULL;
    }
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
    }
    return dir;
}

/* One level of a tree that is being deleted. */
typedef struct {
    DIR *dir;
    char name[NAME_MAX + 1]; /* in the level above */
} level_t;

/* Deletes one entry, or descends into it. 0, or -1 with errno. */
static int delete_entry(level_t *levels, int *depth, const char *name) {
    int at = dirfd(levels[*depth - 1].dir);
    if (unlinkat(at, name, 0) == 0 || errno == ENOENT) {
        return 0;
    }
    if (errno != EISDIR && errno != EPERM) {
        return -1;
    }
    if (*depth == STORAGE_DEPTH_MAX + 1) {
        errno = ELOOP; /* deeper than any key: not ours */
        return -1;
    }
    DIR *dir = open_dir_at(at, name);
    if (!dir) {
        return errno == ENOENT ? 0 : -1;
    }
    level_t *next = &levels[(*depth)++];
    next->dir = dir;
    (void)snprintf(next->name, sizeof next->name, "%s", name);
    return 0;
}

/* Leaves the deepest level and removes its directory (unless something new came into it). 0, or -1 with errno. */
static int leave_level(level_t *levels, int *depth, int parent) {
    level_t *l = &levels[--(*depth)];
    closedir(l->dir);
    int at = *depth > 0 ? dirfd(levels[*depth - 1].dir) : parent;
    if (unlinkat(at, l->name, AT_REMOVEDIR) == 0 || errno == ENOENT || errno == ENOTEMPTY || errno == EEXIST) {
        return 0;
    }
    return -1;
}

static err_kind_t remove_tree(void *self, const char *prefix, err_t *err) {
    dir_t *d = self;
    const char *leaf;
    int parent = open_parent(d, prefix, false, &leaf);
    level_t *levels = calloc(STORAGE_DEPTH_MAX + 1, sizeof *levels);
    DIR *top = parent < 0 ? NULL : open_dir_at(parent, leaf);
    int failed = 0;
    int depth = 0;
    err_kind_t kind = ERR_OK;
    if (!levels) {
        kind = err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
        goto out;
    }
    if (!top) {
        kind = errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? ERR_OK : io_error(err, "open", prefix);
        goto out;
    }
    levels[0].dir = top;
    top = NULL;
    (void)snprintf(levels[0].name, sizeof levels[0].name, "%s", leaf);
    depth = 1;
    while (depth > 0 && failed == 0) {
        errno = 0;
        const struct dirent *entry = readdir(levels[depth - 1].dir);
        if (!entry) {
            failed = errno != 0 ? -1 : leave_level(levels, &depth, parent);
        } else if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            failed = delete_entry(levels, &depth, entry->d_name);
        }
    }
    if (failed != 0) {
        kind = io_error(err, "delete", prefix);
    } else {
        prune_parents(d, prefix);
    }
out:
    while (depth > 0) {
        closedir(levels[--depth].dir);
    }
    if (top) {
        closedir(top);
    }
    free(levels);
    if (parent >= 0) {
        close(parent);
    }
    return kind;
}

/* ---- the whole ---- */

static err_kind_t check(void *self, int64_t *free_bytes, err_t *err) {
    dir_t *d = self;
    struct statvfs vfs;
    if (fstatvfs(d->root_fd, &vfs) != 0) {
        return io_error(err, "statvfs", d->root);
    }
    if (free_bytes) {
        *free_bytes = (int64_t)(vfs.f_bavail * vfs.f_frsize);
    }
    void *put;
    err_kind_t kind = put_begin(d, "check", &put, err);
    if (kind == ERR_OK) {
        kind = put_write(put, "ok", 2, err);
        put_abort(put);
    }
    return kind;
}

static void sweep(void *self) {
    const dir_t *d = self;
    storage_sweep_folder(open_dir_at(d->root_fd, tmp_dir));
}

static void close_dir(void *self) {
    dir_t *d = self;
    if (d->tmp_fd >= 0) {
        close(d->tmp_fd);
    }
    if (d->root_fd >= 0) {
        close(d->root_fd);
    }
    free(d->root);
    free(d);
}

static const storage_ops_t ops = {.close = close_dir,
                                  .put_begin = put_begin,
                                  .put_write = put_write,
                                  .put_flush = put_flush,
                                  .put_path = put_path,
                                  .put_relax = put_relax,
                                  .put_commit = put_commit,
                                  .put_abort = put_abort,
                                  .get = get,
                                  .local = local,
                                  .local_release = local_release,
                                  .exists = exists,
                                  .remove = remove_object,
                                  .remove_tree = remove_tree,
                                  .check = check,
                                  .sweep = sweep};

/* mkdir -p. False with errno. */
static bool make_dirs(const char *dir) {
    char path[PATH_MAX];
    size_t n = strlen(dir);
    if (n == 0 || n >= sizeof path) {
        errno = ENAMETOOLONG;
        return false;
    }
    memcpy(path, dir, n + 1);
    for (char *p = path + 1; *p; p++) {
        if (*p == '/') {
            *p = '\0';
            if (mkdir(path, DIR_MODE) != 0 && errno != EEXIST) {
                return false;
            }
            *p = '/';
        }
    }
    return mkdir(path, DIR_MODE) == 0 || errno == EEXIST;
}

err_kind_t storage_open_dir(const char *dir, storage_t **out, err_t *err) {
    *out = NULL;
    if (!make_dirs(dir)) {
        return io_error(err, "create", dir);
    }
    dir_t *d = calloc(1, sizeof *d);
    if (!d) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    d->tmp_fd = -1;
    d->root = realpath(dir, NULL);
    d->root_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!d->root || d->root_fd < 0 || (mkdirat(d->root_fd, tmp_dir, DIR_MODE) != 0 && errno != EEXIST)) {
        goto fail;
    }
    d->tmp_fd = openat(d->root_fd, tmp_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (d->tmp_fd < 0) {
        goto fail;
    }
    err_kind_t kind = check(d, NULL, err);
    if (kind != ERR_OK) {
        close_dir(d);
        return kind;
    }
    return storage_wrap(&ops, d, out, err);
fail:
    kind = io_error(err, "open", dir);
    close_dir(d);
    return kind;
}
