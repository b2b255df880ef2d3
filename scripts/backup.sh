#!/usr/bin/env bash
# Makes a backup of the database and the images, checks it, and removes those that are too old.
#
# usage: scripts/backup.sh [--to DIR] [--keep DAYS] [--no-base]
#        scripts/backup.sh --serve
#        scripts/backup.sh --fetch
#        scripts/backup.sh --list
#   --to DIR      folder of the backups (default: BACKUP_DIR; in containers the volume "backups")
#   --keep DAYS   remove backups that are older (default BACKUP_KEEP_DAYS, 30); the newest always stays
#   --no-base     only the dump: no return to a point in time from this backup
#   --serve       go on for ever: receive what PostgreSQL writes as it writes it, copy new images every BACKUP_IMAGES_EVERY
#                 seconds (60), make a backup daily at BACKUP_AT (02:00); this is what the service "backup" does
#   --fetch       bring everything that the bucket has into the folder, which may be empty; then restore from there
#   --list        what there is
#
# Backs up the installation of DATABASE_URL and STORAGE_DIR where these are set, else the system in containers.
# BACKUP_URL=s3://BUCKET/PREFIX keeps a copy of everything in a bucket, with the daemons' S3_… settings.
# BACKUP_PASSPHRASE_FILE encrypts (gpg, AES-256); in containers BACKUP_ENCRYPT=true does, with the secret backup_passphrase.
# Exit status: 0 done, 1 failed (nothing unfinished is left behind), 2 usage.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/compose.sh
. "$(dirname "$0")/lib/compose.sh"
# shellcheck source-path=SCRIPTDIR source=lib/backup.sh
. "$(dirname "$0")/lib/backup.sh"
# shellcheck source-path=SCRIPTDIR source=lib/backup-containers.sh
. "$(dirname "$0")/lib/backup-containers.sh"
# shellcheck source-path=SCRIPTDIR source=lib/backup-s3.sh
. "$(dirname "$0")/lib/backup-s3.sh"

to='' keep='' base=true what=backup arguments=()
wrong_usage() {
    print_help "$0" >&2
    exit 2
}
while [ $# -gt 0 ]; do
    case $1 in
        --to) [ $# -gt 1 ] || wrong_usage; to=$2; shift ;;
        --keep) [[ ${2:-} =~ ^[1-9][0-9]{0,4}$ ]] || wrong_usage; keep=$2; arguments+=(--keep "$2"); shift ;;
        --no-base) base=false; arguments+=("$1") ;;
        --serve) what=serve ;;
        --fetch) what=fetch; arguments+=("$1") ;;
        --list) what=list; arguments+=("$1") ;;
        -h | --help) print_help "$0"; exit 0 ;;
        *) wrong_usage ;;
    esac
    shift
done
if ! plain_installation; then
    [ "$what" != serve ] || die "set DATABASE_URL and STORAGE_DIR; in containers the service 'backup' does this"
    [ -n "$keep" ] || arguments+=(--keep "$(setting BACKUP_KEEP_DAYS 30)")
    [ -z "$to" ] || { mkdir -p "$to" && to=$(realpath "$to"); } || die "cannot write to $to"
    status=0
    in_container backup "${to:-$(backup_place)}" backup.sh "${arguments[@]}" || status=$?
    exit $status
fi
keep=${keep:-${BACKUP_KEEP_DAYS:-30}}
to=${to:-${BACKUP_DIR:-}}
[ -n "$to" ] || die "set BACKUP_DIR, or say --to DIR"
if [ "$what" = list ]; then
    open_folder "$to" read
    for backup in $(list_backups); do
        printf '%-28s %s  %s images, %s bytes%s\n' "$backup" "$(info_of "$backup" moment)" "$(info_of "$backup" images)" "$(info_of "$backup" bytes)" \
            "$([ ! -d "$BACKUP_ROOT/backups/$backup/base" ] || echo ', point in time')"
    done
    exit 0
fi
if [ "$what" = fetch ]; then
    bucket_wanted || die "set BACKUP_URL: s3://BUCKET/PREFIX"
    open_folder "$to"
    use_bucket
    lock_folder "${BACKUP_WAIT:-300}"
    fetch_from_bucket || die "the bucket could not be fetched: $s3_said"
    say "$fetched_files files, $fetched_bytes bytes, from $BACKUP_URL in $BACKUP_ROOT; the newest backup is $(newest_backup)"
    exit 0
