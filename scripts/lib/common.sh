# shellcheck shell=bash
# Helpers that the scripts share. Source it; it runs nothing by itself.
#
# Nothing at the end of a pipe stops reading early (head -n 1, grep -q, awk's exit): under pipefail the writer's SIGPIPE would
# end a script, now and then. sed -n 1p reads to the end.

REPO_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export REPO_ROOT

if [ -t 2 ]; then
    _bold=$'\033[1m' _red=$'\033[31m' _reset=$'\033[0m'
else
    _bold='' _red='' _reset=''
fi

say() { printf '%s\n' "${_bold}==>${_reset} $*" >&2; }
warn() { printf '%s\n' "${_red}warning:${_reset} $*" >&2; }
die() {
    printf '%s\n' "${_red}error:${_reset} $*" >&2
    exit 1
}

# Prints the header comment of a script (everything up to the first line that is no comment) as its help.
print_help() {
    awk 'NR == 1 { next } /^#/ { sub(/^# ?/, ""); print; next } { exit }' "$1"
}

# Runs a command as root, through sudo when we are not.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        die "this step needs root: install sudo or run as root: $*"
    fi
}

# Prints a free TCP port on 127.0.0.1, starting the search at $1.
free_port() {
    local port=$1
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        port=$((port + 1))
    done
    printf '%s\n' "$port"
}

# wait_for SECONDS WHAT COMMAND...: runs COMMAND every 0.1 s until it succeeds.
wait_for() {
    local seconds=$1 what=$2
    shift 2
    local tries=$((seconds * 10))
    while [ "$tries" -gt 0 ]; do
        if "$@" >/dev/null 2>&1; then
            return 0
        fi
        sleep 0.1
        tries=$((tries - 1))
    done
    die "$what did not come up within $seconds seconds"
}

# random_word BYTES: URL-safe random text.
random_word() {
    head -c "$1" /dev/urandom | base64 | tr -d '=\n' | tr '+/' '-_'
}
