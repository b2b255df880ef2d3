/*
 * What the files of the PostgreSQL module share (pg.c, pg_connect.c, pg_error.c). Not for others.
 */
#ifndef SG_PG_INTERNAL_H
#define SG_PG_INTERNAL_H

#include "pg.h"

/* Connection parameters, checked once at start. Thread-safe after pg_target_init. */
typedef struct {
    char *url;     /* holds the password: never logged */
    char *options; /* -c settings for each session */
    char *application_name;
    char where[256]; /* "host:port/database", for messages */
} pg_target_t;

ERR_MUST err_kind_t pg_target_init(pg_target_t *t, const char *url, const char *application_name, int64_t statement_ms,
                                   err_t *err);
void pg_target_free(pg_target_t *t);

/* Opens a connection within wait_ms. *out is closed by the caller with PQfinish. */
ERR_MUST err_kind_t pg_target_connect(const pg_target_t *t, int64_t wait_ms, PGconn **out, err_t *err);

/* Did the server close an idle connection behind our back? Costs one poll(2). */
bool pg_link_is_alive(PGconn *raw);

/* Turns a failed result (NULL allowed) into an error. No parameter value reaches message or detail. */
err_kind_t pg_fail(PGconn *raw, const PGresult *res, const char *sql, err_t *err);

/* SQLSTATE class ("23", "57", …) or "connection"; a static string or one inside res. out has room for 12 bytes. */
void pg_error_class(const PGresult *res, char out[12]);

/* The connection is closed at release instead of being lent again. */
void pg_mark_broken(pg_conn_t *c);

#endif
