#!/usr/bin/env bash
# Tries whether a backup can be restored: restores it into a database and a folder of their own, compares the rows and the
# checksum of every table and the SHA-256 of every image with what the backup says, measures, and takes all away again.
#
# usage: scripts/restore-drill.sh [BACKUP] [--point-in-time] [--from DIR]
#   BACKUP            its name, or latest (default)
#   --point-in-time   also bring the base to the latest moment that was received, in a server of its own
#   --from DIR        folder of the backups (default: BACKUP_DIR; in containers the volume "backups")
#
# Prints one line of figures, and keeps it in drills.log of the folder. backup_age_seconds is what would be lost without what
# PostgreSQL wrote since; newest_change_seconds is the age of the last change that was received.
# Exit status: 0 all is there, 1 something is not: the message says what, 2 usage.
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

name='' from='' moment=false
wrong_usage() {
    print_help "$0" >&2
    exit 2
}
while [ $# -gt 0 ]; do
    case $1 in
        --point-in-time) moment=true ;;
        --from) [ $# -gt 1 ] || wrong_usage; from=$2; shift ;;
        -h | --help) print_help "$0"; exit 0 ;;
        -*) wrong_usage ;;
        *) [ -z "$name" ] || wrong_usage; name=$1 ;;
    esac
    shift
done
name=${name:-latest}
if ! plain_installation; then
    arguments=("$name")
    if $moment; then arguments+=(--point-in-time); fi
    status=0
    in_container backup "${from:-$(backup_place)}" restore-drill.sh "${arguments[@]}" || status=$?
    exit $status
fi
BACKUP_DIR=${from:-${BACKUP_DIR:-}}
[ -n "$BACKUP_DIR" ] || die "set BACKUP_DIR, or say --from DIR"
use_database_url
open_folder "$BACKUP_DIR"
use_passphrase
started=$(date +%s)
now=$(date -u +%FT%TZ)
choose_backup "$name"
age=$(date -u -d "$(info_of "$backup" moment)" +%s)
age=$((started - age))
newest=- pit_seconds=-
if $moment; then
    if [ "$(info_of "$backup" point_in_time_of)" != '' ]; then die "$backup is a point in time itself: choose one that has a base"; fi
    point_in_time "$backup" latest
    clean_ups+=("rm -rf '$BACKUP_ROOT/backups/$backup'")
    newest=$(date -u -d "$(info_of "$backup" moment)" +%s)
    newest=$((started - newest)) pit_seconds=$(($(date +%s) - started))
fi
stamp=$(date -u +%Y%m%d_%H%M%S)
database=${PGDATABASE}_drill_$stamp folder=$work/images
mkdir "$folder"
# shellcheck disable=SC2016  # later
clean_ups+=('sql "DROP DATABASE IF EXISTS $(quoted "$database")" "$(admin_database)" >/dev/null 2>&1')
begin=$(date +%s)
restore_database "$backup" "$database"
database_seconds=$(($(date +%s) - begin))
begin=$(date +%s)
restore_files "$backup" "$database" "$folder"
file_seconds=$(($(date +%s) - begin))
line="$now backup=$backup tables=$restored_tables rows=$restored_rows images=$all_files lost_images=$(wc -l <"$work/lost") seconds=$(($(date +%s) - started)) database_seconds=$database_seconds image_seconds=$file_seconds backup_age_seconds=$age point_in_time_seconds=$pit_seconds newest_change_seconds=$newest"
echo "$line" | tee -a "$BACKUP_ROOT/drills.log"
[ ! -s "$work/lost" ] || die "$(wc -l <"$work/lost") images of $backup are missing or damaged: $(cut -f 1 "$work/lost" | sed -n 1,5p | tr '\n' ' ')"
