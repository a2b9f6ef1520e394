#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Cuts transfers at the boundaries of their messages.

cut.py [--count N | --all] [--seed N] [--migtool PATH] [--dir DIR]

A relay between send and recv records an undisturbed transfer of each mode, in both directions and on
each connection. The recordings are taken apart into messages (greeting, header, configuration,
sections, records, commands, packets, what comes back). Then, for N of the boundaries at random or
for --all, the relay passes on what stands before the boundary and cuts everything; and once more in
the middle of the message behind it. Afterwards the promises have to hold, as in faults.py.
"""
import concurrent.futures
import os
import socket
import sys
import threading

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import faults  # noqa: E402

MODES = ["plain", "directory", "multifd", "multifd-zstd", "compress", "xbzrle"]
MAGIC = b"migtool\n"
MULTIFD = b"\x11\x22\x33\x44"
PAGE = 4096
ZERO, MEM_SIZE, PLAIN, EOS, CONTINUE, XBZRLE, COMPRESS, FLUSH, RUN, ZERO_RUN = (
    0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x100, 0x200, 0x400, 0x800)


class Reader:
    """Takes a recording apart; `at` is noted where a message begins."""

    def __init__(self, data):
        self.data, self.at, self.marks = data, 0, []

    def mark(self):
        self.marks.append(self.at)

    def number(self, size):
        self.at += size
        assert self.at <= len(self.data), "the recording ends inside a message"
        return int.from_bytes(self.data[self.at - size:self.at], "big")

    def more(self):
        return self.at < len(self.data)

    def skip(self, count):
        self.at += count

    def frame(self):
        self.mark()
        self.skip(8)
        self.skip(self.number(4))

    # ---- source to destination ----

    def record(self):
        """True: the section goes on."""
        self.mark()
        word = self.number(8)
        flags, kind = word % PAGE, word % PAGE & ~CONTINUE
        if kind in (EOS, FLUSH):
            return kind != EOS
        if kind == MEM_SIZE:
            left = word - flags
            while left:
                self.skip(self.number(1))
                left -= self.number(8)
            return True
        if not flags & CONTINUE:
            self.skip(self.number(1))
        if kind == ZERO:
            self.skip(1)
        elif kind == PLAIN:
            self.skip(PAGE)
        elif kind == XBZRLE:
            self.skip(1)
            self.skip(self.number(2))
        elif kind == COMPRESS:
            self.skip(self.number(4))
        elif kind == RUN:
            self.skip(self.number(4) * PAGE)
        elif kind == ZERO_RUN:
            self.skip(8)
        else:
            raise ValueError(f"record {flags:#x}")
        return True

    def section(self, kind):
        self.skip(4)
        if kind == 1:
            self.skip(self.number(1) + 8)
        while self.record():
            pass
        self.mark()
        self.skip(5)

    def element(self):
        self.mark()
        kind = self.number(1)
        if kind in (1, 2, 3):
            self.section(kind)
        elif kind == 8:
            command = self.number(2)
            self.skip(self.number(4 if command >= 0x4000 else 2))
        elif kind == 6:
            self.skip(self.number(4))
        elif kind != 0:
            raise ValueError(f"element {kind:#x}")

    def forth(self):
        self.frame()
        self.mark()
        self.skip(8)
        self.mark()
        assert self.number(1) == 7
        self.skip(self.number(4))
        while self.more():
            self.element()

    def channel(self):
        self.mark()
        self.skip(64)
        while self.more():
            self.mark()
            self.skip(16)
            runs, payload = self.number(4), self.number(4)
            self.skip(16 + 12 * runs + payload)

    # ---- back ----

    def back(self):
        self.frame()
        while self.more():
            self.mark()
            kind = self.number(2)
            self.skip(self.number(4 if kind >= 0x4000 else 2))


class Relay:
    """Passes connections from one unix socket on to another. `cut`: (connection, direction, bytes)
    after which all of them end."""

    def __init__(self, here, there, cut=None):
        self.there, self.cut = there, cut
        self.recorded = {}  # (connection, direction): bytes
        self.pairs = []
        self.lock = threading.Lock()
        self.over = False
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(here)
        self.listener.listen(64)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                a, _ = self.listener.accept()
                b = socket.socket(socket.AF_UNIX)
                b.connect(self.there)
            except OSError:
                return
            with self.lock:
                number = len(self.pairs)
                self.pairs.append((a, b))
                over = self.over
            if over:
                self.end()
                return
            for direction, x, y in (("forth", a, b), ("back", b, a)):
                self.recorded[number, direction] = bytearray()
                threading.Thread(target=self.pump, args=(number, direction, x, y),
                                 daemon=True).start()

    def pump(self, number, direction, x, y):
        done = self.recorded[number, direction]
        mine = self.cut and self.cut[:2] == (number, direction)
        try:
            while True:
                left = self.cut[2] - len(done) if mine else 1 << 16
                data = x.recv(left) if left else b""
                if left:
                    done += data
                    if data:
                        y.sendall(data)
                        continue
                    y.shutdown(socket.SHUT_WR)
                else:
                    self.end()
                return
        except OSError:
            pass

    def end(self):
        with self.lock:
            self.over = True
            pairs = list(self.pairs)
        for s in (s for pair in pairs for s in pair):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.end()
        self.listener.close()
        for s in (s for pair in self.pairs for s in pair):
            s.close()


class Case(faults.Case):
    def __init__(self, owner, mode, name, cut=None):
        super().__init__(owner, mode, name)
        self.relay = Relay(os.path.join(self.dir, "relay"), os.path.join(self.dir, "socket"), cut)

    def command(self, end, fault):
        args, env = super().command(end, None)
        if end == "send":
            args[-1] = "unix:" + os.path.join(self.dir, "relay")
        return args, env

    def close(self):
        self.relay.close()
        super().close()


class Cuts(faults.Faults):
    @staticmethod
    def options(p):
        p.set_defaults(preload=None)

    def boundaries(self, mode):
        case = Case(self, mode, "whole-" + mode)
        case.run("send", "poll:0:EINTR")
        wrong = list(case.judge("send", "poll:0:EINTR"))
        assert not wrong, (mode, wrong, case.said)
        for (number, direction), data in sorted(case.relay.recorded.items()):
            if not data:
                continue
            r = Reader(bytes(data))
            if direction == "back":
                r.back()
            elif data[:4] == MULTIFD:
                r.channel()
            else:
                r.forth()
            for mark, following in zip(r.marks, r.marks[1:] + [len(data)]):
                yield mode, (number, direction, mark)
                yield mode, (number, direction, (mark + following) // 2)
        case.close()

    def one_cut(self, i, mode, cut):
        case = Case(self, mode, f"cut-{i}", cut)
        case.run("send", "cut")
        wrong = list(case.promises())
        for end, status in case.status.items():
            if status not in (0, None) and "error: " not in case.said[end]:
                wrong.append(f"{end} failed without a word")
        text = f"FAILED: {'; '.join(wrong)} ({mode}, {cut}: {case.status})\n" + "".join(
            f"  {e}: {line}\n" for e in case.said for line in case.said[e].splitlines()[-3:])
        how = tuple(case.status.get(e) for e in ("send", "recv"))
        case.close()
        return text if wrong else "", how

    def run(self, args):
        points = [p for mode in MODES for p in self.boundaries(mode)]
        print(f"{len(points)} points", flush=True)
        if not args.all and args.count < len(points):
            points = self.rng.sample(points, args.count)
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            jobs = [pool.submit(self.one_cut, i, *p) for i, p in enumerate(points)]
            for job in jobs:
                text, how = job.result()
                self.failures += bool(text)
                print(text, end="", flush=True)
                self.counts[how] += 1
        for how, n in sorted(self.counts.items(), key=str):
            print(f"  {n:5} times send ended with {how[0]}, recv with {how[1]}")
        print(f"{len(points)} cuts, {self.failures} failures")


if __name__ == "__main__":
    faults.main(Cuts, __doc__)
