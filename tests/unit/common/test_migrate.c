/* Migrations against a real private server: order, checksums, many processes at once, down, failure in the middle. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/migrate.h"
#include "tests/unit/support/cmocka_all.h"
#include "tests/unit/support/private_servers.h"

static private_server_t server;
static char dir[64];

static config_t make_config(void) {
    return (config_t){.database_url = server.url,
                      .db_pool_max = 3,
                      .db_pool_idle_ms = 60000,
                      .db_acquire_ms = 20000,
                      .db_max_uses = 1000,
                      .db_slow_ms = 60000,
                      .db_statement_ms = 10000};
}

static pg_pool_t *make_pool(void) {
    config_t cfg = make_config();
    pg_pool_t *pool;
    err_t err;
    assert_int_equal(pg_pool_create(&cfg, "test_migrate", &pool, &err), ERR_OK);
    return pool;
}

static void put_file(const char *name, const char *text) {
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void remove_file(const char *name) {
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    (void)unlink(path);
}

static int64_t number(pg_pool_t *pool, const char *sql) {
    PGresult *res;
    err_t err = {0};
    if (pg_query(pool, sql, 0, NULL, &res, &err) != ERR_OK) {
        fail_msg("%s; %s", err.message, err.detail);
    }
    int64_t v = strtoll(PQgetvalue(res, 0, 0), NULL, 10);
    PQclear(res);
    return v;
}

/* Two migrations, the first of several statements. */
static int set_up(void **state) {
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/sgtest-sql-XXXXXX");
    assert_non_null(mkdtemp(dir));
    put_file("001_one.up.sql", "CREATE TABLE one (x int);\n-- a comment; with a semicolon\nINSERT INTO one VALUES (1);"
                               "INSERT INTO one SELECT 2 FROM pg_sleep(0.3);\n");
    put_file("001_one.down.sql", "DROP TABLE one;");
    put_file("002_two.up.sql", "CREATE TABLE two (y text DEFAULT 'a;b');");
    put_file("002_two.down.sql", "DROP TABLE two;");
    put_file("README.md", "not a migration");
    pg_pool_t *pool = make_pool();
    err_t err;
    assert_int_equal(pg_query(pool, "DROP SCHEMA public CASCADE", 0, NULL, NULL, &err), ERR_OK);
    assert_int_equal(pg_query(pool, "CREATE SCHEMA public", 0, NULL, NULL, &err), ERR_OK);
    pg_pool_destroy(pool);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    static const char *const names[] = {"001_one.up.sql",   "001_one.down.sql",   "002_two.up.sql", "002_two.down.sql",
                                        "003_three.up.sql", "003_three.down.sql", "README.md"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        remove_file(names[i]);
    }
    return rmdir(dir);
}

static void test_up_twice(void **state) {
    (void)state;
    pg_pool_t *pool = make_pool();
    err_t err;
    int applied = -1;
    assert_int_equal(migrate_up(pool, dir, &applied, &err), ERR_OK);
    assert_int_equal(applied, 2);
    assert_int_equal(number(pool, "SELECT count(*) FROM one"), 2);
    assert_int_equal(number(pool, "SELECT count(*) FROM schema_migrations WHERE length(checksum) = 64"), 2);
    assert_int_equal(migrate_up(pool, dir, &applied, &err), ERR_OK);
    assert_int_equal(applied, 0);
    /* nothing stays behind: neither the lock nor the lifted time limit */
    assert_int_equal(number(pool, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), 0);
    assert_int_equal(number(pool, "SELECT setting FROM pg_settings WHERE name = 'statement_timeout'"), 10000);
    pg_pool_destroy(pool);
}

/* Ten replicas start at once. Returns the number of migrations that this process applied as its exit status. */
static void replica(int ready_fd, int go_fd) {
    config_t cfg = make_config();
    pg_pool_t *pool;
    err_t err = {0};
    int applied = 0;
    char c = 'r';
    if (pg_pool_create(&cfg, "replica", &pool, &err) != ERR_OK || write(ready_fd, &c, 1) != 1 ||
        read(go_fd, &c, 1) != 0 || migrate_up(pool, dir, &applied, &err) != ERR_OK) {
        fprintf(stderr, "%s %s\n", err.message, err.detail);
        _exit(100);
    }
    pg_pool_destroy(pool);
    _exit(applied);
}

