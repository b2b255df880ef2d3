/*
 * PostgreSQL pool and statements (see pg.h). pool.c decides who may hold a connection; this file makes, checks and
 * cleans connections and runs statements with a bound on the client's side too: a server that hangs cannot answer
 * its own statement_timeout.
 */
#include "pg.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "metrics.h"
#include "pg_internal.h"
#include "pg_statements.h"
#include "pool.h"
#include "timeutil.h"

enum { SLOW_SQL_MAX = 500, DESTROY_GRACE_MS = 5000, ANSWER_GRACE_MS = 10000 };

struct pg_pool {
    pool_t *pool;
    pg_target_t target;
    int64_t acquire_ms, max_uses, slow_ms, statement_ms;
    bool prepare;
    _Atomic uint64_t slow_total, errors_total, recycled_total;
};

struct pg_conn {
    pg_pool_t *owner;
    PGconn *raw;
    int64_t uses;
    bool broken; /* its protocol state is unknown: close at release */
    pg_statements_t statements;
};

/* ---- metrics ---- */

static pthread_once_t metrics_once = PTHREAD_ONCE_INIT;
static metric_t *m_seconds, *m_slow, *m_errors, *m_connections, *m_waiting, *m_max, *m_timeouts, *m_recycled, *m_up;

static void define_metrics(void) {
    m_seconds = metrics_histogram("spheroseg_db_query_duration_seconds", "Time of one statement.", NULL, NULL, 0);
    m_slow = metrics_counter("spheroseg_db_slow_queries_total", "Statements slower than DB_SLOW_QUERY.", NULL);
    m_errors = metrics_counter("spheroseg_db_errors_total", "Failed statements and connections by SQLSTATE class.",
                               "sqlstate_class");
    /* Those of trouble with the server are there from the start, so that the first of them shows in rates. */
    static const char *const classes[] = {"connection", "08", "40", "53", "57", "58", "XX"};
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        metrics_add(m_errors, (const char *const[]){classes[i]}, 0);
    }
    m_connections = metrics_gauge("spheroseg_db_pool_connections", "Connections of the pool.", "state");
    m_waiting = metrics_gauge("spheroseg_db_pool_waiting", "Threads that wait for a connection.", NULL);
    m_max = metrics_gauge("spheroseg_db_pool_max_connections", "Most connections of the pool.", NULL);
    m_timeouts = metrics_counter("spheroseg_db_pool_timeouts_total", "Waits for a connection that ran out.", NULL);
    m_recycled =
        metrics_counter("spheroseg_db_pool_recycled_total", "Connections replaced after DB_POOL_MAX_USES.", NULL);
    m_up = metrics_gauge("spheroseg_db_up", "1 when the last contact with PostgreSQL succeeded.", NULL);
}

static void collect_pool(void *arg) {
    pg_pool_t *p = arg;
    pool_stats_t s;
    pool_stats(p->pool, &s);
    metrics_set(m_connections, (const char *const[]){"idle"}, s.idle);
    metrics_set(m_connections, (const char *const[]){"in_use"}, s.in_use);
    metrics_set(m_waiting, NULL, s.waiting);
    metrics_set(m_max, NULL, s.max);
}

static void count_error(pg_pool_t *p, const PGresult *res) {
    char class[12];
    pg_error_class(res, class);
    metrics_add(m_errors, (const char *const[]){class}, 1);
    atomic_fetch_add(&p->errors_total, 1);
}

/* ---- the pool ---- */

static void close_conn(void *item) {
    pg_conn_t *c = item;
    PQfinish(c->raw);
    pg_statements_free(&c->statements);
    free(c);
}

