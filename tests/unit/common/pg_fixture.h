/*
 * What the tests of the PostgreSQL pool share: a private server, pools and connections to it, statements that must
 * work. Included by exactly one file of a program.
 */
#ifndef SG_TEST_PG_FIXTURE_H
#define SG_TEST_PG_FIXTURE_H

#include <stdlib.h>

#include "common/pg.h"
#include "tests/unit/support/cmocka_all.h"
#include "tests/unit/support/private_servers.h"

static private_server_t server;

static inline config_t make_config(void) {
    return (config_t){.database_url = server.url,
                      .db_pool_max = 4,
                      .db_pool_idle_ms = 60000,
                      .db_acquire_ms = 5000,
                      .db_max_uses = 1000000,
                      .db_slow_ms = 60000,
                      .db_statement_ms = 10000};
}

static inline pg_pool_t *make_pool(const config_t *cfg) {
    pg_pool_t *pool;
    err_t err;
    assert_int_equal(pg_pool_create(cfg, "test_pg", &pool, &err), ERR_OK);
    return pool;
}

static inline pg_conn_t *acquire(pg_pool_t *pool) {
    pg_conn_t *c;
    err_t err = {0};
    if (pg_acquire(pool, &c, &err) != ERR_OK) {
        fail_msg("%s; %s", err.message, err.detail);
    }
    return c;
}

/* One number from one statement. */
static inline int64_t number(pg_conn_t *c, const char *sql) {
    PGresult *res;
    err_t err = {0};
    if (pg_exec(c, sql, 0, NULL, &res, &err) != ERR_OK) {
        fail_msg("%s; %s", err.message, err.detail);
    }
    int64_t v = strtoll(PQgetvalue(res, 0, 0), NULL, 10);
    PQclear(res);
    return v;
}

static inline void run(pg_conn_t *c, const char *sql) {
    err_t err = {0};
    if (pg_exec(c, sql, 0, NULL, NULL, &err) != ERR_OK) {
        fail_msg("%s; %s", err.message, err.detail);
    }
}

#endif
