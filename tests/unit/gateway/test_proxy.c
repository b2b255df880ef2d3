/* Who is calling behind reverse proxies: only what trusted hops wrote counts. */
#include <string.h>

#include "../support/cmocka_all.h"
#include "gateway/proxy.h"

static proxy_list_t *list_of(const char *text) {
    proxy_list_t *list = NULL;
    assert_int_equal(proxy_list_parse(text, &list, NULL), ERR_OK);
    return list;
}

/* The client for one X-Forwarded-For line (NULL: none). */
static const char *client(const char *trusted, const char *peer, const char *header) {
    static char out[PROXY_ADDRESS_ROOM];
    proxy_list_t *list = list_of(trusted);
    proxy_client_address(list, peer, &header, header ? 1 : 0, out);
    proxy_list_free(list);
    return out;
}

static void nobody_is_trusted_unless_named(void **state) {
    (void)state;
    assert_null(list_of(""));
    assert_null(list_of(" , "));
    assert_false(proxy_is_trusted(NULL, "127.0.0.1"));
    assert_string_equal(client("", "127.0.0.1", "1.2.3.4"), "127.0.0.1");
    assert_string_equal(client("10.0.0.0/8", "192.0.2.1", "1.2.3.4"), "192.0.2.1"); /* spoofed by a stranger */
}

static void networks_contain_what_they_should(void **state) {
    proxy_list_t *list = list_of("10.0.0.0/8, 192.0.2.7,172.16.0.0/12\tfd00::/8, 2001:db8::1, ::ffff:203.0.113.0/120");
    (void)state;
    static const char *const in[] = {"10.0.0.0", "10.255.255.255", "192.0.2.7",    "172.31.1.1",
                                     "fd12::1",  "2001:db8::1",    "203.0.113.99", "::ffff:10.1.2.3"};
    static const char *const out[] = {
        "11.0.0.0",    "9.255.255.255", "192.0.2.8", "172.32.0.0", "fe00::1",   "2001:db8::2",
        "203.0.114.0", "::1",           "",          "10",         "10.0.0.1 ", "x"};
    for (size_t i = 0; i < sizeof in / sizeof *in; i++) {
        assert_true(proxy_is_trusted(list, in[i]));
    }
    for (size_t i = 0; i < sizeof out / sizeof *out; i++) {
        assert_false(proxy_is_trusted(list, out[i]));
    }
    proxy_list_free(list);
    list = list_of("0.0.0.0/0");
    assert_true(proxy_is_trusted(list, "1.2.3.4"));
    assert_false(proxy_is_trusted(list, "2001:db8::1")); /* all of IPv4 is not all */
    proxy_list_free(list);
    list = list_of("::/0");
    assert_true(proxy_is_trusted(list, "1.2.3.4") && proxy_is_trusted(list, "2001:db8::1"));
    proxy_list_free(list);
}

static void wrong_lists_are_refused(void **state) {
    static const char *const wrong[] = {
        "10.0.0.0/33",   "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8x",    "10.0.0.1/8", "10.0.0/8",
        "proxy.example", "::1/129",   "fd00::1/8",   "10.0.0.0/8;::1", "/8",         "::ffff:1.2.3.4/24x"};
    proxy_list_t *list = NULL;
    err_t err;
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(proxy_list_parse(wrong[i], &list, &err), ERR_INVALID);
        assert_non_null(strstr(err.message, "TRUSTED_PROXIES"));
        assert_null(list);
    }
    char many[65 * 4 + 1] = "";
    for (int i = 0; i < 65; i++) {
        strncat(many, "::1,", sizeof many - strlen(many) - 1);
    }
    assert_int_equal(proxy_list_parse(many, &list, &err), ERR_INVALID);
}

static void the_walk_goes_from_the_right(void **state) {
    static const char trusted[] = "10.0.0.0/8,fd00::/8";
    (void)state;
    assert_string_equal(client(trusted, "10.0.0.1", "203.0.113.5"), "203.0.113.5");
    assert_string_equal(client(trusted, "10.0.0.1", NULL), "10.0.0.1");
    /* what the client itself wrote stays on the left and is never reached */
    assert_string_equal(client(trusted, "10.0.0.1", "127.0.0.1, 10.9.9.9, 203.0.113.5, 10.0.0.2"), "203.0.113.5");
    assert_string_equal(client(trusted, "10.0.0.1", "10.0.0.3 ,10.0.0.2"), "10.0.0.3"); /* all ours */
    assert_string_equal(client(trusted, "10.0.0.1", "1.1.1.1, evil, 10.0.0.2"), "10.0.0.2");
    assert_string_equal(client(trusted, "10.0.0.1", "1.1.1.1,"), "10.0.0.1"); /* nothing is no address either */
    assert_string_equal(client(trusted, "10.0.0.1", "unknown"), "10.0.0.1");
    assert_string_equal(client(trusted, "10.0.0.1", "203.0.113.5:4711"), "203.0.113.5");
    assert_string_equal(client(trusted, "fd00::1", "[2001:db8::5]:4711"), "2001:db8::5");
    assert_string_equal(client(trusted, "fd00::1", "[2001:db8::5]"), "2001:db8::5");
    assert_string_equal(client(trusted, "fd00::1", "[2001:db8::5"), "fd00::1");
    assert_string_equal(client(trusted, "::ffff:10.0.0.1", "2001:DB8:0::5"), "2001:db8::5");
    assert_string_equal(client(trusted, "10.0.0.1", "::ffff:203.0.113.5"), "203.0.113.5");
}

static void several_lines_are_one_list(void **state) {
    proxy_list_t *list = list_of("10.0.0.0/8");
    const char *lines[] = {"1.1.1.1, 203.0.113.5", "10.0.0.3, 10.0.0.2"};
    char out[PROXY_ADDRESS_ROOM];
    (void)state;
    proxy_client_address(list, "10.0.0.1", lines, 2, out);
    assert_string_equal(out, "203.0.113.5");
    proxy_list_free(list);
}

static void endless_headers_end(void **state) {
    static char hops[40000];
    (void)state;
    for (size_t i = 0; i + 10 < sizeof hops; i += 9) {
        memcpy(hops + i, "10.0.0.7,", 10);
    }
    memcpy(hops + strlen(hops) - 1, "", 1);
    assert_string_equal(client("10.0.0.0/8", "10.0.0.1", hops), "10.0.0.7");
}

static void ipv6_is_counted_by_network(void **state) {
    char key[PROXY_ADDRESS_ROOM];
    (void)state;
    proxy_rate_key("203.0.113.5", key);
    assert_string_equal(key, "203.0.113.5");
    proxy_rate_key("::ffff:203.0.113.5", key);
    assert_string_equal(key, "203.0.113.5");
    proxy_rate_key("2001:db8:1:2:3:4:5:6", key);
    assert_string_equal(key, "2001:db8:1:2::");
    proxy_rate_key("not an address", key);
    assert_string_equal(key, "not an address");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_is_trusted_unless_named), cmocka_unit_test(networks_contain_what_they_should),
        cmocka_unit_test(wrong_lists_are_refused),        cmocka_unit_test(the_walk_goes_from_the_right),
        cmocka_unit_test(several_lines_are_one_list),     cmocka_unit_test(endless_headers_end),
        cmocka_unit_test(ipv6_is_counted_by_network),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