fi
[ -d "${STORAGE_DIR:-}" ] || die "STORAGE_DIR: '${STORAGE_DIR:-}' is not a folder"
STORAGE_DIR=$(realpath "$STORAGE_DIR")
use_database_url
if [ "$what" = serve ]; then
    # shellcheck source-path=SCRIPTDIR source=lib/backup-service.sh
    . "$REPO_ROOT/scripts/lib/backup-service.sh"
    serve_backups "$to" "$keep"
fi

# What the server wrote before the dump was begun is in the base; from its end on, wal/ has it.
take_base() {
    local may system
    may=$(sql "SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user")
    if [ "$may" != t ]; then
        warn "no base: $PGUSER may not replicate (ALTER ROLE … REPLICATION), so there is no return to a point in time"
        return 0
    fi
    pg_basebackup -D "$work/backup/base" -Ft -z -X stream --checkpoint=fast --manifest-checksums=SHA256 --no-password 2>"$work/base" ||
        die "pg_basebackup failed: $(tail -n 1 "$work/base")"
    system=$(sql "SELECT system_identifier FROM pg_control_system()")
    start=$(sed -n 's/.*"Start-LSN": *"\([0-9A-F/]*\)".*/\1/p' "$work/backup/base/backup_manifest" | sed -n 1p)
    printf 'system=%s\nwal_start=%s\nbase_end=%s\n' "$system" "$(sql "SELECT pg_walfile_name('$start')")" "$(date -u +%FT%TZ)" >>"$work/backup/info"
    seal "$work"/backup/base/* || die "the base cannot be encrypted"
}

# Every row of the dump has its file: images are copied before and after it. One that came and was deleted again between
# the two is a row without a file; it is counted.
list_files() {
    awk -F '\t' -v OFS='\t' '{ file[$1] = $0 } END { for (key in file) print file[key] }' "$work/before" "$work/files" | LC_ALL=C sort >"$work/backup/files.tsv"
    missing=0
    local key size sum
    if images_elsewhere; then return 0; fi
    cut -f 1 "$work/backup/files.tsv" >"$work/keys"
    while IFS=$'\t' read -r key size sum; do
        if [ -e "$(object_path "$sum")" ] || [ -e "$(object_path "$sum").gpg" ]; then
            printf '%s\t%s\t%s\n' "$key" "$size" "$sum" >>"$work/backup/files.tsv"
        else
            missing=$((missing + 1))
            warn "image $key of the database is not in the storage"
        fi
    done < <(awk -F '\t' 'FILENAME == ARGV[1] { have[$1] = 1; next } !($1 in have)' "$work/keys" "$work/rows")
}

# throw_away PATH: of the folder; where there is a bucket it is written down, to be removed there, too.
throw_away() {
    if bucket_wanted; then (cd "$BACKUP_ROOT" && find "$1" -type f) >>"$BACKUP_ROOT/.gone"; fi
    rm -rf "${BACKUP_ROOT:?}/$1"
}
prune() {
    local names name newest cut objects=0
    newest=$(newest_backup)
    names=$(list_backups)
    for name in $names; do
        cut=$(date -u -d "-$keep days" +%Y%m%dT%H%M%SZ)
        if [[ $name < $cut && $name != "$newest" ]]; then
            throw_away "backups/$name"
            say "removed $name: older than $keep days"
        fi
    done
    # Bases are large: those older than BACKUP_BASE_DAYS go, their dumps stay.
    cut=$(date -u -d "-${BACKUP_BASE_DAYS:-7} days" +%Y%m%dT%H%M%SZ)
    for name in $(list_backups); do
        if [[ $name < $cut && $name != "$newest" && -d $BACKUP_ROOT/backups/$name/base ]]; then
            sed -i '/ base\//d' "$BACKUP_ROOT/backups/$name/SHA256SUMS"
            throw_away "backups/$name/base"
        fi
    done
    # Objects that no backup names; those of the last two days may be waiting for the next one.
    for name in $(list_backups); do cut -f 3 "$BACKUP_ROOT/backups/$name/files.tsv"; done | LC_ALL=C sort -u >"$work/named"
    cut -f 4 "$BACKUP_ROOT/index.tsv" | LC_ALL=C sort -u | LC_ALL=C sort -um - "$work/named" >"$work/used"
    find "$BACKUP_ROOT/objects" -type f -mmin +"${BACKUP_OBJECT_MINUTES:-2880}" -printf '%f\t%p\n' | sed 's/\.gpg\t/\t/' | LC_ALL=C sort |
        LC_ALL=C join -t $'\t' -v 1 - "$work/used" >"$work/unused"
    while IFS=$'\t' read -r name cut; do
        throw_away "${cut#"$BACKUP_ROOT"/}"
        objects=$((objects + 1))
    done <"$work/unused"
    [ "$objects" -eq 0 ] || say "removed $objects images that no backup names any more"
    prune_wal
}
prune_wal() { # what was written before the oldest base is of no use
    local name system start oldest file
    for system in "$BACKUP_ROOT"/wal/*/; do
        [ -d "$system" ] || continue
        oldest=''
        for name in $(list_backups); do
            if [ -d "$BACKUP_ROOT/backups/$name/base" ] && [ "$(info_of "$name" system)" = "$(basename "$system")" ]; then
                start=$(info_of "$name" wal_start)
                [[ -n $oldest && $oldest < $start ]] || oldest=$start
            fi
        done
        [ -n "$oldest" ] || continue
        for file in "$system"[0-9A-F]*; do
            [ -e "$file" ] || continue
            name=$(basename "$file")
            [[ ${name:0:24} < $oldest && $name != *.history* ]] && throw_away "${file#"$BACKUP_ROOT"/}"
        done
    done
    return 0
}

