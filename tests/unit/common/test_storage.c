/* Directory storage: keys, atomic puts, deletion, links, leftovers, many threads. */
#include "common/storage.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "tests/unit/common/storage_fixture.h"

static int set_up(void **state) {
    (void)state;
    err_t err;
    char dir[128];
    if (!make_root()) {
        return -1;
    }
    (void)snprintf(dir, sizeof dir, "%s/made/on/demand", root);
    return storage_open_dir(dir, &st, &err) == ERR_OK ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    storage_close(st);
    return remove_root();
}

static void path_of(char *out, size_t room, const char *rest) {
    (void)snprintf(out, room, "%s/made/on/demand/%s", root, rest);
}

/* Files in ".tmp". */
static int temporary_files(void) {
    char path[256];
    path_of(path, sizeof path, ".tmp");
    DIR *dir = opendir(path);
    assert_non_null(dir);
    int n = -2; /* "." and ".." */
    while (readdir(dir)) {
        n++;
    }
    closedir(dir);
    return n;
}

static void test_put_get_replace(void **state) {
    (void)state;
    put("images/0a/original", "first");
    expect_content("images/0a/original", "first");
    put("images/0a/original", "second one");
    expect_content("images/0a/original", "second one");
    put("plain", "");
    expect_content("plain", "");
    assert_true(storage_exists(st, "plain"));
    assert_false(storage_exists(st, "images"));
    assert_false(storage_exists(st, "images/0a"));
    assert_false(storage_exists(st, "images/0a/original/x"));
    int fd;
    int64_t size;
    err_t err;
    assert_int_equal(storage_get(st, "images/0b/original", &fd, &size, &err), ERR_NOT_FOUND);
    assert_string_equal(err.code, "object_missing");
    assert_int_equal(fd, -1);
    char path[512];
    assert_int_equal(storage_local(st, "images/0a/original", path, sizeof path, &err), ERR_OK);
    assert_int_equal(access(path, R_OK), 0);
    storage_local_release(st, path);
    assert_int_equal(access(path, R_OK), 0); /* the object itself is not deleted */
    assert_int_equal(storage_local(st, "missing", path, sizeof path, &err), ERR_NOT_FOUND);
    assert_int_equal(storage_local(st, "images/0a/original", path, 10, &err), ERR_INTERNAL);
    assert_int_equal(temporary_files(), 0);
}

static void test_wrong_keys(void **state) {
    (void)state;
    char long_segment[200];
    memset(long_segment, 'a', sizeof long_segment);
    long_segment[199] = '\0';
    char long_key[1000];
    for (int i = 0; i < 999; i++) {
        long_key[i] = i % 100 == 99 ? '/' : 'a';
    }
    long_key[999] = '\0';
    const char *const keys[] = {"",
                                "/",
                                "/etc/passwd",
                                "a/",
                                "a//b",
                                "..",
                                "../x",
                                "a/../b",
                                ".",
                                "a/.",
                                ".tmp/x",
                                "a/.b",
                                "A",
                                "a b",
                                "a\\b",
                                "a\nb",
                                "\xC3\xA9",
                                "a%2fb",
                                "1/2/3/4/5/6/7/8/9",
                                long_segment,
                                long_key};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        err_t err;
        int fd;
        int64_t size;
        storage_put_t *p;
        if (storage_put_begin(st, keys[i], &p, &err) != ERR_INVALID ||
            storage_get(st, keys[i], &fd, &size, &err) != ERR_INVALID ||
            storage_delete(st, keys[i], &err) != ERR_INVALID || storage_delete_tree(st, keys[i], &err) != ERR_INVALID ||
            storage_exists(st, keys[i])) {
            fail_msg("accepted: %s", keys[i]);
        }
        assert_string_equal(err.code, "invalid_key");
    }
    put("a-b_c.d0/x..y", "fine");
}

static void test_nothing_is_seen_before_commit(void **state) {
    (void)state;
    storage_put_t *p;
    err_t err;
    assert_int_equal(storage_put_begin(st, "k/v", &p, &err), ERR_OK);
    assert_int_equal(storage_put_write(p, "abc", 3, &err), ERR_OK);
    assert_int_equal(storage_put_flush(p, &err), ERR_OK);
    FILE *f = fopen(storage_put_path(p), "r"); /* a decoder may look at it already */
    char got[8] = {0};
    assert_int_equal(fread(got, 1, sizeof got, f), 3);
    fclose(f);
    assert_string_equal(got, "abc");
    assert_false(storage_exists(st, "k/v"));
    assert_int_equal(storage_put_write(p, "def", 3, &err), ERR_OK);
    assert_int_equal(storage_put_commit(p, &err), ERR_OK);
    expect_content("k/v", "abcdef");
    assert_int_equal(storage_put_begin(st, "k/v", &p, &err), ERR_OK);
    assert_int_equal(storage_put_write(p, "lost", 4, &err), ERR_OK);
    assert_int_equal(temporary_files(), 1);
    storage_put_abort(p);
    assert_int_equal(temporary_files(), 0);
    expect_content("k/v", "abcdef");
    storage_put_abort(NULL);
}

static void test_delete(void **state) {
    (void)state;
    err_t err;
    put("a/b/c", "1");
    put("a/b/d", "2");
    assert_int_equal(storage_delete(st, "a/b/c", &err), ERR_OK);
    assert_false(storage_exists(st, "a/b/c"));
    assert_int_equal(storage_delete(st, "a/b/c", &err), ERR_OK);
    assert_int_equal(storage_delete(st, "never/was", &err), ERR_OK);
    assert_int_equal(storage_delete(st, "a/b", &err), ERR_OK); /* no object: nothing happens */
    expect_content("a/b/d", "2");
    assert_int_equal(storage_delete(st, "a/b/d", &err), ERR_OK);
    char path[256];
    path_of(path, sizeof path, "a");
    assert_int_not_equal(access(path, F_OK), 0); /* empty folders go too */
}

