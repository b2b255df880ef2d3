/* Reading results by column name (see pg.h), and the check for UUIDs. */
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "pg.h"

int64_t pg_affected(const PGresult *res) {
    /* libpq takes a pointer to non-const but only reads. */
    const char *text = PQcmdTuples((PGresult *)res);
    return strtoll(text, NULL, 10);
}

/* Exact comparison: PQfnumber folds case, and our column names may be camelCase. */
static int find_column(const PGresult *res, const char *column) {
    int n = PQnfields(res);
    for (int i = 0; i < n; i++) {
        if (strcmp(PQfname(res, i), column) == 0) {
            return i;
        }
    }
    return -1;
}

const char *pg_get(const PGresult *res, int row, const char *column) {
    int i = find_column(res, column);
    if (i < 0 || row < 0 || row >= PQntuples(res)) {
        log_event(LOG_ERROR, "result has no such row or column", "column", column, NULL);
        return NULL;
    }
    return PQgetisnull(res, row, i) ? NULL : PQgetvalue(res, row, i);
}

int64_t pg_get_int(const PGresult *res, int row, const char *column, int64_t if_null) {
    const char *text = pg_get(res, row, column);
    return text ? strtoll(text, NULL, 10) : if_null;
}

double pg_get_real(const PGresult *res, int row, const char *column, double if_null) {
    const char *text = pg_get(res, row, column);
    return text ? strtod(text, NULL) : if_null;
}

bool pg_get_bool(const PGresult *res, int row, const char *column) {
    const char *text = pg_get(res, row, column);
    return text && text[0] == 't';
}

bool pg_is_uuid(const char *s) {
    if (!s) {
        return false;
    }
    for (int i = 0; i < 36; i++) {
        char c = s[i];
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
        if (dash ? c != '-' : !hex) {
            return false;
        }
    }
    return s[36] == '\0';
}
