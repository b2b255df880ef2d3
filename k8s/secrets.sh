#!/usr/bin/env bash
# Makes the secrets of an overlay as files, which kustomize makes into Secrets. What is there already stays.
#
# usage: k8s/secrets.sh OVERLAY
#   OVERLAY   dev or prod (gpu uses those of prod); or a folder with a kustomization of your own
#
# DATABASE_HOST and REDIS_HOST (default postgres:5432 and redis:6379) name the servers, which may be external ones; their
# passwords are then postgres_password and redis_password in OVERLAY/secrets, put there before.
# The files are as secret as what they make: git ignores them, and nobody else may read them.
# Exit status: 0 all there, 1 could not be written, 2 usage.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../scripts/lib/common.sh
. "$(dirname "$0")/../scripts/lib/common.sh"
case ${1:-} in
    -h | --help) print_help "$0"; exit 0 ;;
    '' | -*) print_help "$0" >&2; exit 2 ;;
esac
overlay=$1
[ -d "$overlay" ] || overlay=$REPO_ROOT/k8s/overlays/$1
[ -f "$overlay/kustomization.yaml" ] || die "there is no overlay $1"
dir=$overlay/secrets
umask 077
"$REPO_ROOT/scripts/create-secrets.sh" "$dir"
place() { cat >"$dir/$1.new" && mv "$dir/$1.new" "$dir/$1"; }
printf 'postgresql://spheroseg:%s@%s/spheroseg' "$(cat "$dir/postgres_password")" "${DATABASE_HOST:-postgres:5432}" | place database_url
printf 'redis://spheroseg:%s@%s/0' "$(cat "$dir/redis_password")" "${REDIS_HOST:-redis:6379}" | place redis_url
{
    grep '^user ' "$REPO_ROOT/proto/redis-acl.conf" | sed "s/@PASSWORD@/$(cat "$dir/redis_password")/"
    printf 'user admin on >%s ~* &* +@all\n' "$(cat "$dir/redis_admin_password")"
} | place redis_users.acl
# Of a bucket (components/s3), where there is one; nobody can make these up.
for name in s3_access_key s3_secret_key; do
    [ -e "$dir/$name" ] || : >"$dir/$name"
done
say "kubectl apply -k ${overlay#"$PWD/"}"
