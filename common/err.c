/*
 * Error values: fixed-size, allocation-free, so that running out of memory can still be reported.
 * Texts are formatted into a scratch buffer first, so that an argument may come from the same err_t.
 */
#include "err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Copies src into dst and cuts at a character boundary, so that a cut message is still valid UTF-8. */
static void copy_text(char *dst, size_t room, const char *src) {
    size_t n = strnlen(src, room);
    if (n == room) {
        n = room - 1;
        while (n > 0 && ((unsigned char)src[n] & 0xC0U) == 0x80U) {
            n--;
        }
    }
    memmove(dst, src, n);
    dst[n] = '\0';
}

static void format_text(char *dst, size_t room, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0), nonnull(3)));

static void format_text(char *dst, size_t room, const char *fmt, va_list ap) {
    char scratch[1024];
    if (vsnprintf(scratch, sizeof scratch, fmt, ap) < 0) {
        scratch[0] = '\0';
    }
    copy_text(dst, room, scratch);
}

err_kind_t(err_set)(err_t *err, err_kind_t kind, const char *code, const char *message, const char *detail_fmt, ...) {
    if (!err) {
        return kind;
    }
    err_t next = {.kind = kind};
    if (detail_fmt) {
        va_list ap;
        va_start(ap, detail_fmt);
        format_text(next.detail, sizeof next.detail, detail_fmt, ap);
        va_end(ap);
    }
    copy_text(next.code, sizeof next.code, code ? code : "");
    copy_text(next.message, sizeof next.message, message ? message : "");
    *err = next;
    return kind;
}

err_kind_t(err_setf)(err_t *err, err_kind_t kind, const char *code, const char *message_fmt, ...) {
    if (!err) {
        return kind;
    }
    err_t next = {.kind = kind};
    va_list ap;
    va_start(ap, message_fmt);
    format_text(next.message, sizeof next.message, message_fmt, ap);
    va_end(ap);
    copy_text(next.code, sizeof next.code, code ? code : "");
    *err = next;
    return kind;
}

void err_clear(err_t *err) {
    if (err) {
        memset(err, 0, sizeof *err);
    }
}

int err_http_status(err_kind_t kind) {
    switch (kind) {
    case ERR_OK:
        return 200;
    case ERR_INVALID:
        return 400;
    case ERR_UNAUTHENTICATED:
        return 401;
    case ERR_FORBIDDEN:
        return 403;
    case ERR_NOT_FOUND:
        return 404;
    case ERR_CONFLICT:
    case ERR_CANCELLED:
        return 409;
    case ERR_PRECONDITION:
        return 412;
    case ERR_TOO_LARGE:
        return 413;
    case ERR_UNSUPPORTED:
        return 415;
    case ERR_LIMIT:
        return 429;
    case ERR_UNAVAILABLE:
        return 503;
    case ERR_TIMEOUT:
        return 504;
    case ERR_NO_MEMORY:
    case ERR_IO:
    case ERR_INTERNAL:
        return 500;
    }
    return 500;
}

int err_is_retryable(err_kind_t kind) {
    switch (kind) {
    case ERR_UNAVAILABLE:
    case ERR_TIMEOUT:
    case ERR_LIMIT:
    case ERR_IO:
    case ERR_NO_MEMORY:
    case ERR_INTERNAL:
        return 1;
    default:
        return 0;
    }
}

const char *err_kind_name(err_kind_t kind) {
    static const char *const names[] = {
        [ERR_OK] = "ok",
        [ERR_INVALID] = "invalid",
        [ERR_UNAUTHENTICATED] = "unauthenticated",
        [ERR_FORBIDDEN] = "forbidden",
        [ERR_NOT_FOUND] = "not found",
        [ERR_CONFLICT] = "conflict",
        [ERR_PRECONDITION] = "precondition failed",
        [ERR_TOO_LARGE] = "too large",
        [ERR_UNSUPPORTED] = "unsupported",
        [ERR_LIMIT] = "limit reached",
        [ERR_UNAVAILABLE] = "unavailable",
        [ERR_TIMEOUT] = "timeout",
        [ERR_CANCELLED] = "cancelled",
        [ERR_NO_MEMORY] = "out of memory",
        [ERR_IO] = "input/output",
        [ERR_INTERNAL] = "internal",
    };
    if ((int)kind < 0 || (size_t)kind >= sizeof names / sizeof names[0]) {
        return "unknown";
    }
    return names[kind];
}
