#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Lets single calls of the kernel fail in small transfers, and looks at what is left.

faults.py [--count N | --all] [--seed N] [--only WORD] [--migtool PATH] [--preload PATH] [--dir DIR]

Counts the calls that each end of each MODE makes, by tools/faults.c; then, of all (end, mode, class
of calls, number of the call, error), takes N at random or --all: that call fails. Afterwards the
promises have to hold: nothing crashed or hung; under the final name stands nothing or the whole
image, and an exit status of 0 means the image; a .part is left only by a recv that ended with 50;
the source's file is as it was; who failed has said why. An interrupted or short call may not be
seen at all. Prints the seed, a line a failure, the counts; the status is 1 if there was any failure.
"""
import argparse
import collections
import concurrent.futures
import errno
import hashlib
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PAGE = 4096
CLASSES = ["file-read", "file-write", "link-read", "link-write", "sendfile", "space", "sync", "name",
           "map", "place", "open", "descriptor", "connect", "accept", "poll", "thread", "memory"]
# What can happen to a call of each class.
ERRORS = {
    "file-read": ["EIO", "EINTR", "SHORT"],
    "file-write": ["ENOSPC", "EIO", "EINTR", "SHORT"],
    "link-read": ["ECONNRESET", "EINTR", "SHORT"],
    "link-write": ["EPIPE", "EINTR", "SHORT"],
    "sendfile": ["EIO", "EINTR", "SHORT"],
    "space": ["ENOSPC", "EIO", "EINTR"],
    "sync": ["EIO", "EINTR"],
    "name": ["ENOSPC", "EACCES"],
    "map": ["ENOMEM"],
    "place": ["ENOMEM"],
    "open": ["EMFILE", "EACCES"],
    "descriptor": ["EMFILE"],
    "connect": ["ECONNREFUSED"],
    "accept": ["ECONNABORTED", "EMFILE", "EINTR"],
    "poll": ["EINTR"],
    "thread": ["EAGAIN"],
    "memory": ["ENOMEM"],
}
HARMLESS = {"EINTR", "SHORT"}
STORMS = [f"{c}:~3:{e}" for e in ("EINTR", "SHORT") for c in CLASSES if e in ERRORS[c]]
# name: (image, options of send, options of recv)
MODES = {
    "plain": ("file", [], []),
    "directory": ("directory", [], []),
    "multifd": ("file", ["--cap", "multifd"], []),
    "multifd-zstd": ("file", ["--cap", "multifd", "--param", "multifd-compression=zstd"], []),
    "multifd-zlib": ("file", ["--cap", "multifd", "--param", "multifd-compression=zlib"], []),
    "compress": ("file", ["--cap", "compress"], []),
    "xbzrle": ("file", ["--cap", "xbzrle", "--base", "BASE"], ["--delta"]),
}
LIMIT = 30  # seconds; --timeout is 5


def content(path):
    """Of a file or of all files of a directory."""
    total = hashlib.sha256()
    files = [path] if os.path.isfile(path) else sorted(
        os.path.join(d, f) for d, _, names in os.walk(path) for f in names if f != "manifest.json")
    for name in files:
        total.update(os.path.relpath(name, path).encode())
        with open(name, "rb") as f:
            total.update(f.read())
    return total.digest()


def fill(path, rng, pages):
    """Random pages, pages that compress, stored zeros, a hole."""
    with open(path, "wb") as f:
        for i in range(pages):
            kind = i * 4 // pages
            if kind == 3:
                break
            f.write([rng.randbytes(PAGE), bytes([i + 1]) * PAGE, bytes(PAGE)][kind])
        f.truncate(pages * PAGE)


class Case:
    """One transfer in a directory of its own."""

    def __init__(self, faults, mode, name):
        self.faults, self.mode = faults, mode
        self.image, self.send_options, self.recv_options = MODES[mode]
        self.dir = os.path.join(faults.work, name)
        os.mkdir(self.dir)
        self.out = os.path.join(self.dir, "out")
        if mode == "xbzrle":
            shutil.copyfile(faults.base, self.out)
        self.status, self.said = {}, {}

    def command(self, end, fault):
        f, env = self.faults, dict(os.environ)
        if fault is not None:
            env.update(FAULTS=fault, FAULTS_STATE=os.path.join(self.dir, end + ".state"),
                       FAULTS_SEED=str(f.seed), LD_PRELOAD=f.preload)
            env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
        socket = "unix:" + os.path.join(self.dir, "socket")
        if end == "recv":
            args = ["--ready-fd", "9", *self.recv_options, socket, self.out]
        else:
            args = [f.base if a == "BASE" else a for a in self.send_options]
            args += [f.images[self.image], socket]
        return [f.migtool, end, "--timeout", "5", "--progress=none", *args], env

    def start(self, end, fault, **more):
        args, env = self.command(end, fault)
        with open(os.path.join(self.dir, end + ".err"), "wb") as err:
            return subprocess.Popen(args, env=env, stdin=subprocess.DEVNULL,
                                    stdout=subprocess.DEVNULL, stderr=err, **more)

    def listening(self, process, r):
        with os.fdopen(r) as f:
            return bool(f.readline()) and process.poll() is None

    def run(self, end, fault):
        """`end` has the fault. True: nothing hung."""
        r, w = os.pipe()
        os.set_inheritable(w, True)
        recv = self.start("recv", fault if end == "recv" else None, close_fds=False,
                          preexec_fn=lambda: os.dup2(w, 9))
        os.close(w)
        if self.listening(recv, r):
            send = self.start("send", fault if end == "send" else None)
            self.wait("send", send)
            try:
                recv.wait(timeout=1.5)
            except subprocess.TimeoutExpired:
                recv.terminate()
        self.wait("recv", recv)
        return None not in self.status.values()

    def wait(self, end, process):
        try:
            self.status[end] = process.wait(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.status[end] = None
        with open(os.path.join(self.dir, end + ".err"), errors="replace") as f:
            self.said[end] = f.read()

    def calls(self, end):
        """How often each class was called; how many calls failed."""
        with open(os.path.join(self.dir, end + ".state"), "rb") as f:
            numbers = struct.unpack(f"{len(CLASSES) + 1}Q", f.read())
        return dict(zip(CLASSES, numbers)), numbers[-1]

    # ---- judging ----

    def judge(self, end, fault):
        """What is not as promised."""
        yield from self.promises()
        yield from self.judge_words(end, fault.rsplit(":", 1)[1])

    def promises(self):
        """Those that hold whatever happened."""
        want = self.faults.want[self.image]
        before = self.faults.want_base if self.mode == "xbzrle" else None
        there = content(self.out) if os.path.exists(self.out) else None
        part = os.path.exists(self.out + ".part")
        send, recv = self.status.get("send"), self.status["recv"]
        if None in self.status.values():
            yield "hung"
        if any(s is not None and (s < 0 or s in (99, 134, 139)) for s in self.status.values()):
            yield "crashed"
        if there not in (want, before):
            yield "something else than the image is under the final name"
        if 0 in (send, recv) and there != want:
            yield "success without the image"
        if there == want and recv not in (0, 50):
            yield "the image is there, and recv failed"
        if part and recv != 50:
            yield ".part is left"
        if part and content(self.out + ".part") != want:
            yield "the .part that is kept is not the image"
        if content(self.faults.images[self.image]) != want:
            yield "the source's image changed"

    def judge_words(self, end, how):
        if how in HARMLESS:
            if (self.status.get("send"), self.status["recv"]) != (0, 0):
                yield "an interrupted or short call was noticed"
            return
        if "virtual memory exhausted" in self.said.get(end, ""):
            return  # popt's last word: it ends the program
        if self.status.get(end, 0) not in (0, None) and "error: " not in self.said[end]:
            yield "failed without a word"
        reason = "memory" if how == "ENOMEM" else os.strerror(getattr(errno, how))
        known = [reason.lower(), "no space left", "cannot start", "no descriptor", "ended", "refused"]
        if self.status.get(end, 0) != 0 and not any(k in self.said[end].lower() for k in known):
            yield f"failed without naming the reason ({reason})"

    def close(self):
        shutil.rmtree(self.dir)


class Faults:
    @staticmethod
    def options(p):
        """Those of the command line that are this kind's alone."""
        p.add_argument("--only", help="points that have this in them, as 'recv plain memory'")
        p.add_argument("--preload", default=os.path.join(HERE, "../build/tools/faults.so"))

    def __init__(self, args, work):
        self.migtool, self.seed, self.work = os.path.abspath(args.migtool), args.seed, work
        self.preload = args.preload and os.path.abspath(args.preload)
        self.rng = random.Random(args.seed)
        self.images = {"file": os.path.join(work, "image"), "directory": os.path.join(work, "guest")}
        self.base = os.path.join(work, "base")
        self.make_images()
        self.want = {k: content(v) for k, v in self.images.items()}
        self.want_base = content(self.base)
        self.counts = collections.Counter()
        self.failures = 0

    def make_images(self):
        fill(self.images["file"], self.rng, 48)
        os.makedirs(os.path.join(self.images["directory"], "ram"))
        for name in ("pc.ram", "pc.rom"):
            fill(os.path.join(self.images["directory"], "ram", name), self.rng, 16)
        with open(os.path.join(self.images["directory"], "device-state"), "wb") as f:
            f.write(self.rng.randbytes(3000))
        with open(self.images["file"], "rb") as f:
            data = bytearray(f.read())
        for at in range(0, len(data) // 2, PAGE):
            data[at + 100] ^= 1
        with open(self.base, "wb") as f:
            f.write(data)

    def one(self, number, end, mode, fault):
        """Runs one case; returns what failed, and whether a call did."""
        case = Case(self, mode, f"{number}")
        case.run(end, fault)
        wrong = list(case.judge(end, fault))
        fired = False
        if end in case.status and os.path.exists(os.path.join(case.dir, end + ".state")):
            fired = case.calls(end)[1] > 0
        text = ""
        if wrong:
            text = f"FAILED: {'; '.join(wrong)} ({end}, {mode}, {fault}: {case.status})\n" + \
                "".join(f"  {e}: {line}\n" for e in case.said for line in
                        case.said[e].splitlines()[-4:])
        case.close()
        return text, fired, case.status.get(end)

    def points(self, mode):
        """All single faults of a mode."""
        for end in ("send", "recv"):
            case = Case(self, mode, f"count-{end}-{mode}")
            case.run(end, "poll:4000000000:EINTR")
            wrong = list(case.judge(end, "poll:0:EINTR"))
            if wrong:
                self.failures += 1
                print(f"FAILED: {wrong} ({end}, {mode}, undisturbed)", case.said, flush=True)
            calls, _ = case.calls(end)
            case.close()
            for c in CLASSES:
                for n in range(1, calls[c] + 1):
                    for e in ERRORS[c]:
                        yield end, mode, f"{c}:{n}:{e}"
            for storm in STORMS:
                if calls[storm.split(":")[0]]:
                    yield end, mode, storm

    def choose(self, args):
        points = [p for mode in MODES for p in self.points(mode)]
        if args.only:
            points = [p for p in points if args.only in " ".join(p)]
        print(f"{len(points)} points", flush=True)
        if args.all or args.count >= len(points):
            return points
        # every class and error is as likely as any other, however often it is called
        kinds = collections.defaultdict(list)
        for p in points:
            c, n, e = p[2].split(":")
            kinds[p[0], c, e, n[0] == "~"].append(p)
        return [self.rng.choice(kinds[self.rng.choice(sorted(kinds))]) for _ in range(args.count)]

    def run(self, args):
        points = self.choose(args)
        begin = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            jobs = [pool.submit(self.one, i, *p) for i, p in enumerate(points)]
            for p, job in zip(points, jobs):
                text, fired, status = job.result()
                if text:
                    self.failures += 1
                    print(text, end="", flush=True)
                how = "not reached" if not fired else "survived" if status == 0 else "failed well"
                self.counts[p[2].split(":")[0], "wrong" if text else how] += 1
        for (c, how), n in sorted(self.counts.items()):
            print(f"  {c:10} {n:5} times {how}")
        print(f"{len(points)} faults in {time.monotonic() - begin:.0f} s, {self.failures} failures")


def main(kind, description):
    """The program that runs a kind (a class) of faults as its command line says."""
    p = argparse.ArgumentParser(description=description,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--count", type=int, default=100)
    p.add_argument("--all", action="store_true")
    p.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    p.add_argument("--jobs", type=int, default=4)
    p.add_argument("--migtool", default=os.path.join(HERE, "../build/migtool"))
    p.add_argument("--dir", default="/dev/shm")
    kind.options(p)
    args = p.parse_args()
    print(f"SEED={args.seed}", flush=True)
    work = tempfile.mkdtemp(prefix=f"migtool-{kind.__name__.lower()}-", dir=args.dir)
    try:
        faults = kind(args, work)
        faults.run(args)
    finally:
        shutil.rmtree(work)
    sys.exit(1 if faults.failures else 0)


if __name__ == "__main__":
    main(Faults, __doc__)
