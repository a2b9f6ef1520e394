// SPDX-License-Identifier: GPL-2.0-or-later
/* A destination's device state: in a directory a member, of a raw file a file of its own. */
#include "image-internal.h"

#include "broker.h"
#include "image-part.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int state_plan(struct target *t, const char *path, bool resume, struct error *err)
{
	struct existing ex;
	bool complete;
	int r;

	if (part_examine(path, &ex, err) < 0)
		return -1;
	if (ex.kind == EXISTS_DIRECTORY || ex.kind == EXISTS_DEVICE)
		r = err_set(err, ST_UNSUPPORTED, "%s is no file for a device state", ex.path);
	else
		r = part_allowed(&ex, t->force || resume, false, err);
	t->state_final = ex.path;
	t->state_existed = ex.kind != EXISTS_NOT;
	if (!r) {
		t->state_part = image_format(err, "%s.part", ex.path);
		r = !t->state_part ? -1
		    : resume	   ? part_probe(t->state_part, &complete, err)
				   : part_free(t->state_part, err);
		r = r < 0 ? -1 : 0;
	}
	return r;
}

/* A raw image's, which is complete: under the one name or the other. */
static int reopen_state(struct image_priv *p, struct error *err)
{
	struct target *t = p->target;
	bool complete;
	int r = part_probe(t->state_part, &complete, err);

	if (r < 0)
		return -1;
	if (r > 0 && part_reopen(t->state_part, false, &t->state_lock, &complete, err) < 0)
		return -1;
	r = image_file_open(&p->state, r ? t->state_part : t->state_final, O_RDONLY, 0, err);
	if (!r && t->state_lock < 0) {
		free(t->state_part); /* it has its name already */
		t->state_part = NULL;
	}
	return r;
}

static int open_state(struct image *img, struct error *err)
{
	struct image_priv *p = image_priv(img);
	struct target *t = p->target;
	char *path;
	int r;

	if (!img->directory && !t->state_part) {
		err_set(err, ST_UNSUPPORTED, "a device state came, but %s is a file for one block",
			img->path);
		return err_hint(err, "say where it goes: --device-state FILE");
	}
	p->state_digest = digest_stream_new();
	if (!p->state_digest)
		return err_set(err, ST_NOMEM, "out of memory");
	if (!img->directory && t->frozen)
		return reopen_state(p, err);
	if (!img->directory) {
		if (part_claim(t->state_part, false, &t->state_lock, err) < 0)
			return -1;
		return image_file_open(&p->state, t->state_part, t->frozen ? O_RDONLY : O_RDWR, 0,
				       err);
	}
	path = image_format(err, "%s/device-state", t->part);
	if (!path)
		return -1;
	r = image_file_open(&p->state, path, t->frozen ? O_RDONLY : O_RDWR | O_CREAT | O_EXCL, 0600,
			    err);
	free(path);
	return r;
}

/* What is complete has it already, and nothing else may come. */
static int compare_state(struct image_priv *p, const void *buf, size_t len, struct error *err)
{
	uint8_t *had = malloc(len ? len : 1);
	int r = had ? 0 : err_set(err, ST_NOMEM, "out of memory");

	if (!r && (len > p->state.size - p->state_size ||
		   image_file_read(&p->state, p->state.path, p->state_size, had, len, err) < 0 ||
		   memcmp(had, buf, len) != 0))
		r = err_set(err, ST_FILE, "%s is complete, and not the device state that comes",
			    p->state.path);
	free(had);
	return r;
}

int image_put_device_state(struct image *img, const void *buf, size_t len, struct error *err)
{
	struct image_priv *p = image_priv(img);

	if (p->state.fd < 0 && open_state(img, err) < 0)
		return -1;
	if (p->target->frozen && compare_state(p, buf, len, err) < 0)
		return -1;
	if (!p->target->frozen && image_file_write(&p->state, p->state_size, buf, len) < 0)
		return err_sys(err, ST_FILE, errno, "cannot write %s", p->state.path);
	digest_stream_update(p->state_digest, buf, len);
	p->state_size += len;
	return 0;
}

/* ---- before the memory ---- */

int image_take_device_state(struct image *img, const char *path, bool force, struct error *err)
{
	struct target *t;

	if (image_priv(img)->target)
		return 0;
	t = calloc(1, sizeof(*t));
	if (!t)
		return err_set(err, ST_NOMEM, "out of memory");
	t->lock = t->parent = t->state_lock = -1;
	t->force = force;
	if (state_plan(t, path, false, err) < 0) {
		free(t->state_final);
		free(t->state_part);
		free(t);
		return -1;
	}
	image_priv(img)->target = t;
	return 0;
}

int image_reset_device_state(struct image *img, struct error *err)
{
	struct image_priv *p = image_priv(img);

	if (p->state.fd < 0)
		return 0;
	if (ftruncate(p->state.fd, 0))
		return err_sys(err, ST_FILE, errno, "cannot empty %s", p->state.path);
	digest_stream_free(p->state_digest);
	p->state_size = 0;
	p->state_digest = digest_stream_new();
	return p->state_digest ? 0 : err_set(err, ST_NOMEM, "out of memory");
}

bool image_device_state_placed(const struct image *img)
{
	const struct target *t = image_priv(img)->target;

	return t && t->state_placed;
}

void image_withdraw_device_state(struct image *img)
{
	const struct target *t = img ? image_priv(img)->target : NULL;

	if (t && t->state_placed && broker_unlink(t->state_final) < 0)
		log_warn("cannot remove %s: %s", t->state_final, strerror(errno));
}
