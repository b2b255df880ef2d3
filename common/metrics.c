/*
 * Metrics registry (see metrics.h). A metric lives until the process ends. Its series are an array that only grows:
 * a reader finds a series without a lock (the count is published after the slot is filled), and values are atomics.
 * The lock is taken only to add a metric, a series or a collector.
 */
#include "metrics.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "metrics_process.h"

#ifndef SG_VERSION
#define SG_VERSION "unknown"
#endif

enum { LABELS_MAX = 6, SERIES_MAX = 256, LABEL_VALUE_MAX = 128, BUCKETS_MAX = 40, COLLECTORS_MAX = 32 };

typedef enum { KIND_COUNTER, KIND_GAUGE, KIND_HISTOGRAM } metric_kind_t;

typedef struct {
    uint64_t hash;
    char *values[LABELS_MAX];
    _Atomic uint64_t bits;     /* the value (a histogram's sum) as the bits of a double */
    _Atomic uint64_t counts[]; /* histogram only: observations per bucket, +Inf last; not cumulative */
} series_t;

struct metric {
    metric_t *next;
    metric_kind_t kind;
    char *name, *help;
    char *labels[LABELS_MAX];
    int nlabels;
    double *bounds;
    int nbounds;
    _Atomic(series_t *) series[SERIES_MAX + 1]; /* the last place is for "other" */
    atomic_int nseries;
};

typedef struct {
    metrics_collect_fn fn;
    void *arg;
} collector_t;

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER; /* metrics, and adding series */
static metric_t *registry, **registry_end = &registry;
static pthread_mutex_t collect_lock = PTHREAD_MUTEX_INITIALIZER; /* collectors, held while they run */
static collector_t collectors[COLLECTORS_MAX];
static int ncollectors;

static const double default_bounds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};

_Noreturn static void give_up(const char *why, const char *name) {
    log_event(LOG_ERROR, "metric definition is wrong", "why", why, "metric", name, NULL);
    abort();
}

static void *must_alloc(size_t n) {
    void *p = calloc(1, n);
    if (!p) {
        give_up("out of memory", "");
    }
    return p;
}

static char *must_copy(const char *s, size_t n) {
    char *p = must_alloc(n + 1);
    memcpy(p, s, n);
    return p;
}

static bool is_name(const char *s, size_t n, bool colon) {
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (colon && c == ':');
        if (!letter && !(i > 0 && c >= '0' && c <= '9')) {
            return false;
        }
    }
    return n > 0;
}

static bool ends_with(const char *s, const char *tail) {
    size_t n = strlen(s);
    size_t k = strlen(tail);
    return n >= k && strcmp(s + n - k, tail) == 0;
}

static void parse_labels(metric_t *m, const char *labels) {
    for (const char *p = labels; p && *p;) {
        size_t n = strcspn(p, ",");
        if (m->nlabels == LABELS_MAX || !is_name(p, n, false)) {
            give_up("label names", m->name);
        }
        m->labels[m->nlabels++] = must_copy(p, n);
        p += n;
        p += *p == ',';
    }
}

static series_t *new_series(const metric_t *m, uint64_t hash, const char *const *values) {
    size_t ncounts = m->kind == KIND_HISTOGRAM ? (size_t)m->nbounds + 1 : 0;
    series_t *s = calloc(1, sizeof *s + ncounts * sizeof s->counts[0]);
    if (!s) {
        return NULL;
    }
    s->hash = hash;
    for (int i = 0; i < m->nlabels; i++) {
        s->values[i] = strndup(values[i], LABEL_VALUE_MAX);
        if (!s->values[i]) {
            for (int k = 0; k < i; k++) {
                free(s->values[k]);
            }
            free(s);
            return NULL;
        }
    }
    return s;
}

static metric_t *find_metric(const char *name) {
    for (metric_t *m = registry; m; m = m->next) {
        if (strcmp(m->name, name) == 0) {
            return m;
        }
    }
    return NULL;
}

