/*
 * Plays many WebSocket clients for bench_websocket.py, as cheaply as it can: one thread, epoll, OpenSSL. What it needs
 * for itself is measured (CPU time) and printed with the figures.
 *
 * ws_clients CA PORT[,PORT…] TOKEN CLIENTS PROJECTS SLOW   (ids as bench_websocket.py's project_id)
 *
 * Client i talks to port i mod n and hears the shared project and project 1 + i mod PROJECTS; SLOW further clients hear
 * the flooded one and never read. Commands on standard input, one answer line each:
 *   reset N      every N-th client vanishes with a TCP reset; "ok COUNT"
 *   begin        forgets what was received
 *   count        "count DELIVERIES"
 *   end FILE     writes every delivery as "client number microseconds" to FILE; "end CPU_S OPEN"
 * An event carries "number" and "sent" (CLOCK_MONOTONIC seconds); a delivery is noted when it has been decrypted.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROOM 65536 /* the largest frame that is expected */
#define PORTS_MAX 16
static const char shared_project[] = "00000000-0000-4000-8000-0000000000aa";
static const char flooded_project[] = "00000000-0000-4000-8000-0000000000bb";

typedef struct {
    int fd, index;
    SSL *tls;
    unsigned char *kept; /* a frame that has not arrived whole */
    size_t kept_len;
    bool closed;
} client_t;

typedef struct {
    int32_t client, number;
    double delay;
} delivery_t;

static client_t *clients;
static int client_count, slow_count, project_count;
static delivery_t *deliveries;
static size_t delivery_count, delivery_room;
static SSL_CTX *tls_context;
static int epoll_fd;

static void die(const char *what) {
    (void)fprintf(stderr, "ws_clients: %s (%s)\n", what, strerror(errno));
    ERR_print_errors_fp(stderr);
    exit(1);
}

