/*
 * Accounts and refresh tokens against a real private PostgreSQL: rotation, reuse, revocation, races.
 */
#include <argon2.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/migrate.h"
#include "gateway/auth/password.h"
#include "gateway/auth/session.h"
#include "tests/unit/support/cmocka_all.h"
#include "tests/unit/support/private_servers.h"

static private_server_t server;
static config_t cfg;
static pg_pool_t *pool;

static int run_sql(const char *sql) {
    PGresult *res = NULL;
    err_t err;
    if (pg_query(pool, sql, 0, NULL, &res, &err) != ERR_OK) {
        fail_msg("%s: %s", sql, err.detail);
    }
    int n = PQntuples(res) == 1 && PQnfields(res) == 1 ? (int)strtol(PQgetvalue(res, 0, 0), NULL, 10) : 0;
    PQclear(res);
    return n;
}

static session_user_t add(const char *email) {
    session_user_t user;
    err_t err;
    assert_int_equal(session_register(pool, email, "correct horse", "Ann", &user, &err), ERR_OK);
    return user;
}

static void registers_once(void **state) {
    session_user_t user;
    err_t err;
    (void)state;
    assert_int_equal(session_register(pool, "  Ann@Example.org ", "correct horse", "Änn", &user, &err), ERR_OK);
    assert_string_equal(user.email, "Ann@Example.org");
    assert_string_equal(user.display_name, "Änn");
    assert_string_equal(user.role, "user");
    assert_int_equal(strlen(user.created_at), strlen("2031-05-06T07:08:09.123Z"));
    assert_int_equal(session_register(pool, "ann@example.ORG", "another horse", "", &user, &err), ERR_CONFLICT);
    assert_string_equal(err.code, "email_taken");
    assert_int_equal(run_sql("SELECT count(*) FROM users WHERE password_hash LIKE '%correct horse%'"), 0);
}

static void wrong_input_is_refused(void **state) {
    static const char *const addresses[] = {"", "a", "@b", "a@", "a b@c.org", "a@b@c", "a\n@b.org", "\xff@b.org"};
    session_user_t user;
    char longer[400];
    (void)state;
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        assert_int_equal(session_register(pool, addresses[i], "correct horse", "", &user, NULL), ERR_INVALID);
    }
    memset(longer, 'a', sizeof longer);
    memcpy(longer + sizeof longer - 7, "@b.org", 7);
    assert_int_equal(session_register(pool, longer, "correct horse", "", &user, NULL), ERR_INVALID);
    assert_int_equal(session_register(pool, "b@example.org", "short", "", &user, NULL), ERR_INVALID);
    assert_int_equal(session_register(pool, "b@example.org", "correct horse", longer, &user, NULL), ERR_INVALID);
}

static void signs_in(void **state) {
    session_user_t a = add("in@example.org");
    session_user_t b;
    err_t wrong;
    err_t unknown;
    err_t disabled;
    (void)state;
    assert_int_equal(session_login(pool, "IN@example.org", "correct horse", &b, NULL), ERR_OK);
    assert_string_equal(a.id, b.id);
    assert_int_equal(session_login(pool, "in@example.org", "wrong horse", &b, &wrong), ERR_UNAUTHENTICATED);
    assert_int_equal(session_login(pool, "out@example.org", "wrong horse", &b, &unknown), ERR_UNAUTHENTICATED);
    run_sql("UPDATE users SET disabled_at = now() WHERE email = 'in@example.org'");
    assert_int_equal(session_login(pool, "in@example.org", "correct horse", &b, &disabled), ERR_UNAUTHENTICATED);
    assert_memory_equal(&wrong, &unknown, sizeof wrong); /* nobody learns which it was */
    assert_memory_equal(&wrong, &disabled, sizeof wrong);
    assert_int_equal(session_load_user(pool, a.id, &b, NULL), ERR_UNAUTHENTICATED);
}

