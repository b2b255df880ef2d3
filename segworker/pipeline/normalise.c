/*
 * Percentiles without sorting and without a copy: the bits of a float, with the sign folded in, order as unsigned
 * integers, so two counting passes (upper 16 bits, then lower 16 bits inside the buckets that matter) give any order
 * statistic exactly, in linear time whatever the data.
 */
#include "segworker/pipeline/normalise.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 1 << 16, RANKS = 4 };

static inline uint32_t order_key(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

static float key_value(uint32_t k) {
    uint32_t u = k & 0x80000000u ? k & 0x7fffffffu : ~k;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Bucket that holds the element of that rank; *rank becomes the rank inside it. */
static uint32_t locate(const uint64_t *counts, uint64_t *rank) {
    uint32_t b = 0;
    while (b < BUCKETS - 1 && *rank >= counts[b]) {
        *rank -= counts[b++];
    }
    return b;
}

/* values[i] = element of rank ranks[i] (0 = smallest). */
static bool order_statistics(const float *v, size_t n, const uint64_t *ranks, float *values) {
    uint64_t *counts = calloc((size_t)BUCKETS * (RANKS + 1), sizeof *counts);
    uint8_t *group_of = calloc(BUCKETS, 1); /* 1 + index of the second histogram of a bucket */
    if (!counts || !group_of) {
        free(counts);
        free(group_of);
        return false;
    }
    uint64_t *low = counts + BUCKETS, rest[RANKS];
    uint32_t bucket[RANKS];
    uint8_t groups = 0;
    for (size_t i = 0; i < n; i++) {
        counts[order_key(v[i]) >> 16]++;
    }
    for (int r = 0; r < RANKS; r++) {
        rest[r] = ranks[r];
        bucket[r] = locate(counts, &rest[r]);
        if (group_of[bucket[r]] == 0) {
            group_of[bucket[r]] = ++groups;
        }
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t k = order_key(v[i]);
        uint8_t g = group_of[k >> 16];
        if (g) {
            low[(size_t)(g - 1) * BUCKETS + (k & 0xffff)]++;
        }
    }
    for (int r = 0; r < RANKS; r++) {
        uint32_t l = locate(low + (size_t)(group_of[bucket[r]] - 1) * BUCKETS, &rest[r]);
        values[r] = key_value(bucket[r] << 16 | l);
    }
    free(counts);
    free(group_of);
    return true;
}

static double interpolate(float a, float b, double t) {
    float narrow = b - a; /* float32, as the definition has it, while it fits */
    double difference = isfinite(narrow) ? narrow : (double)b - a;
    return t >= 0.5 ? b - difference * (1 - t) : a + difference * t;
}

err_kind_t normalise_percentiles(const float *v, size_t n, double low, double high, double *lo, double *hi,
                                 err_t *err) {
    double at[2] = {(double)(n - 1) * (low / 100.0), (double)(n - 1) * (high / 100.0)};
    uint64_t ranks[RANKS];
    float values[RANKS];
    for (int i = 0; i < 2; i++) {
        uint64_t below = (uint64_t)floor(at[i]);
        below = below > n - 1 ? n - 1 : below;
        ranks[2 * i] = below;
        ranks[2 * i + 1] = below + 1 > n - 1 ? n - 1 : below + 1;
    }
    if (!order_statistics(v, n, ranks, values)) {
        return err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to normalise the image.", NULL);
    }
    *lo = interpolate(values[0], values[1], at[0] - floor(at[0]));
    *hi = interpolate(values[2], values[3], at[1] - floor(at[1]));
    return ERR_OK;
}

err_kind_t normalise_plane(float *v, size_t n, const normalise_params_t *p, bool *contrast, err_t *err) {
    const double least_divisor = 1e-6;
    double lo = 0, hi = 0;
    *contrast = false;
    err_kind_t k = normalise_percentiles(v, n, p->low, p->high, &lo, &hi, err);
    if (k != ERR_OK || hi - lo <= p->min_range) {
        return k;
    }
    double range = hi - lo;
    float base = (float)lo, divisor = (float)(range > least_divisor ? range : least_divisor);
    float least = (float)p->clip_min, most = (float)p->clip_max;
    bool wide = !(range < 1e38); /* differences overflow float32 */
    for (size_t i = 0; i < n; i++) {
        float x = wide ? (float)(((double)v[i] - lo) / range) : (v[i] - base) / divisor;
        v[i] = x < least ? least : x > most ? most : x;
    }
    *contrast = true;
    return ERR_OK;
}
