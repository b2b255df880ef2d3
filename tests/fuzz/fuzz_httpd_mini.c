/* A request to the port for metrics and health, in pieces as they may come from the network. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/httpd_mini.c" /* a connection is its own */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int answer(void *arg, const char *path, buf_t *out, const char **content_type) {
    (void)arg;
    *content_type = "text/plain";
    if (path[0] != '/' || strpbrk(path, " ?#\r\n")) {
        abort();
    }
    buf_append(out, path, strlen(path));
    return strlen(path) % 7 == 0 ? 404 : 200;
}

/* The first byte says how long the pieces are. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static httpd_mini_t h;
    static conn_t c;
    int pair[2];
    if (size < 1 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) != 0) {
        return 0;
    }
    h.fn = answer;
    c.fd = pair[0];
    c.got = 0;
    c.answering = false;
    buf_init(&c.answer, 0);
    size_t piece = 1 + (size_t)data[0] * 16;
    for (size_t at = 1; at < size && c.fd >= 0 && !c.answering; at += piece) {
        size_t n = size - at < piece ? size - at : piece;
        if (send(pair[1], data + at, n, MSG_NOSIGNAL) == (ssize_t)n) {
            read_some(&h, &c);
        }
    }
    if (c.answering && (c.answer.failed || c.answer.len < 12 || memcmp(c.answer.data, "HTTP/1.1 ", 9) != 0)) {
        abort();
    }
    if (c.fd >= 0) {
        close_conn(&c);
    }
    close(pair[1]);
    return 0;
}
