# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # variables shared with the scripts that source it
# What backup.sh, restore.sh and restore-drill.sh share. Source it after common.sh; it runs nothing by itself.
#
# A folder of backups:
#   objects/ab/abcd…     the images, each once, named by the SHA-256 of its bytes
#   backups/NAME/        database.dump, tables.tsv (rows and checksum of each table in the dump), files.tsv (key, size,
#                        SHA-256 of each image), base/ (for a point in time), info, SHA256SUMS
#   wal/SYSTEM/          what PostgreSQL wrote since the oldest base/, by the cluster it belongs to
#   index.tsv            what has been copied: key, size, time, SHA-256
#   .sent .gone .partial…  what the bucket has, and what is to be removed there (backup-s3.sh)
# Names under way begin with a dot and are renamed when they are whole. With a passphrase, the data of all of them ends
# with .gpg.

# The server's own programs, not the wrappers of Debian, which look for a local cluster first.
_newest=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
PATH=${_newest:+$_newest:}$PATH
umask 027

# read_secret NAME: the value of NAME, or what the file NAME_FILE holds.
read_secret() {
    local file=${1}_FILE
    if [ -n "${!file:-}" ]; then
        [ -r "${!file}" ] || die "$file: ${!file} cannot be read"
        tr -d '\r\n' <"${!file}"
    else
        printf '%s' "${!1:-}"
    fi
}

plain_installation() { [ -n "${DATABASE_URL:-}${DATABASE_URL_FILE:-}" ]; }

percent_decode() { printf '%b' "${1//%/\\x}"; }

# Takes DATABASE_URL apart into what libpq reads from the environment, so that no password shows in a command line.
use_database_url() {
    local url host port pair
    url=$(read_secret DATABASE_URL)
    [[ $url =~ ^postgres(ql)?://(([^:@/?]*)(:([^@/?]*))?@)?([^/?]*)(/([^?]*))?(\?(.*))?$ ]] ||
        die "DATABASE_URL is not of the form postgresql://user:password@host:port/database"
    PGUSER=$(percent_decode "${BASH_REMATCH[3]}") PGPASSWORD=$(percent_decode "${BASH_REMATCH[5]}")
    PGDATABASE=$(percent_decode "${BASH_REMATCH[8]}")
    host=${BASH_REMATCH[6]} port=5432
    local query=${BASH_REMATCH[10]}
    if [[ $host =~ ^(.*):([0-9]+)$ ]]; then host=${BASH_REMATCH[1]} port=${BASH_REMATCH[2]}; fi
    host=${host#[} host=${host%]}
    PGHOST=$(percent_decode "$host") PGPORT=$port
    for pair in ${query//&/ }; do
        case ${pair%%=*} in
            host) PGHOST=$(percent_decode "${pair#*=}") ;;
            port) PGPORT=${pair#*=} ;;
            sslmode) export PGSSLMODE=${pair#*=} ;;
            sslrootcert) PGSSLROOTCERT=$(percent_decode "${pair#*=}"); export PGSSLROOTCERT ;;
        esac
    done
    [ -n "$PGPASSWORD" ] || PGPASSWORD=$(read_secret DATABASE_PASSWORD)
    PGDATABASE=${PGDATABASE:-$PGUSER}
    export PGUSER PGPASSWORD PGHOST PGPORT PGDATABASE PGCONNECT_TIMEOUT=${PGCONNECT_TIMEOUT:-10}
    export PGOPTIONS="-c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c timezone=UTC -c datestyle=ISO -c bytea_output=hex -c extra_float_digits=1"
}

# sql TEXT [DATABASE]: its rows, columns separated by tabs.
sql() { psql -XAtq -v ON_ERROR_STOP=1 -F $'\t' -d "${2:-$PGDATABASE}" -c "$1"; }

# ---- the folder, and what is left behind by an error ----

work='' clean_ups=()
clean_up_all() {
    local status=$? command
    trap - EXIT
    for command in "${clean_ups[@]}"; do eval "$command" || true; done
    case $status in [0-3] | 130 | 143) ;; *) status=1 ;; esac
    exit $status
}
# open_folder DIR [read]: makes sure that it can be used, and gives this run a place of its own in it ($work).
open_folder() {
    BACKUP_ROOT=$1
    trap clean_up_all EXIT
    set -E # also in functions: whatever fails without words of its own is named
    trap 'warn "a step failed: ${BASH_COMMAND%%[[:cntrl:]]*}"' ERR
    trap 'exit 130' INT
    trap 'exit 143' TERM
    if [ "${2:-write}" = read ]; then
        [ -r "$BACKUP_ROOT/backups/." ] || die "there are no backups in $BACKUP_ROOT that can be read"
        work=$(mktemp -d)
        clean_ups+=("rm -rf '$work'")
        return
    fi
    mkdir -p "$BACKUP_ROOT"/{objects,backups,wal,metrics} 2>/dev/null || true
    [ -w "$BACKUP_ROOT/backups" ] ||
        die "cannot write to $BACKUP_ROOT: user $(id -u) needs to own it (chown $(id -u) $BACKUP_ROOT)"
    # What monitoring reads is open to it, and the way there; the rest is for the owner and its group.
    chmod 751 "$BACKUP_ROOT" 2>/dev/null || true
    chmod 755 "$BACKUP_ROOT/metrics" 2>/dev/null || true
    work=$(mktemp -d "$BACKUP_ROOT/.work.XXXXXX") || die "cannot write to $BACKUP_ROOT: is the disk full?"
    clean_ups+=("rm -rf '$work'")
}
# lock_folder SECONDS: nobody else backs up or prunes meanwhile.
lock_folder() {
    exec {lock_fd}>>"$BACKUP_ROOT/.lock"
    flock -w "$1" "$lock_fd" || die "another backup is under way in $BACKUP_ROOT"
}
unlock_folder() { exec {lock_fd}>&-; }

