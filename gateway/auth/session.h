/*
 * Accounts and sign-ins in PostgreSQL. A sign-in starts a family of refresh tokens: each is 256 random bits, stored
 * only as its SHA-256, and good for one use. Presenting one that was used already means that somebody has a copy, so
 * the whole family is revoked. Thread-safe.
 */
#ifndef SG_GATEWAY_SESSION_H
#define SG_GATEWAY_SESSION_H

#include "common/config.h"
#include "common/err.h"
#include "common/pg.h"

enum { SESSION_TOKEN_ROOM = 64 };

typedef struct {
    char id[37];
    char email[256];
    char display_name[512];
    char role[16];
    char created_at[40]; /* RFC 3339 */
} session_user_t;

/* What a person typed, trimmed at both ends; ERR_INVALID "email_invalid". out has room for 256 bytes. */
ERR_MUST err_kind_t session_clean_email(const char *in, char out[256], err_t *err);

/* Makes an account. ERR_CONFLICT "email_taken"; ERR_INVALID for a bad address, password or name. */
ERR_MUST err_kind_t session_register(pg_pool_t *pg, const char *email, const char *password, const char *display_name,
                                     session_user_t *out, err_t *err);

/* ERR_UNAUTHENTICATED "credentials_wrong": the same words and the same time for an unknown address, a wrong password
 * and a disabled account. A hash with old parameters is renewed on the way. */
ERR_MUST err_kind_t session_login(pg_pool_t *pg, const char *email, const char *password, session_user_t *out,
                                  err_t *err);

/* ERR_UNAUTHENTICATED when the account is gone or disabled. */
ERR_MUST err_kind_t session_load_user(pg_pool_t *pg, const char *user_id, session_user_t *out, err_t *err);

/* Starts a family. */
ERR_MUST err_kind_t session_start(pg_pool_t *pg, const config_t *cfg, const char *user_id, const char *user_agent,
                                  char token[SESSION_TOKEN_ROOM], err_t *err);

/* Trades a token for the next of its family, in one transaction. ERR_UNAUTHENTICATED "refresh_invalid" (unknown,
 * expired, revoked) or "refresh_reused" (the family is revoked now). */
ERR_MUST err_kind_t session_rotate(pg_pool_t *pg, const config_t *cfg, const char *token, const char *user_agent,
                                   session_user_t *user, char next[SESSION_TOKEN_ROOM], err_t *err);

/* Revokes the family of a token; one that is unknown is fine. */
ERR_MUST err_kind_t session_end(pg_pool_t *pg, const char *token, err_t *err);

/* Deletes what expired. */
ERR_MUST err_kind_t session_sweep(pg_pool_t *pg, err_t *err);

#endif
