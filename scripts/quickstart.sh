#!/usr/bin/env bash
# Starts Spheroseg on this computer: installs what is missing, builds, starts a private PostgreSQL and Redis on
# loopback, migrates, starts the gateway and the workers, and prints the address and a demo login.
# Ctrl-C stops everything. The data stays and is there at the next start.
#
# usage: scripts/quickstart.sh [--workers N] [--port P] [--no-install] [--no-build] [--no-demo]
#   --workers N    segmentation workers to start (default 1)
#   --port P       HTTPS port to try first (default 8443)
#   --no-install   do not look for missing packages
#   --no-build     use what was built before
#   --no-demo      do not make the demo account
#
# SPHEROSEG_HOME names the data directory (default /var/lib/spheroseg as root, else ~/.local/share/spheroseg).
# Every setting of `build/gateway --help` and `build/segworker --help` may be given in the environment.
# Exit status: 0 stopped by Ctrl-C or SIGTERM, 1 something failed (the last lines say what), 2 usage.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

workers=1 port=8443 install=true build=true demo=true
while [ $# -gt 0 ]; do
    case $1 in
        --workers) workers=${2:?--workers needs a number}; shift ;;
        --port) port=${2:?--port needs a number}; shift ;;
        --no-install) install=false ;;
        --no-build) build=false ;;
        --no-demo) demo=false ;;
        -h | --help) print_help "$0"; exit 0 ;;
        *) print_help "$0" >&2; exit 2 ;;
    esac
    shift
done
[[ $workers =~ ^[0-9]+$ && $port =~ ^[0-9]+$ ]] || die "--workers and --port take numbers"

if [ "$(id -u)" -eq 0 ]; then
    home=${SPHEROSEG_HOME:-/var/lib/spheroseg}
else
    home=${SPHEROSEG_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/spheroseg}
fi
cd "$REPO_ROOT"

if $install; then
    scripts/install-deps.sh --build --run
fi
build_log=build/quickstart.log
mkdir -p build
if $build; then
    say "building (the first time takes a minute or two)"
    make -s -j"$(nproc)" all ui >"$build_log" 2>&1 || {
        tail -n 30 "$build_log" >&2
        die "the build failed; the whole output is $build_log"
    }
fi
for binary in build/gateway build/segworker; do
    [ -x $binary ] || die "$binary is missing: run without --no-build"
done

# One instance per data directory: the lock is held as long as this script lives.
mkdir -p "$home"
chmod 755 "$home"
home=$(cd "$home" && pwd)
exec 9>"$home/lock"
flock -n 9 || die "Spheroseg already runs with the data in $home; stop it first or set SPHEROSEG_HOME"

log_dir=$home/logs
mkdir -p "$log_dir" "$home/storage" "$home/redis"
# Secrets are made once and readable by their owner only.
(
    umask 077
    mkdir -p "$home/secrets"
    for name in postgres redis jwt demo; do
        [ -s "$home/secrets/$name" ] || random_word 24 >"$home/secrets/$name"
    done
    [ "$(wc -c <"$home/secrets/jwt")" -ge 43 ] || random_word 48 >"$home/secrets/jwt"
)
pg_password=$(cat "$home/secrets/postgres")
redis_password=$(cat "$home/secrets/redis")

# PostgreSQL refuses to run as root, so root hands it to the postgres user.
pg_bin=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
[ -x "${pg_bin:-missing}/postgres" ] || die "PostgreSQL's server programs are missing: run scripts/install-deps.sh --run"
if [ "$(id -u)" -eq 0 ]; then
    pg_user=(setpriv --reuid=postgres --regid=postgres --init-groups)
else
    pg_user=()
fi
pg_data=$home/postgres
if [ ! -s "$pg_data/PG_VERSION" ]; then
    say "creating the database"
    mkdir -p "$pg_data"
    chmod 700 "$pg_data"
    password_file=$(mktemp)
    printf '%s\n' "$pg_password" >"$password_file"
    if [ "$(id -u)" -eq 0 ]; then chown postgres "$pg_data" "$password_file"; fi
    "${pg_user[@]}" "$pg_bin/initdb" -D "$pg_data" -U spheroseg -E UTF8 --locale=C.UTF-8 -A scram-sha-256 \
        --pwfile="$password_file" >"$log_dir/initdb.log" 2>&1 ||
        die "initdb failed; see $log_dir/initdb.log"
    rm -f "$password_file"
fi

