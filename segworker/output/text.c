/* Escaping and numbers for JSON and XML. */
#include "segworker/output/text.h"

#include <math.h>
#include <string.h>

#include "common/utf8.h"

enum { FLUSH_AT = 1 << 18 };

void text_flush(text_sink_t *s, bool all) {
    if (s->file == NULL || s->buf->failed || (!all && s->buf->len < FLUSH_AT)) {
        return;
    }
    if (s->buf->len > 0 && fwrite(s->buf->data, 1, s->buf->len, s->file) != s->buf->len) {
        s->write_failed = true;
    }
    buf_reset(s->buf);
}

void text_json_string(const char *s, buf_t *out) {
    size_t n = s != NULL ? strlen(s) : 0;
    buf_puts(out, "\"");
    for (size_t i = 0; i < n;) {
        size_t len = utf8_decode(s + i, n - i, NULL);
        unsigned char c = (unsigned char)s[i];
        if (len == 0) {
            buf_puts(out, "\xEF\xBF\xBD");
            i++;
            continue;
        }
        if (c == '"' || c == '\\') {
            buf_put_u8(out, '\\');
            buf_put_u8(out, c);
        } else if (c < 0x20) {
            buf_printf(out, "\\u%04x", c);
        } else {
            buf_append(out, s + i, len);
        }
        i += len;
    }
    buf_puts(out, "\"");
}

void text_xml(const char *s, buf_t *out) {
    size_t n = s != NULL ? strlen(s) : 0;
    for (size_t i = 0; i < n;) {
        size_t len = utf8_decode(s + i, n - i, NULL);
        switch (s[i]) {
        case '&':
            buf_puts(out, "&amp;");
            break;
        case '<':
            buf_puts(out, "&lt;");
            break;
        case '>':
            buf_puts(out, "&gt;");
            break;
        case '"':
            buf_puts(out, "&quot;");
            break;
        default:
            if (len == 0) {
                buf_puts(out, "\xEF\xBF\xBD");
            } else if ((unsigned char)s[i] >= 0x20) {
                buf_append(out, s + i, len);
            }
        }
        i += len > 0 ? len : 1;
    }
}

void text_number(double v, int decimals, buf_t *out) {
    char text[400];
    int len = snprintf(text, sizeof text, "%.*f", decimals, isfinite(v) ? v : 0.0);
    if (decimals > 0) {
        while (len > 1 && text[len - 1] == '0') {
            len--;
        }
        len -= text[len - 1] == '.' ? 1 : 0;
    }
    text[len] = '\0';
    buf_puts(out, strcmp(text, "-0") == 0 ? "0" : text);
}
