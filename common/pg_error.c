/*
 * From SQLSTATE (PostgreSQL manual, appendix A) to err_kind_t. The server's DETAIL line and, for data errors, its
 * message may repeat values of the statement; they are left out so that no person's data reaches a log.
 */
#include <stdio.h>
#include <string.h>

#include "pg_internal.h"

typedef struct {
    const char *state; /* five characters, or a two-character class */
    err_kind_t kind;
    const char *code;
    const char *message;
} rule_t;

/* The first rule that fits wins. */
static const rule_t rules[] = {
    {"23505", ERR_CONFLICT, "conflict", "This already exists."},
    {"23503", ERR_NOT_FOUND, "reference_missing", "Something that this refers to does not exist any more."},
    {"23", ERR_INVALID, "invalid_value", "A value is outside of what is allowed."},
    {"22", ERR_INVALID, "invalid_value", "A value has the wrong form."},
    {"57014", ERR_TIMEOUT, "database_timeout", "The database took too long. Try again, or ask for less at a time."},
    {"57", ERR_UNAVAILABLE, "database_unavailable", "The database is restarting. Try again in a moment."},
    {"08", ERR_UNAVAILABLE, "database_unavailable",
     "The database cannot be reached at the moment. Try again in a moment."},
    {"40", ERR_UNAVAILABLE, "database_busy", "Two changes collided. Try again."},
    {"55P03", ERR_UNAVAILABLE, "database_busy", "Two changes collided. Try again."},
    {"53", ERR_UNAVAILABLE, "database_unavailable", "The database is out of resources. Try again later."},
    {"26000", ERR_UNAVAILABLE, "database_busy", "The database was changed just now. Try again."},
    {"0A000", ERR_UNAVAILABLE, "database_busy", "The database was changed just now. Try again."},
    {"25006", ERR_UNAVAILABLE, "database_unavailable",
     "The database is read-only at the moment. Try again in a moment."},
};

static const rule_t *find_rule(const char *state) {
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        if (strncmp(state, rules[i].state, strlen(rules[i].state)) == 0) {
            return &rules[i];
        }
    }
    return NULL;
}

void pg_error_class(const PGresult *res, char out[12]) {
    const char *state = res ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;
    if (state && strlen(state) == 5) {
        (void)snprintf(out, 12, "%.2s", state);
    } else {
        (void)snprintf(out, 12, "connection");
    }
}

static const char *field(const PGresult *res, int which) {
    const char *text = PQresultErrorField(res, which);
    return text ? text : "";
}

err_kind_t pg_fail(PGconn *raw, const PGresult *res, const char *sql, err_t *err) {
    const char *state = res ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;
    if (!state) {
        char why[200];
        (void)snprintf(why, sizeof why, "%s", res ? PQresultErrorMessage(res) : PQerrorMessage(raw));
        why[strcspn(why, "\n")] = '\0';
        if (PQstatus(raw) == CONNECTION_OK) { /* libpq refused the statement itself, or has no memory */
            return err_set(err, ERR_INTERNAL, "database_error", "The database refused a statement.", "%s; in: %.160s",
                           why, sql);
        }
        return err_set(err, ERR_UNAVAILABLE, "database_unavailable",
                       "The connection to the database broke. Try again in a moment.", "%s; in: %.160s", why, sql);
    }
    const rule_t *rule = find_rule(state);
    const char *constraint = field(res, PG_DIAG_CONSTRAINT_NAME);
    bool may_quote_values = strncmp(state, "22", 2) == 0;
    const char *said = may_quote_values ? "data error" : field(res, PG_DIAG_MESSAGE_PRIMARY);
    return err_set(err, rule ? rule->kind : ERR_INTERNAL, rule ? rule->code : "database_error",
                   rule ? rule->message : "The database reported an error.", "SQLSTATE %s: %.160s%s%.63s; in: %.160s",
                   state, said, constraint[0] ? "; constraint " : "", constraint, sql);
}
