/*
 * What the WebSocket files share: ws_hub.c (who is there, and the way of an event), ws_subscribe.c (who hears what,
 * snapshots), ws_order.c (no step back), ws_queue.c (what waits for a socket), ws_loop.c (the threads that serve the
 * sockets), ws_socket.c (one socket), ws_desk.c (the threads that may wait for a database), ws_serve.c (handshake).
 *
 * Threads. A connection starts on a thread of civetweb, which leaves it to a loop after the handshake. From then on its
 * TLS object, its descriptor and its reader belong to that loop's thread alone; nobody else touches them. Whoever has
 * something for the socket puts it into its queue and calls ws_loop_touch. What has to ask PostgreSQL or wait for Redis
 * goes to the desk, one thing per socket at a time, and the loop reads no further from that client until it is done, so
 * that answers keep the order of the questions.
 *
 * Locks, in their order: hub->channels_lock ((un)subscribing at Redis, which may wait), hub->lock (the list of sockets,
 * their names and subscriptions, the table of projects, the order), socket->lock (its queue), loop->lock (who is to be
 * served), desk->lock. The subscriber's callback takes hub->lock and those after it only.
 */
#ifndef SG_GATEWAY_WS_INTERNAL_H
#define SG_GATEWAY_WS_INTERNAL_H

#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>

#include "common/buf.h"
#include "common/events.h"
#include "ws_frame.h"
#include "ws_hub.h"
#include "ws_order.h"

enum { WS_SUBSCRIPTIONS_MAX = 20, WS_PROJECT_BUCKETS = 4096, WS_LOOPS_MAX = 64, WS_DESK_THREADS = 4 };
/* Of what waits for one socket, and for all of them together: shared messages count once. Above the second, whoever
 * is behind is closed, and snapshots wait. */
#define WS_QUEUE_BYTES_MAX ((size_t)64 * 1024 * 1024)
#define WS_ALL_BYTES_MAX ((size_t)256 * 1024 * 1024)

typedef struct ws_socket ws_socket_t;
typedef struct ws_loop ws_loop_t;
typedef struct ws_desk ws_desk_t;

/* A text message, framed once and shared by the queues it waits in. */
typedef struct {
    atomic_int refs;
    atomic_size_t *account; /* bytes of all messages alive */
    bool progress;          /* a newer one with the same key may take its place */
    char key[37];           /* job id, or "queue"; empty: none */
    size_t len;             /* of the frame */
    unsigned char frame[];  /* header and text */
} ws_message_t;

/* One listener of a project. */
typedef struct {
    ws_socket_t *socket;
    uint64_t snapshot; /* number of the last snapshot that it was sent; 0: none yet */
    uint64_t begun;    /* the number when PostgreSQL was asked for that snapshot */
} ws_listener_t;

/* A project that somebody here hears. hub->lock */
typedef struct ws_project {
    struct ws_project *next; /* same bucket */
    char id[37];
    ws_listener_t *listeners;
    int count, room;
} ws_project_t;

typedef struct {
    ws_project_t *project;
    bool wants_snapshot;
} ws_subscription_t;

typedef enum { WS_WORK_NONE, WS_WORK_SUBSCRIBE, WS_WORK_UNSUBSCRIBE, WS_WORK_LEAVE } ws_work_t;

/* In the order of owners, for which 48 bytes of padding are a fair price. */
// NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding)
struct ws_socket {
    ws_hub_t *hub;
    ws_loop_t *loop;

    /* hub->lock */
    ws_socket_t *prev, *next;
    ws_subscription_t *subscriptions; /* grows to WS_SUBSCRIPTIONS_MAX */
    int subscription_count, subscription_room;
    bool hears_queue;
    char user_id[37]; /* set once */

    /* lock */
    pthread_mutex_t lock;
    ws_message_t **ring; /* grows to room_max */
    int head, count, room, room_max;
    size_t bytes;
    int close_code; /* 0: open */
    bool resync;    /* events may have been missed: snapshots again */

    /* loop->lock */
    ws_socket_t *touched_next;
    bool adopted, touched, desk_done;

    /* the desk's while `busy`, the loop's otherwise */
    ws_socket_t *desk_next;
    ws_work_t work;
    char work_project[37];
    int64_t retry_snapshot_ms;
    atomic_bool snapshots_due; /* a subscription wants one; set under hub->lock, read by the loop without */

    /* the loop's thread */
    ws_socket_t *loop_prev, *loop_next;
    bool registered, busy, leaving;
    SSL *tls;
    int fd;
    bool can_read, can_write, broken; /* broken: TLS may not even say good-bye */
    ws_reader_t reader;
    unsigned char *rest; /* read, but not yet looked at: the desk is busy with what came before */
    size_t rest_len;
    ws_message_t *out_message; /* being written: a message … */
    unsigned char *out_copy;   /* … or the rest of a batch that was cut short */
    const unsigned char *out;
    size_t out_len, out_sent;
    bool named, closing, gone;
    int sent_close_code;
    unsigned char pong[WS_CONTROL_MAX];
    size_t pong_len;
    bool wants_pong;
    int64_t expires_ms; /* wall clock; of the access token */
    int64_t heard_ms, pinged_ms, moved_ms, close_by_ms, auth_by_ms;
    int64_t window_start_ms;
    int window_messages;
    int64_t bytes_out;
    char request_id[37];
};

