/* Signed requests to an S3 server, see storage_s3_http.h. */
#include "storage_s3_http.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "hash.h"
#include "log.h"

enum { KEPT = 16, TRIES = 5, FIRST_WAIT_MS = 200, CONNECT_S = 5, STALL_S = 30, URL_ROOM = 2048, ERROR_ROOM = 64 << 10 };

struct s3_http {
    char *base; /* scheme://host[/bucket] */
    char *credentials, *signature;
    pthread_mutex_t lock;
    CURL *kept[KEPT];
    int n_kept;
};

/* One attempt. */
typedef struct {
    s3_request_t *r;
    CURL *curl;
    int64_t sent;
    bool write_failed, began;
    char first_etag[128]; /* of what to_fd holds the beginning of */
    buf_t error;          /* body of an answer that is not 2xx */
} attempt_t;

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init_curl(void) {
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

err_kind_t s3_http_open(const storage_s3_t *s, s3_http_t **out, err_t *err) {
    *out = NULL;
    (void)pthread_once(&once, init_curl);
    s3_http_t *h = calloc(1, sizeof *h);
    char amazon[256];
    (void)snprintf(amazon, sizeof amazon, "https://s3.%s.amazonaws.com", s->region);
    const char *endpoint = s->endpoint && *s->endpoint ? s->endpoint : amazon;
    const char *host = strstr(endpoint, "://");
    int n = -1;
    if (h && host) {
        size_t length = strlen(endpoint);
        while (length > 0 && endpoint[length - 1] == '/') {
            length--;
        }
        host += 3;
        int rest = (int)(endpoint + length - host);
        n = s->path_style ? asprintf(&h->base, "%.*s/%s", (int)length, endpoint, s->bucket)
                          : asprintf(&h->base, "%.*s%s.%.*s", (int)(host - endpoint), endpoint, s->bucket, rest, host);
    }
    if (n < 0 || asprintf(&h->credentials, "%s:%s", s->access_key, s->secret_key) < 0 ||
        asprintf(&h->signature, "aws:amz:%s:s3", s->region) < 0) {
        if (h) {
            free(h->base);
            free(h->credentials);
            free(h);
        }
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    (void)pthread_mutex_init(&h->lock, NULL);
    *out = h;
    return ERR_OK;
}

void s3_http_close(s3_http_t *h) {
    if (h) {
        while (h->n_kept > 0) {
            curl_easy_cleanup(h->kept[--h->n_kept]);
        }
        (void)pthread_mutex_destroy(&h->lock);
        free(h->base);
        free(h->credentials);
        free(h->signature);
        free(h);
    }
}

/* A handle keeps its connection: the next request needs no new one. */
static CURL *take_handle(s3_http_t *h) {
    pthread_mutex_lock(&h->lock);
    CURL *c = h->n_kept > 0 ? h->kept[--h->n_kept] : NULL;
    pthread_mutex_unlock(&h->lock);
    if (c) {
        curl_easy_reset(c);
        return c;
    }
    return curl_easy_init();
}

static void give_handle(s3_http_t *h, CURL *c) {
    pthread_mutex_lock(&h->lock);
    if (h->n_kept < KEPT) {
        h->kept[h->n_kept++] = c;
        c = NULL;
    }
    pthread_mutex_unlock(&h->lock);
    if (c) {
        curl_easy_cleanup(c);
    }
}

static size_t on_read(char *to, size_t size, size_t n, void *arg) {
    attempt_t *a = arg;
    const s3_request_t *r = a->r;
    int64_t want = r->size - a->sent;
    if (want > (int64_t)(size * n)) {
        want = (int64_t)(size * n);
    }
    ssize_t got = want;
    if (want > 0 && r->data) {
        memcpy(to, (const char *)r->data + a->sent, (size_t)want);
    } else if (want > 0) {
        got = pread(r->fd, to, (size_t)want, r->offset + a->sent);
    }
    if (got < 0 || (got == 0 && want > 0)) {
        return CURL_READFUNC_ABORT;
    }
    a->sent += got;
    return (size_t)got;
}

static int on_seek(void *arg, curl_off_t offset, int origin) {
    attempt_t *a = arg;
    if (origin != SEEK_SET) {
        return CURL_SEEKFUNC_CANTSEEK;
    }
    a->sent = offset;
    return CURL_SEEKFUNC_OK;
}

static size_t on_write(char *data, size_t size, size_t n, void *arg) {
    attempt_t *a = arg;
    s3_request_t *r = a->r;
    long status = 0;
    (void)curl_easy_getinfo(a->curl, CURLINFO_RESPONSE_CODE, &status);
    n *= size;
    if (status < 200 || status > 299) {
        buf_append(&a->error, data, n);
        return n;
    }
    if (r->to_fd < 0) {
        if (r->to_buf) {
            buf_append(r->to_buf, data, n);
        }
        return n;
    }
    if (status == 200 && !a->began) {
        r->received = 0; /* asked to go on, the server began again */
    }
    a->began = true;
    if (r->received == 0) {
        (void)snprintf(a->first_etag, sizeof a->first_etag, "%s", r->etag);
    } else if (strcmp(a->first_etag, r->etag) != 0) {
        r->received = 0; /* replaced meanwhile: the next attempt begins again */
        return 0;
    }
    for (size_t done = 0; done < n;) {
        ssize_t w = pwrite(r->to_fd, data + done, n - done, r->received);
        if (w < 0) {
            a->write_failed = true;
            return 0;
        }
        done += (size_t)w;
        r->received += w;
    }
    return n;
}

static size_t on_header(char *line, size_t size, size_t n, void *arg) {
    s3_request_t *r = ((attempt_t *)arg)->r;
    n *= size;
    if (n > 5 && strncasecmp(line, "etag:", 5) == 0) {
        size_t from = 5;
        size_t to = n;
        while (from < to && (line[from] == ' ' || line[from] == '\t')) {
            from++;
        }
        while (to > from && (line[to - 1] == '\r' || line[to - 1] == '\n' || line[to - 1] == ' ')) {
            to--;
        }
        if (to - from < sizeof r->etag) {
            memcpy(r->etag, line + from, to - from);
            r->etag[to - from] = '\0';
        }
    }
    return n;
}

/* SHA-256 of what is sent, as the signature wants it. */
static bool digest(const s3_request_t *r, char hex[HASH_SHA256_HEX_SIZE]) {
    hash_t *hash = hash_sha256_begin();
    uint8_t sum[HASH_SHA256_SIZE];
    bool ok = hash != NULL;
    if (ok && r->data) {
        ok = hash_update(hash, r->data, (size_t)r->size);
    }
    char *piece = ok && !r->data && r->size > 0 ? malloc(1 << 16) : NULL;
    for (int64_t at = 0; ok && !r->data && at < r->size;) {
        int64_t want = r->size - at < 1 << 16 ? r->size - at : 1 << 16;
        ssize_t got = piece ? pread(r->fd, piece, (size_t)want, r->offset + at) : -1;
        ok = got > 0 && hash_update(hash, piece, (size_t)got);
        at += got;
    }
    free(piece);
    if (!ok) {
        hash_abort(hash);
        return false;
    }
    ok = hash_sha256_end(hash, sum);
    hash_hex_encode(sum, sizeof sum, hex);
    return ok;
}

static bool add_header(struct curl_slist **list, const char *line) {
    struct curl_slist *longer = curl_slist_append(*list, line);
    if (longer) {
        *list = longer;
    }
    return longer != NULL;
}

static CURLcode perform(s3_http_t *h, attempt_t *a, const char *url, struct curl_slist *headers, long *status) {
    s3_request_t *r = a->r;
    CURL *c = a->curl;
    char range[64];
    (void)curl_easy_setopt(c, CURLOPT_URL, url);
    (void)curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    (void)curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    (void)curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
    (void)curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)STALL_S);
    (void)curl_easy_setopt(c, CURLOPT_AWS_SIGV4, h->signature);
    (void)curl_easy_setopt(c, CURLOPT_USERPWD, h->credentials);
    (void)curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
    (void)curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    (void)curl_easy_setopt(c, CURLOPT_HEADERDATA, a);
    (void)curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_write);
    (void)curl_easy_setopt(c, CURLOPT_WRITEDATA, a);
    if (strcmp(r->method, "HEAD") == 0) {
        (void)curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
    } else if (strcmp(r->method, "PUT") == 0 || strcmp(r->method, "POST") == 0) {
        (void)curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
        (void)curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, (curl_off_t)r->size);
        (void)curl_easy_setopt(c, CURLOPT_READFUNCTION, on_read);
        (void)curl_easy_setopt(c, CURLOPT_READDATA, a);
        (void)curl_easy_setopt(c, CURLOPT_SEEKFUNCTION, on_seek);
        (void)curl_easy_setopt(c, CURLOPT_SEEKDATA, a);
    }
    if (strcmp(r->method, "POST") == 0 || strcmp(r->method, "DELETE") == 0) {
        (void)curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, r->method);
    }
    if (r->to_fd >= 0 && r->received > 0) {
        (void)snprintf(range, sizeof range, "%lld-", (long long)r->received);
        (void)curl_easy_setopt(c, CURLOPT_RANGE, range);
    }
    if (r->to_buf) {
        buf_reset(r->to_buf);
    }
    CURLcode code = curl_easy_perform(c);
    (void)curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, status);
    return code;
}

