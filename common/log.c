/*
 * Log lines (see log.h). A line is built on the stack and leaves in one write(2), so that lines of many threads
 * and of processes that share a pipe do not mix, and logging needs neither a lock nor the heap.
 */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "timeutil.h"
#include "utf8.h"

enum { LINE_MAX_BYTES = 16384, VALUE_MAX = 2048, TAIL = 2 /* brace and newline */ };

typedef struct {
    char text[LINE_MAX_BYTES];
    size_t len;
} line_t;

static const char *log_component = "spheroseg";
/* Lock-free on every platform we build for, hence usable in a signal handler. */
static atomic_int log_level_now = LOG_INFO;
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "log_set_level must be async-signal-safe");

void log_init(const char *component, log_level_t level) {
    log_component = component;
    log_set_level(level);
}

void log_set_level(log_level_t level) {
    atomic_store_explicit(&log_level_now, (int)level, memory_order_relaxed);
}

log_level_t log_get_level(void) {
    return (log_level_t)atomic_load_explicit(&log_level_now, memory_order_relaxed);
}

static const char *const level_names[] = {"error", "warn", "info", "debug"};

bool log_parse_level(const char *word, log_level_t *out) {
    for (int i = 0; i < 4; i++) {
        if (strcasecmp(word, level_names[i]) == 0) {
            *out = (log_level_t)i;
            return true;
        }
    }
    return false;
}

static bool put_raw(line_t *l, const char *p, size_t n) {
    if (n > sizeof l->text - TAIL - l->len) {
        return false;
    }
    memcpy(l->text + l->len, p, n);
    l->len += n;
    return true;
}

/* Appends one character of s, escaped for JSON; broken UTF-8 becomes U+FFFD. Returns the bytes read, 0 when full. */
static size_t put_char(line_t *l, const char *s, size_t n) {
    uint32_t cp;
    size_t len = utf8_decode(s, n, &cp);
    if (len == 0) {
        return put_raw(l, "\xEF\xBF\xBD", 3) ? 1 : 0;
    }
    if (cp == '"' || cp == '\\') {
        const char two[2] = {'\\', (char)cp};
        return put_raw(l, two, 2) ? 1 : 0;
    }
    if (cp < 0x20 || cp == 0x7F) {
        char six[8];
        (void)snprintf(six, sizeof six, "\\u%04x", (unsigned)cp & 0xFFU);
        return put_raw(l, six, 6) ? 1 : 0;
    }
    return put_raw(l, s, len) ? len : 0;
}

static bool put_string(line_t *l, const char *s) {
    size_t n = strnlen(s, VALUE_MAX + 1);
    bool cut = n > VALUE_MAX;
    if (cut) {
        n = VALUE_MAX;
        while (n > 0 && ((unsigned char)s[n] & 0xC0U) == 0x80U) {
            n--; /* do not cut a character in two */
        }
    }
    if (!put_raw(l, "\"", 1)) {
        return false;
    }
    for (size_t i = 0; i < n;) {
        size_t step = put_char(l, s + i, n - i);
        if (step == 0) {
            return false;
        }
        i += step;
    }
    return (!cut || put_raw(l, "…", strlen("…"))) && put_raw(l, "\"", 1);
}

/* A pair is written whole or not at all, so that a full line is still one JSON object. */
static void put_pair(line_t *l, const char *key, const char *value) {
    size_t before = l->len;
    if (!put_raw(l, before == 0 ? "{" : ",", 1) || !put_string(l, key) || !put_raw(l, ":", 1) ||
        !put_string(l, value)) {
        l->len = before;
    }
}

static void line_begin(line_t *l, log_level_t level, const char *msg) {
    char now[TIME_RFC3339_SIZE];
    time_format_rfc3339(time_wall_ms(), now);
    l->len = 0;
    put_pair(l, "time", now);
    put_pair(l, "level", level_names[level]);
    put_pair(l, "component", log_component);
    put_pair(l, "msg", msg);
}

static void line_end(line_t *l) {
    l->text[l->len++] = '}';
    l->text[l->len++] = '\n';
    size_t done = 0;
    while (done < l->len) {
        ssize_t n = write(STDERR_FILENO, l->text + done, l->len - done);
        if (n < 0 && errno != EINTR) {
            return; /* nowhere to say so */
        }
        done += n > 0 ? (size_t)n : 0;
    }
}

static bool wanted(log_level_t level) {
    return (int)level >= 0 && level <= LOG_DEBUG && level <= log_get_level();
}

void log_event(log_level_t level, const char *msg, ...) {
    if (!wanted(level)) {
        return;
    }
    line_t line;
    line_begin(&line, level, msg);
    va_list ap;
    va_start(ap, msg);
    for (const char *key; (key = va_arg(ap, const char *)) != NULL;) {
        const char *value = va_arg(ap, const char *);
        put_pair(&line, key, value ? value : "");
    }
    va_end(ap);
    line_end(&line);
}

void log_msgf(log_level_t level, const char *fmt, ...) {
    if (!wanted(level)) {
        return;
    }
    char msg[VALUE_MAX];
    va_list ap;
    va_start(ap, fmt);
    if (vsnprintf(msg, sizeof msg, fmt, ap) < 0) {
        msg[0] = '\0';
    }
    va_end(ap);
    line_t line;
    line_begin(&line, level, msg);
    line_end(&line);
}

void log_error(log_level_t level, const char *what, const err_t *err) {
    if (!wanted(level)) {
        return;
    }
    line_t line;
    line_begin(&line, level, what);
    if (err) {
        put_pair(&line, "kind", err_kind_name(err->kind));
        put_pair(&line, "code", err->code);
        put_pair(&line, "error", err->message);
        if (err->detail[0] != '\0') {
            put_pair(&line, "detail", err->detail);
        }
    }
    line_end(&line);
}
