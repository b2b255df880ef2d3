/*
 * See worker_preview.h. Each part is written under the claim's fence: a worker that has lost its job writes nothing.
 * The first part of a run sweeps away what an earlier attempt left; what a crash leaves is deleted by the clean-up of
 * the queue.
 */
#include "segworker/worker_preview.h"

#include "common/log.h"
#include "common/timeutil.h"

#define CLAIM_DIGITS "16" /* of the token; they are not secret */

void preview_begin(preview_t *p, pg_pool_t *pg, const queue_claim_t *claim) {
    *p = (preview_t){.pg = pg, .claim = claim, .next_ms = time_mono_ms() + PREVIEW_GAP_MS};
    buf_init(&p->objects, PREVIEW_PART_BYTES);
}

static void stop(preview_t *p) {
    p->over = true;
    p->count = 0;
    buf_free(&p->objects);
}

/* ERR_OK with *taken = false: the claim is lost, or the job is being cancelled. */
static err_kind_t write_part(preview_t *p, bool *taken, err_t *err) {
    static const char sql[] =
        "WITH mine AS (SELECT id, left(token, " CLAIM_DIGITS ") AS claim FROM jobs WHERE id = $1 AND token = $2 AND "
        "state = 'active' AND NOT cancel_requested), "
        "old AS (DELETE FROM previews o USING mine m WHERE $3::int = 1 AND o.job_id = m.id AND o.claim <> m.claim) "
        "INSERT INTO previews (job_id, claim, part, objects, data) SELECT id, claim, $3::int, $4::int, $5::bytea FROM mine";
    char part[16], count[16];
    (void)snprintf(part, sizeof part, "%d", p->parts + 1);
    (void)snprintf(count, sizeof count, "%u", p->count);
    const char *params[] = {p->claim->id, p->claim->token, part, count, p->objects.data};
    const int lengths[] = {0, 0, 0, 0, (int)p->objects.len}, formats[] = {0, 0, 0, 0, 1};
    pg_conn_t *conn = NULL;
    PGresult *res = NULL;
    err_kind_t rc = pg_acquire(p->pg, &conn, err);
    if (rc == ERR_OK) {
        rc = pg_exec_mixed(conn, sql, 5, params, lengths, formats, &res, err);
    }
    *taken = rc == ERR_OK && pg_affected(res) == 1;
    PQclear(res);
    pg_release(conn);
    return rc;
}

static void send_part(preview_t *p) {
    bool taken = false;
    err_t err = {0};
    if (write_part(p, &taken, &err) != ERR_OK) {
        log_error(LOG_WARN, "a preview is not shown", &err);
    }
    if (!taken) {
        stop(p);
        return;
    }
    p->bytes += p->objects.len;
    p->parts++;
    p->count = 0;
    buf_reset(&p->objects);
    p->next_ms = time_mono_ms() + PREVIEW_GAP_MS + (int64_t)p->parts * PREVIEW_GAP_MS / 8;
    if (p->parts == PREVIEW_PARTS || p->bytes + PREVIEW_PART_BYTES > PREVIEW_BYTES) {
        stop(p);
    }
}

void preview_tick(preview_t *p) {
    if (!p->over && p->count > 0 && time_mono_ms() >= p->next_ms) {
        send_part(p);
    }
}

static bool put_object(preview_t *p, const result_object_t *o) {
    buf_t geometry;
    const size_t before = p->objects.len;
    buf_init(&geometry, PREVIEW_PART_BYTES);
    geom_encode(&o->geom, &geometry);
    if (!geometry.failed) {
        buf_put_u32le(&p->objects, o->idx);
        buf_put_f32le(&p->objects, (float)o->m.area);
        buf_put_f32le(&p->objects, o->confidence);
        buf_put_u32le(&p->objects, (uint32_t)geometry.len);
        buf_append(&p->objects, geometry.data, geometry.len);
    }
    const bool fits = !geometry.failed && !p->objects.failed;
    if (!fits) { /* what was before it stays */
        p->objects.len = before;
        p->objects.failed = false;
    }
    buf_free(&geometry);
    return fits;
}

void preview_add(preview_t *p, const result_object_t *o) {
    if (p->over || !p->pg) {
        return;
    }
    if (put_object(p, o)) {
        p->count++;
    } else if (p->count > 0) { /* the part is full before its time */
        send_part(p);
        p->count += !p->over && put_object(p, o);
    }
}

void preview_end(preview_t *p) {
    if (p->parts > 0) {
        const char *params[] = {p->claim->id, p->claim->token};
        err_t err = {0};
        if (pg_query(p->pg, "DELETE FROM previews WHERE job_id = $1 AND claim = left($2::text, " CLAIM_DIGITS ")", 2,
                     params, NULL, &err) != ERR_OK) {
            log_error(LOG_WARN, "a preview is left for the clean-up", &err);
        }
        p->parts = 0;
    }
    stop(p);
}
