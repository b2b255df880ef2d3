/* Configuration: defaults, bounds, strict words, secrets from files, what messages may say. */
#include "common/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/support/cmocka_all.h"

/* Every variable of the table is unset before each test, so that the caller's environment does not matter. */
static int clean(void **state) {
    (void)state;
    static const char *const names[] = {
#define CFG_STR(f, n, d, s, h) n,
#define CFG_SECRET(f, n, d, s, h) n, n "_FILE",
#define CFG_INT(f, n, d, lo, hi, s, h) n,
#define CFG_REAL(f, n, d, lo, hi, s, h) n,
#define CFG_BOOL(f, n, d, s, h) n,
#include "common/config_table.h"
#undef CFG_STR
#undef CFG_SECRET
#undef CFG_INT
#undef CFG_REAL
#undef CFG_BOOL
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        unsetenv(names[i]);
    }
    return 0;
}

static config_t load(int scope) {
    config_t cfg;
    err_t err = {0};
    if (config_load(scope, &cfg, &err) != ERR_OK) {
        fail_msg("%s", err.message);
    }
    return cfg;
}

static void refuse(int scope, const char *name, const char *value, const char *words) {
    config_t cfg;
    err_t err;
    setenv(name, value, 1);
    if (config_load(scope, &cfg, &err) != ERR_INVALID) {
        fail_msg("%s=%s was accepted", name, value);
    }
    assert_string_equal(err.code, "config_invalid");
    assert_non_null(strstr(err.message, name));
    assert_non_null(strstr(err.message, words));
    unsetenv(name);
}

static void test_defaults_are_valid(void **state) {
    (void)state;
    config_t cfg = load(CONFIG_BOTH);
    assert_int_equal(cfg.db_pool_max, 20);
    assert_int_equal(cfg.db_pool_idle_ms, 30000);
    assert_string_equal(cfg.log_level, "info");
    assert_string_equal(cfg.database_url, "");
    assert_true(cfg.breaker_enabled);
    assert_true(cfg.breaker_threshold == 50.0);
    config_free(&cfg);
    /* the bounds of the table hold its own defaults */
    char text[64];
#define CFG_STR(f, n, d, s, h)
#define CFG_SECRET(f, n, d, s, h)
#define CFG_BOOL(f, n, d, s, h)
#define CFG_INT(f, n, d, lo, hi, s, h)                                                                                 \
    (void)snprintf(text, sizeof text, "%lld", (long long)(d));                                                         \
    setenv(n, text, 1);
#define CFG_REAL(f, n, d, lo, hi, s, h)                                                                                \
    (void)snprintf(text, sizeof text, "%g", (double)(d));                                                              \
    setenv(n, text, 1);
#include "common/config_table.h"
#undef CFG_STR
#undef CFG_SECRET
#undef CFG_INT
#undef CFG_REAL
#undef CFG_BOOL
    cfg = load(CONFIG_BOTH);
    config_free(&cfg);
}

static void test_numbers_have_bounds(void **state) {
    (void)state;
    setenv("DB_POOL_MAX", "1000", 1);
    setenv("ML_ERROR_THRESHOLD", "12.5", 1);
    setenv("MAX_UPLOAD_SIZE", "1099511627776", 1);
    config_t cfg = load(CONFIG_BOTH);
    assert_int_equal(cfg.db_pool_max, 1000);
    assert_true(cfg.breaker_threshold == 12.5);
    assert_int_equal(cfg.max_upload_size, 1099511627776LL);
    config_free(&cfg);
    static const char *const wrong[] = {
        "0", "1001", "-5", "twenty", "20x", " 20", "2 ", "1e3", "0x5", "2.5", "99999999999999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        refuse(CONFIG_BOTH, "DB_POOL_MAX", wrong[i], "from 1 to 1000");
    }
    static const char *const wrong_real[] = {"0", "100.1", "nan", "inf", "fifty", "50%", "0x1p3"};
    for (size_t i = 0; i < sizeof wrong_real / sizeof wrong_real[0]; i++) {
        refuse(CONFIG_BOTH, "ML_ERROR_THRESHOLD", wrong_real[i], "from 1 to 100");
    }
}

static void test_words(void **state) {
    (void)state;
    static const struct {
        const char *word;
        bool value;
    } words[] = {{"true", true},   {"TRUE", true},   {"1", true},  {"yes", true}, {"on", true},
                 {"false", false}, {"False", false}, {"0", false}, {"no", false}, {"off", false}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        setenv("ENABLE_CIRCUIT_BREAKER", words[i].word, 1);
        config_t cfg = load(CONFIG_BOTH);
        assert_int_equal(cfg.breaker_enabled, words[i].value);
        config_free(&cfg);
    }
    unsetenv("ENABLE_CIRCUIT_BREAKER");
    refuse(CONFIG_BOTH, "ENABLE_CIRCUIT_BREAKER", "maybe", "true or false");
    refuse(CONFIG_BOTH, "ENABLE_CIRCUIT_BREAKER", "2", "true or false");
    refuse(CONFIG_BOTH, "LOG_LEVEL", "loud", "debug");
}

