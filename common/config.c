/*
 * Configuration from the environment. The X-macro table of config_table.h is expanded once into an array of
 * descriptions; everything here works on that array, so a new variable is one line in the table.
 *
 * An empty value counts as "not set", because compose files pass VARIABLE="" for what a person left out.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "log.h"

enum { SECRET_MAX = 64 * 1024, JWT_SECRET_MIN = 32 };

typedef enum { TYPE_STR, TYPE_SECRET, TYPE_INT, TYPE_REAL, TYPE_BOOL } var_type_t;

typedef struct {
    const char *name;
    const char *help;
    size_t offset; /* of the field in config_t */
    var_type_t type;
    int scope;
    const char *def_str;
    int64_t def_int, min_int, max_int;
    double def_real, min_real, max_real;
    bool def_bool;
} var_t;

static const var_t table[] = {
#define AT(f) .offset = offsetof(config_t, f)
#define CFG_STR(f, n, d, s, h) {.name = (n), .help = (h), AT(f), .type = TYPE_STR, .scope = (s), .def_str = (d)},
#define CFG_SECRET(f, n, d, s, h) {.name = (n), .help = (h), AT(f), .type = TYPE_SECRET, .scope = (s), .def_str = (d)},
#define CFG_INT(f, n, d, lo, hi, s, h)                                                                                 \
    {.name = (n), .help = (h), AT(f), .type = TYPE_INT, .scope = (s), .def_int = (d), .min_int = (lo), .max_int = (hi)},
#define CFG_REAL(f, n, d, lo, hi, s, h)                                                                                \
    {.name = (n),                                                                                                      \
     .help = (h),                                                                                                      \
     AT(f),                                                                                                            \
     .type = TYPE_REAL,                                                                                                \
     .scope = (s),                                                                                                     \
     .def_real = (d),                                                                                                  \
     .min_real = (lo),                                                                                                 \
     .max_real = (hi)},
#define CFG_BOOL(f, n, d, s, h) {.name = (n), .help = (h), AT(f), .type = TYPE_BOOL, .scope = (s), .def_bool = (d)},
#include "config_table.h"
#undef CFG_STR
#undef CFG_SECRET
#undef CFG_INT
#undef CFG_REAL
#undef CFG_BOOL
#undef AT
};

enum { TABLE_LEN = sizeof table / sizeof table[0] };

static void *field_of(config_t *cfg, const var_t *v) {
    return (char *)cfg + v->offset;
}

static bool is_text(const var_t *v) {
    return v->type == TYPE_STR || v->type == TYPE_SECRET;
}

/* Stores a copy of text. */
static err_kind_t set_text(config_t *cfg, const var_t *v, const char *text, err_t *err) {
    char *copy = strdup(text);
    if (!copy) {
        return err_setf(err, ERR_NO_MEMORY, "no_memory", "Out of memory while reading %s.", v->name);
    }
    const char **field = field_of(cfg, v);
    free((char *)*field);
    *field = copy;
    return ERR_OK;
}

static err_kind_t set_default(config_t *cfg, const var_t *v, err_t *err) {
    switch (v->type) {
    case TYPE_STR:
    case TYPE_SECRET:
        return set_text(cfg, v, v->def_str, err);
    case TYPE_INT:
        *(int64_t *)field_of(cfg, v) = v->def_int;
        break;
    case TYPE_REAL:
        *(double *)field_of(cfg, v) = v->def_real;
        break;
    case TYPE_BOOL:
        *(bool *)field_of(cfg, v) = v->def_bool;
        break;
    }
    return ERR_OK;
}

static err_kind_t parse_int(config_t *cfg, const var_t *v, const char *text, err_t *err) {
    char *end = NULL;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    bool number = end != text && *end == '\0' && text[0] != ' ' && text[0] != '\t' && text[0] != '\n';
    if (!number || errno == ERANGE || n < v->min_int || n > v->max_int) {
        return err_setf(err, ERR_INVALID, "config_invalid",
                        "%s is \"%.60s\", but must be a whole number from %lld to %lld.", v->name, text,
                        (long long)v->min_int, (long long)v->max_int);
    }
    *(int64_t *)field_of(cfg, v) = n;
    return ERR_OK;
}

