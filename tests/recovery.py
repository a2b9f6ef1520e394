#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Ends a recv that serves a guest at random points, again and again, and has another one serve on.

recovery.py [--count N] [--seed N] [--only KIND] [--migtool PATH] [--dir DIR]

A round starts one of the kinds of guest (tests/guest/vmm.c), whose memory comes from an image, and ends
recv up to five times: by SIGKILL, by two SIGTERMs, or by SIGKILL together with the process that watches the
guest. After each time another recv takes the guest up. The guest looks at every page while it touches it
and again at the end: number, generation, checksum. Nothing may be wrong, no page zero that should not be; the
last recv has to end with status 0, and nothing may be left. Prints the seed, a line a failure, and how often
what was done; the status is 1 if there was any failure.
"""
import argparse
import collections
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

MIB = 24
# options of the guest, and whether it can do without its watcher
KINDS = {
    "vmm": (["--remove"], False),
    "vmm-regions": (["--regions", "8"], False),
    "shared": (["--file", "shared"], True),
    "private": (["--file", "private"], True),
    "private-forks": (["--file", "private", "--forks", "3"], False),
    "running": (["--file", "shared", "--wait"], True),
}


class Failure(Exception):
    pass


def too_long(_signal, _frame):
    raise Failure("it takes too long: somebody waits for ever")


class Round:
    def __init__(self, soak, kind, work):
        self.soak, self.kind, self.random, self.dir = soak, kind, soak.random, work
        self.copy = os.path.join(work, "copy")
        self.socket = os.path.join(work, "socket")
        self.push = self.random.choice(["on", "off"])
        self.errors = os.path.join(work, "errors")
        self.image = f"image:{soak.image}"
        self.recv = self.guest = None
        self.pid = 0

    # ---- processes ----

    def migtool(self, *args, **pipes):
        pipes = pipes or {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        with open(self.errors, "a", encoding="utf-8") as errors:
            return subprocess.Popen([self.soak.migtool, "recv", f"--push={self.push}", *args],
                                    stderr=errors, **pipes)

    def said(self):
        with open(self.errors, encoding="utf-8") as errors:
            return errors.read()

    def await_words(self, words, process):
        for _ in range(10000):
            if re.search(words, self.said()):
                return
            if process.poll() is not None:
                raise Failure(f"status {process.returncode} instead of '{words}'")
            time.sleep(0.002)
        raise Failure(f"nobody says '{words}'")

    def guest_line(self):
        pid, _, number = self.guest.stdout.readline().partition(" ")
        if pid != "pid":
            raise Failure(f"the guest says '{pid}'")
        self.pid = int(number)

    def start(self):
        """The guest runs when it returns, and is served."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        run = [self.soak.vmm, "run", *KINDS[self.kind][0], "--seed",
               str(self.random.randrange(1000)), "--slow", self.random.choice(["0", "0", "20"])]
        if self.kind.startswith("vmm"):
            self.recv = self.migtool("--uffd-socket", self.socket, self.image)
            self.await_words("waiting for a VMM", self.recv)
            self.guest = subprocess.Popen([*run, self.socket, str(MIB)], **pipes)
            self.pid = self.guest.pid
            self.again = ["--uffd-socket", self.socket, self.image]
            self.await_words("; its memory comes", self.recv)
            return
        if self.kind == "running":
            with open(self.copy, "wb") as f:
                f.truncate(MIB << 20)
            self.guest = subprocess.Popen([*run, self.copy, str(MIB)], **pipes)
            self.guest_line()
            self.recv = self.migtool("--guest", str(self.pid), self.image, self.copy)
            self.await_words("has mapped", self.recv)
            self.guest.stdin.write("\n")
            self.guest.stdin.flush()
        else:
            self.recv = self.migtool(self.image, self.copy, "--", *run, self.copy, str(MIB), **pipes)
            self.guest = self.recv
            self.guest_line()
        self.again = ["--guest", str(self.pid), self.image, self.copy]

    # ---- what happens to it ----

    def lives(self):
        """The guest: not a process that has ended and was not waited for."""
        try:
            with open(f"/proc/{self.pid}/stat", encoding="utf-8") as f:
                return f.read().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False

    def tracer(self):
        try:
            with open(f"/proc/{self.pid}/status", encoding="utf-8") as f:
                return int(re.search(r"TracerPid:\t(\d+)", f.read()).group(1))
        except (OSError, AttributeError):
            return 0

    def strike(self):
        """What was done; None: it had ended by itself."""
        how = self.random.choice(["kill", "kill", "kill", "term", "both"])
        if how == "both" and not KINDS[self.kind][1]:
            how = "kill"
        time.sleep(self.random.random() ** 2 * 0.12)
        if self.recv.poll() is not None:
            return None
        if how == "term":
            # the first one is refused; a second may come before the guest is served
            for _ in range(200):
                self.recv.send_signal(signal.SIGTERM)
                time.sleep(0.01)
                if self.recv.poll() is not None:
                    break
        else:
            watcher = self.tracer() if how == "both" else 0
            self.recv.kill()
            if watcher:
                os.kill(watcher, signal.SIGKILL)
        status = self.end(self.recv, "recv")
        # the first may come too early to be refused, or so late that all is done
        if status not in (0, 20, 50, -signal.SIGKILL, -signal.SIGTERM):
            raise Failure(f"{how}: recv ends with {status}")
        return how

    def end(self, process, name):
        try:
            return process.wait(timeout=60)
        except subprocess.TimeoutExpired as e:
            raise Failure(f"{name} does not end") from e

    def needs(self):
        """Does the guest still wait for somebody?"""
        try:
            with open(f"/proc/{self.pid}/smaps", encoding="utf-8") as f:
                return self.lives() and " um" in f.read()
        except OSError:
            return False

    def undisturbed(self):
        """What is left to do, once nobody strikes any more."""
        # a guest that ends before it has all is a failure of the push
        while self.push == "on" and self.needs():
            if self.recv.poll():
                raise Failure(f"the last recv ends with {self.recv.poll()}")
            time.sleep(0.01)
        self.guest.stdin.close()
        words = self.guest.stdout.read()
        self.soak.pages += MIB << 8
        match = re.search(r"(\d+) pages, (\d+) wrong, (\d+) zero$", words.strip())
        if not match:
            raise Failure(f"the guest says '{words}'")
        self.soak.zeros += int(match.group(3))
        if match.group(2) != "0":
            raise Failure(f"the guest says '{words.strip()}'")
        if self.guest is not self.recv and self.guest.poll() is None:
            self.end(self.guest, "the guest")

    def run(self):
        strikes = self.random.randrange(1, 6)
        self.start()
        for i in range(strikes):
            how = self.strike()
            if not how:
                break
            self.soak.counts[f"{self.kind}, {how}"] += 1
            if not self.lives() or not self.needs():
                break
            self.soak.taken_up += 1
            seen = self.taken_up_again()
            self.recv = self.migtool("--resume", *self.again)
            if i + 1 == strikes or self.random.random() < 0.7:
                self.await_new(seen)
        self.undisturbed()
        if self.recv.poll() is None:
            status = self.end(self.recv, "the last recv")
            if status:
                raise Failure(f"the last recv ends with {status}")
        for _ in range(500):
            if not self.tracer():
                return
            time.sleep(0.01)
        raise Failure("the guest is still watched")

    def taken_up_again(self):
        return self.said().count("taken up again; its")

    def await_new(self, seen):
        """The next one serves, or has nothing to do any more."""
        for _ in range(10000):
            if self.taken_up_again() > seen or self.recv.poll() is not None:
                return
            time.sleep(0.002)
        raise Failure("it is not taken up again")

    def clean(self):
        for process in (self.recv, self.guest):
            if process and process.poll() is None:
                process.kill()
        if self.pid and self.lives():
            os.kill(self.pid, signal.SIGKILL)


