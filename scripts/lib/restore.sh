# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # variables shared with the scripts that source it
# What restore.sh and restore-drill.sh share. Source it after backup.sh; it runs nothing by itself.

# quoted NAME: as an SQL identifier.
quoted() { printf '"%s"' "${1//\"/\"\"}"; }
# A database that is there under every name of ours.
admin_database() { if [ "$PGDATABASE" = postgres ]; then echo template1; else echo postgres; fi; }

# restore_database BACKUP DATABASE: makes DATABASE from the dump, and compares every table with the backup's list.
restore_database() {
    local dir=$BACKUP_ROOT/backups/$1 database=$2
    sql "CREATE DATABASE $(quoted "$database") TEMPLATE template0" "$(admin_database)" 2>"$work/error" ||
        die "the database $database cannot be made: $(tail -n 1 "$work/error")"
    unseal "$dir/database.dump" | pg_restore --no-owner --no-acl --exit-on-error -d "$database" 2>"$work/error" ||
        die "the dump of $1 cannot be restored: $(tail -n 1 "$work/error")"
    sql "ANALYZE" "$database"
    tables_of "$database" >"$work/tables" || die "the restored tables cannot be counted"
    if ! cmp -s "$work/tables" "$dir/tables.tsv"; then
        diff "$dir/tables.tsv" "$work/tables" | sed -n 1,5p >&2 || true
        die "the restored tables differ from the backup's list (table, rows, checksum)"
    fi
    restored_tables=$(wc -l <"$work/tables") restored_rows=$(awk -F '\t' '{ n += $2 } END { printf "%.0f", n }' "$work/tables")
}

# wrong_files FOLDER LIST: those of LIST (key, size, SHA-256) that FOLDER has not, or has with other bytes.
wrong_files() {
    awk -F '\t' '{ print $3 "  " $1 }' "$2" >"$work/sums"
    (cd "$1" && { sha256sum -c --quiet "$work/sums" 2>/dev/null || true; }) | sed -n 's/: FAILED.*//p' | LC_ALL=C sort >"$work/wrong"
    LC_ALL=C sort "$2" | LC_ALL=C join -t $'\t' "$work/wrong" -
}

# restore_files BACKUP DATABASE FOLDER: the images that the backup or the restored database name; what is there and right
# stays as it is. Leaves in $work/lost those that cannot be had.
restore_files() {
    local dir=$BACKUP_ROOT/backups/$1 folder=$3 key size sum object
    restored_files=0 all_files=0
    : >"$work/lost"
    if images_elsewhere; then return 0; fi
    sql "SELECT storage_key, byte_size, encode(sha256, 'hex') FROM images" "$2" >"$work/rows"
    LC_ALL=C sort -u -t $'\t' -k 1,1 "$dir/files.tsv" "$work/rows" >"$work/all"
    if LC_ALL=C grep -Evq $'^[a-z0-9_-][a-z0-9._-]*(/[a-z0-9_-][a-z0-9._-]*)*\t[0-9]+\t[0-9a-f]{64}$' "$work/all"; then
        die "the list of images has a line that is not one of ours"
    fi
    wrong_files "$folder" "$work/all" >"$work/wanted"
    while IFS=$'\t' read -r key size sum; do
        object=$(object_path "$sum")
        [ -e "$object" ] || [ -e "$object.gpg" ] || continue
        mkdir -p "$folder/$(dirname "$key")"
        # A damaged one must not stop the others; it is found below.
        (unseal "$object") >"$folder/$key.restored" || { [ -n "$(find "$folder/$key.restored" -size +0)" ] || warn "$key cannot be read"; }
        [ "$(stat -c %s "$folder/$key.restored")" -eq "$size" ] || [ -w "$folder" ] || die "cannot write to $folder"
        mv "$folder/$key.restored" "$folder/$key"
    done <"$work/wanted"
    restored_files=$(wc -l <"$work/wanted") all_files=$(wc -l <"$work/all")
    wrong_files "$folder" "$work/wanted" >"$work/lost"
    sync -f "$folder"
}

# ---- a point in time: the base and what was written after it, in a server of our own ----

