/*
 * The worker's models: loaded and warmed up at the start, written to the table `models` so that the gateway knows what
 * can be asked for.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/breaker.h"
#include "common/log.h"
#include "segworker/worker_internal.h"

static int threads_per_run(const config_t *cfg) {
    if (cfg->torch_threads > 0) {
        return (int)cfg->torch_threads;
    }
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    long each = cores / (long)cfg->queue_concurrency;
    return each < 1 ? 1 : (int)each;
}

err_kind_t worker_load_models(worker_t *w, err_t *err) {
    const config_t *cfg = w->cfg;
    err_kind_t rc = models_load(cfg->models_dir, cfg->worker_models, &w->registry, err);
    if (rc != ERR_OK) {
        return rc;
    }
    for (int i = 0; i < w->registry.nproblems; i++) {
        log_error(LOG_WARN, w->registry.problems[i].name, &w->registry.problems[i].err);
    }
    if (w->registry.count > WORKER_MAX_MODELS) {
        return err_setf(err, ERR_INVALID, "models_invalid",
                        "MODELS_DIR holds %d models; a worker serves at most %d. "
                        "Name some in SEGWORKER_MODELS.",
                        w->registry.count, WORKER_MAX_MODELS);
    }
    pipeline_set_threads(threads_per_run(cfg));
    for (int i = 0; i < w->registry.count && !w->stopping; i++) {
        worker_model_t *m = &w->models[i];
        log_event(LOG_INFO, "loading model", "model", w->registry.models[i].name, NULL);
        rc = pipeline_create(&w->registry.models[i], cfg->device, &m->pipeline, err);
        if (rc != ERR_OK) {
            return rc;
        }
        m->name = w->registry.models[i].name;
        (void)snprintf(w->device, sizeof w->device, "%s", pipeline_device(m->pipeline));
        w->nmodels = i + 1;
    }
    return ERR_OK;
}

/* The manifest as shipped: model.json beside the module. Caller frees *text. */
static err_kind_t read_manifest(const model_spec_t *spec, char **text, err_t *err) {
    char path[4200];
    const char *slash = strrchr(spec->path, '/');
    int dir = slash ? (int)(slash - spec->path) : 0;
    (void)snprintf(path, sizeof path, "%.*s/model.json", slash ? dir : 1, slash ? spec->path : ".");
    *text = calloc(1, MODEL_MANIFEST_MAX + 1);
    FILE *f = *text ? fopen(path, "re") : NULL;
    size_t n = f ? fread(*text, 1, MODEL_MANIFEST_MAX, f) : 0;
    bool ok = f && !ferror(f) && n > 0;
    if (f) {
        (void)fclose(f);
    }
    if (!ok) {
        free(*text);
        *text = NULL;
        return err_set(err, ERR_IO, "model_unreadable", "A model.json could not be read.", "%s", path);
    }
    return ERR_OK;
}

err_kind_t worker_register_models(worker_t *w, err_t *err) {
    for (int i = 0; i < w->nmodels; i++) {
        const model_spec_t *s = &w->registry.models[i];
        char *manifest = NULL;
        err_kind_t rc = read_manifest(s, &manifest, err);
        if (rc != ERR_OK) {
            return rc;
        }
        const char *params[] = {s->name, s->version, s->title, s->description, s->sha256, manifest};
        rc = pg_query(
            w->pg,
            "INSERT INTO models (name, version, title, description, sha256, manifest) "
            "VALUES ($1, $2, $3, $4, $5, $6::jsonb) ON CONFLICT (name) DO UPDATE SET version = $2, title = $3, "
            "description = $4, sha256 = $5, manifest = $6::jsonb, seen_at = now()",
            6, params, NULL, err);
        free(manifest);
        if (rc == ERR_OK && !w->cfg->breaker_enabled) {
            rc = breaker_forget(w->rds, s->name, err); /* what was open when the operator switched it off */
        }
        if (rc != ERR_OK) {
            return rc;
        }
    }
    return ERR_OK;
}

void worker_free_models(worker_t *w) {
    for (int i = 0; i < w->nmodels; i++) {
        pipeline_free(w->models[i].pipeline);
    }
    w->nmodels = 0;
    models_free(&w->registry);
}

worker_model_t *worker_find_model(worker_t *w, const char *name) {
    for (int i = 0; i < w->nmodels; i++) {
        if (strcmp(w->models[i].name, name) == 0) {
            return &w->models[i];
        }
    }
    return NULL;
}
