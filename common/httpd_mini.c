/*
 * The small HTTP server of httpd_mini.h: a poll(2) loop over non-blocking sockets. A connection is read until the
 * blank line, answered, and closed after the answer has left; its deadline covers all of that, so a client that is slow
 * or silent costs one of the places for five seconds and nothing else.
 */
#include "httpd_mini.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"
#include "thread_util.h"
#include "timeutil.h"

enum { CONNS_MAX = 32, REQUEST_MAX = 8192, BODY_MAX = 4 << 20, CONN_MS = 5000, PAUSE_MS = 100 };

typedef struct {
    int fd; /* -1: free */
    bool answering;
    int64_t deadline;
    size_t got;
    char request[REQUEST_MAX + 1];
    buf_t answer;
    size_t sent;
} conn_t;

struct httpd_mini {
    int listen_fd, wake_fd, port;
    httpd_mini_fn fn;
    void *arg;
    pthread_t thread;
    int64_t paused_until; /* no accept before this: descriptors had run out */
    conn_t conns[CONNS_MAX];
};

static const char *reason(int status) {
    switch (status) {
    case 200:
        return "OK";
    case 400:
        return "Bad Request";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 431:
        return "Request Header Fields Too Large";
    case 503:
        return "Service Unavailable";
    default:
        return status < 400 ? "OK" : "Error";
    }
}

static void close_conn(conn_t *c) {
    close(c->fd);
    c->fd = -1;
    buf_free(&c->answer);
}

static void set_answer(conn_t *c, int status, const char *type, const char *body, size_t n, bool head_only) {
    buf_init(&c->answer, BODY_MAX + 4096);
    buf_printf(&c->answer,
               "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n"
               "X-Content-Type-Options: nosniff\r\n%sConnection: close\r\n\r\n",
               status, reason(status), type, n, status == 405 ? "Allow: GET, HEAD\r\n" : "");
    if (!head_only && n > 0) {
        buf_append(&c->answer, body, n);
    }
    c->sent = 0;
    c->answering = true;
}

static void set_error(conn_t *c, int status) {
    char body[64];
    int n = snprintf(body, sizeof body, "%s\n", reason(status));
    set_answer(c, status, "text/plain; charset=utf-8", body, (size_t)n, false);
}

/* Splits "GET /path?query HTTP/1.x" in place. NULL: malformed. */
static char *parse_request(char *request, char **method) {
    request[strcspn(request, "\r\n")] = '\0';
    char *space = strchr(request, ' ');
    if (!space) {
        return NULL;
    }
    *space = '\0';
    *method = request;
    char *path = space + 1;
    char *end = strchr(path, ' ');
    if (path[0] != '/' || !end || strncmp(end + 1, "HTTP/1.", 7) != 0) {
        return NULL;
    }
    *end = '\0';
    path[strcspn(path, "?#")] = '\0';
    return path;
}

static void answer_request(httpd_mini_t *h, conn_t *c) {
    char *method;
    char *path = parse_request(c->request, &method);
    if (!path) {
        set_error(c, 400);
        return;
    }
    bool head = strcmp(method, "HEAD") == 0;
    if (!head && strcmp(method, "GET") != 0) {
        set_error(c, 405);
        return;
    }
    buf_t body;
    buf_init(&body, BODY_MAX);
    const char *type = "text/plain; charset=utf-8";
    int status = h->fn(h->arg, path, &body, &type);
    if (body.failed || status < 200 || status > 599) {
        set_error(c, 500);
    } else {
        set_answer(c, status, type, body.data, body.len, head);
    }
    buf_free(&body);
}

static void read_some(httpd_mini_t *h, conn_t *c) {
    ssize_t n = recv(c->fd, c->request + c->got, REQUEST_MAX - c->got, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        close_conn(c);
        return;
    }
    if (memchr(c->request + c->got, '\0', (size_t)n)) {
        set_error(c, 400);
        return;
    }
    c->got += (size_t)n;
    c->request[c->got] = '\0';
    if (strstr(c->request, "\r\n\r\n") || strstr(c->request, "\n\n")) {
        answer_request(h, c);
    } else if (c->got == REQUEST_MAX) {
        set_error(c, 431);
    }
}

static void write_some(conn_t *c) {
    if (c->sent < c->answer.len) {
        ssize_t n = send(c->fd, c->answer.data + c->sent, c->answer.len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            close_conn(c);
            return;
        }
        c->sent += n > 0 ? (size_t)n : 0;
    }
    if (c->sent == c->answer.len) {
        /* Unread bytes would turn the close into a reset, which may overtake the answer. */
        char rest[1024];
        (void)shutdown(c->fd, SHUT_WR);
        (void)recv(c->fd, rest, sizeof rest, MSG_DONTWAIT);
        close_conn(c);
    }
}

