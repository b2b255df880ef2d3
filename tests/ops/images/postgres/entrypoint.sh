#!/bin/bash
# Makes the cluster at the first start, as the official image does, and runs the command.
set -euo pipefail
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA"
    # shellcheck disable=SC2086  # several words
    initdb -D "$PGDATA" -U "${POSTGRES_USER:-postgres}" --pwfile="$POSTGRES_PASSWORD_FILE" ${POSTGRES_INITDB_ARGS:-} --auth-local=trust
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
    createdb -U "${POSTGRES_USER:-postgres}" "${POSTGRES_DB:-postgres}" || true
    for script in /docker-entrypoint-initdb.d/*.sh; do if [ -x "$script" ]; then "$script"; fi; done
    pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec "$@"
