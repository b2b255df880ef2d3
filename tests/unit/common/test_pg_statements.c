/* Statements through the PostgreSQL pool, on a real private server: errors, results, prepared statements. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "tests/unit/common/pg_fixture.h"

static void expect(pg_conn_t *c, const char *sql, err_kind_t kind, const char *code) {
    err_t err;
    assert_int_equal(pg_exec(c, sql, 0, NULL, NULL, &err), kind);
    assert_string_equal(err.code, code);
    assert_null(strstr(err.detail, "secret-value"));
    assert_null(strstr(err.message, "secret-value"));
}

static void test_errors_are_told_apart_without_values(void **state) {
    (void)state;
    config_t cfg = make_config();
    cfg.db_statement_ms = 150;
    pg_pool_t *pool = make_pool(&cfg);
    pg_conn_t *c = acquire(pool);
    run(c, "CREATE TEMP TABLE t_e (k text UNIQUE, n int CHECK (n > 0), p text REFERENCES t_e (k))");
    run(c, "INSERT INTO t_e VALUES ('secret-value', 1)");
    err_t err;
    static const char *const params[] = {"secret-value"};
    assert_int_equal(pg_exec(c, "INSERT INTO t_e VALUES ($1, 1)", 1, params, NULL, &err), ERR_CONFLICT);
    assert_string_equal(err.code, "conflict");
    assert_null(strstr(err.detail, "secret-value"));
    assert_non_null(strstr(err.detail, "t_e_k_key"));
    assert_int_equal(pg_exec(c, "SELECT $1::int", 1, params, NULL, &err), ERR_INVALID);
    assert_null(strstr(err.detail, "secret-value"));
    expect(c, "INSERT INTO t_e VALUES ('b', 0)", ERR_INVALID, "invalid_value");
    expect(c, "INSERT INTO t_e VALUES ('b', 1, 'none')", ERR_NOT_FOUND, "reference_missing");
    expect(c, "SELEKT", ERR_INTERNAL, "database_error");
    expect(c, "SELECT pg_sleep(5)", ERR_TIMEOUT, "database_timeout");
    pg_release(c);
    pg_pool_destroy(pool);
}

static void test_results_are_read_by_name(void **state) {
    (void)state;
    config_t cfg = make_config();
    pg_pool_t *pool = make_pool(&cfg);
    PGresult *res;
    err_t err;
    static const char *const params[] = {"9007199254740993", NULL};
    assert_int_equal(pg_query(pool,
                              "SELECT $1::bigint AS big, $2::text AS nothing, true AS yes, 1.5 AS \"camelCase\", "
                              "gen_random_uuid() AS id",
                              2, params, &res, &err),
                     ERR_OK);
    assert_int_equal(pg_get_int(res, 0, "big", 0), 9007199254740993LL);
    assert_null(pg_get(res, 0, "nothing"));
    assert_int_equal(pg_get_int(res, 0, "nothing", -7), -7);
    assert_true(pg_get_bool(res, 0, "yes"));
    assert_false(pg_get_bool(res, 0, "nothing"));
    assert_true(pg_get_real(res, 0, "camelCase", 0) == 1.5);
    assert_true(pg_is_uuid(pg_get(res, 0, "id")));
    assert_null(pg_get(res, 0, "no_such_column"));
    assert_null(pg_get(res, 1, "big"));
    PQclear(res);
    assert_int_equal(pg_query(pool, "CREATE TABLE t_n (x int)", 0, NULL, NULL, &err), ERR_OK);
    assert_int_equal(pg_query(pool, "INSERT INTO t_n SELECT generate_series(1, 17)", 0, NULL, &res, &err), ERR_OK);
    assert_int_equal(pg_affected(res), 17);
    PQclear(res);
    assert_int_equal(pg_query(pool, "DROP TABLE t_n", 0, NULL, NULL, &err), ERR_OK);

    /* binary parameters keep zero bytes */
    static const char bytes[4] = {0, 1, 2, 3};
    static const char *const binary[] = {bytes};
    static const int lengths[] = {4};
    static const int formats[] = {1};
    pg_conn_t *c = acquire(pool);
    assert_int_equal(pg_exec_mixed(c, "SELECT length($1::bytea) AS n", 1, binary, lengths, formats, &res, &err),
                     ERR_OK);
    assert_int_equal(pg_get_int(res, 0, "n", 0), 4);
    PQclear(res);
    pg_release(c);
    pg_pool_destroy(pool);
}

