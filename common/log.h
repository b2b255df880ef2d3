/*
 * Logs: one JSON object per line on stderr: {"time","level","component","msg",…fields}. Thread-safe:
 * each line is one write(2). Fields are key/value pairs of strings; values are escaped and cut at 2 KiB.
 * Never log secrets, tokens, passwords or request bodies.
 */
#ifndef SG_LOG_H
#define SG_LOG_H

#include <stdbool.h>

#include "err.h"

typedef enum { LOG_ERROR = 0, LOG_WARN, LOG_INFO, LOG_DEBUG } log_level_t;

/* component: "gateway" or "segworker"; kept by reference. */
void log_init(const char *component, log_level_t level);
void log_set_level(log_level_t level);       /* async-signal-safe: SIGUSR1 toggles debug (P6) */
log_level_t log_get_level(void);
bool log_parse_level(const char *word, log_level_t *out);

/* log_event(LOG_INFO, "job started", "jobId", id, "model", m, NULL): pairs end with NULL. */
void log_event(log_level_t level, const char *msg, ...) __attribute__((sentinel));

/* printf-style shorthand for a message without fields. */
void log_msgf(log_level_t level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Logs an error with its kind, code, message and detail, and "what" was being done. */
void log_error(log_level_t level, const char *what, const err_t *err);

#endif
