/*
 * The options of `segworker run` that choose what of a file is segmented: page, channel or mix of channels, slice,
 * time. On the command line everything counts from 1.
 */
#ifndef SG_SEGWORKER_CLI_PLANE_H
#define SG_SEGWORKER_CLI_PLANE_H

#include "common/image/region.h"

/* Sets one option; NULL when it is fine, else what is wrong. name: "page", "channel", "z", "time" or "mix" (weights of
 * the channels, separated by commas). */
const char *cli_plane_set(image_select_t *sel, const char *name, const char *value);

#endif
