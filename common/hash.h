/*
 * Digests, hexadecimal and URL-safe base64 text, random bytes and comparison in constant time. Thread-safe; a hash_t
 * belongs to one thread.
 */
#ifndef SG_HASH_H
#define SG_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

enum {
    HASH_SHA256_SIZE = 32,
    HASH_SHA256_HEX_SIZE = 65, /* NUL included */
    HASH_SHA1_HEX_SIZE = 41
};

/* SHA-256 of a stream. */
typedef struct hash hash_t;
hash_t *hash_sha256_begin(void);                                  /* NULL: no memory */
ERR_MUST bool hash_update(hash_t *h, const void *data, size_t n); /* false: the library failed; end it still */
/* Frees h in any case. */
ERR_MUST bool hash_sha256_end(hash_t *h, uint8_t out[HASH_SHA256_SIZE]);
void hash_abort(hash_t *h); /* frees h; NULL is allowed */

/* In one call. */
ERR_MUST bool hash_sha256(const void *data, size_t n, uint8_t out[HASH_SHA256_SIZE]);
/* SHA-1 only where a protocol asks for it (Redis names scripts by it). */
ERR_MUST bool hash_sha1_hex(const void *data, size_t n, char out[HASH_SHA1_HEX_SIZE]);

/* out has room for 2 n + 1 characters; lower case. */
void hash_hex_encode(const void *data, size_t n, char *out);
/* Exactly n bytes from 2 n hexadecimal digits of either case; false when hex is anything else. */
bool hash_hex_decode(const char *hex, void *out, size_t n);

/* RFC 4648 section 5, without padding. out has room for hash_base64url_size(n) characters (NUL included). */
size_t hash_base64url_size(size_t n);
void hash_base64url_encode(const void *data, size_t n, char *out);
/* Writes at most `room` bytes and returns their number; -1 when text is malformed (non-zero spare bits too) or too
 * long. */
long hash_base64url_decode(const char *text, void *out, size_t room);

/* Takes the same time for equal and different input of n bytes. */
bool hash_equal(const void *a, const void *b, size_t n);

/* Bytes from the kernel's generator. Aborts the program when there are none: going on would be unsafe. */
void hash_random(void *out, size_t n);
/* A token of nbytes (at most 64) random bytes as URL-safe base64; out has room for hash_base64url_size(nbytes). */
void hash_random_token(char *out, size_t nbytes);

#endif
