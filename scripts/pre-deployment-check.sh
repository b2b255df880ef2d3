#!/usr/bin/env bash
# Looks whether a deployment may begin, and changes nothing.
#
# usage: scripts/pre-deployment-check.sh VERSION
#
# Checks: engine, images of the version, settings, secrets and their permissions, disk, the running system's health, nginx's
# configuration, the newest backup. Every line says ok, note or FAIL and what to do.
# Exit status: 0 may begin, 1 must not, 2 usage.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/compose.sh
. "$(dirname "$0")/lib/compose.sh"
# shellcheck source-path=SCRIPTDIR source=lib/deploy.sh
. "$(dirname "$0")/lib/deploy.sh"

case ${1:-} in -h | --help) print_help "$0"; exit 0 ;; esac
version=${1:-}
[[ $# -eq 1 && $version =~ ^[A-Za-z0-9_][A-Za-z0-9._-]*$ ]] || { print_help "$0" >&2; exit 2; }
failed=0
ok() { printf 'ok    %s\n' "$*"; }
hint() { printf 'note  %s\n' "$*"; }
bad() {
    printf 'FAIL  %s\n' "$*"
    failed=$((failed + 1))
}

if ! docker info >/dev/null 2>&1; then
    bad "the Docker engine does not answer: is it running, and may you use it?"
    exit 1
fi
ok "Docker engine $(docker version -f '{{.Server.Version}}')"
for image in "$(setting GATEWAY_IMAGE spheroseg/gateway):$version" "$(setting SEGWORKER_IMAGE spheroseg/segworker):$version"; do
    if docker image inspect "$image" >/dev/null 2>&1; then
        ok "image $image"
    elif docker manifest inspect "$image" >/dev/null 2>&1; then
        ok "image $image is in its registry"
    else
        bad "image $image is neither here nor in its registry: build or push it first"
    fi
done
if VERSION=$version compose config -q 2>/dev/null; then
    ok "settings in $SPHEROSEG_ENV_FILE"
else
    bad "the compose files do not take the settings of $SPHEROSEG_ENV_FILE: $(VERSION=$version compose config -q 2>&1 | tail -n 1)"
fi
secrets=$(setting SECRETS_DIR)
if [ -z "$secrets" ]; then
    hint "SECRETS_DIR is not set: the secrets live in the volume of this installation only"
elif [ ! -d "$secrets" ]; then
    bad "SECRETS_DIR $secrets is not there: scripts/create-secrets.sh makes it"
elif "$REPO_ROOT/scripts/fix-permissions.sh" --dry-run "$secrets" >/dev/null 2>&1; then
    ok "secrets in $secrets"
else
    bad "secrets in $secrets are readable by others: run scripts/fix-permissions.sh"
fi
root=$(docker info -f '{{.DockerRootDir}}' 2>/dev/null) || root=''
[ -d "$root" ] || root=/ # an engine on another computer
free=$(df -Pk "$root" | awk 'NR == 2 { print int($4 / 1024) }')
if [ "$free" -ge 5120 ]; then ok "disk: $free MiB free"; else bad "disk: $free MiB free, 5120 wanted"; fi
for service in postgres redis nginx; do
    id=$(main_ids $service | sed -n 1p)
    if [ -n "$id" ] && [ "$(health_of "$id")" = healthy ]; then
        ok "$service is healthy"
    else
        bad "$service is ${id:+$(health_of "$id")}${id:-not running}: scripts/healthcheck.sh shows more"
    fi
done
if [ -n "$(nginx_id)" ]; then
    prepare_deploy_dir
    if nginx_follows; then
        ok "nginx reads $ACTIVE_FILE"
    else
        bad "nginx does not read $ACTIVE_FILE: set ACTIVE_DIR=$DEPLOY_DIR/active in the settings and start nginx again"
    fi
    if docker exec "$(nginx_id)" nginx -t -q -c /run/nginx/nginx.conf >/dev/null 2>&1; then ok "nginx's configuration"; else bad "nginx's configuration is broken: nginx -t in its container says why"; fi
fi
if [ -n "$(state step)" ] && [ "$(state step)" != finished ]; then
    hint "the last deployment stopped in its step '$(state step)'; this one cleans up after it"
fi
[ $failed -eq 0 ] || die "$failed checks failed"
