/*
 * Lets civetweb find the OpenSSL that the gateway is linked with.
 *
 * Debian 12's libcivetweb opens "libssl.so" and "libcrypto.so" by itself when TLS is wanted. That fails twice over:
 * those names exist only where development packages are installed, and the library was built for OpenSSL 1.1, so it
 * insists on SSL_get_peer_certificate, which OpenSSL 3 renamed to SSL_get1_peer_certificate (same meaning). Without it
 * civetweb refuses TLS altogether.
 *
 * So this program answers for those two names: its dlopen returns the program itself, whose scope holds libssl.so.3 and
 * libcrypto.so.3, and it exports the missing function (the link line names it with --export-dynamic-symbol). Every
 * other call goes on to the C library. A libcivetweb that was built for OpenSSL 3 works with this as well.
 */
#include <dlfcn.h>
#include <openssl/ssl.h>
#include <string.h>

#undef SSL_get_peer_certificate
X509 *SSL_get_peer_certificate(const SSL *tls);

__attribute__((visibility("default"), used)) X509 *SSL_get_peer_certificate(const SSL *tls) {
    return SSL_get1_peer_certificate(tls);
}

__attribute__((visibility("default"))) void *dlopen(const char *file, int mode) {
    /* POSIX has dlsym return functions as void *; ISO C knows no such conversion, hence the union. */
    union {
        void *object;
        void *(*function)(const char *, int);
    } next;
    next.object = dlsym(RTLD_NEXT, "dlopen");
    if (!next.object) {
        return NULL;
    }
    if (file && (strcmp(file, "libssl.so") == 0 || strcmp(file, "libcrypto.so") == 0)) {
        return next.function(NULL, mode);
    }
    return next.function(file, mode);
}
