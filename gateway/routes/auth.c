/*
 * /api/auth: accounts and sessions. The answer carries the access token for scripts, and two cookies for browsers:
 * sg_access (read-only uses: images, the WebSocket) and sg_refresh, which only /api/auth ever sees.
 */
#include "gateway/auth/auth.h"

#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/timeutil.h"
#include "gateway/auth/session.h"
#include "gateway/http_internal.h"
#include "gateway/proxy.h"

#define BODY_MAX 4096
/* An account is guessed at from many addresses: it takes more failures than one address may cause, so that nobody can
 * lock a person out alone. Making accounts is dearer for us than failing to sign in is for them. */
#define ACCOUNT_FACTOR 5
#define REGISTER_FACTOR 10

static cJSON *user_json(const session_user_t *u) {
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "id", u->id);
    cJSON_AddStringToObject(json, "email", u->email);
    cJSON_AddStringToObject(json, "displayName", u->display_name);
    cJSON_AddStringToObject(json, "role", u->role);
    cJSON_AddStringToObject(json, "createdAt", u->created_at);
    return json;
}

static void set_cookie(http_request_t *req, const char *name, const char *value, const char *path, int64_t max_age_s) {
    char *cookie = arena_printf(req->arena, "%s=%s; Path=%s; Max-Age=%lld; HttpOnly; Secure; SameSite=Strict", name,
                                value, path, (long long)max_age_s);
    if (cookie) {
        http_add_header(req, "Set-Cookie", cookie);
    }
}

static void clear_cookies(http_request_t *req) {
    set_cookie(req, AUTH_ACCESS_COOKIE, "", "/", 0);
    set_cookie(req, AUTH_REFRESH_COOKIE, "", "/api/auth", 0);
}

static err_kind_t reply_session(http_request_t *req, int status, const session_user_t *user, const char *refresh,
                                err_t *err) {
    char token[TOKEN_MAX];
    token_claims_t claims = {0};
    const config_t *cfg = req->gw->cfg;
    memcpy(claims.user_id, user->id, sizeof claims.user_id);
    (void)snprintf(claims.email, sizeof claims.email, "%s", user->email);
    claims.is_admin = strcmp(user->role, "admin") == 0;
    err_kind_t k = token_issue(req->gw->auth->signer, &claims, token, err);
    if (k != ERR_OK) {
        return k;
    }
    memcpy(req->user.id, user->id, sizeof req->user.id); /* for the access log */
    set_cookie(req, AUTH_ACCESS_COOKIE, token, "/", cfg->access_ttl_s);
    set_cookie(req, AUTH_REFRESH_COOKIE, refresh, "/api/auth", cfg->refresh_ttl_s);
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "accessToken", token);
    cJSON_AddNumberToObject(json, "expiresIn", (double)cfg->access_ttl_s);
    cJSON_AddItemToObject(json, "user", user_json(user));
    return http_reply_json(req, status, json);
}

/* The cookie alone authorises refresh and logout: besides SameSite, the page must be ours. */
static err_kind_t check_origin(http_request_t *req, err_t *err) {
    const char *origin = http_header(req, "Origin");
    if (origin && !http_origin_is_allowed(req, origin)) {
        return err_set(err, ERR_FORBIDDEN, "origin_forbidden", "This request came from another site.", NULL);
    }
    return ERR_OK;
}

static err_kind_t required_text(const cJSON *body, const char *key, const char **out, err_t *err) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(body, key);
    if (!cJSON_IsString(item)) {
        return err_setf(err, ERR_INVALID, "field_invalid", "The field “%s” must be text.", key);
    }
    *out = item->valuestring;
    return ERR_OK;
}

static err_kind_t too_many(http_request_t *req, int retry_after_s, err_t *err) {
    char seconds[16];
    (void)snprintf(seconds, sizeof seconds, "%d", retry_after_s);
    http_add_header(req, "Retry-After", seconds);
    return err_setf(err, ERR_LIMIT, "too_many_attempts", "Too many attempts. Please try again in %d minutes.",
                    (retry_after_s + 59) / 60);
}

/* By what the caller is counted. */
static const char *rate_address(http_request_t *req) {
    char key[PROXY_ADDRESS_ROOM];
    proxy_rate_key(req->remote, key);
    const char *kept = arena_strdup(req->arena, key);
    return kept ? kept : req->remote;
}

static err_kind_t do_register(http_request_t *req, err_t *err) {
    cJSON *body = NULL;
    const char *email = NULL;
    const char *password = NULL;
    const char *name = "";
    char refresh[SESSION_TOKEN_ROOM];
    session_user_t user;
    rate_t *rate = req->gw->auth->rate;
    int64_t now = time_mono_ms();
    int retry = 0;
    if (!req->gw->cfg->allow_registration) {
        return err_set(err, ERR_FORBIDDEN, "registration_closed",
                       "New accounts are made by the administrator of this server.", NULL);
    }
    if (rate_is_over(rate, "register", rate_address(req), req->gw->cfg->login_rate * REGISTER_FACTOR, now, &retry)) {
        return too_many(req, retry, err);
    }
    err_kind_t k = http_read_json(req, BODY_MAX, false, &body, err);
    if (k != ERR_OK) {
        return k;
    }
    k = required_text(body, "email", &email, err);
    if (k == ERR_OK) {
        k = required_text(body, "password", &password, err);
    }
    if (k == ERR_OK && cJSON_GetObjectItemCaseSensitive(body, "displayName")) {
        k = required_text(body, "displayName", &name, err);
    }
    if (k != ERR_OK) {
        goto out;
    }
    rate_count(rate, "register", rate_address(req), now);
    k = session_register(req->gw->pg, email, password, name, &user, err);
    if (k == ERR_OK) {
        k = session_start(req->gw->pg, req->gw->cfg, user.id, http_header(req, "User-Agent"), refresh, err);
    }
    if (k == ERR_OK) {
        k = reply_session(req, 201, &user, refresh, err);
    }
out:
    cJSON_Delete(body);
    return k;
}

