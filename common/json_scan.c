/*
 * A checker for RFC 8259. cJSON alone takes too much (numbers such as 01 or 1., zero bytes in strings, broken UTF-8)
 * and limits the depth only at build time, so the text is checked before cJSON sees it.
 */
#include "json_scan.h"

#include <stdint.h>
#include <string.h>

#include "json_util.h"
#include "utf8.h"

typedef struct {
    const char *text;
    size_t len, pos;
    const char *why;
} scan_t;

static bool fail(scan_t *s, const char *why) {
    s->why = why;
    return false;
}

static int peek(const scan_t *s) {
    return s->pos < s->len ? (unsigned char)s->text[s->pos] : -1;
}

static void skip_blank(scan_t *s) {
    for (int c = peek(s); c == ' ' || c == '\t' || c == '\r' || c == '\n'; c = peek(s)) {
        s->pos++;
    }
}

static bool skip_word(scan_t *s, const char *word) {
    size_t n = strlen(word);
    if (s->len - s->pos < n || memcmp(s->text + s->pos, word, n) != 0) {
        return fail(s, "unknown word");
    }
    s->pos += n;
    return true;
}

static bool skip_digits(scan_t *s) {
    size_t from = s->pos;
    while (peek(s) >= '0' && peek(s) <= '9') {
        s->pos++;
    }
    return s->pos > from ? true : fail(s, "malformed number");
}

static bool skip_number(scan_t *s) {
    if (peek(s) == '-') {
        s->pos++;
    }
    if (peek(s) == '0') {
        s->pos++;
    } else if (!skip_digits(s)) {
        return false;
    }
    if (peek(s) == '.') {
        s->pos++;
        if (!skip_digits(s)) {
            return false;
        }
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        s->pos++;
        if (peek(s) == '+' || peek(s) == '-') {
            s->pos++;
        }
        return skip_digits(s);
    }
    return true;
}

/* Four hexadecimal digits; -1 when they are not there. */
static int32_t read_hex4(scan_t *s) {
    int32_t v = 0;
    for (int i = 0; i < 4; i++) {
        int c = peek(s);
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) {
            return -1;
        }
        v = v * 16 + digit;
        s->pos++;
    }
    return v;
}

/* After the backslash. */
static bool skip_escape(scan_t *s) {
    int c = peek(s);
    if (c != 'u') {
        if (c <= 0 || !strchr("\"\\/bfnrt", c)) {
            return fail(s, "unknown escape");
        }
        s->pos++;
        return true;
    }
    s->pos++;
    int32_t unit = read_hex4(s);
    if (unit < 0) {
        return fail(s, "malformed \\u escape");
    }
    if (unit == 0) {
        return fail(s, "\\u0000 is not allowed");
    }
    if (unit >= 0xDC00 && unit <= 0xDFFF) {
        return fail(s, "half of a surrogate pair");
    }
    if (unit >= 0xD800 && unit <= 0xDBFF) {
        if (s->len - s->pos < 2 || memcmp(s->text + s->pos, "\\u", 2) != 0) {
            return fail(s, "half of a surrogate pair");
        }
        s->pos += 2;
        int32_t low = read_hex4(s);
        if (low < 0xDC00 || low > 0xDFFF) {
            return fail(s, "half of a surrogate pair");
        }
    }
    return true;
}

static bool skip_string(scan_t *s) {
    if (peek(s) != '"') {
        return fail(s, "a string was expected");
    }
    s->pos++;
    for (;;) {
        int c = peek(s);
        if (c < 0) {
            return fail(s, "unfinished string");
        }
        if (c == '"') {
            s->pos++;
            return true;
        }
        if (c < 0x20) {
            return fail(s, "control character in a string");
        }
        if (c == '\\') {
            s->pos++;
            if (!skip_escape(s)) {
                return false;
            }
            continue;
        }
        size_t n = utf8_decode(s->text + s->pos, s->len - s->pos, NULL);
        if (n == 0) {
            return fail(s, "text that is not UTF-8");
        }
        s->pos += n;
    }
}

static bool skip_key(scan_t *s) {
    skip_blank(s);
    if (!skip_string(s)) {
        return false;
    }
    skip_blank(s);
    if (peek(s) != ':') {
        return fail(s, "a colon was expected");
    }
    s->pos++;
    return true;
}

/* A value that is not a container. */
static bool skip_scalar(scan_t *s) {
    switch (peek(s)) {
    case '"':
        return skip_string(s);
    case 't':
        return skip_word(s, "true");
    case 'f':
        return skip_word(s, "false");
    case 'n':
        return skip_word(s, "null");
    case -1:
        return fail(s, "the text ends too early");
    default:
        return peek(s) == '-' || (peek(s) >= '0' && peek(s) <= '9') ? skip_number(s) : fail(s, "unexpected character");
    }
}

/* open[] remembers which closing bracket each level waits for. */
static bool scan_value(scan_t *s, int max_depth) {
    char open[JSON_DEPTH_MAX];
    int depth = 0;
    for (;;) {
        skip_blank(s);
        int c = peek(s);
        if (c == '{' || c == '[') {
            if (depth == max_depth || depth == JSON_DEPTH_MAX) {
                return fail(s, "nested too deeply");
            }
            char close = c == '{' ? '}' : ']';
            open[depth++] = close;
            s->pos++;
            skip_blank(s);
            if (peek(s) != close) {
                if (close == '}' && !skip_key(s)) {
                    return false;
                }
                continue;
            }
        } else if (!skip_scalar(s)) {
            return false;
        }
        /* A value ended here (or an empty container is about to): close what closes, then go on after a comma. */
        skip_blank(s);
        while (depth > 0 && peek(s) == open[depth - 1]) {
            s->pos++;
            depth--;
            skip_blank(s);
        }
        if (depth == 0) {
            return true;
        }
        if (peek(s) != ',') {
            return fail(s, "a comma or a closing bracket was expected");
        }
        s->pos++;
        if (open[depth - 1] == '}' && !skip_key(s)) {
            return false;
        }
    }
}

bool json_scan(const char *text, size_t len, int max_depth, size_t *at, const char **why) {
    scan_t s = {.text = text, .len = len, .why = ""};
    bool ok = scan_value(&s, max_depth);
    if (ok) {
        skip_blank(&s);
        if (s.pos < len) {
            ok = fail(&s, "something follows the value");
        }
    }
    *at = s.pos;
    *why = s.why;
    return ok;
}
