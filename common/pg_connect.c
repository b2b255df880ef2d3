/*
 * Opening PostgreSQL connections: the non-blocking interface of libpq, so that the wait has a bound in milliseconds
 * (connect_timeout counts whole seconds, at least two), and session settings that hold from the first statement.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "log.h"
#include "pg_internal.h"
#include "timeutil.h"

static const char *option_or(const PQconninfoOption *opts, const char *keyword, const char *otherwise) {
    for (const PQconninfoOption *o = opts; o->keyword; o++) {
        if (strcmp(o->keyword, keyword) == 0 && o->val && o->val[0] != '\0') {
            return o->val;
        }
    }
    return otherwise;
}

err_kind_t pg_target_init(pg_target_t *t, const char *url, const char *application_name, int64_t statement_ms,
                          err_t *err) {
    memset(t, 0, sizeof *t);
    if (!url || url[0] == '\0') {
        return err_set(err, ERR_INVALID, "config_invalid", "DATABASE_URL is not set.", NULL);
    }
    /* The parser's own message may quote the URL with its password: it is dropped. */
    char *parse_error = NULL;
    PQconninfoOption *opts = PQconninfoParse(url, &parse_error);
    PQfreemem(parse_error);
    if (!opts) {
        return err_set(err, ERR_INVALID, "config_invalid",
                       "DATABASE_URL is not a PostgreSQL connection URI (postgresql://user:password@host:port/name).",
                       NULL);
    }
    (void)snprintf(t->where, sizeof t->where, "%.100s:%.10s/%.100s", option_or(opts, "host", "local socket"),
                   option_or(opts, "port", "5432"), option_or(opts, "dbname", ""));
    buf_t options;
    buf_init(&options, 4096);
    /* Settings of the URL come last and so win over ours. */
    buf_printf(&options, "-c statement_timeout=%lld -c TimeZone=UTC -c DateStyle=ISO %s", (long long)statement_ms,
               option_or(opts, "options", ""));
    PQconninfoFree(opts);
    bool cut = options.failed;
    t->options = buf_take(&options, NULL);
    t->url = strdup(url);
    t->application_name = strdup(application_name);
    if (cut || !t->options || !t->url || !t->application_name) {
        pg_target_free(t);
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    return ERR_OK;
}

void pg_target_free(pg_target_t *t) {
    if (t->url) {
        explicit_bzero(t->url, strlen(t->url));
    }
    free(t->url);
    free(t->options);
    free(t->application_name);
    memset(t, 0, sizeof *t);
}

static void on_notice(void *arg, const char *message) {
    (void)arg;
    log_event(LOG_DEBUG, "database notice", "notice", message, NULL);
}

/* Waits for the socket as the handshake asks. False: time is up. */
static bool wait_socket(PGconn *raw, PostgresPollingStatusType want, int64_t deadline) {
    for (;;) {
        int64_t left = deadline - time_mono_ms();
        if (left <= 0) {
            return false;
        }
        struct pollfd pfd = {.fd = PQsocket(raw), .events = want == PGRES_POLLING_READING ? POLLIN : POLLOUT};
        int n = poll(&pfd, 1, left > 60000 ? 60000 : (int)left);
        if (n > 0) {
            return true;
        }
        if (n < 0 && errno != EINTR) {
            return false;
        }
    }
}

err_kind_t pg_target_connect(const pg_target_t *t, int64_t wait_ms, PGconn **out, err_t *err) {
    /* What stands before dbname can be overridden by the URL, what stands after it cannot. */
    const char *const keys[] = {
        "keepalives", "keepalives_idle",  "keepalives_interval", "keepalives_count", "tcp_user_timeout",
        "dbname",     "application_name", "client_encoding",     "options",          NULL};
    const char *const values[] = {"1", "30", "10", "3", "30000", t->url, t->application_name, "UTF8", t->options, NULL};
    *out = NULL;
    int64_t deadline = time_mono_ms() + wait_ms;
    PGconn *raw = PQconnectStartParams(keys, values, 1);
    if (!raw) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    PostgresPollingStatusType state = PQstatus(raw) == CONNECTION_BAD ? PGRES_POLLING_FAILED : PGRES_POLLING_WRITING;
    bool in_time = true;
    while (state != PGRES_POLLING_OK && state != PGRES_POLLING_FAILED) {
        in_time = wait_socket(raw, state, deadline);
        if (!in_time) {
            break;
        }
        state = PQconnectPoll(raw);
    }
    if (state == PGRES_POLLING_OK) {
        (void)PQsetNoticeProcessor(raw, on_notice, NULL);
        *out = raw;
        return ERR_OK;
    }
    char why[300];
    (void)snprintf(why, sizeof why, "%s", in_time ? PQerrorMessage(raw) : "no answer in time");
    why[strcspn(why, "\n")] = '\0';
    PQfinish(raw);
    return err_set(err, ERR_UNAVAILABLE, "database_unavailable",
                   "The database cannot be reached at the moment. Try again in a moment.", "%s: %s", t->where, why);
}

bool pg_link_is_alive(PGconn *raw) {
    if (PQstatus(raw) != CONNECTION_OK) {
        return false;
    }
    struct pollfd pfd = {.fd = PQsocket(raw), .events = POLLIN};
    /* Readable while idle is nearly always the end (a farewell message, then EOF, which may come a moment later). The
     * rare harmless notice costs one new connection, which is cheaper than guessing wrong. */
    return poll(&pfd, 1, 0) == 0;
}
