/* Private servers for tests (see private_servers.h). */
#include "private_servers.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <grp.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SERVERS_MAX = 16, START_TRIES = 1200, TRY_MS = 50 };

static private_server_t *running[SERVERS_MAX];

static void die(const char *what) {
    fprintf(stderr, "private server: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void nap(void) {
    struct timespec ts = {.tv_nsec = TRY_MS * 1000000L};
    (void)nanosleep(&ts, NULL);
}

static const char *pg_program(const char *name) {
    static char path[512];
    glob_t found;
    path[0] = '\0';
    char pattern[128];
    (void)snprintf(pattern, sizeof pattern, "/usr/lib/postgresql/*/bin/%s", name);
    if (glob(pattern, 0, NULL, &found) == 0) {
        (void)snprintf(path, sizeof path, "%s", found.gl_pathv[found.gl_pathc - 1]);
        globfree(&found);
    } else {
        (void)snprintf(pattern, sizeof pattern, "/usr/local/bin/%s", name);
        if (access(pattern, X_OK) == 0) {
            (void)snprintf(path, sizeof path, "%s", pattern);
        }
    }
    return path[0] ? path : NULL;
}

static const char *redis_program(void) {
    const char *chosen = getenv("SPHEROSEG_REDIS_SERVER");
    if (chosen && chosen[0]) {
        return chosen;
    }
    static const char *const places[] = {"/usr/bin/redis-server", "/usr/local/bin/redis-server"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (access(places[i], X_OK) == 0) {
            return places[i];
        }
    }
    return NULL;
}

bool private_pg_available(void) {
    if (pg_program("initdb") && pg_program("postgres")) {
        return true;
    }
    puts("SKIPPED: the PostgreSQL server programs are not installed");
    return false;
}

bool private_redis_available(void) {
    if (redis_program()) {
        return true;
    }
    puts("SKIPPED: redis-server is not installed");
    return false;
}

/* The user that servers run as: PostgreSQL refuses root. NULL: stay who we are. */
static const struct passwd *server_user(void) {
    if (geteuid() != 0) {
        return NULL;
    }
    const struct passwd *pw = getpwnam("postgres");
    pw = pw ? pw : getpwnam("nobody");
    if (!pw) {
        die("no unprivileged user");
    }
    return pw;
}

/* Starts a program as the server user, its output in dir/log. */
static pid_t spawn(const char *dir, int death_signal, const char *const *argv) {
    const struct passwd *pw = server_user();
    char log[128];
    (void)snprintf(log, sizeof log, "%s/log", dir);
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0) {
        die("fork");
    }
    if (pid > 0) {
        return pid;
    }
    if (pw && (setgroups(0, NULL) != 0 || setgid(pw->pw_gid) != 0 || setuid(pw->pw_uid) != 0)) {
        _exit(126);
    }
    /* After setuid, which clears it. */
    if (prctl(PR_SET_PDEATHSIG, death_signal) != 0 || getppid() != parent) {
        _exit(126);
    }
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    int null = open("/dev/null", O_RDONLY);
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    if (fd < 0 || null < 0 || dup2(null, 0) < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0 || chdir(dir) != 0) {
        _exit(126);
    }
    (void)unsetenv("LD_PRELOAD");
    (void)execv(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

static int wait_exit(pid_t pid) {
    int status = 0;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return -1;
        }
    }
    return status;
}

static void show_log(const private_server_t *s) {
    char path[128];
    (void)snprintf(path, sizeof path, "%s/log", s->dir);
    FILE *f = fopen(path, "r");
    char line[512];
    while (f && fgets(line, sizeof line, f)) {
        fputs(line, stderr);
    }
    if (f) {
        fclose(f);
    }
}

