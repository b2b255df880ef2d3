/* The strict JSON checker behind json_parse: no allocation, no recursion. A pure function. */
#ifndef SG_JSON_SCAN_H
#define SG_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>

/* Is text[0..len) one JSON value, nested at most max_depth deep? On false, *at is the offset of the first byte that
 * does not fit and *why says what is wrong there (a static string). max_depth <= JSON_DEPTH_MAX. */
bool json_scan(const char *text, size_t len, int max_depth, size_t *at, const char **why);

#endif
