/*
 * One statement for many jobs. Each row stands for itself: who does not own the image, whose image has an unfinished
 * job or is locked by somebody (a deletion, say), whose model is unknown or whose key was seen before is left out, and
 * the others go on. Job ids are chosen here, so that the rows that come back are told apart even when two requests
 * name the same image.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/uuid.h"
#include "submit_group_sql.h"
#include "submit_sql.h"

/* Arrays are filled up to this length with NULLs: the planner takes an array that it does not know for ten elements, so
 * a plan for the very values is never the cheaper one, and PostgreSQL keeps the one it has instead of planning anew. */
enum { LEAST = 12 };

/* Each image and its project by their keys (IS TRUE: not by the owner's other projects), one after the other, whatever
 * the planner believes about the size of the tables. The lock is the one that the new latest_job_id needs anyway; taken
 * here it lets the others of the group go on. */
#define PICK(condition)                                                                                                \
    "pick AS (SELECT w.*, x.project_id, x.chosen, x.default_threshold, x.detect_holes FROM want w CROSS JOIN LATERAL " \
    "(SELECT i.project_id, p.default_threshold, p.detect_holes, " SUBMIT_MODEL_FOR(                                    \
        "w.model") " AS chosen "                                                                                       \
                   "FROM images i JOIN projects p ON p.id = i.project_id WHERE i.id = w.image_id AND "                 \
                   "(p.owner_id = w.user_id) IS TRUE "                                                                 \
                   "FOR NO KEY UPDATE OF i SKIP LOCKED) x "                                                            \
                   "WHERE EXISTS (SELECT 1 FROM models m WHERE m.name = x.chosen)" condition "), "

/* In the order of their images: two groups with images in common then wait for each other in one direction only. */
#define INSERT                                                                                                         \
    "ins AS (INSERT INTO jobs (id, user_id, project_id, image_id, model, threshold, detect_holes, priority, "          \
    "max_attempts, enqueued_at, options) SELECT id, user_id, project_id, image_id, chosen, "                           \
    "COALESCE(threshold, default_threshold), COALESCE(holes, detect_holes), priority, $8::int, now(), "                \
    "COALESCE(options, '{}') FROM pick "                                                                               \
    "ORDER BY image_id" SUBMIT_ON_CONFLICT "RETURNING id, image_id, project_id, model), "                              \
    "upd AS (UPDATE images SET latest_job_id = ins.id FROM ins WHERE images.id = ins.image_id), "                      \
    "lane AS (INSERT INTO pushes (gateway, lane, at, ids) SELECT $9, $10::int, now(), array_agg(id) FROM ins "         \
    "HAVING count(*) > 0 AND $10::int >= 0 ON CONFLICT (gateway, lane) DO UPDATE SET at = now(), "                     \
    "ids = EXCLUDED.ids) "

#define WANT(arrays, names)                                                                                            \
    "WITH want AS MATERIALIZED (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::float8[], "   \
    "$6::boolean[], $7::int[], $11::jsonb[]" arrays                                                                    \
    ") AS w(id, user_id, image_id, model, threshold, holes, priority, options" names ") WHERE id IS NOT NULL), "

static const char sql_plain[] = WANT("", "") PICK("") INSERT "SELECT id, project_id, model FROM ins";

/* A key that somebody else writes at this moment makes the statement fail, and each of the group goes by itself. */
static const char sql_keys[] = WANT(", $12::text[], $13::text[], $14::text[]", ", key, what, body")
    PICK(" AND NOT EXISTS (SELECT 1 FROM idempotency_keys k WHERE k.user_id = w.user_id AND k.key = w.key)") INSERT
    ", kept AS (INSERT INTO idempotency_keys (user_id, key, method_path, status, body) "
    "SELECT w.user_id, w.key, w.what, 202, w.body FROM ins JOIN want w ON w.id = ins.id WHERE w.key IS NOT NULL) "
    "SELECT id, project_id, model FROM ins";

enum { IDS, USERS, IMAGES, MODELS, THRESHOLDS, HOLES, PRIORITIES, OPTIONS, KEYS, WHATS, BODIES, COLUMNS };

/* One element of an array, quoted; NULL when text is. */
static void put_text(buf_t *b, const char *text) {
    if (!text) {
        buf_puts(b, "NULL");
        return;
    }
    buf_puts(b, "\"");
    for (const char *p = text; *p;) {
        size_t plain = strcspn(p, "\"\\");
        buf_append(b, p, plain);
        p += plain;
        if (*p) {
            const char quoted[2] = {'\\', *p++};
            buf_append(b, quoted, 2);
        }
    }
    buf_puts(b, "\"");
}

