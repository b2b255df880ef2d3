/*
 * Accounts and refresh tokens. Rotation locks the token's row, so of two requests with the same token the second waits,
 * sees that it was rotated, and counts as reuse.
 */
#include "session.h"

#include <ctype.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/utf8.h"
#include "password.h"

#define TOKEN_BYTES 32
#define HASH_TEXT (2 + 64 + 1)
#define USER_COLUMNS                                                                                                   \
    "u.id, u.email, u.display_name, u.role, "                                                                          \
    "to_char(u.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') AS created_at"

static void copy_field(char *dst, size_t room, const char *src) {
    (void)snprintf(dst, room, "%s", src ? src : "");
}

static void read_user(const PGresult *res, session_user_t *out) {
    copy_field(out->id, sizeof out->id, pg_get(res, 0, "id"));
    copy_field(out->email, sizeof out->email, pg_get(res, 0, "email"));
    copy_field(out->display_name, sizeof out->display_name, pg_get(res, 0, "display_name"));
    copy_field(out->role, sizeof out->role, pg_get(res, 0, "role"));
    copy_field(out->created_at, sizeof out->created_at, pg_get(res, 0, "created_at"));
}

err_kind_t session_clean_email(const char *in, char out[256], err_t *err) {
    while (isspace((unsigned char)*in)) {
        in++;
    }
    size_t n = strlen(in);
    while (n > 0 && isspace((unsigned char)in[n - 1])) {
        n--;
    }
    const char *at = memchr(in, '@', n);
    bool good = n >= 3 && n <= 254 && at && at != in && (size_t)(at - in) + 1 < n && utf8_is_valid(in, n) &&
                !memchr(at + 1, '@', n - (size_t)(at - in) - 1);
    for (size_t i = 0; good && i < n; i++) {
        good = (unsigned char)in[i] > 0x20 && in[i] != 0x7f;
    }
    if (!good) {
        return err_set(err, ERR_INVALID, "email_invalid", "Please enter an e-mail address like name@example.org.",
                       NULL);
    }
    memcpy(out, in, n);
    out[n] = '\0';
    return ERR_OK;
}

/* Counts characters, not bytes. */
static size_t text_length(const char *s) {
    size_t n = 0;
    for (; *s; s++) {
        n += ((unsigned char)*s & 0xC0U) != 0x80U;
    }
    return n;
}

err_kind_t session_register(pg_pool_t *pg, const char *email, const char *password, const char *display_name,
                            session_user_t *out, err_t *err) {
    char address[256];
    char hash[PASSWORD_HASH_ROOM];
    err_kind_t k = session_clean_email(email, address, err);
    if (k != ERR_OK) {
        return k;
    }
    k = password_check_policy(password, address, err);
    if (k != ERR_OK) {
        return k;
    }
    if (!display_name) {
        display_name = "";
    }
    if (!utf8_is_valid(display_name, strlen(display_name)) || text_length(display_name) > 120) {
        return err_set(err, ERR_INVALID, "name_invalid", "The name may have at most 120 characters.", NULL);
    }
    k = password_hash(password, hash, err);
    if (k != ERR_OK) {
        return k;
    }
    const char *params[] = {address, display_name, hash};
    PGresult *res = NULL;
    err_t why;
    k = pg_query(pg,
                 "INSERT INTO users AS u (email, display_name, password_hash) VALUES ($1, $2, $3)"
                 " RETURNING " USER_COLUMNS,
                 3, params, &res, &why);
    OPENSSL_cleanse(hash, sizeof hash);
    if (k == ERR_CONFLICT) {
        return err_set(err, ERR_CONFLICT, "email_taken",
                       "There is an account with this e-mail address already. Please sign in instead.", NULL);
    }
    if (k != ERR_OK) {
        if (err) {
            *err = why;
        }
        return k;
    }
    read_user(res, out);
    PQclear(res);
    return ERR_OK;
}

static void renew_hash(pg_pool_t *pg, const char *user_id, const char *password) {
    char hash[PASSWORD_HASH_ROOM];
    err_t err;
    if (password_hash(password, hash, &err) != ERR_OK) {
        log_error(LOG_WARN, "renewing a password hash", &err);
        return;
    }
    const char *params[] = {user_id, hash};
    if (pg_query(pg, "UPDATE users SET password_hash = $2 WHERE id = $1", 2, params, NULL, &err) != ERR_OK) {
        log_error(LOG_WARN, "renewing a password hash", &err);
    }
    OPENSSL_cleanse(hash, sizeof hash);
}

