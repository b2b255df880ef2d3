/*
 * Configuration: environment variables only. config_table.h names each variable with its type, default,
 * bounds and help; this module reads them. For a secret NAME, NAME_FILE may name a file that holds the
 * value (a trailing newline is dropped); setting both is an error. A wrong value stops the start.
 *
 * Thread-safety: load once before threads start; afterwards read-only.
 */
#ifndef SG_CONFIG_H
#define SG_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "err.h"

enum { CONFIG_GATEWAY = 1, CONFIG_WORKER = 2, CONFIG_BOTH = 3 };

typedef struct {
#define CFG_STR(field, name, def, scope, help) const char *field;
#define CFG_SECRET(field, name, def, scope, help) const char *field;
#define CFG_INT(field, name, def, min, max, scope, help) int64_t field;
#define CFG_REAL(field, name, def, min, max, scope, help) double field;
#define CFG_BOOL(field, name, def, scope, help) bool field;
#include "config_table.h"
#undef CFG_STR
#undef CFG_SECRET
#undef CFG_INT
#undef CFG_REAL
#undef CFG_BOOL
} config_t;

/* Reads every variable of `scope` from the environment. Strings are owned by *cfg and live until
 * config_free. On error the message names the variable, the value (never a secret's) and the bounds. */
ERR_MUST err_kind_t config_load(int scope, config_t *cfg, err_t *err);
void config_free(config_t *cfg);

/* The table as text, for --help. */
void config_print_help(int scope, FILE *out);

#endif
