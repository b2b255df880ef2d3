/*
 * What one run of the pipeline gives: the objects found, their measurements, and how they came to be. The pipeline
 * fills it; store.c puts it into the database and output/ writes it to files, so both always see the same numbers.
 *
 * Ownership: the result owns its objects, their geometries and the label image; result_free releases them all.
 * Thread-safe as long as one result belongs to one thread.
 */
#ifndef SG_SEGWORKER_RESULT_H
#define SG_SEGWORKER_RESULT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/geometry/measure.h"
#include "common/geometry/polygon.h"

#define RESULT_RECIPE_SIZE 160
#define RESULT_OPTIONS_SIZE 1024
#define RESULT_MAX_STAGES 12

typedef struct {
    uint32_t idx; /* 1..count; the value of the object's pixels in the label image */
    geom_t geom;  /* owned */
    measurements_t m;
    float confidence; /* 0..1 */
} result_object_t;

typedef struct {
    int width, height;        /* px of the image that was segmented */
    result_object_t *objects; /* NULL when they were handed out one by one */
    uint32_t count;
    int32_t *labels; /* width*height, 0 = background; may be NULL */
    char note[256];  /* words for the person, e.g. "only page 1 of 3 was used"; may be empty */
    char model[64], model_version[32], model_sha256[65];
    char recipe[RESULT_RECIPE_SIZE];   /* program and settings, see store.h; "" = not to be reused */
    char options[RESULT_OPTIONS_SIZE]; /* what else was chosen or held, see store.h; "" = {} */
    double threshold;
    bool detect_holes;
    int64_t min_area, max_area, max_hole_area; /* px; max_area 0 = no limit */
    const char *tta;                           /* test-time augmentation; static text, NULL in a zeroed result */
    double pixel_size_um;                      /* 0 = unknown */
    struct {
        char name[16];
        double seconds;
    } stages[RESULT_MAX_STAGES];
    int nstages;
} result_t;

/* Frees what the result owns and zeroes it. NULL and a zeroed result are fine. */
void result_free(result_t *r);

#endif
