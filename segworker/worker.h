/*
 * The worker daemon: claims jobs, runs the pipeline, stores the results, until it is told to stop.
 */
#ifndef SG_SEGWORKER_WORKER_H
#define SG_SEGWORKER_WORKER_H

#include "common/config.h"

/* Runs until SIGTERM or SIGINT. Called once, from the main thread, before any other thread exists. Returns the exit
 * code: 0 after a graceful stop, 1 when the start failed or a job got stuck past its time-out (what happened is in the
 * log; start it again). SIGUSR1 toggles debug logging; SIGHUP
 * reads the folder of models again and keeps the old where a new one cannot be loaded. */
int worker_main(const config_t *cfg);

#endif
