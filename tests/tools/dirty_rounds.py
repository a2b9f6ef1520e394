#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes dirty rounds for `migtool send --x-replay-dirty`, and the memory that has to come of them.

dirty_rounds.py [--seed N] [--rounds N] BLOCK-FILE BLOCK START END OUT

Pseudo-random writes to the block's [START, END), of every sort that an encoder treats differently:
a byte here and there, runs, every second byte (too much for a delta), whole pages, zeros, and what
is there already. OUT.rounds is the recording, OUT.ram the block after the last round.
"""

import argparse
import random
import shutil

PAGE = 4096


def writes(rng, page, content):
    """(offset, length, byte) of one rewriting of the page at offset `page`."""
    kind = rng.randrange(8)
    if kind < 3:
        return [(page + rng.randrange(PAGE), 1, rng.randrange(256)) for _ in range(rng.randint(1, 9))]
    if kind == 3:
        at = rng.randrange(PAGE - 200)
        return [(page + at, rng.randint(1, 200), rng.randrange(1, 256))]
    if kind == 4:
        byte = rng.randrange(1, 256)
        return [(page + i, 1, byte ^ i & 0xFF) for i in range(0, PAGE, 2)]
    if kind == 5:
        return [(page, PAGE, rng.randrange(1, 256))]
    if kind == 6:
        return [(page, PAGE, 0)]
    return [(page + PAGE - 1, 1, content[page + PAGE - 1])]  # dirty, and the same


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("file")
    parser.add_argument("block")
    parser.add_argument("start", type=lambda s: int(s, 0))
    parser.add_argument("end", type=lambda s: int(s, 0))
    parser.add_argument("out")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    shutil.copyfile(args.file, args.out + ".ram")
    with open(args.out + ".ram", "r+b") as ram, open(args.out + ".rounds", "w",
                                                     encoding="ascii") as out:
        content = bytearray(ram.read())
        pages = range(args.start, args.end, PAGE)
        # A few pages again and again: deltas need a page that came before.
        favourites = rng.sample(pages, min(64, len(pages)))
        for _ in range(args.rounds):
            print("round", file=out)
            for page in rng.sample(favourites, len(favourites) * 3 // 4) + rng.sample(pages, 16):
                for offset, length, byte in writes(rng, page, content):
                    content[offset:offset + length] = bytes([byte]) * length
                    print(f"write {args.block} {offset:#x} {length} {byte}", file=out)
        ram.seek(args.start)
        ram.write(content[args.start:args.end])


if __name__ == "__main__":
    main()