static err_kind_t parse_real(config_t *cfg, const var_t *v, const char *text, err_t *err) {
    char *end = NULL;
    double x = strtod(text, &end);
    bool number = end != text && *end == '\0' && strspn(text, "0123456789.eE+-") == strlen(text);
    if (!number || !isfinite(x) || x < v->min_real || x > v->max_real) {
        return err_setf(err, ERR_INVALID, "config_invalid", "%s is \"%.60s\", but must be a number from %g to %g.",
                        v->name, text, v->min_real, v->max_real);
    }
    *(double *)field_of(cfg, v) = x;
    return ERR_OK;
}

static err_kind_t parse_bool(config_t *cfg, const var_t *v, const char *text, err_t *err) {
    static const struct {
        const char *word;
        bool value;
    } words[] = {{"true", true},   {"1", true},  {"yes", true}, {"on", true},
                 {"false", false}, {"0", false}, {"no", false}, {"off", false}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(text, words[i].word) == 0) {
            *(bool *)field_of(cfg, v) = words[i].value;
            return ERR_OK;
        }
    }
    return err_setf(err, ERR_INVALID, "config_invalid", "%s is \"%.60s\", but must be true or false.", v->name, text);
}

static err_kind_t parse_value(config_t *cfg, const var_t *v, const char *text, err_t *err) {
    switch (v->type) {
    case TYPE_INT:
        return parse_int(cfg, v, text, err);
    case TYPE_REAL:
        return parse_real(cfg, v, text, err);
    case TYPE_BOOL:
        return parse_bool(cfg, v, text, err);
    case TYPE_STR:
    case TYPE_SECRET:
        break;
    }
    return set_text(cfg, v, text, err);
}

/* Reads the file that NAME_FILE names. Neither its content nor a part of it appears in a message. */
static err_kind_t read_secret_file(config_t *cfg, const var_t *v, const char *path, err_t *err) {
    static const char code[] = "config_invalid";
    err_kind_t kind = ERR_OK;
    size_t len = 0;
    char *text = malloc(SECRET_MAX + 2);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (!text) {
        kind = err_setf(err, ERR_NO_MEMORY, "no_memory", "Out of memory while reading %s_FILE.", v->name);
        goto out;
    }
    if (fd < 0) {
        kind = err_setf(err, ERR_INVALID, code, "%s_FILE names %.120s, which cannot be read: %s.", v->name, path,
                        strerror(errno));
        goto out;
    }
    while (len <= SECRET_MAX) {
        ssize_t n = read(fd, text + len, SECRET_MAX + 1 - len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            kind = err_setf(err, ERR_INVALID, code, "%s_FILE names %.120s, which cannot be read: %s.", v->name, path,
                            strerror(errno));
            goto out;
        }
        if (n == 0) {
            break;
        }
        len += (size_t)n;
    }
    if (len > SECRET_MAX || memchr(text, '\0', len)) {
        kind = err_setf(err, ERR_INVALID, code, "%s_FILE names %.120s, which is no text of at most %d bytes.", v->name,
                        path, (int)SECRET_MAX);
        goto out;
    }
    if (len > 0 && text[len - 1] == '\n') {
        len--;
    }
    if (len > 0 && text[len - 1] == '\r') {
        len--;
    }
    text[len] = '\0';
    if (len == 0) {
        kind = err_setf(err, ERR_INVALID, code, "%s_FILE names %.120s, which is empty.", v->name, path);
        goto out;
    }
    kind = set_text(cfg, v, text, err);
out:
    if (text) {
        explicit_bzero(text, SECRET_MAX + 2);
    }
    free(text);
    if (fd >= 0) {
        close(fd);
    }
    return kind;
}

static const char *env_or_null(const char *name) {
    const char *text = getenv(name);
    return text && text[0] != '\0' ? text : NULL;
}

