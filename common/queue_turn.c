/*
 * One turn of a worker: the jobs that it has committed are ended and told of, and it gets the next ones. claim.lua does
 * all that Redis has to do in one call; then the rows go from queued to active, with new tokens. Only the second step
 * counts: an id whose row is not queued is dropped from Redis.
 *
 * A call costs much more than what it moves, so threads of one worker that come while a turn is under way wait, and the
 * first of them then asks for all: one script call and one statement (one flush to the disk) for several slots. Who
 * finds no turn under way does not wait, so an idle worker is as fast as without.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "log.h"
#include "queue_internal.h"

/* Turns that are served together, and what they get. */
typedef struct queue_party {
    struct queue_party *next; /* that is under way, of another worker */
    queue_turn_t *first;
    int turns, most, n; /* that are served; jobs wanted, found in Redis */
    char tag[QUEUE_TAG_SIZE];
    queue_candidate_t found[QUEUE_CLAIM_MAX];
    queue_claim_t claims[QUEUE_CLAIM_MAX];
    int turn_of[QUEUE_CLAIM_MAX]; /* whose claim it is */
    int got, stale;
    int64_t hint_ms;
} party_t;

/* ---- Redis ---- */

static bool copy_element(const redisReply *r, char *out, size_t room) {
    if (r->type == REDIS_REPLY_INTEGER) {
        return snprintf(out, room, "%lld", r->integer) > 0;
    }
    return r->type == REDIS_REPLY_STRING && r->len < room && snprintf(out, room, "%s", r->str) >= 0;
}

static void read_candidates(const redisReply *r, party_t *p) {
    p->hint_ms = r->type == REDIS_REPLY_INTEGER ? r->integer : -1;
    for (size_t i = 0; r->type == REDIS_REPLY_ARRAY && i + 3 < r->elements && p->n < p->most; i += 4) {
        queue_candidate_t *one = &p->found[p->n];
        p->n += copy_element(r->element[i], one->id, sizeof one->id) &&
                copy_element(r->element[i + 1], one->model, sizeof one->model) &&
                copy_element(r->element[i + 2], one->priority, sizeof one->priority) &&
                copy_element(r->element[i + 3], one->user, sizeof one->user);
    }
}

static void put_done(queue_args_t *a, const party_t *p, char (*tags)[QUEUE_TAG_SIZE]) {
    int k = 0;
    for (const queue_turn_t *t = p->first; t; t = t->next) {
        for (int i = 0; i < t->ndone; i++, k++) {
            (void)snprintf(tags[k], sizeof tags[k], "%.16s", t->done[i].token);
            queue_args_put(a, t->done[i].id);
            queue_args_put(a, tags[k]);
        }
    }
}

static void add_ends(const party_t *p, queue_news_t *news) {
    for (const queue_turn_t *t = p->first; t && !t->redis_only; t = t->next) {
        for (int i = 0; i < t->ndone; i++) {
            queue_news_add(news, &(queue_event_t){.project_id = t->done[i].project_id,
                                                  .image_id = t->done[i].image_id,
                                                  .job_id = t->done[i].id,
                                                  .seq = t->done[i].seq,
                                                  .state = JOB_COMPLETED,
                                                  .progress = 1,
                                                  .attempt = t->done[i].attempt,
                                                  .position = -1,
                                                  .object_count = t->object_counts[i]});
        }
    }
}

static int64_t cost_of(const queue_turn_t *t, int model) {
    return t->costs_us && t->costs_us[model] > 0 ? t->costs_us[model] : 1;
}

