# shellcheck shell=bash
# What the blue-green scripts share: which colour serves, how traffic is switched, where things are noted. Source it after
# common.sh and compose.sh; it runs nothing by itself.
#
# The truth about who serves is the file that nginx reads (active/gateway.conf); the state file beside it tells how far a
# deployment got. Both are written under another name and renamed, so a kill leaves the old one or the new one.

DEPLOY_DIR=${DEPLOY_DIR:-$REPO_ROOT/logs/deployment}
ACTIVE_FILE=$DEPLOY_DIR/active/gateway.conf
STATE_FILE=$DEPLOY_DIR/state
MAIN_PROJECT=$(setting COMPOSE_PROJECT_NAME spheroseg)
export MAIN_PROJECT

# write_atomically FILE MODE: stdin becomes FILE.
write_atomically() {
    local new=$1.new.$$
    cat >"$new" && chmod "$2" "$new" && sync "$new" && mv "$new" "$1"
}

# The name that nginx sends people to: gateway (no colour yet), gateway-blue or gateway-green.
# shellcheck disable=SC2016  # nginx's variable, not ours
active_name() { sed -n 's/^set \$gateway \([a-z-]*\);$/\1/p' "$ACTIVE_FILE" 2>/dev/null; }
# blue, green, or none.
active_colour() {
    case $(active_name) in
        gateway-blue) echo blue ;;
        gateway-green) echo green ;;
        *) echo none ;;
    esac
}
other_colour() { if [ "$(active_colour)" = blue ]; then echo green; else echo blue; fi; }

prepare_deploy_dir() {
    mkdir -p "$DEPLOY_DIR/active"
    if [ ! -s "$ACTIVE_FILE" ]; then
        # shellcheck disable=SC2016  # nginx's variable, not ours
        printf 'set $gateway gateway;\n' | write_atomically "$ACTIVE_FILE" 644
    fi
}

# state NAME: a value of the state file.  note NAME VALUE…: sets values there.
state() { sed -n "s/^$1=//p" "$STATE_FILE" 2>/dev/null | tail -n 1; }
note() {
    local lines
    lines=$(cat "$STATE_FILE" 2>/dev/null || true)
    while [ $# -gt 0 ]; do
        lines=$(printf '%s\n' "$lines" | grep -v "^$1=" || true)
        lines+=$'\n'"$1=$2"
        shift 2
    done
    printf '%s\n' "$lines" | sed '/^$/d' | write_atomically "$STATE_FILE" 600
}

# colour_compose COLOUR VERSION ARGS…: compose in the project of a colour.
colour_compose() {
    local colour=$1 version=$2
    shift 2
    (
        export COLOUR=$colour VERSION=$version COMPOSE_PROJECT_NAME=$MAIN_PROJECT-$colour
        export COMPOSE_FILE=compose/docker-compose.yml:compose/docker-compose.colour.yml
        case $(setting COMPOSE_FILE) in *docker-compose.gpu.yml*) COMPOSE_FILE+=:compose/docker-compose.gpu.yml ;; esac
        case $(setting COMPOSE_FILE) in *docker-compose.s3.yml*) COMPOSE_FILE+=:compose/docker-compose.s3.yml ;; esac
        compose "$@"
    )
}
# colour_ids COLOUR SERVICE [all]: ids of a colour's containers; all: stopped ones too.
colour_ids() {
    docker ps ${3:+-a} -q --filter "label=com.docker.compose.project=$MAIN_PROJECT-$1" \
        --filter "label=com.docker.compose.service=$2" --filter "label=com.docker.compose.oneoff=False"
}
# main_ids SERVICE: those of the main project (the servers, nginx, and gateways from before the first deployment).
main_ids() {
    docker ps -q --filter "label=com.docker.compose.project=$MAIN_PROJECT" --filter "label=com.docker.compose.service=$1" \
        --filter "label=com.docker.compose.oneoff=False"
}
nginx_id() { main_ids nginx | sed -n 1p; }

# nginx_follows: is the file that we write the one that nginx reads?
nginx_follows() {
    [ "$(docker exec "$(nginx_id)" cat /etc/spheroseg-active/gateway.conf 2>/dev/null)" = "$(cat "$ACTIVE_FILE")" ]
}
reload_nginx() {
    docker exec "$(nginx_id)" nginx -t -q -c /run/nginx/nginx.conf 2>&1 && docker kill -s HUP "$(nginx_id)" >/dev/null
}
# switch_to NAME: sends people to another name. On failure the old one is put back.
switch_to() {
    local before
    before=$(cat "$ACTIVE_FILE")
    # shellcheck disable=SC2016  # nginx's variable, not ours
    printf 'set $gateway %s;\n' "$1" | write_atomically "$ACTIVE_FILE" 644
    if ! reload_nginx; then
        printf '%s\n' "$before" | write_atomically "$ACTIVE_FILE" 644
        reload_nginx || true
        return 1
    fi
}

# all_ready SECONDS ID…: gateways that say themselves that they are ready; sooner known than by Docker's own health check,
# which looks every ten seconds only.
all_ready() {
    local end=$((SECONDS + $1)) id
    shift
    for id in "$@"; do
        until docker exec "$id" spheroseg-gateway health ready >/dev/null 2>&1; do
            [ $SECONDS -lt "$end" ] || return 1
            sleep 0.1
        done
    done
}

# beat NAME ID: an image goes through the whole system, over the gateways of that name, from inside a container of theirs.
beat() {
    docker exec -e HEARTBEAT_URL="https://$1:8443" -e HEARTBEAT_CA=/run/spheroseg/app/internal-ca.crt \
        -e HEARTBEAT_PASSWORD_FILE=/run/spheroseg/app/heartbeat_password -e METRICS_PORT=0 \
        -e HEARTBEAT_INTERVAL="${3:-60}" "$2" spheroseg-gateway heartbeat --once
}

take_lock() {
    exec 9>"$DEPLOY_DIR/lock"
    flock -n 9 || die "another deployment is under way (its log is in $DEPLOY_DIR); wait for it"
}
