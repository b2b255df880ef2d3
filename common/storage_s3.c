/* Storage in a bucket, see storage_s3.h. */
#include "storage_s3.h"

#include <dirent.h>
#include <errno.h>
#include <expat.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
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
#include "storage_s3_http.h"

enum {
    FILE_MODE = 0660,
    DIR_MODE = 0770,
    PART_SIZE = 16 << 20,
    PARTS_MAX = 10000,
    PAGE = 1000, /* what one request lists and one deletes */
    PAGES_MAX = 100000,
    ANSWER_ROOM = 4 << 20,
    NAME_ROOM = 2 * STORAGE_KEY_MAX + 2,
    TMP_NAME_ROOM = 32
};

static const char tmp_dir[] = ".tmp";

typedef struct {
    s3_http_t *http;
    char *dir, *prefix; /* dir: absolute, of the temporary files; prefix: "" or ending with a slash */
    int64_t part_size;
} s3_t;

typedef struct {
    s3_t *s;
    int fd;
    int64_t size;
    char *path; /* of the temporary file */
    char name[NAME_ROOM];
} put_t;

static err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
}

static err_kind_t local_error(err_t *err, const char *what, const char *name) {
    int e = errno;
    return err_set(err, ERR_IO, e == ENOSPC || e == EDQUOT ? "storage_full" : "storage_error",
                   e == ENOSPC || e == EDQUOT ? "The server's storage is full. Please tell its administrator."
                                              : "The server could not reach its storage. Try again later.",
                   "%s %.200s: %s", what, name, strerror(e));
}

static void object_name(const s3_t *s, const char *key, char out[NAME_ROOM]) {
    (void)snprintf(out, NAME_ROOM, "%s%s", s->prefix, key);
}

/* A new temporary file, open for reading and writing. */
static err_kind_t make_temporary(const s3_t *s, char **path, int *fd, err_t *err) {
    char token[TMP_NAME_ROOM];
    hash_random_token(token, 16);
    if (asprintf(path, "%s/%s", s->dir, token) < 0) {
        *path = NULL;
        return no_memory(err);
    }
    *fd = open(*path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    if (*fd >= 0) {
        return ERR_OK;
    }
    err_kind_t kind = local_error(err, "create", *path);
    free(*path);
    *path = NULL;
    return kind;
}

/* ---- put ---- */

static err_kind_t put_begin(void *self, const char *key, void **out, err_t *err) {
    put_t *p = calloc(1, sizeof *p);
    if (!p) {
        return no_memory(err);
    }
    p->s = self;
    object_name(p->s, key, p->name);
    err_kind_t kind = make_temporary(p->s, &p->path, &p->fd, err);
    if (kind != ERR_OK) {
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
            return local_error(err, "write", p->path);
        }
        at += done;
        n -= (size_t)done;
        p->size += done;
    }
    return ERR_OK;
}

static err_kind_t put_flush(void *put, err_t *err) {
    (void)put;
    (void)err;
    return ERR_OK;
}

static const char *put_path(const void *put) {
    const put_t *p = put;
    return p->path;
}

static void put_relax(void *put) {
    (void)put; /* the server decides */
}

static void put_abort(void *put) {
    put_t *p = put;
    (void)unlink(p->path);
    close(p->fd);
    free(p->path);
    free(p);
}

/* The text between <tag> and </tag>, where such an answer has one. */
static bool tag_text(const buf_t *xml, const char *tag, char *out, size_t room) {
    char open[64];
    (void)snprintf(open, sizeof open, "<%s>", tag);
    const char *from = xml->data ? strstr(xml->data, open) : NULL;
    from = from ? from + strlen(open) : NULL;
    const char *to = from ? strchr(from, '<') : NULL;
    if (!to || (size_t)(to - from) >= room || to == from) {
        return false;
    }
    memcpy(out, from, (size_t)(to - from));
    out[to - from] = '\0';
    return true;
}

/* An answer of 200 that tells of an error all the same. */
static err_kind_t refused(err_t *err, const char *what, const char *name, const buf_t *answer) {
    return err_set(err, ERR_IO, "storage_error", "The server could not reach its storage. Try again later.",
                   "%s %.200s: %.200s", what, name, answer->data ? answer->data : "no answer");
}

