/*
 * What ws_hub.c (who hears what) and ws_socket.c (one socket's life) share.
 *
 * Locks: hub->lock guards the list of sockets and their subscriptions; socket->lock guards its outbound queue. Order:
 * hub, then socket. hub->channels_lock serialises (un)subscribing at Redis, which may wait, and is taken before
 * hub->lock; the subscriber's callback takes hub->lock only.
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

enum { WS_SUBSCRIPTIONS_MAX = 20 };
#define WS_QUEUE_BYTES_MAX ((size_t)64 * 1024 * 1024)

/* A text message, shared by the queues it waits in. */
typedef struct {
    atomic_int refs;
    bool progress; /* a newer one with the same key may take its place */
    char key[37];  /* job id, or "queue"; empty: none */
    size_t len;
    char text[];
} ws_message_t;

/* ---- ws_queue.c ---- */
/* Copies text; the caller holds one reference. NULL when memory is gone. */
ws_message_t *ws_message_create(const char *text, size_t len, const char *key, bool progress);
void ws_message_release(ws_message_t *m);

typedef struct {
    char project_id[37];
    bool wants_snapshot;
} ws_subscription_t;

typedef struct ws_socket {
    ws_hub_t *hub;
    struct ws_socket *prev, *next;                         /* hub->lock */
    ws_subscription_t subscriptions[WS_SUBSCRIPTIONS_MAX]; /* hub->lock; changed by the socket's own thread */
    int subscription_count;                                /* hub->lock */
    bool hears_queue;                                      /* hub->lock */
    char user_id[37];                                      /* hub->lock; set once by the socket's own thread */
    int wake_fd;                                           /* eventfd: something is in the queue */
    pthread_mutex_t lock;
    ws_message_t **ring; /* socket->lock, and all below */
    int head, count, room;
    size_t bytes;
    int close_code; /* 0: open */
    bool resync;    /* events may have been missed: snapshots again */
} ws_socket_t;

struct ws_hub {
    gateway_t *gw;
    events_sub_t *events;
    pthread_mutex_t lock, channels_lock;
    ws_socket_t *sockets; /* hub->lock */
    int socket_count;
    bool closing;
    pthread_t feeder;
    bool feeder_running;
    atomic_bool stop;
    atomic_uint_fast64_t sent_total, dropped_total;
};

/* ---- ws_hub.c ---- */
/* Registers a socket. ERR_LIMIT "too_many_sockets" (this person's, 429) or ERR_UNAVAILABLE "too_many_sockets_in_all".
 */
ERR_MUST err_kind_t ws_hub_enter(ws_hub_t *hub, ws_socket_t *s, const char *user_id, err_t *err);
/* Names the person of a socket that came in without one; the same cap. */
ERR_MUST err_kind_t ws_hub_name(ws_hub_t *hub, ws_socket_t *s, const char *user_id, err_t *err);
void ws_hub_leave(ws_hub_t *hub, ws_socket_t *s);
/* The project must be the person's own. The snapshot is wanted afterwards. ERR_NOT_FOUND, ERR_LIMIT. */
ERR_MUST err_kind_t ws_hub_subscribe(ws_hub_t *hub, ws_socket_t *s, const char *project_id, err_t *err);
void ws_hub_unsubscribe(ws_hub_t *hub, ws_socket_t *s, const char *project_id);
void ws_hub_hear_queue(ws_hub_t *hub, ws_socket_t *s, bool hear);
/* The next project whose snapshot is due; false when there is none. Clears the wish. */
bool ws_hub_next_snapshot(ws_hub_t *hub, ws_socket_t *s, char project_id[37]);
void ws_hub_want_snapshot(ws_hub_t *hub, ws_socket_t *s, const char *project_id);
ERR_MUST err_kind_t ws_hub_snapshot(ws_hub_t *hub, const char *project_id, const char *user_id, ws_message_t **out,
                                    err_t *err);

/* ---- ws_queue.c: any thread ---- */
/* Puts a message into the queue (takes its own reference) or, at the bound, closes the socket with 4408. */
void ws_socket_send(ws_socket_t *s, ws_message_t *m);
void ws_socket_close(ws_socket_t *s, int code);
void ws_socket_resync(ws_socket_t *s);
void ws_socket_clear(ws_socket_t *s);

#endif
