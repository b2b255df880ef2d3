/*
 * Certificates. With TLS_CERT and TLS_KEY the gateway uses those; without, it makes a self-signed one on first start
 * (EC P-256, names: localhost, 127.0.0.1, ::1, the host's name and PUBLIC_URL's) and renews it when fewer than 30 days
 * are left. TLS 1.2 and 1.3 only, forward-secret AEAD ciphers only.
 */
#ifndef SG_GATEWAY_TLS_H
#define SG_GATEWAY_TLS_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"

enum { TLS_VALID_DAYS = 397, TLS_RENEW_DAYS = 30, TLS_PATH_ROOM = 4096 };

typedef struct {
    char cert[TLS_PATH_ROOM];
    char key[TLS_PATH_ROOM];
    bool self_signed; /* made by tls_prepare */
} tls_files_t;

/* Names the files to use and makes them if needed. ERR_IO "tls_files" with words about the directory. */
ERR_MUST err_kind_t tls_prepare(const config_t *cfg, tls_files_t *out, err_t *err);

/* Days that the certificate in the PEM file is still valid (negative: expired). */
ERR_MUST err_kind_t tls_days_left(const char *cert_path, int *days, err_t *err);

/* A server context with certificate and key loaded. The caller frees it with SSL_CTX_free. */
ERR_MUST err_kind_t tls_context_create(const tls_files_t *files, SSL_CTX **out, err_t *err);

/* Loads the files again into a living context: new connections get the new certificate. The caller keeps others from
 * making connections meanwhile. On failure the old certificate stays. */
ERR_MUST err_kind_t tls_context_reload(SSL_CTX *ctx, const tls_files_t *files, err_t *err);

/* Changes whenever one of the files does. */
int64_t tls_files_stamp(const tls_files_t *files);

#endif
