/*
 * The parser of multipart.h: a state machine over bytes. The delimiter is CR LF "--" boundary. As no boundary holds a
 * CR, a failed partial match can only start again at a CR, so the bytes held back are always a prefix of the delimiter
 * and need no buffer of their own.
 */
#include "multipart.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

enum { AT_DELIMITER, AFTER_DELIMITER, AFTER_CR, AFTER_DASH, IN_HEADERS, IN_DATA, AT_END };

static err_kind_t invalid(err_t *err, const char *what) {
    return err_set(err, ERR_INVALID, "multipart_invalid", "The uploaded form is damaged. Please try again.", "%s",
                   what);
}

/* RFC 2046: the characters that a boundary may have. */
static bool is_boundary_char(char c) {
    return isalnum((unsigned char)c) || (c != '\0' && strchr("'()+_,-./:=? ", c) != NULL);
}

err_kind_t multipart_init(multipart_t *m, const char *content_type, const multipart_handler_t *on, err_t *err) {
    static const char type[] = "multipart/form-data";
    memset(m, 0, sizeof *m);
    m->on = *on;
    if (!content_type || strncasecmp(content_type, type, sizeof type - 1) != 0) {
        return err_set(err, ERR_UNSUPPORTED, "media_type_unsupported", "The upload must be a form or the bytes of a file.", NULL);
    }
    const char *p = content_type + sizeof type - 1;
    while ((p = strchr(p, ';')) != NULL) {
        p++;
        p += strspn(p, " \t");
        if (strncasecmp(p, "boundary=", 9) == 0) {
            break;
        }
    }
    if (!p) {
        return invalid(err, "no boundary");
    }
    p += 9;
    size_t n = 0;
    if (*p == '"') {
        p++;
        n = strcspn(p, "\"");
        if (p[n] != '"') {
            return invalid(err, "boundary is not closed");
        }
    } else {
        n = strcspn(p, "; \t");
    }
    if (n == 0 || n > MULTIPART_MAX_BOUNDARY || p[n - 1] == ' ') {
        return invalid(err, "boundary has a wrong length");
    }
    for (size_t i = 0; i < n; i++) {
        if (!is_boundary_char(p[i])) {
            return invalid(err, "boundary has a wrong character");
        }
    }
    memcpy(m->delimiter, "\r\n--", 4);
    memcpy(m->delimiter + 4, p, n);
    m->delimiter_len = n + 4;
    m->matched = 2; /* the first delimiter may lack its CR LF */
    m->state = AT_DELIMITER;
    return ERR_OK;
}

/* Finds `key="value"` among the parameters of a Content-Disposition line and unquotes it in place: \" and \\ lose
 * their backslash (other backslashes stay: they are those of Windows paths), and %22, as which the HTML standard has
 * browsers send a quotation mark, becomes one. */
static char *parameter(char *line, const char *key, size_t *len) {
    size_t k = strlen(key);
    char *p = line;
    while ((p = strchr(p, ';')) != NULL) {
        p++;
        p += strspn(p, " \t");
        bool wanted = strncasecmp(p, key, k) == 0 && p[k] == '=' && p[k + 1] == '"';
        p += strcspn(p, "=;");
        if (*p != '=') {
            continue;
        }
        p++;
        if (*p != '"') {
            continue;
        }
        p++;
        char *start = p, *w = p;
        while (*p && *p != '"') {
            const bool escaped = *p == '\\' && (p[1] == '"' || p[1] == '\\'), mark = strncmp(p, "%22", 3) == 0;
            const char c = mark ? '"' : (escaped ? p[1] : *p);
            p += mark ? 3 : (escaped ? 2 : 1);
            if (wanted) {
                *w++ = c;
            }
        }
        if (*p != '"') {
            return NULL;
        }
        p++;
        if (wanted) {
            *len = (size_t)(w - start);
            *w = '\0';
            return start;
        }
    }
    return NULL;
}

