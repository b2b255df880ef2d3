/*
 * Migrations (see migrate.h). Everything runs on one connection that holds a session-level advisory lock: the lock ends
 * with the connection, so a replica that dies half-way blocks nobody, and its open transaction is undone by the server.
 * Each file and the row that records it commit together.
 */
#include "migrate.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hash.h"
#include "log.h"
#include "pg_internal.h"

enum { MIGRATIONS_MAX = 999, NAME_SIZE = 128, SQL_MAX = 4 << 20 };

/* Any fixed number will do, as long as it stays the same: "sphe" "mig" in ASCII, folded into 63 bits. */
#define LOCK_KEY "8318819221870210407"

typedef struct {
    int version;
    char name[NAME_SIZE]; /* between the number and ".up.sql" */
} migration_t;

typedef struct {
    migration_t *items;
    int n;
} migration_list_t;

/* ---- files ---- */

/* "001_init.up.sql" -> 1, "init". */
static bool parse_file_name(const char *file, migration_t *out) {
    static const char tail[] = ".up.sql";
    size_t len = strlen(file);
    size_t tail_len = sizeof tail - 1;
    if (len < 5 + tail_len || strcmp(file + len - tail_len, tail) != 0 || file[3] != '_') {
        return false;
    }
    out->version = 0;
    for (int i = 0; i < 3; i++) {
        if (file[i] < '0' || file[i] > '9') {
            return false;
        }
        out->version = out->version * 10 + (file[i] - '0');
    }
    size_t name = len - tail_len - 4;
    if (name >= sizeof out->name || out->version == 0) {
        return false;
    }
    memcpy(out->name, file + 4, name);
    out->name[name] = '\0';
    return true;
}

static int by_version(const void *a, const void *b) {
    const migration_t *x = a;
    const migration_t *y = b;
    return x->version < y->version ? -1 : x->version > y->version;
}

/* Reads the folder; items are ascending. The caller frees list->items. */
static err_kind_t list_files(const char *dir, migration_list_t *list, err_t *err) {
    *list = (migration_list_t){0};
    DIR *d = opendir(dir);
    if (!d) {
        return err_setf(err, ERR_INVALID, "migrations_missing",
                        "The migrations cannot be read from %.100s: %s. Check MIGRATIONS_DIR.", dir, strerror(errno));
    }
    err_kind_t kind = ERR_OK;
    list->items = calloc(MIGRATIONS_MAX, sizeof *list->items);
    if (!list->items) {
        kind = err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    for (const struct dirent *e; kind == ERR_OK && (e = readdir(d)) != NULL;) {
        migration_t m;
        if (!parse_file_name(e->d_name, &m)) {
            continue;
        }
        if (list->n == MIGRATIONS_MAX) {
            kind = err_set(err, ERR_INVALID, "migrations_invalid", "There are too many migrations.", NULL);
            break;
        }
        list->items[list->n++] = m;
    }
    closedir(d);
    if (kind == ERR_OK) {
        qsort(list->items, (size_t)list->n, sizeof *list->items, by_version);
        for (int i = 1; i < list->n && kind == ERR_OK; i++) {
            if (list->items[i].version == list->items[i - 1].version) {
                kind = err_setf(err, ERR_INVALID, "migrations_invalid", "Two migrations have the number %03d.",
                                list->items[i].version);
            }
        }
    }
    if (kind == ERR_OK && list->n == 0) {
        kind = err_setf(err, ERR_INVALID, "migrations_missing",
                        "There is no migration (NNN_name.up.sql) in %.100s. Check MIGRATIONS_DIR.", dir);
    }
    if (kind != ERR_OK) {
        free(list->items);
        *list = (migration_list_t){0};
    }
    return kind;
}

/* Reads a whole file as text; the caller frees *text. */
static err_kind_t read_sql(const char *dir, const migration_t *m, const char *direction, char **text, err_t *err) {
    char path[1024];
    *text = NULL;
    int n = snprintf(path, sizeof path, "%s/%03d_%s.%s.sql", dir, m->version, m->name, direction);
    int fd = n > 0 && (size_t)n < sizeof path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0 || st.st_size > SQL_MAX) {
        int e = errno;
        if (fd >= 0) {
            close(fd);
        }
        return err_setf(err, ERR_INVALID, "migrations_missing", "The migration %03d_%.60s.%s.sql cannot be read: %s.",
                        m->version, m->name, direction, fd >= 0 ? "it is too large" : strerror(e));
    }
    char *buf = malloc((size_t)st.st_size + 1);
    size_t len = 0;
    ssize_t got = buf ? 1 : 0;
    while (got > 0 && len < (size_t)st.st_size) {
        got = read(fd, buf + len, (size_t)st.st_size - len);
        len += got > 0 ? (size_t)got : 0;
    }
    close(fd);
    if (!buf || got < 0) {
        free(buf);
        return err_setf(err, buf ? ERR_IO : ERR_NO_MEMORY, "migrations_missing",
                        "The migration %03d_%.60s could not be read.", m->version, m->name);
    }
    buf[len] = '\0';
    if (strlen(buf) != len) {
        free(buf);
        return err_setf(err, ERR_INVALID, "migrations_invalid", "The migration %03d_%.60s is not a text file.",
                        m->version, m->name);
    }
    *text = buf;
    return ERR_OK;
}

