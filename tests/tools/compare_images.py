#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Compares the RAM blocks of two image directories.

compare_images.py DIR DIR [--except BLOCK]...

File names are percent-decoded first, so that it does not matter which characters were encoded. Says
where the first difference of each block is; the exit status is 1 if there is any.
"""

import argparse
import os
import sys
import urllib.parse


def blocks(directory):
    ram = os.path.join(directory, "ram")
    return {urllib.parse.unquote(f): os.path.join(ram, f) for f in os.listdir(ram)}


def first_difference(one, other):
    """The offset, or None."""
    offset = 0
    with open(one, "rb") as a, open(other, "rb") as b:
        while True:
            x, y = a.read(1 << 20), b.read(1 << 20)
            if x != y:
                same = (i for i, (p, q) in enumerate(zip(x, y)) if p != q)
                return offset + next(same, min(len(x), len(y)))
            if not x:
                return None
            offset += len(x)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("one")
    parser.add_argument("other")
    parser.add_argument("--except", metavar="BLOCK", action="append", default=[], dest="skip")
    args = parser.parse_args()
    one, other, bad = blocks(args.one), blocks(args.other), False
    if not one.keys() | other.keys():
        sys.exit("compare_images.py: there is not one block")
    for name in sorted(one.keys() | other.keys()):
        if name not in one or name not in other:
            print(f"{name}: only in {args.one if name in one else args.other}")
            bad = True
        elif name not in args.skip:
            at = first_difference(one[name], other[name])
            if at is not None:
                print(f"{name}: differs at {at:#x}")
                bad = True
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