# ---- encryption ----

passphrase_file=''
use_passphrase() {
    [ -n "${BACKUP_PASSPHRASE_FILE:-}" ] && [ "${BACKUP_ENCRYPT:-true}" = true ] || return 0
    { [ -s "$BACKUP_PASSPHRASE_FILE" ] && [ -r "$BACKUP_PASSPHRASE_FILE" ]; } || die "BACKUP_PASSPHRASE_FILE: $BACKUP_PASSPHRASE_FILE cannot be read, or is empty"
    [ "$(wc -c <"$BACKUP_PASSPHRASE_FILE")" -ge 20 ] || die "the passphrase in $BACKUP_PASSPHRASE_FILE is too short: 20 characters at least"
    command -v gpg >/dev/null 2>&1 || die "gpg is not installed"
    passphrase_file=$BACKUP_PASSPHRASE_FILE
    GNUPGHOME=$(mktemp -d)
    export GNUPGHOME
    clean_ups+=("gpgconf --kill gpg-agent 2>/dev/null; rm -rf '$GNUPGHOME'")
}
# The passphrase is long and random, so stretching it for each of a million images would be time for nothing.
gpg_run() { gpg --batch --yes --quiet --no-symkey-cache --pinentry-mode loopback --passphrase-file "$passphrase_file" "$@"; }
seal() { # seal FILE…: with a passphrase, FILE becomes FILE.gpg
    [ -n "$passphrase_file" ] || return 0
    local file
    for file in "$@"; do
        gpg_run --symmetric --cipher-algo AES256 --compress-algo none --s2k-count 65536 -o "$file.gpg" "$file" && rm "$file" || return 1
    done
}
unseal() { # unseal FILE: its content
    if [ -e "$1.gpg" ]; then
        [ -n "$passphrase_file" ] || die "$1 is encrypted: set BACKUP_PASSPHRASE_FILE"
        gpg_run --decrypt "$1.gpg" 2>"$work/gpg" || die "$1 cannot be decrypted ($(tail -n 1 "$work/gpg")): is it another passphrase?"
    else
        cat "$1"
    fi
}

# ---- images ----

object_path() { printf '%s/objects/%s/%s' "$BACKUP_ROOT" "${1:0:2}" "$1"; }

