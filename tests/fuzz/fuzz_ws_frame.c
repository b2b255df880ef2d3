/*
 * The WebSocket reader on arbitrary bytes. The first byte chooses how they are cut: the same events with the same
 * contents must come out as when they are fed whole, within the bounds, and between messages nothing is held.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "gateway/ws_frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t mix(uint64_t h, const void *p, size_t n) {
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ b[i]) * 1099511628211ULL;
    }
    return h;
}

/* A hash of all events. */
static uint64_t run(const uint8_t *data, size_t size, size_t piece) {
    ws_reader_t r;
    uint64_t h = 14695981039346656037ULL;
    ws_reader_init(&r);
    for (size_t at = 0; at < size; at += piece) {
        size_t n = size - at < piece ? size - at : piece;
        for (size_t done = 0; done < n;) {
            size_t used = 0;
            ws_event_t e = ws_reader_feed(&r, data + at + done, n - done, &used);
            if (used == 0 || used > n - done || r.message_len > WS_MESSAGE_MAX || r.control_len > WS_CONTROL_MAX) {
                abort();
            }
            done += used;
            if (e == WS_MORE) {
                continue;
            }
            h = mix(h, &e, sizeof e);
            if (e == WS_TEXT) {
                if (strnlen(r.message, WS_MESSAGE_MAX + 1) > r.message_len ||
                    !utf8_is_valid(r.message, r.message_len)) {
                    abort();
                }
                h = mix(h, r.message, r.message_len);
                ws_reader_free(&r);
            } else if (e == WS_BROKEN) {
                h = mix(h, &r.error, sizeof r.error);
                ws_reader_free(&r);
                return h;
            } else {
                h = mix(h, r.control, r.control_len);
            }
        }
    }
    ws_reader_free(&r);
    return h;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) {
        return 0;
    }
    if (run(data + 1, size - 1, size) != run(data + 1, size - 1, (size_t)data[0] % 16 + 1)) {
        abort();
    }
    /* The rest of the module: a key as a client sends it. */
    char key[32] = "";
    char accept[32];
    memcpy(key, data, size < sizeof key - 1 ? size : sizeof key - 1);
    if (ws_accept_key(key, accept) && strlen(accept) != 28) {
        abort();
    }
    return 0;
}