static void test_ten_processes_at_once(void **state) {
    (void)state;
    int ready[2];
    int go[2];
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(go), 0);
    pid_t pids[10];
    for (int i = 0; i < 10; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            close(go[1]);
            replica(ready[1], go[0]);
        }
    }
    char c;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(read(ready[0], &c, 1), 1);
    }
    close(go[1]); /* the end of the pipe is the starting shot */
    int total = 0;
    for (int i = 0; i < 10; i++) {
        int status = 0;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_true(WIFEXITED(status));
        assert_int_not_equal(WEXITSTATUS(status), 100);
        total += WEXITSTATUS(status);
    }
    close(go[0]);
    close(ready[0]);
    close(ready[1]);
    assert_int_equal(total, 2); /* each migration exactly once, whoever did it */
    pg_pool_t *pool = make_pool();
    assert_int_equal(number(pool, "SELECT count(*) FROM one"), 2);
    assert_int_equal(number(pool, "SELECT count(*) FROM schema_migrations"), 2);
    pg_pool_destroy(pool);
}

static void test_changed_file_is_refused(void **state) {
    (void)state;
    pg_pool_t *pool = make_pool();
    err_t err;
    assert_int_equal(migrate_up(pool, dir, NULL, &err), ERR_OK);
    put_file("002_two.up.sql", "CREATE TABLE two (y text DEFAULT 'changed');");
    assert_int_equal(migrate_up(pool, dir, NULL, &err), ERR_CONFLICT);
    assert_string_equal(err.code, "migration_changed");
    assert_non_null(strstr(err.message, "002_two"));
    pg_pool_destroy(pool);
}

static void test_failure_leaves_nothing_half_done(void **state) {
    (void)state;
    put_file("003_three.up.sql", "CREATE TABLE three (z int); INSERT INTO three VALUES (1); SELECT 1 / 0;");
    pg_pool_t *pool = make_pool();
    err_t err;
    int applied = -1;
    assert_int_equal(migrate_up(pool, dir, &applied, &err), ERR_INTERNAL);
    assert_string_equal(err.code, "migration_failed");
    assert_non_null(strstr(err.detail, "003_three"));
    assert_non_null(strstr(err.detail, "22012"));
    assert_int_equal(applied, 2);
    assert_int_equal(number(pool, "SELECT (to_regclass('three') IS NULL)::int"), 1);
    assert_int_equal(number(pool, "SELECT max(version) FROM schema_migrations"), 2);
    put_file("003_three.up.sql", "CREATE TABLE three (z int);");
    assert_int_equal(migrate_up(pool, dir, &applied, &err), ERR_OK);
    assert_int_equal(applied, 1);
    pg_pool_destroy(pool);
}

static void test_own_commit_is_refused(void **state) {
    (void)state;
    put_file("003_three.up.sql", "CREATE TABLE three (z int); COMMIT;");
    pg_pool_t *pool = make_pool();
    err_t err;
    assert_int_equal(migrate_up(pool, dir, NULL, &err), ERR_INVALID);
    assert_string_equal(err.code, "migrations_invalid");
    assert_int_equal(number(pool, "SELECT max(version) FROM schema_migrations"), 2);
    pg_pool_destroy(pool);
}

static void test_down_and_up_again(void **state) {
    (void)state;
    pg_pool_t *pool = make_pool();
    err_t err;
    int n = 0;
    assert_int_equal(migrate_up(pool, dir, &n, &err), ERR_OK);
    assert_int_equal(migrate_down(pool, dir, 1, &n, &err), ERR_OK);
    assert_int_equal(n, 1);
    assert_int_equal(number(pool, "SELECT (to_regclass('two') IS NULL)::int"), 1);
    assert_int_equal(number(pool, "SELECT (to_regclass('one') IS NOT NULL)::int"), 1);
    assert_int_equal(migrate_down(pool, dir, 5, &n, &err), ERR_OK);
    assert_int_equal(n, 1);
    assert_int_equal(number(pool, "SELECT (to_regclass('one') IS NULL)::int"), 1);
    assert_int_equal(migrate_up(pool, dir, &n, &err), ERR_OK);
    assert_int_equal(n, 2);
    pg_pool_destroy(pool);
}