/* What an older version may have written: fewer passes, less memory. */
static void an_old_hash_is_renewed_at_sign_in(void **state) {
    static const unsigned char salt[16] = "0123456789abcde";
    char hash[PASSWORD_HASH_ROOM];
    session_user_t user = add("old@example.org");
    (void)state;
    assert_int_equal(argon2id_hash_encoded(1, 4096, 1, "correct horse", 13, salt, sizeof salt, 32, hash, sizeof hash),
                     0);
    const char *params[] = {user.id, hash};
    assert_int_equal(pg_query(pool, "UPDATE users SET password_hash = $2 WHERE id = $1", 2, params, NULL, NULL),
                     ERR_OK);
    assert_int_equal(session_login(pool, "old@example.org", "wrong horse", &user, NULL), ERR_UNAUTHENTICATED);
    assert_int_equal(run_sql("SELECT count(*) FROM users WHERE password_hash LIKE '%m=4096,t=1%'"), 1);
    assert_int_equal(session_login(pool, "old@example.org", "correct horse", &user, NULL), ERR_OK);
    assert_int_equal(run_sql("SELECT count(*) FROM users WHERE password_hash LIKE '%m=4096,t=1%'"), 0);
    assert_int_equal(session_login(pool, "old@example.org", "correct horse", &user, NULL), ERR_OK);
}

static void rotates(void **state) {
    session_user_t user = add("rotate@example.org");
    session_user_t seen;
    char a[SESSION_TOKEN_ROOM];
    char b[SESSION_TOKEN_ROOM];
    char c[SESSION_TOKEN_ROOM];
    (void)state;
    assert_int_equal(session_start(pool, &cfg, user.id, "Browser", a, NULL), ERR_OK);
    assert_true(strlen(a) == 43);
    assert_int_equal(session_rotate(pool, &cfg, a, "Browser", &seen, b, NULL), ERR_OK);
    assert_string_equal(seen.id, user.id);
    assert_string_not_equal(a, b);
    assert_int_equal(session_rotate(pool, &cfg, b, NULL, &seen, c, NULL), ERR_OK);
    assert_int_equal(run_sql("SELECT count(DISTINCT family_id) FROM refresh_tokens"), 1);
    assert_int_equal(run_sql("SELECT count(*) FROM refresh_tokens WHERE length(token_hash) = 32"), 3);
}

static void reuse_revokes_the_family_only(void **state) {
    session_user_t user = add("reuse@example.org");
    session_user_t seen;
    char a[SESSION_TOKEN_ROOM];
    char b[SESSION_TOKEN_ROOM];
    char c[SESSION_TOKEN_ROOM];
    char elsewhere[SESSION_TOKEN_ROOM];
    err_t err;
    (void)state;
    assert_int_equal(session_start(pool, &cfg, user.id, "", a, NULL), ERR_OK);
    assert_int_equal(session_start(pool, &cfg, user.id, "", elsewhere, NULL), ERR_OK);
    assert_int_equal(session_rotate(pool, &cfg, a, "", &seen, b, NULL), ERR_OK);
    assert_int_equal(session_rotate(pool, &cfg, a, "", &seen, c, &err), ERR_UNAUTHENTICATED);
    assert_string_equal(err.code, "refresh_reused");
    assert_int_equal(session_rotate(pool, &cfg, b, "", &seen, c, &err), ERR_UNAUTHENTICATED);
    assert_int_equal(session_rotate(pool, &cfg, elsewhere, "", &seen, c, NULL), ERR_OK);
}

static void wrong_tokens_are_refused(void **state) {
    session_user_t user = add("wrong@example.org");
    session_user_t seen;
    char a[SESSION_TOKEN_ROOM];
    char b[SESSION_TOKEN_ROOM];
    err_t err;
    (void)state;
    assert_int_equal(session_rotate(pool, &cfg, "", "", &seen, b, NULL), ERR_UNAUTHENTICATED);
    assert_int_equal(session_rotate(pool, &cfg, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "", &seen, b, NULL),
                     ERR_UNAUTHENTICATED);
    assert_int_equal(session_start(pool, &cfg, user.id, "", a, NULL), ERR_OK);
    run_sql("UPDATE refresh_tokens SET expires_at = now() - interval '1 second' WHERE rotated_at IS NULL");
    assert_int_equal(session_rotate(pool, &cfg, a, "", &seen, b, &err), ERR_UNAUTHENTICATED);
    assert_string_equal(err.code, "refresh_invalid");
    assert_int_equal(session_sweep(pool, NULL), ERR_OK);
    assert_int_equal(run_sql("SELECT count(*) FROM refresh_tokens WHERE expires_at < now()"), 0);
    assert_int_equal(session_start(pool, &cfg, user.id, "", a, NULL), ERR_OK);
    run_sql("UPDATE users SET disabled_at = now() WHERE email = 'wrong@example.org'");
    assert_int_equal(session_rotate(pool, &cfg, a, "", &seen, b, NULL), ERR_UNAUTHENTICATED);
}

