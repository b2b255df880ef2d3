/* JSON helpers (see json_util.h). */
#include "json_util.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_scan.h"
#include "utf8.h"

enum { TWICE_CHECK_MAX = 256 };

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Does the object have a key twice? The keys are sorted, so that a large object costs n log n, not n squared. */
static bool has_twin(const cJSON *obj, bool *no_memory) {
    size_t n = 0;
    for (const cJSON *m = obj->child; m; m = m->next) {
        n++;
    }
    if (n < 2) {
        return false;
    }
    const char *few[TWICE_CHECK_MAX];
    const char **names = n <= TWICE_CHECK_MAX ? few : malloc(n * sizeof *names);
    if (!names) {
        *no_memory = true;
        return false;
    }
    size_t i = 0;
    for (const cJSON *m = obj->child; m; m = m->next) {
        names[i++] = m->string;
    }
    qsort(names, n, sizeof *names, by_name);
    bool twin = false;
    for (i = 1; i < n && !twin; i++) {
        twin = strcmp(names[i - 1], names[i]) == 0;
    }
    if (names != few) {
        free(names);
    }
    return twin;
}

/* Walks the whole tree without recursion; the depth is bounded by json_scan. */
static bool any_twin(const cJSON *root, bool *no_memory) {
    const cJSON *stack[JSON_DEPTH_MAX + 1];
    int depth = 0;
    const cJSON *at = root;
    for (;;) {
        if (cJSON_IsObject(at) && has_twin(at, no_memory)) {
            return true;
        }
        if (at->child && depth < JSON_DEPTH_MAX) {
            stack[depth++] = at;
            at = at->child;
            continue;
        }
        while (!at->next || at == root) {
            if (depth == 0) {
                return false;
            }
            at = stack[--depth];
        }
        at = at->next;
    }
}

err_kind_t json_parse(const char *text, size_t len, size_t max_len, int max_depth, cJSON **out, err_t *err) {
    *out = NULL;
    if (len > max_len) {
        return err_setf(err, ERR_TOO_LARGE, "json_too_large", "The JSON text has %zu bytes; at most %zu are allowed.",
                        len, max_len);
    }
    size_t at;
    const char *why;
    if (!json_scan(text, len, max_depth, &at, &why)) {
        return err_setf(err, ERR_INVALID, "invalid_json", "The JSON text is wrong at byte %zu: %s.", at, why);
    }
    cJSON *root = cJSON_ParseWithLengthOpts(text, len, NULL, 0);
    if (!root) { /* the text is right, so it is memory that is missing */
        return err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL);
    }
    bool no_memory = false;
    if (any_twin(root, &no_memory) || no_memory) {
        cJSON_Delete(root);
        return no_memory
                   ? err_set(err, ERR_NO_MEMORY, "no_memory", "Out of memory.", NULL)
                   : err_set(err, ERR_INVALID, "invalid_json", "An object of the JSON text has a key twice.", NULL);
    }
    *out = root;
    return ERR_OK;
}

/* ---- typed access ---- */

/* The member, or NULL when it is absent or null. *kind tells whether that is an error. */
static const cJSON *member(const cJSON *obj, const char *key, json_need_t need, err_kind_t *kind, err_t *err) {
    const cJSON *m = cJSON_IsObject(obj) ? cJSON_GetObjectItemCaseSensitive(obj, key) : NULL;
    *kind = ERR_OK;
    if (m && !cJSON_IsNull(m)) {
        return m;
    }
    if (need == JSON_REQUIRED) {
        *kind = err_setf(err, ERR_INVALID, "invalid_field", "The field \"%s\" is missing.", key);
    }
    return NULL;
}

static size_t count_points(const char *s) {
    size_t n = 0;
    for (; *s; s++) {
        n += ((unsigned char)*s & 0xC0U) != 0x80U;
    }
    return n;
}

err_kind_t json_get_string(const cJSON *obj, const char *key, json_need_t need, size_t min, size_t max,
                           const char **out, err_t *err) {
    err_kind_t kind;
    const cJSON *m = member(obj, key, need, &kind, err);
    if (!m) {
        return kind;
    }
    size_t n = cJSON_IsString(m) ? count_points(m->valuestring) : 0;
    if (!cJSON_IsString(m) || n < min || n > max) {
        return err_setf(err, ERR_INVALID, "invalid_field", "The field \"%s\" must be a text of %zu to %zu characters.",
                        key, min, max);
    }
    *out = m->valuestring;
    return ERR_OK;
}

