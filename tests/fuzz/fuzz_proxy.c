/*
 * TRUSTED_PROXIES and X-Forwarded-For on arbitrary text: "list \n peer \n header". Whatever they say, a peer that is
 * not trusted is the client itself; a header cut into two lines at a comma means the same; and what is written further
 * left never changes a client that was found untrusted.
 */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_address(const char *text) {
    unsigned char raw[16];
    return inet_pton(AF_INET, text, raw) == 1 || inet_pton(AF_INET6, text, raw) == 1;
}

static void check(const proxy_list_t *list, const char *peer, char *header) {
    char whole[PROXY_ADDRESS_ROOM];
    char other[PROXY_ADDRESS_ROOM];
    const char *one[] = {header};
    proxy_client_address(list, peer, one, 1, whole);
    if (!is_address(peer)) {
        return; /* civetweb would not say so; it is passed on, cut to the room */
    }
    if (!is_address(whole)) {
        abort();
    }
    proxy_client_address(list, peer, NULL, 0, other);
    if (!proxy_is_trusted(list, peer) && strcmp(whole, other) != 0) {
        abort();
    }
    proxy_rate_key(whole, other);
    if (!is_address(other)) {
        abort();
    }
    if (!proxy_is_trusted(list, whole)) {
        char *longer = malloc(strlen(header) + 32);
        if (!longer) {
            return;
        }
        (void)snprintf(longer, strlen(header) + 32, "203.0.113.77, %s", header);
        const char *spoofed[] = {longer};
        proxy_client_address(list, peer, spoofed, 1, other);
        /* Only where nothing was written at all does the new entry count. */
        if (strcmp(whole, other) != 0 && strcmp(other, "203.0.113.77") != 0) {
            abort();
        }
        free(longer);
    }
    char *comma = strrchr(header, ',');
    if (comma && comma[1] != '\0' && comma != header) {
        *comma = '\0';
        const char *two[] = {header, comma + 1};
        proxy_client_address(list, peer, two, 2, other);
        if (strcmp(whole, other) != 0) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1);
    if (!text) {
        return 0;
    }
    memcpy(text, data, size);
    text[size] = '\0';
    char *peer = strchr(text, '\n');
    char *header = peer ? strchr(peer + 1, '\n') : NULL;
    if (header) {
        proxy_list_t *list = NULL;
        err_t err;
        *peer++ = '\0';
        *header++ = '\0';
        if (proxy_list_parse(text, &list, &err) != ERR_OK && (list || err.code[0] == '\0')) {
            abort();
        }
        check(list, peer, header);
        proxy_list_free(list);
    }
    free(text);
    return 0;
}
