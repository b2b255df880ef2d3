/*
 * Files of the browser UI. A path is checked segment by segment before it comes near the file system, and the file is
 * opened without following links.
 */
#include "static.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"

static const struct {
    const char *ext;
    const char *type;
} types[] = {
    {".html", "text/html; charset=utf-8"},
    {".js", "text/javascript; charset=utf-8"},
    {".mjs", "text/javascript; charset=utf-8"},
    {".css", "text/css; charset=utf-8"},
    {".json", "application/json"},
    {".webmanifest", "application/manifest+json"},
    {".svg", "image/svg+xml"},
    {".png", "image/png"},
    {".jpg", "image/jpeg"},
    {".webp", "image/webp"},
    {".ico", "image/x-icon"},
    {".woff2", "font/woff2"},
    {".woff", "font/woff"},
    {".wasm", "application/wasm"},
    {".txt", "text/plain; charset=utf-8"},
    {".map", "application/json"},
};

static const char *content_type(const char *path) {
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot && i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(dot, types[i].ext) == 0) {
            return types[i].type;
        }
    }
    return "application/octet-stream";
}

bool static_path_is_safe(const char *path) {
    const char *p = path;
    if (*p != '/') {
        return false;
    }
    while (*p == '/') {
        p++;
        size_t n = strcspn(p, "/");
        if (n == 0) {
            return *p == '\0' && p == path + 1; /* only "/" itself */
        }
        if (p[0] == '.') {
            return false;
        }
        for (size_t i = 0; i < n; i++) {
            if ((unsigned char)p[i] < 0x20 || p[i] == '\\' || p[i] == 0x7f) {
                return false;
            }
        }
        p += n;
    }
    return *p == '\0';
}

/* A regular file under the UI directory; -1 when there is none. */
static int open_file(const char *dir, const char *path, const char *suffix, struct stat *st) {
    char full[4096];
    int n = snprintf(full, sizeof full, "%s%s%s", dir, path, suffix);
    if (n < 0 || (size_t)n >= sizeof full) {
        return -1;
    }
    int fd = open(full, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return -1;
    }
    if (fstat(fd, st) != 0 || !S_ISREG(st->st_mode)) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool accepts(const char *header, const char *coding) {
    const char *p = header ? strstr(header, coding) : NULL;
    if (!p) {
        return false;
    }
    p += strlen(coding);
    p += strspn(p, " \t");
    return strncmp(p, ";q=0", 4) != 0 || (p[4] == '.' && strspn(p + 5, "0") < 3 && p[5 + strspn(p + 5, "0")] >= '1');
}

/* Sends path; false when there is no such file. */
static bool send_path(http_request_t *req, const char *path, bool page) {
    static const struct {
        const char *coding;
        const char *suffix;
    } packed[] = {{"br", ".br"}, {"gzip", ".gz"}};
    const char *dir = req->gw->cfg->ui_dir;
    const char *wanted = http_header(req, "Accept-Encoding");
    struct stat st;
    int fd = -1;
    const char *coding = NULL;
    for (size_t i = 0; i < 2 && fd < 0; i++) {
        if (accepts(wanted, packed[i].coding)) {
            fd = open_file(dir, path, packed[i].suffix, &st);
            coding = fd >= 0 ? packed[i].coding : NULL;
        }
    }
    if (fd < 0) {
        fd = open_file(dir, path, "", &st);
    }
    if (fd < 0) {
        return false;
    }
    if (coding) {
        http_add_header(req, "Content-Encoding", coding);
    }
    http_add_header(req, "Vary", "Accept-Encoding");
    bool hashed = strncmp(path, "/assets/", 8) == 0;
    http_add_header(req, "Cache-Control",
                    page     ? "no-cache"
                    : hashed ? "public, max-age=31536000, immutable"
                             : "public, max-age=3600");
    char *etag = arena_printf(req->arena, "%" PRIx64 "-%" PRIx64 "-%" PRIx64 "%s", (uint64_t)st.st_size,
                              (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec, coding ? coding : "");
    (void)http_reply_fd(req, content_type(path), fd, (int64_t)st.st_size, etag, NULL);
    return true;
}

static err_kind_t not_built(http_request_t *req) {
    static const char page[] =
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Spheroseg</title>"
        "<body style=\"font:16px/1.5 system-ui;max-width:40em;margin:4em auto;padding:0 1em\">"
        "<h1>The server is running, its pages are not built yet</h1>"
        "<p>Build them with <code>make ui</code> (or <code>scripts/quickstart.sh</code>, which does everything), or "
        "set "
        "<code>UI_DIR</code> to the directory that holds <code>index.html</code>. Then load this page again; no "
        "restart "
        "is needed.</p><p>The API is at <code>/api</code>, its health at <a href=\"/api/health\">/api/health</a>.</p>";
    return http_reply_text(req, 503, "text/html; charset=utf-8", page, sizeof page - 1);
}

err_kind_t static_serve(http_request_t *req, err_t *err) {
    if (strcmp(req->method, "GET") != 0 && strcmp(req->method, "HEAD") != 0) {
        http_add_header(req, "Allow", "GET, HEAD");
        err_set(err, ERR_INVALID, "method_not_allowed", "Only GET and HEAD work here.", NULL);
        return http_reply_problem_status(req, 405, err);
    }
    if (!static_path_is_safe(req->path)) {
        return err_set(err, ERR_NOT_FOUND, "not_found", "There is nothing at this address.", NULL);
    }
    bool root = strcmp(req->path, "/") == 0 || strcmp(req->path, "/index.html") == 0;
    if (!root && send_path(req, req->path, false)) {
        return ERR_OK;
    }
    const char *last = strrchr(req->path, '/');
    if (!root && strchr(last, '.')) {
        return err_set(err, ERR_NOT_FOUND, "not_found", "There is no such file.", NULL);
    }
    if (send_path(req, "/index.html", true)) {
        return ERR_OK;
    }
    return not_built(req);
}
