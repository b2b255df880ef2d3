/*
 * HS256 tokens through libjwt. The algorithm is pinned before and after decoding: a token that names "none" or an
 * asymmetric algorithm is refused, whatever its signature says.
 */
#include "token.h"

#include <errno.h>
#include <fcntl.h>
#include <jwt.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/pg.h"

#define ISSUER "spheroseg"
#define KEY_BYTES 32

struct token_signer {
    unsigned char key[512];
    int key_len;
    int64_t ttl_s;
};

static err_kind_t key_io_error(err_t *err, const char *what, const char *path) {
    return err_set(err, ERR_IO, "key_file",
                   "The signing key in TLS_DIR cannot be read or written. Check the directory and its owner.",
                   "%s %s: %s", what, path, strerror(errno));
}

static err_kind_t read_key(const char *path, token_signer_t *s, bool *found, err_t *err) {
    *found = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return errno == ENOENT ? ERR_OK : key_io_error(err, "open", path);
    }
    ssize_t n = read(fd, s->key, sizeof s->key - 1);
    close(fd);
    if (n < 0) {
        return key_io_error(err, "read", path);
    }
    while (n > 0 && (s->key[n - 1] == '\n' || s->key[n - 1] == '\r')) {
        n--;
    }
    if (n < TOKEN_SECRET_MIN) {
        errno = EINVAL;
        return key_io_error(err, "key too short", path);
    }
    s->key_len = (int)n;
    *found = true;
    return ERR_OK;
}

/* Writes a new key under a temporary name and links it into place, so that of many starting replicas that share the
 * directory one wins and all read the same key. */
static err_kind_t make_key(const char *dir, const char *path, err_t *err) {
    unsigned char random[KEY_BYTES];
    char text[2 * KEY_BYTES + 2];
    char temp[4096 + 64];
    err_kind_t k = ERR_OK;
    if (mkdir(dir, 0700) != 0 && errno != EEXIST) {
        return key_io_error(err, "mkdir", dir);
    }
    if (RAND_bytes(random, sizeof random) != 1) {
        return err_set(err, ERR_INTERNAL, "random_failed", "No random numbers for the signing key.", "RAND_bytes");
    }
    for (size_t i = 0; i < sizeof random; i++) {
        (void)snprintf(text + 2 * i, 3, "%02x", random[i]);
    }
    (void)snprintf(temp, sizeof temp, "%s.%ld.new", path, (long)getpid());
    int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return key_io_error(err, "create", temp);
    }
    text[2 * KEY_BYTES] = '\n';
    if (write(fd, text, 2 * KEY_BYTES + 1) != 2 * KEY_BYTES + 1 || fsync(fd) != 0) {
        k = key_io_error(err, "write", temp);
    }
    close(fd);
    if (k == ERR_OK && link(temp, path) != 0 && errno != EEXIST) {
        k = key_io_error(err, "link", path);
    }
    (void)unlink(temp);
    OPENSSL_cleanse(text, sizeof text);
    return k;
}

err_kind_t token_signer_create(const config_t *cfg, token_signer_t **out, err_t *err) {
    char path[4096];
    bool found = false;
    token_signer_t *s = calloc(1, sizeof *s);
    if (!s) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    s->ttl_s = cfg->access_ttl_s;
    size_t n = strlen(cfg->jwt_secret);
    err_kind_t k = ERR_OK;
    if (n > 0) {
        if (n < TOKEN_SECRET_MIN || n > sizeof s->key) {
            k = err_setf(err, ERR_INVALID, "secret_short", "JWT_SECRET must have %d to %zu characters.",
                         TOKEN_SECRET_MIN, sizeof s->key);
            goto out;
        }
        memcpy(s->key, cfg->jwt_secret, n);
        s->key_len = (int)n;
        goto out;
    }
    if ((size_t)snprintf(path, sizeof path - 32, "%s/jwt.key", cfg->tls_dir) >= sizeof path - 32) {
        errno = ENAMETOOLONG;
        k = key_io_error(err, "name", cfg->tls_dir);
        goto out;
    }
    k = read_key(path, s, &found, err);
    if (k == ERR_OK && !found) {
        k = make_key(cfg->tls_dir, path, err);
        if (k == ERR_OK) {
            k = read_key(path, s, &found, err);
        }
        if (k == ERR_OK && !found) {
            errno = ENOENT;
            k = key_io_error(err, "open", path);
        }
        if (k == ERR_OK) {
            log_event(LOG_INFO, "made a new key for access tokens", "file", path, NULL);
        }
    }
out:
    if (k != ERR_OK) {
        token_signer_destroy(s);
        return k;
    }
    *out = s;
    return ERR_OK;
}