/* claim.lua: ends what is done, and finds up to p->most jobs. */
static err_kind_t turn_in_redis(queue_t *q, party_t *p, err_t *err) {
    char lease[24], age[24], every[16], most[16], sure[16], budget[24], models[16], news_count[16];
    char costs[QUEUE_MAX_MODELS][24];
    char tags[2 * QUEUE_CLAIM_MAX][QUEUE_TAG_SIZE];
    queue_news_t news = {0};
    queue_args_t a = {0};
    (void)snprintf(lease, sizeof lease, "%lld", (long long)q->lease_ms);
    (void)snprintf(age, sizeof age, "%lld", (long long)q->tune.age_ms);
    (void)snprintf(every, sizeof every, "%d", q->tune.age_every);
    (void)snprintf(most, sizeof most, "%d", p->most);
    (void)snprintf(sure, sizeof sure, "%d", p->first->costs_us ? p->turns : p->most);
    (void)snprintf(budget, sizeof budget, "%lld", (long long)p->first->budget_us * p->turns);
    (void)snprintf(models, sizeof models, "%d", p->first->nmodels);
    const char *const words[] = {p->first->worker_id, p->tag, lease, age, every, most, sure, budget, models};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        queue_args_put(&a, words[i]);
    }
    for (int i = 0; i < p->first->nmodels; i++) {
        (void)snprintf(costs[i], sizeof costs[i], "%lld", (long long)cost_of(p->first, i));
        queue_args_put(&a, p->first->models[i]);
        queue_args_put(&a, costs[i]);
    }
    add_ends(p, &news);
    queue_args_news(&a, &news, news_count);
    put_done(&a, p, tags);
    redisReply *r = NULL;
    err_kind_t rc = queue_eval_args(q, &q->lua.claim, &a, &r, err);
    if (rc == ERR_OK) {
        queue_news_published(&news);
        read_candidates(r, p);
        freeReplyObject(r);
    }
    queue_args_free(&a);
    queue_news_free(&news);
    return rc;
}

/* Back to the heads of their lists, in their order: PostgreSQL could not be asked. */
static void put_back(queue_t *q, const party_t *p) {
    queue_release_t back[QUEUE_CLAIM_MAX];
    for (int i = 0; i < p->n; i++) {
        const queue_candidate_t *c = &p->found[p->n - 1 - i];
        back[i] = (queue_release_t){c->id, p->tag, c->model, c->priority, c->user};
    }
    err_t err;
    if (queue_release(q, "front", back, p->n, NULL, &err) != ERR_OK) {
        log_event(LOG_WARN, "could not put jobs back; their leases will run out", "jobId", p->found[0].id, "detail",
                  err.detail, NULL);
    }
}

/* ---- PostgreSQL ---- */

static void copy_column(char *out, size_t room, const PGresult *rows, int i, const char *column) {
    const char *v = pg_get(rows, i, column);
    (void)snprintf(out, room, "%s", v ? v : "");
}

static void fill_claim(const PGresult *rows, int i, queue_claim_t *out) {
    *out = (queue_claim_t){0};
    copy_column(out->id, sizeof out->id, rows, i, "id");
    copy_column(out->project_id, sizeof out->project_id, rows, i, "project_id");
    copy_column(out->image_id, sizeof out->image_id, rows, i, "image_id");
    copy_column(out->user_id, sizeof out->user_id, rows, i, "user_id");
    copy_column(out->token, sizeof out->token, rows, i, "token");
    copy_column(out->model, sizeof out->model, rows, i, "model");
    copy_column(out->storage_key, sizeof out->storage_key, rows, i, "storage_key");
    out->threshold = pg_get_real(rows, i, "threshold", NAN);
    out->detect_holes = pg_get_bool(rows, i, "detect_holes");
    err_t ignored;
    out->choice_unknown = job_choice_parse_text(pg_get(rows, i, "options"), &out->choice, &ignored) != ERR_OK;
    out->priority = (int)pg_get_int(rows, i, "priority", 5);
    out->attempt = (int)pg_get_int(rows, i, "attempt", 1);
    out->max_attempts = (int)pg_get_int(rows, i, "max_attempts", 1);
    out->seq = pg_get_int(rows, i, "seq", 0);
    out->waited_s = pg_get_real(rows, i, "waited", 0);
}

/* The candidates' ids and as many new tokens, which begin with the tag that Redis knows, as arrays for PostgreSQL. See
 * queue_internal.h for what their first digits say. */
