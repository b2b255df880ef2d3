# backup.sh, restore.sh and restore-drill.sh: usage, and what they say when they cannot begin. tests/ops/test_backup.py tries
# the rest on real databases.
setup() {
    scripts=$BATS_TEST_DIRNAME/../../../scripts
    export SPHEROSEG_ENV_FILE=$BATS_TEST_TMPDIR/settings
    echo "COMPOSE_PROJECT_NAME=spheroseg-never-started" >"$SPHEROSEG_ENV_FILE"
    unset DATABASE_URL DATABASE_URL_FILE STORAGE_DIR BACKUP_DIR BACKUP_PASSPHRASE_FILE
    url=postgresql://nobody:x@127.0.0.1:1/none
}

@test "wrong usage is told" {
    for call in "backup.sh --nonsense" "backup.sh --keep" "backup.sh --keep 0" "backup.sh --keep many" "backup.sh --to" "backup.sh name" \
        "restore.sh" "restore.sh a b" "restore.sh --at" "restore.sh a --nonsense" "restore-drill.sh a b" "restore-drill.sh --nonsense"; do
        # shellcheck disable=SC2086  # several words
        run "$scripts"/$call
        [ "$status" -eq 2 ]
        [[ $output == *"usage: scripts/${call%% *}"* ]]
    done
}

@test "a restore asks first, and takes no answer for a no" {
    DATABASE_URL=$url run "$scripts/restore.sh" latest
    [ "$status" -eq 1 ]
    [[ $output == *"say --yes"* ]]
}

@test "without a system in containers they say so" {
    if ! docker info >/dev/null 2>&1; then skip "no Docker engine runs here"; fi
    for call in backup.sh "restore.sh latest --yes" restore-drill.sh; do
        # shellcheck disable=SC2086
        run "$scripts"/$call
        [ "$status" -eq 1 ]
        [[ $output == *"does not run here"* ]]
    done
}

@test "settings that are missing or wrong are named" {
    DATABASE_URL=$url run "$scripts/backup.sh"
    [ "$status" -eq 1 ]
    [[ $output == *"BACKUP_DIR"* ]]
    DATABASE_URL=$url run "$scripts/backup.sh" --to "$BATS_TEST_TMPDIR/b"
    [ "$status" -eq 1 ]
    [[ $output == *"STORAGE_DIR"* ]]
    mkdir "$BATS_TEST_TMPDIR/storage"
    export STORAGE_DIR=$BATS_TEST_TMPDIR/storage
    DATABASE_URL=nonsense run "$scripts/backup.sh" --to "$BATS_TEST_TMPDIR/b"
    [ "$status" -eq 1 ]
    [[ $output == *"DATABASE_URL is not of the form"* ]]
    DATABASE_URL_FILE=/nonexistent run "$scripts/backup.sh" --to "$BATS_TEST_TMPDIR/b"
    [ "$status" -eq 1 ]
    [[ $output == *"cannot be read"* ]]
    DATABASE_URL=$url BACKUP_AT=25:00 run "$scripts/backup.sh" --serve --to "$BATS_TEST_TMPDIR/b"
    [ "$status" -eq 1 ]
    [[ $output == *"BACKUP_AT"* ]]
}

@test "a passphrase that is missing, empty or short is refused" {
    mkdir "$BATS_TEST_TMPDIR/storage"
    export STORAGE_DIR=$BATS_TEST_TMPDIR/storage DATABASE_URL=$url
    printf short >"$BATS_TEST_TMPDIR/short"
    : >"$BATS_TEST_TMPDIR/empty"
    for file in short empty none; do
        BACKUP_PASSPHRASE_FILE=$BATS_TEST_TMPDIR/$file run "$scripts/backup.sh" --to "$BATS_TEST_TMPDIR/b"
        [ "$status" -eq 1 ]
        [[ $output == *passphrase* || $output == *PASSPHRASE* ]]
    done
}

@test "a database that does not answer is told, and nothing is left behind" {
    mkdir "$BATS_TEST_TMPDIR/storage"
    STORAGE_DIR=$BATS_TEST_TMPDIR/storage DATABASE_URL=$url run "$scripts/backup.sh" --to "$BATS_TEST_TMPDIR/b"
    [ "$status" -eq 1 ]
    [[ $output == *"does not answer"* ]]
    [ -z "$(find "$BATS_TEST_TMPDIR/b/backups" "$BATS_TEST_TMPDIR/b/metrics" -mindepth 1)" ]
    [ -z "$(find "$BATS_TEST_TMPDIR/b" -name '.work*')" ]
}

@test "where there are no backups, none is restored" {
    DATABASE_URL=$url run "$scripts/restore.sh" latest --yes --from "$BATS_TEST_TMPDIR/none"
    [ "$status" -eq 1 ]
    [[ $output == *"no backups"* ]]
    mkdir -p "$BATS_TEST_TMPDIR/b/backups"
    DATABASE_URL=$url run "$scripts/restore.sh" latest --yes --from "$BATS_TEST_TMPDIR/b"
    [ "$status" -eq 1 ]
    [[ $output == *"there is no backup 'latest'"* ]]
}

@test "a bucket that cannot be meant is refused before anything is written" {
    mkdir "$BATS_TEST_TMPDIR/storage"
    export STORAGE_DIR=$BATS_TEST_TMPDIR/storage DATABASE_URL=$url S3_ACCESS_KEY=a S3_SECRET_KEY=b
    for bucket in s3://X s3://ab http://bucket s3:// "s3://bucket/a b"; do
        BACKUP_URL=$bucket run "$scripts/backup.sh" --to "$BATS_TEST_TMPDIR/b"
        [ "$status" -eq 1 ]
        [[ $output == *"BACKUP_URL must be"* ]]
    done
    BACKUP_URL=s3://bucket S3_ENDPOINT=bucket.example.org run "$scripts/backup.sh" --to "$BATS_TEST_TMPDIR/b"
    [[ $status -eq 1 && $output == *"S3_ENDPOINT must be"* ]]
    BACKUP_URL=s3://bucket S3_SECRET_KEY='' run "$scripts/backup.sh" --to "$BATS_TEST_TMPDIR/b"
    [[ $status -eq 1 && $output == *"S3_SECRET_KEY"* ]]
    run "$scripts/backup.sh" --fetch --to "$BATS_TEST_TMPDIR/b"
    [[ $status -eq 1 && $output == *"set BACKUP_URL"* ]]
}

@test "the key of a bucket is on no command line" {
    mkdir "$BATS_TEST_TMPDIR/bin"
    printf '#!/bin/sh\nprintf "%%s\\n" "$*" >>"%s/seen"\nprintf 500\n' "$BATS_TEST_TMPDIR" >"$BATS_TEST_TMPDIR/bin/curl"
    chmod +x "$BATS_TEST_TMPDIR/bin/curl"
    PATH=$BATS_TEST_TMPDIR/bin:$PATH DATABASE_URL=$url BACKUP_URL=s3://bucket S3_ACCESS_KEY=nameofkey S3_SECRET_KEY=keyitself \
        run "$scripts/backup.sh" --fetch --to "$BATS_TEST_TMPDIR/b"
    [[ $status -eq 1 && $output == *500* ]]
    [ -s "$BATS_TEST_TMPDIR/seen" ]
    run grep -E 'nameofkey|keyitself' "$BATS_TEST_TMPDIR/seen"
    [ "$status" -eq 1 ]
    [ -z "$(find "$BATS_TEST_TMPDIR/b" -name '.work*')" ]
}
