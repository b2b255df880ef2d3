/*
 * Self-signed certificates and TLS contexts, with OpenSSL 3. Files are written under a temporary name and renamed, the
 * key first, so that a crash leaves either the old pair or a key without certificate, which the next start replaces.
 */
#include "tls.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"

#define CIPHERS_12                                                                                                     \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"                         \
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"

static err_kind_t openssl_error(err_t *err, const char *what) {
    char text[256];
    ERR_error_string_n(ERR_get_error(), text, sizeof text);
    ERR_clear_error();
    return err_set(err, ERR_INTERNAL, "tls_failed", "TLS could not be set up. See the log for the reason.", "%s: %s",
                   what, text);
}

static err_kind_t file_error(err_t *err, const char *what, const char *path) {
    return err_setf(err, ERR_IO, "tls_files", "Cannot %s %.150s: %s.", what, path, strerror(errno));
}

/* ---- making a certificate ---- */

/* Only letters, digits, dots and hyphens belong in a certificate's name. */
static bool is_host_name(const char *s) {
    size_t n = strlen(s);
    if (n == 0 || n > 253) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)s[i]) && s[i] != '.' && s[i] != '-') {
            return false;
        }
    }
    return true;
}

static void append_name(char *san, size_t room, const char *name) {
    struct in_addr v4;
    size_t n = strlen(san);
    const char *kind = inet_pton(AF_INET, name, &v4) == 1 ? "IP" : "DNS";
    if (is_host_name(name) && n + strlen(name) + 8 < room) {
        (void)snprintf(san + n, room - n, ",%s:%s", kind, name);
    }
}

static void alternative_names(const config_t *cfg, char *san, size_t room) {
    char host[256] = "";
    (void)snprintf(san, room, "DNS:localhost,IP:127.0.0.1,IP:::1");
    if (gethostname(host, sizeof host - 1) == 0 && strcmp(host, "localhost") != 0) {
        append_name(san, room, host);
    }
    if (strncmp(cfg->public_url, "https://", 8) == 0) {
        size_t n = strcspn(cfg->public_url + 8, ":/");
        if (n > 0 && n < sizeof host) {
            memcpy(host, cfg->public_url + 8, n);
            host[n] = '\0';
            append_name(san, room, host);
        }
    }
}

static bool add_extension(X509 *cert, int nid, const char *value) {
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    bool ok = ext && X509_add_ext(cert, ext, -1) == 1;
    X509_EXTENSION_free(ext);
    return ok;
}

static bool fill_certificate(X509 *cert, EVP_PKEY *key, const char *san) {
    unsigned char serial[16];
    BIGNUM *bn = NULL;
    bool ok = false;
    if (RAND_bytes(serial, sizeof serial) != 1) {
        return false;
    }
    serial[0] &= 0x7f;
    bn = BN_bin2bn(serial, sizeof serial, NULL);
    X509_NAME *name = X509_get_subject_name(cert);
    ok = bn && BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(cert)) && X509_set_version(cert, X509_VERSION_3) == 1 &&
         X509_gmtime_adj(X509_getm_notBefore(cert), -3600) &&
         X509_time_adj_ex(X509_getm_notAfter(cert), TLS_VALID_DAYS, 0, NULL) &&
         X509_NAME_add_entry_by_txt(name, "O", MBSTRING_ASC, (const unsigned char *)"Spheroseg (self-signed)", -1, -1,
                                    0) == 1 &&
         X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"localhost", -1, -1, 0) == 1 &&
         X509_set_issuer_name(cert, name) == 1 && X509_set_pubkey(cert, key) == 1 &&
         add_extension(cert, NID_basic_constraints, "critical,CA:FALSE") &&
         add_extension(cert, NID_key_usage, "critical,digitalSignature") &&
         add_extension(cert, NID_ext_key_usage, "serverAuth") &&
         add_extension(cert, NID_subject_key_identifier, "hash") && add_extension(cert, NID_subject_alt_name, san) &&
         X509_sign(cert, key, EVP_sha256()) > 0;
    BN_free(bn);
    return ok;
}

static FILE *create_file(const char *path, mode_t mode) {
    (void)unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0) {
        return NULL;
    }
    FILE *f = fdopen(fd, "w");
    if (!f) {
        close(fd);
    }
    return f;
}

static err_kind_t write_pem(const char *path, mode_t mode, X509 *cert, EVP_PKEY *key, err_t *err) {
    char temp[TLS_PATH_ROOM + 32];
    (void)snprintf(temp, sizeof temp, "%s.%ld.new", path, (long)getpid());
    FILE *f = create_file(temp, mode);
    if (!f) {
        return file_error(err, "write", temp);
    }
    int ok = cert ? PEM_write_X509(f, cert) : PEM_write_PKCS8PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
    bool flushed = fflush(f) == 0 && fsync(fileno(f)) == 0;
    bool closed = fclose(f) == 0;
    if (ok != 1 || !flushed || !closed || rename(temp, path) != 0) {
        err_kind_t k = file_error(err, "write", path);
        (void)unlink(temp);
        return k;
    }
    return ERR_OK;
}

static err_kind_t make_certificate(const config_t *cfg, const tls_files_t *files, err_t *err) {
    char san[1024];
    err_kind_t k = ERR_OK;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    alternative_names(cfg, san, sizeof san);
    if (!key || !cert || !fill_certificate(cert, key, san)) {
        k = openssl_error(err, "making a certificate");
        goto out;
    }
    if (mkdir(cfg->tls_dir, 0700) != 0 && errno != EEXIST) {
        k = file_error(err, "make the directory", cfg->tls_dir);
        goto out;
    }
    k = write_pem(files->key, 0600, NULL, key, err);
    if (k == ERR_OK) {
        k = write_pem(files->cert, 0644, cert, NULL, err);
    }
    if (k == ERR_OK) {
        log_event(LOG_INFO, "made a self-signed certificate", "file", files->cert, "names", san, NULL);
    }
out:
    X509_free(cert);
    EVP_PKEY_free(key);
    return k;
}

