/*
 * Any bytes into geom_decode. What is accepted must encode to the same bytes again, and every function that takes a
 * geometry must cope with it, however tangled.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/geometry/measure.h"
#include "common/geometry/polygon.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    geom_t g;
    err_t err;
    static const float plane[64];
    if (geom_decode(data, size, &g, &err) != ERR_OK) {
        return 0;
    }
    buf_t buf;
    buf_init(&buf, (size_t)1 << 26);
    geom_encode(&g, &buf);
    if (buf.failed || buf.len != size || memcmp(buf.data, data, size) != 0) {
        abort();
    }
    buf_reset(&buf);
    geom_write_geojson(&g, &buf);
    measurements_t m;
    if (measure_object(&g, plane, 8, 8, &m, &err) == ERR_OK) {
        if (!(m.area > 0) || !(m.feret_max >= m.feret_min) || m.circularity > 1) {
            abort();
        }
        measure_write_json(&m, &buf);
    }
    (void)geom_is_valid(&g);
    buf_free(&buf);
    geom_free(&g);
    return 0;
}
