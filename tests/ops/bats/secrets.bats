# create-secrets.sh and fix-permissions.sh: what they make, keep, refuse and take away.
setup() {
    scripts=$BATS_TEST_DIRNAME/../../../scripts
    dir=$BATS_TEST_TMPDIR/secrets
    export SPHEROSEG_ENV_FILE=$BATS_TEST_TMPDIR/settings
    echo "SECRETS_DIR=$dir" >"$SPHEROSEG_ENV_FILE"
}
mode() { stat -c %a "$1"; }

@test "secrets are made once, for their owner alone" {
    run "$scripts/create-secrets.sh"
    [ "$status" -eq 0 ]
    [ "$(mode "$dir")" = 700 ]
    [ "$(ls "$dir" | wc -l)" -eq 7 ]
    for file in "$dir"/*; do [ "$(mode "$file")" = 600 ] && [ "$(wc -c <"$file")" -ge 24 ]; done
    before=$(cat "$dir"/* | sha256sum)
    run "$scripts/create-secrets.sh"
    [ "$status" -eq 0 ]
    [ "$(cat "$dir"/* | sha256sum)" = "$before" ]
}

@test "two installations have different secrets, and none is printed" {
    run "$scripts/create-secrets.sh" "$BATS_TEST_TMPDIR/a"
    [[ $output != *"$(cat "$BATS_TEST_TMPDIR/a/jwt_secret")"* ]]
    run "$scripts/create-secrets.sh" "$BATS_TEST_TMPDIR/b"
    run cmp -s "$BATS_TEST_TMPDIR/a/jwt_secret" "$BATS_TEST_TMPDIR/b/jwt_secret"
    [ "$status" -eq 1 ]
}

@test "a dry run makes nothing" {
    run "$scripts/create-secrets.sh" --dry-run
    [ "$status" -eq 0 ]
    [ ! -e "$dir" ]
}

@test "a folder that cannot be made is an error that says so" {
    touch "$BATS_TEST_TMPDIR/file"
    run "$scripts/create-secrets.sh" "$BATS_TEST_TMPDIR/file/below"
    [ "$status" -eq 1 ]
    [[ $output == *"cannot write"* ]]
}

@test "wrong usage is told" {
    run "$scripts/create-secrets.sh" --nonsense
    [ "$status" -eq 2 ]
    run "$scripts/fix-permissions.sh" --nonsense
    [ "$status" -eq 2 ]
    run "$scripts/fix-permissions.sh" /nonexistent
    [ "$status" -eq 1 ]
}

@test "permissions are only ever taken away" {
    "$scripts/create-secrets.sh"
    chmod 644 "$dir/jwt_secret"
    chmod 400 "$dir/redis_password"
    chmod 755 "$dir"
    run "$scripts/fix-permissions.sh" --dry-run
    [ "$status" -eq 3 ]
    [ "$(mode "$dir/jwt_secret")" = 644 ]
    run "$scripts/fix-permissions.sh"
    [ "$status" -eq 0 ]
    [ "$(mode "$dir/jwt_secret")" = 600 ]
    [ "$(mode "$dir/redis_password")" = 400 ]
    [ "$(mode "$dir")" = 700 ]
    run "$scripts/fix-permissions.sh" --dry-run
    [ "$status" -eq 0 ]
}

@test "every script explains itself" {
    for script in "$scripts"/*.sh; do
        run "$script" --help
        [ "$status" -eq 0 ]
        [[ $output == *"usage: scripts/$(basename "$script")"* ]]
    done
}
