/*
 * Parsing of REDIS_URL:
 *   redis://[[user]:password@]host[:port][/db]      host may be an IPv6 address in brackets
 *   unix://[[user]:password@]/path/of/socket[?db=N]
 * User, password, host and path may hold %XX escapes. A pure function, thread-safe.
 */
#ifndef SG_REDIS_URL_H
#define SG_REDIS_URL_H

#include <stdbool.h>

#include "err.h"

typedef struct {
    bool is_unix;
    char host[256]; /* or the socket's path */
    int port;       /* 6379 when not given */
    int db;
    char user[256];     /* "" = none */
    char password[512]; /* "" = none */
} redis_url_t;

/* ERR_INVALID "config_invalid"; the message never repeats a part of the URL, which may be the password. */
ERR_MUST err_kind_t redis_url_parse(const char *url, redis_url_t *out, err_t *err);

#endif
