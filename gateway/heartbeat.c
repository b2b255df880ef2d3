/*
 * See heartbeat.h. One thread, one connection of libcurl's; the health port has its own.
 */
#include "heartbeat.h"

#include <curl/curl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "auth/session.h"
#include "common/buf.h"
#include "common/httpd_mini.h"
#include "common/image/image.h"
#include "common/json_util.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/timeutil.h"
#include "daemon.h"
#include "sample_image.h"

enum { ANSWER_MAX = 4 << 20, CALL_TIMEOUT_MS = 20000, POLL_MS = 250, SIDE = 512, DRAWN = 24, FEWEST = DRAWN / 2 };

typedef struct {
    const config_t *cfg;
    CURL *curl;
    char token[2048];
    char project[64];
    char image[64];
    char job[64];
    const char *step; /* what is being done, for log and metrics */
    metric_t *success, *seconds, *failures, *certificate;
    atomic_bool ready; /* the last beat succeeded */
} heartbeat_t;

static volatile sig_atomic_t stop_asked;
static void on_signal(int n) {
    (void)n;
    stop_asked = 1;
}

/* ---- one request ---- */

static size_t take_bytes(char *bytes, size_t size, size_t n, void *arg) {
    buf_t *into = arg;
    buf_append(into, bytes, size * n);
    return into->failed ? 0 : size * n;
}

static void note_certificate(heartbeat_t *h) {
    struct curl_certinfo *info = NULL;
    if (curl_easy_getinfo(h->curl, CURLINFO_CERTINFO, &info) != CURLE_OK || !info || info->num_of_certs < 1) {
        return;
    }
    for (const struct curl_slist *line = info->certinfo[0]; line; line = line->next) {
        if (strncmp(line->data, "Expire date:", 12) == 0) {
            time_t end = curl_getdate(line->data + 12, NULL);
            if (end > 0) {
                metrics_set(h->certificate, NULL, difftime(end, time(NULL)));
            }
        }
    }
}

static void set_options(heartbeat_t *h, const char *method, const char *url, struct curl_slist *headers,
                        const void *body, size_t size, buf_t *into) {
    CURL *c = h->curl;
    curl_easy_reset(c); /* options only; the connection stays */
    (void)curl_easy_setopt(c, CURLOPT_URL, url);
    (void)curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "https");
    (void)curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, method);
    (void)curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
    (void)curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_bytes);
    (void)curl_easy_setopt(c, CURLOPT_WRITEDATA, into);
    (void)curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)CALL_TIMEOUT_MS);
    (void)curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(c, CURLOPT_CERTINFO, 1L);
    (void)curl_easy_setopt(c, CURLOPT_USERAGENT, "spheroseg-heartbeat/" SG_VERSION);
    if (strcmp(h->cfg->heartbeat_ca, "none") == 0) {
        (void)curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 0L);
        (void)curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 0L);
    } else if (h->cfg->heartbeat_ca[0]) {
        (void)curl_easy_setopt(c, CURLOPT_CAINFO, h->cfg->heartbeat_ca);
    }
    if (body) {
        (void)curl_easy_setopt(c, CURLOPT_POSTFIELDS, body);
        (void)curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)size);
    }
}

/* One call of the API. *out (may be NULL) is the answer's JSON, owned by the caller. Any status but 2xx is an error
 * whose detail has the status and the beginning of the answer. */
static err_kind_t call(heartbeat_t *h, const char *method, const char *path, const char *type, const void *body,
                       size_t size, cJSON **out, err_t *err) {
    char url[1024];
    char line[sizeof h->token + 32];
    long status = 0;
    struct curl_slist *headers = NULL;
    buf_t answer;
    buf_init(&answer, ANSWER_MAX);
    (void)snprintf(url, sizeof url, "%s%s", h->cfg->heartbeat_url, path);
    if (type) {
        (void)snprintf(line, sizeof line, "Content-Type: %s", type);
        headers = curl_slist_append(headers, line);
    }
    if (h->token[0]) {
        (void)snprintf(line, sizeof line, "Authorization: Bearer %s", h->token);
        headers = curl_slist_append(headers, line);
    }
    set_options(h, method, url, headers, body, size, &answer);
    CURLcode code = curl_easy_perform(h->curl);
    err_kind_t kind = ERR_OK;
    if (code != CURLE_OK) {
        kind =
            err_set(err, ERR_UNAVAILABLE, "no_answer", "The address does not answer.", "%s", curl_easy_strerror(code));
    } else {
        (void)curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &status);
        note_certificate(h);
        if (status < 200 || status > 299) {
            kind = err_set(err, ERR_UNAVAILABLE, "refused", "The answer is not what was expected.", "%ld %.300s",
                           status, answer.data ? answer.data : "");
        } else if (out) {
            kind = json_parse(answer.data ? answer.data : "", answer.len, ANSWER_MAX, 32, out, err);
        }
    }
    curl_slist_free_all(headers);
    buf_free(&answer);
    return kind;
}

