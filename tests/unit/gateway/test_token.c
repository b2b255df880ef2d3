/*
 * Access tokens: HS256 and nothing else, checked to the last bit, and a key file that only its owner can read.
 */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "gateway/auth/token.h"
#include "tests/unit/support/cmocka_all.h"

#define USER "6ba7b810-9dad-41d1-80b4-00c04fd430c8"

static char dir[64];

static token_signer_t *signer(const char *secret, int64_t ttl) {
    config_t cfg = {.jwt_secret = secret, .tls_dir = dir, .access_ttl_s = ttl};
    token_signer_t *s = NULL;
    err_t err;
    assert_int_equal(token_signer_create(&cfg, &s, &err), ERR_OK);
    return s;
}

static void issue(const token_signer_t *s, char out[TOKEN_MAX]) {
    token_claims_t c = {.user_id = USER, .email = "a@example.org", .is_admin = true};
    assert_int_equal(token_issue(s, &c, out, NULL), ERR_OK);
}

static void round_trip(void **state) {
    char token[TOKEN_MAX];
    token_claims_t c;
    (void)state;
    token_signer_t *s = signer("0123456789abcdef0123456789abcdef", 900);
    issue(s, token);
    assert_int_equal(token_check(s, token, &c, NULL), ERR_OK);
    assert_string_equal(c.user_id, USER);
    assert_string_equal(c.email, "a@example.org");
    assert_true(c.is_admin);
    assert_in_range(c.expires_at - time(NULL), 890, 900);
    token_signer_destroy(s);
}

static void every_changed_character_is_noticed(void **state) {
    char token[TOKEN_MAX];
    token_claims_t c;
    (void)state;
    token_signer_t *s = signer("0123456789abcdef0123456789abcdef", 900);
    issue(s, token);
    size_t n = strlen(token);
    for (size_t i = 0; i + 1 < n; i++) { /* the last one carries two unused bits */
        char kept = token[i];
        token[i] = kept == 'A' ? 'B' : 'A';
        assert_int_equal(token_check(s, token, &c, NULL), ERR_UNAUTHENTICATED);
        token[i] = kept;
    }
    for (size_t i = 0; i < n; i++) {
        char cut[TOKEN_MAX];
        memcpy(cut, token, i);
        cut[i] = '\0';
        assert_int_equal(token_check(s, cut, &c, NULL), ERR_UNAUTHENTICATED);
    }
    token_signer_destroy(s);
}

static void other_key_is_refused(void **state) {
    char token[TOKEN_MAX];
    token_claims_t c;
    (void)state;
    token_signer_t *a = signer("0123456789abcdef0123456789abcdef", 900);
    token_signer_t *b = signer("0123456789abcdef0123456789abcdeF", 900);
    issue(a, token);
    assert_int_equal(token_check(b, token, &c, NULL), ERR_UNAUTHENTICATED);
    token_signer_destroy(a);
    token_signer_destroy(b);
}

static void expired_is_told_apart(void **state) {
    char token[TOKEN_MAX];
    token_claims_t c;
    err_t err;
    (void)state;
    token_signer_t *s = signer("0123456789abcdef0123456789abcdef", -1);
    issue(s, token);
    assert_int_equal(token_check(s, token, &c, &err), ERR_UNAUTHENTICATED);
    assert_string_equal(err.code, "token_expired");
    token_signer_destroy(s);
}

static void put_part(char *out, const char *json) {
    size_t at = strlen(out);
    (void)EVP_EncodeBlock((unsigned char *)out + at, (const unsigned char *)json, (int)strlen(json));
    out[at + strcspn(out + at, "=")] = '\0';
    for (char *p = out + at; *p; p++) {
        *p = (char)(*p == '+' ? '-' : *p == '/' ? '_' : *p);
    }
}

static void other_algorithms_are_refused(void **state) {
    static const char *const headers[] = {"{\"alg\":\"none\",\"typ\":\"JWT\"}",
                                          "{\"alg\":\"None\"}",
                                          "{\"alg\":\"HS512\"}",
                                          "{\"alg\":\"RS256\"}",
                                          "{}",
                                          "{\"alg\":null}"};
    char claims[256];
    token_claims_t c;
    (void)state;
    token_signer_t *s = signer("0123456789abcdef0123456789abcdef", 900);
    (void)snprintf(claims, sizeof claims,
                   "{\"iss\":\"spheroseg\",\"sub\":\"" USER "\",\"email\":\"a\",\"role\":\"admin\",\"exp\":%ld}",
                   (long)time(NULL) + 900);
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        for (int with_dot = 0; with_dot < 2; with_dot++) {
            char token[TOKEN_MAX] = "";
            put_part(token, headers[i]);
            (void)strncat(token, ".", 2);
            put_part(token, claims);
            if (with_dot) {
                (void)strncat(token, ".", 2);
            }
            assert_int_equal(token_check(s, token, &c, NULL), ERR_UNAUTHENTICATED);
        }
    }
    char *huge = malloc(100000);
    memset(huge, 'a', 99999);
    huge[99999] = '\0';
    assert_int_equal(token_check(s, huge, &c, NULL), ERR_UNAUTHENTICATED);
    assert_int_equal(token_check(s, "", &c, NULL), ERR_UNAUTHENTICATED);
    assert_int_equal(token_check(s, "..", &c, NULL), ERR_UNAUTHENTICATED);
    free(huge);
    token_signer_destroy(s);
}

static void key_file_is_private_and_kept(void **state) {
    char token[TOKEN_MAX];
    char path[128];
    token_claims_t c;
    struct stat st;
    (void)state;
    token_signer_t *a = signer("", 900);
    (void)snprintf(path, sizeof path, "%s/jwt.key", dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    issue(a, token);
    token_signer_t *b = signer("", 900); /* the next start */
    assert_int_equal(token_check(b, token, &c, NULL), ERR_OK);
    token_signer_destroy(a);
    token_signer_destroy(b);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    (void)fputs("short\n", f);
    (void)fclose(f);
    config_t cfg = {.jwt_secret = "", .tls_dir = dir, .access_ttl_s = 900};
    assert_int_equal(token_signer_create(&cfg, &a, NULL), ERR_IO);
    (void)unlink(path);
}

static void short_secret_is_refused(void **state) {
    config_t cfg = {.jwt_secret = "0123456789abcdef0123456789abcde", .tls_dir = dir, .access_ttl_s = 900};
    token_signer_t *s = NULL;
    (void)state;
    assert_int_equal(token_signer_create(&cfg, &s, NULL), ERR_INVALID);
    assert_null(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(every_changed_character_is_noticed),
        cmocka_unit_test(other_key_is_refused),
        cmocka_unit_test(expired_is_told_apart),
        cmocka_unit_test(other_algorithms_are_refused),
        cmocka_unit_test(key_file_is_private_and_kept),
        cmocka_unit_test(short_secret_is_refused),
    };
    log_init("test", LOG_ERROR);
    (void)snprintf(dir, sizeof dir, "/tmp/sg-token-XXXXXX");
    if (!mkdtemp(dir)) {
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)rmdir(dir);
    return failed;
}
