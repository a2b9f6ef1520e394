/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's memory: RAM blocks in a raw file or in a directory, for reading (source) and for
 * placing (destination). The one bounds-checked way to a page; hostile offsets are refused here.
 *
 * A source is read with pread, never through a mapping: a hole stays a hole, a file that shrinks is
 * a short read and no SIGBUS, hugetlbfs works. A destination is written with pwrite (a full tmpfs
 * is ENOSPC and no SIGBUS), on hugetlbfs through a mapping of pages that fallocate has reserved.
 *
 * A destination is IMAGE.part until image_commit renames it. Placing is thread-safe as long as no
 * two threads place the same page at the same time.
 */
#ifndef MIGTOOL_IMAGE_H
#define MIGTOOL_IMAGE_H

#include "cancel.h"
#include "digest.h"
#include "error.h"
#include "manifest.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bitmap;

#define BLOCK_NAME_MAX	  255
#define IMAGE_SESSION_LEN 16

struct block {
	char name[BLOCK_NAME_MAX + 1];
	uint64_t size;	    /* bytes, a multiple of the target's page */
	uint32_t page_size; /* the host's page in its file: the machine's, or hugetlbfs'; of a
			     * source's, where it ran if that was larger
			     */
	bool has_gpa;
	uint64_t gpa; /* guest-physical address */
	bool shared;  /* both ends can reach it (x-ignore-shared) */
	int fd;
	unsigned index;		    /* in the image's array */
	struct digest_block digest; /* name and seed, prepared */
	void *priv;		    /* image.c's: mapping, identity, what was received */
};

struct image {
	struct block *blocks;
	unsigned nblocks;
	char *path; /* as the user named it */
	bool directory;
	uint32_t target_page; /* granularity of offsets on the wire; 4096 unless told */
	struct manifest
		*manifest; /* a source directory's own, or what is being written; may be NULL */
	void *priv;
};

/* A run of bytes of one block, page-aligned. */
struct extent {
	uint64_t offset, len;
};

/* ---- source ---- */

struct image_source_opts {
	const char *block_name;	  /* of a raw file; NULL: pc.ram */
	uint32_t page_size;	  /* target page; 0: the manifest's, else 4096 */
	const char *device_state; /* path; NULL: a directory's own, or none */
};

/*
 * Opens a raw file, a block device or a directory, and takes each file's identity (size, mtime,
 * inode). A directory's blocks are in the manifest's order, or without one by size, largest first;
 * a manifest that disagrees with the files is refused. ST_FILE, ST_UNSUPPORTED.
 */
struct image *image_open(const char *path, const struct image_source_opts *opts, struct error *err);

/*
 * The next extent of data at or after `from`, aligned outwards to target pages and cut at the
 * block's size; len 0: no more. Holes come from SEEK_DATA; a hugetlbfs file and a block device are
 * all data. Any thread.
 */
int image_next_data(const struct image *img, const struct block *b, uint64_t from,
		    struct extent *out, struct error *err);

/*
 * Reads exactly len bytes (a hole reads as zeros and stays a hole). A file that ends early:
 * ST_UNSUPPORTED, "IMAGE changed while it was read". Any thread.
 */
int image_read(const struct image *img, const struct block *b, uint64_t offset, void *buf,
	       size_t len, struct error *err);

/* Has any file changed since image_open? -1 with ST_UNSUPPORTED if so. */
int image_check_at_rest(const struct image *img, struct error *err);

/* Likewise, but a file that was only renamed or removed is as good as ever: the memory is the same.
 */
int image_check_unwritten(const struct image *img, struct error *err);

/* A source's file as it was when it was opened. */
struct image_identity {
	uint64_t dev, ino, size;
	int64_t mtime; /* ns since the epoch */
};
struct image_identity image_identity(const struct block *b);
/* The same of all blocks in one number, for somebody else to compare. */
void image_identity_digest(const struct image *img, struct digest *out);

/* Are the blocks of two images one file? */
bool image_same_file(const struct block *a, const struct block *b);

/*
 * Nobody on this host may release it, or write it in place, as long as it is open: ST_FILE, if
 * another migtool does. Not for blocks that image_release_open was called for.
 */
int image_hold(const struct image *img, struct error *err);

/*
 * A block whose memory will be given back, in place of image_hold. On tmpfs and hugetlbfs; with
 * `force` on any file system. ST_UNSUPPORTED; ST_FILE: it cannot be written, or is used.
 */
int image_release_open(struct image *img, struct block *b, bool force, struct error *err);

/*
 * Gives a run back: it is a hole from now on, for everybody who has the file. For what the
 * destination has acknowledged as its own, and nobody here will read again. Whole pages of the
 * host's only: what a run names of others stays. *bytes: so much became free, also on failure
 * (ST_FILE, ST_DATA for a run outside of the block). One thread, which alone calls
 * image_check_unwritten.
 */
