/* The metrics server: answers, refusals, slow and silent clients, stopping. */
#include "common/httpd_mini.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/timeutil.h"
#include "tests/unit/support/cmocka_all.h"

static httpd_mini_t *server;

static int handle(void *arg, const char *path, buf_t *out, const char **type) {
    (void)arg;
    if (strcmp(path, "/metrics") == 0) {
        *type = "text/plain; version=0.0.4";
        buf_puts(out, "up 1\n");
        return 200;
    }
    if (strcmp(path, "/big") == 0) {
        for (int i = 0; i < 200000; i++) {
            buf_puts(out, "0123456789");
        }
        return 200;
    }
    if (strcmp(path, "/too-big") == 0) {
        for (int i = 0; i < 5 << 20; i++) {
            buf_puts(out, "x");
        }
        return 200;
    }
    buf_puts(out, path);
    return strcmp(path, "/ready") == 0 ? 503 : 404;
}

static int set_up(void **state) {
    (void)state;
    err_t err;
    return httpd_mini_start("127.0.0.1", 0, handle, NULL, &server, &err) == ERR_OK ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    httpd_mini_stop(server);
    return 0;
}

static int dial(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)httpd_mini_port(server))};
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    struct timeval tv = {.tv_sec = 20};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv), 0);
    return fd;
}

/* Everything until the server closes; the caller frees it. */
static char *read_all(int fd, size_t *len) {
    size_t room = 1 << 22;
    char *text = malloc(room + 1);
    size_t n = 0;
    ssize_t got;
    while (n < room && (got = recv(fd, text + n, room - n, 0)) > 0) {
        n += (size_t)got;
    }
    text[n] = '\0';
    if (len) {
        *len = n;
    }
    close(fd);
    return text;
}

static char *ask(const char *request) {
    int fd = dial();
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
    return read_all(fd, NULL);
}

static void expect(const char *request, const char *first_line, const char *part) {
    char *text = ask(request);
    if (strncmp(text, first_line, strlen(first_line)) != 0 || !strstr(text, part)) {
        fail_msg("%s -> %s", request, text);
    }
    free(text);
}

static void test_answers(void **state) {
    (void)state;
    expect("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\n", "\r\n\r\nup 1\n");
    expect("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\n",
           "Content-Type: text/plain; version=0.0.4\r\n");
    expect("GET /metrics?x=1 HTTP/1.0\r\n\r\n", "HTTP/1.1 200", "Content-Length: 5\r\n");
    expect("GET /ready HTTP/1.1\n\n", "HTTP/1.1 503 Service Unavailable\r\n", "\r\n\r\n/ready");
    expect("GET /nothing HTTP/1.1\r\n\r\n", "HTTP/1.1 404", "/nothing");
    char *text = ask("HEAD /metrics HTTP/1.1\r\n\r\n");
    assert_non_null(strstr(text, "Content-Length: 5\r\n"));
    assert_int_equal(strlen(strstr(text, "\r\n\r\n")), 4); /* no body */
    free(text);
}

static void test_refusals(void **state) {
    (void)state;
    expect("POST /metrics HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 405", "Allow: GET, HEAD\r\n");
    expect("nonsense\r\n\r\n", "HTTP/1.1 400", "Bad Request");
    expect("GET metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 400", "");
    expect("GET /metrics\r\n\r\n", "HTTP/1.1 400", "");
    expect("GET /metrics SPDY/1\r\n\r\n", "HTTP/1.1 400", "");
    expect("GET /too-big HTTP/1.1\r\n\r\n", "HTTP/1.1 500", "");
    char large[9000];
    memset(large, 'a', sizeof large);
    memcpy(large, "GET /", 5);
    large[8999] = '\0';
    int fd = dial();
    (void)send(fd, large, 8192, MSG_NOSIGNAL);
    char *text = read_all(fd, NULL);
    assert_int_equal(strncmp(text, "HTTP/1.1 431", 12), 0);
    free(text);
    fd = dial();
    assert_int_equal(send(fd, "GET /\0x HTTP/1.1\r\n\r\n", 20, MSG_NOSIGNAL), 20);
    text = read_all(fd, NULL);
    assert_int_equal(strncmp(text, "HTTP/1.1 400", 12), 0);
    free(text);
}

static void test_large_answer_and_pieces(void **state) {
    (void)state;
    int fd = dial();
    static const char request[] = "GET /big HTTP/1.1\r\n\r\n";
    for (size_t i = 0; i < sizeof request - 1; i++) {
        assert_int_equal(send(fd, request + i, 1, MSG_NOSIGNAL), 1);
        time_sleep_ms(1);
    }
    time_sleep_ms(50); /* let its buffers fill before reading */
    size_t n;
    char *text = read_all(fd, &n);
    const char *body = strstr(text, "\r\n\r\n") + 4;
    assert_int_equal(n - (size_t)(body - text), 2000000);
    assert_memory_equal(body + 1999990, "0123456789", 10);
    free(text);
}

static void test_silent_clients_do_not_block_others(void **state) {
    (void)state;
    int silent[40]; /* more than there are places */
    for (int i = 0; i < 40; i++) {
        silent[i] = dial();
        assert_int_equal(send(silent[i], "GET /m", 6, MSG_NOSIGNAL), 6);
    }
    int64_t began = time_mono_ms();
    expect("GET /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 200", "up 1");
    int64_t took = time_mono_ms() - began;
    assert_true(took < 12000); /* the silent ones are cut off after five seconds */
    char c;
    assert_int_equal(recv(silent[0], &c, 1, 0), 0);
    for (int i = 0; i < 40; i++) {
        close(silent[i]);
    }
    began = time_mono_ms();
    int one = dial(); /* with free places, one silent client costs nothing */
    expect("GET /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 200", "up 1");
    assert_true(time_mono_ms() - began < 2000);
    close(one);
}

static void test_start_and_stop(void **state) {
    (void)state;
    err_t err;
    httpd_mini_t *other;
    assert_int_equal(httpd_mini_start("127.0.0.1", httpd_mini_port(server), handle, NULL, &other, &err), ERR_IO);
    assert_null(other);
    assert_string_equal(err.code, "listen_failed");
    assert_int_equal(httpd_mini_start("no.such.host.invalid", 0, handle, NULL, &other, &err), ERR_IO);
    int open_one = dial(); /* stop does not wait for clients */
    int64_t began = time_mono_ms();
    int port = httpd_mini_port(server);
    httpd_mini_stop(server);
    assert_true(time_mono_ms() - began < 2000);
    close(open_one);
    assert_int_equal(httpd_mini_start("127.0.0.1", port, handle, NULL, &server, &err),
                     ERR_OK); /* the port is free again */
    expect("GET /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 200", "up 1");
    httpd_mini_stop(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_large_answer_and_pieces),
        cmocka_unit_test(test_silent_clients_do_not_block_others),
        cmocka_unit_test(test_start_and_stop),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
