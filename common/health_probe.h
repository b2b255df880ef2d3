/*
 * Asks a daemon's own health port, for the health check of a container that has no curl. Thread-safe.
 */
#ifndef SG_HEALTH_PROBE_H
#define SG_HEALTH_PROBE_H

#include "err.h"

/* GET http://host:port/path, e.g. "/ready". An address of all interfaces (0.0.0.0, ::) is asked over loopback. At most
 * timeout_ms in all. ERR_OK when the status is 200; ERR_UNAVAILABLE "not_healthy" with the status line in the detail for
 * another, ERR_UNAVAILABLE "no_answer" when nobody answered in time. */
ERR_MUST err_kind_t health_probe(const char *host, int port, const char *path, int timeout_ms, err_t *err);

/* A daemon's `health [live|ready]` command; ready without a word. Prints why not to stderr.
 * Returns the exit status: 0 healthy, 1 not, 2 wrong usage or no health port. */
int health_command(const char *program, const char *host, int port, int argc, char **argv);

#endif