static void same_or_give_up(const metric_t *m, const metric_t *want) {
    bool same = m->kind == want->kind && m->nlabels == want->nlabels && m->nbounds == want->nbounds;
    for (int i = 0; same && i < m->nlabels; i++) {
        same = strcmp(m->labels[i], want->labels[i]) == 0;
    }
    for (int i = 0; same && i < m->nbounds; i++) {
        same = m->bounds[i] == want->bounds[i];
    }
    if (!same) {
        give_up("defined twice in different ways", m->name);
    }
}

static void free_metric(metric_t *m) {
    for (int i = 0; i < m->nlabels; i++) {
        free(m->labels[i]);
    }
    free(m->bounds);
    free(m->name);
    free(m->help);
    free(m);
}

static metric_t *define(metric_kind_t kind, const char *name, const char *help, const char *labels,
                        const double *bounds, int nbounds) {
    if (!is_name(name, strlen(name), true) || (kind == KIND_COUNTER) != ends_with(name, "_total")) {
        give_up("name", name);
    }
    metric_t *m = must_alloc(sizeof *m);
    m->kind = kind;
    m->name = must_copy(name, strlen(name));
    m->help = must_copy(help, strlen(help));
    parse_labels(m, labels);
    if (nbounds > 0) {
        m->bounds = must_alloc((size_t)nbounds * sizeof m->bounds[0]);
        m->nbounds = nbounds;
        for (int i = 0; i < nbounds; i++) {
            m->bounds[i] = bounds[i];
            if (!isfinite(bounds[i]) || (i > 0 && bounds[i] <= bounds[i - 1])) {
                give_up("buckets", name);
            }
        }
    }
    pthread_mutex_lock(&registry_lock);
    metric_t *known = find_metric(name);
    if (known) {
        same_or_give_up(known, m);
    } else {
        if (m->nlabels == 0) { /* shown from the start, as 0 */
            series_t *s = new_series(m, 0, NULL);
            if (!s) {
                give_up("out of memory", name);
            }
            atomic_store(&m->series[0], s);
            atomic_store(&m->nseries, 1);
        }
        *registry_end = m;
        registry_end = &m->next;
    }
    pthread_mutex_unlock(&registry_lock);
    if (known) {
        free_metric(m);
        return known;
    }
    return m;
}

metric_t *metrics_counter(const char *name, const char *help, const char *labels) {
    return define(KIND_COUNTER, name, help, labels, NULL, 0);
}

metric_t *metrics_gauge(const char *name, const char *help, const char *labels) {
    return define(KIND_GAUGE, name, help, labels, NULL, 0);
}

metric_t *metrics_histogram(const char *name, const char *help, const char *labels, const double *buckets, int n) {
    if (!buckets) {
        buckets = default_bounds;
        n = (int)(sizeof default_bounds / sizeof default_bounds[0]);
    }
    if (n < 1 || n > BUCKETS_MAX) {
        give_up("number of buckets", name);
    }
    return define(KIND_HISTOGRAM, name, help, labels, buckets, n);
}

/* FNV-1a over the label values, each cut as it is stored and ended by a zero byte. */
static uint64_t hash_values(const metric_t *m, const char *const *values) {
    uint64_t h = 0xCBF29CE484222325ULL;
    for (int i = 0; i < m->nlabels; i++) {
        size_t n = strnlen(values[i], LABEL_VALUE_MAX);
        for (size_t k = 0; k <= n; k++) {
            h ^= k < n ? (unsigned char)values[i][k] : 0U;
            h *= 0x100000001B3ULL;
        }
    }
    return h;
}

static series_t *find_series(metric_t *m, uint64_t hash, const char *const *values) {
    int n = atomic_load_explicit(&m->nseries, memory_order_acquire);
    for (int i = 0; i < n; i++) {
        series_t *s = atomic_load_explicit(&m->series[i], memory_order_relaxed);
        if (s->hash != hash) {
            continue;
        }
        int k = 0;
        while (k < m->nlabels && strncmp(s->values[k], values[k], LABEL_VALUE_MAX) == 0) {
            k++;
        }
        if (k == m->nlabels) {
            return s;
        }
    }
    return NULL;
}

