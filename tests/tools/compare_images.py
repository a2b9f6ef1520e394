#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Compares two image directories: RAM blocks and, with --devices, the sections of device-state.

compare_images.py DIR DIR [--devices] [--except BLOCK-OR-DEVICE]...

File names are percent-decoded first, so that it does not matter which characters were encoded. Says
where the first difference of each block or device is; the exit status is 1 if there is any.
"""

import argparse
import os
import sys
import urllib.parse

sys.dont_write_bytecode = True
import qemu_stream  # noqa: E402 (no __pycache__ in the source tree)


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


def devices(directory):
    path = os.path.join(directory, "device-state")
    with open(path, "rb") as f:
        reader = qemu_stream.Reader(f.read(), path)
    return {(name, instance, version): data
            for name, instance, version, data in qemu_stream.devices(reader)}


def compare_devices(one, other, skip):
    """Whether any device is at one side alone, or has another state."""
    a, b, bad = devices(one), devices(other), False
    for key in sorted(a.keys() | b.keys()):
        x, y = a.get(key, b""), b.get(key, b"")
        if x != y and key[0] not in skip:
            same = (i for i, (p, q) in enumerate(zip(x, y)) if p != q)
            at = next(same, min(len(x), len(y)))
            print(f"device {key[0]}, instance {key[1]}: differs at {at} of {len(x)}, {len(y)}")
            bad = True
    return bad or not a


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("one")
    parser.add_argument("other")
    parser.add_argument("--devices", action="store_true")
    parser.add_argument("--except", metavar="NAME", action="append", default=[], dest="skip")
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
    if args.devices:
        bad |= compare_devices(args.one, args.other, args.skip)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
