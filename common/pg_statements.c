/*
 * See pg_statements.h. The text is compared, not its address alone: some texts are built in buffers.
 */
#include "pg_statements.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t hash_text(const char *text) {
    uint64_t h = 14695981039346656037ULL; /* FNV-1a */
    for (const char *p = text; *p; p++) {
        h = (h ^ (unsigned char)*p) * 1099511628211ULL;
    }
    return h;
}

int pg_statements_find(pg_statements_t *s, const char *sql) {
    const uint64_t hash = hash_text(sql);
    for (int i = 0; i < s->count; i++) {
        if (s->items[i].hash == hash && strcmp(s->items[i].sql, sql) == 0) {
            return s->items[i].refused ? -1 : i;
        }
    }
    char *copy = s->count < PG_STATEMENTS_MAX ? strdup(sql) : NULL;
    if (copy) {
        s->items[s->count++] = (pg_statement_t){.hash = hash, .sql = copy};
    }
    return -1;
}

void pg_statements_name(int number, char name[PG_STATEMENT_NAME]) {
    (void)snprintf(name, PG_STATEMENT_NAME, "sg_%d", number);
}

void pg_statements_free(pg_statements_t *s) {
    for (int i = 0; i < s->count; i++) {
        free(s->items[i].sql);
    }
    s->count = 0;
}