static err_kind_t call_json(heartbeat_t *h, const char *method, const char *path, const char *json, cJSON **out,
                            err_t *err) {
    return call(h, method, path, json ? "application/json" : NULL, json, json ? strlen(json) : 0, out, err);
}

static err_kind_t keep_text(const cJSON *object, const char *key, char *into, size_t room, err_t *err) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    if (!text || strlen(text) >= room) {
        return err_setf(err, ERR_INVALID, "unexpected_answer", "The answer has no usable \"%s\".", key);
    }
    memcpy(into, text, strlen(text) + 1);
    return ERR_OK;
}

/* ---- the steps ---- */

static err_kind_t sign_in(heartbeat_t *h, err_t *err) {
    cJSON *answer = NULL;
    buf_t body;
    buf_init(&body, 4096);
    buf_puts(&body, "{\"email\":");
    json_put_string(&body, h->cfg->heartbeat_email);
    buf_puts(&body, ",\"password\":");
    json_put_string(&body, h->cfg->heartbeat_password);
    buf_puts(&body, "}");
    h->token[0] = '\0';
    err_kind_t k = body.failed ? err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL)
                               : call_json(h, "POST", "/api/auth/login", body.data, &answer, err);
    buf_free(&body);
    if (k == ERR_OK) {
        k = keep_text(answer, "accessToken", h->token, sizeof h->token, err);
    }
    cJSON_Delete(answer);
    return k;
}

static err_kind_t find_project(heartbeat_t *h, err_t *err) {
    cJSON *answer = NULL;
    err_kind_t k = call_json(h, "GET", "/api/projects?limit=1", NULL, &answer, err);
    if (k == ERR_OK) {
        const cJSON *first = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(answer, "items"), 0);
        if (first) {
            k = keep_text(first, "id", h->project, sizeof h->project, err);
        } else {
            cJSON_Delete(answer);
            answer = NULL;
            k = call_json(h, "POST", "/api/projects", "{\"title\":\"Heartbeat\"}", &answer, err);
            if (k == ERR_OK) {
                k = keep_text(answer, "id", h->project, sizeof h->project, err);
            }
        }
    }
    cJSON_Delete(answer);
    return k;
}

/* Another image each time, so that no result can come from an earlier one. */
static err_kind_t draw(uint8_t **png, size_t *n, err_t *err) {
    const sample_field_t field = {SIDE, SIDE, DRAWN, 17, 0.15, 1000, 8, (uint64_t)time(NULL)};
    uint16_t *wide = malloc((size_t)SIDE * SIDE * sizeof *wide);
    uint8_t *px = malloc((size_t)SIDE * SIDE);
    err_kind_t k = ERR_OK;
    if (!wide || !px || sample_draw_nuclei(&field, wide) != 0) {
        k = err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    } else {
        for (size_t i = 0; i < (size_t)SIDE * SIDE; i++) {
            px[i] = (uint8_t)(wide[i] / 16 > 255 ? 255 : wide[i] / 16);
        }
        k = image_encode_png(px, SIDE, SIDE, 1, png, n, err);
    }
    free(wide);
    free(px);
    return k;
}

