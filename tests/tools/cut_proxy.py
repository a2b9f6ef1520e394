#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A link that breaks: passes TCP connections on to a port, and cuts them all at given points.

cut_proxy.py PORT [POINT:HOW]...

Prints the port that it listens on. A POINT is a number of bytes, all connections and both ways
together, that pass since the one before; or =HEX, when these bytes have passed on one connection one
way; or =HEX+N, N bytes later. At each point every connection that is open ends as HOW says, and
those that come later pass:

  reset   both sides are reset
  close   both sides are closed, after what is on its way
  drop    nothing passes any more and nobody is told: the connections stay open until they are closed

Not one byte passes beyond a point. Behind the last point all passes. A line for each cut goes to
stdout. Ends with its standard input.
"""
import os
import selectors
import socket
import struct
import sys

RESET = struct.pack("ii", 1, 0)


class Point:
    def __init__(self, text):
        where, self.how = text.split(":")
        if self.how not in ("reset", "close", "drop"):
            sys.exit(f"cut_proxy.py: what is {self.how}?")
        self.pattern = None
        if where.startswith("="):
            where, _, more = where[1:].partition("+")
            self.pattern = bytes.fromhex(where)
            where = more or "0"
        self.count = int(where)


class Side:
    """One of the two sockets of a connection, and what waits to be written to it."""

    def __init__(self, sock):
        self.sock, self.other = sock, None
        self.waiting = bytearray()
        self.reads = True   # more may come from it
        self.ended = False  # nothing more is to be written to it
        self.seen = b""     # the last of what came from it
        sock.setblocking(False)


class Proxy:
    def __init__(self, target, points):
        self.target, self.points = target, points
        self.selector = selectors.DefaultSelector()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.selector.register(sys.stdin, selectors.EVENT_READ)
        self.sides = []
        self.passed = 0
        self.dropped = []
        print(self.listener.getsockname()[1], flush=True)

    def accept(self):
        near, _ = self.listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self.target), timeout=10)
        except OSError:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            near.close()
            return
        a, b = Side(near), Side(far)
        a.other, b.other = b, a
        for side in (a, b):
            side.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sides.append(side)
            self.selector.register(side.sock, selectors.EVENT_READ, side)

    def room(self):
        """How many bytes may pass before the next point."""
        return self.points[0].count - self.passed if self.points and not self.points[0].pattern \
            else 1 << 18

    def up_to_point(self, side, data):
        """What of the data may pass. What a pattern waits for makes the point one of bytes."""
        point = self.points[0] if self.points else None
        if point and point.pattern:
            seen = side.seen + data
            at = seen.find(point.pattern)
            side.seen = seen[1 - len(point.pattern):] if len(point.pattern) > 1 else b""
            if at < 0:
                self.passed += len(data)
                return data
            end = at + len(point.pattern) - (len(seen) - len(data))
            point.pattern = None
            self.passed = -end
        data = data[:self.room()]
        self.passed += len(data)
        return data

    def watch(self, side):
        """What is waited for: its bytes, as long as the other side takes them; room for ours."""
        if side not in self.sides:
            return
        events = 0
        if side.reads and len(side.other.waiting) < 1 << 20:
            events |= selectors.EVENT_READ
        if side.waiting:
            events |= selectors.EVENT_WRITE
        try:
            self.selector.unregister(side.sock)
        except KeyError:
            pass
        if events:
            self.selector.register(side.sock, events, side)

    def remove(self, side, how=None):
        if side not in self.sides:
            return
        self.sides.remove(side)
        try:
            self.selector.unregister(side.sock)
        except KeyError:
            pass
        if how == "drop":
            self.dropped.append(side.sock)
            return
        if how == "reset":
            side.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        side.sock.close()

    def cut(self):
        how = self.points.pop(0).how
        self.passed = 0
        print(how, flush=True)
        for side in list(self.sides):
            if how == "close" and side.waiting:
                side.sock.setblocking(True)
                try:
                    side.sock.sendall(side.waiting)
                except OSError:
                    pass
            self.remove(side, how)

    def read(self, side):
        try:
            data = side.sock.recv(min(1 << 18, self.room()))
        except BlockingIOError:
            return
        except OSError:
            self.remove(side.other, "reset")
            self.remove(side, "reset")
            return
        if not data:
            side.reads = False
            side.other.ended = True
        data = self.up_to_point(side, data)
        side.other.waiting += data
        self.write(side.other)
        self.watch(side)
        if self.points and not self.points[0].pattern and self.passed >= self.points[0].count:
            self.cut()

    def write(self, side):
        try:
            if side.waiting:
                del side.waiting[:side.sock.send(side.waiting)]
            if side.ended and not side.waiting:
                side.sock.shutdown(socket.SHUT_WR)
                side.ended = False
        except BlockingIOError:
            pass
        except OSError:
            self.remove(side.other, "reset")
            self.remove(side, "reset")
            return
        if not side.reads and not side.other.reads and not side.waiting and \
                not side.other.waiting:
            self.remove(side.other)
            self.remove(side)
            return
        self.watch(side)
        self.watch(side.other)

    def run(self):
        while True:
            for key, events in self.selector.select():
                if key.fileobj is sys.stdin:
                    if not os.read(0, 4096):
                        return
                elif key.fileobj is self.listener:
                    self.accept()
                elif key.data in self.sides:
                    if events & selectors.EVENT_WRITE:
                        self.write(key.data)
                    if events & selectors.EVENT_READ and key.data in self.sides:
                        self.read(key.data)


def main():
    Proxy(int(sys.argv[1]), [Point(text) for text in sys.argv[2:]]).run()


if __name__ == "__main__":
    main()