/* ---- choosing ---- */

err_kind_t tls_days_left(const char *cert_path, int *days, err_t *err) {
    int seconds = 0;
    FILE *f = fopen(cert_path, "re");
    if (!f) {
        return file_error(err, "read", cert_path);
    }
    X509 *cert = PEM_read_X509(f, NULL, NULL, NULL);
    (void)fclose(f);
    if (!cert) {
        return openssl_error(err, cert_path);
    }
    bool ok = ASN1_TIME_diff(days, &seconds, NULL, X509_get0_notAfter(cert)) == 1;
    X509_free(cert);
    return ok ? ERR_OK : openssl_error(err, cert_path);
}

static bool pair_is_usable(const tls_files_t *files) {
    SSL_CTX *ctx = NULL;
    err_t err;
    bool ok = tls_context_create(files, &ctx, &err) == ERR_OK;
    SSL_CTX_free(ctx);
    return ok;
}

err_kind_t tls_prepare(const config_t *cfg, tls_files_t *out, err_t *err) {
    memset(out, 0, sizeof *out);
    if (cfg->tls_cert[0] || cfg->tls_key[0]) {
        if (!cfg->tls_cert[0] || !cfg->tls_key[0]) {
            return err_set(err, ERR_INVALID, "tls_files", "Set both TLS_CERT and TLS_KEY, or neither.", NULL);
        }
        (void)snprintf(out->cert, sizeof out->cert, "%s", cfg->tls_cert);
        (void)snprintf(out->key, sizeof out->key, "%s", cfg->tls_key);
        return ERR_OK;
    }
    size_t room = sizeof out->cert - 64;
    if (strlen(cfg->tls_dir) >= room) {
        return err_set(err, ERR_INVALID, "tls_files", "TLS_DIR is too long.", NULL);
    }
    out->self_signed = true;
    (void)snprintf(out->cert, sizeof out->cert, "%.4000s/gateway.crt", cfg->tls_dir);
    (void)snprintf(out->key, sizeof out->key, "%.4000s/gateway.key", cfg->tls_dir);
    int days = 0;
    if (access(out->cert, F_OK) == 0 && tls_days_left(out->cert, &days, NULL) == ERR_OK && days >= TLS_RENEW_DAYS &&
        pair_is_usable(out)) {
        return ERR_OK;
    }
    return make_certificate(cfg, out, err);
}

int64_t tls_files_stamp(const tls_files_t *files) {
    struct stat cert;
    struct stat key;
    if (stat(files->cert, &cert) != 0 || stat(files->key, &key) != 0) {
        return 0;
    }
    uint64_t a = (uint64_t)cert.st_mtim.tv_sec * 1000003U + (uint64_t)cert.st_mtim.tv_nsec + (uint64_t)cert.st_ino;
    uint64_t b = (uint64_t)key.st_mtim.tv_sec * 1000003U + (uint64_t)key.st_mtim.tv_nsec + (uint64_t)key.st_ino;
    return (int64_t)((a * 31U + b) & INT64_MAX);
}

/* ---- contexts ---- */

static int choose_protocol(SSL *tls, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
                           unsigned int in_len, void *arg) {
    static const unsigned char http11[] = "\x08http/1.1";
    (void)tls;
    (void)arg;
    unsigned char *chosen = NULL;
    if (SSL_select_next_proto(&chosen, out_len, http11, sizeof http11 - 1, in, in_len) != OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_NOACK;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static err_kind_t load_pair(SSL_CTX *ctx, const tls_files_t *files, err_t *err) {
    if (SSL_CTX_use_certificate_chain_file(ctx, files->cert) != 1) {
        return openssl_error(err, files->cert);
    }
    if (SSL_CTX_use_PrivateKey_file(ctx, files->key, SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(ctx) != 1) {
        return openssl_error(err, files->key);
    }
    return ERR_OK;
}

err_kind_t tls_context_create(const tls_files_t *files, SSL_CTX **out, err_t *err) {
    static const unsigned char session_context[] = "spheroseg";
    *out = NULL;
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (!ctx) {
        return openssl_error(err, "SSL_CTX_new");
    }
    if (SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 || SSL_CTX_set_cipher_list(ctx, CIPHERS_12) != 1 ||
        SSL_CTX_set1_groups_list(ctx, "X25519:P-256:P-384") != 1 ||
        SSL_CTX_set_session_id_context(ctx, session_context, sizeof session_context - 1) != 1) {
        SSL_CTX_free(ctx);
        return openssl_error(err, "TLS options");
    }
    SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                 SSL_OP_PRIORITIZE_CHACHA | SSL_OP_IGNORE_UNEXPECTED_EOF);
    /* Writes may be cut and repeated from another buffer: the WebSocket loop never waits for a slow reader. */
    SSL_CTX_set_mode(ctx,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, NULL);
    err_kind_t k = load_pair(ctx, files, err);
    if (k != ERR_OK) {
        SSL_CTX_free(ctx);
        return k;
    }
    *out = ctx;
    return ERR_OK;
}

err_kind_t tls_context_reload(SSL_CTX *ctx, const tls_files_t *files, err_t *err) {
    SSL_CTX *trial = NULL;
    err_kind_t k = tls_context_create(files, &trial, err); /* a broken pair must not get into the living context */
    SSL_CTX_free(trial);
    return k == ERR_OK ? load_pair(ctx, files, err) : k;
}