class Soak:
    def __init__(self, args, work):
        self.migtool, self.work = args.migtool, work
        self.vmm = os.path.join(os.path.dirname(args.migtool), "guest", "vmm")
        self.random = random.Random(args.seed)
        self.kinds = [k for k in KINDS if args.only in k]
        self.image = os.path.join(work, "image")
        subprocess.run([self.vmm, "make", self.image, str(MIB)], check=True)
        self.counts = collections.Counter()
        self.failures = self.pages = self.zeros = self.taken_up = 0

    def round(self, number, what):
        kind = self.kinds[number % len(self.kinds)]
        work = tempfile.mkdtemp(dir=self.work)
        r = what(self, kind, work)
        signal.alarm(120)
        try:
            r.run()
        except (Failure, OSError) as e:
            self.failures += 1
            print(f"FAILED: round {number}, {kind}, push={r.push}: {e}\n{r.said()}", flush=True)
        finally:
            signal.alarm(0)
            r.clean()
        shutil.rmtree(work)


def arguments(about):
    p = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    p.add_argument("--only", default="", help="kinds of guest with this in their name, as private")
    p.add_argument("--migtool", default="build/migtool")
    p.add_argument("--dir", default="/dev/shm")
    return p


def run_rounds(args, rounds):
    """A class each."""
    args.migtool = os.path.abspath(args.migtool)
    print(f"SEED={args.seed}, {len(rounds)} rounds", flush=True)
    signal.signal(signal.SIGALRM, too_long)
    work = tempfile.mkdtemp(prefix="migtool-recovery-", dir=args.dir)
    try:
        soak = Soak(args, work)
        for number, what in enumerate(rounds):
            soak.round(number, what)
    finally:
        shutil.rmtree(work)
    for what, n in sorted(soak.counts.items()):
        print(f"  {what:34} {n:4} times")
    print(f"taken up {soak.taken_up} times, {soak.pages} pages looked at, {soak.zeros} zero")
    print(f"{len(rounds)} rounds, {soak.failures} failures")
    sys.exit(1 if soak.failures else 0)


def main():
    p = arguments(__doc__)
    p.add_argument("--count", type=int, default=100)
    args = p.parse_args()
    run_rounds(args, [Round] * args.count)


if __name__ == "__main__":
    main()
