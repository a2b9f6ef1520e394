#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""bad_postcopy.py DIR [recovery]: streams of a QEMU in postcopy in each of which one thing is wrong, or of one
that recovers what `cut` has left.

Writes DIR/NAME.stream, DIR/whole.stream that is right, and prints NAME, the status recv has to end with and words of its message."""

import struct
import sys
from pathlib import Path

BLOCK, SIZE = b"pc.ram", 0x10000


def command(number, payload=b""):
    return struct.pack(">BHH", 8, number, len(payload)) + payload


def word(value):
    return struct.pack(">Q", value)


HEAD = b"QEVM\0\0\0\3\7" + struct.pack(">I", 13) + b"pc-i440fx-7.2" + command(1)
ADVISE = command(3, word(4096) + word(4096))
START = (b"\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4" + word(SIZE | 4) + bytes([len(BLOCK)]) + BLOCK
         + word(SIZE) + word(0x10) + b"\x7e\0\0\0\2")
LISTEN, RUN = command(4), command(5)


def discard(offset, length, block=BLOCK, version=0):
    return command(6, bytes([version, len(block)]) + block + b"\0" + word(offset) + word(length))


def packaged(content, length=None):
    return command(7, struct.pack(">I", len(content) if length is None else length)) + content


GOOD = HEAD + ADVISE + START + discard(0, SIZE)

CASES = [
    ("bitmaps", HEAD + command(3), 4, "moves dirty bitmaps in postcopy"),
    ("advise-short", HEAD + command(3, word(4096)), 12, "POSTCOPY_ADVISE has 8 bytes"),
    ("advise-page", HEAD + command(3, word(4096) + word(8192)), 4, "guest's pages have 8192 bytes"),
    ("advise-odd", HEAD + command(3, word(4096) + word(4097)), 12, "page sizes 0x1000"),
    ("advise-twice", HEAD + ADVISE + ADVISE, 12, "POSTCOPY_ADVISE behind POSTCOPY_ADVISE"),
    ("advise-late", HEAD + START + ADVISE, 12, "POSTCOPY_ADVISE behind the stream's head"),
    ("discard-first", HEAD + ADVISE + discard(0, 4096), 12, "POSTCOPY_RAM_DISCARD behind"),
    ("discard-unadvised", HEAD + START + discard(0, 4096), 12, "POSTCOPY_RAM_DISCARD behind"),
    ("discard-block", HEAD + ADVISE + START + discard(0, 4096, b"pc.rom"), 12, "unknown block 'pc.rom'"),
    ("discard-beyond", HEAD + ADVISE + START + discard(4096, SIZE), 12, "0x10000 bytes at 0x1000"),
    ("discard-wraps", HEAD + ADVISE + START + discard(2**64 - 4096, 8192), 12, "0x2000 bytes at"),
    ("discard-odd", HEAD + ADVISE + START + discard(1, 4096), 12, "0x1000 bytes at 0x1 "),
    ("discard-none", HEAD + ADVISE + START + discard(0, 0), 12, "0x0 bytes at 0x0"),
    ("discard-version", HEAD + ADVISE + START + discard(0, 4096, version=1), 12, "version 1"),
    ("package-first", HEAD + ADVISE + START + packaged(LISTEN + RUN), 12, "PACKAGED behind POSTCOPY_ADVISE"),
    ("package-huge", GOOD + packaged(LISTEN, 2**32 - 1), 12, "PACKAGED: 4294967295 bytes"),
    ("listen-alone", GOOD + LISTEN, 4, "POSTCOPY_LISTEN) of 0 bytes cannot be followed"),
    ("package-no-run", GOOD + packaged(LISTEN + LISTEN), 50, "do not begin with POSTCOPY_LISTEN"),
    ("package-small", GOOD + packaged(LISTEN), 50, "PACKAGED: 5 bytes do not begin"),
    ("package-other", GOOD + packaged(LISTEN + b"\1" * 9 + RUN), 50, "element 0x01 is not expected"),
    ("package-twice", GOOD + packaged(LISTEN + RUN) * 2, 50, "PACKAGED behind POSTCOPY_RUN"),
    ("discard-late", GOOD + packaged(LISTEN + RUN) + discard(0, 4096), 50, "behind POSTCOPY_RUN"),
    ("device-late", GOOD + packaged(LISTEN + RUN) + b"\4", 50, "element 0x04 is not expected"),
    ("cut", GOOD + packaged(LISTEN + RUN), 50, "its memory is not all here"),
]
# Not wrong: the guest's memory is zeros, and all here.
WHOLE = GOOD + packaged(LISTEN + RUN) + b"\3\0\0\0\2" + word(0x10) + b"\x7e\0\0\0\2\0"


BITMAP = command(10, bytes([len(BLOCK)]) + BLOCK)
RESUME = command(9)
END = b"\3\0\0\0\2" + word(0x10) + b"\x7e\0\0\0\2\0"

RECOVERIES = [
    ("block", command(10, b"\6pc.rom") + RESUME, 50, "RECV_BITMAP for the unknown block 'pc.rom'"),
    ("name", command(10, b"\7pc.ram") + RESUME, 50, "RECV_BITMAP of 7 bytes names no block"),
    ("long", BITMAP + command(10, b"\6pc.ram" * 40) + RESUME, 50, "RECV_BITMAP has 280 bytes"),
    ("resume", BITMAP + command(9, b"x"), 50, "POSTCOPY_RESUME of 1 bytes"),
    ("early", BITMAP + END, 50, "section 2 is not expected in a recovery"),
    ("start", BITMAP + RESUME + START, 50, "section 2 is not expected in a recovery"),
    ("twice", BITMAP + RESUME + RESUME, 50, "and nothing is to be recovered here"),
    ("late", BITMAP + RESUME + BITMAP, 50, "and nothing is to be recovered here"),
    ("other", BITMAP + RESUME + END[:-2] + b"\3\0", 50, "footer"),
    ("advise", BITMAP + ADVISE, 50, "POSTCOPY_ADVISE behind the break"),
    ("device", BITMAP + RESUME + b"\4", 50, "element 0x04 is not expected"),
    ("bitmap-only", BITMAP, 50, "its memory is not all here"),
    ("resumed", BITMAP + RESUME + END, 0, ""),
]


def main():
    if sys.argv[2:] == ["recovery"]:
        for name, stream, status, words in RECOVERIES:
            Path(sys.argv[1], name + ".stream").write_bytes(stream)
            print(name, status, words)
        return
    Path(sys.argv[1], "whole.stream").write_bytes(WHOLE)
    for name, stream, status, words in CASES:
        Path(sys.argv[1], name + ".stream").write_bytes(stream)
        print(name, status, words)


main()
