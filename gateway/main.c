/*
 * The gateway's command line. Configuration comes from the environment alone (common/config_table.h).
 */
#include <errno.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "auth/password.h"
#include "auth/session.h"
#include "auth/token.h"
#include "common/config.h"
#include "common/health_probe.h"
#include "common/log.h"
#include "common/migrate.h"
#include "daemon.h"
#include "derivatives.h"
#include "heartbeat.h"
#include "router.h"
#include "sample.h"

static void print_help(FILE *out) {
    (void)fputs(
        "usage: gateway [serve]              serve the API and the browser UI until SIGTERM\n"
        "       gateway migrate up           bring the database to this version (serve does it too)\n"
        "       gateway migrate down N       undo the newest N migrations\n"
        "       gateway migrate status       list the migrations\n"
        "       gateway user add EMAIL [--admin] [--sample] [--if-missing]\n"
        "                                    make an account; the password is the first line of stdin;\n"
        "                                    --sample also makes its sample project;\n"
        "                                    --if-missing leaves an account that is there as it is\n"
        "       gateway routes               list the API's routes\n"
        "       gateway heartbeat [--once]   every minute take an image through the whole system, and serve how it went\n"
        "       gateway health [live|ready]  ask the gateway of this configuration how it is; exit status 0: well\n"
        "       gateway --check-config       check the configuration and exit\n"
        "       gateway --help | --version\n"
        "\n"
        "Signals: SIGTERM, SIGINT stop gracefully; SIGUSR1 switches the debug log on and off; SIGHUP loads the\n"
        "certificate again.\n"
        "\n"
        "Environment:\n",
        out);
    config_print_help(CONFIG_GATEWAY, out);
}

static int fail(const err_t *err) {
    (void)fprintf(stderr, "gateway: %s\n", err->message);
    if (err->detail[0]) {
        (void)fprintf(stderr, "gateway: (%s)\n", err->detail);
    }
    return 1;
}

static int wrong_usage(const char *what) {
    (void)fprintf(stderr, "gateway: %s. Try gateway --help.\n", what);
    return 2;
}

/* ---- migrate ---- */

static int run_migrate(const config_t *cfg, int argc, char **argv) {
    pg_pool_t *pool = NULL;
    err_t err;
    int n = 0;
    char *end = NULL;
    long steps = 0;
    const char *verb = argc > 0 ? argv[0] : "";
    bool down = strcmp(verb, "down") == 0;
    if (down) {
        steps = argc > 1 ? strtol(argv[1], &end, 10) : 0;
        if (argc != 2 || !end || *end || steps < 1 || steps > 1000) {
            return wrong_usage("migrate down needs the number of migrations to undo");
        }
    } else if (argc != 1 || (strcmp(verb, "up") != 0 && strcmp(verb, "status") != 0)) {
        return wrong_usage("migrate needs up, down N or status");
    }
    err_kind_t k = pg_pool_create(cfg, "spheroseg-migrate", &pool, &err);
    if (k == ERR_OK) {
        k = pg_wait_ready(pool, (int)cfg->start_timeout_s, &err);
    }
    if (k == ERR_OK && down) {
        k = migrate_down(pool, cfg->migrations_dir, (int)steps, &n, &err);
    } else if (k == ERR_OK && strcmp(verb, "up") == 0) {
        k = migrate_up(pool, cfg->migrations_dir, &n, &err);
    } else if (k == ERR_OK) {
        k = migrate_status(pool, cfg->migrations_dir, stdout, &err);
    }
    if (k == ERR_OK && strcmp(verb, "status") != 0) {
        (void)printf("%d migration%s %s\n", n, n == 1 ? "" : "s", down ? "undone" : "applied");
    }
    if (pool) {
        pg_pool_destroy(pool);
    }
    return k == ERR_OK ? 0 : fail(&err);
}

/* ---- user add ---- */

static bool read_password(char out[PASSWORD_MAX + 2]) {
    if (isatty(STDIN_FILENO)) {
        (void)fputs("Password: ", stderr);
    }
    if (!fgets(out, PASSWORD_MAX + 2, stdin)) {
        return false;
    }
    out[strcspn(out, "\r\n")] = '\0';
    return true;
}

static err_kind_t make_admin(gateway_t *gw, const char *user_id, err_t *err) {
    const char *params[] = {user_id};
    return pg_query(gw->pg, "UPDATE users SET role = 'admin' WHERE id = $1", 1, params, NULL, err);
}

