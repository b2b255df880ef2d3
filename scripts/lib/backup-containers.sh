# shellcheck shell=bash
# Backups of the system in containers: the scripts call themselves in a container of PostgreSQL's image, which has the
# programs of the server's version, beside the volumes. Source it after compose.sh; it runs nothing by itself.

BACKUP_UID=999 APP_UID=10001

# backup_place: volume or folder that holds the backups.
backup_place() {
    local place
    place=$(setting BACKUP_DIR)
    case $place in
        '') printf '%s_backups' "$(setting COMPOSE_PROJECT_NAME spheroseg)" ;;
        /*) printf '%s' "$place" ;;
        *) printf '%s' "$(cd "$REPO_ROOT/compose" && realpath -m "$place")" ;;
    esac
}

# in_container USER PLACE SCRIPT ARGS…: USER backup may read the images and write backups, restore the other way round.
in_container() {
    local user=$1 place=$2 script=$3 project image
    shift 3
    project=$(setting COMPOSE_PROJECT_NAME spheroseg)
    # Sending to a bucket needs curl, which PostgreSQL's own image has not: see compose/docker-compose.s3.yml.
    image=$(setting BACKUP_IMAGE "$(if [ -n "$(setting BACKUP_URL)" ]; then echo spheroseg/backup:latest; else echo postgres:15-bookworm; fi)")
    need_docker
    docker network inspect "${project}_default" >/dev/null 2>&1 || die "the system $project does not run here: start its database first (docker-compose up -d postgres)"
    local options=(--rm -i --network "${project}_default" --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges:true
        -v "$REPO_ROOT/scripts:/opt/spheroseg/scripts:ro" -v "${project}_secrets:/run/spheroseg:ro"
        -v "$place:/var/lib/postgresql/data" -e BACKUP_DIR=/var/lib/postgresql/data
        -e STORAGE_DIR=/var/lib/spheroseg/storage --entrypoint "/opt/spheroseg/scripts/$script")
    if [ "$user" = backup ]; then
        options+=(--user "$BACKUP_UID:$APP_UID" -v "${project}_storage:/var/lib/spheroseg/storage:ro"
            -e DATABASE_URL=postgresql://spheroseg@postgres:5432/spheroseg -e DATABASE_PASSWORD_FILE=/run/spheroseg/postgres/password)
    else
        options+=(--user "$APP_UID:$APP_UID" --group-add "$BACKUP_UID" -v "${project}_storage:/var/lib/spheroseg/storage"
            -e DATABASE_URL_FILE=/run/spheroseg/app/database_url)
    fi
    options+=(-e BACKUP_PASSPHRASE_FILE=/run/spheroseg/backup/passphrase -e "BACKUP_ENCRYPT=$(setting BACKUP_ENCRYPT false)")
    local name
    for name in STORAGE_URL BACKUP_URL S3_ENDPOINT S3_REGION S3_PATH_STYLE; do
        [ -z "$(setting $name)" ] || options+=(-e "$name=$(setting $name)")
    done
    options+=(-e S3_ACCESS_KEY_FILE=/run/spheroseg/backup/s3_access_key -e S3_SECRET_KEY_FILE=/run/spheroseg/backup/s3_secret_key)
    docker run "${options[@]}" "$image" "$@"
}