/* The series for these label values; NULL when memory is gone (the update is lost, the program goes on). */
static series_t *get_series(metric_t *m, const char *const *values) {
    if (m->nlabels == 0) {
        return atomic_load_explicit(&m->series[0], memory_order_acquire);
    }
    if (!values) {
        give_up("label values are missing", m->name);
    }
    uint64_t hash = hash_values(m, values);
    series_t *s = find_series(m, hash, values);
    if (s) {
        return s;
    }
    pthread_mutex_lock(&registry_lock);
    s = find_series(m, hash, values); /* another thread may have added it */
    int n = atomic_load_explicit(&m->nseries, memory_order_relaxed);
    if (!s && n >= SERIES_MAX) {
        static const char *const other[LABELS_MAX] = {"other", "other", "other", "other", "other", "other"};
        values = other;
        hash = hash_values(m, values);
        s = find_series(m, hash, values);
    }
    if (!s && n <= SERIES_MAX) {
        s = new_series(m, hash, values);
        if (s) {
            atomic_store_explicit(&m->series[n], s, memory_order_relaxed);
            atomic_store_explicit(&m->nseries, n + 1, memory_order_release);
        }
    }
    pthread_mutex_unlock(&registry_lock);
    return s;
}

static double bits_to_double(uint64_t bits) {
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static uint64_t double_to_bits(double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static void add_double(_Atomic uint64_t *at, double v) {
    uint64_t old = atomic_load_explicit(at, memory_order_relaxed);
    uint64_t new_bits;
    do {
        new_bits = double_to_bits(bits_to_double(old) + v);
    } while (!atomic_compare_exchange_weak_explicit(at, &old, new_bits, memory_order_relaxed, memory_order_relaxed));
}

void metrics_add(metric_t *m, const char *const *label_values, double v) {
    if (m->kind == KIND_COUNTER && !(v >= 0)) {
        return; /* a counter never falls */
    }
    series_t *s = get_series(m, label_values);
    if (s) {
        add_double(&s->bits, v);
    }
}

void metrics_set(metric_t *m, const char *const *label_values, double v) {
    series_t *s = get_series(m, label_values);
    if (s) {
        atomic_store_explicit(&s->bits, double_to_bits(v), memory_order_relaxed);
    }
}

void metrics_observe(metric_t *m, const char *const *label_values, double v) {
    if (m->kind != KIND_HISTOGRAM) {
        give_up("observed, but no histogram", m->name);
    }
    series_t *s = get_series(m, label_values);
    if (!s || isnan(v)) {
        return;
    }
    int i = 0;
    while (i < m->nbounds && v > m->bounds[i]) {
        i++;
    }
    atomic_fetch_add_explicit(&s->counts[i], 1, memory_order_relaxed);
    add_double(&s->bits, v);
}

double metrics_get(metric_t *m, const char *const *label_values) {
    series_t *s = get_series(m, label_values);
    return s ? bits_to_double(atomic_load_explicit(&s->bits, memory_order_relaxed)) : 0;
}

void metrics_on_collect(metrics_collect_fn fn, void *arg) {
    pthread_mutex_lock(&collect_lock);
    if (ncollectors == COLLECTORS_MAX) {
        give_up("too many collectors", "");
    }
    collectors[ncollectors++] = (collector_t){.fn = fn, .arg = arg};
    pthread_mutex_unlock(&collect_lock);
}

void metrics_off_collect(metrics_collect_fn fn, void *arg) {
    pthread_mutex_lock(&collect_lock);
    for (int i = 0; i < ncollectors; i++) {
        if (collectors[i].fn == fn && collectors[i].arg == arg) {
            memmove(&collectors[i], &collectors[i + 1], (size_t)(ncollectors - i - 1) * sizeof collectors[0]);
            ncollectors--;
            break;
        }
    }
    pthread_mutex_unlock(&collect_lock);
}

/* The shortest of two forms that reads back as the same number. */
static void put_number(buf_t *out, double v) {
    if (isnan(v)) {
        buf_puts(out, "NaN");
        return;
    }
    if (isinf(v)) {
        buf_puts(out, v > 0 ? "+Inf" : "-Inf");
        return;
    }
    char text[40];
    (void)snprintf(text, sizeof text, "%.15g", v);
    if (strtod(text, NULL) != v) {
        (void)snprintf(text, sizeof text, "%.17g", v);
    }
    buf_puts(out, text);
}

static void put_escaped(buf_t *out, const char *s, bool quotes) {
    for (; *s; s++) {
        if (*s == '\\') {
            buf_puts(out, "\\\\");
        } else if (*s == '\n') {
            buf_puts(out, "\\n");
        } else if (*s == '"' && quotes) {
            buf_puts(out, "\\\"");
        } else {
            buf_append(out, s, 1);
        }
    }
}

/* {a="x",b="y",le="…"}; le may be NULL. */
static void put_labels(buf_t *out, const metric_t *m, const series_t *s, const double *le) {
    if (m->nlabels == 0 && !le) {
        return;
    }
    const char *sep = "{";
    for (int i = 0; i < m->nlabels; i++) {
        buf_printf(out, "%s%s=\"", sep, m->labels[i]);
        put_escaped(out, s->values[i], true);
        buf_puts(out, "\"");
        sep = ",";
    }
    if (le) {
        buf_printf(out, "%sle=\"", sep);
        put_number(out, *le);
        buf_puts(out, "\"");
    }
    buf_puts(out, "}");
}

static void put_line(buf_t *out, const metric_t *m, const char *suffix, const series_t *s, const double *le, double v) {
    buf_printf(out, "%s%s", m->name, suffix);
    put_labels(out, m, s, le);
    buf_puts(out, " ");
    put_number(out, v);
    buf_puts(out, "\n");
}

static void put_histogram(buf_t *out, const metric_t *m, series_t *s) {
    uint64_t sum = 0;
    for (int i = 0; i <= m->nbounds; i++) {
        sum += atomic_load_explicit(&s->counts[i], memory_order_relaxed);
        double le = i < m->nbounds ? m->bounds[i] : (double)INFINITY;
        put_line(out, m, "_bucket", s, &le, (double)sum);
    }
    put_line(out, m, "_sum", s, NULL, bits_to_double(atomic_load_explicit(&s->bits, memory_order_relaxed)));
    put_line(out, m, "_count", s, NULL, (double)sum);
}

static void put_metric(buf_t *out, metric_t *m) {
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    buf_printf(out, "# HELP %s ", m->name);
    put_escaped(out, m->help, false);
    buf_printf(out, "\n# TYPE %s %s\n", m->name, kinds[m->kind]);
    int n = atomic_load_explicit(&m->nseries, memory_order_acquire);
    for (int i = 0; i < n; i++) {
        series_t *s = atomic_load_explicit(&m->series[i], memory_order_relaxed);
        if (m->kind == KIND_HISTOGRAM) {
            put_histogram(out, m, s);
        } else {
            put_line(out, m, "", s, NULL, bits_to_double(atomic_load_explicit(&s->bits, memory_order_relaxed)));
        }
    }
}

void metrics_render(buf_t *out) {
    pthread_mutex_lock(&collect_lock);
    for (int i = 0; i < ncollectors; i++) {
        collectors[i].fn(collectors[i].arg);
    }
    pthread_mutex_unlock(&collect_lock);

    metric_t *info = metrics_gauge("spheroseg_build_info", "The version that runs; always 1.", "version");
    metrics_set(info, (const char *const[]){SG_VERSION}, 1);

    pthread_mutex_lock(&registry_lock);
    metric_t *first = registry;
    metric_t **end = registry_end;
    pthread_mutex_unlock(&registry_lock);
    /* Metrics are never removed, so the list up to `end` may be walked without the lock. */
    for (metric_t *m = first; m; m = &m->next == end ? NULL : m->next) {
        put_metric(out, m);
    }
    metrics_put_process(out);
}
