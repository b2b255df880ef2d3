/*
 * The process_* metrics that every Prometheus client offers, read from /proc when they are asked for.
 * What cannot be read is left out. Thread-safe.
 */
#ifndef SG_METRICS_PROCESS_H
#define SG_METRICS_PROCESS_H

#include "buf.h"

void metrics_put_process(buf_t *out);

#endif
