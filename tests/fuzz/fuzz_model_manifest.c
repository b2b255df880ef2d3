/* Model folders of other people: model.json (first byte even) or rdf.yaml (odd). What is accepted is within its bounds.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "segworker/bioimage.h"
#include "segworker/models.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[64];

static void remove_dir(void) {
    char path[128];
    static const char *const names[] = {"model.json", "rdf.yaml"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}

static void put(const char *name, const uint8_t *data, size_t size) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) {
        abort();
    }
}

static void check(const model_spec_t *m) {
    const model_net_t *n = &m->net;
    int tile_min = m->output == MODEL_OUTPUT_LABELS ? 4 * m->halo : 2 * m->halo + 1;
    if (m->divisor < 1 || m->tile % m->divisor != 0 || m->tile < tile_min || n->grid < 1 || m->halo % n->grid != 0 ||
        m->divisor % n->grid != 0 || n->inputs < 1 || n->inputs > MODEL_MAX_INPUTS || n->nsteps > MODEL_MAX_STEPS ||
        n->first < 0 || n->second < 0 || !(m->threshold >= 0 && m->threshold <= 1) || m->min_area < 0 ||
        strlen(m->name) >= sizeof m->name) {
        abort();
    }
    bool network = m->output != MODEL_OUTPUT_TEST && m->output != MODEL_OUTPUT_CLASSICAL;
    bool pair = m->output == MODEL_OUTPUT_FOREGROUND_DISTANCE || m->output == MODEL_OUTPUT_FOREGROUND_BOUNDARY;
    if (pair && n->second >= n->channels) {
        abort();
    }
    if (network && (n->channels < 1 || n->first >= n->channels || strchr(m->path + strlen(dir) + 1, '/') != NULL)) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    model_spec_t *m = malloc(sizeof *m);
    err_t err;
    if (!dir[0]) {
        snprintf(dir, sizeof dir, "/dev/shm/sg_fuzz_XXXXXX");
        if (!mkdtemp(dir)) {
            abort();
        }
        atexit(remove_dir);
    }
    if (!m || size == 0) {
        free(m);
        return 0;
    }
    put(data[0] % 2 ? "rdf.yaml" : "model.json", data + 1, size - 1);
    if (data[0] % 2) {
        if (bioimage_read(dir, "package", m, &err) == ERR_OK) {
            check(m);
            free(bioimage_describe(m));
        }
    } else {
        err_kind_t k = model_spec_load(dir, m, &err);
        if (k == ERR_OK || (k == ERR_INVALID && strcmp(err.code, "model_damaged") == 0)) {
            check(m); /* all but the file, which is not there */
        }
    }
    free(m);
    return 0;
}
