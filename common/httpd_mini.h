/*
 * A very small HTTP/1.1 server for /metrics and health on a private port: one thread, GET and HEAD only, no bodies, one
 * request per connection. At most 32 connections at a time, 8 KiB of request and 5 seconds each; more is
 * cut off. The callback runs on the server's thread and should answer within milliseconds.
 */
#ifndef SG_HTTPD_MINI_H
#define SG_HTTPD_MINI_H

#include "buf.h"
#include "err.h"

typedef struct httpd_mini httpd_mini_t;

/* path: without the query, as sent. Writes the body to out (at most 4 MiB), may set *content_type to a static string
 * (default text/plain), returns the HTTP status. */
typedef int (*httpd_mini_fn)(void *arg, const char *path, buf_t *out, const char **content_type);

/* port 0: any free port, see httpd_mini_port. ERR_IO "listen_failed" when the address cannot be used. */
ERR_MUST err_kind_t httpd_mini_start(const char *host, int port, httpd_mini_fn fn, void *arg, httpd_mini_t **out,
                                     err_t *err);
int httpd_mini_port(const httpd_mini_t *h);
void httpd_mini_stop(httpd_mini_t *h); /* joins the thread; NULL is allowed */

#endif