static void test_empty_is_not_set(void **state) {
    (void)state;
    setenv("DB_POOL_MAX", "", 1);
    setenv("STORAGE_DIR", "", 1);
    setenv("ALLOW_REGISTRATION", "", 1);
    config_t cfg = load(CONFIG_BOTH);
    assert_int_equal(cfg.db_pool_max, 20);
    assert_string_equal(cfg.storage_dir, "./data/storage");
    assert_true(cfg.allow_registration);
    config_free(&cfg);
}

static void test_scope(void **state) {
    (void)state;
    setenv("HTTPS_PORT", "nonsense", 1); /* the worker does not read it */
    config_t cfg = load(CONFIG_WORKER);
    assert_int_equal(cfg.https_port, 8443);
    config_free(&cfg);
    refuse(CONFIG_GATEWAY, "HTTPS_PORT", "nonsense", "65535");
}

static void secret_file(char *path, const char *text, size_t n) {
    (void)snprintf(path, 64, "/tmp/sgtest-secret-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, n), n);
    close(fd);
}

static void test_secrets_from_files(void **state) {
    (void)state;
    char path[64];
    static const char text[] = "postgresql://u:pw@h/d\n";
    secret_file(path, text, sizeof text - 1);
    setenv("DATABASE_URL_FILE", path, 1);
    config_t cfg = load(CONFIG_BOTH);
    assert_string_equal(cfg.database_url, "postgresql://u:pw@h/d");
    config_free(&cfg);

    config_t none;
    err_t err;
    setenv("DATABASE_URL", "postgresql://secret-value@h/d", 1); /* both: which one counts? */
    assert_int_equal(config_load(CONFIG_BOTH, &none, &err), ERR_INVALID);
    assert_non_null(strstr(err.message, "DATABASE_URL_FILE"));
    assert_null(strstr(err.message, "secret-value"));
    unsetenv("DATABASE_URL");
    unlink(path);
    assert_int_equal(config_load(CONFIG_BOTH, &none, &err), ERR_INVALID);
    assert_non_null(strstr(err.message, path));
    assert_non_null(strstr(err.message, "No such file"));

    static const struct {
        const char *text;
        size_t n;
    } wrong[] = {{"", 0}, {"\n", 1}, {"a\0b", 3}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        secret_file(path, wrong[i].text, wrong[i].n);
        setenv("DATABASE_URL_FILE", path, 1);
        assert_int_equal(config_load(CONFIG_BOTH, &none, &err), ERR_INVALID);
        unlink(path);
    }
    char *large = calloc(1, 70000);
    memset(large, 'x', 70000);
    secret_file(path, large, 70000);
    free(large);
    setenv("DATABASE_URL_FILE", path, 1);
    assert_int_equal(config_load(CONFIG_BOTH, &none, &err), ERR_INVALID);
    unlink(path);
    /* only secrets have the variant */
    unsetenv("DATABASE_URL_FILE");
    setenv("LOG_LEVEL_FILE", "/nonexistent", 1);
    cfg = load(CONFIG_BOTH);
    config_free(&cfg);
    unsetenv("LOG_LEVEL_FILE");
}

static void test_rules_between_variables(void **state) {
    (void)state;
    refuse(CONFIG_GATEWAY, "JWT_SECRET", "short", "32");
    refuse(CONFIG_GATEWAY, "TLS_CERT", "/cert.pem", "TLS_KEY");
    setenv("JWT_SECRET", "0123456789abcdef0123456789abcdef", 1);
    config_t cfg = load(CONFIG_GATEWAY);
    config_free(&cfg);
}

static void test_help_names_everything_of_the_scope(void **state) {
    (void)state;
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    config_print_help(CONFIG_WORKER, out);
    fclose(out);
    assert_non_null(strstr(text, "QUEUE_CONCURRENCY"));
    assert_non_null(strstr(text, "whole number from 1 to 64, default 1"));
    assert_non_null(strstr(text, "DATABASE_URL_FILE"));
    assert_non_null(strstr(text, "true or false, default true"));
    assert_null(strstr(text, "HTTPS_PORT"));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_defaults_are_valid, clean),
        cmocka_unit_test_setup(test_numbers_have_bounds, clean),
        cmocka_unit_test_setup(test_words, clean),
        cmocka_unit_test_setup(test_empty_is_not_set, clean),
        cmocka_unit_test_setup(test_scope, clean),
        cmocka_unit_test_setup(test_secrets_from_files, clean),
        cmocka_unit_test_setup(test_rules_between_variables, clean),
        cmocka_unit_test_setup(test_help_names_everything_of_the_scope, clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
