/*
 * Prometheus metrics in the text exposition format 0.0.4. Metrics are registered once at start (static
 * definitions in the module that owns them) and updated from any thread without locks where possible.
 * Base units, counters end in _total, label values come from small fixed sets only.
 */
#ifndef SG_METRICS_H
#define SG_METRICS_H

#include "buf.h"

typedef struct metric metric_t;

/* labels: comma-separated label names or NULL. The same name registered twice returns the same metric.
 * Never fails for a valid definition; aborts on a malformed one (a bug, found at start). */
metric_t *metrics_counter(const char *name, const char *help, const char *labels);
metric_t *metrics_gauge(const char *name, const char *help, const char *labels);
/* buckets: ascending upper bounds, n of them; NULL = default seconds buckets 1 ms … 60 s. */
metric_t *metrics_histogram(const char *name, const char *help, const char *labels, const double *buckets, int n);

/* label_values: NULL when the metric has no labels; else one string per label, in order. At most 256 series
 * per metric are kept; further ones are folded into the label value "other". */
void metrics_add(metric_t *m, const char *const *label_values, double v);
void metrics_set(metric_t *m, const char *const *label_values, double v);
void metrics_observe(metric_t *m, const char *const *label_values, double v);
double metrics_get(metric_t *m, const char *const *label_values);   /* counters and gauges */

/* A function called before each render to set gauges that are read from elsewhere (pool sizes…). */
typedef void (*metrics_collect_fn)(void *arg);
void metrics_on_collect(metrics_collect_fn fn, void *arg);
/* Forgets the pair; when it returns, fn is not running and will not run again. */
void metrics_off_collect(metrics_collect_fn fn, void *arg);

/* Writes every metric (process_* and build info included). */
void metrics_render(buf_t *out);

#endif