void token_signer_destroy(token_signer_t *s) {
    if (s) {
        OPENSSL_cleanse(s, sizeof *s);
        free(s);
    }
}

err_kind_t token_issue(const token_signer_t *s, token_claims_t *claims, char out[TOKEN_MAX], err_t *err) {
    jwt_t *jwt = NULL;
    char *text = NULL;
    err_kind_t k = ERR_OK;
    time_t now = time(NULL);
    claims->expires_at = (int64_t)now + s->ttl_s;
    if (jwt_new(&jwt) != 0 || jwt_set_alg(jwt, JWT_ALG_HS256, s->key, s->key_len) != 0 ||
        jwt_add_grant(jwt, "iss", ISSUER) != 0 || jwt_add_grant(jwt, "sub", claims->user_id) != 0 ||
        jwt_add_grant(jwt, "email", claims->email) != 0 ||
        jwt_add_grant(jwt, "role", claims->is_admin ? "admin" : "user") != 0 ||
        jwt_add_grant_int(jwt, "iat", (long)now) != 0 || jwt_add_grant_int(jwt, "exp", (long)claims->expires_at) != 0) {
        k = err_set(err, ERR_INTERNAL, "token_failed", "The server could not sign you in. Please try again.", "libjwt");
        goto out;
    }
    text = jwt_encode_str(jwt);
    if (!text || strlen(text) >= TOKEN_MAX) {
        k = err_set(err, ERR_INTERNAL, "token_failed", "The server could not sign you in. Please try again.",
                    "token missing or too long");
        goto out;
    }
    memcpy(out, text, strlen(text) + 1);
out:
    free(text);
    if (jwt) {
        jwt_free(jwt);
    }
    return k;
}

static err_kind_t token_invalid(err_t *err, const char *why) {
    return err_set(err, ERR_UNAUTHENTICATED, "token_invalid", "Please sign in again.", "access token: %s", why);
}

err_kind_t token_check(const token_signer_t *s, const char *token, token_claims_t *out, err_t *err) {
    jwt_t *jwt = NULL;
    err_kind_t k;
    memset(out, 0, sizeof *out);
    if (strlen(token) >= TOKEN_MAX) {
        return token_invalid(err, "too long");
    }
    if (jwt_decode(&jwt, token, s->key, s->key_len) != 0 || !jwt) {
        return token_invalid(err, "does not verify");
    }
    if (jwt_get_alg(jwt) != JWT_ALG_HS256) {
        k = token_invalid(err, "other algorithm");
        goto out;
    }
    const char *issuer = jwt_get_grant(jwt, "iss");
    const char *subject = jwt_get_grant(jwt, "sub");
    const char *email = jwt_get_grant(jwt, "email");
    const char *role = jwt_get_grant(jwt, "role");
    long expires = jwt_get_grant_int(jwt, "exp");
    if (!issuer || strcmp(issuer, ISSUER) != 0 || !subject || !pg_is_uuid(subject) || !email ||
        strlen(email) >= sizeof out->email || !role) {
        k = token_invalid(err, "claims missing");
        goto out;
    }
    if (expires <= (long)time(NULL)) {
        k = err_set(err, ERR_UNAUTHENTICATED, "token_expired", "Your session has expired. Please sign in again.", NULL);
        goto out;
    }
    memcpy(out->user_id, subject, sizeof out->user_id);
    memcpy(out->email, email, strlen(email) + 1);
    out->is_admin = strcmp(role, "admin") == 0;
    out->expires_at = expires;
    k = ERR_OK;
out:
    jwt_free(jwt);
    return k;
}
