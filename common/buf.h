/*
 * Growable byte buffer with a cap. A write that would pass the cap (or finds no memory) sets `failed`
 * and every later write does nothing, so a sequence of writes needs one check at its end.
 * data is always NUL-terminated once something was written. Not thread-safe.
 */
#ifndef SG_BUF_H
#define SG_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    char *data;      /* owned; NULL while empty */
    size_t len;      /* bytes written, without the NUL */
    size_t cap;      /* greatest len allowed */
    size_t room;     /* bytes allocated */
    bool failed;
} buf_t;

void buf_init(buf_t *b, size_t cap);
void buf_free(buf_t *b);
void buf_reset(buf_t *b);                    /* len = 0, failed = false; keeps the memory */
void buf_append(buf_t *b, const void *p, size_t n);
void buf_puts(buf_t *b, const char *s);
void buf_printf(buf_t *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_put_u8(buf_t *b, uint8_t v);
void buf_put_u16le(buf_t *b, uint16_t v);
void buf_put_u32le(buf_t *b, uint32_t v);
void buf_put_f32le(buf_t *b, float v);
/* Hands the memory to the caller (free()) and empties b. */
char *buf_take(buf_t *b, size_t *len);

#endif
