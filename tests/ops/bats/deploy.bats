# What deploys, scales, updates and looks: usage, and what it says and leaves when it cannot begin. tests/ops/test_compose.py and
# test_deploy.py try the rest on real containers.
setup() {
    scripts=$BATS_TEST_DIRNAME/../../../scripts
    export SPHEROSEG_ENV_FILE=$BATS_TEST_TMPDIR/settings DEPLOY_DIR=$BATS_TEST_TMPDIR/deployment
    echo "COMPOSE_PROJECT_NAME=spheroseg-never-started" >"$SPHEROSEG_ENV_FILE"
    mkdir "$BATS_TEST_TMPDIR/bin"
}
# engine STATUS: a docker that answers everything with STATUS, and no words.
engine() {
    printf '#!/bin/sh\nexit %s\n' "$1" >"$BATS_TEST_TMPDIR/bin/docker"
    printf '#!/bin/sh\nexit %s\n' "$1" >"$BATS_TEST_TMPDIR/bin/docker-compose"
    chmod +x "$BATS_TEST_TMPDIR/bin/docker" "$BATS_TEST_TMPDIR/bin/docker-compose"
    PATH=$BATS_TEST_TMPDIR/bin:$PATH
}

@test "wrong usage is told" {
    engine 0
    for call in "deploy-production.sh" "deploy-production.sh --nonsense" "deploy-production.sh a b" "deploy-production.sh -x" \
        "deploy-production.sh ../x" "deploy-production.sh --quick-rollback a" "pre-deployment-check.sh" "pre-deployment-check.sh a b" \
        "pre-deployment-check.sh a/b" "post-deployment-verify.sh" "post-deployment-verify.sh red" "scale.sh" "scale.sh segworker" \
        "scale.sh postgres 2" "scale.sh segworker many" "scale.sh segworker 2 --wait x" "rolling-update.sh" "rolling-update.sh a b" \
        "rolling-update.sh a --nonsense" "rolling-update.sh a --wait x" "healthcheck.sh --nonsense" "logs.sh --nonsense" "logs.sh --level loud"; do
        # shellcheck disable=SC2086  # several words
        run "$scripts"/$call
        echo "$call: $status"
        [ "$status" -eq 2 ]
        [[ $output == *"usage: scripts/${call%% *}"* ]]
    done
    [ ! -e "$DEPLOY_DIR" ]
}

@test "an engine that does not answer is told" {
    engine 1
    for call in "deploy-production.sh 1.0" "deploy-production.sh --quick-rollback" "pre-deployment-check.sh 1.0" \
        "post-deployment-verify.sh blue" "scale.sh segworker 2" "rolling-update.sh 1.0" healthcheck.sh logs.sh; do
        # shellcheck disable=SC2086
        run "$scripts"/$call
        echo "$call: $status $output"
        [ "$status" -eq 1 ]
        [[ $output == *"the Docker engine does not answer"* ]]
    done
}

@test "the last gateway is not taken away" {
    engine 0
    run "$scripts/scale.sh" gateway 0
    [ "$status" -eq 1 ]
    [[ $output == *"nobody is served"* ]]
}

@test "two deployments at once: the second one goes" {
    engine 0
    mkdir -p "$DEPLOY_DIR"
    exec 8>"$DEPLOY_DIR/lock"
    flock 8
    run "$scripts/deploy-production.sh" 1.0 8>&-
    [ "$status" -eq 1 ]
    [[ $output == *"another deployment is under way"* ]]
    run "$scripts/deploy-production.sh" --quick-rollback 8>&-
    [ "$status" -eq 1 ]
}

@test "there is nothing to go back to before the first deployment" {
    engine 0
    run "$scripts/deploy-production.sh" --quick-rollback
    [ "$status" -eq 1 ]
    [[ $output == *"there has been no deployment"* ]]
}

@test "a colour whose containers are gone is no way back" {
    engine 0
    mkdir -p "$DEPLOY_DIR/active"
    # shellcheck disable=SC2016  # nginx's variable
    printf 'set $gateway gateway-green;\n' >"$DEPLOY_DIR/active/gateway.conf"
    run "$scripts/deploy-production.sh" --quick-rollback
    [ "$status" -eq 1 ]
    [[ $output == *"the containers of blue are gone"* ]]
    [[ $(cat "$DEPLOY_DIR/active/gateway.conf") == *gateway-green* ]]
}

@test "failed checks stop a deployment before it changes anything" {
    engine 0
    run "$scripts/deploy-production.sh" 1.0 --skip-backup
    [ "$status" -eq 4 ]
    [[ $output == *"FAIL  postgres"* ]]
    [ "$(sed -n 's/^step=//p' "$DEPLOY_DIR/state")" = finished ]
    [[ $(cat "$DEPLOY_DIR/active/gateway.conf") == *'$gateway gateway;'* ]]
}

@test "the state file is whole at any time, and for its owner alone" {
    run bash -c '
        . "$1/lib/common.sh"; . "$1/lib/compose.sh"; . "$1/lib/deploy.sh"
        prepare_deploy_dir
        note step checks version 1.0 failure "with spaces = and signs"
        note step switch
        printf "%s|%s|%s|%s\n" "$(state step)" "$(state version)" "$(state failure)" "$(state nothing)"
        stat -c %a "$STATE_FILE"; active_name; active_colour; other_colour
        ls "$DEPLOY_DIR"' bash "$scripts"
    [ "$status" -eq 0 ]
    [ "${lines[0]}" = "switch|1.0|with spaces = and signs|" ]
    [ "${lines[1]}" = 600 ]
    [ "${lines[2]} ${lines[3]} ${lines[4]}" = "gateway none blue" ]
    [[ $output != *.new.* ]]
}

@test "nothing that runs is well, and is told as such" {
    engine 0
    run "$scripts/healthcheck.sh"
    [ "$status" -eq 3 ]
    [[ $output == *"nothing runs"* ]]
    run "$scripts/post-deployment-verify.sh" blue
    [ "$status" -eq 1 ]
    [[ $output == *"blue does not run"* ]]
    run "$scripts/rolling-update.sh" 1.0
    [ "$status" -eq 1 ]
    run "$scripts/logs.sh" gateway
    [ "$status" -eq 1 ]
    [[ $output == *"no container of gateway runs"* ]]
}

@test "no pipe is left before its end" {
    # Under pipefail that is a failure of the writer, now and then.
    run grep -nE '\| *(head|grep -q)|\|.*awk.*exit *\}' "$scripts"/*.sh "$scripts"/lib/*.sh
    echo "$output"
    [ "$status" -eq 1 ]
}
