/* The health command of the daemons against a real health port: well, unwell, silent and absent ones. */
#include "common/health_probe.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/httpd_mini.h"
#include "common/timeutil.h"
#include "tests/unit/support/cmocka_all.h"

static int ready_status = 200;

static int handle(void *arg, const char *path, buf_t *out, const char **type) {
    (void)arg;
    (void)type;
    buf_puts(out, "answer\n");
    return strcmp(path, "/ready") == 0 ? ready_status : strcmp(path, "/live") == 0 ? 200 : 404;
}

static void test_tells_well_from_unwell(void **state) {
    (void)state;
    httpd_mini_t *server = NULL;
    err_t err;
    assert_int_equal(httpd_mini_start("127.0.0.1", 0, handle, NULL, &server, &err), ERR_OK);
    int port = httpd_mini_port(server);
    char *live[] = {(char *)"live"};
    char *wrong[] = {(char *)"lively"};
    ready_status = 200;
    assert_int_equal(health_probe("0.0.0.0", port, "/ready", 2000, &err), ERR_OK);
    assert_int_equal(health_command("test", "127.0.0.1", port, 0, NULL), 0);
    ready_status = 503;
    assert_int_equal(health_probe("127.0.0.1", port, "/ready", 2000, &err), ERR_UNAVAILABLE);
    assert_string_equal(err.code, "not_healthy");
    assert_non_null(strstr(err.detail, "503"));
    assert_int_equal(health_command("test", "127.0.0.1", port, 0, NULL), 1);
    assert_int_equal(health_command("test", "127.0.0.1", port, 1, live), 0);
    assert_int_equal(health_command("test", "127.0.0.1", port, 1, wrong), 2);
    assert_int_equal(health_command("test", "127.0.0.1", 0, 0, NULL), 2);
    httpd_mini_stop(server);
    assert_int_equal(health_probe("127.0.0.1", port, "/ready", 2000, &err), ERR_UNAVAILABLE);
    assert_string_equal(err.code, "no_answer");
}

static void test_a_silent_port_is_not_waited_for(void **state) {
    (void)state;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    err_t err;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
    int64_t start = time_mono_ms();
    assert_int_equal(health_probe("127.0.0.1", ntohs(at.sin_port), "/ready", 300, &err), ERR_UNAVAILABLE);
    assert_string_equal(err.code, "no_answer");
    assert_in_range(time_mono_ms() - start, 250, 5000);
    (void)close(fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tells_well_from_unwell),
        cmocka_unit_test(test_a_silent_port_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
