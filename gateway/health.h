/*
 * What state the system is in: each dependency looked at, at most once a second however many ask, by a thread of its
 * own. Between health_start and health_stop everything here is thread-safe; an answer takes at most 0.3 s (the first one
 * as long as the first look), after which it tells what was known before.
 */
#ifndef SG_GATEWAY_HEALTH_H
#define SG_GATEWAY_HEALTH_H

#include "http.h"

typedef enum { HEALTH_UP = 0, HEALTH_DEGRADED, HEALTH_DOWN } health_status_t;
enum { HEALTH_DATABASE = 0, HEALTH_REDIS, HEALTH_QUEUE, HEALTH_ML, HEALTH_STORAGE, HEALTH_SERVICES };

/* Before anything below is called, and after the last call has returned. ERR_NO_MEMORY: no thread. */
ERR_MUST err_kind_t health_start(gateway_t *gw, err_t *err);
void health_stop(void); /* may wait for a dependency's time-out; fine without a start */

const char *health_status_name(health_status_t s);
/* -1 when there is no such service. */
int health_service_find(const char *name);

/* ServiceHealth of proto/openapi.yaml. The caller deletes the JSON. */
cJSON *health_service_json(int service, health_status_t *status);
/* Health; services are listed when detailed. Without the database everything is down; without Redis or workers the
 * system is degraded: it keeps what it is given. */
cJSON *health_json(gateway_t *gw, bool detailed, health_status_t *status);
/* Can this process take traffic? The database answers, and it is not being stopped. */
bool health_is_ready(gateway_t *gw);

#endif
