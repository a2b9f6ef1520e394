#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""slow-path.py PORT TARGET-PORT MILLISECONDS

A long path on loopback: what comes to PORT goes on to TARGET-PORT half of MILLISECONDS later, and
back as late, however much it is (64 MiB may be on the way in each direction of a connection)."""

import collections
import socket
import sys
import threading
import time

LIMIT = 64 << 20


class Direction:
    """Bytes of one direction, each piece with the time at which it arrives."""

    def __init__(self, source, sink, delay):
        self.source, self.sink, self.delay = source, sink, delay
        self.pieces, self.size = collections.deque(), 0
        self.changed = threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()
        threading.Thread(target=self.write, daemon=True).start()

    def put(self, piece):
        with self.changed:
            self.changed.wait_for(lambda: self.size < LIMIT)
            self.pieces.append((time.monotonic() + self.delay, piece))
            self.size += len(piece)
            self.changed.notify_all()

    def read(self):
        piece = b"x"
        while piece:
            try:
                piece = self.source.recv(256 << 10)
            except OSError:
                piece = b""
            self.put(piece)

    def write(self):
        piece = b"x"
        while piece:
            with self.changed:
                self.changed.wait_for(lambda: self.pieces)
                at, piece = self.pieces[0]
            time.sleep(max(0, at - time.monotonic()))
            try:
                if piece:
                    self.sink.sendall(piece)
                else:
                    self.sink.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # nobody reads: what comes is dropped
            with self.changed:
                self.pieces.popleft()
                self.size -= len(piece)
                self.changed.notify_all()


def main():
    port, target, delay = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) / 2000
    with socket.create_server(("127.0.0.1", port), backlog=64) as listener:
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", target))
            for s in (near, far):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Direction(near, far, delay)
            Direction(far, near, delay)


if __name__ == "__main__":
    main()