static void put_item(buf_t column[COLUMNS], const submit_item_t *item, bool keys) {
    const submit_request_t *sr = item->request;
    char number[32], body[SUBMIT_BODY_SIZE];
    buf_puts(&column[IDS], item->job.job_id);
    buf_puts(&column[USERS], item->user_id);
    buf_puts(&column[IMAGES], item->image_id);
    put_text(&column[MODELS], sr->model);
    (void)snprintf(number, sizeof number, "%.17g", sr->threshold);
    buf_puts(&column[THRESHOLDS], isnan(sr->threshold) ? "NULL" : number);
    buf_puts(&column[HOLES], sr->detect_holes < 0 ? "NULL" : sr->detect_holes ? "t" : "f");
    (void)snprintf(number, sizeof number, "%d", sr->priority);
    buf_puts(&column[PRIORITIES], number);
    put_text(&column[OPTIONS], strcmp(sr->options, "{}") == 0 ? NULL : sr->options);
    if (keys) {
        submit_body(&item->job, -1, body);
        put_text(&column[KEYS], item->key.key);
        put_text(&column[WHATS], item->key.key ? item->key.what : NULL);
        put_text(&column[BODIES], item->key.key ? body : NULL);
    }
}

/* Chooses the job's id and fills in what is known before it is written. */
static void begin_job(submit_item_t *item) {
    submit_result_t *job = &item->job;
    *job = (submit_result_t){.priority = item->request->priority};
    uuid_v4(job->job_id);
    (void)snprintf(job->image_id, sizeof job->image_id, "%s", item->image_id);
    (void)snprintf(job->user_id, sizeof job->user_id, "%s", item->user_id);
    (void)snprintf(job->state, sizeof job->state, "queued");
}

static bool build(buf_t column[COLUMNS], submit_item_t **items, int n, bool keys) {
    const int used = keys ? COLUMNS : KEYS;
    for (int i = 0; i < n || i < LEAST; i++) {
        for (int c = 0; c < used; c++) {
            buf_puts(&column[c], i == 0 ? "{" : ",");
        }
        if (i < n) {
            begin_job(items[i]);
            put_item(column, items[i], keys);
            continue;
        }
        for (int c = 0; c < used; c++) {
            buf_puts(&column[c], "NULL");
        }
    }
    bool ok = true;
    for (int c = 0; c < used; c++) {
        buf_puts(&column[c], "}");
        ok = ok && !column[c].failed;
    }
    return ok;
}

static void take_rows(const PGresult *res, submit_item_t **items, int n) {
    for (int i = 0; i < n; i++) {
        items[i]->outcome = SUBMIT_UNDECIDED;
    }
    for (int row = 0; row < PQntuples(res); row++) {
        const char *id = PQgetvalue(res, row, 0);
        for (int i = 0; i < n; i++) {
            submit_result_t *job = &items[i]->job;
            if (strcmp(job->job_id, id) == 0) {
                (void)snprintf(job->project_id, sizeof job->project_id, "%s", PQgetvalue(res, row, 1));
                (void)snprintf(job->model, sizeof job->model, "%s", PQgetvalue(res, row, 2));
                items[i]->outcome = SUBMIT_ACCEPTED;
                break;
            }
        }
    }
}

err_kind_t submit_group_write(gateway_t *gw, submit_item_t **items, int n, const char *gateway_id, int lane,
                              err_t *err) {
    buf_t column[COLUMNS];
    char attempts[24], lane_text[16];
    bool keys = false;
    for (int c = 0; c < COLUMNS; c++) {
        buf_init(&column[c], (size_t)256 * 1024);
    }
    for (int i = 0; i < n; i++) {
        keys = keys || items[i]->key.key != NULL;
    }
    err_kind_t kind = ERR_OK;
    if (!build(column, items, n, keys)) {
        kind = err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory. Please try again.", NULL);
    }
    if (kind == ERR_OK) {
        (void)snprintf(attempts, sizeof attempts, "%lld", (long long)gw->cfg->max_attempts);
        (void)snprintf(lane_text, sizeof lane_text, "%d", lane);
        const char *const params[] = {column[IDS].data,
                                      column[USERS].data,
                                      column[IMAGES].data,
                                      column[MODELS].data,
                                      column[THRESHOLDS].data,
                                      column[HOLES].data,
                                      column[PRIORITIES].data,
                                      attempts,
                                      gateway_id,
                                      lane_text,
                                      column[OPTIONS].data,
                                      column[KEYS].data,
                                      column[WHATS].data,
                                      column[BODIES].data};
        PGresult *res = NULL;
        kind = pg_query(gw->pg, keys ? sql_keys : sql_plain, keys ? 14 : 11, params, &res, err);
        if (kind == ERR_OK) {
            take_rows(res, items, n);
        }
        PQclear(res);
    }
    for (int c = 0; c < COLUMNS; c++) {
        buf_free(&column[c]);
    }
    return kind;
}
