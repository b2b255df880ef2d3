/*
 * What a person chose for a job besides its model, threshold and handling of holes: sizes of objects, test-time
 * augmentation, and which plane of the file is segmented. It travels as a JSON object: in requests and answers
 * (proto/openapi.yaml, JobOptions), in jobs.options, and to the worker. There everything counts from 1; here from 0.
 *
 * Pure functions, thread-safe.
 */
#ifndef SG_JOB_CHOICE_H
#define SG_JOB_CHOICE_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"
#include "image/region.h"

enum { JOB_CHOICE_TEXT_MAX = 1024 }; /* bytes of the JSON, with its NUL */
#define JOB_CHOICE_AREA_MAX 1e12     /* px */

typedef struct {
    int64_t min_area, max_area, max_hole_area; /* px; -1 = the model's own. max_area 0 never occurs: no limit is -1 */
    int augment;                               /* place in job_choice_augments; -1 = the model's own */
    image_select_t plane;
} job_choice_t;
#define JOB_CHOICE_DEFAULT                                                                                             \
    ((job_choice_t){.min_area = -1, .max_area = -1, .max_hole_area = -1, .augment = -1, .plane = IMAGE_SELECT_DEFAULT})

/* "none", "flips", "rotations"; ends with NULL. */
extern const char *const job_choice_augments[];

/* NULL stands for {}; a field that is null for one that is absent. ERR_INVALID "field_invalid" names the field, its
 * range, or the fields that cannot be given together; "field_unknown". */
ERR_MUST err_kind_t job_choice_parse(const cJSON *options, job_choice_t *out, err_t *err);
/* The same from text; NULL and "" stand for {}. */
ERR_MUST err_kind_t job_choice_parse_text(const char *json, job_choice_t *out, err_t *err);

/* The canonical form: the same choice always gives the same text; what is as by default is left out. */
void job_choice_write(const job_choice_t *c, buf_t *out);
/* The fields of the plane alone, each with a comma before it. */
void job_choice_write_plane(const image_select_t *plane, buf_t *out);

/* Is another plane chosen than the one that is taken without a choice? */
bool job_choice_has_plane(const job_choice_t *c);

#endif
