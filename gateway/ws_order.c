/*
 * A set-associative table: a job has four places it can be in, and the one that was quiet longest makes room. Events
 * and snapshots are kept apart, because a snapshot goes to one client only: what it knows already, others may still
 * have to hear.
 */
#include "ws_order.h"

#include <stdlib.h>

#define WAYS 4

typedef struct {
    uint64_t high, low; /* the UUID; both 0: free */
    int64_t seq;        /* last event that went to everybody */
    int64_t shown;      /* highest in a snapshot */
    uint64_t snapshot;  /* the first that showed it */
    uint64_t used;
} entry_t;

struct ws_order {
    size_t sets; /* a power of two */
    uint64_t clock;
    entry_t *entries;
};

ws_order_t *ws_order_create(size_t jobs) {
    ws_order_t *o = calloc(1, sizeof *o);
    if (!o) {
        return NULL;
    }
    o->sets = 1;
    while (o->sets * WAYS < jobs) {
        o->sets *= 2;
    }
    o->entries = calloc(o->sets * WAYS, sizeof *o->entries);
    if (!o->entries) {
        free(o);
        return NULL;
    }
    return o;
}

void ws_order_destroy(ws_order_t *o) {
    if (o) {
        free(o->entries);
        free(o);
    }
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* 8-4-4-4-12 hexadecimal digits. */
static bool parse_uuid(const char *text, uint64_t *high, uint64_t *low) {
    int digits = 0;
    *high = *low = 0;
    for (int i = 0; i < 36; i++) {
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (text[i] != '-') {
                return false;
            }
            continue;
        }
        int v = hex_value(text[i]);
        if (v < 0) {
            return false;
        }
        uint64_t *half = digits < 16 ? high : low;
        *half = *half << 4 | (uint64_t)v;
        digits++;
    }
    return text[36] == '\0';
}

/* The job's entry, made when it is missing; NULL when it is no UUID. */
static entry_t *find(ws_order_t *o, const char *job_id) {
    uint64_t high;
    uint64_t low;
    if (!parse_uuid(job_id, &high, &low) || (high == 0 && low == 0)) {
        return NULL;
    }
    /* Multiplication by an odd constant (2^64 divided by the golden ratio) spreads ids that differ in few bits. */
    uint64_t mixed = (high ^ (low * 0x9e3779b97f4a7c15U)) * 0x9e3779b97f4a7c15U;
    entry_t *set = &o->entries[(mixed >> 32 & (o->sets - 1)) * WAYS];
    entry_t *oldest = &set[0];
    o->clock++;
    for (int i = 0; i < WAYS; i++) {
        if (set[i].high == high && set[i].low == low) {
            set[i].used = o->clock;
            return &set[i];
        }
        if (set[i].used < oldest->used) {
            oldest = &set[i];
        }
    }
    *oldest = (entry_t){.high = high, .low = low, .used = o->clock};
    return oldest;
}

ws_order_verdict_t ws_order_event(ws_order_t *o, const char *job_id, int64_t seq) {
    ws_order_verdict_t v = {false, 0};
    entry_t *e = find(o, job_id);
    if (!e) {
        return v;
    }
    v.stale = seq <= e->seq;
    if (!v.stale) {
        e->seq = seq;
        v.snapshot = seq <= e->shown ? e->snapshot : 0;
    }
    return v;
}

void ws_order_snapshot(ws_order_t *o, const char *job_id, int64_t seq, uint64_t snapshot) {
    entry_t *e = find(o, job_id);
    if (e && seq > e->shown) {
        e->shown = seq;
        e->snapshot = snapshot;
    }
}
