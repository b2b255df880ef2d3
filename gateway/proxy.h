/*
 * Who is really calling, when reverse proxies stand in front: X-Forwarded-For is believed only as far as hops go that
 * TRUSTED_PROXIES names. Pure functions; a list is read-only after it was parsed, so any thread may use it.
 */
#ifndef SG_GATEWAY_PROXY_H
#define SG_GATEWAY_PROXY_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

#define PROXY_ADDRESS_ROOM 48 /* an IPv6 address as text */

typedef struct proxy_list proxy_list_t;

/* "10.0.0.0/8, 192.0.2.7, fd00::/8": networks or single addresses; empty: nobody is trusted (*out is NULL then). A
 * network whose host bits are set is an error, as are more than 64. Free with proxy_list_free. */
ERR_MUST err_kind_t proxy_list_parse(const char *text, proxy_list_t **out, err_t *err);
void proxy_list_free(proxy_list_t *list); /* NULL is allowed */

/* NULL list: nobody. */
bool proxy_is_trusted(const proxy_list_t *list, const char *address);

/* The address of the client: the peer itself unless it is trusted, else the first from the right in X-Forwarded-For
 * that is not, or the leftmost if all are. What is no address ends the walk: the hop that reported it is the client
 * then. headers: the values of all X-Forwarded-For lines, in their order. */
void proxy_client_address(const proxy_list_t *list, const char *peer, const char *const *headers, size_t n,
                          char out[PROXY_ADDRESS_ROOM]);

/* By what a client is counted: an IPv4 address, or the /64 network of an IPv6 one, of which a single household has them
 * all. */
void proxy_rate_key(const char *address, char out[PROXY_ADDRESS_ROOM]);

#endif
