/*
 * What state the system is in: each dependency looked at, at most once a second however many ask. Thread-safe.
 */
#ifndef SG_GATEWAY_HEALTH_H
#define SG_GATEWAY_HEALTH_H

#include "http.h"

typedef enum { HEALTH_UP = 0, HEALTH_DEGRADED, HEALTH_DOWN } health_status_t;
enum { HEALTH_DATABASE = 0, HEALTH_REDIS, HEALTH_QUEUE, HEALTH_ML, HEALTH_STORAGE, HEALTH_SERVICES };

const char *health_status_name(health_status_t s);
/* -1 when there is no such service. */
int health_service_find(const char *name);

/* ServiceHealth of proto/openapi.yaml. The caller deletes the JSON. */
cJSON *health_service_json(gateway_t *gw, int service, health_status_t *status);
/* Health; services are listed when detailed. Without the database everything is down; without Redis or workers the
 * system is degraded: it keeps what it is given. */
cJSON *health_json(gateway_t *gw, bool detailed, health_status_t *status);
/* Can this process take traffic? The database answers, and it is not being stopped. */
bool health_is_ready(gateway_t *gw);

#endif
