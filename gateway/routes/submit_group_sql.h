/*
 * The statement of a group of submitted jobs. Internal to submit_group.c.
 */
#ifndef SG_GATEWAY_SUBMIT_GROUP_SQL_H
#define SG_GATEWAY_SUBMIT_GROUP_SQL_H

#include "submit_group.h"

/* Writes the jobs of n items (distinct keys, at most QUEUE_GROUP_MAX) in one transaction; outcome and job of each are
 * set. lane: where the push that follows is noted (< 0: nowhere). On an error nothing is set. */
ERR_MUST err_kind_t submit_group_write(gateway_t *gw, submit_item_t **items, int n, const char *gateway_id, int lane,
                                       err_t *err);

#endif
