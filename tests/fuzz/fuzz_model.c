/* Fuzzes the reader of model.json, in a folder of its own (in memory, where there is /dev/shm). */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "segworker/models.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[64], manifest[96], module[96];

static void remove_folder(void) {
    unlink(manifest);
    unlink(module);
    rmdir(dir);
}

static void make_folder(void) {
    snprintf(dir, sizeof dir, "%s/sg_fuzz_XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(dir)) {
        abort();
    }
    snprintf(manifest, sizeof manifest, "%s/model.json", dir);
    snprintf(module, sizeof module, "%s/model.pt", dir);
    int fd = open(module, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        abort();
    }
    close(fd);
    atexit(remove_folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!dir[0]) {
        make_folder();
    }
    int fd = open(manifest, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) {
        abort();
    }
    close(fd);
    model_spec_t *m = malloc(sizeof *m);
    err_t err;
    if (m && model_spec_load(dir, m, &err) != ERR_OK && (!err.code[0] || !err.message[0])) {
        abort();
    }
    free(m);
    return 0;
}
