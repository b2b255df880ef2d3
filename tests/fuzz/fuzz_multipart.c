/*
 * The form parser on arbitrary bytes. The first byte chooses how the body is cut; the parts must come out the same as
 * when it is fed whole, and nothing is given out that was not put in.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/multipart.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    uint64_t hash;
    size_t bytes;
} seen_t;

static void note(seen_t *s, const void *p, size_t n) {
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++) {
        s->hash = (s->hash ^ b[i]) * 1099511628211ULL;
    }
}

static err_kind_t on_begin(void *arg, const multipart_part_t *part, err_t *err) {
    (void)err;
    note(arg, "<", 1);
    note(arg, part->name, strlen(part->name));
    if (part->file_name) {
        if (strlen(part->file_name) != part->file_name_len) {
            abort();
        }
        note(arg, part->file_name, part->file_name_len);
    }
    return ERR_OK;
}

static err_kind_t on_data(void *arg, const char *bytes, size_t n, err_t *err) {
    (void)err;
    seen_t *s = arg;
    s->bytes += n;
    note(s, bytes, n);
    return ERR_OK;
}

static err_kind_t on_end(void *arg, err_t *err) {
    (void)err;
    note(arg, ">", 1);
    return ERR_OK;
}

static err_kind_t run(const char *body, size_t n, size_t piece, seen_t *seen) {
    static multipart_t m;
    const multipart_handler_t on = {on_begin, on_data, on_end, seen};
    *seen = (seen_t){.hash = 14695981039346656037ULL};
    err_kind_t kind = multipart_init(&m, "multipart/form-data; boundary=b", &on, NULL);
    for (size_t i = 0; i < n && kind == ERR_OK; i += piece) {
        kind = multipart_feed(&m, body + i, n - i < piece ? n - i : piece, NULL);
    }
    return kind == ERR_OK ? multipart_finish(&m, NULL) : kind;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) {
        return 0;
    }
    seen_t whole, cut;
    const char *body = (const char *)data + 1;
    const size_t n = size - 1, piece = (size_t)data[0] + 1;
    const err_kind_t a = run(body, n, n ? n : 1, &whole), b = run(body, n, piece, &cut);
    if (a != b || whole.bytes > n || (a == ERR_OK && (whole.hash != cut.hash || whole.bytes != cut.bytes))) {
        abort();
    }
    /* The same bytes as a Content-Type header. */
    char *type = malloc(n + 1);
    if (type) {
        multipart_t m;
        const multipart_handler_t on = {on_begin, on_data, on_end, &whole};
        memcpy(type, body, n);
        type[n] = '\0';
        (void)!multipart_init(&m, type, &on, NULL);
        free(type);
    }
    return 0;
}