# Where the images are in a bucket themselves (STORAGE_URL), there is nothing to copy: its versions are their backup.
images_elsewhere() { [ -n "${STORAGE_URL:-}" ]; }

# Thumbnails and tiles are made again from the originals, so they are left out; so is what is not committed (.tmp).
list_images() {
    if images_elsewhere; then return 0; fi
    find "$STORAGE_DIR" -name '.?*' -prune -o -type d -name tiles -prune -o \
        -type f ! -name thumbnail.jpg ! -name undecodable -printf '%P\t%s\t%T@\n' | LC_ALL=C sort
}

# keep_batch: takes the files of $work/batch (keys) into objects/, and adds "key size sha256" to $work/copied.
keep_batch() {
    local sum key path
    rm -rf "$work/stage"
    mkdir "$work/stage"
    # A file that was deleted since it was listed is no error; one that cannot be read is found out below.
    tar -C "$STORAGE_DIR" --ignore-failed-read --warning=no-failed-read --warning=no-file-removed -cf - -T "$work/batch" 2>"$work/tar" |
        tar -C "$work/stage" -xf - 2>>"$work/untar" || { [ ! -s "$work/untar" ] || die "images cannot be copied: $(tail -n 1 "$work/untar")"; }
    while IFS= read -r key; do
        [ -e "$work/stage/$key" ] || [ ! -e "$STORAGE_DIR/$key" ] || die "$STORAGE_DIR/$key cannot be read: $(tail -n 1 "$work/tar")"
    done <"$work/batch"
    (cd "$work/stage" && find . -type f -printf '%P\0' | xargs -0r sha256sum) >"$work/sums" || die "images cannot be copied: is the disk full?"
    while read -r sum key; do
        path=$(object_path "$sum")
        printf '%s\t%s\t%s\n' "$key" "$(stat -c %s "$work/stage/$key")" "$sum" >>"$work/copied"
        if [ ! -e "$path" ] && [ ! -e "$path.gpg" ]; then
            mkdir -p "${path%/*}"
            seal "$work/stage/$key" || die "$key cannot be encrypted"
            if [ -n "$passphrase_file" ]; then mv "$work/stage/$key.gpg" "$path.gpg"; else mv "$work/stage/$key" "$path"; fi
        else
            touch "$path" 2>/dev/null || touch "$path.gpg" # it is in use again: pruning looks at its age
        fi
    done <"$work/sums"
    rm -rf "$work/stage"
}

# copy_images: whatever is new in STORAGE_DIR. Leaves the list of all in $work/files (key, size, SHA-256) and says how many
# were new in $copied_images. Images never change, so one whose name, size and time are known is not read again.
copy_images() {
    local index=$BACKUP_ROOT/index.tsv
    list_images >"$work/now" || die "the images in $STORAGE_DIR cannot be listed"
    [ -e "$index" ] || : >"$index"
    : >"$work/known"; : >"$work/new"; : >"$work/copied"
    awk -F '\t' -v known="$work/known" -v new="$work/new" 'FILENAME == ARGV[1] { seen[$1 FS $2 FS $3] = $4; next }
        $0 in seen { print $0 FS seen[$0] >known; next } { print $1 >new }' "$index" "$work/now"
    copied_images=$(wc -l <"$work/new")
    rm -f "$work"/part.*
    split -l 2000 "$work/new" "$work/part."
    for batch in "$work"/part.*; do
        [ -e "$batch" ] || continue
        mv "$batch" "$work/batch"
        keep_batch
    done
    [ "$copied_images" -eq 0 ] || sync -f "$BACKUP_ROOT/objects"
    awk -F '\t' 'FILENAME == ARGV[1] { time[$1] = $3; next } { print $1 FS $2 FS time[$1] FS $3 }' "$work/now" "$work/copied" |
        cat "$work/known" - | LC_ALL=C sort >"$work/index"
    { cp "$work/index" "$index.new" && mv "$index.new" "$index"; } || die "cannot write to $BACKUP_ROOT: is the disk full?"
    cut -f 1,2,4 "$work/index" >"$work/files"
}

