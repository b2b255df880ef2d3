#!/usr/bin/env bash
# Installs what is missing, builds everything, and runs all the tests on this computer.
#
# usage: scripts/test.sh [--no-install] [SUITE...]
#   --no-install   do not look for missing packages
#   SUITE          only these: scripts unit unit-sanitized ui integration integration-sanitized formats
#                  formats-sanitized model chaos bench ops e2e
#
# The servers that the tests need are private ones on loopback; nothing of yours is touched.
# Ends with "N passed, N failed, N skipped". Exit status: 0 nothing failed, 1 something did, 2 usage.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

install=true
suites=()
for arg in "$@"; do
    case $arg in
        --no-install) install=false ;;
        -h | --help) print_help "$0"; exit 0 ;;
        -*) print_help "$0" >&2; exit 2 ;;
        *) suites+=("$arg") ;;
    esac
done
cd "$REPO_ROOT"
if $install; then
    scripts/install-deps.sh --build --run --test
fi
started=$SECONDS
jobs=$(nproc)
say "building"
make -s -j"$jobs" all ui unit-programs format-programs
say "building with the address and undefined-behaviour sanitizers"
make -s -j"$jobs" BUILD=build-asan SAN=address,undefined OPT="-O1 -g" all unit-programs format-programs
say "built in $((SECONDS - started)) s; testing"
/usr/bin/python3 tests/run_all.py "${suites[@]}"
