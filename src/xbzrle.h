/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The delta of a page to its old content, QEMU's encoding: pairs of a run of unchanged bytes and a
 * run of new ones, lengths as uleb128 of at most two bytes. Two bytes hold 16383, which is enough
 * for pages of 16 KiB (a delta of 16384 new bytes would be larger than the page), not for larger
 * ones: these are always refused, and whoever agrees on xbzrle with a peer has to refuse it first.
 */
#ifndef MIGTOOL_XBZRLE_H
#define MIGTOOL_XBZRLE_H

#include <stddef.h>
#include <stdint.h>

#define XBZRLE_PAGE_MAX 16384u

/*
 * Encodes `now` against `old`, both `page` bytes, into out of `cap` bytes; QEMU has cap == page.
 * Neither may change meanwhile. Returns the length, 0: nothing changed, -1: does not fit, by QEMU's
 * rules and hence also where a last run of unchanged bytes would have needed no room (send the
 * whole page).
 */
int xbzrle_encode(const uint8_t *old, const uint8_t *now, size_t page, uint8_t *out, size_t cap);

/*
 * Applies a delta of `len` bytes to the page in place. Returns how many bytes of the page the delta
 * covers, or -1: malformed (the page may be half changed then; the caller discards it).
 */
int xbzrle_decode(const uint8_t *delta, size_t len, uint8_t *page_io, size_t page);

#endif
