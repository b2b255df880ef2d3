/*
 * Which statements of one connection are prepared. Not for other modules than pg.c.
 *
 * PostgreSQL parses and plans a statement each time it is sent as text; for the short statements of this system that is
 * most of their cost. A statement with parameters is prepared when a connection meets its text for the second time. The
 * texts are the program's own (values are parameters), so there are few; what comes after the table is full is sent as
 * text as before. Belongs to one connection, hence to one thread at a time.
 */
#ifndef SG_PG_STATEMENTS_H
#define SG_PG_STATEMENTS_H

#include <stdbool.h>
#include <stdint.h>

enum { PG_STATEMENTS_MAX = 96, PG_STATEMENT_NAME = 16 };

typedef struct {
    uint64_t hash;
    char *sql;
    bool prepared, refused;
} pg_statement_t;

typedef struct {
    pg_statement_t items[PG_STATEMENTS_MAX];
    int count;
} pg_statements_t;

/* The number of the text, to be used as below; -1: send it as text (first time, table full, memory gone). */
int pg_statements_find(pg_statements_t *s, const char *sql);
void pg_statements_name(int number, char name[PG_STATEMENT_NAME]);
void pg_statements_free(pg_statements_t *s);

#endif
