/*
 * Group commit for the submit route: requests that arrive while others are being written are written together by the
 * next one, as one statement in one transaction, and put into Redis together. A request that finds nobody writing goes
 * at once, alone. See submit_group.c.
 */
#ifndef SG_GATEWAY_SUBMIT_GROUP_H
#define SG_GATEWAY_SUBMIT_GROUP_H

#include <semaphore.h>

#include "submit.h"

typedef enum {
    SUBMIT_ACCEPTED,  /* committed; Redis has it, or the outbox */
    SUBMIT_UNDECIDED, /* nothing was changed: the way of one job by itself does it, or says why not */
    SUBMIT_FAILED,    /* the database went away: see error. Nobody knows whether it was committed, as with any commit */
} submit_outcome_t;

enum { SUBMIT_BODY_SIZE = 256 };

/* One request. Lives on its thread's stack until submit_group_run returns. */
typedef struct submit_item {
    const char *user_id, *image_id;
    const submit_request_t *request;
    http_key_t key; /* its row is written with the job */

    submit_outcome_t outcome;
    submit_result_t job; /* job.job_id is chosen before the job is written */
    int position;        /* -1: unknown */
    err_t error;

    sem_t wake; /* what follows is the group's own */
    int place;  /* >= 0: it leads */
    struct submit_item *next;
} submit_item_t;

/* Writes the job of item->image_id, if the image is the user's, has no unfinished job, the model is there, and the key
 * was never seen; bounds have been checked. Thread-safe; blocks until it is decided. */
void submit_group_run(gateway_t *gw, submit_item_t *item);

/* The answer to a new or existing job. position < 0: unknown. */
void submit_body(const submit_result_t *job, int position, char out[SUBMIT_BODY_SIZE]);

#endif