err_kind_t json_get_int(const cJSON *obj, const char *key, json_need_t need, int64_t min, int64_t max, int64_t *out,
                        err_t *err) {
    err_kind_t kind;
    const cJSON *m = member(obj, key, need, &kind, err);
    if (!m) {
        return kind;
    }
    const double exact = 9007199254740992.0; /* 2^53 */
    double v = cJSON_IsNumber(m) ? m->valuedouble : NAN;
    bool whole = fabs(v) <= exact && v == trunc(v); /* false for NaN */
    if (!whole || (int64_t)v < min || (int64_t)v > max) {
        return err_setf(err, ERR_INVALID, "invalid_field", "The field \"%s\" must be a whole number from %lld to %lld.",
                        key, (long long)min, (long long)max);
    }
    *out = (int64_t)v;
    return ERR_OK;
}

err_kind_t json_get_real(const cJSON *obj, const char *key, json_need_t need, double min, double max, double *out,
                         err_t *err) {
    err_kind_t kind;
    const cJSON *m = member(obj, key, need, &kind, err);
    if (!m) {
        return kind;
    }
    double v = cJSON_IsNumber(m) ? m->valuedouble : NAN;
    if (!(v >= min && v <= max)) {
        return err_setf(err, ERR_INVALID, "invalid_field", "The field \"%s\" must be a number from %g to %g.", key, min,
                        max);
    }
    *out = v;
    return ERR_OK;
}

err_kind_t json_get_bool(const cJSON *obj, const char *key, json_need_t need, bool *out, err_t *err) {
    err_kind_t kind;
    const cJSON *m = member(obj, key, need, &kind, err);
    if (!m) {
        return kind;
    }
    if (!cJSON_IsBool(m)) {
        return err_setf(err, ERR_INVALID, "invalid_field", "The field \"%s\" must be true or false.", key);
    }
    *out = cJSON_IsTrue(m) != 0;
    return ERR_OK;
}

err_kind_t json_get_array(const cJSON *obj, const char *key, json_need_t need, int min, int max, const cJSON **out,
                          err_t *err) {
    err_kind_t kind;
    const cJSON *m = member(obj, key, need, &kind, err);
    if (!m) {
        return kind;
    }
    int n = cJSON_IsArray(m) ? cJSON_GetArraySize(m) : -1;
    if (n < 0 || n < min || n > max) {
        return err_setf(err, ERR_INVALID, "invalid_field", "The field \"%s\" must be a list of %d to %d elements.", key,
                        min, max);
    }
    *out = m;
    return ERR_OK;
}

err_kind_t json_check_members(const cJSON *obj, const char *const *known, int n, err_t *err) {
    if (!cJSON_IsObject(obj)) {
        return err_set(err, ERR_INVALID, "invalid_json", "A JSON object was expected.", NULL);
    }
    for (const cJSON *m = obj->child; m; m = m->next) {
        int i = 0;
        while (i < n && strcmp(m->string, known[i]) != 0) {
            i++;
        }
        if (i == n) {
            return err_setf(err, ERR_INVALID, "unknown_field", "The field \"%.60s\" is not known.", m->string);
        }
    }
    return ERR_OK;
}

/* ---- writing ---- */

void json_put_string_n(buf_t *b, const char *s, size_t n) {
    buf_append(b, "\"", 1);
    size_t plain = 0; /* start of what needs no escape and was not written yet */
    size_t i = 0;
    while (i < n) {
        uint32_t cp = 0;
        size_t len = utf8_decode(s + i, n - i, &cp);
        if (len > 0 && cp >= 0x20 && cp != '"' && cp != '\\' && cp != 0x7F) {
            i += len;
            continue;
        }
        buf_append(b, s + plain, i - plain);
        if (len == 0) {
            buf_append(b, "\xEF\xBF\xBD", 3);
            len = 1;
        } else if (cp == '"' || cp == '\\') {
            buf_append(b, "\\", 1);
            buf_append(b, s + i, 1);
        } else {
            buf_printf(b, "\\u%04x", (unsigned)cp);
        }
        i += len;
        plain = i;
    }
    buf_append(b, s + plain, n - plain);
    buf_append(b, "\"", 1);
}

void json_put_string(buf_t *b, const char *s) {
    if (s) {
        json_put_string_n(b, s, strlen(s));
    } else {
        buf_puts(b, "null");
    }
}

void json_put_real(buf_t *b, double v, int digits) {
    if (!isfinite(v)) {
        buf_puts(b, "null");
        return;
    }
    buf_printf(b, "%.*g", digits < 1 ? 1 : digits > 17 ? 17 : digits, v);
}
