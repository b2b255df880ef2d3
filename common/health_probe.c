/*
 * One small request over a socket of our own: an HTTP client library for a status line would be more code in the image
 * than the check is worth.
 */
#include "health_probe.h"

#include <netdb.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STATUS_LINE = 128, PROBE_TIMEOUT_MS = 4000 };

static int left_ms(const struct timespec *start, int timeout_ms) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    long passed = (now.tv_sec - start->tv_sec) * 1000 + (now.tv_nsec - start->tv_nsec) / 1000000;
    return passed >= timeout_ms ? 0 : (int)(timeout_ms - passed);
}

/* A connected non-blocking socket, or -1. */
static int connect_to(const char *host, int port, const struct timespec *start, int timeout_ms) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char service[8];
    (void)snprintf(service, sizeof service, "%d", port);
    if (getaddrinfo(host, service, &hints, &found) != 0) {
        return -1;
    }
    int fd = -1;
    for (const struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, a->ai_protocol);
        if (fd < 0) {
            continue;
        }
        int refused = 0;
        socklen_t size = sizeof refused;
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        (void)connect(fd, a->ai_addr, a->ai_addrlen); /* its outcome is read below */
        if (poll(&p, 1, left_ms(start, timeout_ms)) != 1 ||
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &refused, &size) != 0 || refused != 0) {
            (void)close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    return fd;
}

static bool send_all(int fd, const char *text, const struct timespec *start, int timeout_ms) {
    size_t left = strlen(text);
    while (left > 0) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        if (poll(&p, 1, left_ms(start, timeout_ms)) != 1) {
            return false;
        }
        ssize_t n = send(fd, text, left, MSG_NOSIGNAL);
        if (n <= 0) {
            return false;
        }
        text += n;
        left -= (size_t)n;
    }
    return true;
}

/* The first line of the answer, without its end. */
static bool read_line(int fd, char line[STATUS_LINE], const struct timespec *start, int timeout_ms) {
    size_t n = 0;
    while (n < STATUS_LINE - 1) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, left_ms(start, timeout_ms)) != 1) {
            return false;
        }
        ssize_t got = recv(fd, line + n, STATUS_LINE - 1 - n, 0);
        if (got <= 0) {
            return false;
        }
        n += (size_t)got;
        line[n] = '\0';
        char *end = strpbrk(line, "\r\n");
        if (end) {
            *end = '\0';
            return true;
        }
    }
    return true;
}

err_kind_t health_probe(const char *host, int port, const char *path, int timeout_ms, err_t *err) {
    struct timespec start;
    char request[512];
    char line[STATUS_LINE] = "";
    int status = 0;
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    if (!host[0] || strcmp(host, "0.0.0.0") == 0) {
        host = "127.0.0.1";
    } else if (strcmp(host, "::") == 0) {
        host = "::1";
    }
    (void)snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path);
    int fd = connect_to(host, port, &start, timeout_ms);
    bool answered = fd >= 0 && send_all(fd, request, &start, timeout_ms) && read_line(fd, line, &start, timeout_ms) &&
                    sscanf(line, "HTTP/1.%*1d %3d", &status) == 1;
    if (fd >= 0) {
        (void)close(fd);
    }
    if (!answered) {
        return err_set(err, ERR_UNAVAILABLE, "no_answer", "The daemon's health port does not answer.", NULL);
    }
    if (status != 200) {
        return err_set(err, ERR_UNAVAILABLE, "not_healthy", "The daemon says that it is not healthy.", "%s", line);
    }
    return ERR_OK;
}

int health_command(const char *program, const char *host, int port, int argc, char **argv) {
    const char *word = argc > 0 ? argv[0] : "ready";
    err_t err;
    err_clear(&err);
    if (argc > 1 || (strcmp(word, "ready") != 0 && strcmp(word, "live") != 0)) {
        (void)fprintf(stderr, "%s: health takes one word: live or ready\n", program);
        return 2;
    }
    if (port == 0) {
        (void)fprintf(stderr, "%s: there is no health port: METRICS_PORT is 0\n", program);
        return 2;
    }
    if (health_probe(host, port, strcmp(word, "live") == 0 ? "/live" : "/ready", PROBE_TIMEOUT_MS, &err) != ERR_OK) {
        (void)fprintf(stderr, "%s: %s %s\n", program, err.message, err.detail);
        return 1;
    }
    return 0;
}
