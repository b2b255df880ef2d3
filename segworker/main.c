/*
 * segworker: without a command (or with `serve`) the daemon; `run` and `models`
 * are commands that need no server.
 */
#include <malloc.h>
#include <stdio.h>
#include <string.h>

#include "common/config.h"
#include "common/health_probe.h"
#include "common/log.h"
#include "segworker/cli_run.h"
#include "segworker/torch_shim.h"
#include "segworker/worker.h"

enum { EXIT_WRONG_USAGE = 2 };

static void print_help(FILE *out) {
    fputs("Usage: segworker [serve]                     take jobs from the queue "
          "until stopped\n"
          "       segworker run [options] IMAGE... -o OUT   segment image files; "
          "see segworker run --help\n"
          "       segworker models                      list the models in "
          "MODELS_DIR\n"
          "       segworker health [live|ready]         ask the worker of this configuration how it is\n"
          "       segworker --help | --version\n"
          "\n"
          "Environment:\n",
          out);
    config_print_help(CONFIG_WORKER, out);
}

typedef enum {
    COMMAND_SERVE,
    COMMAND_RUN,
    COMMAND_MODELS,
    COMMAND_HEALTH,
    COMMAND_HELP,
    COMMAND_VERSION,
    COMMAND_UNKNOWN
} command_t;

static command_t command_of(const char *word) {
    static const struct {
        const char *word;
        command_t command;
    } commands[] = {{"serve", COMMAND_SERVE},   {"run", COMMAND_RUN},         {"models", COMMAND_MODELS},
                    {"health", COMMAND_HEALTH}, {"help", COMMAND_HELP},       {"-h", COMMAND_HELP},
                    {"--help", COMMAND_HELP},   {"version", COMMAND_VERSION}, {"--version", COMMAND_VERSION}};
    for (size_t i = 0; word && i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(word, commands[i].word) == 0) {
            return commands[i].command;
        }
    }
    return word ? COMMAND_UNKNOWN : COMMAND_SERVE;
}

/* The commands speak to a person: only trouble is logged unless LOG_LEVEL says
 * debug. */
static log_level_t level_for(command_t command, const config_t *cfg) {
    log_level_t level = LOG_INFO;
    if (!log_parse_level(cfg->log_level, &level)) {
        level = LOG_INFO;
    }
    return command != COMMAND_SERVE && level == LOG_INFO ? LOG_WARN : level;
}

/* A network takes and returns the same large blocks for each tile. As it comes, the C library gives such blocks back to
 * the system at once and gets them again page by page, which cost more than half of the time with tiles of 1024 px. So
 * blocks up to 128 MB come from the heap, and the heap keeps what it has; one heap for all threads, since those of
 * further threads cannot hold blocks of that size. Larger ones (rows of a big image) are returned as ever. */
static void keep_memory_at_hand(void) {
    (void)mallopt(M_ARENA_MAX, 1);
    (void)mallopt(M_MMAP_THRESHOLD, 128 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 1 << 30);
}

int main(int argc, char **argv) {
    keep_memory_at_hand();
    command_t command = command_of(argc > 1 ? argv[1] : NULL);
    if (command == COMMAND_HELP) {
        print_help(stdout);
        return 0;
    }
    if (command == COMMAND_VERSION) {
        printf("segworker %s (libtorch %s)\n", SG_VERSION, torch_version());
        return 0;
    }
    if (command == COMMAND_UNKNOWN || (command == COMMAND_SERVE && argc > 2)) {
        fprintf(stderr, "segworker: unknown command \"%s\"\nTry: segworker --help\n", argv[argc > 2 ? 2 : 1]);
        return EXIT_WRONG_USAGE;
    }
    config_t cfg;
    err_t err;
    err_clear(&err);
    if (config_load(CONFIG_WORKER, &cfg, &err) != ERR_OK) {
        fprintf(stderr, "segworker: %s\n", err.message);
        return EXIT_WRONG_USAGE;
    }
    log_init("segworker", level_for(command, &cfg));
    int code = 0;
    if (command == COMMAND_RUN) {
        code = cli_run(argc - 1, argv + 1, &cfg);
    } else if (command == COMMAND_MODELS) {
        code = cli_models(argc - 1, argv + 1, &cfg);
    } else if (command == COMMAND_HEALTH) {
        code = health_command("segworker", cfg.metrics_host, (int)cfg.metrics_port, argc - 2, argv + 2);
    } else {
        code = worker_main(&cfg);
    }
    config_free(&cfg);
    return code;
}
