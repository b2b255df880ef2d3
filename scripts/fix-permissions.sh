#!/usr/bin/env bash
# Makes secrets, private keys and settings readable by their owner alone. It only ever takes rights away.
#
# usage: scripts/fix-permissions.sh [--dry-run] [DIR...]
#   --dry-run   only say what would change; exit status 3 when something would
#   DIR         folders of secrets besides SECRETS_DIR of the settings
#
# Exit status: 0 all is well now, 1 something could not be changed, 2 usage, 3 with --dry-run: something is too open.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/compose.sh
. "$(dirname "$0")/lib/compose.sh"

dry_run=false dirs=()
for arg in "$@"; do
    case $arg in
        --dry-run) dry_run=true ;;
        -h | --help) print_help "$0"; exit 0 ;;
        -*) print_help "$0" >&2; exit 2 ;;
        *) [ -d "$arg" ] || die "$arg is no folder"; dirs+=("$arg") ;;
    esac
done
secrets=$(setting SECRETS_DIR)
if [ -n "$secrets" ] && [ -d "$secrets" ]; then dirs+=("$secrets"); fi

changes=0
# narrow PATH MASK: takes the rights of MASK (octal) away, if any of them is there.
narrow() {
    local mode
    mode=$(stat -c %a "$1")
    if [ $((0$mode & 0$2)) -ne 0 ]; then
        changes=$((changes + 1))
        say "$1: $mode -> $(printf '%o' $((0$mode & ~0$2)))"
        $dry_run || chmod "$(printf '%o' $((0$mode & ~0$2)))" "$1" || die "cannot change $1: run it as its owner or as root"
    fi
}
for dir in "${dirs[@]}"; do
    narrow "$dir" 077
    while IFS= read -r -d '' path; do
        if [ -d "$path" ]; then narrow "$path" 077; else narrow "$path" 177; fi
    done < <(find "$dir" -mindepth 1 \( -type f -o -type d \) -print0)
done
if [ -f "$REPO_ROOT/.env.production" ]; then narrow "$REPO_ROOT/.env.production" 177; fi
[ ${#dirs[@]} -gt 0 ] || warn "no folder of secrets is known: set SECRETS_DIR or name one"
if $dry_run && [ $changes -gt 0 ]; then
    say "$changes to change"
    exit 3
fi
say "$changes changed"
