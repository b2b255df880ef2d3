/*
 * The routing table: which request reaches which handler, and that the tables of all resources fit together. Also what
 * a path may be before it comes near the file system.
 */
#include <string.h>

#include "gateway/http_internal.h"
#include "gateway/router.h"
#include "gateway/static.h"
#include "tests/unit/support/cmocka_all.h"

#define ID "6ba7b810-9dad-41d1-80b4-00c04fd430c8"

static err_kind_t nothing(http_request_t *req, err_t *err) {
    (void)req;
    (void)err;
    return ERR_OK;
}

static const http_route_t first[] = {
    {"GET", "/api/things", nothing, 0},
    {"POST", "/api/things", nothing, 0},
    {"GET", "/api/things/special", nothing, 0},
    {"GET", "/api/things/{thingId}", nothing, 0},
    {NULL, NULL, NULL, 0},
};
static const http_route_t second[] = {
    {"DELETE", "/api/things/{thingId}", nothing, 0},
    {"GET", "/api/things/{thingId}/parts/{level}/{column}/{row}", nothing, 0},
    {NULL, NULL, NULL, 0},
};
static const http_route_t *const tables[] = {first, second, NULL};

static arena_t *arena;
static const http_route_t *route;
static const char *params[HTTP_MAX_PATH_PARAMS];
static char allow[64];

static route_match_t match(const char *method, const char *path) {
    route = NULL;
    return router_match(tables, method, path, arena, &route, params, allow, sizeof allow);
}

static void finds_the_route(void **state) {
    (void)state;
    assert_int_equal(match("GET", "/api/things"), ROUTE_FOUND);
    assert_ptr_equal(route, &first[0]);
    assert_int_equal(match("HEAD", "/api/things"), ROUTE_FOUND);
    assert_ptr_equal(route, &first[0]);
    assert_int_equal(match("POST", "/api/things"), ROUTE_FOUND);
    assert_ptr_equal(route, &first[1]);
    assert_int_equal(match("GET", "/api/things/special"), ROUTE_FOUND);
    assert_ptr_equal(route, &first[2]);
    assert_int_equal(match("GET", "/api/things/" ID), ROUTE_FOUND);
    assert_ptr_equal(route, &first[3]);
    assert_string_equal(params[0], ID);
    assert_int_equal(match("GET", "/api/things/" ID "/parts/3/14/15"), ROUTE_FOUND);
    assert_string_equal(params[0], ID);
    assert_string_equal(params[1], "3");
    assert_string_equal(params[2], "14");
    assert_string_equal(params[3], "15");
}

static void other_paths_are_not_found(void **state) {
    static const char *const paths[] = {"",
                                        "/",
                                        "/api",
                                        "/api/",
                                        "/api/thing",
                                        "/api/thingss",
                                        "/api/things/",
                                        "/api//things",
                                        "/api/things/not-a-uuid",
                                        "/api/things/" ID "x",
                                        "/api/things/" ID "/",
                                        "/api/things/" ID "/parts/1/2",
                                        "/api/things/" ID "/parts/1/2/3/4",
                                        "/api/things/" ID "/parts/1//3",
                                        "/API/things",
                                        "api/things"};
    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        assert_int_equal(match("GET", paths[i]), ROUTE_NO_PATH);
    }
}

static void other_methods_are_named(void **state) {
    (void)state;
    assert_int_equal(match("PUT", "/api/things"), ROUTE_NO_METHOD);
    assert_string_equal(allow, "GET, HEAD, POST");
    assert_int_equal(match("PATCH", "/api/things/" ID), ROUTE_NO_METHOD);
    assert_string_equal(allow, "GET, HEAD, DELETE");
    assert_int_equal(match("get", "/api/things"), ROUTE_NO_METHOD);
}

/* Two entries for one method and pattern: the second could never be reached. */
static void no_route_is_hidden(void **state) {
    int n = 0;
    (void)state;
    for (const http_route_t *const *a = router_tables(); *a; a++) {
        for (const http_route_t *r = *a; r->method; r++, n++) {
            assert_non_null(r->handler);
            assert_int_equal(strncmp(r->pattern, "/api/", 5), 0);
            for (const http_route_t *const *b = router_tables(); *b; b++) {
                for (const http_route_t *o = *b; o->method; o++) {
                    assert_true(o == r || strcmp(o->method, r->method) != 0 || strcmp(o->pattern, r->pattern) != 0);
                }
            }
        }
    }
    assert_true(n > 30);
}

static void paths_are_decoded_once(void **state) {
    (void)state;
    assert_string_equal(http_percent_decode(arena, "a%2Fb%20c+d", 11, false), "a/b c+d");
    assert_string_equal(http_percent_decode(arena, "a+b", 3, true), "a b");
    assert_string_equal(http_percent_decode(arena, "%25zz", 5, false), "%zz");
    assert_null(http_percent_decode(arena, "%", 1, false));
    assert_null(http_percent_decode(arena, "%4", 2, false));
    assert_null(http_percent_decode(arena, "%zz", 3, false));
    assert_null(http_percent_decode(arena, "a%00b", 5, false));
    assert_null(http_percent_decode(arena, "%ff", 3, false)); /* not UTF-8 */
    assert_string_equal(http_percent_decode(arena, "%C3%A9", 6, false), "\xc3\xa9");
}

static void only_plain_paths_reach_the_disk(void **state) {
    static const char *const good[] = {"/", "/index.html", "/assets/app-1a2b.js", "/a/b/c", "/projects/x y", "/a..b"};
    static const char *const bad[] = {"",          "x",   "/..",   "/../x", "/a/../b",   "/a/..", "/.",   "/.env",
                                      "/a/.git/x", "//x", "/a//b", "/a/",   "/a\\..\\b", "/a\nb", "/\x7f"};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(static_path_is_safe(good[i]));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(static_path_is_safe(bad[i]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_route),         cmocka_unit_test(other_paths_are_not_found),
        cmocka_unit_test(other_methods_are_named), cmocka_unit_test(no_route_is_hidden),
        cmocka_unit_test(paths_are_decoded_once),  cmocka_unit_test(only_plain_paths_reach_the_disk),
    };
    arena = arena_create((size_t)1 << 20);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    arena_destroy(arena);
    return failed;
}
