/*
 * Clocks and RFC 3339. Everything is thread-safe and, except time_parse_rfc3339, async-signal-safe in practice.
 */
#ifndef SG_TIMEUTIL_H
#define SG_TIMEUTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TIME_RFC3339_SIZE = 32 }; /* room that time_format_rfc3339 needs, NUL included */

int64_t time_mono_ms(void); /* never goes back; only differences mean something */
int64_t time_mono_us(void);
int64_t time_wall_ms(void); /* since 1970-01-01 UTC */

/* "2031-05-06T07:08:09.123Z". out has room for TIME_RFC3339_SIZE bytes; years outside 0..9999 are clamped. */
void time_format_rfc3339(int64_t wall_ms, char out[TIME_RFC3339_SIZE]);

/* Accepts date, time, optional fraction and Z or an offset; *wall_ms is rounded down to ms. */
bool time_parse_rfc3339(const char *text, int64_t *wall_ms);

/* Sleeps at least ms milliseconds, signals notwithstanding. */
void time_sleep_ms(int64_t ms);

#endif