static double now_s(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_s(void) {
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* ---- frames ---- */

static void send_frame(client_t *c, int opcode, const char *text, size_t n) {
    unsigned char out[256] = {(unsigned char)(0x80 | opcode), (unsigned char)(0x80 | n)}; /* mask 0: as it is */
    if (n > 125) {
        die("message too long");
    }
    memcpy(out + 6, text, n);
    if (SSL_write(c->tls, out, (int)(6 + n)) <= 0) {
        c->closed = true;
    }
}

static double number_after(const char *text, size_t n, const char *key) {
    const char *at = memmem(text, n, key, strlen(key));
    return at ? strtod(at + strlen(key), NULL) : -1;
}

static void note(const client_t *c, char *text, size_t n, double now) {
    char end = text[n];
    text[n] = '\0'; /* the byte is put back: the next frame may start there */
    double number = number_after(text, n, "\"number\": ");
    double sent = number_after(text, n, "\"sent\": ");
    text[n] = end;
    if (number < 0 || sent < 0) {
        return;
    }
    if (delivery_count == delivery_room) {
        delivery_room = delivery_room ? delivery_room * 2 : 1 << 16;
        deliveries = realloc(deliveries, delivery_room * sizeof *deliveries);
        if (!deliveries) {
            die("no memory");
        }
    }
    deliveries[delivery_count++] = (delivery_t){c->index, (int32_t)number, now - sent};
}

/* Length of the whole frame at data, 0 when more bytes are needed. */
static size_t frame_at(const unsigned char *data, size_t have, size_t *head) {
    if (have < 2) {
        return 0;
    }
    size_t len = data[1] & 0x7f;
    *head = len < 126 ? 2 : len == 126 ? 4 : 10;
    if (have < *head) {
        return 0;
    }
    if (len >= 126) {
        len = 0;
        for (size_t i = 2; i < *head; i++) {
            len = len << 8 | data[i];
        }
    }
    return have - *head >= len ? *head + len : 0;
}

/* Calls note for the events in what was read; the rest of a cut frame is kept. Returns how many snapshots came. */
static int take(client_t *c, unsigned char *data, size_t have, double now) {
    int snapshots = 0;
    size_t head = 0;
    size_t n;
    while ((n = frame_at(data, have, &head)) > 0) {
        int opcode = data[0] & 0x0f;
        char *text = (char *)data + head;
        if (opcode == 1) {
            snapshots += memmem(text, n - head, "\"type\":\"snapshot\"", 17) != NULL;
            note(c, text, n - head, now);
        } else if (opcode == 9) {
            send_frame(c, 10, text, n - head);
        } else if (opcode == 8) {
            c->closed = true;
        }
        data += n;
        have -= n;
    }
    free(c->kept);
    c->kept = NULL;
    c->kept_len = have;
    if (have > 0) {
        c->kept = malloc(have);
        if (!c->kept || have > ROOM / 2) {
            die("frame too long");
        }
        memcpy(c->kept, data, have);
    }
    return snapshots;
}

static int read_client(client_t *c) {
    static unsigned char data[ROOM + 1];
    int snapshots = 0;
    while (!c->closed) {
        if (c->kept_len > 0) {
            memcpy(data, c->kept, c->kept_len);
        }
        int r = SSL_read(c->tls, data + c->kept_len, (int)(ROOM - c->kept_len));
        if (r <= 0) {
            int e = SSL_get_error(c->tls, r);
            c->closed = e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE;
            return snapshots;
        }
        snapshots += take(c, data, c->kept_len + (size_t)r, now_s());
        /* Most often that was all, and the socket need not be asked again: epoll says when there is more. */
        if (SSL_pending(c->tls) == 0 && r < 8192) {
            return snapshots;
        }
    }
    return snapshots;
}

/* ---- connecting ---- */

static void subscribe(client_t *c, const char *project) {
    char text[126];
    int n = snprintf(text, sizeof text, "{\"type\":\"subscribe\",\"projectId\":\"%s\"}", project);
    send_frame(c, 1, text, (size_t)n);
}

static void upgrade(client_t *c, int port, const char *token) {
    char text[2048];
    size_t have = 0;
    int n = snprintf(text, sizeof text,
                     "GET /api/ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
                     "Authorization: Bearer %s\r\n\r\n",
                     port, token);
    if (n < 0 || (size_t)n >= sizeof text || SSL_write(c->tls, text, n) <= 0) {
        die("asking for the upgrade");
    }
    while (!memmem(text, have, "\r\n\r\n", 4)) {
        int r = SSL_read(c->tls, text + have, (int)(sizeof text - 1 - have));
        if (r <= 0) {
            die("closed in the handshake");
        }
        have += (size_t)r;
    }
    text[have] = '\0';
    if (strncmp(text, "HTTP/1.1 101 ", 13) != 0) {
        die(text);
    }
}

static void connect_client(client_t *c, int port, const char *token, bool slow) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int small = 4096;
    int one = 1;
    char own[40];
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (slow) {
        (void)setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    }
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&at, sizeof at) != 0) {
        die("connecting");
    }
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->tls = SSL_new(tls_context);
    if (!c->tls || SSL_set_fd(c->tls, c->fd) != 1 || SSL_connect(c->tls) != 1) {
        die("TLS handshake");
    }
    upgrade(c, port, token);
    int want = slow ? 1 : 2;
    if (slow) {
        subscribe(c, flooded_project);
    } else {
        (void)snprintf(own, sizeof own, "00000000-0000-4000-b000-%012d", 1 + c->index % project_count);
        subscribe(c, shared_project);
        subscribe(c, own);
    }
    while (want > 0) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        if (c->closed || poll(&p, 1, 60000) != 1) {
            die("no snapshot");
        }
        want -= read_client(c);
    }
    (void)fcntl(c->fd, F_SETFL, O_NONBLOCK);
    if (!slow) {
        struct epoll_event e = {.events = EPOLLIN, .data = {.ptr = c}};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e) != 0) {
            die("epoll_ctl");
        }
    }
}

