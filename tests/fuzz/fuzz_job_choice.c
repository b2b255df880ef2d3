/*
 * What was chosen for a job, as JSON from a request or a row. What is accepted is within its bounds, and its canonical
 * form means the same and is its own canonical form.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/job_choice.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_area(int64_t v) {
    if (v < -1 || (double)v > JOB_CHOICE_AREA_MAX) {
        abort();
    }
}

static void check_bounds(const job_choice_t *c) {
    int known = 0;
    while (job_choice_augments[known]) {
        known++;
    }
    check_area(c->min_area);
    check_area(c->max_area);
    check_area(c->max_hole_area);
    if (c->max_area == 0 || c->augment < -1 || c->augment >= known || c->plane.page < 0 || c->plane.channel < -1 ||
        c->plane.weights < 0 || c->plane.z < -1 || c->plane.t < -1) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    job_choice_t c, again;
    buf_t once, twice;
    err_t err;
    char *text = malloc(size + 1);
    if (!text) {
        return 0;
    }
    memcpy(text, data, size);
    text[size] = '\0';
    buf_init(&once, 1 << 16);
    buf_init(&twice, 1 << 16);
    err_clear(&err);
    if (job_choice_parse_text(text, &c, &err) == ERR_OK) {
        check_bounds(&c);
        job_choice_write(&c, &once);
        if (once.failed || once.len >= JOB_CHOICE_TEXT_MAX ||
            job_choice_parse_text(once.data, &again, &err) != ERR_OK) {
            abort();
        }
        job_choice_write(&again, &twice);
        if (twice.len != once.len || memcmp(once.data, twice.data, once.len) != 0 ||
            job_choice_has_plane(&c) != job_choice_has_plane(&again)) {
            abort();
        }
    } else if (err.code[0] == '\0' || err.message[0] == '\0') {
        abort();
    }
    buf_free(&once);
    buf_free(&twice);
    free(text);
    return 0;
}
