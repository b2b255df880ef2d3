/* Arithmetic of tiles: see tile.h. */
#include "segworker/pipeline/tile.h"

#include <stdint.h>

int tile_padded(int n, int divisor) {
    return (int)(((int64_t)n + divisor - 1) / divisor * divisor);
}

int tile_count(int padded, const tile_params_t *p) {
    if (padded <= p->tile) {
        return 1;
    }
    int step = p->tile - 2 * p->halo;
    return (padded - p->tile + step - 1) / step + 1;
}

tile_params_t tile_evened(int padded, const tile_params_t *p) {
    tile_params_t even = *p;
    int count = tile_count(padded, p), inner = padded - 2 * p->halo;
    if (count > 1) {
        int tile = tile_padded((inner + count - 1) / count + 2 * p->halo, p->divisor);
        even.tile = tile < p->tile ? tile : p->tile;
    }
    return even;
}

tile_span_t tile_span(int padded, const tile_params_t *p, int i) {
    if (padded <= p->tile) {
        return (tile_span_t){0, padded, 0, padded};
    }
    int last = tile_count(padded, p) - 1;
    int start = i == last ? padded - p->tile : i * (p->tile - 2 * p->halo);
    return (tile_span_t){.start = start,
                         .stop = start + p->tile,
                         .core_start = i == 0 ? 0 : start + p->halo,
                         .core_stop = i == last ? padded : start + p->tile - p->halo};
}

int tile_reflect(int i, int n) {
    if (n == 1) {
        return 0;
    }
    int64_t period = 2 * ((int64_t)n - 1), k = i % period;
    return (int)(k >= n ? period - k : k);
}
