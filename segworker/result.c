/* Releases a pipeline result in one place. */
#include "segworker/result.h"

#include <stdlib.h>
#include <string.h>

void result_free(result_t *r) {
    if (r == NULL) {
        return;
    }
    for (uint32_t i = 0; r->objects != NULL && i < r->count; i++) {
        geom_free(&r->objects[i].geom);
    }
    free(r->objects);
    free(r->labels);
    memset(r, 0, sizeof *r);
}
