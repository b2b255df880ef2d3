/*
 * How many unfinished jobs there are, in all and of one person, remembered for a second: counting them for each submit
 * costs the more the longer the queue is. Within a tenth (and 100) below a bound nothing is remembered: there they are
 * counted each time. Thread-safe.
 */
#ifndef SG_GATEWAY_SUBMIT_BOUNDS_H
#define SG_GATEWAY_SUBMIT_BOUNDS_H

#include <stdbool.h>
#include <stdint.h>

/* Is the remembered number fresh, and is it with `wanted` more still far below the bound? Then the `wanted` are added
 * to it. user_id NULL: all people's jobs. Counts are the database's; see submit_bounds_note. */
bool submit_bounds_far(const char *user_id, int64_t bound, int wanted);
/* Remembers what was just counted. */
void submit_bounds_note(const char *user_id, int64_t count);

#endif
