/*
 * A YAML document as a tree with typed access, for files of other people: size and depth are bounded, missing things
 * are NULL and may be asked further.
 */
#ifndef SG_SEGWORKER_YAML_TREE_H
#define SG_SEGWORKER_YAML_TREE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

typedef struct yaml_tree yaml_tree_t;
typedef struct yaml_value yaml_value_t; /* belongs to the tree */

/* ERR_INVALID "model_invalid": no YAML, or too large; ERR_NOT_FOUND "model_missing": no such file; ERR_NO_MEMORY. */
ERR_MUST err_kind_t yaml_tree_read(const char *path, yaml_tree_t **out, err_t *err);
void yaml_tree_free(yaml_tree_t *t); /* NULL is allowed */

const yaml_value_t *yaml_root(const yaml_tree_t *t);
/* Value of a mapping's key; element of a list. NULL when there is none, v may be NULL. */
const yaml_value_t *yaml_get(const yaml_tree_t *t, const yaml_value_t *v, const char *key);
const yaml_value_t *yaml_at(const yaml_tree_t *t, const yaml_value_t *v, size_t i);
/* Elements of a list or pairs of a mapping; 0 for all else. */
size_t yaml_count(const yaml_value_t *v);
bool yaml_is_list(const yaml_value_t *v);
bool yaml_is_map(const yaml_value_t *v);
/* Key of a mapping's pair, NULL when it is no text. */
const char *yaml_key(const yaml_tree_t *t, const yaml_value_t *v, size_t i);
/* Text of a scalar, NULL for all else. */
const char *yaml_text(const yaml_value_t *v);
/* False when it is no number. */
bool yaml_number(const yaml_value_t *v, double *out);

#endif
