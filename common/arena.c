/*
 * Arena allocator (see arena.h): blocks in a list, a bump pointer in the newest one. Small requests share
 * blocks that grow from 4 KiB to 1 MiB; a request larger than that gets a block of its own size.
 */
#include "arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 16, FIRST_BLOCK = 4096, GREATEST_BLOCK = 1 << 20 };

typedef struct block {
    struct block *next; /* older block */
    size_t size;        /* bytes in data */
    size_t used;
    _Alignas(ALIGN) unsigned char data[];
} block_t;

struct arena {
    block_t *head; /* newest; allocations come from here */
    size_t cap, used, next_size;
};

arena_t *arena_create(size_t cap) {
    arena_t *a = calloc(1, sizeof *a);
    if (a) {
        a->cap = cap;
        a->next_size = FIRST_BLOCK;
    }
    return a;
}

void arena_destroy(arena_t *a) {
    if (!a) {
        return;
    }
    for (block_t *b = a->head; b;) {
        block_t *next = b->next;
        free(b);
        b = next;
    }
    free(a);
}

void arena_reset(arena_t *a) {
    block_t *b = a->head;
    while (b && b->next) {
        block_t *next = b->next;
        free(b);
        b = next;
    }
    a->head = b;
    a->used = 0;
    a->next_size = FIRST_BLOCK;
    if (b) {
        b->used = 0;
    }
}

static block_t *add_block(arena_t *a, size_t at_least) {
    size_t size = a->next_size > at_least ? a->next_size : at_least;
    if (size > SIZE_MAX - sizeof(block_t)) {
        return NULL;
    }
    block_t *b = malloc(sizeof *b + size);
    if (!b) {
        return NULL;
    }
    b->size = size;
    b->used = 0;
    b->next = a->head;
    a->head = b;
    if (a->next_size < GREATEST_BLOCK) {
        a->next_size *= 2;
    }
    return b;
}

void *arena_alloc(arena_t *a, size_t n) {
    if (n > SIZE_MAX - (ALIGN - 1)) {
        return NULL;
    }
    size_t need = n == 0 ? ALIGN : (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (n > a->cap - a->used || need > a->cap - a->used) {
        return NULL;
    }
    block_t *b = a->head;
    if (!b || need > b->size - b->used) {
        b = add_block(a, need);
        if (!b) {
            return NULL;
        }
    }
    unsigned char *p = b->data + b->used;
    b->used += need;
    a->used += need;
    memset(p, 0, need);
    return p;
}

char *arena_strndup(arena_t *a, const char *s, size_t n) {
    size_t len = strnlen(s, n);
    if (len == SIZE_MAX) {
        return NULL;
    }
    char *p = arena_alloc(a, len + 1);
    if (p) {
        memcpy(p, s, len);
    }
    return p;
}

char *arena_strdup(arena_t *a, const char *s) {
    return arena_strndup(a, s, strlen(s));
}

char *arena_printf(arena_t *a, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = n < 0 ? NULL : arena_alloc(a, (size_t)n + 1);
    if (p) {
        (void)vsnprintf(p, (size_t)n + 1, fmt, again);
    }
    va_end(again);
    return p;
}

size_t arena_used(const arena_t *a) {
    return a->used;
}
