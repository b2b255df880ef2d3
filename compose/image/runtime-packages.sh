#!/bin/sh
# Prints the Debian packages that own the shared libraries of a binary, one a line.
#
# usage: runtime-packages.sh [--except DIR] BINARY...
#   --except DIR   libraries below DIR come with the binary, not in packages
# Exit status: 0, or 1 when a library is missing or belongs to no package.
set -eu
except=/nonexistent
if [ "${1:-}" = --except ] && [ $# -gt 1 ]; then
    except=$2
    shift 2
fi
[ $# -gt 0 ] || { echo "usage: runtime-packages.sh [--except DIR] BINARY..." >&2; exit 2; }
libraries=$(ldd "$@")
if printf '%s\n' "$libraries" | grep -q 'not found'; then
    printf '%s\n' "$libraries" | grep 'not found' >&2
    exit 1
fi
owners=$(printf '%s\n' "$libraries" | awk -v except="$except/" '$2 == "=>" && $3 ~ /^\// && index($3, except) != 1 { print $3 }' | sort -u | while read -r path; do
    # dpkg knows a file by the path it was installed under; on a merged /usr that may be either form.
    real=$(readlink -f "$path")
    dpkg-query -S "$real" 2>/dev/null || dpkg-query -S "${real#/usr}" 2>/dev/null || dpkg-query -S "$path" || {
        echo "runtime-packages.sh: no package owns $path" >&2
        exit 1
    }
done)
printf '%s\n' "$owners" | cut -d: -f1 | sort -u
