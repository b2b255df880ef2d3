#!/usr/bin/env bash
# Brings back a backup that scripts/backup.sh made: the database and the images.
#
# usage: scripts/restore.sh BACKUP [--at TIME] [--into-scratch] [--from DIR] [--yes]
#   BACKUP           its name (scripts/backup.sh --list), or latest
#   --at TIME        not as it was at the backup, but as it was at TIME, later: '2026-11-22 10:15:00+00', or latest (all
#                    that PostgreSQL wrote). First makes a backup of that moment, named …-at-…, then restores it
#   --into-scratch   into a database and a folder of their own, whose names it prints; the running system stays as it is
#   --from DIR       folder of the backups (default: BACKUP_DIR; in containers the volume "backups")
#   --yes            do not ask
#
# The database is restored beside the running one and compared with the backup, table by table; then the two change names,
# and the old one stays as NAME_before_TIME until you drop it. Images that are there already stay. In containers the gateways
# and workers are stopped for that time and started again; else stop them yourself.
# Exit status: 0 done, 1 failed: the running database is as it was, 2 usage, 3 restored, but some images could not be had.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/compose.sh
. "$(dirname "$0")/lib/compose.sh"
# shellcheck source-path=SCRIPTDIR source=lib/backup.sh
. "$(dirname "$0")/lib/backup.sh"
# shellcheck source-path=SCRIPTDIR source=lib/backup-containers.sh
. "$(dirname "$0")/lib/backup-containers.sh"
# shellcheck source-path=SCRIPTDIR source=lib/restore.sh
. "$(dirname "$0")/lib/restore.sh"

name='' at='' scratch=false from='' yes=false only_moment=false
wrong_usage() {
    print_help "$0" >&2
    exit 2
}
while [ $# -gt 0 ]; do
    case $1 in
        --at) [ $# -gt 1 ] || wrong_usage; at=$2; shift ;;
        --into-scratch) scratch=true ;;
        --from) [ $# -gt 1 ] || wrong_usage; from=$2; shift ;;
        --yes) yes=true ;;
        --only-moment) only_moment=true ;; # for ourselves, in a container
        -h | --help) print_help "$0"; exit 0 ;;
        -*) wrong_usage ;;
        *) [ -z "$name" ] || wrong_usage; name=$1 ;;
    esac
    shift
done
[ -n "$name" ] || wrong_usage
if ! $yes && ! $scratch && ! $only_moment; then
    [ -t 0 ] || die "this replaces the running database: say --yes"
    read -r -p "Replace the running database by $name${at:+ at $at}? [y/N] " answer
    [[ $answer == [yY]* ]] || die "nothing was changed"
fi

# In containers: as the user of the backups for all but the last step, which writes images and so runs as their owner.
restore_in_containers() {
    local place project ids=() status=0 moment
    place=${from:-$(backup_place)}
    if $scratch; then
        in_container backup "$place" restore.sh "$name" --into-scratch ${at:+--at "$at"} || status=$?
        exit $status
    fi
    if [ -n "$at" ]; then
        moment=$(in_container backup "$place" restore.sh "$name" --at "$at" --only-moment) || exit 1
        name=$moment
    fi
    project=$(setting COMPOSE_PROJECT_NAME spheroseg)
    for service in gateway segworker heartbeat; do
        for colour in '' -blue -green; do
            while IFS= read -r id; do ids+=("$id"); done < <(docker ps -q --filter "label=com.docker.compose.project=$project$colour" --filter "label=com.docker.compose.service=$service")
        done
    done
    if [ ${#ids[@]} -gt 0 ]; then
        say "stopping gateways and workers"
        docker stop -t 60 "${ids[@]}" >/dev/null
    fi
    in_container restore "$place" restore.sh "$name" --yes || status=$?
    if [ ${#ids[@]} -gt 0 ]; then
        say "starting them again"
        docker start "${ids[@]}" >/dev/null || die "they could not be started: docker-compose up -d"
    fi
    exit $status
}
if ! plain_installation; then restore_in_containers; fi

BACKUP_DIR=${from:-${BACKUP_DIR:-}}
[ -n "$BACKUP_DIR" ] || die "set BACKUP_DIR, or say --from DIR"
use_database_url
if $scratch || [ -n "$at" ]; then open_folder "$BACKUP_DIR"; else open_folder "$BACKUP_DIR" read; fi
use_passphrase
choose_backup "$name"
started=$(date +%s)
if [ -n "$at" ]; then
    point_in_time "$backup" "$at"
    say "made $backup: the database as it was at $(info_of "$backup" moment)"
    if $only_moment; then
        echo "$backup"
        exit 0
    fi
fi
stamp=$(date -u +%Y%m%d_%H%M%S)
if $scratch; then
    database=${PGDATABASE}_scratch_$stamp folder=$BACKUP_ROOT/scratch/$stamp
    mkdir -p "$folder"
    done=false
    # shellcheck disable=SC2016  # later
    clean_ups+=('$done || { sql "DROP DATABASE IF EXISTS $(quoted "$database")" "$(admin_database)"; rm -rf "$folder"; } >/dev/null 2>&1')
    restore_database "$backup" "$database"
    restore_files "$backup" "$database" "$folder"
    done=true
    say "$backup is in database $database and folder $folder: $restored_tables tables, $restored_rows rows, $all_files images, $(($(date +%s) - started)) s"
else
    [ -d "${STORAGE_DIR:-}" ] || die "STORAGE_DIR: '${STORAGE_DIR:-}' is not a folder"
    database=${PGDATABASE}_restored_$stamp done=false
    users=$(sql "SELECT count(*) FROM pg_stat_activity WHERE datname = '$PGDATABASE' AND application_name ~ '^(spheroseg|segworker)'" "$(admin_database)") ||
        die "the database server does not answer"
    [ "$users" -eq 0 ] || die "gateways or workers are connected ($users connections): stop them first"
    # shellcheck disable=SC2016  # later
    clean_ups+=('$done || sql "DROP DATABASE IF EXISTS $(quoted "$database")" "$(admin_database)" >/dev/null 2>&1')
    restore_database "$backup" "$database"
    restore_files "$backup" "$database" "$STORAGE_DIR"
    # Whoever looks at the old one meanwhile (exporters, a person) is sent away; both renames happen, or none.
    there=$(sql "SELECT count(*) FROM pg_database WHERE datname = '$PGDATABASE'" "$(admin_database)")
    if [ "$there" -eq 1 ]; then
        sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '$PGDATABASE' AND pid <> pg_backend_pid()" "$(admin_database)" >/dev/null
        rename="ALTER DATABASE $(quoted "$PGDATABASE") RENAME TO $(quoted "${PGDATABASE}_before_$stamp");"
    fi
    sql "BEGIN; ${rename:-} ALTER DATABASE $(quoted "$database") RENAME TO $(quoted "$PGDATABASE"); COMMIT" "$(admin_database)" 2>"$work/error" ||
        die "the databases cannot change names: $(tail -n 1 "$work/error")"
    # shellcheck disable=SC2034  # for what cleans up
    done=true
    say "restored $backup: $restored_tables tables, $restored_rows rows, $all_files images ($restored_files copied), $(($(date +%s) - started)) s"
    [ "$there" -eq 0 ] || say "the database from before is ${PGDATABASE}_before_$stamp; drop it when you do not need it any more"
fi
if [ -s "$work/lost" ]; then
    warn "$(wc -l <"$work/lost") images could not be had, or are damaged: $(cut -f 1 "$work/lost" | sed -n 1,5p | tr '\n' ' ')"
    exit 3
fi
