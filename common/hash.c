/* Digests through OpenSSL's EVP interface, random bytes from getrandom(2), text codings by hand (see hash.h). */
#include "hash.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "log.h"

struct hash {
    EVP_MD_CTX *ctx;
};

hash_t *hash_sha256_begin(void) {
    hash_t *h = calloc(1, sizeof *h);
    if (!h) {
        return NULL;
    }
    h->ctx = EVP_MD_CTX_new();
    if (!h->ctx || EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL) != 1) {
        hash_abort(h);
        return NULL;
    }
    return h;
}

bool hash_update(hash_t *h, const void *data, size_t n) {
    return EVP_DigestUpdate(h->ctx, data, n) == 1;
}

bool hash_sha256_end(hash_t *h, uint8_t out[HASH_SHA256_SIZE]) {
    unsigned len = 0;
    bool ok = EVP_DigestFinal_ex(h->ctx, out, &len) == 1 && len == HASH_SHA256_SIZE;
    hash_abort(h);
    return ok;
}

void hash_abort(hash_t *h) {
    if (h) {
        EVP_MD_CTX_free(h->ctx);
        free(h);
    }
}

bool hash_sha256(const void *data, size_t n, uint8_t out[HASH_SHA256_SIZE]) {
    return EVP_Digest(data, n, out, NULL, EVP_sha256(), NULL) == 1;
}

bool hash_sha1_hex(const void *data, size_t n, char out[HASH_SHA1_HEX_SIZE]) {
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (EVP_Digest(data, n, digest, &len, EVP_sha1(), NULL) != 1 || len * 2 + 1 != HASH_SHA1_HEX_SIZE) {
        out[0] = '\0';
        return false;
    }
    hash_hex_encode(digest, len, out);
    return true;
}

void hash_hex_encode(const void *data, size_t n, char *out) {
    static const char digits[] = "0123456789abcdef";
    const uint8_t *p = data;
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[p[i] >> 4];
        out[2 * i + 1] = digits[p[i] & 15U];
    }
    out[2 * n] = '\0';
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

bool hash_hex_decode(const char *hex, void *out, size_t n) {
    uint8_t *p = out;
    if (strlen(hex) != 2 * n) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        int high = hex_value(hex[2 * i]);
        int low = hex_value(hex[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        p[i] = (uint8_t)(high * 16 + low);
    }
    return true;
}

static const char base64url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

size_t hash_base64url_size(size_t n) {
    static const size_t rest[3] = {0, 2, 3};
    return n / 3 * 4 + rest[n % 3] + 1;
}

void hash_base64url_encode(const void *data, size_t n, char *out) {
    const uint8_t *p = data;
    uint32_t bits = 0;
    unsigned have = 0;
    for (size_t i = 0; i < n; i++) {
        bits = (bits << 8) | p[i];
        for (have += 8; have >= 6; have -= 6) {
            *out++ = base64url[(bits >> (have - 6)) & 63U];
        }
    }
    if (have > 0) {
        *out++ = base64url[(bits << (6 - have)) & 63U];
    }
    *out = '\0';
}

long hash_base64url_decode(const char *text, void *out, size_t room) {
    uint8_t *p = out;
    size_t len = 0;
    uint32_t bits = 0;
    unsigned have = 0;
    for (; *text; text++) {
        const char *at = strchr(base64url, *text);
        if (!at) {
            return -1;
        }
        bits = (bits << 6) | (uint32_t)(at - base64url);
        have += 6;
        if (have >= 8) {
            have -= 8;
            if (len == room) {
                return -1;
            }
            p[len++] = (uint8_t)(bits >> have);
        }
    }
    /* Six spare bits mean a lone character; spare bits must be zero, so that each value has one spelling. */
    if (have >= 6 || (bits & ((1U << have) - 1U)) != 0) {
        return -1;
    }
    return (long)len;
}

bool hash_equal(const void *a, const void *b, size_t n) {
    return CRYPTO_memcmp(a, b, n) == 0;
}

void hash_random(void *out, size_t n) {
    uint8_t *p = out;
    while (n > 0) {
        ssize_t got = getrandom(p, n, 0);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            log_event(LOG_ERROR, "no random bytes from the kernel", NULL);
            abort();
        }
        p += got;
        n -= (size_t)got;
    }
}

void hash_random_token(char *out, size_t nbytes) {
    uint8_t raw[64];
    if (nbytes > sizeof raw) {
        nbytes = sizeof raw;
    }
    hash_random(raw, nbytes);
    hash_base64url_encode(raw, nbytes, out);
    explicit_bzero(raw, sizeof raw);
}
