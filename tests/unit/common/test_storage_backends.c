/*
 * What every storage back end must do, asked of each: the directory, and a bucket where STORAGE_URL and S3_ENDPOINT
 * name one (tests/integration/test_storage_s3.py starts a server for it).
 */
#include "common/storage.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config.h"
#include "common/log.h"
#include "common/storage_s3.h"
#include "tests/unit/common/storage_fixture.h"

static int set_up_dir(void **state) {
    (void)state;
    err_t err;
    return make_root() && storage_open_dir(root, &st, &err) == ERR_OK ? 0 : -1;
}

static bool has_bucket(void) {
    return getenv("S3_ENDPOINT") && getenv("S3_BUCKET") && getenv("S3_ACCESS_KEY") && getenv("S3_SECRET_KEY");
}

static err_kind_t open_bucket(const char *endpoint, const char *secret, int64_t part_size, storage_t **out,
                              err_t *err) {
    storage_s3_t settings = {.bucket = getenv("S3_BUCKET"),
                             .prefix = "a/prefix",
                             .endpoint = endpoint,
                             .region = "us-east-1",
                             .access_key = getenv("S3_ACCESS_KEY"),
                             .secret_key = secret,
                             .path_style = true,
                             .dir = root,
                             .part_size = part_size};
    return storage_open_s3(&settings, out, err);
}

static int set_up_s3(void **state) {
    (void)state;
    err_t err;
    if (!make_root()) {
        return -1;
    }
    st = NULL;
    return !has_bucket() || open_bucket(getenv("S3_ENDPOINT"), getenv("S3_SECRET_KEY"), 5 << 20, &st, &err) == ERR_OK
               ? 0
               : -1;
}

static int tear_down(void **state) {
    (void)state;
    err_t err;
    if (st) {
        (void)!storage_delete_tree(st, "t", &err);
    }
    storage_close(st);
    return remove_root();
}

static void need_storage(void) {
    if (!st) {
        skip();
    }
}

static void test_put_get_replace(void **state) {
    (void)state;
    need_storage();
    err_t err;
    int fd;
    int64_t size;
    put("t/0a/original", "first");
    expect_content("t/0a/original", "first");
    put("t/0a/original", "second one");
    expect_content("t/0a/original", "second one");
    put("t/plain", "");
    expect_content("t/plain", "");
    assert_true(storage_exists(st, "t/plain"));
    assert_false(storage_exists(st, "t/0a"));
    assert_int_equal(storage_get(st, "t/0b/original", &fd, &size, &err), ERR_NOT_FOUND);
    assert_string_equal(err.code, "object_missing");
    assert_int_equal(fd, -1);
    assert_int_equal(storage_put_begin(st, "../x", &(storage_put_t *){NULL}, &err), ERR_INVALID);
    assert_int_equal(storage_check(st, &size, &err), ERR_OK);
    assert_true(size > 0);
}

static void test_local_copy(void **state) {
    (void)state;
    need_storage();
    char path[512];
    char got[16] = {0};
    err_t err;
    put("t/copy", "content");
    assert_int_equal(storage_local(st, "t/copy", path, sizeof path, &err), ERR_OK);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fread(got, 1, sizeof got, f), 7);
    fclose(f);
    storage_local_release(st, path);
    expect_content("t/copy", "content");
    assert_int_equal(storage_local(st, "t/missing", path, sizeof path, &err), ERR_NOT_FOUND);
}

static void test_nothing_is_seen_before_commit(void **state) {
    (void)state;
    need_storage();
    storage_put_t *p;
    err_t err;
    char got[8] = {0};
    assert_int_equal(storage_put_begin(st, "t/k", &p, &err), ERR_OK);
    assert_int_equal(storage_put_write(p, "abc", 3, &err), ERR_OK);
    assert_int_equal(storage_put_flush(p, &err), ERR_OK);
    FILE *f = fopen(storage_put_path(p), "r");
    assert_non_null(f);
    assert_int_equal(fread(got, 1, sizeof got, f), 3);
    fclose(f);
    assert_false(storage_exists(st, "t/k"));
    assert_int_equal(storage_put_commit(p, &err), ERR_OK);
    expect_content("t/k", "abc");
    assert_int_equal(storage_put_begin(st, "t/k", &p, &err), ERR_OK);
    assert_int_equal(storage_put_write(p, "lost", 4, &err), ERR_OK);
    storage_put_abort(p);
    expect_content("t/k", "abc");
}

