#!/usr/bin/env bash
# Replaces secrets by new ones in a running system, one after the other.
#
# usage: scripts/rotate-secrets.sh [--dry-run] [--wait SECONDS] postgres|redis|jwt|grafana|heartbeat...
#   postgres    password of the database; a new connection may be refused for the seconds of the change, requests try again
#   redis       passwords of the daemons and of the administrator; nothing is refused
#   jwt         the key of access tokens; who is signed in gets a new token by the refresh token, without noticing
#   grafana     password of Grafana's administrator
#   heartbeat   password of the account that sends the test image of each minute
#   --dry-run   only say what would be done
#   --wait      how long new containers may take to get healthy (default 180)
#
# The new value goes into SECRETS_DIR, from there into the containers, and what uses it is replaced one by one. The old value is
# kept as NAME.old until all is done; if a step fails it is put back everywhere.
# Exit status: 0 done, 1 failed (the message says which secret holds), 2 usage.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/compose.sh
. "$(dirname "$0")/lib/compose.sh"

dry_run=false wait=180 names=()
while [ $# -gt 0 ]; do
    case $1 in
        --dry-run) dry_run=true ;;
        --wait) wait=${2:-}; shift ;;
        -h | --help) print_help "$0"; exit 0 ;;
        postgres | redis | jwt | grafana | heartbeat) names+=("$1") ;;
        *) print_help "$0" >&2; exit 2 ;;
    esac
    shift || true
done
if [ ${#names[@]} -eq 0 ] || ! [[ $wait =~ ^[0-9]+$ ]]; then
    print_help "$0" >&2
    exit 2
fi
dir=$(setting SECRETS_DIR)
[ -d "${dir:-/nonexistent}" ] || die "SECRETS_DIR names no folder: scripts/create-secrets.sh makes one"
[ -w "$dir" ] || die "cannot write to $dir: run it as root"
if $dry_run; then
    for name in "${names[@]}"; do say "would replace the secret \"$name\" in $dir and in what uses it"; done
    exit 0
fi
need_docker
version=$(setting VERSION latest)

one() { containers "$1" | sed -n 1p; }
# new_value FILE BYTES: FILE.old keeps what was; FILE is new.
new_value() {
    (
        umask 077
        [ ! -s "$dir/$1" ] || cp -p "$dir/$1" "$dir/$1.old"
        random_word "$2" >"$dir/$1.new"
        mv "$dir/$1.new" "$dir/$1"
    )
}
put_back() { for file in "$@"; do if [ -e "$dir/$file.old" ]; then mv "$dir/$file.old" "$dir/$file"; fi; done; }
forget() { for file in "$@"; do rm -f "$dir/$file.old"; done; }
# hand_out: what is in SECRETS_DIR goes to where the containers read it.
hand_out() { compose run --rm --no-deps secrets >/dev/null 2>&1; }
# renew SERVICE...: replaces what runs of these by containers that read the new secrets.
renew() {
    local service
    for service in "$@"; do
        [ -n "$(one "$service")" ] || continue
        case $service in
            gateway | segworker) "$REPO_ROOT/scripts/rolling-update.sh" "$version" "$service" --wait "$wait" || return 1 ;;
            *) compose restart -t 10 "$service" >/dev/null 2>&1 || return 1 ;;
        esac
    done
}
sql() { docker exec -i "$(one postgres)" psql -qAtX -v ON_ERROR_STOP=1 -U spheroseg -d spheroseg -h /var/run/postgresql >/dev/null; }
# Passwords go over stdin, so that no list of processes shows them. They are URL-safe words: nothing to quote.
database_password() { printf "ALTER ROLE spheroseg PASSWORD '%s';\n" "$1" | sql; }
# redis_admin PASSWORD: commands on stdin, as Redis's administrator.
redis_admin() {
    local commands answer
    commands=$(cat)
    answer=$(printf 'AUTH admin %s\n%s\n' "$1" "$commands" | docker exec -i "$(one redis)" redis-cli -h 127.0.0.1) || return 1
    [ "$(printf '%s\n' "$answer" | grep -cvx OK)" -eq 0 ]
}

rotate_postgres() {
    [ -n "$(one postgres)" ] || die "postgres does not run here: change the password where it does, then put it into $dir/postgres_password"
    new_value postgres_password 24
    if hand_out && database_password "$(cat "$dir/postgres_password")" && renew gateway segworker backup postgres-exporter heartbeat; then
        forget postgres_password
        return 0
    fi
    put_back postgres_password
    if ! database_password "$(cat "$dir/postgres_password")" || ! hand_out; then
        warn "the old password could not be put back: postgres and $dir/postgres_password may differ"
    fi
    return 1
}
rotate_redis() {
    local was admin
    [ -n "$(one redis)" ] || die "redis does not run here: change the password where it does, then put it into $dir/redis_password"
    was=$(cat "$dir/redis_admin_password")
    new_value redis_password 24
    new_value redis_admin_password 24
    admin=$(cat "$dir/redis_admin_password")
    # For a while the old and the new ones are right; ACL LOAD (the new list alone) ends that.
    if redis_admin "$was" <<<"ACL SETUSER spheroseg >$(cat "$dir/redis_password")
ACL SETUSER admin >$admin" && hand_out && renew gateway segworker redis-exporter heartbeat && redis_admin "$admin" <<<"ACL LOAD"; then
        forget redis_password redis_admin_password
        return 0
    fi
    put_back redis_password redis_admin_password
    if ! hand_out || ! redis_admin "$was" <<<"ACL LOAD"; then
        warn "the old passwords could not be put back: those in $dir hold after docker-compose restart redis"
    fi
    return 1
}
rotate_jwt() {
    new_value jwt_secret 48
    if hand_out && renew gateway; then
        forget jwt_secret
        return 0
    fi
    put_back jwt_secret
    hand_out
    return 1
}
rotate_grafana() {
    new_value grafana_password 18
    hand_out || { put_back grafana_password; return 1; }
    if [ -n "$(one grafana)" ]; then
        docker exec -i "$(one grafana)" sh -c 'grafana cli admin reset-admin-password --password-from-stdin' <"$dir/grafana_password" >/dev/null ||
            { put_back grafana_password; hand_out; return 1; }
    else
        say "grafana does not run; it takes the password at its first start"
    fi
    forget grafana_password
}
rotate_heartbeat() {
    new_value heartbeat_password 24
    # The account is made anew with the new password when the heartbeat starts; it owns nothing that anybody misses.
    if hand_out && printf "DELETE FROM users WHERE email = '%s';\n" "$(setting HEARTBEAT_EMAIL heartbeat@spheroseg.local)" | sql && renew heartbeat; then
        forget heartbeat_password
        return 0
    fi
    put_back heartbeat_password
    hand_out
    return 1
}

for name in "${names[@]}"; do
    say "$name"
    "rotate_$name" || die "$name was not replaced; the old secret holds, and what ran with it runs"
done
say "replaced: ${names[*]}"
