#!/bin/sh
# Installs the packages that a file lists, and further ones, and leaves nothing behind that the daemons do not need.
#
# usage: install-packages.sh LIST [PACKAGE...]
set -eu
list=$1
shift
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2046  # one word a package
apt-get install -qq -y --no-install-recommends "$@" $(cat "$list") >/dev/null
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log "$list" \
    /usr/share/doc/*/changelog* /usr/share/man /usr/share/locale