static void wait_before(int attempt) {
    uint32_t random;
    hash_random(&random, sizeof random);
    long ms = ((long)FIRST_WAIT_MS << attempt) / 2 + (long)(random % (unsigned)(FIRST_WAIT_MS << attempt)) / 2;
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    (void)nanosleep(&t, NULL);
}

/* What the server calls the error, from its XML. */
static void error_name(const buf_t *body, char *out, size_t room) {
    const char *from = body->data ? strstr(body->data, "<Code>") : NULL;
    const char *to = from ? strstr(from, "</Code>") : NULL;
    (void)snprintf(out, room, "%.*s", to ? (int)(to - from - 6) : 0, to ? from + 6 : "");
}

static err_kind_t judge(const s3_request_t *r, const attempt_t *a, CURLcode code, long status, err_t *err) {
    char name[64];
    error_name(&a->error, name, sizeof name);
    if (a->write_failed) {
        return err_set(err, ERR_IO, "storage_full", "The server's storage is full. Please tell its administrator.",
                       "the copy of %.200s cannot be written", r->path);
    }
    if (status == 404 && strcmp(name, "NoSuchBucket") != 0) {
        return err_set(err, ERR_NOT_FOUND, "object_missing", "The file is not in the storage any more.", "key %.200s",
                       r->path);
    }
    if (status == 401 || status == 403) {
        return err_set(
            err, ERR_IO, "storage_denied",
            "The storage server refuses this server's key. Check S3_ACCESS_KEY, S3_SECRET_KEY and the bucket's "
            "policy.",
            "%s %.200s: %ld %s", r->method, r->path, status, name);
    }
    return err_set(err, ERR_IO, "storage_error", "The server could not reach its storage. Try again later.",
                   "%s %.200s: %ld %s %s", r->method, r->path, status, name,
                   code == CURLE_OK ? "" : curl_easy_strerror(code));
}