static void accept_some(httpd_mini_t *h) {
    for (int i = 0; i < CONNS_MAX; i++) {
        conn_t *c = &h->conns[i];
        if (c->fd >= 0) {
            continue;
        }
        int fd = accept4(h->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                h->paused_until = time_mono_ms() + PAUSE_MS;
            }
            return;
        }
        c->fd = fd;
        c->got = 0;
        c->answering = false;
        c->deadline = time_mono_ms() + CONN_MS;
        buf_init(&c->answer, 0);
    }
}

/* Fills fds and returns how long poll may sleep. *accepting tells whether fds[1] is the listening socket. */
static int prepare(httpd_mini_t *h, struct pollfd *fds, bool *accepting) {
    int64_t now = time_mono_ms();
    int64_t next = now + 60000;
    bool room = false;
    for (int i = 0; i < CONNS_MAX; i++) {
        conn_t *c = &h->conns[i];
        if (c->fd >= 0 && c->deadline <= now) {
            close_conn(c);
        }
        room = room || c->fd < 0;
        fds[2 + i] = (struct pollfd){.fd = c->fd, .events = c->answering ? POLLOUT : POLLIN};
        if (c->fd >= 0 && c->deadline < next) {
            next = c->deadline;
        }
    }
    *accepting = room && h->paused_until <= now;
    if (room && h->paused_until > now && h->paused_until < next) {
        next = h->paused_until;
    }
    fds[0] = (struct pollfd){.fd = h->wake_fd, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = *accepting ? h->listen_fd : -1, .events = POLLIN};
    return (int)(next - now) + 1;
}

static void *serve(void *arg) {
    httpd_mini_t *h = arg;
    struct pollfd fds[2 + CONNS_MAX];
    for (;;) {
        bool accepting;
        int wait = prepare(h, fds, &accepting);
        int n = poll(fds, 2 + CONNS_MAX, wait);
        if (n < 0 && errno != EINTR) {
            log_event(LOG_ERROR, "the metrics server stopped", "reason", strerror(errno), NULL);
            break;
        }
        if (n <= 0) {
            continue;
        }
        if (fds[0].revents) {
            break;
        }
        for (int i = 0; i < CONNS_MAX; i++) {
            conn_t *c = &h->conns[i];
            if (fds[2 + i].revents == 0 || c->fd < 0) {
                continue;
            }
            if (!c->answering) {
                read_some(h, c);
            }
            if (c->fd >= 0 && c->answering) {
                write_some(c);
            }
        }
        if (accepting && fds[1].revents) {
            accept_some(h);
        }
    }
    for (int i = 0; i < CONNS_MAX; i++) {
        if (h->conns[i].fd >= 0) {
            close_conn(&h->conns[i]);
        }
    }
    return NULL;
}

/* A listening socket on the first address of host that works; -1 with errno (or EADDRNOTAVAIL). */
static int listen_on(const char *host, int port, int *real_port) {
    char service[16];
    (void)snprintf(service, sizeof service, "%d", port);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *list = NULL;
    if (getaddrinfo(host, service, &hints, &list) != 0) {
        errno = EADDRNOTAVAIL;
        return -1;
    }
    int fd = -1;
    int e = EADDRNOTAVAIL;
    for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
        int on = 1;
        if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
                        bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, 64) != 0)) {
            e = errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } addr;
    memset(&addr, 0, sizeof addr);
    socklen_t len = sizeof addr;
    if (fd >= 0 && getsockname(fd, &addr.any, &len) == 0) {
        *real_port = ntohs(addr.any.sa_family == AF_INET6 ? addr.v6.sin6_port : addr.v4.sin_port);
    }
    errno = e;
    return fd;
}

err_kind_t httpd_mini_start(const char *host, int port, httpd_mini_fn fn, void *arg, httpd_mini_t **out, err_t *err) {
    *out = NULL;
    httpd_mini_t *h = calloc(1, sizeof *h);
    if (!h) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    h->fn = fn;
    h->arg = arg;
    for (int i = 0; i < CONNS_MAX; i++) {
        h->conns[i].fd = -1;
    }
    h->wake_fd = -1;
    h->listen_fd = listen_on(host, port, &h->port);
    if (h->listen_fd < 0) {
        err_kind_t kind =
            err_setf(err, ERR_IO, "listen_failed", "Cannot listen on %.100s port %d: %s.", host, port, strerror(errno));
        free(h);
        return kind;
    }
    h->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (h->wake_fd < 0 || thread_start(&h->thread, "metrics-http", serve, h) != 0) {
        if (h->wake_fd >= 0) {
            close(h->wake_fd);
        }
        close(h->listen_fd);
        free(h);
        return err_set(err, ERR_NO_MEMORY, "no_memory", "The metrics server cannot be started.", NULL);
    }
    *out = h;
    return ERR_OK;
}

int httpd_mini_port(const httpd_mini_t *h) {
    return h->port;
}

void httpd_mini_stop(httpd_mini_t *h) {
    if (!h) {
        return;
    }
    (void)eventfd_write(h->wake_fd, 1);
    (void)pthread_join(h->thread, NULL);
    close(h->listen_fd);
    close(h->wake_fd);
    free(h);
}
