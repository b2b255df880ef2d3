/*
 * A hash table of fixed size, open addressing over a short probe distance: the key is kept as a keyed 64-bit hash, so
 * that its length does not matter and nobody can choose keys that collide. Within the probe distance the entry that was
 * quiet longest is replaced.
 */
#include "rate.h"

#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBES 16

typedef struct {
    uint64_t key; /* 0: free */
    int64_t window_start_ms, last_ms;
    int64_t count;
} entry_t;

struct rate {
    pthread_mutex_t lock;
    unsigned char secret[32];
    size_t n;
    entry_t *entries;
};

rate_t *rate_create(int keys) {
    rate_t *r = calloc(1, sizeof *r);
    if (!r) {
        return NULL;
    }
    r->n = keys > PROBES ? (size_t)keys : PROBES;
    r->entries = calloc(r->n, sizeof *r->entries);
    if (!r->entries || RAND_bytes(r->secret, sizeof r->secret) != 1) {
        free(r->entries);
        free(r);
        return NULL;
    }
    pthread_mutex_init(&r->lock, NULL);
    return r;
}

void rate_destroy(rate_t *r) {
    if (r) {
        pthread_mutex_destroy(&r->lock);
        free(r->entries);
        free(r);
    }
}

static uint64_t hash_key(const rate_t *r, const char *kind, const char *key) {
    char text[512];
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int n = 0;
    uint64_t h = 0;
    (void)snprintf(text, sizeof text, "%s:%s", kind, key);
    if (HMAC(EVP_sha256(), r->secret, sizeof r->secret, (const unsigned char *)text, strlen(text), digest, &n) &&
        n >= 8) {
        memcpy(&h, digest, sizeof h);
    }
    return h ? h : 1;
}

/* The entry of key, or NULL; *room is where it would go. Lock held. */
static entry_t *find(rate_t *r, uint64_t key, entry_t **room) {
    entry_t *oldest = NULL;
    for (size_t i = 0; i < PROBES; i++) {
        entry_t *e = &r->entries[(key + i) % r->n];
        if (e->key == key) {
            return e;
        }
        if (!oldest || (e->key == 0 && oldest->key != 0) || (oldest->key != 0 && e->last_ms < oldest->last_ms)) {
            oldest = e;
        }
    }
    if (room) {
        *room = oldest;
    }
    return NULL;
}

bool rate_is_over(rate_t *r, const char *kind, const char *key, int64_t limit, int64_t now_ms, int *retry_after_s) {
    uint64_t h = hash_key(r, kind, key);
    bool over = false;
    pthread_mutex_lock(&r->lock);
    entry_t *e = find(r, h, NULL);
    if (e && now_ms - e->window_start_ms < RATE_WINDOW_MS && e->count >= limit) {
        over = true;
        int64_t left = e->window_start_ms + RATE_WINDOW_MS - now_ms;
        *retry_after_s = left > 1000 ? (int)((left + 999) / 1000) : 1;
    }
    pthread_mutex_unlock(&r->lock);
    return over;
}

void rate_count(rate_t *r, const char *kind, const char *key, int64_t now_ms) {
    uint64_t h = hash_key(r, kind, key);
    entry_t *room = NULL;
    pthread_mutex_lock(&r->lock);
    entry_t *e = find(r, h, &room);
    if (!e) {
        e = room;
        *e = (entry_t){.key = h, .window_start_ms = now_ms};
    } else if (now_ms - e->window_start_ms >= RATE_WINDOW_MS) {
        e->window_start_ms = now_ms;
        e->count = 0;
    }
    e->count++;
    e->last_ms = now_ms;
    pthread_mutex_unlock(&r->lock);
}

void rate_forget(rate_t *r, const char *kind, const char *key) {
    uint64_t h = hash_key(r, kind, key);
    pthread_mutex_lock(&r->lock);
    entry_t *e = find(r, h, NULL);
    if (e) {
        *e = (entry_t){0};
    }
    pthread_mutex_unlock(&r->lock);
}