static err_kind_t read_var(config_t *cfg, const var_t *v, err_t *err) {
    const char *text = env_or_null(v->name);
    if (v->type == TYPE_SECRET) {
        char name[80];
        (void)snprintf(name, sizeof name, "%s_FILE", v->name);
        const char *path = env_or_null(name);
        if (path && text) {
            return err_setf(err, ERR_INVALID, "config_invalid", "%s and %s are both set. Keep one of them.", v->name,
                            name);
        }
        if (path) {
            return read_secret_file(cfg, v, path, err);
        }
    }
    return text ? parse_value(cfg, v, text, err) : ERR_OK;
}

/* What one variable's own bounds cannot say. */
static err_kind_t check_together(int scope, const config_t *cfg, err_t *err) {
    log_level_t level;
    if (!log_parse_level(cfg->log_level, &level)) {
        return err_setf(err, ERR_INVALID, "config_invalid",
                        "LOG_LEVEL is \"%.60s\", but must be error, warn, info or debug.", cfg->log_level);
    }
    if (!(scope & CONFIG_GATEWAY)) {
        return ERR_OK;
    }
    if (cfg->jwt_secret[0] != '\0' && strlen(cfg->jwt_secret) < JWT_SECRET_MIN) {
        return err_setf(err, ERR_INVALID, "config_invalid", "JWT_SECRET must have at least %d characters.",
                        (int)JWT_SECRET_MIN);
    }
    if ((cfg->tls_cert[0] == '\0') != (cfg->tls_key[0] == '\0')) {
        return err_set(err, ERR_INVALID, "config_invalid", "TLS_CERT and TLS_KEY belong together. Set both or none.",
                       NULL);
    }
    return ERR_OK;
}

err_kind_t config_load(int scope, config_t *cfg, err_t *err) {
    memset(cfg, 0, sizeof *cfg);
    err_kind_t kind = ERR_OK;
    for (size_t i = 0; i < TABLE_LEN && kind == ERR_OK; i++) {
        const var_t *v = &table[i];
        kind = set_default(cfg, v, err);
        if (kind == ERR_OK && (v->scope & scope)) {
            kind = read_var(cfg, v, err);
        }
    }
    if (kind == ERR_OK) {
        kind = check_together(scope, cfg, err);
    }
    if (kind != ERR_OK) {
        config_free(cfg);
    }
    return kind;
}

void config_free(config_t *cfg) {
    for (size_t i = 0; i < TABLE_LEN; i++) {
        if (is_text(&table[i])) {
            const char **field = field_of(cfg, &table[i]);
            if (*field && table[i].type == TYPE_SECRET) {
                explicit_bzero((char *)*field, strlen(*field));
            }
            free((char *)*field);
            *field = NULL;
        }
    }
}

static void print_var(const var_t *v, FILE *out) {
    fprintf(out, "  %s\n      %s\n      ", v->name, v->help);
    switch (v->type) {
    case TYPE_STR:
        fprintf(out, "text, default %s%s%s\n", v->def_str[0] ? "\"" : "", v->def_str[0] ? v->def_str : "empty",
                v->def_str[0] ? "\"" : "");
        break;
    case TYPE_SECRET:
        fprintf(out, "text, or the path of a file in %s_FILE, default %s\n", v->name,
                v->def_str[0] ? v->def_str : "empty");
        break;
    case TYPE_INT:
        fprintf(out, "whole number from %lld to %lld, default %lld\n", (long long)v->min_int, (long long)v->max_int,
                (long long)v->def_int);
        break;
    case TYPE_REAL:
        fprintf(out, "number from %g to %g, default %g\n", v->min_real, v->max_real, v->def_real);
        break;
    case TYPE_BOOL:
        fprintf(out, "true or false, default %s\n", v->def_bool ? "true" : "false");
        break;
    }
}

void config_print_help(int scope, FILE *out) {
    fputs("Environment variables (an empty value counts as not set):\n", out);
    for (size_t i = 0; i < TABLE_LEN; i++) {
        if (table[i].scope & scope) {
            print_var(&table[i], out);
        }
    }
}