static void test_delete_tree(void **state) {
    (void)state;
    err_t err;
    put("p/one/tiles/0/0_0.jpg", "1");
    put("p/one/tiles/0/0_1.jpg", "1");
    put("p/one/original", "1");
    put("p/one-more/original", "stays: its key only begins alike");
    put("p/on", "stays");
    assert_int_equal(storage_delete_tree(st, "p/one", &err), ERR_OK);
    assert_false(storage_exists(st, "p/one/original"));
    assert_false(storage_exists(st, "p/one/tiles/0/0_1.jpg"));
    assert_true(storage_exists(st, "p/one-more/original"));
    assert_true(storage_exists(st, "p/on"));
    assert_int_equal(storage_delete_tree(st, "p/one", &err), ERR_OK);
    assert_int_equal(storage_delete_tree(st, "p/on", &err), ERR_OK); /* an object is no tree */
    assert_true(storage_exists(st, "p/on"));
    put("p/one/original", "again");
    expect_content("p/one/original", "again");
}

static void test_links_lead_nowhere(void **state) {
    (void)state;
    char outside[128];
    char link_path[256];
    char victim[256];
    err_t err;
    (void)snprintf(outside, sizeof outside, "%s/outside", root);
    assert_int_equal(mkdir(outside, 0700), 0);
    (void)snprintf(victim, sizeof victim, "%s/victim", outside);
    int fd = open(victim, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    path_of(link_path, sizeof link_path, "linked");
    assert_int_equal(symlink(outside, link_path), 0);
    path_of(link_path, sizeof link_path, "file-link");
    assert_int_equal(symlink(victim, link_path), 0);
    assert_false(storage_exists(st, "linked/victim"));
    assert_false(storage_exists(st, "file-link"));
    assert_int_not_equal(storage_put_bytes(st, "linked/new", "x", 1, &err), ERR_OK);
    assert_int_equal(storage_delete_tree(st, "linked", &err), ERR_OK);
    assert_int_equal(access(victim, F_OK), 0);
    put("tree/x", "1");
    path_of(link_path, sizeof link_path, "tree/link");
    assert_int_equal(symlink(outside, link_path), 0);
    assert_int_equal(storage_delete_tree(st, "tree", &err), ERR_OK); /* removes the link, not what it names */
    assert_int_equal(access(victim, F_OK), 0);
}

static void test_sweep_removes_only_old_leftovers(void **state) {
    (void)state;
    storage_put_t *young;
    storage_put_t *old;
    err_t err;
    assert_int_equal(storage_put_begin(st, "young", &young, &err), ERR_OK);
    assert_int_equal(storage_put_begin(st, "old", &old, &err), ERR_OK);
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = time(NULL) - 3700}};
    assert_int_equal(utimensat(AT_FDCWD, storage_put_path(old), times, 0), 0);
    log_init("test", LOG_ERROR);
    storage_sweep_temporary(st);
    assert_int_equal(access(storage_put_path(young), F_OK), 0);
    assert_int_not_equal(access(storage_put_path(old), F_OK), 0);
    assert_int_equal(storage_put_commit(young, &err), ERR_OK);
    assert_true(storage_exists(st, "young"));
    assert_int_equal(storage_put_commit(old, &err), ERR_IO); /* and says so instead of pretending */
    assert_false(storage_exists(st, "old"));
}

static void test_check(void **state) {
    (void)state;
    err_t err;
    int64_t room = -1;
    assert_int_equal(storage_check(st, &room, &err), ERR_OK);
    assert_true(room > 0);
    assert_int_equal(temporary_files(), 0);
    char file[256];
    storage_t *other;
    put("a-file", "x");
    path_of(file, sizeof file, "a-file");
    assert_int_equal(storage_open_dir(file, &other, &err), ERR_IO);
    assert_null(other);
    assert_true(strlen(err.message) > 0);
    assert_int_equal(storage_open_dir("/proc/nowhere", &other, &err), ERR_IO);
}

/* Puts, reads and deletes below one folder that everybody else deletes, too. */
static void *churn(void *arg) {
    worker_t *w = arg;
    char key[64];
    for (int i = 0; i < 60; i++) {
        (void)snprintf(key, sizeof key, "shared/d%d/w%d", i % 3, w->id);
        err_t err;
        int fd;
        int64_t size;
        if (storage_put_bytes(st, key, "12345678", 8, &err) != ERR_OK) {
            fprintf(stderr, "%s %s\n", err.message, err.detail);
            atomic_fetch_add(w->failures, 1);
        }
        err_kind_t kind = storage_get(st, key, &fd, &size, &err);
        if (kind == ERR_OK) {
            if (size != 8) { /* never half an object */
                atomic_fetch_add(w->failures, 1);
            }
            close(fd);
        } else if (kind != ERR_NOT_FOUND) {
            atomic_fetch_add(w->failures, 1);
        }
        (void)snprintf(key, sizeof key, "shared/d%d", i % 3);
        if ((w->id + i) % 4 == 0 && storage_delete_tree(st, key, &err) != ERR_OK) {
            fprintf(stderr, "%s %s\n", err.message, err.detail);
            atomic_fetch_add(w->failures, 1);
        }
    }
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    churn_in_threads(churn);
    assert_int_equal(temporary_files(), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_put_get_replace, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_wrong_keys, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nothing_is_seen_before_commit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_delete, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_delete_tree, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_links_lead_nowhere, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sweep_removes_only_old_leftovers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_check, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_threads, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
