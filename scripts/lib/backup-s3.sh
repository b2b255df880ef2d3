# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # variables shared with the scripts that source it
# The copy of the backups in a bucket of S3. Source it after backup.sh; it runs nothing by itself.
#
# BACKUP_URL=s3://BUCKET[/PREFIX] wants one; S3_ENDPOINT, S3_REGION, S3_PATH_STYLE, S3_ACCESS_KEY and S3_SECRET_KEY (or
# …_FILE) are those of the daemons. What is finished goes there under its own name: objects/, wal/, and last of all
# backups/NAME with its SHA256SUMS, so that a backup that can be seen is whole. Requests are signed by curl (Signature
# Version 4) over the SHA-256 of what is sent: the server refuses bytes that were damaged on the way. What was removed
# here goes there, too, but never because a folder is empty: only what is written down in .gone.

bucket_wanted() { [ -n "${BACKUP_URL:-}" ]; }
_sha_of_nothing=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855

use_bucket() {
    local endpoint key secret region=${S3_REGION:-us-east-1}
    [[ $BACKUP_URL =~ ^s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/([A-Za-z0-9_-][A-Za-z0-9._/-]*[A-Za-z0-9_-]|[A-Za-z0-9_-]))?/?$ ]] ||
        die "BACKUP_URL must be s3://BUCKET or s3://BUCKET/PREFIX"
    command -v curl >/dev/null 2>&1 || die "curl is not installed: BACKUP_URL needs it (in containers: the image spheroseg/backup)"
    s3_prefix=${BASH_REMATCH[3]:+${BASH_REMATCH[3]}/} endpoint=${S3_ENDPOINT:-https://s3.$region.amazonaws.com}
    endpoint=${endpoint%/}
    [[ $endpoint =~ ^https?://[^/]+$ ]] || die "S3_ENDPOINT must be https://HOST or http://HOST"
    if [ "${S3_PATH_STYLE:-true}" = true ]; then
        s3_base=$endpoint/$(bucket_name)
    else
        s3_base=${endpoint%%://*}://$(bucket_name).${endpoint#*://}
    fi
    key=$(read_secret S3_ACCESS_KEY) secret=$(read_secret S3_SECRET_KEY)
    { [ -n "$key" ] && [ -n "$secret" ]; } || die "BACKUP_URL needs S3_ACCESS_KEY and S3_SECRET_KEY (or …_FILE)"
    part_mib=${BACKUP_PART_MIB:-64}
    # In a file of our own: a command line can be seen by others.
    (umask 077 && printf 'user = "%s:%s"\naws-sigv4 = "aws:amz:%s:s3"\nsilent\nshow-error\nglobbing = false\nconnect-timeout = 10\nspeed-limit = 1\nspeed-time = 60\n' \
        "${key//[\"\\]/\\&}" "${secret//[\"\\]/\\&}" "$region" >"$work/curl")
}
bucket_name() { local rest=${BACKUP_URL#s3://}; printf '%s' "${rest%%/*}"; }

# s3 METHOD PATH SHA256 [CURL OPTION…]: one signed request, again where that can help. The answer lies in $work/answer, or in
# the file $s3_into. Status 1: it did not work, and $s3_said says why.
s3() {
    local method=$1 path=$2 sum=$3 pause status
    shift 3
    for pause in 0.5 1 2 4 0; do
        status=$(curl -K "$work/curl" -X "$method" -H "x-amz-content-sha256: $sum" -o "${s3_into:-$work/answer}" -D "$work/headers" \
            -w '%{http_code}' "$@" "$s3_base/$path" 2>"$work/s3error") || status=000
        s3_said="$status $(tail -n 1 "$work/s3error")$([ -n "${s3_into:-}" ] || sed -n 's:.*<Code>\([^<]*\)</Code>.*:\1:p' "$work/answer" 2>/dev/null)"
        case $status in
            2??) return 0 ;;
            000 | 408 | 429 | 5??) sleep "$pause" ;;
            *) break ;;
        esac
    done
    return 1
}

sha256_of() { sha256sum <"$1" | cut -d ' ' -f 1; }

# send_file FILE NAME. Large ones go in parts: none is larger than what is sent again when its connection breaks.
send_file() {
    local size
    size=$(stat -c %s "$1") || return 1
    if [ "$size" -gt $((part_mib << 20)) ]; then
        send_parts "$1" "$s3_prefix$2" "$size"
    else
        s3 PUT "$s3_prefix$2" "$(sha256_of "$1")" -T "$1"
    fi
}
send_parts() {
    local file=$1 path=$2 size=$3 part=0 step=$part_mib upload etag
    while [ $(((size >> 20) / step)) -ge 9999 ]; do step=$((step * 2)); done # at most 10,000 parts
    s3 POST "$path?uploads=" "$_sha_of_nothing" -d '' || return 1
    upload=$(sed -n 's:.*<UploadId>\([^<]*\)</UploadId>.*:\1:p' "$work/answer")
    [[ $upload =~ ^[A-Za-z0-9._~-]+$ ]] || { s3_said="the server gave no upload id"; return 1; }
    printf '<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">' >"$work/parts"
    while [ $(((part * step) << 20)) -lt "$size" ]; do
        dd if="$file" of="$work/part" bs=1M skip=$((part * step)) count="$step" status=none || { s3_said="$file cannot be read"; return 1; }
        part=$((part + 1))
        if ! s3 PUT "$path?partNumber=$part&uploadId=$upload" "$(sha256_of "$work/part")" -T "$work/part"; then
            part=$s3_said
            s3 DELETE "$path?uploadId=$upload" "$_sha_of_nothing" || true
            s3_said=$part
            return 1
        fi
        etag=$(tr -d '\r' <"$work/headers" | sed -n 's/^[Ee][Tt][Aa][Gg]: *//p' | tail -n 1)
        printf '<Part><PartNumber>%s</PartNumber><ETag>%s</ETag></Part>' "$part" "$etag" >>"$work/parts"
    done
    rm -f "$work/part"
    printf '</CompleteMultipartUpload>' >>"$work/parts"
    s3 POST "$path?uploadId=$upload" "$(sha256_of "$work/parts")" --data-binary "@$work/parts" || return 1
    # An answer of 200 may tell of an error all the same.
    grep -q CompleteMultipartUploadResult "$work/answer" || { s3_said="the upload was not completed"; return 1; }
}

query_encode() { local text=${1//%/%25}; text=${text//\//%2F} text=${text//+/%2B} text=${text//=/%3D} text=${text//&/%26}; printf '%s' "$text"; }

# list_bucket FILE: name and size of everything of ours that is there.
list_bucket() {
    local token='' page
    : >"$work/list.s3"
    while :; do
        s3 GET "?${token:+continuation-token=$(query_encode "$token")&}list-type=2&max-keys=1000&prefix=$(query_encode "$s3_prefix")" "$_sha_of_nothing" || return 1
        page=$(grep -oE '<(Key|Size|NextContinuationToken)>[^<]*' "$work/answer") || true
        awk -F '>' -v skip="${#s3_prefix}" '$1 == "<Key" { key = substr($2, skip + 1) } $1 == "<Size" { print key "\t" $2 }' <<<"$page" >>"$work/list.s3"
        token=$(sed -n 's/^<NextContinuationToken>//p' <<<"$page")
        [ -n "$token" ] || break
    done
    LC_ALL=C sort "$work/list.s3" >"$1"
}

# What is finished here, name and size, in the order in which it is to arrive. What PostgreSQL wrote is among it once it is
# encrypted, where that is wanted.
list_finished() {
    local wal='[0-9A-F]*'
    [ -z "$passphrase_file" ] || wal='[0-9A-F]*.gpg'
    cd "$BACKUP_ROOT" || return 1
    find objects -type f ! -name '.*' -printf '%p\t%s\n'
    find wal -mindepth 2 -maxdepth 2 -type f -name "$wal" ! -name '*.partial' -printf '%p\t%s\n'
    find backups -mindepth 2 -type f ! -path '*/.*' ! -name SHA256SUMS -printf '%p\t%s\n'
    find backups -mindepth 2 -type f ! -path '*/.*' -name SHA256SUMS -printf '%p\t%s\n'
}

# copy_to_bucket all|known: sends what is not there yet, and removes what was removed here. known: believes what is written
# down about the bucket (.sent) instead of asking for its whole list. Sets $sent_files and $sent_bytes.
copy_to_bucket() {
    local name size sent=$BACKUP_ROOT/.sent gone=$BACKUP_ROOT/.gone
    sent_files=0 sent_bytes=0
    [ "$1" = known ] && [ -e "$sent" ] || list_bucket "$sent" || return 1
    (list_finished) >"$work/finished" || return 1
    awk -F '\t' 'FILENAME == ARGV[1] { there[$0] = 1; next } !($0 in there)' "$sent" "$work/finished" >"$work/to-send"
    while IFS=$'\t' read -r name size; do
        [ -e "$BACKUP_ROOT/$name" ] || continue # pruned meanwhile
        send_file "$BACKUP_ROOT/$name" "$name" || { s3_said="$name: $s3_said"; return 1; }
        printf '%s\t%s\n' "$name" "$size" >>"$sent"
        sent_files=$((sent_files + 1)) sent_bytes=$((sent_bytes + size))
    done <"$work/to-send"
    send_partial || return 1
    [ -s "$gone" ] || return 0
    cp "$gone" "$work/gone"
    while IFS= read -r name; do
        [ ! -e "$BACKUP_ROOT/$name" ] || continue # it came back
        s3 DELETE "$s3_prefix$name" "$_sha_of_nothing" || [[ $s3_said == 404* ]] || { s3_said="$name: $s3_said"; return 1; }
    done <"$work/gone"
    awk -F '\t' 'FILENAME == ARGV[1] { gone[$0] = 1; next } !($1 in gone)' "$work/gone" "$sent" >"$work/sent" && cp "$work/sent" "$sent"
    : >"$gone"
}

# The newest of what PostgreSQL wrote has a file that is 16 MiB from its beginning and fills up; it is sent again as long as
# it changes. Not where things are encrypted: that one is not, until it is whole.
send_partial() {
    local name stamp=$BACKUP_ROOT/.partial
    [ -z "$passphrase_file" ] || return 0
    for name in "$BACKUP_ROOT"/wal/*/*.partial; do
        [ -e "$name" ] || continue
        [ ! -e "$stamp" ] || [ "$name" -nt "$stamp" ] || continue
        touch "$stamp.new"
        send_file "$name" "${name#"$BACKUP_ROOT"/}" || return 1
        mv "$stamp.new" "$stamp"
    done
    # Those that have become whole, or were thrown away.
    { grep '\.partial$' "$BACKUP_ROOT/.partials" 2>/dev/null || true; } | while IFS= read -r name; do
        [ -e "$BACKUP_ROOT/$name" ] || s3 DELETE "$s3_prefix$name" "$_sha_of_nothing" || true
    done
    (cd "$BACKUP_ROOT" && find wal -mindepth 2 -maxdepth 2 -name '*.partial') >"$BACKUP_ROOT/.partials"
}

# fetch_from_bucket: what the bucket has and this folder has not.
fetch_from_bucket() {
    local name size
    fetched_files=0 fetched_bytes=0
    list_bucket "$work/there" || return 1
    if LC_ALL=C grep -Evq $'^(objects|backups|wal)(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+\t[0-9]+$' "$work/there"; then
        s3_said="there are files in the bucket that are not ours: is the prefix right?"
        return 1
    fi
    grep -q $'^backups/.*/SHA256SUMS\t' "$work/there" || { s3_said="there is no backup in $BACKUP_URL"; return 1; }
    while IFS=$'\t' read -r name size; do
        [ "$(stat -c %s "$BACKUP_ROOT/$name" 2>/dev/null)" != "$size" ] || continue
        mkdir -p "$BACKUP_ROOT/${name%/*}"
        s3_into=$work/fetched s3 GET "$s3_prefix$name" "$_sha_of_nothing" || { s3_said="$name: $s3_said"; return 1; }
        [ "$(stat -c %s "$work/fetched")" = "$size" ] || { s3_said="$name is cut short"; return 1; }
        mv "$work/fetched" "$BACKUP_ROOT/$name" || { s3_said="cannot write to $BACKUP_ROOT"; return 1; }
        fetched_files=$((fetched_files + 1)) fetched_bytes=$((fetched_bytes + size))
    done <"$work/there"
}
