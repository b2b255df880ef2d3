# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # variables shared with the scripts that source it
# The service that backs up all the time. Sourced by backup.sh --serve after its helpers; it runs nothing by itself.
#
# Three things go on: pg_receivewal takes what PostgreSQL writes, through a slot, so that nothing is missed while this
# service is away (max_slot_wal_keep_size bounds what the server keeps for it); new images are copied; and once a day a
# whole backup is made. $BACKUP_DIR/alive is touched while all is well: the health check looks at it.
#
# Why not pgBackRest: it would have to run beside the server in PostgreSQL's own container, or be reached there by SSH,
# and knows nothing of images. These programs come with the server, and any of its own tools can read what they keep.

receiver=0
receive_wal() {
    local system slot=spheroseg_backup state newest
    if [ "$receiver" -ne 0 ] && kill -0 "$receiver" 2>/dev/null; then return 0; fi
    [ "$receiver" -eq 0 ] || wait "$receiver" 2>/dev/null || warn "pg_receivewal ended: $(tail -n 1 "$BACKUP_ROOT/wal/log")"
    receiver=0
    system=$(sql "SELECT system_identifier FROM pg_control_system()") || return 1
    mkdir -p "$BACKUP_ROOT/wal/$system"
    state=$(sql "SELECT coalesce(wal_status, 'unused') FROM pg_replication_slots WHERE slot_name = '$slot'") || return 1
    if [ "$state" = lost ]; then
        warn "PostgreSQL has thrown away what this service has not fetched for too long: a new base is needed"
        sql "SELECT pg_drop_replication_slot('$slot')" >/dev/null || return 1
        rm -f "$BACKUP_ROOT/wal/$system"/*.partial
        state='' due=0
    fi
    if [ -z "$state" ]; then
        # What lies here of before the slot has a gap after it.
        sql "SELECT pg_create_physical_replication_slot('$slot', true)" >/dev/null || return 1
        mkdir -p "$BACKUP_ROOT/wal/$system/before"
        find "$BACKUP_ROOT/wal/$system" -maxdepth 1 -type f -name '[0-9A-F]*' -exec mv -t "$BACKUP_ROOT/wal/$system/before" {} +
        newest=$(newest_backup)
        if [ -z "$newest" ] || [ "$(info_of "$newest" system)" = "$system" ]; then
            due=0
        else
            # Perhaps everything was lost and is about to be restored: an empty system must not become the newest backup.
            warn "this database cluster is another than that of $newest: restore first; the next backup is made at ${BACKUP_AT:-02:00}"
        fi
    fi
    pg_receivewal -D "$BACKUP_ROOT/wal/$system" --slot="$slot" --synchronous --no-loop --no-password >"$BACKUP_ROOT/wal/log" 2>&1 &
    receiver=$!
}
# With a passphrase, what is whole is encrypted; the part that grows stays plain until then.
seal_wal() {
    [ -n "$passphrase_file" ] || return 0
    local file
    for file in "$BACKUP_ROOT"/wal/*/[0-9A-F]*; do
        case $file in *.partial | *.gpg) ;; *) [ ! -f "$file" ] || seal "$file" ;; esac
    done
}
next_backup() { # the next time that the clock shows BACKUP_AT, as seconds since 1970
    local at
    at=$(date -d "today ${BACKUP_AT:-02:00}" +%s)
    [ "$at" -gt "$(date +%s)" ] || at=$(date -d "tomorrow ${BACKUP_AT:-02:00}" +%s)
    echo "$at"
}

serve_backups() { # serve_backups DIR KEEP: until SIGTERM
    local to=$1 keep=$2 child='' images_at=0 now
    [[ ${BACKUP_AT:-02:00} =~ ^([01][0-9]|2[0-3]):[0-5][0-9]$ ]] || die "BACKUP_AT must be a time such as 02:00"
    open_folder "$to"
    use_passphrase
    # shellcheck disable=SC2016  # later
    clean_ups+=('[ "$receiver" -eq 0 ] || { kill "$receiver" 2>/dev/null; wait "$receiver" 2>/dev/null; }')
    # It may be over already, or not yet begun: neither is a failure.
    trap '[ -z "$child" ] || kill "$child" 2>/dev/null || true; exit 0' TERM INT
    due=$(next_backup)
    [ -n "$(newest_backup)" ] || due=0
    while :; do
        now=$(date +%s)
        use_database_url # the password may have been changed
        if receive_wal 2>"$work/wal"; then
            touch "$BACKUP_ROOT/alive"
        else
            warn "PostgreSQL does not answer: $(tail -n 1 "$work/wal")"
        fi
        if [ "$now" -ge "$due" ]; then
            due=$((now + 900)) # again soon, if it fails
            "$0" --to "$to" --keep "$keep" &
            child=$!
            if wait "$child"; then due=$(next_backup); fi
        elif [ "$now" -ge "$images_at" ]; then
            images_at=$((now + ${BACKUP_IMAGES_EVERY:-60}))
            "$REPO_ROOT/scripts/lib/backup-images.sh" "$to" &
            child=$!
            wait "$child" || true
        fi
        seal_wal || warn "what PostgreSQL wrote cannot be encrypted"
        sleep "${BACKUP_TICK:-5}" &
        child=$!
        wait "$child" || true
    done
}
