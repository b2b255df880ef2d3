/*
 * Who is calling. The access token comes in the Authorization header, or, for GET, HEAD and the WebSocket handshake, in
 * the sg_access cookie (so that <img> works); a request that changes something is never authorised by a cookie, which
 * together with SameSite=Strict closes cross-site request forgery. Thread-safe.
 */
#ifndef SG_GATEWAY_AUTH_H
#define SG_GATEWAY_AUTH_H

#include "gateway/auth/rate.h"
#include "gateway/auth/token.h"
#include "gateway/http.h"

typedef struct auth {
    token_signer_t *signer;
    rate_t *rate;
} auth_t;

#define AUTH_ACCESS_COOKIE "sg_access"
#define AUTH_REFRESH_COOKIE "sg_refresh"

ERR_MUST err_kind_t auth_create(const config_t *cfg, auth_t **out, err_t *err);
void auth_destroy(auth_t *a);

/* Fills in req->user. *claims (may be NULL) gets the token's claims. ERR_UNAUTHENTICATED "sign_in_required" when there
 * is no token, or what token_check says. */
ERR_MUST err_kind_t auth_identify(http_request_t *req, token_claims_t *claims, err_t *err);

/* The cookie's value in the arena, NULL when absent. */
const char *auth_cookie(http_request_t *req, const char *name);

#endif
