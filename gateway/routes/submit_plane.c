/*
 * Has each image of a request the plane that the request chooses? Told before a job is made, with the field and its
 * range, where the database knows it; see submit.h.
 */
#include <stdio.h>

#include "submit.h"
#include "submit_sql.h"

enum { FIELDS = 4, NUMBER = 16 };

static const struct {
    const char *column, *field;
} fields[FIELDS] = {
    {"pages", "page"}, {"plane_channels", "channel or options.mix"}, {"slices", "z"}, {"times", "time"}};

/* How many of each there must be; 0 = nothing was chosen. */
static void find_needs(const image_select_t *plane, int needs[FIELDS]) {
    needs[0] = plane->page > 0 ? plane->page + 1 : 0;
    needs[1] = plane->weights > 0 ? plane->weights : plane->channel + 1;
    needs[2] = plane->z + 1;
    needs[3] = plane->t + 1;
}

static err_kind_t say_what_lacks(const PGresult *res, const int needs[FIELDS], err_t *err) {
    for (int i = 0; i < FIELDS; i++) {
        const long long there = pg_get_int(res, 0, fields[i].column, needs[i]);
        if (there < needs[i]) {
            return err_setf(err, ERR_INVALID, "image_no_such_plane",
                            "options.%s goes from 1 to %lld for the image \"%.100s\"; %d was asked for.",
                            fields[i].field, there, pg_get(res, 0, "name"), needs[i]);
        }
    }
    return ERR_OK;
}

err_kind_t submit_check_plane(pg_conn_t *conn, const char *project_id, const char *uuid_array, bool only_missing,
                              const submit_request_t *sr, err_t *err) {
    static const char sql[] =
        "SELECT i.name, i.pages, i.plane_channels, i.slices, i.times FROM images i WHERE i.id IN (" SUBMIT_IMAGES
        ") AND (i.pages < $4::int OR i.plane_channels < $5::int OR i.slices < $6::int OR i.times < $7::int) "
        "ORDER BY i.created_at, i.id LIMIT 1";
    int needs[FIELDS];
    char texts[FIELDS][NUMBER];
    if (!job_choice_has_plane(&sr->choice)) {
        return ERR_OK;
    }
    find_needs(&sr->choice.plane, needs);
    for (int i = 0; i < FIELDS; i++) {
        (void)snprintf(texts[i], sizeof texts[i], "%d", needs[i]);
    }
    const char *const params[] = {project_id, uuid_array, only_missing ? "true" : "false", texts[0], texts[1],
                                  texts[2],   texts[3]};
    PGresult *res = NULL;
    err_kind_t kind = pg_exec(conn, sql, 7, params, &res, err);
    if (kind == ERR_OK && PQntuples(res) > 0) {
        kind = say_what_lacks(res, needs, err);
    }
    PQclear(res);
    return kind;
}