static bool answers(const private_server_t *s) {
    if (!s->is_redis) {
        return PQping(s->url) == PQPING_OK;
    }
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    (void)snprintf(addr.sun_path, sizeof addr.sun_path, "%s/redis.sock", s->dir);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

static void launch(private_server_t *s) {
    char data[128];
    char socket_path[128];
    if (s->is_redis) {
        (void)snprintf(socket_path, sizeof socket_path, "%s/redis.sock", s->dir);
        const char *const argv[] = {redis_program(),
                                    "--port",
                                    "0",
                                    "--unixsocket",
                                    socket_path,
                                    "--save",
                                    "",
                                    "--appendonly",
                                    "no",
                                    "--dir",
                                    s->dir,
                                    s->password[0] ? "--requirepass" : NULL,
                                    s->password,
                                    NULL};
        s->pid = spawn(s->dir, SIGKILL, argv);
    } else {
        (void)snprintf(data, sizeof data, "%s/data", s->dir);
        const char *const argv[] = {
            pg_program("postgres"), "-D", data, "-k", s->dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c",
            "max_connections=60",   NULL};
        s->pid = spawn(s->dir, SIGQUIT, argv);
    }
    for (int i = 0; i < START_TRIES; i++) {
        if (answers(s)) {
            return;
        }
        if (waitpid(s->pid, NULL, WNOHANG) == s->pid) {
            break;
        }
        nap();
    }
    show_log(s);
    die("did not start");
}

static void stop_all(void) {
    for (int i = 0; i < SERVERS_MAX; i++) {
        if (running[i]) {
            private_server_stop(running[i]);
        }
    }
}

static void prepare(private_server_t *s) {
    static bool registered;
    if (!registered) {
        registered = true;
        (void)atexit(stop_all);
    }
    int i = 0;
    while (i < SERVERS_MAX && running[i]) {
        i++;
    }
    if (i == SERVERS_MAX) {
        errno = ENOMEM;
        die("too many servers");
    }
    running[i] = s;
    (void)snprintf(s->dir, sizeof s->dir, "/tmp/sgtest-XXXXXX");
    if (!mkdtemp(s->dir)) {
        die("mkdtemp");
    }
    const struct passwd *pw = server_user();
    if (pw && chown(s->dir, pw->pw_uid, pw->pw_gid) != 0) {
        die("chown");
    }
}

void private_pg_start(private_server_t *s) {
    *s = (private_server_t){.is_redis = false};
    prepare(s);
    char data[128];
    (void)snprintf(data, sizeof data, "%s/data", s->dir);
    const char *const argv[] = {pg_program("initdb"), "-D",      data,        "-U", "test", "-A", "trust", "-E", "UTF8",
                                "--locale",           "C.UTF-8", "--no-sync", NULL};
    if (wait_exit(spawn(s->dir, SIGKILL, argv)) != 0) {
        show_log(s);
        die("initdb failed");
    }
    (void)snprintf(s->url, sizeof s->url, "postgresql://test@/postgres?host=%s", s->dir);
    launch(s);
    PGconn *c = PQconnectdb(s->url);
    PGresult *r = PQexec(c, "CREATE DATABASE test");
    if (PQresultStatus(r) != PGRES_COMMAND_OK) {
        fputs(PQerrorMessage(c), stderr);
        die("CREATE DATABASE failed");
    }
    PQclear(r);
    PQfinish(c);
    (void)snprintf(s->url, sizeof s->url, "postgresql://test@/test?host=%s", s->dir);
}

void private_redis_start(private_server_t *s, const char *password) {
    *s = (private_server_t){.is_redis = true};
    (void)snprintf(s->password, sizeof s->password, "%s", password);
    prepare(s);
    (void)snprintf(s->url, sizeof s->url, "unix://%s%s%s%s/redis.sock", password[0] ? ":" : "", password,
                   password[0] ? "@" : "", s->dir);
    launch(s);
}

void private_server_kill(private_server_t *s) {
    if (s->pid <= 0) {
        return;
    }
    (void)kill(s->pid, s->is_redis ? SIGKILL : SIGQUIT); /* SIGQUIT: immediate shutdown, children included */
    (void)wait_exit(s->pid);
    s->pid = 0;
}

void private_server_restart(private_server_t *s) {
    private_server_kill(s);
    launch(s);
}

void private_server_freeze(private_server_t *s, bool frozen) {
    (void)kill(s->pid, frozen ? SIGSTOP : SIGCONT);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at) {
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

void private_server_stop(private_server_t *s) {
    private_server_kill(s);
    for (int i = 0; i < SERVERS_MAX; i++) {
        if (running[i] == s) {
            running[i] = NULL;
        }
    }
    if (s->dir[0]) {
        (void)nftw(s->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
        s->dir[0] = '\0';
    }
}
