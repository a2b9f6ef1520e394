#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Is a file as sparse as it can be? sparse.py [--data] FILE...

Every page of data has to hold something: a file that has storage for a page of zeros is named, with
the page's offset, and the status is 1. Only for file systems whose blocks are pages. --data prints
how many bytes are no hole instead.
"""

import errno
import os
import sys

PAGE = 4096


def extents(fd, size):
    at = 0
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as e:
            if e.errno == errno.ENXIO:
                return
            raise
        at = os.lseek(fd, begin, os.SEEK_HOLE)
        yield begin, at


def data_bytes(path):
    fd = os.open(path, os.O_RDONLY)
    total = sum(end - begin for begin, end in extents(fd, os.fstat(fd).st_size))
    os.close(fd)
    return total


def stored_zeros(path):
    fd = os.open(path, os.O_RDONLY)
    for begin, end in extents(fd, os.fstat(fd).st_size):
        for offset in range(begin, end, PAGE):
            if not any(os.pread(fd, PAGE, offset)):
                yield offset
    os.close(fd)


def main():
    if sys.argv[1] == "--data":
        print(sum(data_bytes(path) for path in sys.argv[2:]))
        return
    bad = False
    for path in sys.argv[1:]:
        zeros = list(stored_zeros(path))
        if zeros:
            print(f"{path}: {len(zeros)} pages of zeros are stored, the first at {zeros[0]:#x}")
            bad = True
    sys.exit(bad)


if __name__ == "__main__":
    main()
