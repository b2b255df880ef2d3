/*
 * What the tests of the queue and of the event bus share: private servers, two queues that stand for two processes, one
 * whose Redis is away, and rows to work with. Included by exactly one file of a program.
 */
#ifndef SG_TEST_QUEUE_FIXTURE_H
#define SG_TEST_QUEUE_FIXTURE_H

#include "common/log.h"
#include "common/migrate.h"
#include "common/queue_internal.h"
#include "common/timeutil.h"
#include "tests/unit/support/private_servers.h"

enum { QF_USERS = 3 };

static struct {
    private_server_t pg_server, redis_server;
    config_t cfg, daemon, away;
    pg_pool_t *pg;
    rds_pool_t *rds; /* an administrator's, to look and to break things */
    rds_pool_t *rds_daemon, *rds_away;
    queue_t *q, *other, *no_redis;
    char users[QF_USERS][JOB_ID_LEN];
} qf;

static inline void qf_sql(const char *sql) {
    err_t err = {0};
    if (pg_query(qf.pg, sql, 0, NULL, NULL, &err) != ERR_OK) {
        fail_msg("%s: %s", sql, err.detail);
    }
}

static inline int64_t qf_sql_int(const char *sql) {
    PGresult *res = NULL;
    err_t err = {0};
    if (pg_query(qf.pg, sql, 0, NULL, &res, &err) != ERR_OK) {
        fail_msg("%s: %s", sql, err.detail);
    }
    int64_t v = PQntuples(res) > 0 ? strtoll(PQgetvalue(res, 0, 0), NULL, 10) : -1;
    PQclear(res);
    return v;
}

static inline int64_t qf_redis_int(const char *command, const char *key) {
    const char *argv[] = {command, key};
    redisReply *r = NULL;
    assert_int_equal(rds_run(qf.rds, 2, argv, &r, NULL), ERR_OK);
    int64_t v = r->integer;
    freeReplyObject(r);
    return v;
}

static inline void qf_flush(void) {
    const char *argv[] = {"FLUSHALL"};
    assert_int_equal(rds_run(qf.rds, 1, argv, NULL, NULL), ERR_OK);
}

static inline void qf_tune(queue_t *q) {
    q->lease_ms = qf.cfg.lease_ms;
    q->backoff_ms = 1;
    q->tune.age_ms = 30000;
    q->tune.sweep_gap_ms = 0;
    q->tune.restore_grace_ms = 1000;
    q->tune.audit_ms = 15000;
}

/* Empties both servers and makes the users. */
static inline void qf_reset(void) {
    qf_flush();
    qf_sql("TRUNCATE users, models, completions, pushes CASCADE");
    for (int i = 0; i < QF_USERS; i++) {
        char sql[256];
        (void)snprintf(sql, sizeof sql,
                       "INSERT INTO users (id, email, password_hash) VALUES ('%s', 'u%d@example.org', 'x')",
                       qf.users[i], i);
        qf_sql(sql);
        (void)snprintf(sql, sizeof sql, "INSERT INTO projects (id, owner_id, title) VALUES ('%s', '%s', 'p')",
                       qf.users[i], qf.users[i]);
        qf_sql(sql);
    }
    qf_tune(qf.q);
    qf_tune(qf.other);
}

#define QF_IMAGE                                                                                                       \
    "INSERT INTO images (project_id, name, format, byte_size, sha256, storage_key, width, height, bit_depth, "         \
    "channels) "

/* A committed row in state queued that nobody has pushed yet. */
static inline void qf_job(int user, const char *model, int priority, char *id) {
    char sql[1024];
    PGresult *res = NULL;
    err_t err = {0};
    (void)snprintf(sql, sizeof sql,
                   "WITH i AS (" QF_IMAGE
                   "VALUES ('%s', 'a.png', 'png', 1, sha256('x'), 'images/x/original', 8, 8, 8, 1) "
                   "RETURNING id) INSERT INTO jobs (user_id, project_id, image_id, model, priority) "
                   "SELECT '%s', '%s', i.id, '%s', %d FROM i RETURNING id",
                   qf.users[user], qf.users[user], qf.users[user], model, priority);
    if (pg_query(qf.pg, sql, 0, NULL, &res, &err) != ERR_OK) {
        fail_msg("%s", err.detail);
    }
    (void)snprintf(id, JOB_ID_LEN, "%s", PQgetvalue(res, 0, 0));
    PQclear(res);
}

