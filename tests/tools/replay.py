#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays captured streams to a listener, as a QEMU source would.

replay.py [--hold SECONDS] ADDRESS MAIN [CHANNEL]...
replay.py                       plays what it reads: such arguments, a line each

ADDRESS is a UNIX socket's path or HOST:PORT. MAIN and the CHANNELs are files, each for a connection
of its own, main first. Each connection is closed for writing when its file is through; --hold
leaves all open for so long at most. What comes back on the main connection is printed in hex. A
listener that closes early is no failure of ours. The second way prints "ready", and "ended" before what
came back: python has started by then.
"""

import argparse
import socket
import sys
import threading
import time


def connect(address):
    if "/" not in address and ":" in address:
        host, port = address.rsplit(":", 1)
        return socket.create_connection((host, int(port)), timeout=30)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(30)
    sock.connect(address)
    return sock


def play(sock, path, hold):
    try:
        with open(path, "rb") as f:
            sock.sendall(f.read())
        if not hold:
            sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def answer(sock, hold):
    """All that the listener sends until it closes, or the time is up."""
    data, deadline = b"", time.monotonic() + (hold or 30)
    while (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            more = sock.recv(4096)
        except OSError:
            break
        if not more:
            break
        data += more
    return data


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--hold", type=float, default=0)
    parser.add_argument("address")
    parser.add_argument("file", nargs="+")
    if len(sys.argv) > 1:
        print(replay(parser.parse_args()))
        return
    print("ready", flush=True)
    for line in sys.stdin:
        print("ended", replay(parser.parse_args(line.split())), flush=True)


def replay(args):
    connections = [(connect(args.address), path) for path in args.file]
    threads = [threading.Thread(target=play, args=(sock, path, args.hold))
               for sock, path in connections]
    for thread in threads:
        thread.start()
    back = answer(connections[0][0], args.hold).hex()
    for sock, _ in connections:
        sock.close()
    for thread in threads:
        thread.join()
    return back


if __name__ == "__main__":
    main()
