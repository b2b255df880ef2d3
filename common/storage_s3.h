/*
 * Storage in a bucket of S3 or of a server that speaks its protocol. An object's name is prefix/key. Puts and gets go
 * through files in a local folder: decoders need to seek, and an upload that fails half way must be repeatable.
 * Large objects are sent in parts. A put that dies leaves at most parts that nobody sees: let a rule of the bucket
 * abort incomplete uploads after a day.
 */
#ifndef SG_STORAGE_S3_H
#define SG_STORAGE_S3_H

#include "storage.h"

typedef struct {
    const char *bucket, *prefix; /* prefix: without slashes at its ends; may be empty */
    const char *endpoint;        /* https://host[:port]; empty: Amazon's for the region */
    const char *region, *access_key, *secret_key;
    bool path_style;   /* endpoint/bucket/key instead of bucket.endpoint/key */
    const char *dir;   /* local folder for files on their way */
    int64_t part_size; /* bytes; 0: 16 MiB. More than 10,000 parts become larger ones */
} storage_s3_t;

/* Does not ask the server. ERR_INVALID names the setting that cannot be used. */
ERR_MUST err_kind_t storage_open_s3(const storage_s3_t *settings, storage_t **out, err_t *err);

#endif