/* Only letters' case differs between spellings of one account. */
static char *account_key(http_request_t *req, const char *email) {
    char clean[256];
    if (session_clean_email(email, clean, NULL) != ERR_OK) {
        return NULL;
    }
    for (char *p = clean; *p; p++) {
        if (*p >= 'A' && *p <= 'Z') {
            *p = (char)(*p - 'A' + 'a');
        }
    }
    return arena_strdup(req->arena, clean);
}

static err_kind_t log_in(http_request_t *req, const char *email, const char *password, err_t *err) {
    char refresh[SESSION_TOKEN_ROOM];
    session_user_t user;
    auth_t *auth = req->gw->auth;
    int64_t limit = req->gw->cfg->login_rate;
    int64_t now = time_mono_ms();
    const char *account = account_key(req, email);
    int retry = 0;
    if (rate_is_over(auth->rate, "address", rate_address(req), limit, now, &retry) ||
        (account && rate_is_over(auth->rate, "account", account, limit * ACCOUNT_FACTOR, now, &retry))) {
        return too_many(req, retry, err);
    }
    err_kind_t k = session_login(req->gw->pg, email, password, &user, err);
    if (k == ERR_UNAUTHENTICATED) {
        rate_count(auth->rate, "address", rate_address(req), now);
        if (account) {
            rate_count(auth->rate, "account", account, now);
        }
        log_event(LOG_INFO, "sign-in failed", "requestId", req->request_id, "remote", req->remote, NULL);
    }
    if (k != ERR_OK) {
        return k;
    }
    rate_forget(auth->rate, "account", account ? account : "");
    k = session_start(req->gw->pg, req->gw->cfg, user.id, http_header(req, "User-Agent"), refresh, err);
    return k == ERR_OK ? reply_session(req, 200, &user, refresh, err) : k;
}

static err_kind_t do_login(http_request_t *req, err_t *err) {
    cJSON *body = NULL;
    const char *email = NULL;
    const char *password = NULL;
    err_kind_t k = http_read_json(req, BODY_MAX, false, &body, err);
    if (k == ERR_OK) {
        k = required_text(body, "email", &email, err);
    }
    if (k == ERR_OK) {
        k = required_text(body, "password", &password, err);
    }
    if (k == ERR_OK) {
        k = log_in(req, email, password, err);
    }
    cJSON_Delete(body);
    return k;
}

static err_kind_t do_refresh(http_request_t *req, err_t *err) {
    char next[SESSION_TOKEN_ROOM];
    session_user_t user;
    err_kind_t k = check_origin(req, err);
    if (k != ERR_OK) {
        return k;
    }
    const char *token = auth_cookie(req, AUTH_REFRESH_COOKIE);
    if (!token || !*token) {
        return err_set(err, ERR_UNAUTHENTICATED, "refresh_missing", "Please sign in.", NULL);
    }
    k = session_rotate(req->gw->pg, req->gw->cfg, token, http_header(req, "User-Agent"), &user, next, err);
    if (k == ERR_UNAUTHENTICATED) {
        clear_cookies(req);
    }
    return k == ERR_OK ? reply_session(req, 200, &user, next, err) : k;
}

static err_kind_t do_logout(http_request_t *req, err_t *err) {
    err_kind_t k = check_origin(req, err);
    if (k != ERR_OK) {
        return k;
    }
    const char *token = auth_cookie(req, AUTH_REFRESH_COOKIE);
    if (token && *token) {
        k = session_end(req->gw->pg, token, err);
        if (k != ERR_OK) {
            return k;
        }
    }
    clear_cookies(req);
    return http_reply_empty(req, 204);
}

static err_kind_t do_me(http_request_t *req, err_t *err) {
    session_user_t user;
    err_kind_t k = session_load_user(req->gw->pg, req->user.id, &user, err);
    return k == ERR_OK ? http_reply_json(req, 200, user_json(&user)) : k;
}

const http_route_t routes_auth[] = {
    {"POST", "/api/auth/register", do_register, HTTP_PUBLIC},
    {"POST", "/api/auth/login", do_login, HTTP_PUBLIC},
    {"POST", "/api/auth/refresh", do_refresh, HTTP_PUBLIC},
    {"POST", "/api/auth/logout", do_logout, HTTP_PUBLIC},
    {"GET", "/api/auth/me", do_me, 0},
    {NULL, NULL, NULL, 0},
};
