/*
 * Counts events by key (an address, an account) in a window of a quarter of an hour, to slow guessing down. Memory is
 * bounded: when the table is full the key that was quiet longest makes room. Counts live in this process. Thread-safe.
 */
#ifndef SG_GATEWAY_RATE_H
#define SG_GATEWAY_RATE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct rate rate_t;

#define RATE_WINDOW_MS (15 * 60 * 1000)

/* keys: most keys remembered at once. NULL: no memory. */
rate_t *rate_create(int keys);
void rate_destroy(rate_t *r);

/* Has the key reached limit? Then *retry_after_s says when its oldest window ends (at least 1). */
bool rate_is_over(rate_t *r, const char *kind, const char *key, int64_t limit, int64_t now_ms, int *retry_after_s);
void rate_count(rate_t *r, const char *kind, const char *key, int64_t now_ms);
/* Forgets a key: its owner has proved who they are. */
void rate_forget(rate_t *r, const char *kind, const char *key);

#endif