static err_kind_t upload(heartbeat_t *h, err_t *err) {
    char path[160];
    uint8_t *png = NULL;
    size_t n = 0;
    cJSON *answer = NULL;
    err_kind_t k = draw(&png, &n, err);
    if (k == ERR_OK) {
        (void)snprintf(path, sizeof path, "/api/projects/%s/images?name=heartbeat.png", h->project);
        k = call(h, "POST", path, "application/octet-stream", png, n, &answer, err);
    }
    if (k == ERR_OK) {
        k = keep_text(answer, "id", h->image, sizeof h->image, err);
    }
    free(png);
    cJSON_Delete(answer);
    return k;
}

static err_kind_t submit(heartbeat_t *h, err_t *err) {
    char path[160];
    char body[128];
    cJSON *answer = NULL;
    (void)snprintf(path, sizeof path, "/api/images/%s/segmentation", h->image);
    (void)snprintf(body, sizeof body, "{\"model\":\"%.64s\",\"priority\":10}", h->cfg->heartbeat_model);
    err_kind_t k = call_json(h, "POST", path, body, &answer, err);
    if (k == ERR_OK) {
        k = keep_text(answer, "jobId", h->job, sizeof h->job, err);
    }
    cJSON_Delete(answer);
    return k;
}

static err_kind_t wait_for_job(heartbeat_t *h, err_t *err) {
    char path[160];
    char state[32] = "";
    const int64_t end = time_mono_ms() + h->cfg->heartbeat_interval_s * 1000;
    (void)snprintf(path, sizeof path, "/api/segmentation/job/%s", h->job);
    while (time_mono_ms() < end && !stop_asked) {
        cJSON *answer = NULL;
        err_kind_t k = call_json(h, "GET", path, NULL, &answer, err);
        if (k == ERR_OK) {
            k = keep_text(answer, "state", state, sizeof state, err);
        }
        cJSON_Delete(answer);
        if (k != ERR_OK) {
            return k;
        }
        if (strcmp(state, "completed") == 0) {
            return ERR_OK;
        }
        if (strcmp(state, "failed") == 0 || strcmp(state, "cancelled") == 0) {
            return err_setf(err, ERR_INTERNAL, "job_failed", "The job of the test image has %s.", state);
        }
        (void)nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
    }
    return err_setf(err, ERR_TIMEOUT, "job_slow", "The job of the test image is still %s.", state);
}

static err_kind_t look(heartbeat_t *h, err_t *err) {
    char path[160];
    cJSON *answer = NULL;
    (void)snprintf(path, sizeof path, "/api/images/%s/polygons?limit=1", h->image);
    err_kind_t k = call_json(h, "GET", path, NULL, &answer, err);
    if (k == ERR_OK) {
        const cJSON *total = cJSON_GetObjectItemCaseSensitive(answer, "total");
        if (!cJSON_IsNumber(total) || total->valuedouble < FEWEST || total->valuedouble > 2.0 * DRAWN) {
            k = err_setf(err, ERR_INTERNAL, "wrong_result", "The test image has %d nuclei, and %.0f were found.", DRAWN,
                         cJSON_IsNumber(total) ? total->valuedouble : -1.0);
        }
    }
    cJSON_Delete(answer);
    return k;
}

static err_kind_t delete_image(heartbeat_t *h, err_t *err) {
    char path[160];
    (void)snprintf(path, sizeof path, "/api/images/%s", h->image);
    err_kind_t k = call_json(h, "DELETE", path, NULL, NULL, err);
    h->image[0] = '\0';
    return k;
}

/* ---- the beat ---- */

static const struct {
    const char *name;
    err_kind_t (*run)(heartbeat_t *h, err_t *err);
} steps[] = {{"sign in", sign_in},    {"project", find_project}, {"upload", upload},
             {"submit", submit},      {"segment", wait_for_job}, {"look", look},
             {"delete", delete_image}};

