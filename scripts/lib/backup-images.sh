#!/usr/bin/env bash
# Copies the images that are new, between two backups; to a bucket also what PostgreSQL wrote. The service of backup.sh calls it: backup-images.sh DIR
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source-path=SCRIPTDIR source=backup.sh
. "$(dirname "$0")/backup.sh"
# shellcheck source-path=SCRIPTDIR source=backup-s3.sh
. "$(dirname "$0")/backup-s3.sh"
open_folder "$1"
use_passphrase
lock_folder 1
copy_images
[ "$copied_images" -eq 0 ] || say "$copied_images new images"
if bucket_wanted; then
    use_bucket
    copy_to_bucket known || die "nothing more reaches the bucket: $s3_said"
fi