err_kind_t s3_http_send(s3_http_t *h, s3_request_t *r, err_t *err) {
    char url[URL_ROOM];
    char hex[HASH_SHA256_HEX_SIZE];
    char line[HASH_SHA256_HEX_SIZE + 32];
    struct curl_slist *headers = NULL;
    err_kind_t kind = ERR_OK;
    int n = snprintf(url, sizeof url, "%s%s%s%s%s", h->base, *r->path ? "/" : "", r->path, r->query ? "?" : "",
                     r->query ? r->query : "");
    attempt_t a = {.r = r};
    buf_init(&a.error, ERROR_ROOM);
    if (n < 0 || (size_t)n >= sizeof url || !digest(r, hex)) {
        return err_set(err, ERR_IO, "storage_error", "The server could not reach its storage. Try again later.",
                       "the request for %.200s cannot be made", r->path);
    }
    (void)snprintf(line, sizeof line, "x-amz-content-sha256: %s", hex);
    if (!add_header(&headers, line) || (r->header && !add_header(&headers, r->header)) ||
        (a.curl = take_handle(h)) == NULL) {
        curl_slist_free_all(headers);
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    for (int attempt = 0;; attempt++) {
        long status = 0;
        a.sent = 0;
        a.began = false;
        buf_reset(&a.error);
        CURLcode code = perform(h, &a, url, headers, &status);
        if (code == CURLE_OK && status >= 200 && status <= 299) {
            break;
        }
        bool temporary = status == 0 || status == 429 || status >= 500 || (status <= 299 && code != CURLE_OK);
        if (!temporary || a.write_failed || r->once || attempt + 1 == TRIES) {
            kind = judge(r, &a, code, status, err);
            break;
        }
        wait_before(attempt);
        curl_easy_reset(a.curl);
    }
    give_handle(h, a.curl);
    curl_slist_free_all(headers);
    buf_free(&a.error);
    return kind;
}
