/*
 * JSON parsing: whatever json_parse accepts, cJSON must agree with, and writing it out must give the same text again
 * (a second round changes nothing).
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    buf_t out;
    buf_init(&out, 8 * size + 16);
    json_put_string_n(&out, (const char *)data, size); /* any bytes at all become a valid JSON string, but for zeros */
    cJSON *text = NULL;
    if (!memchr(data, 0, size) && (out.failed || json_parse(out.data, out.len, out.len, 1, &text, NULL) != ERR_OK)) {
        abort();
    }
    cJSON_Delete(text);
    buf_free(&out);

    cJSON *root = NULL;
    err_t err;
    if (json_parse((const char *)data, size, 1 << 16, 24, &root, &err) != ERR_OK) {
        if (root || err.code[0] == '\0') {
            abort();
        }
        return 0;
    }
    char *once = cJSON_PrintUnformatted(root);
    cJSON *again = NULL;
    if (once && json_parse(once, strlen(once), 1 << 20, 24, &again, &err) != ERR_OK) {
        abort();
    }
    int64_t i = 0;
    const char *s = "";
    if (json_get_int(root, "a", JSON_REQUIRED, -5, 5, &i, &err) == ERR_OK && (i < -5 || i > 5)) {
        abort();
    }
    if (json_get_string(root, "b", JSON_REQUIRED, 1, 3, &s, &err) == ERR_OK && (s[0] == '\0' || strlen(s) > 12)) {
        abort();
    }
    cJSON_Delete(again);
    free(once);
    cJSON_Delete(root);
    return 0;
}
