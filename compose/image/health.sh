#!/bin/bash
# Asks the daemon of this container how it is: health.sh [live|ready]. Exit status: 0 well, 1 not.
#
# The worker has a command for it as well (segworker health), but that loads the whole of libtorch to send one line: half a
# second of a core every ten seconds, and too late on a machine that is busy. bash can do it alone.
set -eu
exec 3<>"/dev/tcp/127.0.0.1/${METRICS_PORT:-9464}"
printf 'GET /%s HTTP/1.0\r\nHost: localhost\r\n\r\n' "${1:-ready}" >&3
read -r -t 4 _ status _ <&3
[ "$status" = 200 ]
