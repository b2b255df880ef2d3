/*
 * Percentiles without sorting and without a copy: the bits of a float, with the sign folded in, order as unsigned
 * integers, so two counting passes (upper 16 bits, then lower 16 bits inside the buckets that matter) give any order
 * statistic exactly, in linear time whatever the data. Grey values of images mostly are whole numbers up to 65535:
 * those are counted one by one, and one pass is enough.
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

struct percentile_scan {
    double low, high; /* 0..100 */
    uint64_t n;
    uint64_t upper[BUCKETS]; /* by the upper half of the key */
    uint64_t whole[BUCKETS]; /* by value, while all values are whole numbers from 0 to 65535 */
    bool all_whole, second;  /* second pass: only the lower halves inside the wanted buckets count */
    uint64_t lower[RANKS][BUCKETS];
    uint8_t group_of[BUCKETS]; /* 1 + index into lower */
    uint64_t rest[RANKS];      /* rank inside the bucket */
    uint32_t bucket[RANKS];
};

err_kind_t percentile_scan_begin(double low, double high, percentile_scan_t **out, err_t *err) {
    *out = calloc(1, sizeof **out);
    if (!*out) {
        return err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to normalise the image.", NULL);
    }
    (*out)->low = low;
    (*out)->high = high;
    (*out)->all_whole = true;
    return ERR_OK;
}

void percentile_scan_free(percentile_scan_t *s) {
    free(s);
}

void percentile_scan_feed(percentile_scan_t *s, const float *v, size_t n) {
    if (s->second) {
        for (size_t i = 0; i < n; i++) {
            uint32_t k = order_key(v[i]);
            uint8_t g = s->group_of[k >> 16];
            if (g) {
                s->lower[g - 1][k & 0xffff]++;
            }
        }
        return;
    }
    s->n += n;
    for (size_t i = 0; i < n; i++) {
        s->upper[order_key(v[i]) >> 16]++;
    }
    for (size_t i = 0; s->all_whole && i < n; i++) {
        if (v[i] >= 0 && v[i] < BUCKETS && v[i] == (float)(uint32_t)v[i]) {
            s->whole[(uint32_t)v[i]]++;
        } else {
            s->all_whole = false;
        }
    }
}

/* The ranks around both percentiles. */
static void ranks_of(const percentile_scan_t *s, uint64_t ranks[RANKS], double at[2]) {
    at[0] = (double)(s->n - 1) * (s->low / 100.0);
    at[1] = (double)(s->n - 1) * (s->high / 100.0);
    for (int i = 0; i < 2; i++) {
        uint64_t below = (uint64_t)floor(at[i]);
        below = below > s->n - 1 ? s->n - 1 : below;
        ranks[2 * i] = below;
        ranks[2 * i + 1] = below + 1 > s->n - 1 ? s->n - 1 : below + 1;
    }
}

bool percentile_scan_again(percentile_scan_t *s) {
    double at[2];
    uint8_t groups = 0;
    if (s->second || s->all_whole || s->n == 0) {
        return false;
    }
    ranks_of(s, s->rest, at);
    for (int r = 0; r < RANKS; r++) {
        s->bucket[r] = locate(s->upper, &s->rest[r]);
        if (s->group_of[s->bucket[r]] == 0) {
            s->group_of[s->bucket[r]] = ++groups;
        }
    }
    s->second = true;
    return true;
}

static double interpolate(float a, float b, double t) {
    float narrow = b - a; /* float32, as the definition has it, while it fits */
    double difference = isfinite(narrow) ? narrow : (double)b - a;
    return t >= 0.5 ? b - difference * (1 - t) : a + difference * t;
}

void percentile_scan_result(const percentile_scan_t *s, double *lo, double *hi) {
    double at[2];
    uint64_t ranks[RANKS];
    float values[RANKS];
    ranks_of(s, ranks, at);
    for (int r = 0; r < RANKS; r++) {
        if (s->all_whole) {
            values[r] = (float)locate(s->whole, &ranks[r]);
        } else {
            uint64_t rest = s->rest[r];
            uint32_t l = locate(s->lower[s->group_of[s->bucket[r]] - 1], &rest);
            values[r] = key_value(s->bucket[r] << 16 | l);
        }
    }
    *lo = interpolate(values[0], values[1], at[0] - floor(at[0]));
    *hi = interpolate(values[2], values[3], at[1] - floor(at[1]));
}

err_kind_t normalise_percentiles(const float *v, size_t n, double low, double high, double *lo, double *hi,
                                 err_t *err) {
    percentile_scan_t *s = NULL;
    err_kind_t k = percentile_scan_begin(low, high, &s, err);
    if (k == ERR_OK) {
        do {
            percentile_scan_feed(s, v, n);
        } while (percentile_scan_again(s));
        percentile_scan_result(s, lo, hi);
    }
    percentile_scan_free(s);
    return k;
}

void normalise_apply(float *v, size_t n, const normalise_params_t *p, double lo, double hi) {
    const double least_divisor = 1e-6;
    double range = hi - lo;
    float base = (float)lo, divisor = (float)(range > least_divisor ? range : least_divisor);
    float least = (float)p->clip_min, most = (float)p->clip_max;
    bool wide = !(range < 1e38); /* differences overflow float32 */
    for (size_t i = 0; i < n; i++) {
        float x = wide ? (float)(((double)v[i] - lo) / range) : (v[i] - base) / divisor;
        v[i] = x < least ? least : x > most ? most : x;
    }
}

err_kind_t normalise_plane(float *v, size_t n, const normalise_params_t *p, bool *contrast, err_t *err) {
    double lo = 0, hi = 0;
    err_kind_t k = normalise_percentiles(v, n, p->low, p->high, &lo, &hi, err);
    *contrast = k == ERR_OK && hi - lo > p->min_range;
    if (*contrast) {
        normalise_apply(v, n, p, lo, hi);
    }
    return k;
}
