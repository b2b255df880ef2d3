/*
 * The end-to-end check: once in HEARTBEAT_INTERVAL it does what a person does, over the address that people use: sign in,
 * upload an image, have it segmented, look at the outlines, delete it. What it finds is served as metrics:
 *   spheroseg_heartbeat_success_timestamp_seconds   when the whole way last worked
 *   spheroseg_heartbeat_step_seconds{step}          how long each step took the last time
 *   spheroseg_heartbeat_failures_total{step}        where it broke
 *   spheroseg_heartbeat_certificate_left_seconds    of the public certificate
 */
#ifndef SG_GATEWAY_HEARTBEAT_H
#define SG_GATEWAY_HEARTBEAT_H

#include "common/config.h"

/* Makes its account when it is missing, then beats until SIGTERM or SIGINT; with once, beats one time.
 * Returns the exit status: 0; 1 when it could not start, or when the one beat failed. */
int heartbeat_run(const config_t *cfg, bool once);

#endif
