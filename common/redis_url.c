/* REDIS_URL, see redis_url.h. Each part is first cut out as a (pointer, length) pair and then decoded into its field.
 */
#include "redis_url.h"

#include <stddef.h>
#include <string.h>

enum { DB_MAX = 1023, SENTINEL_PORT = 26379 };

static err_kind_t wrong(err_t *err, const char *what) {
    return err_setf(err, ERR_INVALID, "config_invalid",
                    "REDIS_URL %s. It looks like redis://user:password@host:6379/0 or unix:///path?db=0.", what);
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Decodes n characters into out; false when it does not fit, an escape is broken or a zero byte comes out. */
static bool decode(const char *s, size_t n, char *out, size_t room) {
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (c == '%') {
            int high = i + 2 < n ? hex_value(s[i + 1]) : -1;
            int low = high >= 0 ? hex_value(s[i + 2]) : -1;
            if (low < 0) {
                return false;
            }
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (c == '\0' || len + 1 >= room) {
            return false;
        }
        out[len++] = c;
    }
    out[len] = '\0';
    return true;
}

/* A decimal number of exactly n characters, at most `max`. */
static bool number(const char *s, size_t n, int max, int *out) {
    int v = 0;
    if (n == 0 || n > 6) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9') {
            return false;
        }
        v = v * 10 + (s[i] - '0');
    }
    *out = v;
    return v <= max;
}

/* Cuts "[user]:password@" off the front, if it is there. The last @ before the path ends it. */
static bool take_userinfo(const char **p, redis_url_t *out) {
    size_t authority = strcspn(*p, "/?");
    const char *at = memrchr(*p, '@', authority);
    if (!at) {
        return true;
    }
    size_t n = (size_t)(at - *p);
    const char *colon = memchr(*p, ':', n);
    if (!colon) { /* "redis://password@host" is a common slip, "redis://user@host" means nothing to Redis */
        return false;
    }
    size_t user = (size_t)(colon - *p);
    bool ok = decode(*p, user, out->user, sizeof out->user) &&
              decode(colon + 1, n - user - 1, out->password, sizeof out->password);
    *p = at + 1;
    return ok && !(out->user[0] != '\0' && out->password[0] == '\0');
}

static err_kind_t parse_unix(const char *p, redis_url_t *out, err_t *err) {
    out->is_unix = true;
    if (!take_userinfo(&p, out)) {
        return wrong(err, "has a malformed user or password");
    }
    size_t path = strcspn(p, "?");
    if (p[0] != '/' || path < 2 || !decode(p, path, out->host, 108)) { /* sun_path of unix(7) */
        return wrong(err, "has no usable socket path");
    }
    p += path;
    if (*p == '\0') {
        return ERR_OK;
    }
    if (strncmp(p, "?db=", 4) != 0 || !number(p + 4, strlen(p + 4), DB_MAX, &out->db)) {
        return wrong(err, "may only have ?db=NUMBER after the socket path");
    }
    return ERR_OK;
}

/* Reads "host[:port]" and moves *p behind it; `ends` are the characters that may follow. The port stays when none is
 * given. NULL, or what is wrong. */
static const char *take_address(const char **p, const char *ends, char *name, size_t room, int *port) {
    size_t host;
    const char *host_at = *p;
    char stops[8] = ":";
    (void)strncat(stops, ends, sizeof stops - 2);
    if (**p == '[') {
        host_at++;
        host = strcspn(host_at, "]/");
        *p = host_at + host;
        if (**p != ']') {
            return "has an unfinished IPv6 address";
        }
        (*p)++;
    } else {
        host = strcspn(*p, stops);
        *p += host;
    }
    if (host == 0 || !decode(host_at, host, name, room)) {
        return "has no usable host";
    }
    if (**p == ':') {
        size_t digits = strcspn(++*p, ends);
        if (!number(*p, digits, 65535, port) || *port == 0) {
            return "has a wrong port";
        }
        *p += digits;
    }
    return **p == '\0' || strchr(ends, **p) ? NULL : "has something unknown after the host";
}

/* "/db" at the end, or nothing. */
static err_kind_t parse_db(const char *p, redis_url_t *out, err_t *err) {
    if (*p == '/' && p[1] != '\0') {
        p++;
        return number(p, strlen(p), DB_MAX, &out->db) ? ERR_OK : wrong(err, "has a wrong database number");
    }
    return *p == '\0' || *p == '/' ? ERR_OK : wrong(err, "has something unknown after the host");
}

static err_kind_t parse_tcp(const char *p, redis_url_t *out, err_t *err) {
    if (!take_userinfo(&p, out)) {
        return wrong(err, "has a malformed user or password");
    }
    const char *bad = take_address(&p, "/?", out->host, sizeof out->host, &out->port);
    return bad ? wrong(err, bad) : parse_db(p, out, err);
}

static err_kind_t parse_sentinel(const char *p, redis_url_t *out, err_t *err) {
    if (!take_userinfo(&p, out)) {
        return wrong(err, "has a malformed user or password");
    }
    for (;;) {
        if (out->sentinel_count == REDIS_SENTINELS_MAX) {
            return wrong(err, "names more than 16 Sentinels");
        }
        redis_address_t *a = &out->sentinels[out->sentinel_count++];
        a->port = SENTINEL_PORT;
        const char *bad = take_address(&p, ",/?", a->host, sizeof a->host, &a->port);
        if (bad) {
            return wrong(err, bad);
        }
        if (*p != ',') {
            break;
        }
        p++;
    }
    size_t name = *p == '/' ? strcspn(++p, "/?") : 0;
    if (name == 0 || !decode(p, name, out->master, sizeof out->master)) {
        return wrong(err, "does not name the primary that the Sentinels watch "
                          "(redis-sentinel://host:26379,host:26379/NAME/0)");
    }
    return parse_db(p + name, out, err);
}

err_kind_t redis_url_parse(const char *url, redis_url_t *out, err_t *err) {
    *out = (redis_url_t){.port = 6379};
    if (strncmp(url, "unix://", 7) == 0) {
        return parse_unix(url + 7, out, err);
    }
    if (strncmp(url, "redis://", 8) == 0) {
        return parse_tcp(url + 8, out, err);
    }
    if (strncmp(url, "redis-sentinel://", 17) == 0) {
        return parse_sentinel(url + 17, out, err);
    }
    if (strncmp(url, "rediss://", 9) == 0) {
        return wrong(err, "asks for TLS, which is not supported (use a private network or a local proxy)");
    }
    return wrong(err, "does not begin with redis://, redis-sentinel:// or unix://");
}
