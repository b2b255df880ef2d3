/*
 * Certificates: made when missing, kept while good, renewed in time; and what a TLS context lets in.
 */
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "gateway/tls.h"
#include "tests/unit/support/cmocka_all.h"

static char dir[64];
static config_t cfg;
static tls_files_t files;

static X509 *read_certificate(const char *path) {
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    X509 *cert = PEM_read_X509(f, NULL, NULL, NULL);
    (void)fclose(f);
    assert_non_null(cert);
    return cert;
}

static void made_when_missing(void **state) {
    struct stat st;
    int days = 0;
    err_t err;
    (void)state;
    assert_int_equal(tls_prepare(&cfg, &files, &err), ERR_OK);
    assert_true(files.self_signed);
    assert_int_equal(stat(files.key, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(tls_days_left(files.cert, &days, &err), ERR_OK);
    assert_in_range(days, TLS_VALID_DAYS - 1, TLS_VALID_DAYS);
    X509 *cert = read_certificate(files.cert);
    assert_int_equal(X509_check_host(cert, "localhost", 0, 0, NULL), 1);
    assert_int_equal(X509_check_ip_asc(cert, "127.0.0.1", 0), 1);
    assert_int_equal(X509_check_ip_asc(cert, "::1", 0), 1);
    assert_int_equal(X509_check_host(cert, "spheroseg.example.org", 0, 0, NULL), 1); /* of PUBLIC_URL */
    assert_int_equal(X509_check_host(cert, "example.org", 0, 0, NULL), 0);
    X509_free(cert);
}

static void kept_while_good(void **state) {
    (void)state;
    int64_t before = tls_files_stamp(&files);
    assert_int_equal(tls_prepare(&cfg, &files, NULL), ERR_OK);
    assert_int_equal(tls_files_stamp(&files), before);
}

/* Puts a certificate with few days left, for the same key, in place of the good one. */
static void age_certificate(int days) {
    X509 *cert = read_certificate(files.cert);
    FILE *f = fopen(files.key, "r");
    EVP_PKEY *key = PEM_read_PrivateKey(f, NULL, NULL, NULL);
    (void)fclose(f);
    assert_non_null(X509_time_adj_ex(X509_getm_notAfter(cert), days, 60, NULL));
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    f = fopen(files.cert, "w");
    assert_int_equal(PEM_write_X509(f, cert), 1);
    (void)fclose(f);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static void renewed_in_time(void **state) {
    int days = 0;
    (void)state;
    age_certificate(TLS_RENEW_DAYS);
    assert_int_equal(tls_prepare(&cfg, &files, NULL), ERR_OK);
    assert_int_equal(tls_days_left(files.cert, &days, NULL), ERR_OK);
    assert_int_equal(days, TLS_RENEW_DAYS); /* still enough */
    age_certificate(TLS_RENEW_DAYS - 1);
    assert_int_equal(tls_prepare(&cfg, &files, NULL), ERR_OK);
    assert_int_equal(tls_days_left(files.cert, &days, NULL), ERR_OK);
    assert_true(days > 300);
}

static void broken_pair_is_replaced(void **state) {
    SSL_CTX *ctx = NULL;
    (void)state;
    FILE *f = fopen(files.key, "w");
    (void)fputs("not a key\n", f);
    (void)fclose(f);
    assert_int_equal(tls_context_create(&files, &ctx, NULL), ERR_INTERNAL);
    assert_int_equal(tls_prepare(&cfg, &files, NULL), ERR_OK);
    assert_int_equal(tls_context_create(&files, &ctx, NULL), ERR_OK);
    SSL_CTX_free(ctx);
}

static void own_files_are_taken_as_they_are(void **state) {
    config_t own = cfg;
    tls_files_t f;
    (void)state;
    own.tls_cert = "/nowhere/cert.pem";
    assert_int_equal(tls_prepare(&own, &f, NULL), ERR_INVALID); /* one without the other */
    own.tls_key = "/nowhere/key.pem";
    assert_int_equal(tls_prepare(&own, &f, NULL), ERR_OK);
    assert_false(f.self_signed);
    assert_string_equal(f.cert, "/nowhere/cert.pem");
}

/* A handshake in memory; returns the protocol's version, 0 when it failed. */
static int handshake(SSL_CTX *server_ctx, int max_version, const char *ciphers) {
    SSL_CTX *client_ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_security_level(client_ctx, 0);
    SSL_CTX_set_min_proto_version(client_ctx, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(client_ctx, max_version);
    if (ciphers) {
        assert_int_equal(SSL_CTX_set_cipher_list(client_ctx, ciphers), 1);
    }
    SSL *client = SSL_new(client_ctx);
    SSL *server = SSL_new(server_ctx);
    BIO *a = NULL;
    BIO *b = NULL;
    assert_int_equal(BIO_new_bio_pair(&a, 0, &b, 0), 1);
    SSL_set_bio(client, a, a);
    SSL_set_bio(server, b, b);
    SSL_set_connect_state(client);
    SSL_set_accept_state(server);
    int version = 0;
    for (int i = 0; i < 20; i++) {
        int c = SSL_do_handshake(client);
        int s = SSL_do_handshake(server);
        if (c == 1 && s == 1) {
            version = SSL_version(client);
            break;
        }
    }
    SSL_free(client);
    SSL_free(server);
    SSL_CTX_free(client_ctx);
    return version;
}

static void old_protocols_and_weak_ciphers_stay_out(void **state) {
    SSL_CTX *ctx = NULL;
    (void)state;
    assert_int_equal(tls_context_create(&files, &ctx, NULL), ERR_OK);
    assert_int_equal(handshake(ctx, TLS1_3_VERSION, NULL), TLS1_3_VERSION);
    assert_int_equal(handshake(ctx, TLS1_2_VERSION, NULL), TLS1_2_VERSION);
    assert_int_equal(handshake(ctx, TLS1_1_VERSION, NULL), 0);
    assert_int_equal(handshake(ctx, TLS1_VERSION, NULL), 0);
    assert_int_equal(handshake(ctx, TLS1_2_VERSION, "ECDHE-ECDSA-AES128-SHA"), 0); /* CBC */
    assert_int_equal(handshake(ctx, TLS1_2_VERSION, "ECDHE-ECDSA-AES128-GCM-SHA256"), TLS1_2_VERSION);
    SSL_CTX_free(ctx);
}

static void a_reload_that_fails_keeps_the_old_pair(void **state) {
    SSL_CTX *ctx = NULL;
    tls_files_t wrong = files;
    (void)state;
    assert_int_equal(tls_context_create(&files, &ctx, NULL), ERR_OK);
    (void)snprintf(wrong.cert, sizeof wrong.cert, "%s/missing.pem", dir);
    assert_int_equal(tls_context_reload(ctx, &wrong, NULL), ERR_INTERNAL);
    assert_int_equal(handshake(ctx, TLS1_3_VERSION, NULL), TLS1_3_VERSION);
    age_certificate(100);
    X509 *now = read_certificate(files.cert);
    assert_int_equal(tls_context_reload(ctx, &files, NULL), ERR_OK);
    assert_int_equal(X509_cmp(SSL_CTX_get0_certificate(ctx), now), 0);
    X509_free(now);
    SSL_CTX_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(made_when_missing),
        cmocka_unit_test(kept_while_good),
        cmocka_unit_test(renewed_in_time),
        cmocka_unit_test(broken_pair_is_replaced),
        cmocka_unit_test(own_files_are_taken_as_they_are),
        cmocka_unit_test(old_protocols_and_weak_ciphers_stay_out),
        cmocka_unit_test(a_reload_that_fails_keeps_the_old_pair),
    };
    log_init("test", LOG_ERROR);
    (void)snprintf(dir, sizeof dir, "/tmp/sg-tls-XXXXXX");
    if (!mkdtemp(dir)) {
        return 1;
    }
    cfg.tls_dir = dir;
    cfg.tls_cert = cfg.tls_key = "";
    cfg.public_url = "https://spheroseg.example.org:8443/";
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(files.cert);
    (void)unlink(files.key);
    (void)rmdir(dir);
    return failed;
}
