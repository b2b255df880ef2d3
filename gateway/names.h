/*
 * File names that came from a browser, made safe to show and to offer for download. They are labels: nothing in
 * storage is ever opened by them. Pure functions, thread-safe.
 */
#ifndef SG_GATEWAY_NAMES_H
#define SG_GATEWAY_NAMES_H

#include <stddef.h>

#define NAMES_ROOM 256 /* 255 bytes and the NUL */

/* Takes the last path component of `in` (n bytes; both kinds of slash), drops control characters, invalid UTF-8 and
 * marks that change the direction of text, trims blanks at both ends, and cuts to 255 bytes between characters, the
 * extension kept. What is empty, "." or ".." afterwards becomes "image". */
void names_sanitise(const char *in, size_t n, char out[NAMES_ROOM]);

#endif