static inline void qf_batch(int n, char *batch) {
    (void)snprintf(batch, JOB_ID_LEN, "%s", "b0000000-0000-4000-8000-000000000000");
    char sql[1024];
    (void)snprintf(sql, sizeof sql,
                   "WITH i AS (" QF_IMAGE "SELECT '%s', 'a.png', 'png', 1, sha256('x'), 'k', 8, 8, 8, 1 "
                   "FROM generate_series(1, %d) RETURNING id) INSERT INTO jobs (user_id, project_id, image_id, model, "
                   "batch_id) SELECT '%s', '%s', i.id, 'nuclei', '%s' FROM i",
                   qf.users[0], n, qf.users[0], qf.users[0], batch);
    qf_sql(sql);
}

static inline int qf_enqueue(const char *id) {
    int position = -2;
    assert_int_equal(queue_enqueue(qf.q, id, "nuclei", 5, &position, NULL), ERR_OK);
    return position;
}

static inline bool qf_claim_of(queue_t *q, const char *worker, const char *const *models, int n, int wait_ms,
                               queue_claim_t *c) {
    bool got = false;
    err_t err = {0};
    if (queue_claim(q, worker, models, n, wait_ms, c, &got, &err) != ERR_OK) {
        fail_msg("claim: %s %s", err.message, err.detail);
    }
    return got;
}

static inline bool qf_claim(const char *worker, queue_claim_t *c) {
    static const char *const models[] = {"nuclei"};
    return qf_claim_of(qf.q, worker, models, 1, 0, c);
}

static inline void qf_sweep(queue_t *q) {
    err_t err = {0};
    if (queue_sweep(q, &err) != ERR_OK) {
        fail_msg("sweep: %s %s", err.message, err.detail);
    }
}

/* Sweeps until a job that was delayed can be claimed. */
static inline void qf_wait_claim(const char *worker, queue_claim_t *c) {
    for (int i = 0; i < 500; i++) {
        if (qf_claim(worker, c)) {
            return;
        }
        qf_sweep(qf.q);
        time_sleep_ms(5);
    }
    fail_msg("nothing to claim");
}

static inline void qf_expire_leases(void) {
    const char *argv[] = {"EVAL",
                          "for _, id in ipairs(redis.call('ZRANGE', 'sg:lease', 0, -1)) do "
                          "redis.call('ZADD', 'sg:lease', 1, id) end return 1",
                          "0"};
    assert_int_equal(rds_run(qf.rds, 3, argv, NULL, NULL), ERR_OK);
}

/* As if cancel.lua's message had been lost: the mark alone. */
static inline void qf_mark_cancelled(const queue_claim_t *c) {
    const char *argv[] = {"EVAL",
                          "redis.call('HSET', 'sg:held', ARGV[1], redis.call('HGET', 'sg:held', ARGV[1]) .. ' cancel')",
                          "0", c->id};
    assert_int_equal(rds_run(qf.rds, 4, argv, NULL, NULL), ERR_OK);
}

/* A sweeper that takes what it finds over and dies before it asks PostgreSQL. */
static inline void qf_dead_sweeper(const char *lease_ms) {
    const char *argv[] = {"sweeper-dead", "00000000deadbeef", lease_ms, "100", "60000"};
    assert_int_equal(queue_eval(qf.q, &qf.q->lua.recover, 0, 5, argv, NULL, NULL), ERR_OK);
}

/* Makes the rows old enough for the checks that leave young ones alone. */
static inline void qf_age_rows(void) {
    qf_sql("UPDATE jobs SET enqueued_at = enqueued_at - interval '1 minute', started_at = started_at - interval '1 "
           "minute'");
}

/* Commits as a worker does; each success leaves a row in completions, so that a second one would show. */
static inline err_kind_t qf_complete(queue_t *q, const char *worker, queue_claim_t *c) {
    pg_conn_t *conn = NULL;
    err_t err = {0};
    const char *params[] = {c->id};
    assert_int_equal(pg_acquire(qf.pg, &conn, &err), ERR_OK);
    assert_int_equal(pg_begin(conn, &err), ERR_OK);
    err_kind_t rc = queue_complete_in_tx(q, conn, c, 3, "{\"infer\":0.1}", &err);
    if (rc == ERR_OK) {
        assert_int_equal(pg_exec(conn, "INSERT INTO completions VALUES ($1)", 1, params, NULL, &err), ERR_OK);
        assert_int_equal(pg_commit(conn, &err), ERR_OK);
    } else {
        pg_rollback(conn);
    }
    pg_release(conn);
    if (rc == ERR_OK) {
        queue_complete_done(q, worker, c, 3);
    }
    return rc;
}

static inline void qf_assert_job(const char *id, const char *state, int attempt) {
    const char *params[] = {id};
    PGresult *res = NULL;
    assert_int_equal(pg_query(qf.pg, "SELECT state, attempt FROM jobs WHERE id = $1", 1, params, &res, NULL), ERR_OK);
    assert_int_equal(PQntuples(res), 1);
    assert_string_equal(pg_get(res, 0, "state"), state);
    assert_int_equal(pg_get_int(res, 0, "attempt", -1), attempt);
    PQclear(res);
}