static void test_delete(void **state) {
    (void)state;
    need_storage();
    err_t err;
    put("t/a/b", "1");
    assert_int_equal(storage_delete(st, "t/a/b", &err), ERR_OK);
    assert_false(storage_exists(st, "t/a/b"));
    assert_int_equal(storage_delete(st, "t/a/b", &err), ERR_OK);
    assert_int_equal(storage_delete(st, "t/never/was", &err), ERR_OK);
    put("t/one/tiles/0/0_0.jpg", "1");
    put("t/one/tiles/0/0_1.jpg", "1");
    put("t/one/original", "1");
    put("t/one-more/original", "stays: its key only begins alike");
    assert_int_equal(storage_delete_tree(st, "t/one", &err), ERR_OK);
    assert_false(storage_exists(st, "t/one/original"));
    assert_false(storage_exists(st, "t/one/tiles/0/0_1.jpg"));
    assert_true(storage_exists(st, "t/one-more/original"));
    assert_int_equal(storage_delete_tree(st, "t/one", &err), ERR_OK);
}

/* More than one part, and a size that no part's border divides. */
static void test_large(void **state) {
    (void)state;
    need_storage();
    enum { PIECE = 1 << 16, PIECES = 200, REST = 12345 };
    static uint8_t piece[PIECE];
    static uint8_t back[PIECE];
    storage_put_t *p;
    err_t err = {0};
    assert_int_equal(storage_put_begin(st, "t/large", &p, &err), ERR_OK);
    for (int i = 0; i <= PIECES; i++) {
        memset(piece, i, sizeof piece);
        piece[i] = 0xAA;
        assert_int_equal(storage_put_write(p, piece, i < PIECES ? PIECE : REST, &err), ERR_OK);
    }
    if (storage_put_commit(p, &err) != ERR_OK) {
        fail_msg("%s; %s", err.message, err.detail);
    }
    int fd;
    int64_t size;
    assert_int_equal(storage_get(st, "t/large", &fd, &size, &err), ERR_OK);
    assert_int_equal(size, (int64_t)PIECE * PIECES + REST);
    for (int i = 0; i <= PIECES; i++) {
        memset(piece, i, sizeof piece);
        piece[i] = 0xAA;
        ssize_t want = i < PIECES ? PIECE : REST;
        assert_int_equal(read(fd, back, (size_t)want), want);
        assert_memory_equal(back, piece, (size_t)want);
    }
    close(fd);
}

static void test_tree_of_many_pages(void **state) {
    (void)state;
    need_storage();
    err_t err = {0};
    char key[64];
    for (int i = 0; i < 1205; i++) {
        (void)snprintf(key, sizeof key, "t/many/%d/%d.jpg", i % 7, i);
        put(key, "x");
    }
    put("t/many-not", "stays");
    if (storage_delete_tree(st, "t/many", &err) != ERR_OK) {
        fail_msg("%s; %s", err.message, err.detail);
    }
    for (int i = 0; i < 1205; i += 301) {
        (void)snprintf(key, sizeof key, "t/many/%d/%d.jpg", i % 7, i);
        assert_false(storage_exists(st, key));
    }
    assert_true(storage_exists(st, "t/many-not"));
}

