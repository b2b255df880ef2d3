/* YAML through libyaml's document: nodes in a table, so cycles of aliases cost nothing until somebody follows them. */
#include "segworker/yaml_tree.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <yaml.h>

enum { MAX_BYTES = 1 << 20 };

struct yaml_tree {
    yaml_document_t doc;
};

static const yaml_node_t *node_of(const yaml_value_t *v) {
    return (const yaml_node_t *)v;
}

static const yaml_value_t *node(const yaml_tree_t *t, int index) {
    /* libyaml asks for a document it may change, and changes nothing */
    return (const yaml_value_t *)yaml_document_get_node((yaml_document_t *)&t->doc, index);
}

err_kind_t yaml_tree_read(const char *path, yaml_tree_t **out, err_t *err) {
    yaml_parser_t parser;
    struct stat st;
    *out = NULL;
    FILE *f = fopen(path, "re");
    if (!f) {
        return err_set(err, ERR_NOT_FOUND, "model_missing", "The folder holds no rdf.yaml.", "%.300s: errno %d", path,
                       errno);
    }
    yaml_tree_t *t = calloc(1, sizeof *t);
    if (!t || !yaml_parser_initialize(&parser)) {
        free(t);
        (void)fclose(f);
        return err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to read the models.", NULL);
    }
    bool small = fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= MAX_BYTES;
    yaml_parser_set_input_file(&parser, f);
    bool good = small && yaml_parser_load(&parser, &t->doc);
    err_kind_t k = ERR_OK;
    if (!good) {
        k = err_setf(err, ERR_INVALID, "model_invalid", "The model's rdf.yaml is wrong: %.150s.",
                     !small           ? "it is no file or larger than 1 MiB"
                     : parser.problem ? parser.problem
                                      : "no YAML");
        free(t);
        t = NULL;
    }
    yaml_parser_delete(&parser);
    (void)fclose(f);
    *out = t;
    return k;
}

void yaml_tree_free(yaml_tree_t *t) {
    if (t) {
        yaml_document_delete(&t->doc);
        free(t);
    }
}

const yaml_value_t *yaml_root(const yaml_tree_t *t) {
    return (const yaml_value_t *)yaml_document_get_root_node((yaml_document_t *)&t->doc);
}

bool yaml_is_list(const yaml_value_t *v) {
    return v && node_of(v)->type == YAML_SEQUENCE_NODE;
}

bool yaml_is_map(const yaml_value_t *v) {
    return v && node_of(v)->type == YAML_MAPPING_NODE;
}

size_t yaml_count(const yaml_value_t *v) {
    const yaml_node_t *n = node_of(v);
    if (yaml_is_list(v)) {
        return (size_t)(n->data.sequence.items.top - n->data.sequence.items.start);
    }
    return yaml_is_map(v) ? (size_t)(n->data.mapping.pairs.top - n->data.mapping.pairs.start) : 0;
}

const yaml_value_t *yaml_at(const yaml_tree_t *t, const yaml_value_t *v, size_t i) {
    return yaml_is_list(v) && i < yaml_count(v) ? node(t, node_of(v)->data.sequence.items.start[i]) : NULL;
}

const char *yaml_text(const yaml_value_t *v) {
    /* libyaml ends scalars with a NUL; one inside the text makes it shorter, never longer */
    return v && node_of(v)->type == YAML_SCALAR_NODE ? (const char *)node_of(v)->data.scalar.value : NULL;
}

const char *yaml_key(const yaml_tree_t *t, const yaml_value_t *v, size_t i) {
    return yaml_is_map(v) && i < yaml_count(v) ? yaml_text(node(t, node_of(v)->data.mapping.pairs.start[i].key)) : NULL;
}

const yaml_value_t *yaml_get(const yaml_tree_t *t, const yaml_value_t *v, const char *key) {
    for (size_t i = 0, n = yaml_is_map(v) ? yaml_count(v) : 0; i < n; i++) {
        const char *k = yaml_key(t, v, i);
        if (k && strcmp(k, key) == 0) {
            return node(t, node_of(v)->data.mapping.pairs.start[i].value);
        }
    }
    return NULL;
}

bool yaml_number(const yaml_value_t *v, double *out) {
    const char *s = yaml_text(v);
    char *end = NULL;
    double d = s && s[0] ? strtod(s, &end) : 0;
    if (!s || end == s || !end || *end || !isfinite(d)) {
        return false;
    }
    *out = d;
    return true;
}