/* Delayed, or queued again when the random back-off was over at once. */
static inline void qf_assert_waits_again(const char *id, int attempt) {
    char sql[200];
    (void)snprintf(sql, sizeof sql,
                   "SELECT count(*) FROM jobs WHERE id = '%s' AND state IN ('delayed', 'queued') AND attempt = %d "
                   "AND error_code = 'worker_lost'",
                   id, attempt);
    assert_int_equal(qf_sql_int(sql), 1);
}

/* A configuration as the daemons load it. */
static inline int qf_config(const char *database_url, const char *redis_url, config_t *cfg) {
    err_t err = {0};
    (void)setenv("DATABASE_URL", database_url, 1);
    (void)setenv("REDIS_URL", redis_url, 1);
    (void)setenv("REDIS_TIMEOUT", "1000", 1);
    (void)setenv("DB_POOL_MAX", "12", 1);
    if (config_load(CONFIG_WORKER, cfg, &err) != ERR_OK) {
        print_error("%s\n", err.message);
        return -1;
    }
    return 0;
}

/* Makes the user of proto/redis-acl.conf. Again after each restart of the private Redis, which keeps nothing. */
static inline void qf_make_user(void) {
    char line[2048] = "";
    FILE *f = fopen("proto/redis-acl.conf", "re");
    while (f && fgets(line, sizeof line, f) && strncmp(line, "user spheroseg ", 15) != 0) {
    }
    if (f) {
        (void)fclose(f);
    }
    const char *argv[96] = {"ACL", "SETUSER"};
    int argc = 2;
    char *rest = line + 5;
    for (char *word = NULL; argc < 96 && (word = strtok_r(rest, " \n", &rest)) != NULL;) {
        argv[argc++] = strcmp(word, ">@PASSWORD@") == 0 ? ">secret" : word;
    }
    assert_true(argc > 40);
    assert_int_equal(rds_run(qf.rds, argc, argv, NULL, NULL), ERR_OK);
}

static inline int qf_setup(void **state) {
    (void)state;
    err_t err = {0};
    log_init("test", getenv("TEST_LOG") ? LOG_DEBUG : LOG_ERROR);
    private_pg_start(&qf.pg_server);
    private_redis_start(&qf.redis_server, "");
    char as_daemon[sizeof qf.redis_server.url + 32];
    (void)snprintf(as_daemon, sizeof as_daemon, "unix://spheroseg:secret@%.200s",
                   qf.redis_server.url + strlen("unix://"));
    if (qf_config(qf.pg_server.url, qf.redis_server.url, &qf.cfg) != 0 ||
        qf_config(qf.pg_server.url, as_daemon, &qf.daemon) != 0 ||
        qf_config(qf.pg_server.url, "redis://127.0.0.1:1/0", &qf.away) != 0) {
        return -1;
    }
    for (int i = 0; i < QF_USERS; i++) {
        memcpy(qf.users[i], "00000000-0000-4000-8000-000000000000", JOB_ID_LEN);
        qf.users[i][0] = (char)('1' + i);
    }
    int applied = 0;
    if (pg_pool_create(&qf.cfg, "test", &qf.pg, &err) != ERR_OK ||
        migrate_up(qf.pg, "proto/sql", &applied, &err) != ERR_OK || rds_pool_create(&qf.cfg, &qf.rds, &err) != ERR_OK ||
        rds_pool_create(&qf.daemon, &qf.rds_daemon, &err) != ERR_OK ||
        rds_pool_create(&qf.away, &qf.rds_away, &err) != ERR_OK ||
        queue_create(&qf.cfg, qf.pg, qf.rds_daemon, &qf.q, &err) != ERR_OK ||
        queue_create(&qf.cfg, qf.pg, qf.rds_daemon, &qf.other, &err) != ERR_OK ||
        queue_create(&qf.away, qf.pg, qf.rds_away, &qf.no_redis, &err) != ERR_OK) {
        print_error("%s %s\n", err.message, err.detail);
        return -1;
    }
    qf_make_user();
    qf_sql("CREATE TABLE IF NOT EXISTS completions (job uuid PRIMARY KEY)");
    return 0;
}

static inline int qf_teardown(void **state) {
    (void)state;
    queue_destroy(qf.q);
    queue_destroy(qf.other);
    queue_destroy(qf.no_redis);
    rds_pool_destroy(qf.rds);
    rds_pool_destroy(qf.rds_daemon);
    rds_pool_destroy(qf.rds_away);
    pg_pool_destroy(qf.pg);
    config_free(&qf.cfg);
    config_free(&qf.daemon);
    config_free(&qf.away);
    private_server_stop(&qf.redis_server);
    private_server_stop(&qf.pg_server);
    return 0;
}

#endif
