/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An old copy at the destination, of which only the changes have to travel. */
#ifndef MIGTOOL_DELTA_H
#define MIGTOOL_DELTA_H

#include "image.h"

/*
 * Fills a new destination with what the image at `path` has, blocks by name (those of another size
 * are left out), so that deltas find what they build on. The digest is then that of the old copy.
 */
int delta_adopt(struct image *img, const char *path, struct error *err);

#endif
