/*
 * WebSocket frames (RFC 6455): an incremental reader of what clients send, with every length bounded before a byte is
 * stored, and a writer of frame headers. No I/O. One reader belongs to one socket; between messages it holds no memory.
 */
#ifndef SG_GATEWAY_WS_FRAME_H
#define SG_GATEWAY_WS_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WS_MESSAGE_MAX = 4096, WS_CONTROL_MAX = 125, WS_HEADER_MAX = 10 };

enum { WS_OP_CONTINUATION = 0, WS_OP_TEXT = 1, WS_OP_BINARY = 2, WS_OP_CLOSE = 8, WS_OP_PING = 9, WS_OP_PONG = 10 };

/* Close codes: RFC 6455 §7.4.1 and, from 4000, our own (proto/events.md). */
enum {
    WS_CLOSE_NORMAL = 1000,
    WS_CLOSE_GOING_AWAY = 1001,
    WS_CLOSE_PROTOCOL = 1002,
    WS_CLOSE_UNSUPPORTED = 1003,
    WS_CLOSE_NOT_UTF8 = 1007,
    WS_CLOSE_POLICY = 1008,
    WS_CLOSE_TOO_BIG = 1009,
    WS_CLOSE_INTERNAL = 1011,
    WS_CLOSE_AUTH = 4401,
    WS_CLOSE_SLOW = 4408,
    WS_CLOSE_TOO_MANY = 4429
};

typedef enum {
    WS_MORE, /* everything was consumed, nothing is complete */
    WS_TEXT, /* a whole message: reader->message, NUL-terminated, valid UTF-8 */
    WS_PING, /* payload in reader->control */
    WS_PONG,
    WS_CLOSE, /* payload in reader->control */
    WS_BROKEN /* close with reader->error; the reader takes no more */
} ws_event_t;

typedef struct {
    int state;
    unsigned char opcode;
    bool fin, in_message;
    int length_bytes;     /* of an extended length still to come */
    uint64_t length, got; /* of this frame's payload */
    unsigned char mask[4];
    int mask_bytes;
    size_t message_len, control_len;
    int error;
    char *message; /* WS_MESSAGE_MAX + 1 bytes while a message is on its way or has just come; NULL otherwise */
    unsigned char control[WS_CONTROL_MAX + 1];
} ws_reader_t;

void ws_reader_init(ws_reader_t *r);
/* Lets go of the message: after WS_TEXT has been dealt with, and at the end. */
void ws_reader_free(ws_reader_t *r);

/* Takes bytes from data until one event is complete; *used says how many. Call again with the rest. */
ws_event_t ws_reader_feed(ws_reader_t *r, const unsigned char *data, size_t n, size_t *used);

/* Header of an unmasked, unfragmented frame; returns its length. */
size_t ws_frame_header(unsigned char out[WS_HEADER_MAX], int opcode, uint64_t length);

/* Sec-WebSocket-Accept for a Sec-WebSocket-Key; false when the key is not 16 bytes of base64. */
bool ws_accept_key(const char *key, char out[32]);

#endif
