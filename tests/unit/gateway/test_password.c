/*
 * Passwords: Argon2id with today's parameters, the same time for a name that nobody has, and a bounded number at once.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/timeutil.h"
#include "gateway/auth/password.h"
#include "tests/unit/support/cmocka_all.h"

static void hashes_and_verifies(void **state) {
    char a[PASSWORD_HASH_ROOM];
    char b[PASSWORD_HASH_ROOM];
    bool matches = false;
    (void)state;
    assert_int_equal(password_hash("correct horse", a, NULL), ERR_OK);
    assert_int_equal(password_hash("correct horse", b, NULL), ERR_OK);
    assert_int_equal(strncmp(a, "$argon2id$v=19$m=19456,t=2,p=1$", 31), 0);
    assert_string_not_equal(a, b); /* salted */
    assert_int_equal(password_verify(a, "correct horse", &matches, NULL), ERR_OK);
    assert_true(matches);
    assert_int_equal(password_verify(a, "correct horsf", &matches, NULL), ERR_OK);
    assert_false(matches);
    assert_int_equal(password_verify(a, "", &matches, NULL), ERR_OK);
    assert_false(matches);
    assert_false(password_needs_rehash(a));
}

/* A password that is too long to be one is not cut: it does not match. */
static void long_passwords_never_match(void **state) {
    char hash[PASSWORD_HASH_ROOM];
    char text[PASSWORD_MAX + 50];
    bool matches = true;
    (void)state;
    memset(text, 'a', sizeof text - 1);
    text[0] = 'b';
    text[sizeof text - 1] = '\0';
    assert_int_equal(password_hash(text, hash, NULL), ERR_OK);
    assert_int_equal(password_verify(hash, text, &matches, NULL), ERR_OK);
    assert_false(matches);
}

static void old_parameters_ask_for_a_new_hash(void **state) {
    (void)state;
    assert_true(password_needs_rehash("$argon2id$v=19$m=4096,t=3,p=1$c2FsdHNhbHQ$aGFzaGhhc2g"));
    assert_true(password_needs_rehash("$argon2i$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g"));
    assert_true(password_needs_rehash(""));
}

static void corrupt_hash_is_an_error(void **state) {
    bool matches = true;
    (void)state;
    assert_int_equal(password_verify("$argon2id$nonsense", "correct horse", &matches, NULL), ERR_INTERNAL);
    assert_false(matches);
}

static void policy_wants_length(void **state) {
    char text[PASSWORD_MAX + 2];
    (void)state;
    assert_int_equal(password_check_policy("123456789", NULL, NULL), ERR_INVALID);
    assert_int_equal(password_check_policy("1234567890", NULL, NULL), ERR_OK);
    assert_int_equal(password_check_policy("aaaaaaaaaaaaaa", NULL, NULL), ERR_INVALID);
    assert_int_equal(password_check_policy("someone@example.org", "Someone@example.org", NULL), ERR_INVALID);
    memset(text, 'a', sizeof text);
    text[0] = 'b';
    text[PASSWORD_MAX] = '\0';
    assert_int_equal(password_check_policy(text, NULL, NULL), ERR_OK);
    text[PASSWORD_MAX] = 'a';
    text[PASSWORD_MAX + 1] = '\0';
    assert_int_equal(password_check_policy(text, NULL, NULL), ERR_INVALID);
}

static int64_t cpu_us(void) {
    struct rusage u;
    getrusage(RUSAGE_THREAD, &u);
    return (int64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 + u.ru_utime.tv_usec + u.ru_stime.tv_usec;
}

/* Processor time, not wall time, so that a busy machine does not decide. */
static void unknown_name_costs_the_same(void **state) {
    char hash[PASSWORD_HASH_ROOM];
    bool matches = true;
    int64_t known = 0;
    int64_t unknown = 0;
    (void)state;
    assert_int_equal(password_hash("correct horse", hash, NULL), ERR_OK);
    assert_int_equal(password_verify(NULL, "wrong password", &matches, NULL), ERR_OK); /* makes its stand-in once */
    assert_false(matches);
    for (int i = 0; i < 8; i++) {
        int64_t t = cpu_us();
        assert_int_equal(password_verify(hash, "wrong password", &matches, NULL), ERR_OK);
        known += cpu_us() - t;
        t = cpu_us();
        assert_int_equal(password_verify(NULL, "wrong password", &matches, NULL), ERR_OK);
        assert_false(matches);
        unknown += cpu_us() - t;
    }
    assert_in_range(unknown * 100 / known, 60, 170);
}

static void *hash_once(void *arg) {
    char out[PASSWORD_HASH_ROOM];
    *(err_kind_t *)arg = password_hash("correct horse", out, NULL);
    return NULL;
}

/* Thirty sign-ins at once may take PASSWORD_PARALLEL × 19 MiB, not 30 × 19 MiB. */
static void a_flood_stays_in_bounds(void **state) {
    pthread_t threads[30];
    err_kind_t results[30];
    struct rusage before;
    struct rusage after;
    (void)state;
    getrusage(RUSAGE_SELF, &before);
    for (int i = 0; i < 30; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, hash_once, &results[i]), 0);
    }
    for (int i = 0; i < 30; i++) {
        pthread_join(threads[i], NULL);
        assert_true(results[i] == ERR_OK || results[i] == ERR_UNAVAILABLE);
    }
    getrusage(RUSAGE_SELF, &after);
    /* Sanitizers keep freed memory aside; the bound is told apart from 30 × 19 MiB all the same. */
    assert_in_range(after.ru_maxrss - before.ru_maxrss, 0, 20L * 19 * 1024);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flood_stays_in_bounds),     cmocka_unit_test(hashes_and_verifies),
        cmocka_unit_test(long_passwords_never_match),  cmocka_unit_test(old_parameters_ask_for_a_new_hash),
        cmocka_unit_test(corrupt_hash_is_an_error),    cmocka_unit_test(policy_wants_length),
        cmocka_unit_test(unknown_name_costs_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
