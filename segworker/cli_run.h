/*
 * The commands that need no server: `segworker run` segments image files, `segworker models` lists the models.
 * Both return the exit code of the process: 0 fine, 1 something failed (the rest was still done), 2 wrong usage.
 * argv[0] is the command's own word. Messages go to stderr, results to files or stdout.
 */
#ifndef SG_SEGWORKER_CLI_RUN_H
#define SG_SEGWORKER_CLI_RUN_H

#include <stdio.h>

#include "common/config.h"

int cli_run(int argc, char **argv, const config_t *cfg);
int cli_models(int argc, char **argv, const config_t *cfg);

void cli_run_help(FILE *out);

#endif
