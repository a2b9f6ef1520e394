#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes memory images.

make_image.py [--seed N] [--size MIB] KIND OUT

KIND is what the memory is made of: `mixed` (holes, zero pages that were written, text, random bytes,
pages that are almost zero), `random` (incompressible), `sparse` (one page in fifty), `holes` (nothing
at all). `directory` makes a directory image of several blocks of the kinds above, with names that
have to be encoded, and a device state, without a manifest.
"""

import argparse
import os
import random
import urllib.parse

PAGE = 4096
MIB = 1 << 20
TEXT = b"The quick brown fox jumps over the lazy dog. " * 100


def mixed_page(rng, what):
    """A page, or None for a hole."""
    if what < 2:
        return None
    if what == 2:
        return bytes(PAGE)
    if what == 3:
        page = bytearray(PAGE)
        page[rng.choice((0, PAGE - 1, rng.randrange(PAGE)))] = rng.randrange(1, 256)
        return bytes(page)
    if what < 6:
        at = rng.randrange(45)
        return TEXT[at:at + PAGE]
    return rng.randbytes(PAGE)


def page_of(kind, rng, what):
    if kind == "mixed":
        return mixed_page(rng, what)
    wanted = kind == "random" or (kind == "sparse" and rng.randrange(50) == 0)
    return rng.randbytes(PAGE) if wanted else None


def make(kind, path, size, rng):
    """Pages of one sort come in runs, as in a guest."""
    with open(path, "wb") as out:
        left, what = 0, 0
        for offset in range(0, size, PAGE):
            if not left:
                left, what = rng.choice((1, 1, 2, 7, 40)), rng.randrange(8)
            left -= 1
            page = page_of(kind, rng, what)
            if page is not None:
                out.seek(offset)
                out.write(page)
        out.truncate(size)


def make_directory(path, size, rng):
    blocks = {"pc.ram": ("mixed", size), "pc.bios": ("random", size // 16),
              "/rom@etc/acpi/tables": ("mixed", 2 * PAGE), ".hidden block": ("sparse", size // 4),
              "0000:00:02.0/vga.vram": ("holes", size // 8), "one.page": ("random", PAGE)}
    os.makedirs(os.path.join(path, "ram"))
    for name, (kind, length) in blocks.items():
        quoted = urllib.parse.quote(name, safe="")
        if quoted.startswith("."):
            quoted = "%2E" + quoted[1:]
        make(kind, os.path.join(path, "ram", quoted), length, rng)
    with open(os.path.join(path, "device-state"), "wb") as out:
        out.write(rng.randbytes(100001))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=8, metavar="MIB")
    parser.add_argument("kind", choices=("mixed", "random", "sparse", "holes", "directory"))
    parser.add_argument("out")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    if args.kind == "directory":
        make_directory(args.out, args.size * MIB, rng)
    else:
        make(args.kind, args.out, args.size * MIB, rng)


if __name__ == "__main__":
    main()
