/*
 * JSON on top of cJSON: strict, bounded parsing; typed access with errors for the person who sent the text; and
 * writing into a buf_t. Pure functions, thread-safe on separate objects.
 */
#ifndef SG_JSON_UTIL_H
#define SG_JSON_UTIL_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"

enum { JSON_DEPTH_MAX = 64 };

/* Parses exactly one value (RFC 8259, nothing looser), nested at most max_depth (1..JSON_DEPTH_MAX) deep. Broken UTF-8
 * and \u0000 are refused, because neither a C string nor PostgreSQL can hold them; so is a key that an object has
 * twice. ERR_TOO_LARGE "json_too_large" above max_len bytes, ERR_INVALID "invalid_json" with the offset in the message.
 * *out is freed by the caller with cJSON_Delete. */
ERR_MUST err_kind_t json_parse(const char *text, size_t len, size_t max_len, int max_depth, cJSON **out, err_t *err);

typedef enum { JSON_OPTIONAL, JSON_REQUIRED } json_need_t;

/* Typed members of an object. An optional member that is absent or null leaves *out as it was, so set the default
 * before. ERR_INVALID "invalid_field" names the member and what it must be. */
/* Lengths count code points. *out points into obj. */
ERR_MUST err_kind_t json_get_string(const cJSON *obj, const char *key, json_need_t need, size_t min, size_t max,
                                    const char **out, err_t *err);
/* Whole numbers of at most 2^53 in size: JSON numbers are doubles. */
ERR_MUST err_kind_t json_get_int(const cJSON *obj, const char *key, json_need_t need, int64_t min, int64_t max,
                                 int64_t *out, err_t *err);
ERR_MUST err_kind_t json_get_real(const cJSON *obj, const char *key, json_need_t need, double min, double max,
                                  double *out, err_t *err);
ERR_MUST err_kind_t json_get_bool(const cJSON *obj, const char *key, json_need_t need, bool *out, err_t *err);
/* An array of min..max elements; *out points into obj. */
ERR_MUST err_kind_t json_get_array(const cJSON *obj, const char *key, json_need_t need, int min, int max,
                                   const cJSON **out, err_t *err);

/* ERR_INVALID "unknown_field" when obj is no object or has a member that is not in known[]. */
ERR_MUST err_kind_t json_check_members(const cJSON *obj, const char *const *known, int n, err_t *err);

/* Writing. Strings are escaped and quoted; broken UTF-8 becomes U+FFFD; NULL becomes null. */
void json_put_string(buf_t *b, const char *s);
void json_put_string_n(buf_t *b, const char *s, size_t n);
/* digits: significant, 1..17. NaN and infinities become null. */
void json_put_real(buf_t *b, double v, int digits);

#endif
