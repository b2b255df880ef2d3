/*
 * The worker's models: loaded and warmed up at the start and again when asked for, written to the table `models` so
 * that the gateway knows what can be asked for.
 *
 * A worker_model_t goes: loaded -> serving (in worker_t.models) -> retired (replaced or removed) -> freed, when nobody
 * uses it. Only the main thread adds and retires.
 */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/breaker.h"
#include "common/log.h"
#include "segworker/pipeline/infer.h"
#include "segworker/pipeline/lanes.h"
#include "segworker/pipeline/options.h"
#include "segworker/worker_internal.h"

/* ---- use ---- */

static void free_model(worker_model_t *m) {
    pipeline_free(m->pipeline);
    free(m);
}

static int find(const worker_t *w, const char *name) {
    for (int i = 0; i < w->nmodels; i++) {
        if (strcmp(w->models[i]->spec.name, name) == 0) {
            return i;
        }
    }
    return -1;
}

worker_model_t *worker_take_model(worker_t *w, const char *name) {
    (void)pthread_mutex_lock(&w->lock);
    int i = find(w, name);
    worker_model_t *m = i >= 0 ? w->models[i] : NULL;
    if (m) {
        m->users++;
    }
    (void)pthread_mutex_unlock(&w->lock);
    return m;
}

void worker_release_model(worker_t *w, worker_model_t *m) {
    (void)pthread_mutex_lock(&w->lock);
    bool last = --m->users == 0 && m->retired;
    (void)pthread_mutex_unlock(&w->lock);
    if (last) {
        free_model(m);
    }
}

int worker_model_names(worker_t *w, char names[WORKER_MAX_MODELS][64]) {
    (void)pthread_mutex_lock(&w->lock);
    int n = w->nmodels;
    for (int i = 0; i < n; i++) {
        (void)snprintf(names[i], 64, "%s", w->models[i]->spec.name);
    }
    (void)pthread_mutex_unlock(&w->lock);
    return n;
}

/* ---- loading ---- */

/* The program, the model's file and every setting: two workers with the same recipe give the same result. A test model
 * stands for its waiting and failing, so its results are never reused. */
static void write_recipe(worker_model_t *m) {
    model_spec_t *s = malloc(sizeof *s);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int n = 0;
    m->recipe[0] = '\0';
    if (s && m->spec.output != MODEL_OUTPUT_TEST) {
        memcpy(s, &m->spec, sizeof *s);
        memset(s->path, 0, sizeof s->path); /* where the file lies does not matter, its checksum does */
        if (EVP_Digest(s, sizeof *s, digest, &n, EVP_sha256(), NULL) == 1 && n == 32) {
            int at = snprintf(m->recipe, sizeof m->recipe, "%.80s ", SG_VERSION);
            for (unsigned int i = 0; at > 0 && i < n; i++) {
                at += snprintf(m->recipe + at, sizeof m->recipe - (size_t)at, "%02x", digest[i]);
            }
        }
    }
    free(s);
}

static err_kind_t load_model(worker_t *w, const model_spec_t *spec, worker_model_t **out, err_t *err) {
    worker_model_t *m = calloc(1, sizeof *m);
    *out = NULL;
    if (!m) {
        return err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to load the model.", NULL);
    }
    log_event(LOG_INFO, "loading model", "model", spec->name, "version", spec->version, NULL);
    memcpy(&m->spec, spec, sizeof m->spec); /* with the gaps between fields, see is_same and write_recipe */
    write_recipe(m);
    err_kind_t rc = pipeline_create(spec, w->cfg->device, &m->pipeline, err);
    if (rc != ERR_OK) {
        free(m);
        return rc;
    }
    worker_count_nothing(spec->name);
    *out = m;
    return ERR_OK;
}

static err_kind_t read_registry(worker_t *w, model_registry_t *reg, err_t *err) {
    err_kind_t rc = models_load(w->cfg->models_dir, w->cfg->worker_models, reg, err);
    for (int i = 0; rc == ERR_OK && i < reg->nproblems; i++) {
        log_error(LOG_WARN, reg->problems[i].name, &reg->problems[i].err);
    }
    if (rc == ERR_OK && reg->count > WORKER_MAX_MODELS) {
        rc = err_setf(err, ERR_INVALID, "models_invalid",
                      "MODELS_DIR holds %d models; a worker serves at most %d. "
                      "Name some in SEGWORKER_MODELS.",
                      reg->count, WORKER_MAX_MODELS);
        models_free(reg);
    }
    return rc;
}

/* The first network stands for all: how well a tile uses several threads is the library's and the machine's affair. */
static void tune(worker_t *w) {
    for (int i = 0; i < w->nmodels; i++) {
        pipeline_t *p = w->models[i]->pipeline;
        if (infer_backend_for(pipeline_spec(p))->set_threads) {
            int lanes = 1, each = 1;
            char words[2][16];
            pipeline_tune(p);
            pipeline_lanes(p, &lanes, &each);
            (void)snprintf(words[0], sizeof words[0], "%d", lanes);
            (void)snprintf(words[1], sizeof words[1], "%d", each);
            log_event(LOG_INFO, "inference is set up", "lanes", words[0], "threadsEach", words[1], NULL);
            return;
        }
    }
}