/* ---- commands ---- */

static void reset_every(int n) {
    const struct linger hard = {.l_onoff = 1, .l_linger = 0};
    int count = 0;
    for (int i = 0; i<client_count; i += n> 0 ? n : 1) {
        client_t *c = &clients[i];
        if (!c->closed) {
            (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
            close(c->fd);
            c->closed = true;
            count++;
        }
    }
    printf("ok %d\n", count);
}

static void write_deliveries(const char *path) {
    FILE *f = fopen(path, "w");
    int open_count = 0;
    if (!f) {
        die(path);
    }
    for (size_t i = 0; i < delivery_count; i++) {
        (void)fprintf(f, "%d %d %.0f\n", deliveries[i].client, deliveries[i].number, deliveries[i].delay * 1e6);
    }
    (void)fclose(f);
    for (int i = 0; i < client_count; i++) {
        open_count += !clients[i].closed;
    }
    printf("end %.3f %d\n", cpu_s(), open_count);
}

static bool command(void) {
    char line[4096];
    ssize_t n = read(STDIN_FILENO, line, sizeof line - 1); /* the other side waits for each answer */
    if (n <= 0) {
        return false;
    }
    line[n] = '\0';
    line[strcspn(line, "\n")] = '\0';
    if (strncmp(line, "reset ", 6) == 0) {
        reset_every((int)strtol(line + 6, NULL, 10));
    } else if (strcmp(line, "begin") == 0) {
        delivery_count = 0;
        printf("ok %.3f\n", cpu_s());
    } else if (strcmp(line, "count") == 0) {
        printf("count %zu\n", delivery_count);
    } else if (strncmp(line, "end ", 4) == 0) {
        write_deliveries(line + 4);
    } else {
        die("unknown command");
    }
    (void)fflush(stdout);
    return true;
}

static void serve(void) {
    struct epoll_event events[256];
    struct epoll_event in = {.events = EPOLLIN, .data = {.ptr = NULL}};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &in) != 0) {
        die("epoll_ctl");
    }
    for (;;) {
        int n = epoll_wait(epoll_fd, events, 256, -1);
        for (int i = 0; i < n; i++) {
            client_t *c = events[i].data.ptr;
            if (!c) {
                if (!command()) {
                    return;
                }
            } else if (!c->closed) {
                (void)read_client(c);
                if (c->closed) {
                    (void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
                }
            }
        }
    }
}

int main(int argc, char **argv) {
    int ports[PORTS_MAX];
    int port_count = 0;
    if (argc != 7) {
        (void)fprintf(stderr, "usage: ws_clients CA PORT[,PORT] TOKEN CLIENTS PROJECTS SLOW\n");
        return 2;
    }
    for (char *p = argv[2]; *p && port_count < PORTS_MAX; p += *p == ',') {
        ports[port_count++] = (int)strtol(p, &p, 10);
    }
    client_count = (int)strtol(argv[4], NULL, 10);
    project_count = (int)strtol(argv[5], NULL, 10);
    slow_count = (int)strtol(argv[6], NULL, 10);
    (void)signal(SIGPIPE, SIG_IGN);
    tls_context = SSL_CTX_new(TLS_client_method());
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    clients = calloc((size_t)(client_count + slow_count), sizeof *clients);
    if (!tls_context || epoll_fd < 0 || !clients || port_count == 0 || project_count < 1 ||
        SSL_CTX_load_verify_locations(tls_context, argv[1], NULL) != 1) {
        die("start");
    }
    SSL_CTX_set_verify(tls_context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(tls_context, SSL_MODE_RELEASE_BUFFERS);
    for (int i = 0; i < client_count + slow_count; i++) {
        clients[i].index = i;
        connect_client(&clients[i], ports[i < client_count ? i % port_count : 0], argv[3], i >= client_count);
    }
    printf("connected\n");
    (void)fflush(stdout);
    serve();
    return 0;
}
