/*
 * The gateway as a long-running process: start order, housekeeping, signals, graceful stop.
 */
#ifndef SG_GATEWAY_DAEMON_H
#define SG_GATEWAY_DAEMON_H

#include "http.h"

/* Opens what every command needs: pools, queue and storage. Waits for PostgreSQL at most START_TIMEOUT (then
 * ERR_UNAVAILABLE) and, if wait_redis, for Redis as long (then goes on without). Undone by daemon_close. */
ERR_MUST err_kind_t daemon_open(const config_t *cfg, bool wait_redis, gateway_t *gw, err_t *err);
void daemon_close(gateway_t *gw);

/* Checks that values fit each other, beyond what config_load checks one by one. */
ERR_MUST err_kind_t daemon_check_config(const config_t *cfg, err_t *err);

/* Serves until SIGTERM or SIGINT. Returns the exit status. */
int daemon_serve(const config_t *cfg);

#endif
