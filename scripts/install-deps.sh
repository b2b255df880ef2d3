#!/usr/bin/env bash
# Installs the packages of Debian 12 or 13 that Spheroseg needs; does nothing when they are there.
#
# usage: scripts/install-deps.sh [--build] [--run] [--test] [--lint] [--dry-run]
#   --build    compilers, libraries and Node to build the daemons and the UI (default, with --run)
#   --run      PostgreSQL, Redis and the shared libraries of the daemons
#   --test     what the test suite needs besides: cmocka, pytest, Chromium, promtool, amtool, bats, shellcheck
#   --lint     clang-tidy, cppcheck, shellcheck, clang-format
#   --dry-run  only print what is missing
#
# PostgreSQL, Redis and Prometheus are installed without starting or enabling their system services:
# Spheroseg starts private ones. Exit status: 0 all there, 1 could not install, 2 usage.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

BUILD_PACKAGES=(gcc g++ make pkg-config libc6-dev libcivetweb-dev libpq-dev libhiredis-dev libcjson-dev libtorch-dev
    libexpat1-dev libtiff-dev libssl-dev libjpeg62-turbo-dev libpng-dev libwebp-dev libgif-dev libargon2-dev
    libjwt-dev libcurl4-openssl-dev libyaml-dev zlib1g-dev git)
# What Debian calls PostgreSQL depends on its release; the rest has the same names in Debian 12 and 13.
debian=$(. /etc/os-release 2>/dev/null && echo "${VERSION_ID:-}") || debian=''
case $debian in
    13 | 13.*) postgresql="postgresql-17" ;;
    *) postgresql="postgresql-15" ;;
esac
RUN_PACKAGES=("$postgresql" redis-server openssl ca-certificates util-linux procps)
TEST_PACKAGES=(libcmocka-dev python3 python3-pytest python3-pytest-xdist python3-psycopg2 python3-numpy python3-pil python3-tifffile python3-torch
    python3-skimage python3-opencv
    python3-yaml python3-jsonschema chromium fonts-liberation curl libfaketime wrk spin
    prometheus prometheus-alertmanager bats shellcheck)
LINT_PACKAGES=(clang-tidy cppcheck shellcheck clang-format)

want=()
dry_run=false
need_node=false
add_build() { want+=("${BUILD_PACKAGES[@]}"); need_node=true; }
for arg in "$@"; do
    case $arg in
        --build) add_build ;;
        --run) want+=("${RUN_PACKAGES[@]}") ;;
        --test) want+=("${TEST_PACKAGES[@]}") ;;
        --lint) want+=("${LINT_PACKAGES[@]}") ;;
        --dry-run) dry_run=true ;;
        -h | --help) print_help "$0"; exit 0 ;;
        *) print_help "$0" >&2; exit 2 ;;
    esac
done
if [ ${#want[@]} -eq 0 ]; then
    add_build
    want+=("${RUN_PACKAGES[@]}")
fi
# A Node that did not come from Debian's packages serves as well.
if $need_node && ! { command -v node && command -v npm; } >/dev/null 2>&1; then
    want+=(nodejs npm)
fi

command -v dpkg-query >/dev/null 2>&1 || die "this script knows Debian's packages only; install by hand: ${want[*]}"
missing=()
for package in "${want[@]}"; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
if $dry_run; then
    printf '%s\n' "${missing[@]}"
    exit 0
fi

say "installing ${#missing[@]} packages: ${missing[*]}"
# No service may start by itself while we install; an existing policy of the machine is left alone.
policy=/usr/sbin/policy-rc.d
made_policy=false
if [ ! -e $policy ]; then
    made_policy=true
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod 755 $policy
fi
cleanup() { if $made_policy; then as_root rm -f $policy; fi; }
trap cleanup EXIT

new_services=()
for service in postgresql redis-server prometheus prometheus-alertmanager; do
    case " ${missing[*]} " in *" $service"*) new_services+=("$service") ;; esac
done
if [[ " ${missing[*]} " == *" $postgresql "* && ! -e /etc/postgresql-common/createcluster.conf ]]; then
    as_root mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
fi
apt_env=(env DEBIAN_FRONTEND=noninteractive)
apt_options=(-y --no-install-recommends -o Dpkg::Options::=--force-confold -o Acquire::Retries=3)
as_root "${apt_env[@]}" apt-get update -qq || die "could not read the package lists; is the network up?"
as_root "${apt_env[@]}" apt-get install -qq "${apt_options[@]}" "${missing[@]}" >/dev/null ||
    die "could not install the packages above; run: apt-get install ${missing[*]}"
if [ ${#new_services[@]} -gt 0 ] && [ -d /run/systemd/system ]; then
    as_root systemctl disable --quiet "${new_services[@]}" 2>/dev/null || true
fi
