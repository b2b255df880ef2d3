#!/usr/bin/env bash
# Makes the secrets of an installation, each in a file that its owner alone can read. What is there already stays.
#
# usage: scripts/create-secrets.sh [DIR] [--dry-run]
#   DIR         where they go (default: SECRETS_DIR of the settings, else /etc/spheroseg/secrets)
#   --dry-run   only say what would be made
#
# Two secrets cannot be made up; put them beside the others yourself: slack_url (an incoming webhook's address) and
# smtp_password. Exit status: 0 all there, 1 could not be written, 2 usage.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/compose.sh
. "$(dirname "$0")/lib/compose.sh"

dir='' dry_run=false
for arg in "$@"; do
    case $arg in
        --dry-run) dry_run=true ;;
        -h | --help) print_help "$0"; exit 0 ;;
        -*) print_help "$0" >&2; exit 2 ;;
        *) [ -z "$dir" ] || { print_help "$0" >&2; exit 2; }; dir=$arg ;;
    esac
done
dir=${dir:-$(setting SECRETS_DIR /etc/spheroseg/secrets)}
declare -A bytes=([postgres_password]=24 [redis_password]=24 [redis_admin_password]=24 [jwt_secret]=48
    [grafana_password]=18 [heartbeat_password]=24 [backup_passphrase]=36)

umask 077
if ! $dry_run; then
    if ! mkdir -p "$dir" 2>/dev/null || [ ! -w "$dir" ]; then
        die "cannot write to $dir: run it as root, or name another folder"
    fi
    chmod 700 "$dir"
fi
made=0
for name in "${!bytes[@]}"; do
    file=$dir/$name
    if [ -s "$file" ]; then
        $dry_run || chmod 600 "$file"
        continue
    fi
    made=$((made + 1))
    say "making $name"
    if ! $dry_run; then
        random_word "${bytes[$name]}" >"$file.new"
        mv "$file.new" "$file"
    fi
done
for name in slack_url smtp_password; do
    [ -s "$dir/$name" ] || say "$name is not there: alerts by ${name%_*} are not sent until you put it into $dir/$name"
done
if $dry_run; then
    say "$made to be made in $dir"
else
    say "$made made in $dir, $((${#bytes[@]} - made)) were there"
fi