static void *churn(void *arg) {
    worker_t *w = arg;
    char key[64];
    char text[64];
    for (int i = 0; i < 25; i++) {
        err_t err = {0};
        int fd;
        int64_t size;
        char got[64] = {0};
        int n = snprintf(text, sizeof text, "thread %d, round %d", w->id, i);
        (void)snprintf(key, sizeof key, "t/shared/w%d", w->id);
        bool ok = storage_put_bytes(st, key, text, (size_t)n, &err) == ERR_OK &&
                  storage_get(st, key, &fd, &size, &err) == ERR_OK;
        if (ok) {
            ok = read(fd, got, sizeof got - 1) == n && strcmp(got, text) == 0;
            close(fd);
        }
        if (!ok) {
            fprintf(stderr, "wrote \"%s\", read \"%s\": %s %s\n", text, got, err.message, err.detail);
            atomic_fetch_add(w->failures, 1);
        }
    }
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    need_storage();
    churn_in_threads(churn);
}

/* ---- a bucket alone ---- */

static void test_settings_are_checked(void **state) {
    (void)state;
    err_t err;
    storage_t *other;
    storage_s3_t good = {.bucket = "bucket",
                         .prefix = "",
                         .endpoint = "http://127.0.0.1:1",
                         .region = "r",
                         .access_key = "a",
                         .secret_key = "s",
                         .path_style = true,
                         .dir = root};
    const storage_s3_t wrong[] = {
        {.bucket = "Bucket"}, {.prefix = "../up"}, {.endpoint = "ftp://host"}, {.secret_key = ""}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        storage_s3_t s = good;
        s.bucket = wrong[i].bucket ? wrong[i].bucket : s.bucket;
        s.prefix = wrong[i].prefix ? wrong[i].prefix : s.prefix;
        s.endpoint = wrong[i].endpoint ? wrong[i].endpoint : s.endpoint;
        s.secret_key = wrong[i].secret_key ? wrong[i].secret_key : s.secret_key;
        assert_int_equal(storage_open_s3(&s, &other, &err), ERR_INVALID);
        assert_null(other);
    }
    assert_int_equal(storage_open_s3(&good, &other, &err), ERR_OK);
    assert_int_equal(storage_put_bytes(other, "k", "x", 1, &err), ERR_IO); /* nobody is there */
    assert_string_equal(err.code, "storage_error");
    assert_int_equal(storage_check(other, NULL, &err), ERR_IO);
    storage_close(other);
}

static void test_wrong_key_is_denied(void **state) {
    (void)state;
    need_storage();
    err_t err;
    storage_t *other;
    int fd;
    int64_t size;
    assert_int_equal(open_bucket(getenv("S3_ENDPOINT"), "wrong", 0, &other, &err), ERR_OK);
    assert_int_equal(storage_check(other, NULL, &err), ERR_IO);
    assert_string_equal(err.code, "storage_denied");
    assert_null(strstr(err.detail, "wrong"));
    assert_int_equal(storage_put_bytes(other, "t/k", "x", 1, &err), ERR_IO);
    assert_int_equal(storage_get(other, "t/k", &fd, &size, &err), ERR_IO);
    assert_false(storage_exists(st, "t/k"));
    storage_close(other);
}

#define CASES(set_up)                                                                                                  \
    cmocka_unit_test_setup_teardown(test_put_get_replace, set_up, tear_down),                                          \
        cmocka_unit_test_setup_teardown(test_local_copy, set_up, tear_down),                                           \
        cmocka_unit_test_setup_teardown(test_nothing_is_seen_before_commit, set_up, tear_down),                        \
        cmocka_unit_test_setup_teardown(test_delete, set_up, tear_down),                                               \
        cmocka_unit_test_setup_teardown(test_large, set_up, tear_down),                                                \
        cmocka_unit_test_setup_teardown(test_tree_of_many_pages, set_up, tear_down),                                   \
        cmocka_unit_test_setup_teardown(test_threads, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASES(set_up_dir),
        CASES(set_up_s3),
        cmocka_unit_test_setup_teardown(test_settings_are_checked, set_up_dir, tear_down),
        cmocka_unit_test_setup_teardown(test_wrong_key_is_denied, set_up_s3, tear_down),
    };
    log_init("test", LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
