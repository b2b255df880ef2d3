# shellcheck shell=bash
# Talking to the containers. Source it after common.sh; it runs nothing by itself.
#
# SPHEROSEG_ENV_FILE names the settings (default .env.production at the top, else .env, which is the local system).

if [ -z "${SPHEROSEG_ENV_FILE:-}" ]; then
    if [ -f "$REPO_ROOT/.env.production" ]; then
        SPHEROSEG_ENV_FILE=$REPO_ROOT/.env.production
    else
        SPHEROSEG_ENV_FILE=$REPO_ROOT/.env
    fi
fi

# compose ARGS…: Compose v2 where it is there, else docker-compose 1.29; always from the top of the repository.
compose() {
    if docker compose version >/dev/null 2>&1; then
        (cd "$REPO_ROOT" && docker compose --env-file "$SPHEROSEG_ENV_FILE" "$@")
    elif command -v docker-compose >/dev/null 2>&1; then
        # 1.29 takes COMPOSE_FILE from its own environment only, not from another env file.
        (cd "$REPO_ROOT" && COMPOSE_FILE=$(setting COMPOSE_FILE compose/docker-compose.yml) \
            COMPOSE_PROJECT_NAME=$(setting COMPOSE_PROJECT_NAME spheroseg) \
            docker-compose --env-file "$SPHEROSEG_ENV_FILE" "$@")
    else
        die "neither docker compose nor docker-compose is installed"
    fi
}

# setting NAME [DEFAULT]: a value from the environment, or the settings file.
setting() {
    local value=${!1:-}
    if [ -z "$value" ]; then
        value=$(sed -n "s/^$1=//p" "$SPHEROSEG_ENV_FILE" 2>/dev/null | tail -n 1)
    fi
    printf '%s' "${value:-${2:-}}"
}

need_docker() {
    command -v docker >/dev/null 2>&1 || die "docker is not installed"
    docker info >/dev/null 2>&1 || die "the Docker engine does not answer: is it running, and may you use it?"
}

# containers SERVICE: ids of its running containers.
containers() { compose ps -q "$1" 2>/dev/null; }

# health_of ID: healthy, unhealthy, starting, or the state of a container without a health check.
health_of() {
    docker inspect -f '{{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}}' "$1" 2>/dev/null || echo gone
}

# all_healthy SECONDS ID…
all_healthy() {
    local end=$((SECONDS + $1)) id state waiting
    shift
    while :; do
        waiting=0
        for id in "$@"; do
            state=$(health_of "$id")
            case $state in
                healthy) ;;
                exited | dead | gone) return 1 ;;
                *) waiting=1 ;;
            esac
        done
        [ $waiting -eq 1 ] || return 0
        [ $SECONDS -lt "$end" ] || return 1
        sleep 0.2
    done
}
