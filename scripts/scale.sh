#!/usr/bin/env bash
# Changes how many workers or gateways run. Workers that go hand their jobs back first; nothing is lost.
#
# usage: scripts/scale.sh segworker|gateway N [--wait SECONDS]
#   --wait   how long to wait until all are healthy (default 180)
#
# Exit status: 0 done, 1 they did not get healthy in time, 2 usage.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/compose.sh
. "$(dirname "$0")/lib/compose.sh"

wait=180
case ${1:-} in -h | --help) print_help "$0"; exit 0 ;; esac
service=${1:-} count=${2:-}
if [ "${3:-}" = --wait ]; then wait=${4:-}; fi
if [[ ! $service =~ ^(segworker|gateway)$ || ! $count =~ ^[0-9]{1,4}$ || ! $wait =~ ^[0-9]+$ ]]; then
    print_help "$0" >&2
    exit 2
fi
[ "$service" = segworker ] || [ "$count" -gt 0 ] || die "without a gateway nobody is served; use docker-compose stop to stop everything"
need_docker
# --scale names one service; the others keep their number, which up would else set back to 1.
others=()
for other in gateway segworker; do
    if [ "$other" != "$service" ]; then
        running=$(containers "$other" | grep -c . || true)
        others+=(--scale "$other=$running")
    fi
done
say "$service: $(containers "$service" | grep -c . || true) -> $count"
compose up -d --no-deps --no-recreate --scale "$service=$count" "${others[@]}" "$service" >/dev/null
end=$((SECONDS + wait))
while :; do
    well=0
    for id in $(containers "$service"); do
        if [ "$(health_of "$id")" = healthy ]; then well=$((well + 1)); fi
    done
    if [ "$well" -eq "$count" ]; then break; fi
    [ $SECONDS -lt $end ] || die "$well of $count are healthy after $wait s; scripts/logs.sh $service shows why"
    sleep 1
done
say "$count healthy"
