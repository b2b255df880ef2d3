/*
 * The submit route. Nearly always the image is the caller's, has no unfinished job, and the queue is far below its
 * bounds: then the job is written as one of a group (submit_group.h). Whatever that does not decide is done here, by
 * itself, in a transaction of its own: it finds out what there is to say, or makes the job.
 *
 * An Idempotency-Key is written in the transaction of its job, with the facts of the answer, on both ways: a gateway
 * that dies after the commit leaves a key that answers, one that dies before it leaves no key. The position is no fact;
 * a repeated answer says that it is unknown.
 */
#include "submit_one.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "route_util.h"
#include "submit.h"
#include "submit_bounds.h"
#include "submit_group.h"

typedef struct {
    const submit_request_t *sr;
    http_key_t key;
    submit_result_t job;
    int position;
    http_kept_t kept; /* status != 0: this was answered before */
} submit_one_t;

/* Is the image the caller's, and may the job be made? */
static err_kind_t check_image(http_request_t *req, pg_conn_t *conn, const submit_request_t *sr, err_t *err) {
    PGresult *res = NULL;
    err_kind_t kind =
        pg_exec(conn,
                "SELECT p.id, EXISTS (SELECT 1 FROM jobs j WHERE j.image_id = i.id AND j.state IN ('queued', "
                "'active', 'delayed')) AS busy FROM images i JOIN projects p ON p.id = i.project_id WHERE i.id = "
                "$1 AND p.owner_id = $2",
                2, (const char *const[]){req->params[0], req->user.id}, &res, err);
    if (kind == ERR_OK && PQntuples(res) == 0) {
        kind = route_not_found(err, "image");
    }
    if (kind == ERR_OK) {
        /* An image that has an unfinished job gets no further one, so a full queue is no reason to refuse. */
        const int wanted = pg_get_bool(res, 0, "busy") ? 0 : 1;
        kind = submit_check(req->gw, conn, req->user.id, pg_get(res, 0, "id"), sr, wanted, err);
    }
    if (kind == ERR_OK && job_choice_has_plane(&sr->choice)) {
        char ids[48];
        (void)snprintf(ids, sizeof ids, "{%s}", req->params[0]);
        kind = submit_check_plane(conn, pg_get(res, 0, "id"), ids, false, sr, err);
    }
    PQclear(res);
    return kind;
}

static err_kind_t keep_answer(http_request_t *req, pg_conn_t *conn, const submit_one_t *s, err_t *err) {
    char body[SUBMIT_BODY_SIZE];
    submit_body(&s->job, -1, body);
    return http_key_store(req, conn, &s->key, 202, body, err);
}

/* By itself, in one transaction when there is a key. */
static err_kind_t accept_alone(http_request_t *req, submit_one_t *s, err_t *err) {
    pg_conn_t *conn = NULL;
    const bool keyed = s->key.key != NULL;
    err_kind_t kind = pg_acquire(req->gw->pg, &conn, err);
    if (kind == ERR_OK && keyed) {
        kind = pg_begin(conn, err);
    }
    if (kind == ERR_OK && keyed) {
        kind = http_key_claim(req, conn, &s->key, &s->kept, err);
    }
    if (kind != ERR_OK || s->kept.status != 0) {
        pg_release(conn); /* rolls back */
        return kind;
    }
    kind = check_image(req, conn, s->sr, err);
    if (kind == ERR_OK) {
        kind = submit_image(req->gw, conn, req->user.id, req->params[0], s->sr, &s->job, err);
    }
    if (kind == ERR_OK && keyed) {
        kind = keep_answer(req, conn, s, err);
    }
    if (kind == ERR_OK && keyed) {
        kind = pg_commit(conn, err);
    }
    pg_release(conn);
    if (kind == ERR_OK) {
        submit_enqueue(req->gw, &s->job, &s->position);
    }
    return kind;
}

static err_kind_t accept(http_request_t *req, submit_one_t *s, err_t *err) {
    const config_t *cfg = req->gw->cfg;
    /* What has to be looked up about the image or the model goes by itself. */
    const bool plain = !job_choice_has_plane(&s->sr->choice) && s->sr->choice.augment <= 0;
    if (plain && submit_bounds_far(NULL, cfg->max_queued_total, 1) &&
        submit_bounds_far(req->user.id, cfg->max_queued_per_user, 1)) {
        submit_item_t item = {.user_id = req->user.id, .image_id = req->params[0], .request = s->sr, .key = s->key};
        submit_group_run(req->gw, &item);
        if (item.outcome == SUBMIT_FAILED) {
            *err = item.error;
            return err->kind;
        }
        if (item.outcome == SUBMIT_ACCEPTED) {
            s->job = item.job;
            s->position = item.position;
            return ERR_OK;
        }
    }
    return accept_alone(req, s, err);
}

static void add_location(http_request_t *req, const char *job_id) {
    const char *location = arena_printf(req->arena, "/api/segmentation/job/%s", job_id);
    if (location) {
        http_add_header(req, "Location", location);
    }
}

static err_kind_t repeat_answer(http_request_t *req, const http_kept_t *kept) {
    cJSON *json = cJSON_Parse(kept->body);
    const char *job_id = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "jobId"));
    if (job_id) {
        add_location(req, job_id);
    }
    cJSON_Delete(json);
    return http_key_replay(req, kept);
}

err_kind_t submit_one_route(http_request_t *req, err_t *err) {
    cJSON *body = NULL;
    submit_request_t sr;
    submit_one_t s = {.sr = &sr, .position = -1};
    err_kind_t kind = http_read_json(req, ROUTE_BODY_MAX, true, &body, err);
    if (kind == ERR_OK) {
        kind = submit_parse(body, &sr, err);
    }
    if (kind == ERR_OK) {
        kind = http_key_read(req, &s.key, err);
    }
    if (kind == ERR_OK) {
        kind = accept(req, &s, err);
    }
    cJSON_Delete(body);
    if (kind != ERR_OK) {
        return route_retry_after(req, kind, 5);
    }
    if (s.kept.status != 0) {
        return repeat_answer(req, &s.kept);
    }
    char text[SUBMIT_BODY_SIZE];
    submit_body(&s.job, s.position, text);
    add_location(req, s.job.job_id);
    return http_reply_text(req, 202, "application/json", text, strlen(text));
}
