/*
 * The last runs of each model: see queue_quick.h.
 */
#include "queue_quick.h"

#include <stdio.h>
#include <string.h>

static int find(const queue_quick_t *k, const char *model) {
    for (int i = 0; i < k->count; i++) {
        if (strcmp(k->models[i].model, model) == 0) {
            return i;
        }
    }
    return -1;
}

void queue_quick_note(queue_quick_t *k, const char *model, int64_t us, int64_t now_ms) {
    int i = find(k, model);
    if (i < 0 && k->count == QUEUE_QUICK_MODELS) {
        return; /* unknown for ever: one at a time is always right */
    }
    if (i < 0) {
        i = k->count++;
        k->models[i] = (queue_quick_model_t){0};
        (void)snprintf(k->models[i].model, sizeof k->models[i].model, "%s", model);
    }
    queue_quick_model_t *m = &k->models[i];
    m->us[m->next] = us < 1 ? 1 : us;
    m->next = (m->next + 1) % QUEUE_QUICK_RUNS;
    m->runs += m->runs < QUEUE_QUICK_RUNS;
    m->noted_ms = now_ms;
}

void queue_quick_forget(queue_quick_t *k, const char *model) {
    int i = find(k, model);
    if (i >= 0) {
        k->models[i].runs = 0;
    }
}

int64_t queue_quick_cost_us(const queue_quick_t *k, const char *model, int64_t now_ms, int64_t unknown) {
    int i = find(k, model);
    int64_t longest = 1;
    if (i < 0 || k->models[i].runs < QUEUE_QUICK_RUNS || now_ms - k->models[i].noted_ms > QUEUE_QUICK_MS) {
        return unknown;
    }
    for (int n = 0; n < QUEUE_QUICK_RUNS; n++) {
        longest = k->models[i].us[n] > longest ? k->models[i].us[n] : longest;
    }
    return longest;
}
