/*
 * What can be chosen for one job, with the model's own values where nothing was chosen.
 */
#ifndef SG_PIPELINE_OPTIONS_H
#define SG_PIPELINE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/job_choice.h"
#include "segworker/models.h"

/* As asked for: NaN and negative numbers mean the model's own value. */
typedef struct job_options {
    double threshold;      /* 0..1, both excluded */
    bool detect_holes;     /* false: every hole is filled */
    int64_t max_hole_area; /* px; holes up to this size are filled in any case */
    int64_t min_area;      /* px; smaller objects are left out */
    int64_t max_area;      /* px; so are larger ones; 0 = no limit */
    int tta;               /* model_tta_t */
} job_options_t;
#define JOB_OPTIONS_DEFAULT                                                                                            \
    ((job_options_t){                                                                                                  \
        .threshold = NAN, .detect_holes = true, .max_hole_area = -1, .min_area = -1, .max_area = -1, .tta = -1})

/* As they hold for a run; areas in px of what is labelled. */
typedef struct {
    double threshold, seed_threshold, small_seed_threshold, dist_sigma, nms_threshold;
    double min_confidence; /* objects whose mean foreground probability is lower are left out */
    int64_t seed_min_area, small_area, min_area, max_area, max_hole_area; /* max_area 0 = no limit */
    bool detect_holes, drop_border;
    model_tta_t tta;
} run_options_t;

/* ERR_INVALID "threshold_out_of_range", "option_invalid". */
ERR_MUST err_kind_t options_settle(const model_spec_t *spec, const job_options_t *asked, run_options_t *out,
                                   err_t *err);

/* What was asked for with a job; threshold may be NaN. */
job_options_t options_asked(double threshold, bool detect_holes, const job_choice_t *choice);

/* What holds for a run besides threshold and holes, and the plane, as a JSON object (proto/openapi.yaml, JobOptions)
 * that is the same text for the same values: part of the key under which results are reused. */
void options_write(const run_options_t *o, const image_select_t *plane, buf_t *out);

/* What may be chosen for jobs of the model, and its own values, as JSON (proto/openapi.yaml, Model.options). */
void options_write_offer(const model_spec_t *spec, buf_t *out);

/* The same for an image that is reduced by `factor`: areas shrink with it. */
run_options_t options_reduced(const run_options_t *o, double factor);

#endif
