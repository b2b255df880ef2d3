/*
 * Memory for images that are processed at the same time, in this process: each takes what it will need before its
 * pixels are read and waits while others have it. One that has the room for itself always gets in, however large it is.
 * In the order in which memory becomes free; thread-safe.
 */
#ifndef SG_PIPELINE_ROOM_H
#define SG_PIPELINE_ROOM_H

#include <stdbool.h>
#include <stdint.h>

/* Waits up to ms for so many bytes. False: not yet. */
bool room_take(int64_t bytes, int64_t ms);
void room_leave(int64_t bytes);

#endif