struct ws_hub {
    gateway_t *gw;
    events_sub_t *events;
    pthread_mutex_t lock, channels_lock;
    ws_socket_t *sockets; /* hub->lock, as all to the next gap */
    int socket_count;
    bool closing;
    ws_project_t *projects[WS_PROJECT_BUCKETS];
    ws_order_t *order;
    uint64_t snapshots; /* counts the beginnings and the ends of snapshots: each gets a number */

    int64_t redis_slow_until_ms; /* channels_lock: it did not confirm in time, so do not wait again for a while */
    ws_loop_t *loops[WS_LOOPS_MAX];
    int loop_count;
    atomic_uint next_loop;
    ws_desk_t *desk;
    pthread_t feeder;
    bool feeder_running;
    atomic_bool stop;
    atomic_size_t message_bytes;
    atomic_uint_fast64_t sent_total, dropped_total, stale_total, slow_total;
};

/* ---- ws_hub.c ---- */
/* Registers a socket and gives it a loop. ERR_LIMIT "too_many_sockets" (this person's, 429) or ERR_UNAVAILABLE
 * "too_many_sockets_in_all". */
ERR_MUST err_kind_t ws_hub_enter(ws_hub_t *hub, ws_socket_t *s, const char *user_id, err_t *err);
/* Names the person of a socket that came in without one; the same cap. */
ERR_MUST err_kind_t ws_hub_name(ws_hub_t *hub, ws_socket_t *s, const char *user_id, err_t *err);
/* Ends its subscriptions too. May wait for Redis's lock. */
void ws_hub_leave(ws_hub_t *hub, ws_socket_t *s);

/* ---- ws_subscribe.c ---- */
/* hub->lock held. NULL: nobody hears it. */
ws_project_t *ws_project_find(const ws_hub_t *hub, const char *project_id);
/* The project must be the person's own. The snapshot is wanted afterwards. ERR_NOT_FOUND, ERR_LIMIT. Waits. */
ERR_MUST err_kind_t ws_hub_subscribe(ws_hub_t *hub, ws_socket_t *s, const char *project_id, err_t *err);
void ws_hub_unsubscribe(ws_hub_t *hub, ws_socket_t *s, const char *project_id);
void ws_hub_hear_queue(ws_hub_t *hub, ws_socket_t *s, bool hear);
/* NULL: of every project that it hears. */
void ws_hub_want_snapshot(ws_hub_t *hub, ws_socket_t *s, const char *project_id);
/* Sends the snapshots that are due; those that could not be made are due again at s->retry_snapshot_ms. Waits. */
void ws_hub_send_snapshots(ws_hub_t *hub, ws_socket_t *s);

/* ---- ws_queue.c: any thread ---- */
/* Copies text; the caller holds one reference. NULL when memory is gone. */
ws_message_t *ws_message_create(ws_hub_t *hub, const char *text, size_t len, const char *key, bool progress);
void ws_message_release(ws_message_t *m);
/* Puts a message into the queue (takes its own reference) or, at the bound, closes the socket with 4408. */
void ws_socket_send(ws_socket_t *s, ws_message_t *m);
void ws_socket_send_text(ws_socket_t *s, const char *text);
void ws_socket_send_error(ws_socket_t *s, const char *code, const char *message);
void ws_socket_close(ws_socket_t *s, int code);
void ws_socket_resync(ws_socket_t *s);
/* The next message, with its reference, if its frame has at most `most` bytes; NULL otherwise. */
ws_message_t *ws_socket_take(ws_socket_t *s, size_t most);
void ws_socket_clear(ws_socket_t *s);

/* ---- ws_loop.c ---- */
ERR_MUST err_kind_t ws_loop_create(ws_hub_t *hub, ws_loop_t **out, err_t *err);
/* Joins the thread. No socket may be left. */
void ws_loop_destroy(ws_loop_t *loop);
/* Hands the socket, its TLS object and its descriptor over. */
void ws_loop_adopt(ws_socket_t *s);
/* The socket shall be served soon; before its adoption nothing happens. Any thread that knows it is alive. */
void ws_loop_touch(ws_socket_t *s);
/* The desk has done what it was given; its last word on s. */
void ws_loop_desk_done(ws_socket_t *s);
int ws_loop_epoll(const ws_loop_t *loop);
#define WS_BATCH_BYTES ((size_t)16 * 1024) /* one TLS record */
/* Where a batch is put together; the loop's thread only. */
unsigned char *ws_loop_scratch(ws_loop_t *loop);

/* ---- ws_desk.c ---- */
ERR_MUST err_kind_t ws_desk_create(ws_hub_t *hub, ws_desk_t **out, err_t *err);
/* After the loops have let go of every socket. */
void ws_desk_destroy(ws_desk_t *desk);
/* Does s->work, then sends the snapshots that are due, then calls ws_loop_desk_done. */
void ws_desk_post(ws_desk_t *desk, ws_socket_t *s);

/* ---- ws_socket.c: the loop's thread, but for create and destroy ---- */
ws_socket_t *ws_socket_create(ws_hub_t *hub);
void ws_socket_destroy(ws_socket_t *s);
/* Reads, obeys and writes what is possible now. True: there is more to do at once. */
bool ws_socket_serve(ws_socket_t *s);
/* What the clock demands: ping, expiry, giving up. True: it wants to be served. */
bool ws_socket_check_clocks(ws_socket_t *s, int64_t now);
/* Says good-bye if it still can, and closes the descriptor. */
void ws_socket_hang_up(ws_socket_t *s);

#endif
