/*
 * Argon2id through libargon2. Every hash needs 19 MiB for some tens of milliseconds: a gate lets PASSWORD_PARALLEL of
 * them run and makes the rest wait for a bounded time.
 */
#include "password.h"

#include <argon2.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define MEMORY_KIB 19456U
#define PASSES 2U
#define LANES 1U
#define SALT_LEN 16
#define HASH_LEN 32

static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_free = PTHREAD_COND_INITIALIZER;
static int gate_running;

static bool gate_enter(void) {
    struct timespec until;
    bool in = true;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PASSWORD_WAIT_MS / 1000;
    pthread_mutex_lock(&gate_lock);
    while (gate_running >= PASSWORD_PARALLEL) {
        if (pthread_cond_timedwait(&gate_free, &gate_lock, &until) == ETIMEDOUT && gate_running >= PASSWORD_PARALLEL) {
            in = false;
            break;
        }
    }
    gate_running += in ? 1 : 0;
    pthread_mutex_unlock(&gate_lock);
    return in;
}

static void gate_leave(void) {
    pthread_mutex_lock(&gate_lock);
    gate_running--;
    pthread_cond_signal(&gate_free);
    pthread_mutex_unlock(&gate_lock);
}

static err_kind_t busy(err_t *err) {
    return err_set(err, ERR_UNAVAILABLE, "busy_signing_in",
                   "Too many people are signing in at this moment. Please try again in a few seconds.", NULL);
}

err_kind_t password_check_policy(const char *password, const char *email, err_t *err) {
    size_t n = strlen(password);
    if (n < PASSWORD_MIN || n > PASSWORD_MAX) {
        return err_setf(err, ERR_INVALID, "password_length", "The password must have %d to %d characters.",
                        PASSWORD_MIN, PASSWORD_MAX);
    }
    bool one_character = strspn(password, (char[]){password[0], '\0'}) == n;
    if (one_character || (email && strcasecmp(password, email) == 0)) {
        return err_set(err, ERR_INVALID, "password_guessable",
                       "This password is too easy to guess. Please choose another one.", NULL);
    }
    return ERR_OK;
}

err_kind_t password_hash(const char *password, char out[PASSWORD_HASH_ROOM], err_t *err) {
    unsigned char salt[SALT_LEN];
    if (RAND_bytes(salt, sizeof salt) != 1) {
        return err_set(err, ERR_INTERNAL, "random_failed", "The server could not protect the password.", "RAND_bytes");
    }
    if (!gate_enter()) {
        return busy(err);
    }
    int r = argon2id_hash_encoded(PASSES, MEMORY_KIB, LANES, password, strlen(password), salt, sizeof salt, HASH_LEN,
                                  out, PASSWORD_HASH_ROOM);
    gate_leave();
    if (r != ARGON2_OK) {
        return err_set(err, r == ARGON2_MEMORY_ALLOCATION_ERROR ? ERR_NO_MEMORY : ERR_INTERNAL, "hash_failed",
                       "The server could not protect the password. Please try again.", "argon2: %s",
                       argon2_error_message(r));
    }
    return ERR_OK;
}

/* A well-formed hash with today's parameters that no password is known for: what an unknown name is compared with. */
static pthread_once_t nobody_once = PTHREAD_ONCE_INIT;
static char nobody[PASSWORD_HASH_ROOM];

static void make_nobody(void) {
    unsigned char random[24];
    char password[2 * sizeof random + 1];
    if (RAND_bytes(random, sizeof random) != 1) {
        return;
    }
    for (size_t i = 0; i < sizeof random; i++) {
        (void)snprintf(password + 2 * i, 3, "%02x", random[i]);
    }
    if (password_hash(password, nobody, NULL) != ERR_OK) {
        nobody[0] = '\0';
    }
    OPENSSL_cleanse(password, sizeof password);
}

err_kind_t password_verify(const char *encoded, const char *password, bool *matches, err_t *err) {
    *matches = false;
    pthread_once(&nobody_once, make_nobody);
    if (strlen(password) > PASSWORD_MAX) {
        password = "";
        encoded = NULL;
    }
    const char *against = encoded ? encoded : nobody;
    if (!gate_enter()) {
        return busy(err);
    }
    int r = argon2id_verify(against, password, strlen(password));
    gate_leave();
    if (r == ARGON2_OK) {
        *matches = encoded != NULL;
        return ERR_OK;
    }
    if (r == ARGON2_VERIFY_MISMATCH || !encoded) {
        return ERR_OK;
    }
    return err_set(err, r == ARGON2_MEMORY_ALLOCATION_ERROR ? ERR_NO_MEMORY : ERR_INTERNAL, "hash_failed",
                   "The server could not check the password. Please try again.", "argon2: %s", argon2_error_message(r));
}

bool password_needs_rehash(const char *encoded) {
    char want[64];
    (void)snprintf(want, sizeof want, "$argon2id$v=19$m=%u,t=%u,p=%u$", MEMORY_KIB, PASSES, LANES);
    return strncmp(encoded, want, strlen(want)) != 0;
}
