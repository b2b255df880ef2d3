/* REDIS_URL: what is accepted is complete and in range. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/redis_url.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *url = malloc(size + 1); /* on the heap and exact, so that reading past the end is seen */
    if (!url) {
        return 0;
    }
    memcpy(url, data, size);
    url[size] = '\0';
    redis_url_t u;
    err_t err;
    if (redis_url_parse(url, &u, &err) == ERR_OK) {
        bool placed = u.sentinel_count > 0 ? u.host[0] == '\0' && u.master[0] != '\0' : u.host[0] != '\0';
        for (int i = 0; i < u.sentinel_count; i++) {
            placed = placed && u.sentinels[i].host[0] != '\0' && u.sentinels[i].port > 0 && u.sentinels[i].port < 65536;
        }
        if (!placed || u.sentinel_count > REDIS_SENTINELS_MAX || u.port < 1 || u.port > 65535 || u.db < 0 ||
            (u.is_unix && u.host[0] != '/')) {
            abort();
        }
    } else if (err.kind != ERR_INVALID) {
        abort();
    }
    free(url);
    return 0;
}