err_kind_t session_login(pg_pool_t *pg, const char *email, const char *password, session_user_t *out, err_t *err) {
    char address[256];
    PGresult *res = NULL;
    bool matches = false;
    bool rehash = false;
    if (session_clean_email(email, address, NULL) != ERR_OK) {
        address[0] = '\0'; /* nobody has it; the rest takes its time as always */
    }
    const char *params[] = {address};
    err_kind_t k = pg_query(pg,
                            "SELECT " USER_COLUMNS ", u.password_hash, u.disabled_at IS NOT NULL AS disabled"
                            " FROM users u WHERE lower(u.email) = lower($1)",
                            1, params, &res, err);
    if (k != ERR_OK) {
        return k;
    }
    bool known = PQntuples(res) == 1;
    const char *hash = known ? pg_get(res, 0, "password_hash") : NULL;
    k = password_verify(hash, password, &matches, err);
    if (k == ERR_OK && matches && !pg_get_bool(res, 0, "disabled")) {
        read_user(res, out);
        rehash = password_needs_rehash(hash);
    } else if (k == ERR_OK) {
        k = err_set(err, ERR_UNAUTHENTICATED, "credentials_wrong", "The e-mail address or the password is wrong.",
                    NULL);
    }
    PQclear(res);
    if (rehash) {
        renew_hash(pg, out->id, password);
    }
    return k;
}

err_kind_t session_load_user(pg_pool_t *pg, const char *user_id, session_user_t *out, err_t *err) {
    PGresult *res = NULL;
    const char *params[] = {user_id};
    err_kind_t k = pg_query(pg, "SELECT " USER_COLUMNS " FROM users u WHERE u.id = $1 AND u.disabled_at IS NULL", 1,
                            params, &res, err);
    if (k != ERR_OK) {
        return k;
    }
    if (PQntuples(res) == 1) {
        read_user(res, out);
    } else {
        k = err_set(err, ERR_UNAUTHENTICATED, "account_gone", "This account does not exist any more.", NULL);
    }
    PQclear(res);
    return k;
}

/* ---- refresh tokens ---- */

static bool make_token(char out[SESSION_TOKEN_ROOM]) {
    unsigned char random[TOKEN_BYTES];
    if (RAND_bytes(random, sizeof random) != 1) {
        return false;
    }
    int n = EVP_EncodeBlock((unsigned char *)out, random, sizeof random);
    while (n > 0 && out[n - 1] == '=') {
        out[--n] = '\0';
    }
    for (char *p = out; *p; p++) {
        *p = (char)(*p == '+' ? '-' : *p == '/' ? '_' : *p);
    }
    OPENSSL_cleanse(random, sizeof random);
    return true;
}

/* SHA-256 as PostgreSQL's hexadecimal bytea. The token has 256 bits of chance: no salt or slow hash is needed. */
static bool hash_token(const char *token, char out[HASH_TEXT]) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int n = 0;
    if (EVP_Digest(token, strlen(token), digest, &n, EVP_sha256(), NULL) != 1 || n != 32) {
        return false;
    }
    out[0] = '\\';
    out[1] = 'x';
    for (unsigned int i = 0; i < n; i++) {
        (void)snprintf(out + 2 + 2 * (size_t)i, 3, "%02x", digest[i]);
    }
    return true;
}

/* family == NULL starts a new one. */
static err_kind_t insert_token(pg_conn_t *conn, const config_t *cfg, const char *family, const char *user_id,
                               const char *user_agent, char token[SESSION_TOKEN_ROOM], err_t *err) {
    char hash[HASH_TEXT];
    char ttl[32];
    char agent[201];
    if (!make_token(token) || !hash_token(token, hash)) {
        return err_set(err, ERR_INTERNAL, "random_failed", "The server could not sign you in. Please try again.",
                       "openssl");
    }
    (void)snprintf(ttl, sizeof ttl, "%lld", (long long)cfg->refresh_ttl_s);
    (void)snprintf(agent, sizeof agent, "%s", user_agent ? user_agent : "");
    if (!utf8_is_valid(agent, strlen(agent))) {
        agent[0] = '\0';
    }
    const char *params[] = {family, user_id, hash, ttl, agent};
    return pg_exec(
        conn,
        "INSERT INTO refresh_tokens (family_id, user_id, token_hash, expires_at, user_agent)"
        " VALUES (coalesce($1::uuid, gen_random_uuid()), $2, $3::bytea, now() + make_interval(secs => $4::int), $5)",
        5, params, NULL, err);
}

err_kind_t session_start(pg_pool_t *pg, const config_t *cfg, const char *user_id, const char *user_agent,
                         char token[SESSION_TOKEN_ROOM], err_t *err) {
    pg_conn_t *conn = NULL;
    err_kind_t k = pg_acquire(pg, &conn, err);
    if (k == ERR_OK) {
        k = insert_token(conn, cfg, NULL, user_id, user_agent, token, err);
        pg_release(conn);
    }
    return k;
}