err_kind_t worker_load_models(worker_t *w, err_t *err) {
    model_registry_t reg;
    err_kind_t rc = read_registry(w, &reg, err);
    if (rc != ERR_OK) {
        return rc;
    }
    lanes_set_up(&(lanes_setup_t){.threads = (int)w->cfg->torch_threads,
                                  .lanes = (int)w->cfg->lanes,
                                  .batch = (int)w->cfg->batch,
                                  .batch_wait_ms = (int)w->cfg->batch_wait_ms});
    for (int i = 0; rc == ERR_OK && i < reg.count && !w->stopping; i++) {
        rc = load_model(w, &reg.models[i], &w->models[i], err);
        if (rc == ERR_OK) {
            (void)snprintf(w->device, sizeof w->device, "%s", pipeline_device(w->models[i]->pipeline));
            w->nmodels = i + 1;
        }
    }
    models_free(&reg);
    if (rc == ERR_OK) {
        tune(w);
    }
    return rc;
}

/* ---- loading again ---- */

/* The same file, checksum and settings: nothing to do. Specifications are cleared before they are filled in; if padding
 * differed all the same, a model would be loaded once more than needed. */
static bool is_same(const model_spec_t *a, const model_spec_t *b) {
    /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison,cert-exp42-c,cert-flp37-c) */
    return memcmp(a, b, sizeof *a) == 0;
}

static bool was_left_out(const model_registry_t *reg, const char *name) {
    for (int i = 0; i < reg->nproblems; i++) {
        if (strcmp(reg->problems[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* The list as it will be: what is new or changed loaded, the old where that failed. */
static int next_models(worker_t *w, const model_registry_t *reg, worker_model_t *next[WORKER_MAX_MODELS]) {
    int n = 0;
    for (int i = 0; i < reg->count; i++) {
        int old = find(w, reg->models[i].name);
        worker_model_t *m = old >= 0 ? w->models[old] : NULL;
        if (!m || !is_same(&m->spec, &reg->models[i])) {
            err_t err;
            worker_model_t *fresh = NULL;
            if (load_model(w, &reg->models[i], &fresh, &err) == ERR_OK) {
                m = fresh;
            } else {
                log_error(LOG_ERROR, m ? "a changed model is not used, the old one stays" : "a new model is not used",
                          &err);
            }
        }
        if (m) {
            next[n++] = m;
        }
    }
    for (int i = 0; i < w->nmodels && n < WORKER_MAX_MODELS; i++) {
        if (was_left_out(reg, w->models[i]->spec.name)) {
            log_event(LOG_ERROR, "a changed model is not used, the old one stays", "model", w->models[i]->spec.name,
                      NULL);
            next[n++] = w->models[i];
        }
    }
    return n;
}

static bool is_among(const worker_model_t *m, worker_model_t *const *list, int n) {
    for (int i = 0; i < n; i++) {
        if (list[i] == m) {
            return true;
        }
    }
    return false;
}

void worker_reload_models(worker_t *w) {
    model_registry_t reg;
    err_t err;
    worker_model_t *next[WORKER_MAX_MODELS], *gone[WORKER_MAX_MODELS];
    int ngone = 0;
    log_event(LOG_INFO, "reading the models again", NULL);
    if (read_registry(w, &reg, &err) != ERR_OK) {
        log_error(LOG_ERROR, "the models stay as they are", &err);
        return;
    }
    int n = next_models(w, &reg, next);
    models_free(&reg);
    (void)pthread_mutex_lock(&w->lock);
    for (int i = 0; i < w->nmodels; i++) {
        worker_model_t *m = w->models[i];
        if (!is_among(m, next, n)) {
            m->retired = true;
            if (m->users == 0) {
                gone[ngone++] = m;
            }
        }
    }
    memcpy(w->models, next, (size_t)n * sizeof(worker_model_t *));
    w->nmodels = n;
    (void)pthread_mutex_unlock(&w->lock);
    for (int i = 0; i < ngone; i++) {
        free_model(gone[i]);
    }
    char count[16];
    (void)snprintf(count, sizeof count, "%d", n);
    log_event(LOG_INFO, "models were read again", "models", count, NULL);
    if (worker_register_models(w, &err) != ERR_OK) {
        log_error(LOG_WARN, "register the models; it is tried again later", &err);
    }
}

/* ---- telling ---- */

static err_kind_t register_model(worker_t *w, const model_spec_t *s, err_t *err) {
    char *manifest = NULL;
    buf_t offer;
    err_kind_t rc = models_manifest(s, &manifest, err);
    if (rc != ERR_OK) {
        return rc;
    }
    buf_init(&offer, 4096);
    options_write_offer(s, &offer);
    const char *params[] = {
        s->name, s->version, s->title, s->description, s->sha256, manifest, offer.failed ? "{}" : offer.data};
    rc = pg_query(w->pg,
                  "INSERT INTO models (name, version, title, description, sha256, manifest, options) "
                  "VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7::jsonb) ON CONFLICT (name) DO UPDATE SET version = $2, "
                  "title = $3, description = $4, sha256 = $5, manifest = $6::jsonb, options = $7::jsonb, "
                  "seen_at = now()",
                  7, params, NULL, err);
    free(manifest);
    buf_free(&offer);
    if (rc == ERR_OK && !w->cfg->breaker_enabled) {
        rc = breaker_forget(w->rds, s->name, err); /* what was open when the operator switched it off */
    }
    return rc;
}

err_kind_t worker_register_models(worker_t *w, err_t *err) {
    char names[WORKER_MAX_MODELS][64];
    int n = worker_model_names(w, names);
    err_kind_t rc = ERR_OK;
    for (int i = 0; rc == ERR_OK && i < n; i++) {
        worker_model_t *m = worker_take_model(w, names[i]);
        if (m) {
            rc = register_model(w, &m->spec, err);
            worker_release_model(w, m);
        }
    }
    return rc;
}

void worker_free_models(worker_t *w) {
    for (int i = 0; i < w->nmodels; i++) {
        free_model(w->models[i]);
    }
    w->nmodels = 0;
}
