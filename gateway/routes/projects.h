/*
 * What other files need of projects.
 */
#ifndef SG_GATEWAY_PROJECTS_H
#define SG_GATEWAY_PROJECTS_H

#include "gateway/http.h"

/* Cancels the project's jobs, deletes its rows and then its files, and announces it. ERR_NOT_FOUND when it is not there
 * or not the user's. Thread-safe. */
ERR_MUST err_kind_t projects_remove(gateway_t *gw, const char *user_id, const char *project_id, err_t *err);

#endif
