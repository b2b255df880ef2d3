/*
 * Migrations (V8): proto/sql/NNN_name.up.sql and .down.sql, each run in its own transaction and recorded
 * in schema_migrations(version, name, checksum, applied_at). A PostgreSQL advisory lock lets any number of
 * starting replicas call migrate_up at once: one works, the others wait and find nothing to do. A recorded
 * migration whose file changed is an error. A database newer than the files is accepted (rolling update).
 */
#ifndef SG_MIGRATE_H
#define SG_MIGRATE_H

#include <stdio.h>

#include "pg.h"

ERR_MUST err_kind_t migrate_up(pg_pool_t *pool, const char *dir, int *applied, err_t *err);
/* Undoes the newest `steps` migrations. */
ERR_MUST err_kind_t migrate_down(pg_pool_t *pool, const char *dir, int steps, int *undone, err_t *err);
/* Prints one line per known migration: version, name, applied_at or "pending". */
ERR_MUST err_kind_t migrate_status(pg_pool_t *pool, const char *dir, FILE *out, err_t *err);

#endif