int image_release(struct image *img, struct block *b, uint64_t offset, uint64_t len,
		  uint64_t *bytes, struct error *err);

/* The block of that name, or NULL. */
struct block *image_find(const struct image *img, const char *name, size_t len);

/* Size of the data extents of a block, or of all, in bytes: what has to travel at most. */
int image_block_data_bytes(const struct image *img, const struct block *b, uint64_t *bytes,
			   struct error *err);
int image_data_bytes(const struct image *img, uint64_t *bytes, struct error *err);

/* A source's device state, read-only at offset 0, -1 if it has none. Owned by the image. */
int image_device_state_fd(const struct image *img, uint64_t *size);

/* ---- destination ---- */

struct image_layout {
	const struct block *blocks; /* name, size, page_size, has_gpa, gpa, shared are read */
	unsigned nblocks;
	bool from_qemu;	      /* always a directory */
	uint32_t target_page; /* 0: 4096 */
	bool use_shared;      /* blocks marked shared are IMAGE's own; nothing is placed in them */
	bool force, in_place;
	bool keep;   /* in place: what the files hold stays, to be taken by image_adopt */
	bool resume; /* go on with what image_find_start found, to be taken likewise */
	/* resume: what image_find_postcopy found, whose device state is whole; NULL: something else
	 */
	const struct manifest *postcopy;
	const uint8_t *session;	  /* IMAGE_SESSION_LEN bytes: remembered beside; NULL: not */
	const char *device_state; /* path, for a raw file; NULL: a device state is refused */
};

/*
 * Creates IMAGE.part for these blocks, all holes (ENOSPC comes when a page finds no room).
 *
 * - It becomes a directory when the source is a QEMU, has several blocks, the name ends in '/' or
 *   IMAGE is one; else a file. A symbolic link is followed: what it names is written beside and
 *   replaced, the link stays.
 * - An existing non-empty IMAGE without force: ST_FILE with the hint. A directory is replaced only
 *   if it holds nothing but an image.
 * - IMAGE.part of another live migtool: ST_FILE. One that nobody has locked is a leftover and is
 *   removed, unless it had been through image_sync: it may be the only copy of a guest, so that is
 *   ST_FILE, with force too. Likewise that of the device state.
 * - in_place: IMAGE itself is written. Blocks keep their files, which have to have the right size
 *   (a device: at least that), and are emptied first (a device: by image_sync, where nothing came)
 *   unless `keep` is set.
 * - Block names or sizes that cannot be: ST_DATA.
 *
 * Memory has mode 0600, directories 0700. In a block of the result page_size is the file's own.
 */
struct image *image_create(const char *path, const struct image_layout *layout, struct error *err);

/* Only says what the blocks are: there are no files, and nothing can be read or placed. */
struct image *image_of_blocks(const struct block *blocks, unsigned n, uint32_t target_page,
			      struct error *err);

/* Is it a shared block that is used where it is? */
bool image_block_here(const struct block *b);
/* Reads such a block and takes it into the digest, until it is cancelled. */
int image_read_shared(struct image *img, struct block *b, struct cancel *cancel, struct error *err);

/*
 * The name that a destination is renamed to: IMAGE without final slashes, a symbolic link resolved.
 * To be freed. NULL: ST_FILE, ST_NOMEM.
 */
char *image_final_name(const char *image, struct error *err);

/* What a transfer can go on with. */
struct image_start {
	enum {
		START_NOTHING,
		START_PART,	/* IMAGE.part, or IMAGE that was half written in place */
		START_COMPLETE, /* an IMAGE.part that was through image_sync */
		START_IMAGE,	/* no IMAGE.part, but an IMAGE that is not empty */
	} kind;
	bool known; /* which session began it */
	uint8_t session[IMAGE_SESSION_LEN];
};

/* ST_FILE: another migtool writes it. */
int image_find_start(const char *path, bool in_place, struct image_start *start, struct error *err);

/*
 * What image_note_postcopy noted in IMAGE.part, to be freed; NULL in *m: there is none. A raw file
 * has no room for it. ST_FILE, ST_NOMEM.
 */
int image_find_postcopy(const char *path, struct manifest **m, struct error *err);

/*
 * Can image_create succeed for that path? Called before a peer is waited for. resume: whatever
 * there is can be gone on with.
 */
int image_check_target(const char *path, bool force, bool in_place, bool resume, struct error *err);

/* A destination's: nothing was placed, and nothing may be, for it was complete from the start. */
bool image_frozen(const struct image *img);

/*
 * Places len bytes at offset; both multiples of the target page and inside the block, else ST_DATA.
 * All-zero pages become holes. Takes them into the digest, the old content of a page that came
 * before out of it. No room: ST_FILE with sys ENOSPC. Any thread, see above.
 */
