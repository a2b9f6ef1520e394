#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Ends transfers at random points and looks at what is left.

soak.py [--count N] [--cuts N] [--seed N] [--only WORD] [--migtool PATH] [--dir DIR]

Each round sends an image to a recv on loopback in a random mode and, at a random point, does one of:
SIGINT or SIGTERM to either side, SIGKILL to either side, the connection cut by a relay between them.
Afterwards the promises have to hold: under the final name stands nothing or the whole image; whoever
was not killed has ended with one of its statuses, in time, and has left no .part (but after READY);
the source's file is as it was; and the same transfer, not disturbed, succeeds.

Then CUTS links break (--cuts, none) at up to three random points each, with --retry on both ends: every
one has to end with the image, verified, and with status 0 at both ends. Prints the seed, a line a
failure, and the counts; the status is 1 if there was any failure.
"""
import argparse
import collections
import hashlib
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

MIB = 1 << 20
CUT_PROXY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tools", "cut_proxy.py")
MODES = [
    [],
    ["--cap", "multifd=on"],
    ["--cap", "multifd=on", "--param", "multifd-compression=zstd"],
    ["--cap", "multifd=on", "--param", "multifd-compression=zlib",
     "--param", "multifd-channels=4"],
    ["--cap", "compress=on", "--param", "compress-threads=2"],
    ["--bwlimit", "20M"],
]
FAULTS = ["int-send", "int-recv", "term-send", "term-recv", "kill-send", "kill-recv", "cut"]
# What whoever lives may end with: the fault itself, or what it does to a connection.
STATUSES = {0, 5, 10, 12, 20, 30, 35, 50}


def digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest() if hasattr(hashlib, "file_digest") \
            else hashlib.sha256(f.read()).hexdigest()


class Relay:
    """Passes connections on to a port; cut() resets them all."""

    def __init__(self, port):
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.socks = []
        self.over = False
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        while not self.over:
            ready, _, _ = select.select([self.listener], [], [], 0.1)
            if not ready:
                continue
            a, _ = self.listener.accept()
            try:
                b = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                a.close()
                continue
            self.socks += [a, b]
            for x, y in ((a, b), (b, a)):
                threading.Thread(target=self.pump, args=(x, y), daemon=True).start()

    @staticmethod
    def pump(x, y):
        try:
            while data := x.recv(1 << 18):
                y.sendall(data)
            y.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def cut(self):
        for s in self.socks:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.over = True
        self.thread.join()
        self.listener.close()
        for s in self.socks:
            s.close()


class Soak:
    def __init__(self, args, work):
        self.migtool, self.work = args.migtool, work
        self.random = random.Random(args.seed)
        self.faults = [f for f in FAULTS if args.only in f]
        self.image = os.path.join(work, "source.img")
        self.out = os.path.join(work, "out.img")
        self.make_image()
        self.want = digest(self.image)
        self.counts = collections.Counter()
        self.failures = 0

    def make_image(self):
        with open(self.image, "wb") as f:
            f.truncate(64 * MIB)
            for _ in range(60):
                at = self.random.randrange(63 * MIB) & ~4095
                data = self.random.randbytes(64 << 10)
                f.seek(at)
                f.write(data * self.random.randrange(1, 8))
            f.truncate(64 * MIB)

    def clean(self):
        for name in os.listdir(self.work):
            if name.startswith("out.img"):
                os.unlink(os.path.join(self.work, name))

    def start(self, mode, relay):
        r, w = os.pipe()
        recv = subprocess.Popen([self.migtool, "recv", "-qq", "--ready-fd", str(w), "--timeout",
                                 "20", "tcp:127.0.0.1:0", self.out], pass_fds=[w],
                                stderr=subprocess.DEVNULL)
        os.close(w)
        with os.fdopen(r) as f:
            port = int(f.readline().rsplit(":", 1)[1])
        through = Relay(port) if relay else None
        send = subprocess.Popen([self.migtool, "send", "-qq", "--timeout", "20", *mode, self.image,
                                 f"tcp:127.0.0.1:{through.port if through else port}"],
                                stderr=subprocess.DEVNULL)
        return send, recv, through

    def end(self, process, name, seconds=40):
        try:
            return process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.fail(f"{name} hung")
            return None

    def fail(self, what):
        self.failures += 1
        print(f"FAILED: {what} ({self.about})", flush=True)

    def look(self, fault, status):
        """What is left after a fault."""
        if os.path.exists(self.out) and digest(self.out) != self.want:
            self.fail("something else than the image is under the final name")
        if not os.path.exists(self.out) and 0 in (status["send"], status["recv"]):
            self.fail(f"success without an image: {status}")
        for name, code in status.items():
            if code is not None and not fault == f"kill-{name}" and code not in STATUSES:
                self.fail(f"{name} ended with {code}")
        part = os.path.exists(self.out + ".part")
        if part and fault != "kill-recv" and status["recv"] != 50:
            self.fail(f".part is left: {status}")
        if part and status["recv"] == 50 and digest(self.out + ".part") != self.want:
            self.fail("the .part that recv keeps is not the image")
        if digest(self.image) != self.want:
            self.fail("the source's file changed")

    @staticmethod
    def wait_for_hold(process, number):
        """Until it holds the signal: before that no program is there yet to take it."""
        for _ in range(2000):
            if process.poll() is not None:
                return
            with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
                lines = dict(line.split(":", 1) for line in status)
            if int(lines["SigBlk"], 16) >> (number - 1) & 1:
                return
            time.sleep(0.001)

    def strike(self, fault, send, recv, relay):
        if fault == "cut":
            relay.cut()
            return
        kind, side = fault.split("-")
        number = {"int": signal.SIGINT, "term": signal.SIGTERM, "kill": signal.SIGKILL}[kind]
        victim = send if side == "send" else recv
        if kind != "kill":
            self.wait_for_hold(victim, number)
        victim.send_signal(number)

    def undisturbed(self, mode):
        """The seconds it takes; the faults' points are within them."""
        self.clean()
        send, recv, _ = self.start(mode, False)
        begin = time.monotonic()
        status = (self.end(send, "send"), self.end(recv, "recv"))
        if status != (0, 0) or digest(self.out) != self.want:
            self.fail(f"an undisturbed transfer: {status}")
        return time.monotonic() - begin

    def round(self, number):
        mode = self.random.choice(MODES)
        fault = self.random.choice(self.faults)
        share = self.random.random()
        self.about = f"round {number}: {fault} at {share:.3f}, {' '.join(mode) or 'plain'}"
        seconds = self.undisturbed(mode)
        self.clean()
        send, recv, relay = self.start(mode, fault == "cut")
        time.sleep(share * seconds)
        self.strike(fault, send, recv, relay)
        status = {"send": self.end(send, "send")}
        # a recv whose source never came listens on, as it should
        if recv.poll() is None:
            time.sleep(0.3)
        if recv.poll() is None and (fault in ("int-send", "term-send", "kill-send", "cut")):
            recv.send_signal(signal.SIGTERM)
        status["recv"] = self.end(recv, "recv")
        if relay:
            relay.close()
        self.look(fault, status)
        self.counts[fault, "whole" if os.path.exists(self.out) else "nothing"] += 1


    # ---- links that break, and both ends go on ----

    def link(self, port, points):
        proxy = subprocess.Popen([CUT_PROXY, str(port), *points], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, text=True)
        return proxy, int(proxy.stdout.readline())

    def points(self, size):
        """In bytes, mostly; one in eight at a word of the stream's end."""
        points = []
        for _ in range(self.random.randrange(1, 4)):
            where = str(int(size * self.random.random() ** 1.5) + 1)
            if self.random.randrange(8) == 0:
                where = self.random.choice(["=400100000028", "=0840030000", "=08400300000000",
                                            "=08400300000000+3"])
            points.append(f"{where}:{self.random.choice(['reset', 'close', 'drop'])}")
        return points

    def broken_link(self, number):
        mode = self.random.choice(MODES)
        old = self.random.choice([[], [], ["--delta"], ["--delta", "--in-place"]])
        points = self.points(os.stat(self.image).st_blocks * 512)
        self.about = f"link {number}: {' '.join(points + mode + old) or 'plain'}"
        self.clean()
        if old:
            with open(self.out, "wb") as f:
                f.write(self.random.randbytes(1 << 20) * 64)
        r, w = os.pipe()
        common = ["-qq", "--timeout", "3", "--retry", "12"]
        recv = subprocess.Popen([self.migtool, "recv", *common, *old, "--ready-fd", str(w),
                                 "tcp:127.0.0.1:0", self.out], pass_fds=[w])
        os.close(w)
        with os.fdopen(r) as f:
            port = int(f.readline().rsplit(":", 1)[1])
        proxy, port = self.link(port, points)
        send = subprocess.Popen([self.migtool, "send", *common, *mode, self.image,
                                 f"tcp:127.0.0.1:{port}"])
        status = (self.end(send, "send", 120), self.end(recv, "recv", 180))
        proxy.stdin.close()
        cuts = proxy.stdout.read().split()
        proxy.wait()
        if status != (0, 0) or not os.path.exists(self.out) or digest(self.out) != self.want:
            self.fail(f"a link that broke: send and recv ended with {status}")
        if any(name.startswith("out.img.") for name in os.listdir(self.work)):
            self.fail("something is left of a link that broke")
        self.counts["link", f"{len(cuts)} cuts, the image"] += 1


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--count", type=int, default=200)
    p.add_argument("--cuts", type=int, default=0)
    p.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    p.add_argument("--only", default="", help="faults with this in their name, as kill")
    p.add_argument("--migtool", default="build/migtool")
    p.add_argument("--dir", default="/dev/shm")
    args = p.parse_args()
    args.migtool = os.path.abspath(args.migtool)
    print(f"SEED={args.seed}, {args.count} rounds, {args.cuts} links", flush=True)
    work = tempfile.mkdtemp(prefix="migtool-soak-", dir=args.dir)
    try:
        soak = Soak(args, work)
        for number in range(1, args.count + 1):
            soak.round(number)
        for number in range(1, args.cuts + 1):
            soak.broken_link(number)
    finally:
        shutil.rmtree(work)
    for (fault, left), n in sorted(soak.counts.items()):
        print(f"  {fault:10} {n:4} times, then {left} under the final name")
    print(f"{args.count} rounds, {soak.failures} failures")
    sys.exit(1 if soak.failures else 0)


if __name__ == "__main__":
    main()