pids=()
names=()
stopping=false
# Children run in sessions of their own, so that Ctrl-C reaches this script alone and it can stop them in order;
# pdeathsig ends them even if the script itself is killed.
start() { # start NAME COMMAND...
    local name=$1
    shift
    local as=()
    if [ "$name" = postgres ] && [ "$(id -u)" -eq 0 ]; then as=("${pg_user[@]:1}"); fi
    setsid setpriv "${as[@]}" --pdeathsig TERM "$@" >>"$log_dir/$name.log" 2>&1 9>&- &
    pids+=($!)
    names+=("$name")
}
# shellcheck disable=SC2317  # called by stop_all
wait_gone() {
    local tries=$(($2 * 20))
    while kill -0 "$1" 2>/dev/null && [ "$tries" -gt 0 ]; do
        sleep 0.05
        tries=$((tries - 1))
    done
    kill -KILL "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}
# shellcheck disable=SC2317  # called by the trap
stop_all() {
    local i signal
    $stopping && return
    stopping=true
    trap '' INT TERM
    if [ ${#pids[@]} -gt 0 ]; then say "stopping"; fi
    # Workers and gateway first, side by side; then what they stand on (SIGINT is PostgreSQL's fast shutdown).
    for ((i = ${#pids[@]} - 1; i >= 2; i--)); do kill -TERM "${pids[i]}" 2>/dev/null || true; done
    for ((i = ${#pids[@]} - 1; i >= 2; i--)); do wait_gone "${pids[i]}" 25; done
    for ((i = 0; i < 2 && i < ${#pids[@]}; i++)); do
        signal=TERM
        if [ "${names[i]}" = postgres ]; then signal=INT; fi
        kill "-$signal" "${pids[i]}" 2>/dev/null || true
        wait_gone "${pids[i]}" 25
    done
}
trap stop_all EXIT
trap 'exit 0' INT TERM

# check_alive: dies with the last lines of the log of a child that ended.
check_alive() {
    local i
    for i in "${!pids[@]}"; do
        if ! kill -0 "${pids[i]}" 2>/dev/null; then
            tail -n 5 "$log_dir/${names[i]}.log" >&2 || true
            die "${names[i]} stopped; the whole log is $log_dir/${names[i]}.log"
        fi
    done
}
# answers PORT PATH: does http://127.0.0.1:PORT/PATH answer 200?
answers() {
    local line
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&3
    IFS= read -r -t 5 line <&3 || line=''
    exec 3<&- 3>&-
    [[ $line == *" 200 "* ]]
}
# until_ready SECONDS WHAT COMMAND...: like wait_for, but ends as soon as a child died.
until_ready() {
    local seconds=$1 what=$2 tries
    shift 2
    tries=$((seconds * 10))
    until ("$@") >/dev/null 2>&1; do
        check_alive
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || die "$what did not come up within $seconds seconds; the logs are in $log_dir"
        sleep 0.1
    done
}

pg_port=$(free_port 5433)
redis_port=$(free_port 6380)
https_port=$(free_port "$port")
http_port=$(free_port "$((https_port + 1))")
metrics_port=$(free_port 9464)

say "starting"
start postgres "$pg_bin/postgres" -D "$pg_data" -p "$pg_port" -c listen_addresses=127.0.0.1 \
    -c unix_socket_directories= -c logging_collector=off
(
    umask 077
    printf '%s\n' "bind 127.0.0.1" "port $redis_port" "dir $home/redis" "appendonly yes" 'save ""' \
        "maxmemory-policy noeviction" "requirepass $redis_password" >"$home/secrets/redis.conf"
)
start redis redis-server "$home/secrets/redis.conf"

export DATABASE_URL="postgresql://spheroseg:$pg_password@127.0.0.1:$pg_port/postgres"
export REDIS_URL="redis://:$redis_password@127.0.0.1:$redis_port/0"
export STORAGE_DIR=$home/storage TLS_DIR=$home/tls JWT_SECRET_FILE=$home/secrets/jwt
export UI_DIR=$REPO_ROOT/build/ui MODELS_DIR=${MODELS_DIR:-$REPO_ROOT/segworker/models}
export MIGRATIONS_DIR=$REPO_ROOT/proto/sql

start gateway env HTTPS_PORT="$https_port" HTTP_PORT="$http_port" METRICS_PORT="$metrics_port" \
    LISTEN_HOST="${LISTEN_HOST:-127.0.0.1}" build/gateway
worker_ports=()
for ((n = 1; n <= workers; n++)); do
    worker_ports+=("$(free_port "$((metrics_port + n))")")
    # Workers share the cores: their threads together must not exceed them.
    threads=$(($(nproc) / workers))
    start "worker$n" env METRICS_PORT="${worker_ports[-1]}" \
        SEGWORKER_THREADS="${SEGWORKER_THREADS:-$((threads > 0 ? threads : 1))}" build/segworker
done
until_ready 60 "the gateway" answers "$metrics_port" /ready
for worker_port in "${worker_ports[@]}"; do
    until_ready 120 "a worker" answers "$worker_port" /ready
done

if $demo; then
    build/gateway user add demo@spheroseg.local --sample --if-missing <"$home/secrets/demo" >>"$log_dir/gateway.log" 2>&1 ||
        warn "the demo account could not be made; see $log_dir/gateway.log"
fi

cat <<READY

  Spheroseg is running.

    address   https://localhost:$https_port/
              (the certificate is this computer's own, so the browser asks once)
READY
if $demo; then
    printf '    login     demo@spheroseg.local\n    password  %s\n' "$(cat "$home/secrets/demo")"
fi
cat <<READY
    workers   $workers
    data      $home
    logs      $log_dir

  Ctrl-C stops it.

READY
while :; do
    sleep 1 &
    wait $! || true
    check_alive
done