open_folder "$to"
use_passphrase
if bucket_wanted; then use_bucket; fi
lock_folder "${BACKUP_WAIT:-300}"
find "$BACKUP_ROOT" -maxdepth 1 -name '.work.*' -mmin +1440 -exec rm -rf {} + # of runs that were killed
started=$(date +%s) name=$(date -u +%Y%m%dT%H%M%SZ)
mkdir "$work/backup"
sql "SELECT 1" >/dev/null 2>"$work/error" || die "the database does not answer: $(tail -n 1 "$work/error")"
copy_images
cp "$work/files" "$work/before"
fresh=$copied_images
dump_database "$work/backup"
printf 'moment=%s\nserver=%s\n' "$database_moment" "$(sql 'SHOW server_version')" >"$work/backup/info"
seal "$work/backup/database.dump" || die "the dump cannot be encrypted"
if $base; then take_base; fi
copy_images
fresh=$((fresh + copied_images))
list_files
bytes=$(du -sb "$work/backup" | cut -f 1)
images=$(wc -l <"$work/backup/files.tsv")
seconds=$(($(date +%s) - started))
printf 'started=%s\nseconds=%s\nbytes=%s\nimages=%s\nmissing=%s\nencrypted=%s\n' "$name" "$seconds" "$bytes" "$images" "$missing" \
    "$([ -n "$passphrase_file" ] && echo yes || echo no)" >>"$work/backup/info"
finish_backup "$name"
prune
if bucket_wanted; then
    copy_to_bucket all || die "the backup $name is in $BACKUP_ROOT, but not in the bucket: $s3_said"
    say "$sent_files files, $sent_bytes bytes, sent to $BACKUP_URL"
fi
objects=$(find "$BACKUP_ROOT/objects" -type f -printf '%s\n' | awk '{ n += $1 } END { printf "%.0f", n }')
cat >"$BACKUP_ROOT/metrics/.new" <<METRICS || die "cannot write to $BACKUP_ROOT/metrics"
# HELP spheroseg_backup_success_timestamp_seconds When the last backup succeeded.
# TYPE spheroseg_backup_success_timestamp_seconds gauge
spheroseg_backup_success_timestamp_seconds $(date +%s)
# HELP spheroseg_backup_duration_seconds How long it took.
# TYPE spheroseg_backup_duration_seconds gauge
spheroseg_backup_duration_seconds $(($(date +%s) - started))
# HELP spheroseg_backup_bytes Size of the last backup, and of the images of all backups.
# TYPE spheroseg_backup_bytes gauge
spheroseg_backup_bytes{part="database"} $bytes
spheroseg_backup_bytes{part="images"} $objects
# HELP spheroseg_backup_images Images in the last backup.
# TYPE spheroseg_backup_images gauge
spheroseg_backup_images $images
METRICS
chmod 644 "$BACKUP_ROOT/metrics/.new"
mv "$BACKUP_ROOT/metrics/.new" "$BACKUP_ROOT/metrics/spheroseg.prom"
say "backup $name in $BACKUP_ROOT: database $bytes bytes, $images images ($fresh new) in $seconds s"
