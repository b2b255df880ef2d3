/*
 * Outlines of what is finished of a job that still runs, in the binary form of proto/polygons.md (proto/jobs.md,
 * Previews). Rows are visible only while the claim that wrote them holds the job: when it ends, however it ends, the
 * answer is empty. Read in parts of a bounded number, so memory is bounded too.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/hash.h"
#include "jobs.h"
#include "route_util.h"

enum { PARTS = 4, PARTS_MAX = 64 };
#define ANSWER_CAP ((size_t)PARTS * 1048576 + 8)

/* The parts as one stream. *objects: how many it holds. */
static err_kind_t join_parts(const PGresult *res, buf_t *out, err_t *err) {
    uint32_t objects = 0;
    for (int i = 0; i < PQntuples(res); i++) {
        objects += (uint32_t)pg_get_int(res, i, "objects", 0);
    }
    buf_append(out, "SGP1", 4);
    buf_put_u32le(out, objects);
    for (int i = 0; i < PQntuples(res); i++) {
        const char *hex = pg_get(res, i, "data");
        const size_t n = hex ? strlen(hex) / 2 : 0;
        uint8_t *bytes = n > 0 ? malloc(n) : NULL;
        const bool fine = n == 0 || (bytes && hash_hex_decode(hex, bytes, n));
        if (fine && n > 0) {
            buf_append(out, bytes, n);
        }
        free(bytes);
        if (!fine) {
            return err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL);
        }
    }
    return out->failed ? err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", NULL) : ERR_OK;
}

static err_kind_t reply_parts(http_request_t *req, const PGresult *res, err_t *err) {
    const int n = PQntuples(res);
    const bool any = pg_get(res, 0, "part") != NULL;
    buf_t body;
    buf_init(&body, ANSWER_CAP);
    err_kind_t kind = join_parts(res, &body, err);
    if (kind == ERR_OK) {
        const char *of = pg_get(res, 0, "of");
        if (of) {
            http_add_header(req, "X-Preview", of);
        }
        if (any) {
            http_add_header(req, "X-Next-After", pg_get(res, n - 1, "part"));
        }
        http_add_header(req, "Cache-Control", "no-store");
        kind = http_reply_text(req, 200, "application/vnd.spheroseg.polygons", body.data, body.len);
    }
    buf_free(&body);
    return kind;
}

err_kind_t preview_get(http_request_t *req, err_t *err) {
    static const char sql[] =
        "SELECT p.part, p.objects, encode(p.data, 'hex') AS data, md5(c.claim) AS of FROM jobs j "
        "JOIN projects o ON o.id = j.project_id AND o.owner_id = $2 "
        "CROSS JOIN LATERAL (SELECT CASE WHEN j.state = 'active' THEN left(j.token, 16) END AS claim) c "
        "LEFT JOIN previews p ON p.job_id = j.id AND p.claim = c.claim AND "
        "p.part > CASE WHEN md5(c.claim) = $3::text THEN $4::int ELSE 0 END WHERE j.id = $1 ORDER BY p.part LIMIT "
        "$5::int";
    int64_t after = 0;
    PGresult *res = NULL;
    const char *of = http_query(req, "of");
    err_kind_t kind = http_query_int(req, "after", 0, 0, PARTS_MAX, &after, err);
    if (kind == ERR_OK && of && strlen(of) > 64) {
        kind = err_set(err, ERR_INVALID, "parameter_invalid",
                       "The parameter “of” must be the X-Preview of an earlier answer.", NULL);
    }
    if (kind == ERR_OK) {
        char from[24], most[16];
        snprintf(from, sizeof from, "%" PRId64, after);
        snprintf(most, sizeof most, "%d", PARTS);
        kind = pg_query(req->gw->pg, sql, 5, (const char *const[]){req->params[0], req->user.id, of, from, most}, &res,
                        err);
    }
    if (kind == ERR_OK && PQntuples(res) == 0) {
        kind = route_not_found(err, "job");
    }
    if (kind == ERR_OK) {
        kind = reply_parts(req, res, err);
    }
    PQclear(res);
    return kind;
}
