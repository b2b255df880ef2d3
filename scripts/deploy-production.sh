#!/usr/bin/env bash
# Brings a version to the people without a failed request: starts it beside the running one, tries it with a real
# segmentation, switches nginx, watches, and stops the old one. Whatever fails, the old version goes on serving.
#
# usage: scripts/deploy-production.sh VERSION [--force] [--skip-backup] [--dry-run]
#        scripts/deploy-production.sh --quick-rollback [--dry-run]
#   --force            go on although checks failed or the backup did not work
#   --skip-backup      no backup before the database is migrated
#   --quick-rollback   back to the version before, whose containers are still there, in seconds
#   --dry-run          only say what would be done
#
# Settings (environment or the settings file): DEPLOY_GATEWAYS and DEPLOY_WORKERS (2 and 2), DEPLOY_WATCH (seconds to watch
# after the switch, 30), DEPLOY_HEALTHY (seconds until a new container must be healthy, 180).
# Steps, as the state file names them: checks backup migrate start health verify switch watch drain finished.
# A deployment that was killed is cleaned up by the next call. Logs and state: logs/deployment/.
# Exit status: 0 done, 1 failed and rolled back, 2 usage, 4 another deployment runs or the checks failed; nothing was changed.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/compose.sh
. "$(dirname "$0")/lib/compose.sh"
# shellcheck source-path=SCRIPTDIR source=lib/deploy.sh
. "$(dirname "$0")/lib/deploy.sh"

version='' force=false backup=true dry_run=false back=false
for arg in "$@"; do
    case $arg in
        --force) force=true ;;
        --skip-backup) backup=false ;;
        --dry-run) dry_run=true ;;
        --quick-rollback) back=true ;;
        -h | --help) print_help "$0"; exit 0 ;;
        -*) print_help "$0" >&2; exit 2 ;;
        *) [ -z "$version" ] || { print_help "$0" >&2; exit 2; }; version=$arg ;;
    esac
done
if $back; then
    [ -z "$version" ] || { print_help "$0" >&2; exit 2; }
elif [[ ! $version =~ ^[A-Za-z0-9_][A-Za-z0-9._-]*$ ]]; then
    print_help "$0" >&2
    exit 2
fi
gateways=$(setting DEPLOY_GATEWAYS 2) workers=$(setting DEPLOY_WORKERS 2)
watch=$(setting DEPLOY_WATCH 30) patience=$(setting DEPLOY_HEALTHY 180)

need_docker
prepare_deploy_dir
take_lock
log=$DEPLOY_DIR/$(date -u +%Y%m%dT%H%M%SZ)-${version:-rollback}.log
exec > >(tee -a "$log") 2>&1

