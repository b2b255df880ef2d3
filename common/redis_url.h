/*
 * Parsing of REDIS_URL:
 *   redis://[[user]:password@]host[:port][/db]      host may be an IPv6 address in brackets
 *   unix://[[user]:password@]/path/of/socket[?db=N]
 *   redis-sentinel://[[user]:password@]host[:port][,host[:port]]…/master[/db]
 * In the last form the hosts are Sentinels (at most REDIS_SENTINELS_MAX, port 26379 when not given), `master` is the
 * name under which they watch the primary, and user and password are those of Redis, not of the Sentinels. User,
 * password, host, master and path may hold %XX escapes. A pure function, thread-safe.
 */
#ifndef SG_REDIS_URL_H
#define SG_REDIS_URL_H

#include <stdbool.h>

#include "err.h"

enum { REDIS_SENTINELS_MAX = 16 };

typedef struct {
    char host[256];
    int port;
} redis_address_t;

typedef struct {
    bool is_unix;
    char host[256]; /* or the socket's path; "" when Sentinels know it */
    int port;       /* 6379 when not given */
    int db;
    char user[256];     /* "" = none */
    char password[512]; /* "" = none */
    int sentinel_count; /* 0: host and port say where Redis is */
    redis_address_t sentinels[REDIS_SENTINELS_MAX];
    char master[128];
} redis_url_t;

/* ERR_INVALID "config_invalid"; the message never repeats a part of the URL, which may be the password. */
ERR_MUST err_kind_t redis_url_parse(const char *url, redis_url_t *out, err_t *err);

#endif