static bool beat(heartbeat_t *h) {
    const int64_t start = time_mono_ms();
    h->image[0] = '\0';
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        err_t err;
        err_clear(&err);
        const int64_t began = time_mono_us();
        err_kind_t k = steps[i].run(h, &err);
        metrics_set(h->seconds, (const char *const[]){steps[i].name}, (double)(time_mono_us() - began) / 1e6);
        if (k != ERR_OK) {
            metrics_add(h->failures, (const char *const[]){steps[i].name}, 1);
            log_event(LOG_ERROR, "heartbeat failed", "step", steps[i].name, "code", err.code, "reason", err.message,
                      "detail", err.detail, NULL);
            if (h->image[0] && delete_image(h, &err) != ERR_OK) { /* what is left of it shall not pile up */
                log_error(LOG_WARN, "removing the test image", &err);
            }
            atomic_store(&h->ready, false);
            return false;
        }
    }
    char took[32];
    (void)snprintf(took, sizeof took, "%.3f", (double)(time_mono_ms() - start) / 1e3);
    log_event(LOG_INFO, "heartbeat", "seconds", took, NULL);
    metrics_set(h->success, NULL, (double)time(NULL));
    atomic_store(&h->ready, true);
    return true;
}

static int answer(void *arg, const char *path, buf_t *out, const char **type) {
    const heartbeat_t *h = arg;
    if (strcmp(path, "/metrics") == 0) {
        *type = "text/plain; version=0.0.4";
        metrics_render(out);
        return 200;
    }
    if (strcmp(path, "/live") == 0 || strcmp(path, "/ready") == 0) {
        bool ok = path[1] == 'l' || atomic_load(&h->ready);
        buf_puts(out, ok ? "ok\n" : "the last beat failed\n");
        return ok ? 200 : 503;
    }
    buf_puts(out, "/metrics /live /ready\n");
    return 404;
}

static err_kind_t make_account(const config_t *cfg, err_t *err) {
    gateway_t gw;
    session_user_t user;
    if (!cfg->heartbeat_password[0]) {
        return err_set(err, ERR_INVALID, "password_missing",
                       "Set HEARTBEAT_PASSWORD (or HEARTBEAT_PASSWORD_FILE): the account of the heartbeat needs one.",
                       NULL);
    }
    err_kind_t k = daemon_open(cfg, false, &gw, err);
    if (k != ERR_OK) {
        return k;
    }
    k = session_register(gw.pg, cfg->heartbeat_email, cfg->heartbeat_password, "Heartbeat", &user, err);
    daemon_close(&gw);
    return k == ERR_CONFLICT ? ERR_OK : k; /* it is there already */
}

static void sleep_until_next(int64_t began, int64_t interval_ms) {
    while (!stop_asked && time_mono_ms() - began < interval_ms) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 100000000L}, NULL);
    }
}

int heartbeat_run(const config_t *cfg, bool once) {
    heartbeat_t h = {.cfg = cfg};
    httpd_mini_t *httpd = NULL;
    err_t err;
    err_clear(&err);
    struct sigaction action = {.sa_handler = on_signal};
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    h.success = metrics_gauge("spheroseg_heartbeat_success_timestamp_seconds", "When the whole way last worked.", NULL);
    h.seconds = metrics_gauge("spheroseg_heartbeat_step_seconds", "Time of each step, the last time.", "step");
    h.failures = metrics_counter("spheroseg_heartbeat_failures_total", "Beats that failed, by step.", "step");
    h.certificate = metrics_gauge("spheroseg_heartbeat_certificate_left_seconds",
                                  "Time until the certificate of the public address expires.", NULL);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        metrics_add(h.failures, (const char *const[]){steps[i].name}, 0); /* the first failure is a step from 0 */
    }
    err_kind_t k = make_account(cfg, &err);
    if (k == ERR_OK && (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || !(h.curl = curl_easy_init()))) {
        k = err_set(&err, ERR_NO_MEMORY, "no_memory", "The HTTP client could not be started.", NULL);
    }
    if (k == ERR_OK && !once && cfg->metrics_port > 0) {
        k = httpd_mini_start(cfg->metrics_host, (int)cfg->metrics_port, answer, &h, &httpd, &err);
    }
    bool ok = k == ERR_OK;
    if (!ok) {
        log_error(LOG_ERROR, "starting the heartbeat", &err);
    }
    while (ok && !stop_asked) {
        const int64_t began = time_mono_ms();
        bool fine = beat(&h);
        if (once) {
            ok = fine;
            break;
        }
        sleep_until_next(began, cfg->heartbeat_interval_s * 1000);
    }
    httpd_mini_stop(httpd);
    if (h.curl) {
        curl_easy_cleanup(h.curl);
    }
    curl_global_cleanup();
    return ok ? 0 : 1;
}
