// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * release-ram: the source's memory is given back when the destination has said that it owns the
 * guest, and not before. Between migtools that is DONE, which stands behind READY's digest, fsync
 * and the rename; with a QEMU SHUT 0. Whatever ends a run earlier leaves the image whole, and from
 * DONE on the destination's copy is the one that counts, so this may be cut short anywhere.
 *
 * Blocks that both ends reach (x-ignore-shared) are the destination's too, and stay.
 */
#include "source.h"

#include "log.h"

/* A base that is the image itself would be gone, and with it the next delta's. */
static int check_base(const struct source *src, struct error *err)
{
	for (unsigned i = 0; src->base && i < src->base->nblocks; i++)
		for (unsigned j = 0; j < src->img->nblocks; j++)
			if (image_same_file(&src->base->blocks[i], &src->img->blocks[j]))
				return err_set(err, ST_USAGE,
					       "release-ram: --base %s is the image itself, which "
					       "will be emptied",
					       src->base->path);
	return 0;
}

int source_release_open(struct source *src, struct error *err)
{
	const struct config *cfg = src->ss->cfg;
	/* with ssh: it is the far image's */
	bool force = cfg->force && src->ss->uri.scheme != SCHEME_SSH;

	if (!src->ss->caps.on[CAP_RELEASE_RAM])
		return image_hold(src->img, err);
	if (check_base(src, err))
		return -1;
	for (unsigned i = 0; i < src->img->nblocks; i++) {
		struct block *b = &src->img->blocks[i];

		if (!source_ignores(src, b) && image_release_open(src->img, b, force, err))
			return -1;
	}
	return 0;
}

static void release_block(struct source *src, struct block *b)
{
	struct stats *st = &src->ss->stats;
	struct error err;
	uint64_t bytes;

	if (image_release(src->img, b, 0, b->size, &bytes, &err))
		log_warn("release-ram: %s; the destination has it all the same", err.msg);
	stat_add(&st->released, bytes);
}

void source_release(struct source *src)
{
	struct session *ss = src->ss;

	if (!ss->caps.on[CAP_RELEASE_RAM])
		return;
	if (ss->owner != OWNER_DESTINATION || !src->rp.started) {
		log_warn("release-ram: nobody has said that the memory arrived, so %s keeps it",
			 src->img->path);
		return;
	}
	/* nothing moves meanwhile */
	ss->watched = false;
	for (unsigned i = 0; i < src->img->nblocks; i++)
		if (!source_ignores(src, &src->img->blocks[i]))
			release_block(src, &src->img->blocks[i]);
}