static void signs_out(void **state) {
    session_user_t user = add("out@example.org");
    session_user_t seen;
    char a[SESSION_TOKEN_ROOM];
    char b[SESSION_TOKEN_ROOM];
    char c[SESSION_TOKEN_ROOM];
    (void)state;
    assert_int_equal(session_start(pool, &cfg, user.id, "", a, NULL), ERR_OK);
    assert_int_equal(session_rotate(pool, &cfg, a, "", &seen, b, NULL), ERR_OK);
    assert_int_equal(session_end(pool, b, NULL), ERR_OK);
    assert_int_equal(session_rotate(pool, &cfg, b, "", &seen, c, NULL), ERR_UNAUTHENTICATED);
    assert_int_equal(session_end(pool, b, NULL), ERR_OK);
    assert_int_equal(session_end(pool, "nonsense", NULL), ERR_OK);
}

typedef struct {
    const char *token;
    err_kind_t result;
} race_t;

static void *rotate_once(void *arg) {
    race_t *r = arg;
    session_user_t seen;
    char next[SESSION_TOKEN_ROOM];
    r->result = session_rotate(pool, &cfg, r->token, "", &seen, next, NULL);
    return NULL;
}

/* Eight at once with one token: one at most may win, and the family ends revoked. */
static void of_many_at_once_one_wins(void **state) {
    session_user_t user = add("race@example.org");
    (void)state;
    for (int round = 0; round < 20; round++) {
        char a[SESSION_TOKEN_ROOM];
        pthread_t t[8];
        race_t r[8];
        int won = 0;
        assert_int_equal(session_start(pool, &cfg, user.id, "", a, NULL), ERR_OK);
        for (int i = 0; i < 8; i++) {
            r[i].token = a;
            assert_int_equal(pthread_create(&t[i], NULL, rotate_once, &r[i]), 0);
        }
        for (int i = 0; i < 8; i++) {
            pthread_join(t[i], NULL);
            won += r[i].result == ERR_OK;
            assert_true(r[i].result == ERR_OK || r[i].result == ERR_UNAUTHENTICATED);
        }
        assert_int_equal(won, 1);
    }
    assert_int_equal(run_sql("SELECT count(*) FROM refresh_tokens t JOIN users u ON u.id = t.user_id"
                             " WHERE u.email = 'race@example.org' AND t.revoked_at IS NULL"),
                     0);
}

static int set_up(void **state) {
    int applied = 0;
    err_t err;
    (void)state;
    private_pg_start(&server);
    cfg = (config_t){.database_url = server.url,
                     .db_pool_max = 10,
                     .db_pool_idle_ms = 60000,
                     .db_acquire_ms = 20000,
                     .db_max_uses = 10000,
                     .db_slow_ms = 60000,
                     .db_statement_ms = 10000,
                     .refresh_ttl_s = 3600};
    if (pg_pool_create(&cfg, "test", &pool, &err) != ERR_OK || pg_wait_ready(pool, 20, &err) != ERR_OK ||
        migrate_up(pool, "proto/sql", &applied, &err) != ERR_OK) {
        print_message("%s: %s\n", err.message, err.detail);
        return -1;
    }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    pg_pool_destroy(pool);
    private_server_stop(&server);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registers_once),
        cmocka_unit_test(wrong_input_is_refused),
        cmocka_unit_test(signs_in),
        cmocka_unit_test(an_old_hash_is_renewed_at_sign_in),
        cmocka_unit_test(rotates),
        cmocka_unit_test(reuse_revokes_the_family_only),
        cmocka_unit_test(wrong_tokens_are_refused),
        cmocka_unit_test(signs_out),
        cmocka_unit_test(of_many_at_once_one_wins),
    };
    log_init("test", LOG_ERROR);
    if (!private_pg_available()) {
        return 0;
    }
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
