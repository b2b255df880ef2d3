/* Configuration values of each type: what is accepted lies within the bounds of the table. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The first byte chooses the variable, the rest is its value. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {
        "DB_POOL_MAX", "MAX_UPLOAD_SIZE", "ML_ERROR_THRESHOLD", "ENABLE_CIRCUIT_BREAKER",
        "LOG_LEVEL",   "JWT_SECRET",      "STORAGE_DIR",        "DATABASE_URL"};
    if (size == 0) {
        return 0;
    }
    const char *name = names[data[0] % (sizeof names / sizeof names[0])];
    char *value = malloc(size);
    if (!value) {
        return 0;
    }
    memcpy(value, data + 1, size - 1);
    value[size - 1] = '\0';
    if (setenv(name, value, 1) == 0) {
        config_t cfg;
        err_t err;
        if (config_load(CONFIG_BOTH, &cfg, &err) == ERR_OK) {
            if (cfg.db_pool_max < 1 || cfg.db_pool_max > 1000 || cfg.max_upload_size < 1024 ||
                !(cfg.breaker_threshold >= 1.0 && cfg.breaker_threshold <= 100.0) || cfg.storage_dir[0] == '\0') {
                abort();
            }
            config_free(&cfg);
        } else if (err.message[0] == '\0') {
            abort();
        }
    }
    unsetenv(name);
    free(value);
    return 0;
}
