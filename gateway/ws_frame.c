/*
 * The reader is a state machine over single bytes: client messages are small and rare, so clarity wins.
 *
 * FIRST (fin, opcode) -> SECOND (mask, length) -> LENGTH (0, 2 or 8 bytes) -> MASK (4 bytes) -> PAYLOAD -> FIRST
 */
#include "ws_frame.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"

enum { FIRST, SECOND, LENGTH, MASK, PAYLOAD, BROKEN };

void ws_reader_init(ws_reader_t *r) {
    memset(r, 0, sizeof *r);
}

void ws_reader_free(ws_reader_t *r) {
    free(r->message);
    r->message = NULL;
    r->message_len = 0;
}

static ws_event_t broken(ws_reader_t *r, int code) {
    r->state = BROKEN;
    r->error = code;
    return WS_BROKEN;
}

static bool is_control(const ws_reader_t *r) {
    return r->opcode >= WS_OP_CLOSE;
}

static ws_event_t on_first(ws_reader_t *r, unsigned char b) {
    r->fin = (b & 0x80U) != 0;
    r->opcode = b & 0x0fU;
    if (b & 0x70U) {
        return broken(r, WS_CLOSE_PROTOCOL); /* no extension was agreed on */
    }
    if (is_control(r)) {
        if (!r->fin || r->opcode > WS_OP_PONG) {
            return broken(r, WS_CLOSE_PROTOCOL);
        }
        r->control_len = 0;
    } else if (r->opcode == WS_OP_BINARY) {
        return broken(r, WS_CLOSE_UNSUPPORTED);
    } else if (r->opcode > WS_OP_BINARY || (r->opcode == WS_OP_CONTINUATION) != r->in_message) {
        return broken(r, WS_CLOSE_PROTOCOL);
    }
    r->state = SECOND;
    return WS_MORE;
}

/* The length is known: check it before anything is stored. */
static ws_event_t check_length(ws_reader_t *r) {
    if (is_control(r) && r->length > WS_CONTROL_MAX) {
        return broken(r, WS_CLOSE_PROTOCOL);
    }
    if (!is_control(r) && r->length > WS_MESSAGE_MAX - r->message_len) {
        return broken(r, WS_CLOSE_TOO_BIG);
    }
    if (!is_control(r) && !r->message) {
        r->message = malloc(WS_MESSAGE_MAX + 1);
        if (!r->message) {
            return broken(r, WS_CLOSE_INTERNAL);
        }
    }
    r->got = 0;
    r->mask_bytes = 0;
    r->state = MASK;
    return WS_MORE;
}

static ws_event_t on_second(ws_reader_t *r, unsigned char b) {
    if (!(b & 0x80U)) {
        return broken(r, WS_CLOSE_PROTOCOL); /* RFC 6455 §5.1: clients must mask */
    }
    r->length = b & 0x7fU;
    if (r->length < 126) {
        return check_length(r);
    }
    r->length_bytes = r->length == 126 ? 2 : 8;
    r->length = 0;
    r->state = LENGTH;
    return WS_MORE;
}

static ws_event_t frame_done(ws_reader_t *r) {
    r->state = FIRST;
    switch (r->opcode) {
    case WS_OP_PING:
        return WS_PING;
    case WS_OP_PONG:
        return WS_PONG;
    case WS_OP_CLOSE:
        return WS_CLOSE;
    default:
        break;
    }
    r->in_message = !r->fin;
    if (!r->fin) {
        return WS_MORE;
    }
    r->message[r->message_len] = '\0';
    if (!utf8_is_valid(r->message, r->message_len)) {
        return broken(r, WS_CLOSE_NOT_UTF8);
    }
    return WS_TEXT;
}

static void store(ws_reader_t *r, unsigned char b) {
    b ^= r->mask[r->got & 3U];
    r->got++;
    if (is_control(r)) {
        r->control[r->control_len++] = b;
    } else {
        r->message[r->message_len++] = (char)b;
    }
}

static ws_event_t on_byte(ws_reader_t *r, unsigned char b) {
    switch (r->state) {
    case FIRST:
        if (!r->in_message) {
            r->message_len = 0;
        }
        return on_first(r, b);
    case SECOND:
        return on_second(r, b);
    case LENGTH:
        r->length = (r->length << 8) | b;
        return --r->length_bytes == 0 ? check_length(r) : WS_MORE;
    case MASK:
        r->mask[r->mask_bytes++] = b;
        if (r->mask_bytes < 4) {
            return WS_MORE;
        }
        r->state = PAYLOAD;
        return r->length == 0 ? frame_done(r) : WS_MORE;
    case PAYLOAD:
        store(r, b);
        return r->got == r->length ? frame_done(r) : WS_MORE;
    default:
        return WS_BROKEN;
    }
}

ws_event_t ws_reader_feed(ws_reader_t *r, const unsigned char *data, size_t n, size_t *used) {
    for (size_t i = 0; i < n; i++) {
        ws_event_t e = on_byte(r, data[i]);
        if (e != WS_MORE) {
            *used = i + 1;
            return e;
        }
    }
    *used = n;
    return WS_MORE;
}

size_t ws_frame_header(unsigned char out[WS_HEADER_MAX], int opcode, uint64_t length) {
    out[0] = (unsigned char)(0x80 | (opcode & 0x0f));
    if (length < 126) {
        out[1] = (unsigned char)length;
        return 2;
    }
    int bytes = length <= 0xffff ? 2 : 8;
    out[1] = bytes == 2 ? 126 : 127;
    for (int i = 0; i < bytes; i++) {
        out[2 + i] = (unsigned char)(length >> (8 * (bytes - 1 - i)));
    }
    return 2 + (size_t)bytes;
}

bool ws_accept_key(const char *key, char out[32]) {
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* RFC 6455 §1.3 */
    char text[24 + sizeof guid];
    unsigned char raw[24];
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int n = 0;
    if (strlen(key) != 24 || strcmp(key + 22, "==") != 0 ||
        EVP_DecodeBlock(raw, (const unsigned char *)key, 24) != 18) {
        return false;
    }
    memcpy(text, key, 24);
    memcpy(text + 24, guid, sizeof guid);
    if (EVP_Digest(text, strlen(text), digest, &n, EVP_sha1(), NULL) != 1 || n != 20) {
        return false;
    }
    (void)EVP_EncodeBlock((unsigned char *)out, digest, 20);
    return true;
}