step() {
    $dry_run || note step "$1"
    say "$(date -u +%H:%M:%S) $1: $2"
}
stop_colour() { # stop_colour COLOUR: requests and jobs end first; the containers stay, for a way back
    local ids
    mapfile -t ids < <(colour_ids "$1" gateway; colour_ids "$1" segworker)
    [ ${#ids[@]} -eq 0 ] || docker stop -t 60 "${ids[@]}" >/dev/null
}
remove_colour() {
    local ids
    mapfile -t ids < <(colour_ids "$1" gateway all; colour_ids "$1" segworker all)
    [ ${#ids[@]} -eq 0 ] || docker rm -f "${ids[@]}" >/dev/null
}
start_colour() {
    local ids
    mapfile -t ids < <(colour_ids "$1" gateway all; colour_ids "$1" segworker all)
    [ ${#ids[@]} -eq 0 ] || docker start "${ids[@]}" >/dev/null
}

# What a killed deployment left: nginx is told again what its file says, whoever serves by that file runs, and the other
# colour is stopped.
clean_up() {
    local serving
    serving=$(active_colour)
    warn "the deployment of $(state version) stopped in its step '$(state step)'; $(active_name) serves"
    if [ "$serving" != none ]; then start_colour "$serving"; fi
    reload_nginx || die "nginx does not take its configuration; look at it before anything else"
    case $(state step) in
        watch | drain) ;; # the new one serves already, and the old one is the way back
        *) remove_colour "$(other_colour)" ;;
    esac
    note step finished
}

roll_back() { # roll_back WHY: before or after the switch
    warn "$1"
    trap '' INT TERM
    if [ "$(active_name)" = "gateway-$new" ]; then
        say "going back to $before"
        if [ "$old" != none ]; then
            start_colour "$old"
            mapfile -t ids < <(colour_ids "$old" gateway)
            all_ready 60 "${ids[@]}" || warn "not every gateway of $old is ready"
        fi
        switch_to "$before" || warn "nginx could not be switched back; it serves $(active_name)"
        sleep 2 # requests that are under way at the new one
    fi
    remove_colour "$new"
    note step finished result "rolled back" failure "$1"
    warn "rolled back: $before serves; nothing was lost. The log is $log"
    exit 1
}

quick_rollback() {
    local start=$SECONDS ids target
    [ "$(active_colour)" != none ] || die "there has been no deployment to go back from"
    target=$(other_colour)
    mapfile -t ids < <(colour_ids "$target" gateway all)
    [ ${#ids[@]} -gt 0 ] || die "the containers of $target are gone; deploy the version that you want instead"
    if $dry_run; then
        say "would start $target, send people there and stop $(active_colour)"
        exit 0
    fi
    old=$(active_colour)
    note step switch version "$(state previous)" previous "$(state version)"
    docker start "${ids[@]}" >/dev/null
    all_ready 60 "${ids[@]}" || die "the gateways of $target do not get ready; $old serves on"
    switch_to "gateway-$target" || die "nginx could not be switched; $old serves on"
    say "people are at $target again after $((SECONDS - start)) s"
    mapfile -t ids < <(colour_ids "$target" segworker all)
    [ ${#ids[@]} -eq 0 ] || docker start "${ids[@]}" >/dev/null
    note step drain
    all_healthy "$patience" "${ids[@]}" || warn "not every worker of $target is healthy yet"
    stop_colour "$old"
    note step finished result "rolled back by hand"
    exit 0
}

if [ -n "$(state step)" ] && [ "$(state step)" != finished ] && ! $dry_run; then clean_up; fi
if $back; then quick_rollback; fi

before=$(active_name) old=$(active_colour) new=$(other_colour)
if $dry_run; then
    say "would check, $($backup && echo "back up, ")migrate with $version, start $gateways gateways and $workers workers as $new, verify, switch from $before to gateway-$new, watch for $watch s, and stop $before"
    "$REPO_ROOT/scripts/pre-deployment-check.sh" "$version"
    exit 0
fi

step checks "may it begin?"
"$REPO_ROOT/scripts/pre-deployment-check.sh" "$version" || $force || { note step finished; exit 4; }
note version "$version" previous "$(state version)" colour "$new" started "$(date -u +%FT%TZ)" result "under way" failure ''
trap 'roll_back "interrupted"' INT TERM

step backup "database and images"
if ! $backup; then
    warn "no backup, as you asked"
elif ! "$REPO_ROOT/scripts/backup.sh"; then
    $force || roll_back "the backup failed"
    warn "the backup failed; going on, as you asked"
fi

step migrate "the database, so that old and new can both use it"
# shellcheck disable=SC2119
colour_compose "$new" "$version" run --rm --no-deps -T gateway migrate up || roll_back "the migration failed; the database is as it was"

step start "$gateways gateways and $workers workers of $version as $new"
remove_colour "$new"
colour_compose "$new" "$version" up -d --no-deps --no-build --scale "gateway=$gateways" --scale "segworker=$workers" gateway segworker ||
    roll_back "the containers of $version could not be started"

step health "until all are healthy"
mapfile -t ids < <(colour_ids "$new" gateway; colour_ids "$new" segworker)
if ! all_healthy "$patience" "${ids[@]}"; then
    for id in "${ids[@]}"; do docker logs --tail 3 "$id" 2>&1 || true; done
    roll_back "the new containers do not get healthy"
fi

step verify "a real segmentation through $new"
"$REPO_ROOT/scripts/post-deployment-verify.sh" "$new" || roll_back "$new does not do its work"

step switch "people from $before to gateway-$new"
switch_to "gateway-$new" || roll_back "nginx did not take the switch"

step watch "for $watch s"
end=$((SECONDS + watch))
while [ $SECONDS -lt $end ]; do
    mapfile -t ids < <(colour_ids "$new" gateway; colour_ids "$new" segworker)
    [ ${#ids[@]} -eq $((gateways + workers)) ] || roll_back "a container of $new has stopped"
    all_healthy 10 "${ids[@]}" || roll_back "a container of $new is not healthy any more"
    sleep 1
done
beat nginx "$(colour_ids "$new" gateway | sed -n 1p)" || roll_back "an image did not get through nginx"

step drain "what $before still does"
trap '' INT TERM
if [ "$old" != none ]; then
    stop_colour "$old"
else
    mapfile -t ids < <(main_ids gateway; main_ids segworker)
    [ ${#ids[@]} -eq 0 ] || docker stop -t 60 "${ids[@]}" >/dev/null
fi
note step finished result deployed finished "$(date -u +%FT%TZ)"
say "$version serves as $new; $before is stopped and $(basename "$0") --quick-rollback goes back to it"