/* SHA-256 of the up file in hexadecimal. */
static err_kind_t checksum(const char *sql, char out[HASH_SHA256_HEX_SIZE], err_t *err) {
    uint8_t digest[HASH_SHA256_SIZE];
    if (!hash_sha256(sql, strlen(sql), digest)) {
        return err_set(err, ERR_INTERNAL, "hash_failed", "A checksum could not be computed.", NULL);
    }
    hash_hex_encode(digest, sizeof digest, out);
    return ERR_OK;
}

/* ---- database ---- */

/* Runs SQL text of any number of statements. This does not go through pg_exec, which has a time limit on the client's
 * side and takes one statement only: a migration may rightly take hours. */
static err_kind_t run_script(pg_conn_t *c, const char *what, const char *sql, err_t *err) {
    PGresult *res = PQexec(pg_raw(c), sql);
    ExecStatusType status = PQresultStatus(res);
    err_kind_t kind = ERR_OK;
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_EMPTY_QUERY) {
        const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
        const char *said = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
        const char *at = PQresultErrorField(res, PG_DIAG_STATEMENT_POSITION);
        kind = err_set(err, state ? ERR_INTERNAL : ERR_UNAVAILABLE, state ? "migration_failed" : "database_unavailable",
                       state ? "A database migration failed. The log says which one and why."
                             : "The connection to the database broke during a migration.",
                       "%s: SQLSTATE %s: %.200s%s%.12s", what, state ? state : "none",
                       said ? said : PQerrorMessage(pg_raw(c)), at ? " at character " : "", at ? at : "");
    }
    PQclear(res);
    return kind;
}

/* Takes the lock (waiting as long as another replica works) and makes the table. */
static err_kind_t begin_session(pg_conn_t *c, err_t *err) {
    err_kind_t kind = run_script(c, "settings", "SET statement_timeout = 0; SET lock_timeout = 0", err);
    PGresult *res = NULL;
    if (kind == ERR_OK) {
        kind = pg_exec(c, "SELECT pg_try_advisory_lock(" LOCK_KEY ") AS ours", 0, NULL, &res, err);
    }
    if (kind == ERR_OK && !pg_get_bool(res, 0, "ours")) {
        log_event(LOG_INFO, "waiting for another process that runs the migrations", NULL);
        kind = run_script(c, "lock", "SELECT pg_advisory_lock(" LOCK_KEY ")", err);
    }
    PQclear(res);
    if (kind == ERR_OK) {
        kind = run_script(c, "schema_migrations",
                          "SET client_min_messages = warning;"
                          "CREATE TABLE IF NOT EXISTS schema_migrations ("
                          " version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,"
                          " applied_at timestamptz NOT NULL DEFAULT now())",
                          err);
    }
    return kind;
}

/* Gives the lock back and closes the connection, and with it the settings. The lock would end with the connection, too,
 * but only when the server notices, which may be after the caller goes on. */
