#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes a QEMU migration with its multifd channels down into files.

capture.py SOCKET DIR CHANNELS

Listens on the UNIX socket, accepts one main connection and CHANNELS more in any order, and writes
what they carry to DIR/main and DIR/channel-<id>. Ends when all of them have ended; qemu_stream.py
reads the result. Nothing is ever answered, so there can be no return path.
"""

import os
import socket
import sys
import threading


def receive(sock, count):
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            sys.exit("capture.py: a connection ended in its first packet")
        data += more
    return data


def copy(sock, first, path):
    with open(path, "wb") as f:
        f.write(first)
        while data := sock.recv(1 << 20):
            f.write(data)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    path, directory, channels = sys.argv[1], sys.argv[2], int(sys.argv[3])
    os.makedirs(directory, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.settimeout(30)
    listener.bind(path)
    listener.listen(16)
    threads = []
    for _ in range(1 + channels):
        sock, _ = listener.accept()
        sock.settimeout(60)
        first = receive(sock, 4)
        name = "main"
        if first != b"QEVM":
            first += receive(sock, 60)
            name = f"channel-{first[24]}"
        threads.append(threading.Thread(target=copy,
                                        args=(sock, first, os.path.join(directory, name))))
        threads[-1].start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
