/*
 * Private PostgreSQL and Redis servers for tests: on Unix sockets in a temporary directory, as an unprivileged user,
 * and gone when the test program ends, however it ends (the kernel signals them when their parent dies). Call
 * everything from the main thread: the signal is tied to the thread that started the server. SPHEROSEG_REDIS_SERVER may
 * name another program than redis-server that speaks its protocol (valkey-server).
 */
#ifndef SG_PRIVATE_SERVERS_H
#define SG_PRIVATE_SERVERS_H

#include <stdbool.h>
#include <sys/types.h>

typedef struct {
    char dir[64];  /* holds socket and data */
    char url[256]; /* DATABASE_URL or REDIS_URL */
    char password[64];
    bool is_redis;
    pid_t pid; /* 0: stopped */
} private_server_t;

/* Are the programs there? If not, says so on stdout (a test that is skipped is skipped aloud). */
bool private_pg_available(void);
bool private_redis_available(void);

/* Makes a new empty cluster with a superuser "test" and the database "test". Exits the test program when that fails. */
void private_pg_start(private_server_t *s);
/* password: "" = none. */
void private_redis_start(private_server_t *s, const char *password);

/* Ends the server at once, as a crash would; data (PostgreSQL) or nothing (Redis) stays. */
void private_server_kill(private_server_t *s);
/* Starts it again on the same data and socket. */
void private_server_restart(private_server_t *s);
/* SIGSTOP / SIGCONT for Redis: a server that is there but does not answer. */
void private_server_freeze(private_server_t *s, bool frozen);
/* Ends the server and removes its directory. */
void private_server_stop(private_server_t *s);

#endif
