#!/usr/bin/env bash
# Replaces gateways and workers one after the other by those of another version, while everything goes on: a new container
# starts, gets healthy, and an old one stops (requests end first, jobs are handed back first).
#
# usage: scripts/rolling-update.sh VERSION [gateway|segworker...] [--wait SECONDS]
#   VERSION   tag of the images; it must be there, or in a registry that can be reached
#   --wait    how long a new container may take to get healthy (default 180)
#
# The database is not migrated backwards: a version may be one step older or newer than its neighbours. If a new container
# does not get healthy it is removed again and the rest stays as it was.
# Exit status: 0 done, 1 stopped half-way (the old version serves on), 2 usage.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/compose.sh
. "$(dirname "$0")/lib/compose.sh"

wait=180 version='' services=()
while [ $# -gt 0 ]; do
    case $1 in
        --wait) wait=${2:?--wait needs seconds}; shift ;;
        -h | --help) print_help "$0"; exit 0 ;;
        -*) print_help "$0" >&2; exit 2 ;;
        gateway | segworker) services+=("$1") ;;
        *) [ -z "$version" ] || { print_help "$0" >&2; exit 2; }; version=$1 ;;
    esac
    shift
done
[[ $version =~ ^[A-Za-z0-9_][A-Za-z0-9._-]*$ && $wait =~ ^[0-9]+$ ]] || { print_help "$0" >&2; exit 2; }
[ ${#services[@]} -gt 0 ] || services=(gateway segworker)
need_docker
export VERSION=$version

# numbers: --scale words for both services, with $1 set to $2 and the other as it is.
numbers() {
    local service
    for service in gateway segworker; do
        if [ "$service" = "$1" ]; then
            printf -- '--scale %s=%s ' "$service" "$2"
        else
            printf -- '--scale %s=%s ' "$service" "$(containers "$service" | grep -c . || true)"
        fi
    done
}
update() {
    local service=$1 image old new count
    image=$(compose config | awk -v s="  $service:" '$0 == s { on = 1 } on && $1 == "image:" && !found++ { print $2 }')
    docker image inspect "$image" >/dev/null 2>&1 || docker pull -q "$image" >/dev/null 2>&1 ||
        die "the image $image is neither here nor in its registry"
    mapfile -t old < <(containers "$service")
    count=${#old[@]}
    [ "$count" -gt 0 ] || die "no $service runs: start the system first (docker-compose up -d)"
    local id
    for id in "${old[@]}"; do
        # One more than there are, of the new version; the others are not touched.
        # shellcheck disable=SC2046  # several words
        compose up -d --no-deps --no-recreate --no-build $(numbers "$service" $((count + 1))) "$service" >/dev/null 2>&1 ||
            die "a new $service could not be started; the old ones serve on"
        new=$(containers "$service" | { grep -vxF -f <(printf '%s\n' "${kept[@]:-none}" "${old[@]}") || true; } | sed -n 1p)
        [ -n "$new" ] || die "a new $service could not be found"
        if ! all_healthy "$wait" "$new"; then
            docker logs --tail 5 "$new" >&2 || true
            docker rm -f "$new" >/dev/null
            die "the new $service did not get healthy and was removed; the old ones serve on"
        fi
        kept+=("$new")
        say "$service: $(docker inspect -f '{{.Name}}' "$new" | tr -d /) is healthy; stopping $(docker inspect -f '{{.Name}}' "$id" | tr -d /)"
        docker stop -t 60 "$id" >/dev/null
        docker rm "$id" >/dev/null
    done
}
kept=()
for service in "${services[@]}"; do
    update "$service"
done
say "${services[*]}: version $version"