# point_in_time BACKUP TIME: makes a backup of the database as it was then (TIME latest: as late as it can be had), named
# in $backup. Its images are those that the rows name.
point_in_time() {
    local from=$BACKUP_ROOT/backups/$1 time=$2 place name system failed
    [ "$(id -u)" -ne 0 ] || die "PostgreSQL does not start as root: run this as the user who owns the backups"
    [ -d "$from/base" ] || die "$1 has no base, so only its own moment can be restored: choose a younger backup"
    system=$(info_of "$1" system)
    place=$work/server
    mkdir -m 700 "$place" "$place/data" "$place/socket"
    unseal "$from/base/base.tar.gz" | tar -C "$place/data" -xzf - || die "the base of $1 cannot be unpacked: is the disk full?"
    unseal "$from/base/pg_wal.tar.gz" | tar -C "$place/data/pg_wal" -xzf - || die "the base of $1 cannot be unpacked"
    cat >"$place/fetch" <<FETCH
#!/bin/sh
# fetch NAME PATH: one piece of what PostgreSQL wrote; the newest is still called .partial.
for name in "\$1" "\$1.partial"; do
    if [ -e "$BACKUP_ROOT/wal/$system/\$name.gpg" ]; then
        exec gpg --batch --yes --quiet --no-symkey-cache --pinentry-mode loopback --passphrase-file "$passphrase_file" -o "\$2" --decrypt "$BACKUP_ROOT/wal/$system/\$name.gpg"
    fi
    if [ -e "$BACKUP_ROOT/wal/$system/\$name" ]; then exec cp "$BACKUP_ROOT/wal/$system/\$name" "\$2"; fi
done
exit 1
FETCH
    chmod 700 "$place/fetch"
    printf 'local all all trust\n' >"$place/hba"
    : >"$place/ident"
    cat >"$place/conf" <<CONF
data_directory = '$place/data'
hba_file = '$place/hba'
ident_file = '$place/ident'
listen_addresses = ''
unix_socket_directories = '$place/socket'
port = 5432
hot_standby = off
fsync = off
max_wal_size = 4GB
archive_mode = off
restore_command = '$place/fetch "%f" "%p"'
CONF
    [ "$time" = latest ] || printf "recovery_target_time = '%s'\nrecovery_target_action = promote\n" "${time//\'/}" >>"$place/conf"
    : >"$place/data/postgresql.auto.conf"
    touch "$place/data/recovery.signal"
    chmod 700 "$place/data"
    clean_ups=("pg_ctl -D '$place/data' -m immediate stop >/dev/null 2>&1" "${clean_ups[@]}")
    if ! pg_ctl -D "$place/data" -o "-c config_file=$place/conf" -l "$place/log" -t "${RESTORE_TIMEOUT:-3600}" -w start >/dev/null 2>&1; then
        failed=$(grep -E 'FATAL|ERROR' "$place/log" | sed -n 1p)
        die "the database cannot be brought to $time: ${failed:-$(tail -n 1 "$place/log")}"
    fi
    reached=$(sed -n 's/.*last completed transaction was at log time \(.*\)$/\1/p' "$place/log" | tail -n 1)
    mkdir "$work/backup"
    (
        export PGHOST=$place/socket PGPORT=5432 PGSSLMODE=disable
        wait_for 60 "the restored server" sql "SELECT 1 WHERE NOT pg_is_in_recovery()"
        dump_database "$work/backup"
    )
    pg_ctl -D "$place/data" -m fast -w stop >/dev/null
    # Nothing was written after the base: then its own moment is the last that is known.
    printf 'moment=%s\npoint_in_time_of=%s\n' "${reached:-$(info_of "$1" moment)}" "$1" >"$work/backup/info"
    seal "$work/backup/database.dump" || die "the dump cannot be encrypted"
    cp "$work/rows" "$work/backup/files.tsv"
    name=$(date -u +%Y%m%dT%H%M%SZ)-at-$(tr -dc '0-9A-Za-z' <<<"$time")
    printf 'started=%s\nbytes=%s\nimages=%s\n' "$name" "$(du -sb "$work/backup" | cut -f 1)" "$(wc -l <"$work/rows")" >>"$work/backup/info"
    finish_backup "$name"
    rm -rf "$place"
    backup=$name
}