err_kind_t pg_pool_create(const config_t *cfg, const char *application_name, pg_pool_t **out, err_t *err) {
    *out = NULL;
    (void)pthread_once(&metrics_once, define_metrics);
    pg_pool_t *p = calloc(1, sizeof *p);
    if (!p) {
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    err_kind_t kind = pg_target_init(&p->target, cfg->database_url, application_name, cfg->db_statement_ms, err);
    if (kind != ERR_OK) {
        free(p);
        return kind;
    }
    p->acquire_ms = cfg->db_acquire_ms;
    p->max_uses = cfg->db_max_uses;
    p->slow_ms = cfg->db_slow_ms;
    p->statement_ms = cfg->db_statement_ms;
    p->prepare = cfg->db_prepare;
    p->pool = pool_create((int)cfg->db_pool_max, cfg->db_pool_idle_ms, close_conn);
    if (!p->pool) {
        pg_target_free(&p->target);
        free(p);
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    metrics_on_collect(collect_pool, p);
    *out = p;
    return ERR_OK;
}

void pg_pool_destroy(pg_pool_t *p) {
    if (!p) {
        return;
    }
    metrics_off_collect(collect_pool, p);
    int left = pool_destroy(p->pool, DESTROY_GRACE_MS);
    if (left > 0) {
        log_msgf(LOG_ERROR, "%d database connections were not released before the pool was closed", left);
        return; /* the borrowers still point here */
    }
    pg_target_free(&p->target);
    free(p);
}

void pg_pool_stats(pg_pool_t *p, pg_pool_stats_t *out) {
    pool_stats_t s;
    pool_stats(p->pool, &s);
    *out = (pg_pool_stats_t){.max = s.max,
                             .total = s.total,
                             .idle = s.idle,
                             .in_use = s.in_use,
                             .waiting = s.waiting,
                             .acquired_total = s.acquired_total,
                             .timeouts_total = s.timeouts_total,
                             .slow_total = atomic_load(&p->slow_total),
                             .errors_total = atomic_load(&p->errors_total),
                             .recycled_total = atomic_load(&p->recycled_total)};
}

/* Fills a taken slot with a new connection, or gives the slot up. */
static err_kind_t open_in_slot(pg_pool_t *p, int64_t wait_ms, pg_conn_t **out, err_t *err) {
    err_kind_t kind;
    pg_conn_t *c = calloc(1, sizeof *c);
    if (!c) {
        kind = err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    } else {
        c->owner = p;
        kind = pg_target_connect(&p->target, wait_ms, &c->raw, err);
        metrics_set(m_up, NULL, kind == ERR_OK ? 1 : 0);
    }
    if (kind != ERR_OK) {
        count_error(p, NULL);
        free(c);
        pool_drop(p->pool);
        return kind;
    }
    *out = c;
    return ERR_OK;
}

static err_kind_t acquire_within(pg_pool_t *p, int64_t wait_ms, pg_conn_t **out, err_t *err) {
    *out = NULL;
    int64_t deadline = time_mono_ms() + wait_ms;
    void *item = NULL;
    switch (pool_take(p->pool, wait_ms, &item)) {
    case POOL_ITEM: {
        pg_conn_t *c = item;
        if (pg_link_is_alive(c->raw)) {
            *out = c;
            return ERR_OK;
        }
        close_conn(c); /* the slot is still ours: a new connection takes the place */
        break;
    }
    case POOL_SLOT:
        break;
    case POOL_TIMEOUT:
        metrics_add(m_timeouts, NULL, 1);
        return err_set(err, ERR_UNAVAILABLE, "database_unavailable",
                       "The server is very busy at the moment. Try again in a moment.",
                       "no connection came free in %lld ms", (long long)wait_ms);
    case POOL_CLOSED:
        return err_set(err, ERR_UNAVAILABLE, "database_unavailable", "The server is stopping.", NULL);
    }
    /* Who waited long in line still gets a fair time to connect. */
    int64_t left = deadline - time_mono_ms();
    int64_t least = wait_ms < 1000 ? wait_ms : 1000;
    return open_in_slot(p, left > least ? left : least, out, err);
}

err_kind_t pg_acquire(pg_pool_t *p, pg_conn_t **out, err_t *err) {
    return acquire_within(p, p->acquire_ms, out, err);
}

void pg_release(pg_conn_t *c) {
    if (!c) {
        return;
    }
    pg_pool_t *p = c->owner;
    c->uses++;
    PGTransactionStatusType tx = PQtransactionStatus(c->raw);
    if (!c->broken && (tx == PQTRANS_INTRANS || tx == PQTRANS_INERROR)) {
        pg_rollback(c);
        tx = PQtransactionStatus(c->raw);
    }
    bool healthy = !c->broken && tx == PQTRANS_IDLE && PQstatus(c->raw) == CONNECTION_OK;
    bool worn = c->uses >= p->max_uses;
    if (healthy && !worn) {
        pool_give(p->pool, c);
        return;
    }
    if (healthy) {
        atomic_fetch_add(&p->recycled_total, 1);
        metrics_add(m_recycled, NULL, 1);
    }
    close_conn(c);
    pool_drop(p->pool);
}

void pg_mark_broken(pg_conn_t *c) {
    c->broken = true;
}

PGconn *pg_raw(pg_conn_t *c) {
    return c->raw;
}

err_kind_t pg_wait_ready(pg_pool_t *p, int timeout_s, err_t *err) {
    int64_t deadline = time_mono_ms() + (int64_t)timeout_s * 1000;
    for (;;) {
        int64_t began = time_mono_ms();
        int64_t wait = deadline - began;
        wait = wait > p->acquire_ms ? p->acquire_ms : wait < 1000 ? 1000 : wait;
        pg_conn_t *c = NULL;
        err_t last = {.kind = ERR_OK};
        err_kind_t kind = acquire_within(p, wait, &c, &last);
        if (kind == ERR_OK) {
            kind = pg_exec(c, "SELECT 1", 0, NULL, NULL, &last);
            pg_release(c);
        }
        if (kind == ERR_OK) {
            return ERR_OK;
        }
        if (time_mono_ms() >= deadline) {
            return err_set(err, ERR_UNAVAILABLE, "database_unavailable",
                           "PostgreSQL did not answer in time. Check that it runs and that DATABASE_URL is right.",
                           "waited %d s; %s", timeout_s, last.detail);
        }
        log_event(LOG_WARN, "waiting for PostgreSQL", "where", p->target.where, "reason", last.detail, NULL);
        int64_t rest = began + 1000 - time_mono_ms();
        int64_t left = deadline - time_mono_ms();
        time_sleep_ms(rest < left ? rest : left);
    }
}

/* ---- statements ---- */

/* Waits until a result can be fetched without blocking. False: the server was silent for too long or is gone. */
static bool wait_result(pg_conn_t *c, int64_t deadline) {
    while (PQisBusy(c->raw)) {
        int64_t left = deadline - time_mono_ms();
        if (left <= 0) {
            return false;
        }
        struct pollfd pfd = {.fd = PQsocket(c->raw), .events = POLLIN};
        int n = poll(&pfd, 1, left > 60000 ? 60000 : (int)left);
        if (n < 0 && errno != EINTR) {
            return false;
        }
        if (n > 0 && !PQconsumeInput(c->raw)) {
            return true; /* the error is fetched as a result */
        }
    }
    return true;
}

/* The last result of what was sent, as PQexec would give it; the connection is marked broken when it has no end. */
static PGresult *collect_result(pg_conn_t *c, int64_t deadline) {
    PGresult *last = NULL;
    for (;;) {
        if (!wait_result(c, deadline)) {
            c->broken = true;
            return last;
        }
        PGresult *res = PQgetResult(c->raw);
        if (!res) {
            return last;
        }
        PQclear(last);
        last = res;
        ExecStatusType status = PQresultStatus(res);
        if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH ||
            PQstatus(c->raw) == CONNECTION_BAD) {
            return last;
        }
    }
}

/* The statement's text never holds parameter values; blanks are folded so that it fits on a line. */
static void log_slow(const char *sql, int64_t us, bool ok) {
    char text[SLOW_SQL_MAX + 1];
    size_t n = 0;
    for (const char *p = sql; *p && n < SLOW_SQL_MAX; p++) {
        bool blank = *p == ' ' || *p == '\n' || *p == '\t' || *p == '\r';
        if (!blank) {
            text[n++] = *p;
        } else if (n > 0 && text[n - 1] != ' ') {
            text[n++] = ' ';
        }
    }
    text[n] = '\0';
    char ms[32];
    (void)snprintf(ms, sizeof ms, "%lld", (long long)(us / 1000));
    log_event(LOG_WARN, "slow query", "durationMs", ms, "sql", text, "result", ok ? "ok" : "error", NULL);
}

static bool is_success(const PGresult *res) {
    switch (PQresultStatus(res)) {
    case PGRES_COMMAND_OK:
    case PGRES_TUPLES_OK:
    case PGRES_SINGLE_TUPLE:
    case PGRES_COPY_IN:
    case PGRES_COPY_OUT:
        return true;
    default:
        return false;
    }
}

typedef struct {
    const char *sql;
    int count;
    const char *const *params;
    const int *lengths, *formats;
} query_t;

/* The prepared statement is gone or does not fit the tables any more (a migration, a pooler in between). Nothing was
 * changed; outside of a transaction the same can be sent as text. */
static bool is_stale_plan(const PGresult *res) {
    const char *state = res ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;
    return state && (strcmp(state, "26000") == 0 || strcmp(state, "0A000") == 0 || strncmp(state, "42", 2) == 0);
}

static PGresult *send_text(pg_conn_t *c, const query_t *q, int64_t deadline) {
    return PQsendQueryParams(c->raw, q->sql, q->count, NULL, q->params, q->lengths, q->formats, 0)
               ? collect_result(c, deadline)
               : NULL;
}

/* Sends the query, prepared where that pays. The result may be an error or NULL. */
static PGresult *send_query(pg_conn_t *c, const query_t *q, int64_t deadline) {
    const int number = c->owner->prepare && q->count > 0 ? pg_statements_find(&c->statements, q->sql) : -1;
    if (number < 0) {
        return send_text(c, q, deadline);
    }
    pg_statement_t *known = &c->statements.items[number];
    char name[PG_STATEMENT_NAME];
    pg_statements_name(number, name);
    const bool in_transaction = PQtransactionStatus(c->raw) != PQTRANS_IDLE;
    if (!known->prepared) {
        PGresult *res = PQsendPrepare(c->raw, name, q->sql, q->count, NULL) ? collect_result(c, deadline) : NULL;
        if (c->broken || PQresultStatus(res) != PGRES_COMMAND_OK) {
            return res; /* what is wrong with the text is the statement's own error */
        }
        PQclear(res);
        known->prepared = true;
    }
    PGresult *res = PQsendQueryPrepared(c->raw, name, q->count, q->params, q->lengths, q->formats, 0)
                        ? collect_result(c, deadline)
                        : NULL;
    if (!c->broken && is_stale_plan(res)) {
        known->refused = true;
        if (!in_transaction) {
            PQclear(res);
            return send_text(c, q, deadline);
        }
    }
    return res;
}

err_kind_t pg_exec_mixed(pg_conn_t *c, const char *sql, int nparams, const char *const *params, const int *lengths,
                         const int *formats, PGresult **res, err_t *err) {
    if (res) {
        *res = NULL;
    }
    pg_pool_t *p = c->owner;
    if (c->broken) {
        return err_set(err, ERR_UNAVAILABLE, "database_unavailable",
                       "The connection to the database broke. Try again in a moment.", "used after it broke");
    }
    int64_t began = time_mono_us();
    const query_t query = {sql, nparams, params, lengths, formats};
    PGresult *got = send_query(c, &query, time_mono_ms() + p->statement_ms + ANSWER_GRACE_MS);
    int64_t us = time_mono_us() - began;
    metrics_observe(m_seconds, NULL, (double)us / 1e6);
    bool ok = got && !c->broken && is_success(got);
    if (us >= p->slow_ms * 1000) {
        atomic_fetch_add(&p->slow_total, 1);
        metrics_add(m_slow, NULL, 1);
        log_slow(sql, us, ok);
    }
    if (ok) {
        metrics_set(m_up, NULL, 1);
        if (res) {
            *res = got;
        } else {
            PQclear(got);
        }
        return ERR_OK;
    }
    count_error(p, got);
    err_kind_t kind;
    if (c->broken) {
        metrics_set(m_up, NULL, 0);
        kind = err_set(err, ERR_UNAVAILABLE, "database_unavailable",
                       "The database does not answer at the moment. Try again in a moment.",
                       "no answer in %lld ms; in: %.160s", (long long)(us / 1000), sql);
    } else {
        kind = pg_fail(c->raw, got, sql, err);
    }
    if (PQstatus(c->raw) != CONNECTION_OK) {
        c->broken = true;
    }
    PQclear(got);
    return kind;
}

err_kind_t pg_exec(pg_conn_t *c, const char *sql, int nparams, const char *const *params, PGresult **res, err_t *err) {
    return pg_exec_mixed(c, sql, nparams, params, NULL, NULL, res, err);
}

err_kind_t pg_query(pg_pool_t *p, const char *sql, int nparams, const char *const *params, PGresult **res, err_t *err) {
    if (res) {
        *res = NULL;
    }
    pg_conn_t *c;
    err_kind_t kind = pg_acquire(p, &c, err);
    if (kind != ERR_OK) {
        return kind;
    }
    kind = pg_exec(c, sql, nparams, params, res, err);
    pg_release(c);
    return kind;
}

err_kind_t pg_begin(pg_conn_t *c, err_t *err) {
    return pg_exec(c, "BEGIN", 0, NULL, NULL, err);
}

err_kind_t pg_commit(pg_conn_t *c, err_t *err) {
    PGresult *res;
    err_kind_t kind = pg_exec(c, "COMMIT", 0, NULL, &res, err);
    if (kind != ERR_OK) {
        return kind;
    }
    /* COMMIT of a transaction in which a statement failed succeeds as a ROLLBACK. */
    bool rolled_back = strcmp(PQcmdStatus(res), "ROLLBACK") == 0;
    PQclear(res);
    if (rolled_back) {
        return err_set(err, ERR_INTERNAL, "transaction_aborted", "The change was not saved.",
                       "COMMIT after a failed statement");
    }
    return ERR_OK;
}

void pg_rollback(pg_conn_t *c) {
    PGTransactionStatusType tx = PQtransactionStatus(c->raw);
    if (c->broken || tx == PQTRANS_IDLE) {
        return;
    }
    if (tx != PQTRANS_INTRANS && tx != PQTRANS_INERROR) {
        c->broken = true; /* in the middle of COPY, or gone: closing it is the rollback */
        return;
    }
    err_t err;
    if (pg_exec(c, "ROLLBACK", 0, NULL, NULL, &err) != ERR_OK) {
        log_error(LOG_WARN, "rollback failed", &err);
        c->broken = true;
    }
}