static err_kind_t claim_arrays(const party_t *p, buf_t *ids, buf_t *tokens, err_t *err) {
    buf_puts(ids, "{");
    buf_puts(tokens, "{");
    for (int i = 0; i < p->n; i++) {
        char rest[45];
        err_kind_t rc = queue_random_hex(rest, 22, err);
        if (rc != ERR_OK) {
            return rc;
        }
        buf_printf(ids, "%s%s", i ? "," : "", p->found[i].id);
        buf_printf(tokens, "%s%s%02x%02x%s", i ? "," : "", p->tag, (unsigned int)p->found[i].turn,
                   (unsigned int)p->found[i].place, rest);
    }
    buf_puts(ids, "}");
    buf_puts(tokens, "}");
    return ids->failed || tokens->failed
               ? err_set(err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", "claim")
               : ERR_OK;
}

/* queued -> active, in one statement. *rows: those that were queued. */
static err_kind_t claim_rows(queue_t *q, const party_t *p, PGresult **rows, err_t *err) {
    buf_t ids, tokens;
    buf_init(&ids, 1 << 20);
    buf_init(&tokens, 1 << 20);
    err_kind_t rc = claim_arrays(p, &ids, &tokens, err);
    if (rc == ERR_OK) {
        const char *params[] = {ids.data, tokens.data, p->first->worker_id};
        rc = pg_query(
            q->pg,
            "WITH c AS (UPDATE jobs SET state = 'active', attempt = attempt + 1, token = n.token, worker_id = $3, "
            "started_at = now(), stage = '', cancel_requested = false, error_code = NULL, error_message = NULL, "
            "error_detail = NULL, seq = GREATEST((attempt + 1)::bigint << 32, seq) + 1 "
            "FROM unnest($1::uuid[], $2::text[]) AS n(job, token) "
            "WHERE jobs.id = n.job AND state = 'queued' RETURNING jobs.*) "
            "SELECT c.*, i.storage_key, GREATEST(0, extract(epoch FROM c.started_at - c.run_after)) AS waited "
            "FROM c JOIN images i ON i.id = c.image_id",
            3, params, rows, err);
    }
    buf_free(&ids);
    buf_free(&tokens);
    return rc;
}

static int find_row(const PGresult *rows, const char *id) {
    for (int k = 0; k < PQntuples(rows); k++) {
        if (strcmp(pg_get(rows, k, "id"), id) == 0) {
            return k;
        }
    }
    return -1;
}

/* Keeps the claims whose rows were taken; the others are dropped from Redis: cancelled, deleted, or a leftover. */
static void keep_taken(queue_t *q, party_t *p, const PGresult *rows) {
    queue_release_t drop[QUEUE_CLAIM_MAX];
    int stale = 0;
    for (int i = 0; i < p->n; i++) {
        const queue_candidate_t *c = &p->found[i];
        int row = find_row(rows, c->id);
        if (row >= 0) {
            p->turn_of[p->got] = c->turn;
            fill_claim(rows, row, &p->claims[p->got++]);
        } else {
            queue_held_remove(q, c->id, p->tag);
            drop[stale++] = (queue_release_t){c->id, p->tag, c->model, c->priority, c->user};
        }
    }
    p->stale = stale;
    err_t err;
    if (stale > 0 && queue_release(q, "drop", drop, stale, NULL, &err) != ERR_OK) {
        log_event(LOG_WARN, "could not release a job in Redis; its lease will run out", "jobId", drop[0].id, "detail",
                  err.detail, NULL);
    }
}

static void publish_claims(queue_t *q, const queue_claim_t *c, int n) {
    const char *projects[QUEUE_CLAIM_MAX] = {0}, *jsons[QUEUE_CLAIM_MAX] = {0};
    char *owned[QUEUE_CLAIM_MAX];
    size_t count = 0;
    for (int i = 0; i < n; i++) {
        queue_event_t e = {.project_id = c[i].project_id,
                           .image_id = c[i].image_id,
                           .job_id = c[i].id,
                           .seq = c[i].seq,
                           .state = JOB_ACTIVE,
                           .attempt = c[i].attempt,
                           .position = -1,
                           .object_count = -1};
        char *json = queue_event_json(&e);
        if (json) {
            projects[count] = c[i].project_id;
            owned[count] = json;
            jsons[count++] = json;
        }
    }
    events_publish_many(q->rds, count, projects, jsons);
    for (size_t i = 0; i < count; i++) {
        free(owned[i]);
    }
}

/* ---- a turn ---- */

/* Which turn gets which job. Of bounded turns, the one that has the least work so far: each gets one first, and none
 * exceeds its budget by more than one job, however their costs add up. */
static void assign(party_t *p) {
    const queue_turn_t *first = p->first;
    int64_t load[QUEUE_CLAIM_MAX] = {0};
    int count[QUEUE_CLAIM_MAX] = {0}, room[QUEUE_CLAIM_MAX], turns = 0;
    for (const queue_turn_t *t = first; t && turns < QUEUE_CLAIM_MAX; t = t->next) {
        room[turns++] = t->most;
    }
    for (int i = 0; i < p->n && first; i++) {
        int to = -1;
        for (int k = 0; k < turns; k++) {
            if (count[k] < room[k] && (to < 0 || load[k] < load[to])) {
                to = k;
            }
        }
        int model = 0; /* turns that are not bounded are filled one after the other */
        while (first->costs_us && model + 1 < first->nmodels && strcmp(first->models[model], p->found[i].model) != 0) {
            model++;
        }
        load[to] += first->costs_us ? cost_of(p->first, model) : 0;
        p->found[i].turn = to;
        p->found[i].place = first->costs_us ? count[to] : 0;
        count[to]++;
    }
}

/* Without PostgreSQL: what Redis gives is the claim. */
static void keep_all(party_t *p) {
    for (int i = 0; i < p->n; i++) {
        const queue_candidate_t *found = &p->found[i];
        p->turn_of[p->got] = found->turn;
        queue_claim_t *c = &p->claims[p->got++];
        *c = (queue_claim_t){.threshold = NAN, .attempt = 1, .max_attempts = 1};
        memcpy(c->id, found->id, sizeof c->id);
        memcpy(c->user_id, found->user, sizeof c->user_id);
        memcpy(c->model, found->model, sizeof c->model);
        c->priority = (int)strtol(found->priority, NULL, 10);
        (void)snprintf(c->token, sizeof c->token, "%s", p->tag);
    }
}

static err_kind_t serve(queue_t *q, party_t *p, err_t *err) {
    for (const queue_turn_t *t = p->first; t; t = t->next) {
        for (int i = 0; i < t->ndone; i++) {
            queue_held_remove(q, t->done[i].id, t->done[i].token);
        }
    }
    err_kind_t rc = queue_random_hex(p->tag, (QUEUE_TAG_SIZE - 1) / 2, err);
    if (rc == ERR_OK) {
        rc = turn_in_redis(q, p, err);
    }
    if (rc != ERR_OK || p->n == 0) {
        return rc;
    }
    assign(p);
    if (p->first->redis_only) {
        keep_all(p);
        return ERR_OK;
    }
    for (int i = 0; i < p->n; i++) { /* first, so that no cancellation falls between the two steps */
        queue_held_add(q, p->found[i].id, p->tag, p->first->worker_id);
    }
    PGresult *rows = NULL;
    rc = claim_rows(q, p, &rows, err);
    if (rc != ERR_OK) {
        for (int i = 0; i < p->n; i++) {
            queue_held_remove(q, p->found[i].id, p->tag);
        }
        put_back(q, p);
        return rc;
    }
    keep_taken(q, p, rows);
    PQclear(rows);
    publish_claims(q, p->claims, p->got);
    return ERR_OK;
}

static bool same_worker(const queue_turn_t *a, const queue_turn_t *b) {
    bool same = strcmp(a->worker_id, b->worker_id) == 0 && a->nmodels == b->nmodels && a->redis_only == b->redis_only &&
                a->budget_us == b->budget_us && !a->costs_us == !b->costs_us;
    for (int i = 0; same && i < a->nmodels; i++) {
        same = strcmp(a->models[i], b->models[i]) == 0;
    }
    return same;
}

/* Is a turn of the same worker under way? The lock is held. */
static bool is_busy(const queue_t *q, const queue_turn_t *turn) {
    for (const party_t *p = q->parties; p; p = p->next) {
        if (same_worker(p->first, turn)) {
            return true;
        }
    }
    return false;
}

/* Takes the turns that wait for what `mine` waits for off the list, the oldest first. The lock is held. */
static void gather(queue_t *q, const queue_turn_t *mine, party_t *p) {
    queue_turn_t **tail = &p->first;
    int done = 0;
    p->first = NULL;
    p->turns = p->most = 0;
    for (queue_turn_t **at = &q->turns; *at;) {
        queue_turn_t *t = *at;
        if (same_worker(mine, t) && p->most + t->most <= QUEUE_CLAIM_MAX && done + t->ndone <= QUEUE_CLAIM_MAX) {
            *at = t->next;
            t->next = NULL;
            *tail = t;
            tail = &t->next;
            p->turns++;
            p->most += t->most;
            done += t->ndone;
        } else {
            at = &t->next;
        }
    }
}

/* Gives each turn its part and wakes its thread, which may be gone at once. */
static void share_out(const party_t *p, queue_turn_t *mine, err_kind_t rc, const err_t *err) {
    int turn = 0;
    for (queue_turn_t *t = p->first, *next; t; t = next, turn++) {
        next = t->next;
        t->got = 0;
        for (int i = 0; i < p->got; i++) {
            if (p->turn_of[i] == turn) {
                t->out[t->got++] = p->claims[i];
            }
        }
        t->stale = p->stale;
        t->hint_ms = p->hint_ms;
        t->rc = rc;
        if (rc != ERR_OK && t->err) {
            *t->err = *err;
        }
        t->posts += t != mine;
        atomic_store(&t->served, true);
        if (t != mine) {
            (void)sem_post(&t->wake);
        }
    }
}

/* Takes the party off the list and asks the first of those that came meanwhile to lead them. The lock is held. */
static void leave(queue_t *q, const queue_turn_t *mine, party_t *p) {
    party_t **at = &q->parties;
    while (*at != p) {
        at = &(*at)->next;
    }
    *at = p->next;
    for (queue_turn_t *t = q->turns; t; t = t->next) {
        if (t != mine && same_worker(p->first, t)) {
            t->posts++;
            (void)sem_post(&t->wake);
            break;
        }
    }
}

/* Leads a party: the oldest turns of the worker that wait, its own (unless there are too many) and others'. The lock is
 * held, but not while Redis and PostgreSQL work. False: no memory. */
static bool lead(queue_t *q, queue_turn_t *mine) {
    err_t err = {0};
    party_t *p = q->spare ? q->spare : malloc(sizeof *p);
    q->spare = NULL;
    if (!p) {
        return false;
    }
    p->n = p->got = p->stale = 0; /* the rest is filled as far as these say */
    p->hint_ms = -1;
    gather(q, mine, p);
    p->next = q->parties;
    q->parties = p;
    (void)pthread_mutex_unlock(&q->lock);
    err_kind_t rc = serve(q, p, &err);
    (void)pthread_mutex_lock(&q->lock);
    leave(q, mine, p);
    (void)pthread_mutex_unlock(&q->lock);
    share_out(p, mine, rc, &err);
    (void)pthread_mutex_lock(&q->lock);
    if (q->spare) {
        free(p);
    } else {
        q->spare = p;
    }
    return true;
}

static void take_off(queue_t *q, const queue_turn_t *turn) {
    for (queue_turn_t **at = &q->turns; *at; at = &(*at)->next) {
        if (*at == turn) {
            *at = turn->next;
            break;
        }
    }
}

/* Waits for one post. */
static int wait_post(queue_turn_t *turn) {
    while (sem_wait(&turn->wake) != 0) { /* interrupted by a signal */
    }
    return 1;
}

/* Leads, or waits to be served or asked to lead, until the turn was served. Returns the posts that it took. */
static int until_served(queue_t *q, queue_turn_t *turn) {
    int woken = 0;
    (void)pthread_mutex_lock(&q->lock);
    while (!atomic_load(&turn->served)) {
        if (!is_busy(q, turn)) {
            if (!lead(q, turn)) {
                take_off(q, turn);
                turn->rc = err_set(turn->err, ERR_NO_MEMORY, "no_memory", "The server is out of memory.", "claim");
                break;
            }
            continue;
        }
        (void)pthread_mutex_unlock(&q->lock);
        woken += wait_post(turn);
        if (atomic_load(&turn->served)) {
            return woken; /* the common case of those who do not lead: without the lock */
        }
        (void)pthread_mutex_lock(&q->lock);
    }
    (void)pthread_mutex_unlock(&q->lock);
    return woken;
}

void queue_turn_take(queue_t *q, queue_turn_t *turn) {
    turn->next = NULL;
    turn->posts = 0;
    atomic_store(&turn->served, false);
    (void)sem_init(&turn->wake, 0, 0);
    (void)pthread_mutex_lock(&q->lock);
    queue_turn_t **tail = &q->turns;
    while (*tail) {
        tail = &(*tail)->next;
    }
    *tail = turn;
    (void)pthread_mutex_unlock(&q->lock);
    for (int woken = until_served(q, turn); woken < turn->posts;) { /* who posts must find the semaphore there */
        woken += wait_post(turn);
    }
    (void)sem_destroy(&turn->wake);
}
