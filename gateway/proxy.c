/*
 * Addresses are kept as 16 bytes, IPv4 in its mapped form (::ffff:a.b.c.d), so that both families are compared by one
 * rule and an IPv4 client is the same on a dual-stack socket.
 *
 * The walk goes from the right because each proxy appends what it saw: the right end was written by our own proxy, the
 * left end by anybody.
 */
#include "proxy.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NETWORKS_MAX 64
#define HOPS_MAX 32 /* more than that is an attempt to keep us busy */

typedef struct {
    unsigned char bytes[16];
} address_t;

typedef struct {
    address_t address;
    int bits;
} network_t;

struct proxy_list {
    int count;
    network_t networks[NETWORKS_MAX];
};

static const unsigned char mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static bool is_ipv4(const address_t *a) {
    return memcmp(a->bytes, mapped_prefix, sizeof mapped_prefix) == 0;
}

/* The n bytes at text, without anything around them. *family: as it was written. */
static bool parse_address(const char *text, size_t n, address_t *out, int *family) {
    char copy[INET6_ADDRSTRLEN];
    if (n == 0 || n >= sizeof copy || memchr(text, '\0', n)) {
        return false;
    }
    memcpy(copy, text, n);
    copy[n] = '\0';
    *family = AF_INET6;
    if (inet_pton(AF_INET6, copy, out->bytes) == 1) {
        return true;
    }
    *family = AF_INET;
    memcpy(out->bytes, mapped_prefix, sizeof mapped_prefix);
    return inet_pton(AF_INET, copy, out->bytes + sizeof mapped_prefix) == 1;
}

static void format_address(const address_t *a, char out[PROXY_ADDRESS_ROOM]) {
    const char *done = is_ipv4(a)
                           ? inet_ntop(AF_INET, a->bytes + sizeof mapped_prefix, out, (socklen_t)PROXY_ADDRESS_ROOM)
                           : inet_ntop(AF_INET6, a->bytes, out, (socklen_t)PROXY_ADDRESS_ROOM);
    if (!done) {
        out[0] = '\0';
    }
}

/* ---- the list ---- */

static bool has_bits_after(const address_t *a, int bits) {
    for (int i = bits; i < 128; i++) {
        if (a->bytes[i / 8] & (0x80 >> (i % 8))) {
            return true;
        }
    }
    return false;
}

static bool parse_network(const char *text, size_t n, network_t *out) {
    const char *slash = memchr(text, '/', n);
    size_t address = slash ? (size_t)(slash - text) : n;
    int family = 0;
    if (!parse_address(text, address, &out->address, &family)) {
        return false;
    }
    int most = family == AF_INET ? 32 : 128;
    int bits = most;
    if (slash) {
        size_t digits = n - address - 1;
        bits = 0;
        for (size_t i = 0; i < digits; i++) {
            char c = slash[1 + i];
            if (c < '0' || c > '9' || i > 2) {
                return false;
            }
            bits = bits * 10 + (c - '0');
        }
        if (digits == 0 || bits > most) {
            return false;
        }
    }
    out->bits = 128 - most + bits;
    return !has_bits_after(&out->address, out->bits);
}

err_kind_t proxy_list_parse(const char *text, proxy_list_t **out, err_t *err) {
    *out = NULL;
    text += strspn(text, ", \t");
    if (!*text) {
        return ERR_OK;
    }
    proxy_list_t *list = calloc(1, sizeof *list);
    if (!list) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    while (*text) {
        size_t n = strcspn(text, ", \t");
        if (list->count >= NETWORKS_MAX || !parse_network(text, n, &list->networks[list->count])) {
            err_setf(err, ERR_INVALID, "config_invalid",
                     "TRUSTED_PROXIES: “%.*s” is not an address or a network (such as 10.0.0.0/8), its host bits are "
                     "set, or there are more than %d.",
                     n < 64 ? (int)n : 64, text, NETWORKS_MAX);
            free(list);
            return ERR_INVALID;
        }
        list->count++;
        text += n;
        text += strspn(text, ", \t");
    }
    *out = list;
    return ERR_OK;
}

void proxy_list_free(proxy_list_t *list) {
    free(list);
}

static bool contains(const network_t *net, const address_t *a) {
    size_t whole = (size_t)net->bits / 8;
    int rest = net->bits % 8;
    if (memcmp(net->address.bytes, a->bytes, whole) != 0) {
        return false;
    }
    return rest == 0 || ((net->address.bytes[whole] ^ a->bytes[whole]) & (0xff00 >> rest & 0xff)) == 0;
}

static bool is_trusted(const proxy_list_t *list, const address_t *a) {
    for (int i = 0; list && i < list->count; i++) {
        if (contains(&list->networks[i], a)) {
            return true;
        }
    }
    return false;
}

bool proxy_is_trusted(const proxy_list_t *list, const char *address) {
    address_t a;
    int family = 0;
    return list && parse_address(address, strlen(address), &a, &family) && is_trusted(list, &a);
}

/* ---- X-Forwarded-For ---- */

/* One entry: an address, perhaps with a port ("192.0.2.1:4711", "[2001:db8::1]:4711") as some proxies write it. */
static bool parse_hop(const char *text, size_t n, address_t *out) {
    int family = 0;
    if (n > 0 && text[0] == '[') {
        const char *end = memchr(text, ']', n);
        return end && (end + 1 == text + n || end[1] == ':') &&
               parse_address(text + 1, (size_t)(end - text) - 1, out, &family);
    }
    const char *colon = memchr(text, ':', n);
    bool one = colon && !memchr(colon + 1, ':', n - (size_t)(colon - text) - 1);
    return parse_address(text, one ? (size_t)(colon - text) : n, out, &family);
}

static bool is_space(char c) {
    return c == ' ' || c == '\t';
}

void proxy_client_address(const proxy_list_t *list, const char *peer, const char *const *headers, size_t n,
                          char out[PROXY_ADDRESS_ROOM]) {
    address_t client;
    int family = 0;
    if (!parse_address(peer, strlen(peer), &client, &family)) {
        (void)snprintf(out, PROXY_ADDRESS_ROOM, "%s", peer);
        return;
    }
    int hops = 0;
    for (size_t line = n; line > 0; line--) {
        const char *text = headers[line - 1];
        for (size_t end = strlen(text); end > 0 && hops < HOPS_MAX; hops++) {
            size_t start = end;
            while (start > 0 && text[start - 1] != ',') {
                start--;
            }
            size_t from = start;
            size_t to = end;
            while (from < to && is_space(text[from])) {
                from++;
            }
            while (to > from && is_space(text[to - 1])) {
                to--;
            }
            address_t hop;
            if (!is_trusted(list, &client) || !parse_hop(text + from, to - from, &hop)) {
                goto found;
            }
            client = hop;
            end = start > 0 ? start - 1 : 0;
        }
    }
found:
    format_address(&client, out);
}

void proxy_rate_key(const char *address, char out[PROXY_ADDRESS_ROOM]) {
    address_t a;
    int family = 0;
    if (!parse_address(address, strlen(address), &a, &family)) {
        (void)snprintf(out, PROXY_ADDRESS_ROOM, "%s", address);
        return;
    }
    if (!is_ipv4(&a)) {
        memset(a.bytes + 8, 0, 8);
    }
    format_address(&a, out);
}
