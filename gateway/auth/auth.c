/*
 * From a request to a person: finds the access token and checks it. Nothing is looked up in the database: a token lives
 * for minutes, and what a route touches is checked against the person's id in its own query.
 */
#include "auth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "password.h"

#define RATE_KEYS 65536

err_kind_t auth_create(const config_t *cfg, auth_t **out, err_t *err) {
    auth_t *a = calloc(1, sizeof *a);
    if (!a) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    err_kind_t k = token_signer_create(cfg, &a->signer, err);
    if (k == ERR_OK) {
        a->rate = rate_create(RATE_KEYS);
        if (!a->rate) {
            k = err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
        }
    }
    bool matches = false;
    if (k == ERR_OK) {
        /* Makes the hash that unknown names are compared with, so that the first of them is not told apart. */
        k = password_verify(NULL, "", &matches, err);
    }
    if (k != ERR_OK) {
        auth_destroy(a);
        return k;
    }
    *out = a;
    return ERR_OK;
}

void auth_destroy(auth_t *a) {
    if (a) {
        token_signer_destroy(a->signer);
        rate_destroy(a->rate);
        free(a);
    }
}

const char *auth_cookie(http_request_t *req, const char *name) {
    const char *p = http_header(req, "Cookie");
    size_t want = strlen(name);
    while (p && *p) {
        p += strspn(p, "; \t");
        size_t n = strcspn(p, ";");
        if (n > want && strncmp(p, name, want) == 0 && p[want] == '=') {
            const char *value = p + want + 1;
            size_t len = n - want - 1;
            while (len > 0 && (value[len - 1] == ' ' || value[len - 1] == '\t')) {
                len--;
            }
            return arena_strndup(req->arena, value, len);
        }
        p += n;
    }
    return NULL;
}

static bool is_safe_method(const char *method) {
    return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
}

err_kind_t auth_identify(http_request_t *req, token_claims_t *claims, err_t *err) {
    token_claims_t own = {0};
    token_claims_t *c = claims ? claims : &own;
    const char *token = NULL;
    const char *header = http_header(req, "Authorization");
    if (header) {
        if (strncasecmp(header, "Bearer ", 7) == 0) {
            token = header + 7 + strspn(header + 7, " ");
        }
    } else if (is_safe_method(req->method)) {
        token = auth_cookie(req, AUTH_ACCESS_COOKIE);
    }
    if (!token || !*token) {
        return err_set(err, ERR_UNAUTHENTICATED, "sign_in_required", "Please sign in.", NULL);
    }
    err_kind_t k = token_check(req->gw->auth->signer, token, c, err);
    if (k != ERR_OK) {
        return k;
    }
    memcpy(req->user.id, c->user_id, sizeof req->user.id);
    (void)snprintf(req->user.email, sizeof req->user.email, "%s", c->email);
    req->user.is_admin = c->is_admin;
    return ERR_OK;
}