static void end_session(pg_conn_t *c) {
    pg_rollback(c);
    err_t err;
    if (PQstatus(pg_raw(c)) == CONNECTION_OK &&
        pg_exec(c, "SELECT pg_advisory_unlock_all()", 0, NULL, NULL, &err) != ERR_OK) {
        log_error(LOG_WARN, "releasing the migration lock failed", &err);
    }
    pg_mark_broken(c);
    pg_release(c);
}

static err_kind_t applied_rows(pg_conn_t *c, PGresult **rows, err_t *err) {
    return pg_exec(
        c,
        "SELECT version, name, checksum, to_char(applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
        " AS applied_at FROM schema_migrations ORDER BY version",
        0, NULL, rows, err);
}

static int find_row(const PGresult *rows, int version) {
    for (int i = 0; i < PQntuples(rows); i++) {
        if (pg_get_int(rows, i, "version", -1) == version) {
            return i;
        }
    }
    return -1;
}

static const migration_t *find_file(const migration_list_t *list, int version) {
    for (int i = 0; i < list->n; i++) {
        if (list->items[i].version == version) {
            return &list->items[i];
        }
    }
    return NULL;
}

/* Runs one file and the statement that records it in one transaction. */
static err_kind_t run_recorded(pg_conn_t *c, const migration_t *m, const char *what, const char *sql,
                               const char *record_sql, int nparams, const char *const *params, err_t *err) {
    char label[NAME_SIZE + 32];
    (void)snprintf(label, sizeof label, "%03d_%s (%s)", m->version, m->name, what);
    err_kind_t kind = pg_begin(c, err);
    if (kind == ERR_OK) {
        kind = run_script(c, label, sql, err);
    }
    if (kind == ERR_OK && PQtransactionStatus(pg_raw(c)) != PQTRANS_INTRANS) {
        kind = err_setf(err, ERR_INVALID, "migrations_invalid",
                        "The migration %.100s ends its own transaction. Remove BEGIN and COMMIT from the file.", label);
    }
    if (kind == ERR_OK) {
        kind = pg_exec(c, record_sql, nparams, params, NULL, err);
    }
    if (kind == ERR_OK) {
        kind = pg_commit(c, err);
    }
    if (kind != ERR_OK) {
        pg_rollback(c);
        return kind;
    }
    log_event(LOG_INFO, "migration done", "migration", label, NULL);
    return ERR_OK;
}

/* Applies the file, or, when it is recorded already, checks that it did not change. */
static err_kind_t up_one(pg_conn_t *c, const char *dir, const migration_t *m, const PGresult *rows, int *applied,
                         err_t *err) {
    char *sql = NULL;
    char sum[HASH_SHA256_HEX_SIZE];
    err_kind_t kind = read_sql(dir, m, "up", &sql, err);
    if (kind == ERR_OK) {
        kind = checksum(sql, sum, err);
    }
    if (kind != ERR_OK) {
        goto out;
    }
    int row = find_row(rows, m->version);
    if (row >= 0) {
        const char *known = pg_get(rows, row, "checksum");
        if (!known || strcmp(known, sum) != 0) {
            kind =
                err_setf(err, ERR_CONFLICT, "migration_changed",
                         "The migration %03d_%.60s was changed after it had been applied. Restore the file, or write "
                         "a new migration.",
                         m->version, m->name);
        }
        goto out;
    }
    int newest = PQntuples(rows) > 0 ? (int)pg_get_int(rows, PQntuples(rows) - 1, "version", 0) : 0;
    if (m->version < newest) {
        kind = err_setf(err, ERR_CONFLICT, "migration_out_of_order",
                        "The migration %03d_%.60s is older than the database (%03d). Give it a new number.", m->version,
                        m->name, newest);
        goto out;
    }
    char version[16];
    (void)snprintf(version, sizeof version, "%d", m->version);
    const char *const params[] = {version, m->name, sum};
    kind = run_recorded(c, m, "up", sql, "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
                        3, params, err);
    if (kind == ERR_OK) {
        (*applied)++;
    }
out:
    free(sql);
    return kind;
}

