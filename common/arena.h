/*
 * Arena: memory that a request or a job owns and frees at once. Bounded by a cap; past it, allocation
 * returns NULL (the caller answers ERR_NO_MEMORY). Not thread-safe: one arena, one thread at a time.
 */
#ifndef SG_ARENA_H
#define SG_ARENA_H

#include <stddef.h>

typedef struct arena arena_t;

/* cap: greatest total number of bytes handed out. NULL when memory is gone. */
arena_t *arena_create(size_t cap);
void arena_destroy(arena_t *a);              /* NULL is allowed */
void arena_reset(arena_t *a);                /* forget everything, keep the first block */
void *arena_alloc(arena_t *a, size_t n);     /* 16-byte aligned, zeroed; NULL at the cap */
char *arena_strdup(arena_t *a, const char *s);
char *arena_strndup(arena_t *a, const char *s, size_t n);
char *arena_printf(arena_t *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
size_t arena_used(const arena_t *a);

#endif
