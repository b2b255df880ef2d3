/*
 * How a job comes into being: the request's parameters checked against what workers offer and against the bounds of the
 * queue, the row inserted. Shared by the single and the batch trigger, by uploads that ask for segmentation and by the
 * sample project. The caller commits, then calls submit_enqueue (I1: accepted means kept).
 */
#ifndef SG_GATEWAY_SUBMIT_H
#define SG_GATEWAY_SUBMIT_H

#include "gateway/http.h"

typedef struct {
    int priority;      /* 1..10 */
    const char *model; /* NULL: the project's default, else the model that fits best by its name */
    double threshold;  /* NaN: the project's default, else the model's own */
    int detect_holes;  /* 0, 1, or -1: as the project says */
    job_choice_t choice;
    char options[JOB_CHOICE_TEXT_MAX]; /* the choice in its canonical form */
} submit_request_t;

typedef struct {
    char job_id[37], image_id[37], project_id[37], user_id[37], model[64], state[16];
    int priority;
    bool existing; /* an unfinished job was already there */
} submit_result_t;

/* The defaults: priority 5 and everything else as the project says. */
void submit_defaults(submit_request_t *sr);
/* Fields of SegmentRequest; model points into the JSON. ERR_INVALID "field_invalid", "field_unknown". */
ERR_MUST err_kind_t submit_parse(const cJSON *body, submit_request_t *sr, err_t *err);

/* May `wanted` more jobs of this user be accepted for the project? ERR_LIMIT "queue_full_user", ERR_UNAVAILABLE
 * "queue_full", ERR_UNAVAILABLE "no_model_available", ERR_INVALID "model_unknown" (422) with what there is, ERR_INVALID
 * "model_option_refused" (422) for a test-time augmentation that the model does not take. */
ERR_MUST err_kind_t submit_check(gateway_t *gw, pg_conn_t *conn, const char *user_id, const char *project_id,
                                 const submit_request_t *sr, int wanted, err_t *err);

/* Does each image have the plane that was chosen? uuid_array and only_missing as for submit_batch. What the database
 * does not know of an image (it is older than that column) the worker finds out. ERR_INVALID "image_no_such_plane"
 * (422) names the field, its range and an image. */
ERR_MUST err_kind_t submit_check_plane(pg_conn_t *conn, const char *project_id, const char *uuid_array,
                                       bool only_missing, const submit_request_t *sr, err_t *err);

/* Inserts the job of one image, inside the caller's transaction or as a statement of its own. An unfinished job of the
 * image is returned instead. submit_check has passed. ERR_NOT_FOUND when the image is not there (any more). */
ERR_MUST err_kind_t submit_image(gateway_t *gw, pg_conn_t *conn, const char *user_id, const char *image_id,
                                 const submit_request_t *sr, submit_result_t *out, err_t *err);

/* Many images of a project at once. uuid_array: '{…}' or NULL for the whole project (the 10,000 oldest that have no
 * unfinished job). ERR_NOT_FOUND when an id is none of the project's. Inside the caller's transaction. */
typedef struct {
    char batch_id[37];
    int accepted, already_queued;
} submit_batch_t;
ERR_MUST err_kind_t submit_batch(gateway_t *gw, pg_conn_t *conn, const char *user_id, const char *project_id,
                                 const char *uuid_array, int distinct_ids, bool only_missing,
                                 const submit_request_t *sr, submit_batch_t *out, err_t *err);

/* After the commit; never fails: what Redis does not take now, the sweeper puts there. *position: -1 when unknown. */
void submit_enqueue(gateway_t *gw, const submit_result_t *result, int *position);

#endif