int image_place(struct image *img, struct block *b, uint64_t offset, const void *buf, size_t len,
		struct error *err);

/* Makes a run of any length zero: nothing where nothing was placed, else a hole. Any thread. */
int image_place_zero(struct image *img, struct block *b, uint64_t offset, uint64_t len,
		     struct error *err);

/*
 * An old copy: what a block's files hold already (layout.keep), or a block of the same size of
 * another image, which becomes part of a new destination. It is taken in pieces, by any thread and
 * in any order, but each piece once, and before anything is placed there.
 *
 * share: the new block gets the old one's extents, if the file system can do that (FICLONE); then,
 * as with keep, `old` and `from` are NULL below. Else the pieces are copied.
 * next: as image_next_data, for what there is to adopt.
 * adopt: takes [offset, offset + len), both multiples of 64 KiB but at the block's end, into digest
 * and account; chunks[i] is then the digest of the i-th 64 KiB. buf: IMAGE_ADOPT_BUF bytes.
 * adopt_block: all of it, until it is cancelled (NULL: never). ST_FILE, ST_UNSUPPORTED (the old one
 * changed), ST_NOMEM.
 */
#define IMAGE_ADOPT_BUF (256u << 10)

bool image_adopt_share(struct block *b, const struct block *from);
int image_adopt_next(const struct image *img, const struct block *b, const struct image *old,
		     const struct block *from, uint64_t at, struct extent *out, struct error *err);
int image_adopt(struct image *img, struct block *b, const struct image *old,
		const struct block *from, struct extent what, uint8_t *buf, struct digest *chunks,
		struct error *err);
int image_adopt_block(struct image *img, struct block *b, const struct image *old,
		      const struct block *from, struct cancel *cancel, struct error *err);

/* What a destination holds now; alignment and bounds as for image_place. Any thread. */
int image_get_page(const struct image *img, const struct block *b, uint64_t offset, void *buf,
		   size_t len, struct error *err);

/* The digest over all that was placed, and one block's part of it. Any thread. */
void image_digest(const struct image *img, struct digest *out);
void image_block_digest(const struct block *b, struct digest *out);
/* Was anything placed in this block of a destination, be it zeros? */
bool image_block_came(const struct block *b);

/* Bytes of pages that are not zero now (4096 a page). Any thread. */
uint64_t image_placed_bytes(const struct image *img);

/*
 * Appends to the device state of a destination. A raw file without layout.device_state:
 * ST_UNSUPPORTED. One thread.
 */
int image_put_device_state(struct image *img, const void *buf, size_t len, struct error *err);
/*
 * The device state of a guest that goes on before its memory is here, and has to find it before.
 * take: image_of_blocks has one, too, at `path` (ST_FILE, ST_UNSUPPORTED; image_create has it from
 * its layout), but only one. reset: what came of it is dropped. place: all of it came; it is
 * durable and has its name. withdraw: the guest is not ours, and it goes again.
 */
int image_take_device_state(struct image *img, const char *path, bool force, struct error *err);
int image_reset_device_state(struct image *img, struct error *err);
int image_place_device_state(struct image *img, struct error *err);
bool image_device_state_placed(const struct image *img);
void image_withdraw_device_state(struct image *img);

/* Digest and size of the device state written so far, or of a source's. */
void image_device_state_digest(const struct image *img, struct digest *out, uint64_t *size);

/*
 * Notes durably that the guest was given up for this destination before all of its memory is here:
 * a directory's manifest says so until image_sync, with the device state as it is now. Who sends
 * from it before is refused. ST_FILE.
 */
int image_note_postcopy(struct image *img, struct error *err);

/*
 * Which of a destination's pages have come? Bit i is for the i-th target page; map is empty and has
 * a bit for each. A page with zeros in it may have come or not, and counts as not.
 */
void image_came(const struct image *img, const struct block *b, struct bitmap *map);

/*
 * Makes it durable: fsync of everything and of the names, and a directory's manifest, whose
 * machine, uuid and so on the caller has filled in before (img->manifest; blocks, digests and
 * device state are filled in here). After it nothing may be placed. ST_FILE.
 */
int image_sync(struct image *img, struct error *err);

/*
 * The rename, then fsync of the directory. ST_FILE; what was complete is kept as IMAGE.part then.
 * There is no moment without either the old or the new IMAGE. The device state of a raw file comes
 * last: if only that fails, IMAGE is new, and the device state is kept as its .part.
 */
int image_commit(struct image *img, struct error *err);

/*
 * Where it is written until image_commit: IMAGE.part with symbolic links resolved, in place IMAGE.
 * Valid as long as the image.
 */
const char *image_part_path(const struct image *img);

/* Frees. An uncommitted destination's .part is removed unless keep_part. NULL is accepted. */
void image_close(struct image *img, bool keep_part);

#endif