err_kind_t migrate_up(pg_pool_t *pool, const char *dir, int *applied, err_t *err) {
    int count = 0;
    migration_list_t list;
    PGresult *rows = NULL;
    pg_conn_t *c = NULL;
    err_kind_t kind = list_files(dir, &list, err);
    if (kind == ERR_OK) {
        kind = pg_acquire(pool, &c, err);
    }
    if (kind == ERR_OK) {
        kind = begin_session(c, err);
    }
    if (kind == ERR_OK) {
        kind = applied_rows(c, &rows, err);
    }
    for (int i = 0; i < list.n && kind == ERR_OK; i++) {
        kind = up_one(c, dir, &list.items[i], rows, &count, err);
    }
    for (int i = 0; kind == ERR_OK && i < PQntuples(rows); i++) {
        if (!find_file(&list, (int)pg_get_int(rows, i, "version", 0))) {
            log_event(LOG_WARN, "the database has a migration that this version does not know", "migration",
                      pg_get(rows, i, "name"), NULL);
        }
    }
    PQclear(rows);
    if (c) {
        end_session(c);
    }
    free(list.items);
    if (applied) {
        *applied = count;
    }
    return kind;
}

static err_kind_t down_one(pg_conn_t *c, const char *dir, const PGresult *rows, int row, err_t *err) {
    migration_t m = {.version = (int)pg_get_int(rows, row, "version", 0)};
    const char *name = pg_get(rows, row, "name");
    (void)snprintf(m.name, sizeof m.name, "%s", name ? name : "");
    char *sql = NULL;
    err_kind_t kind = read_sql(dir, &m, "down", &sql, err);
    if (kind == ERR_OK) {
        char version[16];
        (void)snprintf(version, sizeof version, "%d", m.version);
        const char *const params[] = {version};
        kind = run_recorded(c, &m, "down", sql, "DELETE FROM schema_migrations WHERE version = $1", 1, params, err);
    }
    free(sql);
    return kind;
}

err_kind_t migrate_down(pg_pool_t *pool, const char *dir, int steps, int *undone, err_t *err) {
    int count = 0;
    PGresult *rows = NULL;
    pg_conn_t *c = NULL;
    err_kind_t kind = pg_acquire(pool, &c, err);
    if (kind == ERR_OK) {
        kind = begin_session(c, err);
    }
    if (kind == ERR_OK) {
        kind = applied_rows(c, &rows, err);
    }
    for (int row = PQntuples(rows) - 1; row >= 0 && count < steps && kind == ERR_OK; row--) {
        kind = down_one(c, dir, rows, row, err);
        count += kind == ERR_OK;
    }
    PQclear(rows);
    if (c) {
        end_session(c);
    }
    if (undone) {
        *undone = count;
    }
    return kind;
}

err_kind_t migrate_status(pg_pool_t *pool, const char *dir, FILE *out, err_t *err) {
    migration_list_t list;
    PGresult *rows = NULL;
    PGresult *table = NULL;
    pg_conn_t *c = NULL;
    err_kind_t kind = list_files(dir, &list, err);
    if (kind == ERR_OK) {
        kind = pg_acquire(pool, &c, err);
    }
    if (kind == ERR_OK) { /* looking must not change anything, so the table is not made here */
        kind = pg_exec(c, "SELECT to_regclass('schema_migrations') IS NOT NULL AS there", 0, NULL, &table, err);
    }
    if (kind == ERR_OK && pg_get_bool(table, 0, "there")) {
        kind = applied_rows(c, &rows, err);
    }
    int row = 0;
    int nrows = PQntuples(rows);
    for (int i = 0; kind == ERR_OK && (i < list.n || row < nrows);) {
        int in_db = row < nrows ? (int)pg_get_int(rows, row, "version", 0) : MIGRATIONS_MAX + 1;
        int on_disk = i < list.n ? list.items[i].version : MIGRATIONS_MAX + 1;
        const char *when = in_db <= on_disk ? pg_get(rows, row, "applied_at") : "pending";
        const char *name = on_disk <= in_db ? list.items[i].name : pg_get(rows, row, "name");
        fprintf(out, "%03d %s %s%s\n", on_disk < in_db ? on_disk : in_db, name, when,
                on_disk > in_db ? " (file missing)" : "");
        row += in_db <= on_disk;
        i += on_disk <= in_db;
    }
    PQclear(rows);
    PQclear(table);
    pg_release(c);
    free(list.items);
    return kind;
}
