#!/usr/bin/env bash
# Looks whether a colour does its work: containers, an image through its own gateways, the same outlines from its workers as
# from those of the other colour, and an image over the address that people use when it is the one that serves.
#
# usage: scripts/post-deployment-verify.sh blue|green
# Exit status: 0 all well, 1 something is not, 2 usage.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/compose.sh
. "$(dirname "$0")/lib/compose.sh"
# shellcheck source-path=SCRIPTDIR source=lib/deploy.sh
. "$(dirname "$0")/lib/deploy.sh"

case ${1:-} in
    blue | green) colour=$1 ;;
    -h | --help) print_help "$0"; exit 0 ;;
    *) print_help "$0" >&2; exit 2 ;;
esac
need_docker
mapfile -t gateways < <(colour_ids "$colour" gateway)
mapfile -t workers < <(colour_ids "$colour" segworker)
if [ ${#gateways[@]} -eq 0 ] || [ ${#workers[@]} -eq 0 ]; then die "$colour does not run"; fi
all_healthy 5 "${gateways[@]}" "${workers[@]}" || die "not every container of $colour is healthy; docker ps shows which"
say "$colour: ${#gateways[@]} gateways and ${#workers[@]} workers are healthy"
beat "gateway-$colour" "${gateways[0]}" >&2 || die "an image did not get through the gateways of $colour; the lines above name the step"
say "$colour: an image went through its gateways"

# The same image by a worker of this colour and one of the other: byte for byte the same outlines, unless the models differ.
outlines() { # outlines ID: GeoJSON
    # shellcheck disable=SC2016  # expanded in the container
    docker exec -i "$1" sh -c 'cat >/tmp/verify.png && segworker run --quiet --model "$1" /tmp/verify.png -o /tmp/verify.geojson &&
        cat /tmp/verify.geojson; status=$?; rm -f /tmp/verify.*; exit $status' sh "$(setting HEARTBEAT_MODEL nuclei)" <"$picture"
}
picture=$REPO_ROOT/compose/verify.png
mine=$(outlines "${workers[0]}") || die "a worker of $colour could not segment the test image"
count=$(printf '%s' "$mine" | grep -o '"type": *"Feature"' | wc -l)
[ "$count" -gt 0 ] || die "a worker of $colour found nothing in the test image"
if [ "$colour" = blue ]; then other=green; else other=blue; fi
reference=$(colour_ids $other segworker | sed -n 1p)
[ -n "$reference" ] || reference=$(main_ids segworker | sed -n 1p)
if [ -z "$reference" ]; then
    say "$colour: $count outlines; nobody else runs to compare with"
elif theirs=$(outlines "$reference") && [ "$theirs" = "$mine" ]; then
    say "$colour: $count outlines, the same as from the other workers"
elif [ "$(docker exec "${workers[0]}" segworker models 2>/dev/null)" != "$(docker exec "$reference" segworker models 2>/dev/null)" ]; then
    warn "$colour: $count outlines, other ones than before, as its models are others"
else
    die "$colour draws other outlines than before although its models are the same"
fi
if [ "$(active_colour)" = "$colour" ]; then
    beat nginx "${gateways[0]}" >&2 || die "an image did not get through nginx"
    say "$colour: an image went the way of people, through nginx"
fi
