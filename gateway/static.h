/*
 * The browser UI: files of UI_DIR. Names with a hash in them (assets/) are cached for a year, the page itself never.
 * A path that names no file is answered with the page, so that deep links work. Thread-safe; the directory may be
 * filled after the start.
 */
#ifndef SG_GATEWAY_STATIC_H
#define SG_GATEWAY_STATIC_H

#include "http.h"

ERR_MUST err_kind_t static_serve(http_request_t *req, err_t *err);

/* Is this path (starting with "/") safe to append to the directory? No empty, hidden, "." or ".." segments, no
 * backslashes or control characters. */
bool static_path_is_safe(const char *path);

#endif
