#!/usr/bin/env bash
# Makes the images that the compose files stand on, from Debian's packages, where no registry can be reached.
#
# usage: tests/ops/base-images.sh [NAME...]
#   NAME   debian, postgres, redis, nginx, prometheus, alertmanager, node_exporter, postgres_exporter, redis_exporter
#          (default: all that are missing)
#
# They carry the official names and tags and take the same variables, files and ports as far as the compose files use
# them; nothing that is pulled later is overwritten by it. The packages come from where this computer takes its own:
# its apt sources, and the certificates that its administrator has added. Needs root, debootstrap and a Docker engine.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../../scripts/lib/common.sh
. "$(dirname "$0")/../../scripts/lib/common.sh"
here=$REPO_ROOT/tests/ops/images

case ${1:-} in -h | --help) print_help "$0"; exit 0 ;; esac
# tag_of NAME: the tag that the compose files name, ${NAME_IMAGE:-tag}.
tag_of() { sed -n "s/.*\\\${${1^^}_IMAGE:-\([^}]*\)}.*/\1/p" "$REPO_ROOT"/compose/*.yml | sed -n 1p; }
declare -A tags=([debian]=debian:bookworm-slim)
others=(postgres redis nginx prometheus alertmanager node_exporter postgres_exporter redis_exporter)
for name in "${others[@]}"; do tags[$name]=$(tag_of "$name"); done

have() { docker image inspect "$1" >/dev/null 2>&1; }

make_debian() {
    local root
    root=$(mktemp -d)
    # shellcheck disable=SC2064  # now, not later
    trap "rm -rf '$root'" RETURN
    say "debootstrap"
    debootstrap --variant=minbase bookworm "$root/debian" >"$root/log" 2>&1 || { tail -n 5 "$root/log" >&2; return 1; }
    cp /etc/apt/apt.conf.d/*proxy* "$root/debian/etc/apt/apt.conf.d/" 2>/dev/null || true
    local changes=()
    if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
        # A company's own certificates: for apt and npm while images are built.
        mkdir -p "$root/debian/usr/local/share/ca-certificates" "$root/debian/etc/ssl/certs"
        cp /usr/local/share/ca-certificates/*.crt "$root/debian/usr/local/share/ca-certificates/"
        cp -L /etc/ssl/certs/ca-certificates.crt "$root/debian/etc/ssl/certs/"
        changes=(--change "ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt")
    fi
    rm -rf "$root"/debian/var/lib/apt/lists/* "$root"/debian/var/cache/apt/* "$root"/debian/usr/share/{doc,man,locale}
    mkdir -p "$root/debian/var/cache/apt/archives/partial" "$root/debian/var/lib/apt/lists/partial"
    tar -C "$root/debian" -c . | docker import "${changes[@]}" --change 'CMD ["bash"]' - "${tags[debian]}" >/dev/null
}

[ $# -gt 0 ] || set -- debian "${others[@]}"
for name in "$@"; do
    tag=${tags[$name]:-}
    [ -n "$tag" ] || die "there is no image $name"
    if have "$tag"; then
        continue
    fi
    if [ "$name" = debian ]; then
        make_debian
    else
        have "${tags[debian]}" || make_debian
        say "building a stand-in for $tag"
        docker build -q -t "$tag" "$here/$name" >/dev/null
    fi
done