# ---- tables ----

# tables_of DATABASE [SNAPSHOT]: name, rows and a checksum of all rows, whatever their order, for each table.
tables_of() {
    local begin="BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;" table
    [ -z "${2:-}" ] || begin+=" SET TRANSACTION SNAPSHOT '$2';"
    {
        echo "$begin"
        while IFS= read -r table; do
            printf "SELECT '%s', count(*), coalesce(sum(('x' || substr(md5(t::text), 1, 16))::bit(64)::bigint::numeric), 0) FROM %s t;\n" "$table" "$table"
        done < <(sql "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1" "$1")
        echo "COMMIT;"
    } | psql -XAtq -v ON_ERROR_STOP=1 -F $'\t' -d "$1"
}

# dump_database DIR [DATABASE]: database.dump and tables.tsv of one moment, and $work/rows, the images that it names.
dump_database() {
    local dir=$1 database=${2:-$PGDATABASE} snapshot moment
    coproc SESSION { psql -XAtq -v ON_ERROR_STOP=1 -F $'\t' -d "$database" 2>"$work/session"; }
    # shellcheck disable=SC2153  # bash sets it
    local session=$SESSION_PID
    echo "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot(), to_char(clock_timestamp(), 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"');" >&"${SESSION[1]}"
    IFS=$'\t' read -r -t 60 snapshot moment <&"${SESSION[0]}" || die "the database does not answer: $(cat "$work/session")"
    pg_dump -Fc --no-owner --no-acl --snapshot="$snapshot" -f "$dir/database.dump" -d "$database" 2>"$work/dump" ||
        die "pg_dump failed: $(tail -n 1 "$work/dump")"
    tables_of "$database" "$snapshot" >"$dir/tables.tsv" || die "the tables cannot be counted: is the disk full?"
    psql -XAtq -v ON_ERROR_STOP=1 -F $'\t' -d "$database" >"$work/rows" <<SQL || die "the images cannot be listed"
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '$snapshot';
SELECT storage_key, byte_size, encode(sha256, 'hex') FROM images ORDER BY 1;
SQL
    echo 'COMMIT;' >&"${SESSION[1]}"
    eval "exec ${SESSION[1]}>&-"
    wait "$session" 2>/dev/null || true
    database_moment=$moment
}

# ---- finding and checking backups ----

list_backups() { (cd "$BACKUP_ROOT/backups" 2>/dev/null && ls -d [0-9]*Z* 2>/dev/null) || true; }
newest_backup() { list_backups | sed '/-at-/d' | tail -n 1; }
info_of() { sed -n "s/^$2=//p" "$BACKUP_ROOT/backups/$1/info"; }

# finish_backup NAME: what lies in $work/backup becomes the backup NAME.
finish_backup() {
    local files
    (cd "$work/backup" && find . -type f ! -name SHA256SUMS ! -name info -printf '%P\n' | LC_ALL=C sort) >"$work/list"
    mapfile -t files <"$work/list"
    (cd "$work/backup" && sha256sum info "${files[@]}" >SHA256SUMS) || die "cannot write to $BACKUP_ROOT: is the disk full?"
    sync -f "$work/backup"
    mv "$work/backup" "$BACKUP_ROOT/backups/$1"
    sync -f "$BACKUP_ROOT/backups"
}

# choose_backup NAME: sets $backup and makes sure that nothing in it is damaged. latest: the newest.
choose_backup() {
    backup=$1
    [ "$backup" != latest ] || backup=$(newest_backup)
    { [ -n "$backup" ] && [ -d "$BACKUP_ROOT/backups/$backup" ]; } ||
        die "there is no backup '$1' in $BACKUP_ROOT; there are: $(list_backups | tail -n 5 | tr '\n' ' ')"
    (cd "$BACKUP_ROOT/backups/$backup" && sha256sum --quiet -c SHA256SUMS) >"$work/check" 2>&1 ||
        die "the backup $backup is damaged: $(head -n 1 "$work/check")"
}