/* How often the statement was run on this connection as a prepared one; -1: it is not prepared. */
static int64_t prepared_runs(pg_conn_t *c, const char *pattern) {
    char sql[300];
    (void)snprintf(sql, sizeof sql,
                   "SELECT COALESCE(max(generic_plans + custom_plans), -1) FROM pg_prepared_statements WHERE statement "
                   "LIKE '%s'",
                   pattern);
    return number(c, sql);
}

static int64_t ask(pg_conn_t *c, const char *sql, const char *param) {
    PGresult *res;
    err_t err = {0};
    if (pg_exec(c, sql, 1, (const char *const[]){param}, &res, &err) != ERR_OK) {
        fail_msg("%s; %s", err.message, err.detail);
    }
    int64_t v = strtoll(PQgetvalue(res, 0, 0), NULL, 10);
    PQclear(res);
    return v;
}

static void test_repeated_statements_are_prepared(void **state) {
    (void)state;
    config_t cfg = make_config();
    cfg.db_prepare = true;
    pg_pool_t *pool = make_pool(&cfg);
    pg_conn_t *c = acquire(pool);
    assert_int_equal(ask(c, "SELECT $1::int + 1", "1"), 2);
    assert_int_equal(prepared_runs(c, "SELECT $1::int + 1"), -1); /* one that comes once is not worth it */
    for (int i = 0; i < 3; i++) {
        char sql[40]; /* another address each time it matters: the text counts */
        (void)snprintf(sql, sizeof sql, "SELECT $1::int + %d", 1);
        assert_int_equal(ask(c, sql, "41"), 42);
    }
    assert_int_equal(prepared_runs(c, "SELECT $1::int + 1"), 3);
    for (int i = 0; i < 300; i++) { /* more texts than are remembered */
        char sql[40];
        (void)snprintf(sql, sizeof sql, "SELECT $1::int + %d", i / 2);
        assert_int_equal(ask(c, sql, "1"), 1 + i / 2);
    }
    assert_in_range(number(c, "SELECT count(*) FROM pg_prepared_statements"), 50, 100);
    pg_release(c);
    pg_pool_destroy(pool);
}

static void test_prepared_statements_survive_changes(void **state) {
    (void)state;
    config_t cfg = make_config();
    cfg.db_prepare = true;
    pg_pool_t *pool = make_pool(&cfg);
    pg_conn_t *c = acquire(pool);
    run(c, "CREATE TEMP TABLE shape (a int)");
    run(c, "INSERT INTO shape VALUES (5)");
    static const char sql[] = "SELECT * FROM shape WHERE a = $1";
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ask(c, sql, "5"), 5);
    }
    run(c, "ALTER TABLE shape ALTER a TYPE text"); /* neither the parameter nor the result fits any more */
    assert_int_equal(ask(c, sql, "5"), 5);
    assert_int_equal(ask(c, sql, "5"), 5);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ask(c, "SELECT $1::int * 2", "4"), 8);
    }
    run(c, "DEALLOCATE ALL"); /* as a pooler does */
    assert_int_equal(ask(c, "SELECT $1::int * 2", "4"), 8);
    run(c, "BEGIN");
    run(c, "DROP TABLE shape");
    run(c, "COMMIT");
    err_t err = {0};
    assert_int_equal(pg_exec(c, sql, 1, (const char *const[]){"5"}, NULL, &err), ERR_INTERNAL);
    assert_int_equal(ask(c, "SELECT $1::int * 2", "4"), 8); /* the connection is sound */
    pg_release(c);
    pg_pool_destroy(pool);
}

static void test_uuid_check(void **state) {
    (void)state;
    assert_true(pg_is_uuid("0123abcd-0123-4123-8123-0123456789AB"));
    assert_false(pg_is_uuid(NULL));
    assert_false(pg_is_uuid(""));
    assert_false(pg_is_uuid("0123abcd-0123-4123-8123-0123456789A"));
    assert_false(pg_is_uuid("0123abcd-0123-4123-8123-0123456789ABC"));
    assert_false(pg_is_uuid("0123abcd0123-4123-8123-0123456789ABCD"));
    assert_false(pg_is_uuid("0123abcg-0123-4123-8123-0123456789AB"));
}

int main(void) {
    if (!private_pg_available()) {
        return 0;
    }
    log_init("test", LOG_ERROR);
    log_set_level(LOG_WARN);
    private_pg_start(&server);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors_are_told_apart_without_values),
        cmocka_unit_test(test_results_are_read_by_name),
        cmocka_unit_test(test_repeated_statements_are_prepared),
        cmocka_unit_test(test_prepared_statements_survive_changes),
        cmocka_unit_test(test_uuid_check),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    private_server_stop(&server);
    return failed;
}
