#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""paused_qemu.py SOCKET IMAGE ANSWERS: what `send --resume` meets in a QEMU that then dies, or hangs.

Listens on the UNIX socket, prints a line for each command that comes, and answers the first ANSWERS
RECV_BITMAPs: nothing of the block is there. Behind the POSTCOPY_RESUME it closes; before it, it waits
for the other end to."""

import json
import socket
import struct
import sys
from pathlib import Path

POSTCOPY_RESUME, RECV_BITMAP = 9, 10
END = 0x0123456789ABCDEF


def bitmap(name, size):
    count = (size // 4096 + 63) // 64 * 8
    return (struct.pack(">HHB", 5, len(name) + 1, len(name)) + name + struct.pack(">Q", count)
            + bytes(count) + struct.pack(">Q", END))


def main():
    path, image, answers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    manifest = json.loads((image / "manifest.json").read_text())
    sizes = {b["name"].encode(): b["size"] for b in manifest["blocks"]}
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(30)
        server.bind(path)
        server.listen()
        print("listening", flush=True)
        link = server.accept()[0].makefile("rwb")
    while len(head := link.read(5)) == 5:
        _, command, length = struct.unpack(">BHH", head)
        payload = link.read(length)
        print(command, flush=True)
        if command == POSTCOPY_RESUME:
            break
        if command == RECV_BITMAP and answers:
            answers -= 1
            link.write(bitmap(payload[1:], sizes[payload[1:]]))
            link.flush()


main()
