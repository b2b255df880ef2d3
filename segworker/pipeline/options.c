/* See options.h. */
#include "segworker/pipeline/options.h"

#include <inttypes.h>
#include <math.h>

static int64_t own_or(int64_t asked, int64_t own) {
    return asked >= 0 ? asked : own;
}

err_kind_t options_settle(const model_spec_t *spec, const job_options_t *asked, run_options_t *out, err_t *err) {
    *out = (run_options_t){.threshold = isnan(asked->threshold) ? spec->threshold : asked->threshold,
                           .seed_threshold = spec->seed_threshold,
                           .small_seed_threshold = spec->small_seed_threshold,
                           .min_confidence = spec->min_confidence,
                           .small_area = spec->small_area,
                           .dist_sigma = spec->dist_sigma,
                           .nms_threshold = spec->nms_threshold,
                           .seed_min_area = spec->seed_min_area,
                           .min_area = own_or(asked->min_area, spec->min_area),
                           .max_area = own_or(asked->max_area, 0),
                           .max_hole_area = own_or(asked->max_hole_area, spec->max_hole_area),
                           .detect_holes = asked->detect_holes,
                           .drop_border = spec->drop_border,
                           .tta = asked->tta >= 0 ? (model_tta_t)asked->tta : spec->net.tta};
    if (!(out->threshold > 0 && out->threshold < 1)) {
        return err_set(err, ERR_INVALID, "threshold_out_of_range", "The threshold must lie between 0 and 1.", "%g",
                       out->threshold);
    }
    if (out->threshold < spec->threshold) {
        /* who asks for fainter objects gets them */
        out->min_confidence *= out->threshold / spec->threshold;
    }
    if (out->max_area > 0 && out->max_area < out->min_area) {
        return err_setf(err, ERR_INVALID, "option_invalid",
                        "The largest area of an object, %lld px, is smaller than the smallest, %lld px.",
                        (long long)out->max_area, (long long)out->min_area);
    }
    const char *why = model_tta_refused(&spec->net, spec->output == MODEL_OUTPUT_LABELS,
                                        spec->output == MODEL_OUTPUT_STAR_CONVEX, out->tta);
    if (why) {
        return err_setf(err, ERR_INVALID, "option_invalid",
                        "Test-time augmentation cannot be used with the model \"%.60s\": %s.", spec->name, why);
    }
    return ERR_OK;
}

job_options_t options_asked(double threshold, bool detect_holes, const job_choice_t *choice) {
    return (job_options_t){.threshold = threshold,
                           .detect_holes = detect_holes,
                           .max_hole_area = choice->max_hole_area,
                           .min_area = choice->min_area,
                           .max_area = choice->max_area,
                           .tta = choice->augment};
}

void options_write(const run_options_t *o, const image_select_t *plane, buf_t *out) {
    buf_printf(out, "{\"minArea\":%" PRId64 ",\"maxArea\":%" PRId64 ",\"maxHoleArea\":%" PRId64 ",\"augment\":\"%s\"",
               o->min_area, o->max_area, o->max_hole_area, model_tta_name(o->tta));
    job_choice_write_plane(plane, out);
    buf_puts(out, "}");
}

void options_write_offer(const model_spec_t *spec, buf_t *out) {
    const bool labels = spec->output == MODEL_OUTPUT_LABELS, star = spec->output == MODEL_OUTPUT_STAR_CONVEX;
    buf_printf(out, "{\"minArea\":%" PRId64 ",\"maxHoleArea\":%" PRId64 ",\"augment\":\"%s\",\"augments\":[",
               spec->min_area, spec->max_hole_area, model_tta_name(spec->net.tta));
    for (int i = 0; job_choice_augments[i]; i++) {
        if (!model_tta_refused(&spec->net, labels, star, (model_tta_t)i)) {
            buf_printf(out, "%s\"%s\"", i > 0 ? "," : "", job_choice_augments[i]);
        }
    }
    buf_puts(out, "]}");
}

static int64_t shrink(int64_t area, double factor) {
    return (int64_t)ceil((double)area / (factor * factor));
}

run_options_t options_reduced(const run_options_t *o, double factor) {
    run_options_t r = *o;
    r.seed_min_area = shrink(o->seed_min_area, factor);
    r.small_area = shrink(o->small_area, factor);
    r.min_area = shrink(o->min_area, factor);
    r.max_area = shrink(o->max_area, factor);
    r.max_hole_area = (int64_t)((double)o->max_hole_area / (factor * factor));
    r.dist_sigma = o->dist_sigma / factor;
    return r;
}