static err_kind_t put_parts(put_t *p, const char *upload, buf_t *list, err_t *err) {
    int64_t part_size = p->s->part_size;
    if (p->size / part_size >= PARTS_MAX) {
        part_size = p->size / (PARTS_MAX - 1) + 1;
    }
    char query[1200];
    buf_puts(list, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    int64_t at = 0;
    for (int part = 1; at < p->size; part++) {
        (void)snprintf(query, sizeof query, "partNumber=%d&uploadId=%s", part, upload);
        s3_request_t r = {.method = "PUT",
                          .path = p->name,
                          .query = query,
                          .fd = p->fd,
                          .offset = at,
                          .size = p->size - at < part_size ? p->size - at : part_size,
                          .to_fd = -1};
        err_kind_t kind = s3_http_send(p->s->http, &r, err);
        if (kind != ERR_OK) {
            return kind;
        }
        buf_printf(list, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", part, r.etag);
        at += r.size;
    }
    buf_puts(list, "</CompleteMultipartUpload>");
    return list->failed ? no_memory(err) : ERR_OK;
}

/* In parts: none is larger than what is sent again when its connection breaks. */
static err_kind_t put_large(put_t *p, err_t *err) {
    buf_t answer;
    buf_t list;
    char upload[1024];
    char query[1100];
    buf_init(&answer, ANSWER_ROOM);
    buf_init(&list, ANSWER_ROOM);
    s3_request_t begin = {
        .method = "POST", .path = p->name, .query = "uploads=", .data = "", .to_fd = -1, .to_buf = &answer};
    err_kind_t kind = s3_http_send(p->s->http, &begin, err);
    if (kind != ERR_OK) {
        goto out;
    }
    if (!tag_text(&answer, "UploadId", upload, sizeof upload) || strpbrk(upload, "&?# %+=")) {
        kind = refused(err, "begin to upload", p->name, &answer);
        goto out;
    }
    (void)snprintf(query, sizeof query, "uploadId=%s", upload);
    kind = put_parts(p, upload, &list, err);
    if (kind == ERR_OK) {
        s3_request_t end = {.method = "POST",
                            .path = p->name,
                            .query = query,
                            .data = list.data,
                            .size = (int64_t)list.len,
                            .to_fd = -1,
                            .to_buf = &answer};
        kind = s3_http_send(p->s->http, &end, err);
        if (kind == ERR_NOT_FOUND) {
            /* Tried again after its answer was lost: the upload is over, and the object is there. */
            s3_request_t look = {.method = "HEAD", .path = p->name, .to_fd = -1};
            kind = s3_http_send(p->s->http, &look, err);
            if (kind == ERR_OK) {
                goto out;
            }
            kind = refused(err, "upload", p->name, &answer);
        }
        if (kind == ERR_OK && (!answer.data || !strstr(answer.data, "CompleteMultipartUploadResult"))) {
            kind = refused(err, "upload", p->name, &answer);
        }
    }
    if (kind != ERR_OK) {
        s3_request_t abort = {.method = "DELETE", .path = p->name, .query = query, .to_fd = -1};
        err_t ignored;
        if (s3_http_send(p->s->http, &abort, &ignored) != ERR_OK) {
            log_error(LOG_WARN, "the parts of an unfinished upload stay at the storage server", &ignored);
        }
    }
out:
    buf_free(&answer);
    buf_free(&list);
    return kind;
}

static err_kind_t put_commit(void *put, err_t *err) {
    put_t *p = put;
    err_kind_t kind;
    if (p->size > p->s->part_size) {
        kind = put_large(p, err);
    } else {
        s3_request_t r = {.method = "PUT", .path = p->name, .fd = p->fd, .size = p->size, .to_fd = -1};
        kind = s3_http_send(p->s->http, &r, err);
    }
    put_abort(p); /* the local file has served */
    return kind;
}

/* ---- get ---- */

/* Fills fd and leaves it at its beginning. */
static err_kind_t fetch(const s3_t *s, const char *key, int fd, int64_t *size, err_t *err) {
    char name[NAME_ROOM];
    object_name(s, key, name);
    s3_request_t r = {.method = "GET", .path = name, .to_fd = fd};
    err_kind_t kind = s3_http_send(s->http, &r, err);
    if (kind == ERR_OK && (ftruncate(fd, r.received) != 0 || lseek(fd, 0, SEEK_SET) != 0)) {
        kind = local_error(err, "seek", key);
    }
    if (kind == ERR_OK && size) {
        *size = r.received;
    }
    return kind;
}

static err_kind_t get(void *self, const char *key, int *fd, int64_t *size, err_t *err) {
    char *path;
    int file;
    err_kind_t kind = make_temporary(self, &path, &file, err);
    if (kind != ERR_OK) {
        return kind;
    }
    (void)unlink(path); /* it lives as long as its descriptor */
    free(path);
    kind = fetch(self, key, file, size, err);
    if (kind != ERR_OK) {
        close(file);
        return kind;
    }
    *fd = file;
    return ERR_OK;
}

static err_kind_t local(void *self, const char *key, char *path, size_t path_size, err_t *err) {
    char *made;
    int fd;
    err_kind_t kind = make_temporary(self, &made, &fd, err);
    if (kind != ERR_OK) {
        return kind;
    }
    int n = snprintf(path, path_size, "%s", made);
    kind = n < 0 || (size_t)n >= path_size
               ? err_set(err, ERR_INTERNAL, "storage_error", "The storage path is too long.", "key %.200s", key)
               : fetch(self, key, fd, NULL, err);
    if (kind != ERR_OK) {
        (void)unlink(made);
    }
    close(fd);
    free(made);
    return kind;
}

static void local_release(void *self, const char *path) {
    const s3_t *s = self;
    size_t n = strlen(s->dir);
    if (strncmp(path, s->dir, n) == 0 && path[n] == '/') {
        (void)unlink(path);
    }
}

static bool exists(void *self, const char *key) {
    const s3_t *s = self;
    char name[NAME_ROOM];
    object_name(s, key, name);
    s3_request_t r = {.method = "HEAD", .path = name, .to_fd = -1};
    return s3_http_send(s->http, &r, NULL) == ERR_OK;
}

/* ---- delete ---- */

static err_kind_t remove_object(void *self, const char *key, err_t *err) {
    const s3_t *s = self;
    char name[NAME_ROOM];
    object_name(s, key, name);
    s3_request_t r = {.method = "DELETE", .path = name, .to_fd = -1};
    err_kind_t kind = s3_http_send(s->http, &r, err);
    return kind == ERR_NOT_FOUND ? ERR_OK : kind;
}

/* The names of one page of a list become the request that deletes them. */
typedef struct {
    const char *prefix;
    buf_t *out;
    bool in_key, foreign;
    char name[NAME_ROOM];
    size_t length;
    int found;
} page_t;

static void on_start(void *arg, const char *tag, const char **attributes) {
    (void)attributes;
    page_t *p = arg;
    p->in_key = strcmp(tag, "Key") == 0;
    p->length = 0;
}

static void on_text(void *arg, const char *text, int n) {
    page_t *p = arg;
    if (p->in_key && p->length + (size_t)n < sizeof p->name) {
        memcpy(p->name + p->length, text, (size_t)n);
        p->length += (size_t)n;
    } else if (p->in_key) {
        p->foreign = true;
    }
}

static void on_end(void *arg, const char *tag) {
    page_t *p = arg;
    if (p->in_key && strcmp(tag, "Key") == 0) {
        p->name[p->length] = '\0';
        /* Deleting what was not asked for would be worse than an error. */
        if (strncmp(p->name, p->prefix, strlen(p->prefix)) != 0 || strpbrk(p->name, "<>&\"'")) {
            p->foreign = true;
        } else {
            buf_printf(p->out, "<Object><Key>%s</Key></Object>", p->name);
            p->found++;
        }
    }
    p->in_key = false;
}

static err_kind_t parse_page(page_t *p, const buf_t *xml, err_t *err) {
    XML_Parser parser = XML_ParserCreate(NULL);
    if (!parser) {
        return no_memory(err);
    }
    XML_SetUserData(parser, p);
    XML_SetElementHandler(parser, on_start, on_end);
    XML_SetCharacterDataHandler(parser, on_text);
    bool ok = xml->data && XML_Parse(parser, xml->data, (int)xml->len, 1) == XML_STATUS_OK;
    XML_ParserFree(parser);
    return ok && !p->foreign && !p->out->failed ? ERR_OK : refused(err, "list", p->prefix, xml);
}

static err_kind_t delete_page(const s3_t *s, const buf_t *body, buf_t *answer, err_t *err) {
    uint8_t md5[16];
    unsigned char text[32];
    char header[64];
    if (EVP_Digest(body->data, body->len, md5, NULL, EVP_md5(), NULL) != 1) {
        return no_memory(err);
    }
    (void)EVP_EncodeBlock(text, md5, sizeof md5);
    (void)snprintf(header, sizeof header, "Content-MD5: %s", (const char *)text);
    s3_request_t r = {.method = "POST",
                      .path = "",
                      .query = "delete=",
                      .header = header,
                      .data = body->data,
                      .size = (int64_t)body->len,
                      .to_fd = -1,
                      .to_buf = answer};
    err_kind_t kind = s3_http_send(s->http, &r, err);
    return kind == ERR_OK && answer->data && strstr(answer->data, "<Error>") ? refused(err, "delete", "", answer)
                                                                             : kind;
}

static void escape(const char *text, char *out) { /* names have no other character that needs it */
    for (; *text; text++) {
        if (*text == '/') {
            memcpy(out, "%2F", 3);
            out += 3;
        } else {
            *out++ = *text;
        }
    }
    *out = '\0';
}

static err_kind_t remove_tree(void *self, const char *prefix, err_t *err) {
    const s3_t *s = self;
    char name[NAME_ROOM + 1];
    char escaped[3 * NAME_ROOM];
    char query[3 * NAME_ROOM + 64];
    buf_t list;
    buf_t body;
    (void)snprintf(name, sizeof name, "%s%s/", s->prefix, prefix);
    escape(name, escaped);
    (void)snprintf(query, sizeof query, "list-type=2&max-keys=%d&prefix=%s", PAGE, escaped);
    buf_init(&list, ANSWER_ROOM);
    buf_init(&body, ANSWER_ROOM);
    err_kind_t kind = ERR_OK;
    /* What was listed is deleted, so the next page is the first again. */
    for (int pages = 0; kind == ERR_OK && pages < PAGES_MAX; pages++) {
        s3_request_t r = {.method = "GET", .path = "", .query = query, .to_fd = -1, .to_buf = &list};
        page_t page = {.prefix = name, .out = &body};
        kind = s3_http_send(s->http, &r, err);
        buf_reset(&body);
        buf_puts(&body, "<Delete><Quiet>true</Quiet>");
        if (kind == ERR_OK) {
            kind = parse_page(&page, &list, err);
        }
        if (kind != ERR_OK || page.found == 0) {
            break;
        }
        buf_puts(&body, "</Delete>");
        kind = body.failed ? no_memory(err) : delete_page(s, &body, &list, err);
    }
    buf_free(&list);
    buf_free(&body);
    return kind;
}

/* ---- the whole ---- */

/* The server answers to our key; what is free is the room for files on their way. */
static err_kind_t check(void *self, int64_t *free_bytes, err_t *err) {
    const s3_t *s = self;
    struct statvfs vfs;
    buf_t list;
    if (statvfs(s->dir, &vfs) != 0) {
        return local_error(err, "statvfs", s->dir);
    }
    if (free_bytes) {
        *free_bytes = (int64_t)(vfs.f_bavail * vfs.f_frsize);
    }
    buf_init(&list, ANSWER_ROOM);
    s3_request_t r = {.method = "GET",
                      .path = "",
                      .query = "list-type=2&max-keys=1&prefix=check",
                      .to_fd = -1,
                      .to_buf = &list,
                      .once = true};
    err_kind_t kind = s3_http_send(s->http, &r, err);
    buf_free(&list);
    return kind;
}

static void sweep(void *self) {
    const s3_t *s = self;
    storage_sweep_folder(opendir(s->dir));
}

static void close_s3(void *self) {
    s3_t *s = self;
    s3_http_close(s->http);
    free(s->dir);
    free(s->prefix);
    free(s);
}

static const storage_ops_t ops = {.close = close_s3,
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

static err_kind_t wrong_setting(err_t *err, const char *message) {
    return err_set(err, ERR_INVALID, "config_invalid", message, NULL);
}

err_kind_t storage_open_s3(const storage_s3_t *settings, storage_t **out, err_t *err) {
    *out = NULL;
    const char *bucket = settings->bucket;
    const char *endpoint = settings->endpoint;
    size_t n = bucket ? strlen(bucket) : 0;
    if (n < 3 || n > 63 || strspn(bucket, "abcdefghijklmnopqrstuvwxyz0123456789.-") != n ||
        (*settings->prefix && !storage_key_is_valid(settings->prefix))) {
        return wrong_setting(err, "STORAGE_URL must be s3://BUCKET or s3://BUCKET/PREFIX, in lower case.");
    }
    if (endpoint && *endpoint && strncmp(endpoint, "http://", 7) != 0 && strncmp(endpoint, "https://", 8) != 0) {
        return wrong_setting(err, "S3_ENDPOINT must begin with https:// or http://.");
    }
    if (!*settings->access_key || !*settings->secret_key || !*settings->region) {
        return wrong_setting(err, "STORAGE_URL needs S3_REGION, S3_ACCESS_KEY and S3_SECRET_KEY (or …_FILE).");
    }
    s3_t *s = calloc(1, sizeof *s);
    if (!s) {
        return no_memory(err);
    }
    s->part_size = settings->part_size > 0 ? settings->part_size : PART_SIZE;
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/%s", settings->dir, tmp_dir);
    err_kind_t kind = ERR_OK;
    (void)mkdir(settings->dir, DIR_MODE);
    (void)mkdir(path, DIR_MODE);
    if ((s->dir = realpath(path, NULL)) == NULL || access(s->dir, W_OK) != 0) {
        kind = local_error(err, "create", path);
    } else if (asprintf(&s->prefix, "%s%s", settings->prefix, *settings->prefix ? "/" : "") < 0) {
        s->prefix = NULL;
        kind = no_memory(err);
    } else {
        kind = s3_http_open(settings, &s->http, err);
    }
    if (kind != ERR_OK) {
        close_s3(s);
        return kind;
    }
    return storage_wrap(&ops, s, out, err);
}
