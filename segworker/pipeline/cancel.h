/* How a long stage asks whether its job is still wanted. Stages call it at least every few milliseconds. */
#ifndef SG_PIPELINE_CANCEL_H
#define SG_PIPELINE_CANCEL_H

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    bool (*fn)(void *ctx); /* true = stop now; called on the thread that runs the stage; may be NULL */
    void *ctx;
} cancel_t;

static inline bool cancel_asked(const cancel_t *c) {
    return c != NULL && c->fn != NULL && c->fn(c->ctx);
}

#endif