static err_kind_t refresh_invalid(err_t *err) {
    return err_set(err, ERR_UNAUTHENTICATED, "refresh_invalid", "Your session has ended. Please sign in again.", NULL);
}

static err_kind_t revoke_family(pg_conn_t *conn, const char *family, err_t *err) {
    const char *params[] = {family};
    return pg_exec(conn, "UPDATE refresh_tokens SET revoked_at = now() WHERE family_id = $1 AND revoked_at IS NULL", 1,
                   params, NULL, err);
}

/* Inside a transaction that holds the token's row. */
static err_kind_t rotate_locked(pg_conn_t *conn, const config_t *cfg, const PGresult *res, const char *user_agent,
                                session_user_t *user, char next[SESSION_TOKEN_ROOM], bool *reused, err_t *err) {
    const char *family = pg_get(res, 0, "family_id");
    if (pg_get_bool(res, 0, "revoked") || pg_get_bool(res, 0, "expired") || pg_get_bool(res, 0, "disabled")) {
        return refresh_invalid(err);
    }
    if (pg_get_bool(res, 0, "rotated")) {
        err_kind_t k = revoke_family(conn, family, err);
        *reused = k == ERR_OK;
        return k;
    }
    read_user(res, user);
    const char *params[] = {pg_get(res, 0, "token_id")};
    err_kind_t k = pg_exec(conn, "UPDATE refresh_tokens SET rotated_at = now() WHERE id = $1", 1, params, NULL, err);
    if (k == ERR_OK) {
        k = insert_token(conn, cfg, family, user->id, user_agent, next, err);
    }
    return k;
}

err_kind_t session_rotate(pg_pool_t *pg, const config_t *cfg, const char *token, const char *user_agent,
                          session_user_t *user, char next[SESSION_TOKEN_ROOM], err_t *err) {
    char hash[HASH_TEXT];
    pg_conn_t *conn = NULL;
    PGresult *res = NULL;
    bool reused = false;
    if (strlen(token) >= SESSION_TOKEN_ROOM || !hash_token(token, hash)) {
        return refresh_invalid(err);
    }
    err_kind_t k = pg_acquire(pg, &conn, err);
    if (k != ERR_OK) {
        return k;
    }
    k = pg_begin(conn, err);
    if (k != ERR_OK) {
        goto out;
    }
    const char *params[] = {hash};
    k = pg_exec(
        conn,
        "SELECT " USER_COLUMNS ", t.id AS token_id, t.family_id, t.revoked_at IS NOT NULL AS revoked,"
        " t.rotated_at IS NOT NULL AS rotated, t.expires_at <= now() AS expired,"
        " u.disabled_at IS NOT NULL AS disabled"
        " FROM refresh_tokens t JOIN users u ON u.id = t.user_id WHERE t.token_hash = $1::bytea FOR UPDATE OF t",
        1, params, &res, err);
    if (k == ERR_OK) {
        k = PQntuples(res) == 1 ? rotate_locked(conn, cfg, res, user_agent, user, next, &reused, err)
                                : refresh_invalid(err);
    }
    if (k == ERR_OK) {
        k = pg_commit(conn, err);
    } else {
        pg_rollback(conn);
    }
    if (k == ERR_OK && reused) {
        log_event(LOG_WARN, "refresh token used twice, its family is revoked", "familyId", pg_get(res, 0, "family_id"),
                  "userId", pg_get(res, 0, "id"), NULL);
        k = err_set(err, ERR_UNAUTHENTICATED, "refresh_reused",
                    "This session was used from two places and has been ended. Please sign in again.", NULL);
    }
out:
    PQclear(res);
    pg_release(conn);
    return k;
}

err_kind_t session_end(pg_pool_t *pg, const char *token, err_t *err) {
    char hash[HASH_TEXT];
    if (strlen(token) >= SESSION_TOKEN_ROOM || !hash_token(token, hash)) {
        return ERR_OK;
    }
    const char *params[] = {hash};
    return pg_query(pg,
                    "UPDATE refresh_tokens SET revoked_at = now() WHERE revoked_at IS NULL AND family_id IN"
                    " (SELECT family_id FROM refresh_tokens WHERE token_hash = $1::bytea)",
                    1, params, NULL, err);
}

err_kind_t session_sweep(pg_pool_t *pg, err_t *err) {
    return pg_query(pg, "DELETE FROM refresh_tokens WHERE expires_at < now()", 0, NULL, NULL, err);
}
