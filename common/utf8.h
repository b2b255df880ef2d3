/*
 * UTF-8: one decoder, shared by everything that writes JSON. Pure functions, thread-safe.
 */
#ifndef SG_UTF8_H
#define SG_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length (1..4) of the valid sequence at s, of which n bytes may be read, with its code point in *cp (may be NULL);
 * 0 when it is not valid (truncated, overlong, surrogate, above U+10FFFF) or n == 0. RFC 3629. */
size_t utf8_decode(const char *s, size_t n, uint32_t *cp);

bool utf8_is_valid(const char *s, size_t n);

#endif
