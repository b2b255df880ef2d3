/*
 * Safe file names, see names.h. The text is first filtered character by character into a buffer that holds the last
 * 1,024 bytes a sane name can have, then trimmed, then cut.
 */
#include "names.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "common/utf8.h"

enum { SCRATCH = 1024, MAX_NAME = NAMES_ROOM - 1, MAX_EXTENSION = 16 };

/* C0, DEL, C1, line and paragraph separators, byte-order mark, and the bidirectional controls that can make
 * "gpj.exe" look like "exe.jpg". */
static bool is_unwanted(uint32_t c) {
    return c < 0x20 || (c >= 0x7F && c < 0xA0) || (c >= 0x200E && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) ||
           (c >= 0x2066 && c <= 0x2069) || c == 0x061C || c == 0xFEFF || c == 0xFFFE || c == 0xFFFF;
}

/* Greatest length <= n that does not cut a character of valid UTF-8. */
static size_t character_floor(const char *s, size_t n, size_t len) {
    if (n >= len) {
        return len;
    }
    while (n > 0 && ((unsigned char)s[n] & 0xC0U) == 0x80U) {
        n--;
    }
    return n;
}

void names_sanitise(const char *in, size_t n, char out[NAMES_ROOM]) {
    char s[SCRATCH];
    size_t len = 0;
    for (size_t i = n; i > 0; i--) {
        if (in[i - 1] == '/' || in[i - 1] == '\\') {
            in += i;
            n -= i;
            break;
        }
    }
    for (size_t i = 0; i < n;) {
        uint32_t c = 0;
        size_t k = utf8_decode(in + i, n - i, &c);
        if (k == 0) {
            i++;
            continue;
        }
        if (!is_unwanted(c) && len + k <= sizeof s) {
            memcpy(s + len, in + i, k);
            len += k;
        }
        i += k;
    }
    size_t start = 0;
    while (start < len && s[start] == ' ') {
        start++;
    }
    while (len > start && (s[len - 1] == ' ' || s[len - 1] == '.')) {
        len--;
    }
    const char *p = s + start;
    len -= start;
    if (len == 0) {
        memcpy(out, "image", sizeof "image");
        return;
    }
    if (len <= MAX_NAME) {
        memcpy(out, p, len);
        out[len] = '\0';
        return;
    }
    size_t ext = 0;
    for (size_t i = 1; i <= MAX_EXTENSION; i++) {
        if (p[len - i] == '.') {
            ext = i;
            break;
        }
    }
    size_t stem = character_floor(p, MAX_NAME - ext, len);
    while (ext == 0 && stem > 0 && (p[stem - 1] == ' ' || p[stem - 1] == '.')) { /* where it was cut */
        stem--;
    }
    if (stem + ext == 0) {
        memcpy(out, "image", sizeof "image");
        return;
    }
    memcpy(out, p, stem);
    memcpy(out + stem, p + len - ext, ext);
    out[stem + ext] = '\0';
}