/* The header block of a part is complete in m->headers, without the empty line. */
static err_kind_t begin_part(multipart_t *m, err_t *err) {
    static const char key[] = "content-disposition:";
    if (++m->parts > MULTIPART_MAX_PARTS) {
        return invalid(err, "too many parts");
    }
    if (memchr(m->headers, '\0', m->headers_len) != NULL) {
        return invalid(err, "NUL in the headers of a part");
    }
    m->headers[m->headers_len] = '\0';
    char *disposition = NULL;
    for (char *line = m->headers; line && *line;) {
        char *next = strstr(line, "\r\n");
        if (next) {
            *next = '\0';
            next += 2;
        }
        if (strncasecmp(line, key, sizeof key - 1) == 0) {
            disposition = line + sizeof key - 1;
        }
        line = next;
    }
    if (!disposition) {
        return invalid(err, "part without Content-Disposition");
    }
    disposition += strspn(disposition, " \t");
    if (strncasecmp(disposition, "form-data", 9) != 0) {
        return invalid(err, "part is no form-data");
    }
    /* Unquoting only shortens text inside its quotes, but it leaves a NUL behind: each parameter gets its own copy. */
    char copy[MULTIPART_MAX_HEADERS + 1];
    memcpy(copy, disposition, strlen(disposition) + 1);
    size_t name_len = 0;
    multipart_part_t part = {0};
    part.name = parameter(copy, "name", &name_len);
    part.file_name = parameter(disposition, "filename", &part.file_name_len);
    if (!part.name) {
        return invalid(err, "part without a name");
    }
    return m->on.begin(m->on.arg, &part, err);
}

static err_kind_t header_byte(multipart_t *m, char c, err_t *err) {
    if (m->headers_len == MULTIPART_MAX_HEADERS) {
        return invalid(err, "headers of a part are too long");
    }
    m->headers[m->headers_len++] = c;
    bool empty = m->headers_len == 2 && memcmp(m->headers, "\r\n", 2) == 0;
    bool ended = m->headers_len >= 4 && memcmp(m->headers + m->headers_len - 4, "\r\n\r\n", 4) == 0;
    if (!empty && !ended) {
        return ERR_OK;
    }
    m->headers_len -= empty ? 2 : 4;
    m->state = IN_DATA;
    m->matched = 0;
    return begin_part(m, err);
}

/* Content of a part: emits the longest runs that cannot belong to a delimiter. Returns how many bytes it used. */
static err_kind_t data_bytes(multipart_t *m, const char *b, size_t n, size_t *used, err_t *err) {
    size_t i = 0;
    if (m->matched == 0) {
        const char *cr = memchr(b, '\r', n);
        size_t run = cr ? (size_t)(cr - b) : n;
        if (run > 0) {
            *used = run;
            return m->on.data(m->on.arg, b, run, err);
        }
    }
    while (i < n && m->matched < m->delimiter_len && b[i] == m->delimiter[m->matched]) {
        i++;
        m->matched++;
    }
    *used = i;
    if (m->matched == m->delimiter_len) {
        m->state = AFTER_DELIMITER;
        m->matched = 0;
        return m->on.end(m->on.arg, err);
    }
    if (i == n) {
        return ERR_OK;
    }
    size_t held = m->matched;
    m->matched = 0;
    return held > 0 ? m->on.data(m->on.arg, m->delimiter, held, err) : ERR_OK;
}

/* One byte of what stands between parts. */
static err_kind_t structure_byte(multipart_t *m, char c, err_t *err) {
    switch (m->state) {
    case AT_DELIMITER:
        if (m->matched == 2 && c == '\r') {
            m->matched = 1;
            return ERR_OK;
        }
        if (c != m->delimiter[m->matched]) {
            return invalid(err, "body does not begin with the boundary");
        }
        if (++m->matched == m->delimiter_len) {
            m->state = AFTER_DELIMITER;
            m->matched = 0;
        }
        return ERR_OK;
    case AFTER_DELIMITER:
        if (c == '\r' || c == '-') {
            m->state = c == '\r' ? AFTER_CR : AFTER_DASH;
            return ERR_OK;
        }
        return c == ' ' || c == '\t' ? ERR_OK : invalid(err, "text after a boundary");
    case AFTER_CR:
        if (c != '\n') {
            return invalid(err, "bare CR after a boundary");
        }
        m->state = IN_HEADERS;
        m->headers_len = 0;
        return ERR_OK;
    default: /* AFTER_DASH */
        if (c != '-') {
            return invalid(err, "text after a boundary");
        }
        m->state = AT_END;
        return ERR_OK;
    }
}

err_kind_t multipart_feed(multipart_t *m, const char *bytes, size_t n, err_t *err) {
    for (size_t i = 0; i < n && m->state != AT_END;) {
        size_t used = 1;
        err_kind_t k = m->state == IN_DATA      ? data_bytes(m, bytes + i, n - i, &used, err)
                       : m->state == IN_HEADERS ? header_byte(m, bytes[i], err)
                                                : structure_byte(m, bytes[i], err);
        if (k != ERR_OK) {
            return k;
        }
        i += used;
    }
    return ERR_OK;
}

err_kind_t multipart_finish(const multipart_t *m, err_t *err) {
    return m->state == AT_END ? ERR_OK : invalid(err, "body ends before the closing boundary");
}
