/* Fuzzes the OME-XML reader. */
#include <math.h>
#include <stdlib.h>

#include "common/image/ome.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ome_t o;
    bool found = ome_parse((const char *)data, size, 32, &o);
    if (!(o.pixel_um >= 0) || o.nblocks > 32 || o.order[5] != '\0') {
        abort();
    }
    if (found && (o.size_c < 1 || o.size_z < 1 || o.size_t_ < 1)) {
        abort();
    }
    for (size_t i = 0; i < o.nblocks; i++) {
        if (o.blocks[i].ifd < 0 || o.blocks[i].c < 0 || o.blocks[i].z < 0 || o.blocks[i].t < 0) {
            abort();
        }
    }
    ome_free(&o);
    return 0;
}
