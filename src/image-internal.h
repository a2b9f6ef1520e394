/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What image*.c share. */
#ifndef MIGTOOL_IMAGE_INTERNAL_H
#define MIGTOOL_IMAGE_INTERNAL_H

#include "bitmap.h"
#include "image-file.h"
#include "image.h"

#include <pthread.h>
#include <stdatomic.h>

/* The grain of the digest and of holes, whatever the target's page is. */
#define UNIT DIGEST_PAGE

struct block_priv {
	struct image_file file;
	struct image_file writer; /* a source's that is released; path NULL: it is not */
	/* the rest: destination only; image-place.c */
	bool shared;	       /* both ends reach it: read, never placed into */
	bool frozen;	       /* complete already: read, never placed into */
	struct bitmap present; /* units that are not zero, and are in sum; shared by threads */
	struct bitmap stale;   /* units of a device with old content; shared by threads */
	struct bitmap huge;    /* huge pages that exist; FILE_HUGE only; shared by threads */
	uint8_t *map;	       /* FILE_HUGE: all of the file; else NULL */
	pthread_mutex_t lock;
	struct digest sum; /* of this block; under lock, as the next */
	bool came;	   /* something was placed, be it zeros */
};

/* A destination's names, and how far it is; image-target.c. */
struct target {
	char *final; /* IMAGE, symbolic links resolved */
	char *part;  /* where it is written: IMAGE.part, or IMAGE itself when in place */
	bool force, in_place;
	bool keep_content; /* what the files hold stays */
	bool resumed;	   /* `part` is of an earlier try */
	bool frozen;	   /* complete already: nothing is written */
	char *record;	   /* the name of the session's record; a device has none */
	bool existed;	   /* IMAGE was there */
	bool ours;	   /* `part` was made by us: it is removed unless committed */
	bool committed;
	bool keep;  /* complete, but could not be renamed: not removed */
	int lock;   /* `part`, flock()ed as long as it is open; -1: none */
	int parent; /* directory of `final`, synced after the rename; -1: none */
	/* device state of a raw image */
	char *state_final, *state_part; /* NULL: nowhere to put it, or renamed already */
	bool state_existed;
	bool state_placed; /* before the memory */
	int state_lock;
};

struct image_priv {
	struct image_file state; /* device state; fd -1: none */
	struct digest_stream *state_digest;
	uint64_t state_size;
	struct target *target; /* NULL: a source */
};

static inline struct block_priv *block_priv(const struct block *b)
{
	return b->priv;
}

static inline struct image_priv *image_priv(const struct image *img)
{
	return img->priv;
}

/* An image without blocks, and room for n of them (their priv too). NULL: ST_NOMEM. */
struct image *image_new(const char *path, struct error *err);
int image_add_blocks(struct image *img, unsigned n, struct error *err);

/* Gives a block its name. ST_DATA: empty, too long, no UTF-8, control characters. */
int image_name_block(struct block *b, const char *name, struct error *err);

/* Offset and length lie in the block and on pages, else ST_DATA. */
int image_check_range(const struct image *img, const struct block *b, uint64_t offset, uint64_t len,
		      struct error *err);

/* 0 for page sizes that migtool takes, else ST_UNSUPPORTED. */
int image_check_page(uint32_t page, struct error *err);

/* asprintf as an error: NULL is ST_NOMEM. */
char *image_format(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- image-place.c ---- */

/* Bitmaps, mapping and sum of a destination's block whose file is open. */
int place_open(struct image *img, struct block *b, bool stale, struct error *err);
void place_close(struct block *b);
/* Writes a run, without a look at what was there; sum and present are the caller's. */
int place_write(struct image *img, struct block *b, uint64_t offset, const void *buf, size_t len,
		struct error *err);
/* Puts into and takes out of the block's sum; something came. */
void place_account(struct block *b, struct digest in, struct digest out);
/* Zeroes what is left of the old content of a device. */
int place_settle(struct image *img, struct block *b, struct error *err);

/* Only the bitmap that image_adopt fills. */
int place_open_shared(struct block *b, struct error *err);

/* ---- image-release.c ---- */

/* Of a block that goes. */
void image_release_close(struct block *b);

/* ---- image-shared.c ---- */

/* Opens the file that block b has in `final`, and links it into `part` where that is another. */
int shared_open(struct block *b, const char *final, const char *part, struct error *err);
/* Does IMAGE hold nothing but files of the layout's shared blocks? */
int shared_only(const char *dir, const struct image_layout *layout, bool *only, struct error *err);

/* ---- image-record.c ---- */

/* What the record beside `final` is called; to be freed. */
char *record_name(const char *final, struct error *err);
int record_write(const char *path, const uint8_t session[IMAGE_SESSION_LEN], struct error *err);
/* False: there is none that can be read. */
bool record_read(const char *path, uint8_t session[IMAGE_SESSION_LEN]);
void record_remove(const char *path); /* NULL is accepted */

/* ---- image-state.c ---- */

/* A raw image's device state goes to `path`: can it? */
int state_plan(struct target *t, const char *path, bool resume, struct error *err);

/* ---- image-commit.c ---- */

void target_close(struct image *img, bool keep_part);

#endif
