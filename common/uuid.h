/* Random UUIDs (RFC 9562, version 4). Thread-safe. */
#ifndef SG_UUID_H
#define SG_UUID_H

enum { UUID_SIZE = 37 /* NUL included */ };

/* Lower case with dashes, from the kernel's generator. */
void uuid_v4(char out[UUID_SIZE]);

#endif
