#!/usr/bin/env bash
# Looks at every part of a running system and prints a line for each.
#
# usage: scripts/healthcheck.sh [--quiet]
#   --quiet   print only what is not well
#
# Exit status: 0 all is well, 1 something is not, 2 usage, 3 nothing runs.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/compose.sh
. "$(dirname "$0")/lib/compose.sh"

quiet=false
case ${1:-} in
    '') ;;
    --quiet) quiet=true ;;
    -h | --help) print_help "$0"; exit 0 ;;
    *) print_help "$0" >&2; exit 2 ;;
esac
need_docker
wrong=0 seen=0
report() { # report WELL WHAT STATE
    seen=$((seen + 1))
    if $1; then
        $quiet || printf '%-28s %s\n' "$2" "$3"
    else
        wrong=$((wrong + 1))
        printf '%-28s %s\n' "$2" "$3"
    fi
}
for service in $(compose config --services); do
    [ "$service" = secrets ] && continue
    ids=$(compose ps -q "$service")
    if [ -z "$ids" ]; then
        report false "$service" "does not run"
        continue
    fi
    for id in $ids; do
        state=$(health_of "$id")
        name=$(docker inspect -f '{{.Name}}' "$id" 2>/dev/null | tr -d /)
        case $state in
            healthy | running) report true "$name" "$state" ;;
            *) report false "$name" "$state" ;;
        esac
    done
done
if [ -z "$(compose ps -q 2>/dev/null)" ]; then
    warn "nothing runs: docker-compose up -d"
    exit 3
fi
if [ $wrong -gt 0 ]; then
    warn "$wrong of $seen are not well; scripts/logs.sh NAME shows why"
    exit 1
fi
$quiet || say "all $seen are well"
