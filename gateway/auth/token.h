/*
 * Access tokens: JSON Web Tokens, HS256 and nothing else (RFC 8725), short-lived, never stored. The key is JWT_SECRET,
 * or one that is made on first start and kept in TLS_DIR/jwt.key (mode 0600). Thread-safe after token_signer_create.
 */
#ifndef SG_GATEWAY_TOKEN_H
#define SG_GATEWAY_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"

typedef struct token_signer token_signer_t;

typedef struct {
    char user_id[37];
    char email[256];
    bool is_admin;
    int64_t expires_at; /* seconds since the epoch */
} token_claims_t;

enum { TOKEN_MAX = 2048, TOKEN_SECRET_MIN = 32 };

/* ERR_INVALID "secret_short" for a JWT_SECRET under 32 characters. */
ERR_MUST err_kind_t token_signer_create(const config_t *cfg, token_signer_t **out, err_t *err);
void token_signer_destroy(token_signer_t *s);

/* Signs a token that is valid for ACCESS_TOKEN_TTL seconds; claims->expires_at is set. */
ERR_MUST err_kind_t token_issue(const token_signer_t *s, token_claims_t *claims, char out[TOKEN_MAX], err_t *err);

/* ERR_UNAUTHENTICATED "token_expired" (come back with a refreshed one) or "token_invalid". */
ERR_MUST err_kind_t token_check(const token_signer_t *s, const char *token, token_claims_t *out, err_t *err);

#endif
