/*
 * Passwords: Argon2id (RFC 9106) with the parameters that OWASP's Password Storage Cheat Sheet names as its minimum
 * (m = 19 MiB, t = 2, p = 1), stored as PHC strings. At most PASSWORD_PARALLEL hashes are made at a time, so that a
 * flood of sign-ins cannot exhaust memory; who waits longer than PASSWORD_WAIT_MS gets ERR_UNAVAILABLE
 * "busy_signing_in". Thread-safe.
 */
#ifndef SG_GATEWAY_PASSWORD_H
#define SG_GATEWAY_PASSWORD_H

#include <stdbool.h>

#include "common/err.h"

enum {
    PASSWORD_MIN = 10,
    PASSWORD_MAX = 256,
    PASSWORD_HASH_ROOM = 128,
    PASSWORD_PARALLEL = 4,
    PASSWORD_WAIT_MS = 5000
};

/* ERR_INVALID "password_length" when it is too short or too long (in bytes), or "password_guessable". */
ERR_MUST err_kind_t password_check_policy(const char *password, const char *email, err_t *err);

ERR_MUST err_kind_t password_hash(const char *password, char out[PASSWORD_HASH_ROOM], err_t *err);

/* *matches says whether the password is the one behind the PHC string. encoded == NULL: nobody has that name; the same
 * work is done on a hash that nothing matches, so that both take the same time. */
ERR_MUST err_kind_t password_verify(const char *encoded, const char *password, bool *matches, err_t *err);

/* Was this hash made with other parameters than those of today? */
bool password_needs_rehash(const char *encoded);

#endif
