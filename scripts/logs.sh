#!/usr/bin/env bash
# Shows the logs of a service, as lines a person can read.
#
# usage: scripts/logs.sh [SERVICE...] [--follow] [--since TIME] [--level error|warn|info|debug] [--json]
#   --since TIME   10m, 2h, or a date (default 1h)
#   --level        only lines of this level and worse (lines of servers that have none are always shown)
#   --json         as the daemons wrote them
#
# Exit status: 0 shown, 1 nothing of that runs, 2 usage.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/compose.sh
. "$(dirname "$0")/lib/compose.sh"

services=() follow='' since=1h level=debug json=false
while [ $# -gt 0 ]; do
    case $1 in
        --follow | -f) follow=-f ;;
        --since) since=${2:?--since needs a time}; shift ;;
        --level) level=${2:?--level needs a level}; shift ;;
        --json) json=true ;;
        -h | --help) print_help "$0"; exit 0 ;;
        -*) print_help "$0" >&2; exit 2 ;;
        *) services+=("$1") ;;
    esac
    shift
done
case $level in
    error) levels=error ;;
    warn) levels='error|warn' ;;
    info) levels='error|warn|info' ;;
    debug) levels='error|warn|info|debug' ;;
    *) print_help "$0" >&2; exit 2 ;;
esac
need_docker
ids=()
[ ${#services[@]} -gt 0 ] || mapfile -t services < <(compose config --services)
for service in "${services[@]}"; do
    mapfile -t -O "${#ids[@]}" ids < <(compose ps -q "$service")
done
[ ${#ids[@]} -gt 0 ] || die "no container of ${services[*]} runs"

show() { # show NAME
    awk -v name="$1" -v levels="^($levels)\$" -v json="$json" '
    function field(key,   s) {
        if (!match($0, "\"" key "\":\"([^\"\\\\]|\\\\.)*\"")) return ""
        s = substr($0, RSTART, RLENGTH)
        return substr(s, length(key) + 5, length(s) - length(key) - 5)
    }
    {
        level = field("level")
        if (level != "" && level !~ levels) next
        if (json == "true" || level == "") { print name ": " $0; fflush(); next }
        rest = $0
        gsub(/"(time|level|component|msg)":"([^"\\]|\\.)*",?/, "", rest)
        gsub(/^\{|\}$/, "", rest)
        print name ": " substr(field("time"), 12, 12) " " toupper(level) " " field("msg") "  " rest
        fflush()
    }'
}
for id in "${ids[@]}"; do
    name=$(docker inspect -f '{{.Name}}' "$id" | tr -d /)
    # shellcheck disable=SC2086  # follow is one word or none
    docker logs $follow --since "$since" "$id" 2>&1 | show "$name" &
done
wait
