/* UTF-8 decoding by the table of RFC 3629, section 4. */
#include "utf8.h"

size_t utf8_decode(const char *s, size_t n, uint32_t *cp) {
    if (n == 0) {
        return 0;
    }
    const unsigned char *p = (const unsigned char *)s;
    uint32_t v = p[0];
    size_t len;
    uint32_t least;
    if (v < 0x80U) {
        if (cp) {
            *cp = v;
        }
        return 1;
    }
    if ((v & 0xE0U) == 0xC0U) {
        len = 2;
        least = 0x80U;
        v &= 0x1FU;
    } else if ((v & 0xF0U) == 0xE0U) {
        len = 3;
        least = 0x800U;
        v &= 0x0FU;
    } else if ((v & 0xF8U) == 0xF0U) {
        len = 4;
        least = 0x10000U;
        v &= 0x07U;
    } else {
        return 0;
    }
    if (n < len) {
        return 0;
    }
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xC0U) != 0x80U) {
            return 0;
        }
        v = (v << 6) | (p[i] & 0x3FU);
    }
    if (v < least || v > 0x10FFFFU || (v >= 0xD800U && v <= 0xDFFFU)) {
        return 0;
    }
    if (cp) {
        *cp = v;
    }
    return len;
}

bool utf8_is_valid(const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        size_t len = utf8_decode(s + i, n - i, NULL);
        if (len == 0) {
            return false;
        }
        i += len;
    }
    return true;
}