static void test_newer_database_is_accepted(void **state) {
    (void)state;
    pg_pool_t *pool = make_pool();
    err_t err;
    int n = -1;
    assert_int_equal(migrate_up(pool, dir, NULL, &err), ERR_OK);
    remove_file("002_two.up.sql");
    assert_int_equal(migrate_up(pool, dir, &n, &err), ERR_OK);
    assert_int_equal(n, 0);
    /* but a late-comer with an old number is not slipped in below */
    put_file("002_two.up.sql", "SELECT 1");
    assert_int_equal(pg_query(pool, "DELETE FROM schema_migrations WHERE version = 1", 0, NULL, NULL, &err), ERR_OK);
    assert_int_equal(migrate_up(pool, dir, &n, &err), ERR_CONFLICT);
    assert_string_equal(err.code, "migration_out_of_order");
    pg_pool_destroy(pool);
}

static void test_status_lists_files_and_rows(void **state) {
    (void)state;
    pg_pool_t *pool = make_pool();
    err_t err;
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    assert_int_equal(migrate_status(pool, dir, out, &err), ERR_OK);
    fclose(out);
    assert_string_equal(text, "001 one pending\n002 two pending\n");
    free(text);
    assert_int_equal(number(pool, "SELECT (to_regclass('schema_migrations') IS NULL)::int"),
                     1); /* looking changed nothing */
    assert_int_equal(migrate_up(pool, dir, NULL, &err), ERR_OK);
    put_file("003_three.up.sql", "SELECT 1");
    out = open_memstream(&text, &len);
    assert_int_equal(migrate_status(pool, dir, out, &err), ERR_OK);
    fclose(out);
    assert_non_null(strstr(text, "001 one 2"));
    assert_null(strstr(text, "002 two pending"));
    assert_non_null(strstr(text, "003 three pending\n"));
    free(text);
    pg_pool_destroy(pool);
}

static void test_missing_folder_and_twice_used_number(void **state) {
    (void)state;
    pg_pool_t *pool = make_pool();
    err_t err;
    assert_int_equal(migrate_up(pool, "/nonexistent/sql", NULL, &err), ERR_INVALID);
    assert_string_equal(err.code, "migrations_missing");
    put_file("003_three.up.sql", "SELECT 1");
    put_file("003_four.up.sql", "SELECT 1");
    assert_int_equal(migrate_up(pool, dir, NULL, &err), ERR_INVALID);
    assert_string_equal(err.code, "migrations_invalid");
    remove_file("003_four.up.sql");
    pg_pool_destroy(pool);
}

/* The project's own schema goes up, down and up again on an empty database. */
static void test_own_schema(void **state) {
    (void)state;
    if (access("proto/sql/001_init.up.sql", R_OK) != 0) {
        puts("SKIPPED: run from the top of the source tree to test proto/sql");
        skip();
    }
    pg_pool_t *pool = make_pool();
    err_t err = {0};
    int up = 0;
    int down = 0;
    int again = 0;
    if (migrate_up(pool, "proto/sql", &up, &err) != ERR_OK) {
        fail_msg("%s; %s", err.message, err.detail);
    }
    assert_true(up >= 1);
    if (migrate_down(pool, "proto/sql", up, &down, &err) != ERR_OK) {
        fail_msg("%s; %s", err.message, err.detail);
    }
    assert_int_equal(down, up);
    assert_int_equal(number(pool, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"),
                     1); /* the record itself */
    assert_int_equal(migrate_up(pool, "proto/sql", &again, &err), ERR_OK);
    assert_int_equal(again, up);
    pg_pool_destroy(pool);
}

int main(void) {
    if (!private_pg_available()) {
        return 0;
    }
    log_init("test", LOG_ERROR);
    private_pg_start(&server);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_up_twice, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ten_processes_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_changed_file_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_failure_leaves_nothing_half_done, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_own_commit_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_down_and_up_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_newer_database_is_accepted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_status_lists_files_and_rows, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_missing_folder_and_twice_used_number, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_own_schema, set_up, tear_down),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    private_server_stop(&server);
    return failed;
}
