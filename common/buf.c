/*
 * Growable buffer with a cap (see buf.h). Growth doubles, so that appending n bytes one at a time costs O(n);
 * a failed buffer keeps what it had, so that a caller can still log the beginning.
 */
#include "buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Makes room for n more bytes and the NUL. Sets failed and returns false when that is not allowed or possible. */
static bool reserve(buf_t *b, size_t n) {
    if (b->failed) {
        return false;
    }
    if (b->len > b->cap || n > b->cap - b->len || b->len + n == SIZE_MAX) {
        b->failed = true;
        return false;
    }
    size_t need = b->len + n + 1;
    if (need <= b->room) {
        return true;
    }
    size_t room = b->room < 64 ? 64 : b->room;
    while (room < need) {
        room = room > SIZE_MAX / 2 ? need : room * 2;
    }
    if (b->cap < SIZE_MAX && room > b->cap + 1) {
        room = b->cap + 1;
    }
    char *p = realloc(b->data, room);
    if (!p) {
        b->failed = true;
        return false;
    }
    b->data = p;
    b->room = room;
    return true;
}

void buf_init(buf_t *b, size_t cap) {
    *b = (buf_t){.cap = cap};
}

void buf_free(buf_t *b) {
    if (b) {
        free(b->data);
        *b = (buf_t){.cap = b->cap};
    }
}

void buf_reset(buf_t *b) {
    b->len = 0;
    b->failed = false;
    if (b->data) {
        b->data[0] = '\0';
    }
}

void buf_append(buf_t *b, const void *p, size_t n) {
    if (!reserve(b, n)) {
        return;
    }
    if (n > 0) {
        memcpy(b->data + b->len, p, n);
        b->len += n;
    }
    b->data[b->len] = '\0';
}

void buf_puts(buf_t *b, const char *s) {
    buf_append(b, s, strlen(s));
}

void buf_printf(buf_t *b, const char *fmt, ...) {
    if (b->failed) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    va_list again;
    va_copy(again, ap);
    char none[1];
    char *at = none;
    size_t room = 0;
    if (b->data) {
        at = b->data + b->len;
        room = b->room - b->len;
    }
    int n = vsnprintf(at, room, fmt, ap);
    va_end(ap);
    if (n < 0) {
        b->failed = true;
    } else if ((size_t)n < room) {
        b->len += (size_t)n; /* it fitted at the first try; room never goes past the cap */
    } else {
        if (room > 0) {
            *at = '\0'; /* the first try may have left a part of the text behind */
        }
        if (reserve(b, (size_t)n)) {
            (void)vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
            b->len += (size_t)n;
        }
    }
    va_end(again);
}

void buf_put_u8(buf_t *b, uint8_t v) {
    buf_append(b, &v, 1);
}

void buf_put_u16le(buf_t *b, uint16_t v) {
    const uint8_t p[2] = {(uint8_t)(v & 0xFFU), (uint8_t)(v >> 8)};
    buf_append(b, p, sizeof p);
}

void buf_put_u32le(buf_t *b, uint32_t v) {
    const uint8_t p[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    buf_append(b, p, sizeof p);
}

void buf_put_f32le(buf_t *b, float v) {
    uint32_t bits;
    _Static_assert(sizeof bits == sizeof v, "float is IEEE 754 binary32");
    memcpy(&bits, &v, sizeof bits);
    buf_put_u32le(b, bits);
}

char *buf_take(buf_t *b, size_t *len) {
    char *p = b->data;
    if (len) {
        *len = b->len;
    }
    *b = (buf_t){.cap = b->cap};
    return p;
}
