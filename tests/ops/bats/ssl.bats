# setup-ssl.sh and rotate-secrets.sh: what they refuse, and that a dry run changes nothing.
setup() {
    scripts=$BATS_TEST_DIRNAME/../../../scripts
    dir=$BATS_TEST_TMPDIR/secrets
    export SPHEROSEG_ENV_FILE=$BATS_TEST_TMPDIR/settings
    printf 'SECRETS_DIR=%s\nSSL_DIR=%s\n' "$dir" "$BATS_TEST_TMPDIR/ssl" >"$SPHEROSEG_ENV_FILE"
    "$scripts/create-secrets.sh" >/dev/null 2>&1
}

@test "a certificate needs a host name and an e-mail address" {
    for words in "" "example.org" "not_a_name a@example.org" "localhost a@example.org" "example.org nobody" \
        "-evil.example.org a@example.org" "example.org a@example.org http://plain.example.org/dir" "a.example.org a@b c d"; do
        # shellcheck disable=SC2086  # several words
        run "$scripts/setup-ssl.sh" $words --dry-run
        [ "$status" -ne 0 ]
    done
}

@test "a dry run asks nobody and changes nothing" {
    run "$scripts/setup-ssl.sh" example.org a@example.org staging --dry-run
    [ "$status" -eq 0 ]
    [[ $output == *staging* && $output == *example.org* ]]
    [ ! -e "$BATS_TEST_TMPDIR/ssl" ]
    [ ! -e "$dir/tls" ]
}

@test "without SECRETS_DIR there is no place for a certificate" {
    echo "SSL_DIR=$BATS_TEST_TMPDIR/ssl" >"$SPHEROSEG_ENV_FILE"
    run "$scripts/setup-ssl.sh" example.org a@example.org
    [ "$status" -eq 1 ]
    [[ $output == *SECRETS_DIR* ]]
}

@test "an answer to the authority holds nothing but what such answers hold" {
    CERTBOT_TOKEN='../../evil' CERTBOT_VALIDATION=x run "$scripts/setup-ssl.sh" --answer
    [ "$status" -eq 1 ]
}

@test "without a certificate there is nothing to install" {
    run "$scripts/setup-ssl.sh" --install
    [ "$status" -eq 1 ]
    [[ $output == *"no certificate"* ]]
}

@test "secrets are named, and only known ones are taken" {
    for words in "" "everything" "jwt everything" "--wait soon jwt"; do
        # shellcheck disable=SC2086  # several words
        run "$scripts/rotate-secrets.sh" $words
        [ "$status" -eq 2 ]
    done
}

@test "a dry run replaces no secret" {
    before=$(cat "$dir"/* | sha256sum)
    run "$scripts/rotate-secrets.sh" --dry-run postgres redis jwt grafana heartbeat
    [ "$status" -eq 0 ]
    [ "$(cat "$dir"/* | sha256sum)" = "$before" ]
    rm -r "$dir"
    run "$scripts/rotate-secrets.sh" --dry-run jwt
    [ "$status" -eq 1 ]
}
