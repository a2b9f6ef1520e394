#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes pages of a memory image, and prints how many bytes of pages differ then.

change_image.py [--seed N] [--pages N | --share PERCENT] [--kinds KINDS] FILE

KINDS, a string of letters, is what happens to a page, one of them by chance: r (random bytes), b (one
byte of it), z (zeros), h (a hole). Pages that were holes become random with r and b.
"""
import argparse
import ctypes
import os
import random

PAGE = 4096
PUNCH = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE


def punch(fd, offset):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    if libc.fallocate(fd, PUNCH, offset, PAGE):
        raise OSError(ctypes.get_errno(), "fallocate")


def change(fd, offset, kind, rng):
    """Whether the page is another one now."""
    before = os.pread(fd, PAGE, offset)
    after = bytearray(before)
    if kind == "r":
        after[:] = rng.randbytes(PAGE)
    elif kind == "b":
        after[rng.randrange(PAGE)] ^= rng.randrange(1, 256)
    else:
        after[:] = bytes(PAGE)
    if kind == "h":
        punch(fd, offset)
    else:
        os.pwrite(fd, after, offset)
    return after != before


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pages", type=int)
    parser.add_argument("--share", type=float)
    parser.add_argument("--kinds", default="rrrbbzh")
    parser.add_argument("file")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    fd = os.open(args.file, os.O_RDWR)
    total = os.fstat(fd).st_size // PAGE
    count = args.pages if args.pages is not None else int(total * args.share / 100)
    changed = sum(change(fd, page * PAGE, rng.choice(args.kinds), rng)
                  for page in sorted(rng.sample(range(total), count)))
    print(changed * PAGE)


if __name__ == "__main__":
    main()