static err_kind_t add_user(const config_t *cfg, const char *email, bool admin, bool sample, err_t *err) {
    char password[PASSWORD_MAX + 2] = "";
    char project[37] = "";
    bool created = false;
    int applied = 0;
    gateway_t gw;
    session_user_t user;
    if (!read_password(password)) {
        return err_set(err, ERR_INVALID, "password_missing",
                       "Give the password as the first line of the standard input.", NULL);
    }
    err_kind_t k = daemon_open(cfg, sample, &gw, err);
    if (k == ERR_OK) {
        k = migrate_up(gw.pg, cfg->migrations_dir, &applied, err);
    }
    if (k == ERR_OK) {
        k = session_register(gw.pg, email, password, "", &user, err);
    }
    OPENSSL_cleanse(password, sizeof password);
    if (k == ERR_OK && admin) {
        k = make_admin(&gw, user.id, err);
    }
    if (k == ERR_OK) {
        (void)printf("account %s %s\n", user.id, user.email);
    }
    if (k == ERR_OK && sample) {
        k = derivatives_create(cfg, gw.storage, &gw.derivatives, err);
    }
    if (k == ERR_OK && sample) {
        k = sample_create(&gw, user.id, project, &created, err);
        if (k == ERR_OK) {
            (void)printf("sample project %s\n", project);
        }
    }
    if (gw.derivatives) {
        derivatives_destroy(gw.derivatives);
    }
    daemon_close(&gw);
    return k;
}

static int run_user(const config_t *cfg, int argc, char **argv) {
    const char *email = NULL;
    bool admin = false;
    bool sample = false;
    bool if_missing = false;
    err_t err;
    if (argc < 1 || strcmp(argv[0], "add") != 0) {
        return wrong_usage("user knows one verb: add EMAIL");
    }
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--sample") == 0) {
            sample = true;
        } else if (strcmp(argv[i], "--admin") == 0) {
            admin = true;
        } else if (strcmp(argv[i], "--if-missing") == 0) {
            if_missing = true;
        } else if (argv[i][0] == '-' || email) {
            return wrong_usage("user add takes one EMAIL, --admin, --sample and --if-missing");
        } else {
            email = argv[i];
        }
    }
    if (!email) {
        return wrong_usage("user add needs an EMAIL");
    }
    err_kind_t k = add_user(cfg, email, admin, sample, &err);
    if (k == ERR_CONFLICT && if_missing) {
        (void)printf("account %s is there already\n", email);
        return 0;
    }
    return k == ERR_OK ? 0 : fail(&err);
}

/* ---- the rest ---- */

static int run(const config_t *cfg, int argc, char **argv) {
    const char *command = argc > 1 ? argv[1] : "serve";
    if (strcmp(command, "serve") == 0) {
        return argc > 2 ? wrong_usage("serve takes no arguments") : daemon_serve(cfg);
    }
    if (strcmp(command, "--check-config") == 0) {
        (void)puts("configuration ok");
        return 0;
    }
    if (strcmp(command, "migrate") == 0) {
        return run_migrate(cfg, argc - 2, argv + 2);
    }
    if (strcmp(command, "user") == 0) {
        return run_user(cfg, argc - 2, argv + 2);
    }
    if (strcmp(command, "heartbeat") == 0) {
        bool once = argc == 3 && strcmp(argv[2], "--once") == 0;
        return argc > 2 && !once ? wrong_usage("heartbeat takes nothing, or --once") : heartbeat_run(cfg, once);
    }
    if (strcmp(command, "health") == 0) {
        return health_command("gateway", cfg->metrics_host, (int)cfg->metrics_port, argc - 2, argv + 2);
    }
    return wrong_usage("unknown command");
}

/* glibc learns from the first large block that is freed (a password's hash takes 19 MiB) to serve such blocks from its
 * heap, and then keeps them. Large blocks shall go back to the system. */
static void limit_heap(void) {
    (void)mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024);
    (void)mallopt(M_TRIM_THRESHOLD, 1024 * 1024);
}

int main(int argc, char **argv) {
    config_t cfg;
    err_t err;
    log_level_t level = LOG_INFO;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(stdout);
            return 0;
        }
        if (strcmp(argv[i], "--version") == 0) {
            (void)printf("spheroseg gateway %s\n", SG_VERSION);
            return 0;
        }
    }
    if (argc == 2 && strcmp(argv[1], "routes") == 0) {
        router_print(stdout);
        return 0;
    }
    limit_heap();
    log_init("gateway", LOG_INFO);
    if (config_load(CONFIG_GATEWAY, &cfg, &err) != ERR_OK) {
        return fail(&err);
    }
    int status = 1;
    if (!log_parse_level(cfg.log_level, &level)) {
        (void)fprintf(stderr, "gateway: LOG_LEVEL must be error, warn, info or debug.\n");
    } else if (daemon_check_config(&cfg, &err) != ERR_OK) {
        status = fail(&err);
    } else {
        log_set_level(level);
        status = run(&cfg, argc, argv);
    }
    config_free(&cfg);
    return status;
}
